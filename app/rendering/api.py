"""/templates: the operator's words. A version never changes; publishing an older one is the rollback."""

from datetime import datetime
from typing import Annotated, Any, Literal
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
from app.core.errors import Conflict, FieldError, Invalid, NotFound, field_invalid
from app.core.http import Guarded
from app.core.ids import new_id
from app.core.page import Page, Paging, encode_cursor
from app.core.preconditions import IfMatch, etag, require_match
from app.rendering.models import Template, TemplateVersion
from app.rendering.proof import unparsable, unpublishable

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
    published_version: int | None = Field(description="The one that is sent; null: none yet")
    revision: int
    created_at: datetime
    updated_at: datetime


class VersionIn(BaseModel):
    """Jinja sources. An e-mail has subject and text, and may have html; an SMS has a text alone."""

    model_config = ConfigDict(extra="forbid")

    subject: Annotated[str, Field(min_length=1, max_length=2_000)] | None = None
    text: Annotated[str, Field(min_length=1, max_length=65_536)] | None = None
    html: Annotated[str, Field(min_length=1, max_length=131_072)] | None = None


class VersionOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    template_id: UUID
    version: int
    published: bool
    subject: str | None
    text: str | None
    html: str | None
    created_at: datetime
    created_by: str


@router.get("", operation_id="list_templates", summary="Templates, by type, channel and locale")
async def list_templates(
    session: SessionDep,
    page: Paging,
    caller: MayReadTemplates,
    type: Annotated[str | None, Query(max_length=100)] = None,  # noqa: A002 - the word of the contract
    *,
    channel: Channel | None = None,
    locale: Annotated[str | None, Query(max_length=16)] = None,
) -> Page[TemplateOut]:
    query = sa.select(Template).order_by(sa.column("id")).limit(page.limit + 1)
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
    kind = await session.get(NotificationType, given.type)
    if kind is None:
        raise field_invalid(("type",), "unknown_type", "The catalogue has no such notification type.")
    values = {"id": new_id(), **given.model_dump(), "revision": 1, "created_at": now(), "updated_at": now()}
    values["name"] = given.name or f"{given.type} ({given.locale})"
    added = insert(Template).values(values).on_conflict_do_nothing().returning(Template)
    row = (await session.execute(added)).scalar_one_or_none()
    if row is None:
        raise Conflict("There is a template of this type, channel and locale: add a version to it.", code="template_exists")
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


@router.get("/{template_id}/versions", operation_id="list_template_versions", summary="The versions, the newest first")
async def list_template_versions(template_id: UUID, session: SessionDep, page: Paging, caller: MayReadTemplates) -> Page[VersionOut]:
    template = await found(session, template_id)
    query = sa.select(TemplateVersion).where(sa.column("template_id") == template_id).order_by(sa.column("version").desc()).limit(page.limit + 1)
    if key := page.key(int):
        query = query.where(sa.column("version") < min(key[0], 2**31 - 1))
    rows = (await session.execute(query)).scalars().all()
    items = [shown_version(row, template) for row in rows[: page.limit]]
    return Page(items=items, next_cursor=encode_cursor(rows[page.limit - 1].version) if len(rows) > page.limit else None)


@router.post("/{template_id}/versions", operation_id="add_template_version", summary="Add a version", status_code=201)
async def add_template_version(
    template_id: UUID, given: VersionIn, session: SessionDep, response: Response, caller: MayWriteTemplates, *, if_match: IfMatch = None
) -> VersionOut:
    """It is parsed and kept for ever; it is sent once it is published. If-Match is honoured when it is there."""
    row = await found(session, template_id, lock=True)
    if if_match is not None:
        require_match(if_match, row.revision)
    if faults := misfits(row.channel, given) or unparsable(row.channel, given.model_dump()):
        raise Invalid(f"{faults[0].pointer}: {faults[0].detail}", errors=faults[:50])
    newest = await session.scalar(sa.select(sa.func.max(sa.column("version"))).select_from(TemplateVersion).where(sa.column("template_id") == template_id))
    version = TemplateVersion(template_id=template_id, version=(newest or 0) + 1, created_by=caller.name, **given.model_dump())
    session.add(version)
    touch(row)
    await audit.record(session, caller, "template.add_version", f"template:{row.id}", {"version": version.version})
    response.headers["ETag"] = etag(row.revision)
    return shown_version(version, row)


@router.post("/{template_id}/versions/{version}/publish", operation_id="publish_template_version", summary="Send with this version from now on")
async def publish_template_version(
    template_id: UUID, version: Number, session: SessionDep, response: Response, caller: MayWriteTemplates, *, if_match: IfMatch = None
) -> TemplateOut:
    """First it is rendered with a sample of its type: a name that is not there is found now, and not by a subscriber. An older version is the rollback."""
    row = await found(session, template_id, lock=True)
    if if_match is not None:
        require_match(if_match, row.revision)
    words = await session.get(TemplateVersion, (template_id, version))
    if words is None:
        raise NotFound("This template has no such version.")
    kind = await session.get_one(NotificationType, row.type)
    if faults := unpublishable(row.type, kind.data_schema, row.channel, row.locale, words):
        raise Invalid(f"{faults[0].pointer or 'The template'}: {faults[0].detail}", code="not_publishable", errors=faults[:50])
    if row.published_version != version:
        await audit.record(session, caller, "template.publish", f"template:{row.id}", {"published_version": [row.published_version, version]})
        row.published_version = version
        touch(row)
    response.headers["ETag"] = etag(row.revision)
    return shown(row)


async def found(session: AsyncSession, template_id: UUID, *, lock: bool = False) -> Template:
    row = await session.get(Template, template_id, with_for_update=True if lock else None)
    if row is None:
        raise NotFound("There is no such template.")
    return row


def misfits(channel: str, given: VersionIn) -> list[FieldError]:
    """Fields that this channel has not, or has to have."""
    wanted = {"sms": {"text": True, "subject": False, "html": False}, "email": {"text": True, "subject": True}}[channel]
    faults = []
    for name, needed in wanted.items():
        value: Any = getattr(given, name)
        if needed and (value is None or not value.strip()):
            faults.append(FieldError(f"/{name}", "missing", f"Add `{name}`: this channel needs it."))
        elif not needed and value is not None:
            faults.append(FieldError(f"/{name}", "not_taken", f"Leave out `{name}`: an SMS has a text alone."))
    return faults


def touch(row: Template) -> None:
    row.revision, row.updated_at = row.revision + 1, now()


def shown(row: Template) -> TemplateOut:
    return TemplateOut.model_validate(row.model_dump())


def shown_version(row: TemplateVersion, template: Template) -> VersionOut:
    return VersionOut(published=row.version == template.published_version, **row.model_dump())
