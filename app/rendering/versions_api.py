"""/templates/{id}/versions: words that never change, published one at a time; publishing an older one is the rollback."""

import asyncio
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalogue.models import NotificationType
from app.core import audit
from app.core.auth import MayReadTemplates, MayWriteTemplates
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import Conflict, Invalid, NotFound
from app.core.http import Guarded
from app.core.page import Page, Paging, encode_cursor
from app.core.preconditions import IfMatch, etag, require_match
from app.rendering.api import TemplateOut, found, shown, touch
from app.rendering.differences import difference
from app.rendering.models import Template, TemplateVersion
from app.rendering.proof import PlacedError, emptiness, proved, stated
from app.rendering.publication import proved_now
from app.rendering.version_shapes import FIELDS, TemplateProblemOut, VersionIn, objections, shown_problem

router = APIRouter(prefix="/templates", tags=["templates"], route_class=Guarded)

LARGEST = 2**31 - 1
Number = Annotated[int, Path(ge=1, le=LARGEST, description="The version")]


class VersionOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    template_id: UUID
    version: int
    published: bool
    subject: str | None
    text: str | None
    html: str | None
    mjml: str | None
    layout: str | None
    options: dict[str, Any]
    attachments: list[dict[str, Any]]
    created_at: datetime
    created_by: str


class AddedVersionOut(VersionOut):
    warnings: list[TemplateProblemOut] = Field(description="Values that may be absent and are written without having been asked for; of an SMS, too many parts")


class PublishedTemplateOut(TemplateOut):
    warnings: list[TemplateProblemOut] = Field(description="What was found and does not keep it from being sent")


