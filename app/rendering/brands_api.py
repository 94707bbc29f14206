"""/brands: as whom accounts are written to. A change holds for what is written from now on; the sender, also for letters that wait."""

from datetime import datetime
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Path, Response
from pydantic import ConfigDict
from sqlalchemy.ext.asyncio import AsyncSession

from app.attachments.content import IMAGES
from app.core import audit
from app.core.auth import MayReadTemplates, MayWriteTemplates
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import Conflict, FieldError, Invalid, NotFound, field_invalid
from app.core.http import Guarded
from app.core.page import Page, Paging, encode_cursor
from app.core.preconditions import IfMatch, etag, require_match
from app.rendering.brands import BrandSettings, Name
from app.rendering.layouts_api import UNDRESSED, is_there, objections
from app.rendering.letters import DEFAULT
from app.rendering.looks import ALONE, brands_of, layouts_of
from app.rendering.models import Brand
from app.rendering.payees import loses_payee

router = APIRouter(prefix="/brands", tags=["brands"], route_class=Guarded)

LARGEST_LOGO = 1 << 20  # octets: it goes with every letter of the brand
DEFAULT_BRAND = sa.text("SELECT name FROM brand WHERE CAST(settings ->> 'is_default' AS bool) AND name <> :name")
# Kept until the commit: it is not deleted under our hands.
LOGO = sa.text("SELECT content_type, size FROM attachment WHERE id = :id FOR KEY SHARE")
WAITING = sa.text("SELECT EXISTS (SELECT FROM outbox o JOIN message m ON m.id = o.message_id WHERE m.brand = :name)")
NamePath = Annotated[Name, Path(description="The brand. Among several that fit an account the first by name is taken")]


class BrandOut(BrandSettings):
    model_config = ConfigDict(extra="forbid")

    name: str
    revision: int
    updated_at: datetime
    updated_by: str


@router.get("", operation_id="list_brands", summary="Brands, by name")
async def list_brands(session: SessionDep, page: Paging, caller: MayReadTemplates) -> Page[BrandOut]:
    query = sa.select(Brand).order_by(sa.column("name")).limit(page.limit + 1)
    if key := page.key(str):
        query = query.where(sa.column("name") > key[0])
    rows = (await session.execute(query)).scalars().all()
    return Page(items=[shown(row) for row in rows[: page.limit]], next_cursor=encode_cursor(rows[page.limit - 1].name) if len(rows) > page.limit else None)


@router.get("/{name}", operation_id="get_brand", summary="One brand")
async def get_brand(name: NamePath, session: SessionDep, response: Response, caller: MayReadTemplates) -> BrandOut:
    row = await found(session, name)
    response.headers["ETag"] = etag(row.revision)
    return shown(row)


@router.put("/{name}", operation_id="put_brand", summary="Create or change a brand", responses={201: {"model": BrandOut, "description": "Created"}})
async def put_brand(
    name: NamePath, given: BrandSettings, session: SessionDep, response: Response, caller: MayWriteTemplates, *, if_match: IfMatch = None
) -> BrandOut:
    """The account's brand is the first by name whose `match` fits its attributes, else the default one, else none: then letters go as the gateway says."""
    await session.execute(ALONE)
    await check(session, name, given)
    settings, row = given.model_dump(mode="json", exclude_unset=True), await session.get(Brand, name)
    response.status_code = 200 if row is not None else 201
    if row is None:
        row = Brand(name=name, settings=settings, updated_by=caller.name, updated_at=now())
        session.add(row)
        await audit.record(session, caller, "brand.create", f"brand:{name}", settings)
    else:
        require_match(if_match, row.revision)
        if row.settings != settings:
            changed: dict[str, Any] = {key: [row.settings.get(key), settings.get(key)] for key in sorted({*row.settings, *settings})}
            await audit.record(session, caller, "brand.update", f"brand:{name}", {key: pair for key, pair in changed.items() if pair[0] != pair[1]})
            row.settings, row.revision, row.updated_at, row.updated_by = settings, row.revision + 1, now(), caller.name
    response.headers["ETag"] = etag(row.revision)
    return shown(row)


@router.delete("/{name}", operation_id="delete_brand", summary="Delete a brand that no waiting message is of", status_code=204)
async def delete_brand(name: NamePath, session: SessionDep, caller: MayWriteTemplates) -> None:
    await session.execute(ALONE)
    row = await found(session, name, lock=True)
    brands = await brands_of(session)
    if (fault := await loses_payee(session, brands, brands.with_other(name, None))) is not None:
        raise Conflict(fault.detail, code="brand_in_use")
    if (await session.execute(WAITING, {"name": name})).scalar():
        raise Conflict("Messages in its name wait to be sent: take its `match` away first, and wait until they are gone.", code="brand_in_use")
    await session.delete(row)
    await audit.record(session, caller, "brand.delete", f"brand:{name}", {key: [value, None] for key, value in row.settings.items()})


async def check(session: AsyncSession, name: str, given: BrandSettings) -> None:
    """What it names is there, there is no second default one, and every letter that is sent could be written in its name. Invalid or Conflict otherwise."""
    if given.layout is not None and not await is_there(session, given.layout):
        raise field_invalid(("layout",), "unknown_layout", f"There is no layout {given.layout}.")
    if given.logo is not None:
        file: Any = (await session.execute(LOGO, {"id": given.logo})).first()
        if file is None:
            raise field_invalid(("logo",), "unknown_attachment", "There is no uploaded file of this id.")
        if file.content_type not in IMAGES:
            raise field_invalid(("logo",), "not_a_picture", f"A logo is a picture, and this is {file.content_type}.")
        if file.size > LARGEST_LOGO:
            raise field_invalid(("logo",), "too_large", f"A logo goes with every letter: it may have at most {LARGEST_LOGO >> 20} MiB.")
    if given.is_default and (other := (await session.execute(DEFAULT_BRAND, {"name": name})).scalar()) is not None:
        raise Conflict(f"{other} is the default brand: take `is_default` from it first.", code="default_brand_exists")
    if given.layout not in (None, DEFAULT):
        layout = (await layouts_of(session))[given.layout]
        if faults := await objections(session, layout, UNDRESSED):
            raise Invalid(f"/layout: {faults[0].detail}", errors=[FieldError("/layout", fault.code, fault.detail) for fault in faults[:50]])
    brands = await brands_of(session)
    if (fault := await loses_payee(session, brands, brands.with_other(name, given))) is not None:
        raise Invalid(f"{fault.pointer}: {fault.detail}", errors=[fault])


async def found(session: AsyncSession, name: str, *, lock: bool = False) -> Brand:
    row = await session.get(Brand, name, with_for_update=True if lock else None)
    if row is None:
        raise NotFound(f"There is no brand {name}.", code="brand_not_found")
    return row


def shown(row: Brand) -> BrandOut:
    return BrandOut(name=row.name, revision=row.revision, updated_at=row.updated_at, updated_by=row.updated_by, **row.settings)
