"""/templates: the operator's words. A version never changes; publishing an older one is the rollback."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import sqlalchemy as sa
from babel import Locale, UnknownLocaleError
from fastapi import APIRouter, Path, Query, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalogue.models import NotificationType
from app.core import audit
from app.core.auth import MayReadTemplates, MayWriteTemplates
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import Conflict, NotFound, field_invalid
from app.core.http import Guarded
from app.core.ids import new_id
from app.core.page import Page, Paging, encode_cursor
from app.core.preconditions import IfMatch, etag, require_match
from app.rendering.models import Template

router = APIRouter(prefix="/templates", tags=["templates"], route_class=Guarded)

Channel = Literal["sms", "email"]
Number = Annotated[int, Path(ge=1, le=2**31 - 1, description="The version")]


def _known_locale(value: str) -> str:
    tags = value.split("-")
    try:
        Locale.parse("_".join(tags))
    except (UnknownLocaleError, ValueError):
        raise ValueError("Name a language that there is, e.g. ru, en or ru-RU.") from None
    return "-".join(tag.upper() if number and len(tag) == 2 else tag for number, tag in enumerate(tags))


Tag = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?$", max_length=16), AfterValidator(_known_locale)]


class TemplateIn(BaseModel):
    """The place for words: one for each type, channel and locale."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(default=None, description="For people; made of type and locale when left out")
    type: Annotated[str, Field(min_length=1, max_length=100, description="A notification type", examples=["payment.received"])]
    channel: Channel
    locale: Tag = Field(examples=["ru"])


class TemplatePatch(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=200)]


class TemplateOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: UUID
    name: str
    type: str
    channel: Channel
    locale: str
    published_version: int | None = Field(description="The one that is sent; null: none")
    archived_at: datetime | None = Field(description="Put away: not sent, and shown only to who asks for it")
    archived_version: int | None = Field(description="Of an archived one: what was sent, and is sent again when it is restored")
    used_at: datetime | None = Field(description="First published, or sent as a test; null: never, and it can be deleted")
    revision: int
    created_at: datetime
    updated_at: datetime


class TemplateCloneIn(BaseModel):
    """Where the copy stands. What is left out is as with the original; one of type, channel and locale has to be another."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    type: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    channel: Channel | None = None
    locale: Tag | None = None


@router.get("", operation_id="list_templates", summary="Templates, by type, channel and locale")
async def list_templates(
    session: SessionDep,
    page: Paging,
    caller: MayReadTemplates,
    type: Annotated[str | None, Query(max_length=100)] = None,  # noqa: A002 - the word of the contract
    *,
    channel: Channel | None = None,
    locale: Annotated[str | None, Query(max_length=16)] = None,
    archived: Annotated[bool, Query(description="Those that are archived, instead of those that are not")] = False,
) -> Page[TemplateOut]:
    query = sa.select(Template).where(sa.column("archived_at").is_not(None) if archived else sa.column("archived_at").is_(None))
    query = query.order_by(sa.column("id")).limit(page.limit + 1)
    for name, wanted in (("type", type), ("channel", channel), ("locale", locale)):
        if wanted is not None:
            query = query.where(sa.column(name) == wanted)
    if key := page.key(UUID):
        query = query.where(sa.column("id") > key[0])
    rows = (await session.execute(query)).scalars().all()
    return Page(items=[shown(row) for row in rows[: page.limit]], next_cursor=encode_cursor(rows[page.limit - 1].id) if len(rows) > page.limit else None)


@router.post("", operation_id="create_template", summary="Add a template", status_code=201)
async def create_template(given: TemplateIn, session: SessionDep, response: Response, caller: MayWriteTemplates) -> TemplateOut:
    """An empty place: nothing is sent with it before a version is published."""
    row = await added(session, given)
    await audit.record(session, caller, "template.create", f"template:{row.id}", given.model_dump(exclude={"name"}))
    response.headers["ETag"] = etag(row.revision)
    return shown(row)


@router.get("/{template_id}", operation_id="get_template", summary="One template")
async def get_template(template_id: UUID, session: SessionDep, response: Response, caller: MayReadTemplates) -> TemplateOut:
    row = await found(session, template_id)
    response.headers["ETag"] = etag(row.revision)
    return shown(row)


@router.patch("/{template_id}", operation_id="rename_template", summary="Give a template another name")
async def rename_template(
    template_id: UUID, given: TemplatePatch, session: SessionDep, response: Response, caller: MayWriteTemplates, *, if_match: IfMatch = None
) -> TemplateOut:
    row = await found(session, template_id, lock=True)
    require_match(if_match, row.revision)
    if row.name != given.name:
        await audit.record(session, caller, "template.rename", f"template:{row.id}", {"name": [row.name, given.name]})
        row.name = given.name
        touch(row)
    response.headers["ETag"] = etag(row.revision)
    return shown(row)


async def added(session: AsyncSession, given: TemplateIn) -> Template:
    """A new template without words. Invalid without its type, Conflict where there is one."""
    if await session.get(NotificationType, given.type) is None:
        raise field_invalid(("type",), "unknown_type", "The catalogue has no such notification type.")
    values = {"id": new_id(), **given.model_dump(), "revision": 1, "created_at": now(), "updated_at": now()}
    values["name"] = given.name or f"{given.type} ({given.locale})"
    row = (await session.execute(insert(Template).values(values).on_conflict_do_nothing().returning(Template))).scalar_one_or_none()
    if row is None:
        raise Conflict("There is a template of this type, channel and locale, perhaps an archived one: add a version to it.", code="template_exists")
    return row


async def found(session: AsyncSession, template_id: UUID, *, lock: bool = False) -> Template:
    row = await session.get(Template, template_id, with_for_update=True if lock else None)
    if row is None:
        raise NotFound("There is no such template.")
    return row


def touch(row: Template) -> None:
    row.revision, row.updated_at = row.revision + 1, now()


def shown(row: Template) -> TemplateOut:
    return TemplateOut.model_validate(row.model_dump())