class FieldDifference(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(examples=["text"])
    diff: str = Field(description="As `diff -u` writes it, without the names of files")


class VersionDifferenceOut(BaseModel):
    """What differs between two versions; a field that is the same in both is not in it."""

    model_config = ConfigDict(extra="forbid")

    from_version: int
    to_version: int
    fields: list[FieldDifference]


@router.get("/{template_id}/versions", operation_id="list_template_versions", summary="The versions, the newest first")
async def list_template_versions(template_id: UUID, session: SessionDep, page: Paging, caller: MayReadTemplates) -> Page[VersionOut]:
    template = await found(session, template_id)
    query = sa.select(TemplateVersion).where(sa.column("template_id") == template_id).order_by(sa.column("version").desc()).limit(page.limit + 1)
    if key := page.key(int):
        query = query.where(sa.column("version") < min(key[0], LARGEST))
    rows = (await session.execute(query)).scalars().all()
    items = [shown_version(row, template) for row in rows[: page.limit]]
    return Page(items=items, next_cursor=encode_cursor(rows[page.limit - 1].version) if len(rows) > page.limit else None)


@router.get("/{template_id}/versions/{version}", operation_id="get_template_version", summary="One version")
async def get_template_version(template_id: UUID, version: Number, session: SessionDep, caller: MayReadTemplates) -> VersionOut:
    template = await found(session, template_id)
    return shown_version(await version_of(session, template_id, version), template)


@router.post("/{template_id}/versions", operation_id="add_template_version", summary="Add a version", status_code=201)
async def add_template_version(
    template_id: UUID, given: VersionIn, session: SessionDep, response: Response, caller: MayWriteTemplates, *, if_match: IfMatch = None
) -> AddedVersionOut:
    """It is parsed and kept for ever; it is sent once it is published. If-Match is honoured when it is there."""
    row = await writable(session, template_id, if_match)
    if faults := await objections(session, row.channel, given):
        raise Invalid(f"{faults[0].pointer}: {faults[0].detail}", errors=faults[:50])
    kind = await session.get_one(NotificationType, row.type)
    version = TemplateVersion(template_id=template_id, version=await newest(session, template_id) + 1, created_by=caller.name, **given.stored())
    session.add(version)
    touch(row)
    await audit.record(session, caller, "template.add_version", f"template:{row.id}", {"version": version.version})
    response.headers["ETag"] = etag(row.revision)
    doubts = await asyncio.to_thread(doubts_of, row, kind.data_schema, version)
    return AddedVersionOut(**shown_version(version, row).model_dump(), warnings=[shown_problem(doubt) for doubt in doubts[:50]])


@router.post("/{template_id}/versions/{version}/publish", operation_id="publish_template_version", summary="Send with this version from now on")
async def publish_template_version(
    template_id: UUID, version: Number, session: SessionDep, response: Response, caller: MayWriteTemplates, *, if_match: IfMatch = None
) -> PublishedTemplateOut:
    """First it is rendered with a sample of its type: a name that is not there is found now, and not by a subscriber. An older version is the rollback."""
    row = await writable(session, template_id, if_match)
    words = await version_of(session, template_id, version)
    kind = await session.get_one(NotificationType, row.type)
    proof = await proved_now(session, kind, row.channel, row.locale, words)
    if faults := proof.faults:
        raise Invalid(f"{faults[0].pointer or 'The template'}: {faults[0].detail}", code="not_publishable", errors=faults[:50])
    if row.published_version != version:
        await audit.record(session, caller, "template.publish", f"template:{row.id}", {"published_version": [row.published_version, version]})
        row.published_version, row.used_at = version, row.used_at or now()
        touch(row)
    response.headers["ETag"] = etag(row.revision)
    return PublishedTemplateOut(**shown(row).model_dump(), warnings=[shown_problem(warning) for warning in proof.warnings])


@router.get("/{template_id}/diff", operation_id="diff_template_versions", summary="What differs between two versions")
async def diff_template_versions(
    template_id: UUID,
    session: SessionDep,
    caller: MayReadTemplates,
    from_: Annotated[int, Query(alias="from", ge=1, le=LARGEST, description="A version")],
    to: Annotated[int, Query(ge=1, le=LARGEST, description="Another one")],
) -> VersionDifferenceOut:
    await found(session, template_id)
    before, after = [await version_of(session, template_id, number) for number in (from_, to)]
    old, new = ({name: getattr(row, name) for name in FIELDS} for row in (before, after))
    # Comparing two long texts takes its time: not where everybody else waits for it.
    fields = await asyncio.to_thread(lambda: [(name, difference(old[name], new[name])) for name in FIELDS])
    return VersionDifferenceOut(from_version=from_, to_version=to, fields=[FieldDifference(name=name, diff=diff) for name, diff in fields if diff])


def doubts_of(template: Template, schema: dict[str, Any] | None, version: TemplateVersion) -> list[PlacedError]:
    """What is said of a version that is added: what may be empty; of an SMS also what will keep it from being published, and what may be too long."""
    if template.channel != "sms":
        return emptiness(template.type, schema, template.channel, version)
    proof = proved(template.type, schema, template.channel, template.locale, version)
    return [*(stated(fault) if not isinstance(fault, PlacedError) else fault for fault in proof.faults), *proof.warnings]


async def writable(session: AsyncSession, template_id: UUID, if_match: str | None) -> Template:
    """The template, locked, if its words may be changed: Conflict when it is archived, StaleVersion when it is another one than was read."""
    row = await found(session, template_id, lock=True)
    if if_match is not None:
        require_match(if_match, row.revision)
    if row.archived_at is not None:
        raise Conflict("This template is archived: restore it first.", code="template_archived")
    return row


async def version_of(session: AsyncSession, template_id: UUID, version: int) -> TemplateVersion:
    row = await session.get(TemplateVersion, (template_id, version))
    if row is None:
        raise NotFound("This template has no such version.")
    return row


async def newest(session: AsyncSession, template_id: UUID) -> int:
    """The number of the newest version; 0 where there is none."""
    query = sa.text("SELECT max(version) FROM template_version WHERE template_id = :id")
    return int(await session.scalar(query, {"id": template_id}) or 0)


def shown_version(row: TemplateVersion, template: Template) -> VersionOut:
    return VersionOut(published=row.version == template.published_version, **row.model_dump())
