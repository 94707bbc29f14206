"""What becomes of a template as a whole: copied, put away, taken back, deleted."""

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Query, Response
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalogue.models import NotificationType
from app.core import audit
from app.core.auth import MayWriteTemplates
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import Conflict, FieldError, Invalid
from app.core.http import Guarded
from app.core.preconditions import IfMatch, etag, require_match
from app.rendering.api import TemplateCloneIn, TemplateIn, TemplateOut, added, found, shown, touch
from app.rendering.models import Template, TemplateVersion
from app.rendering.publication import proved_now
from app.rendering.version_shapes import FIELDS, VersionIn, objections, shown_problem
from app.rendering.versions_api import PublishedTemplateOut, newest, version_of

router = APIRouter(prefix="/templates", tags=["templates"], route_class=Guarded)

OTHERS = sa.text("""
SELECT EXISTS (SELECT FROM template WHERE type = :type AND channel = :channel AND id <> :id AND published_version IS NOT NULL)
""")


@router.post("/{template_id}/clone", operation_id="clone_template", summary="Copy a template to another type, channel or language", status_code=201)
async def clone_template(template_id: UUID, given: TemplateCloneIn, session: SessionDep, response: Response, caller: MayWriteTemplates) -> TemplateOut:
    """The newest version becomes version 1 of the copy, unpublished. Of another channel it takes what that one has: an SMS the text, a letter the text and the name as subject."""
    source = await found(session, template_id)
    name = given.name or (source.name if given.locale is None and given.type is None else None)
    place = TemplateIn(name=name, type=given.type or source.type, channel=given.channel or source.channel, locale=given.locale or source.locale)
    row = await added(session, place)
    copied = None
    if number := await newest(session, template_id):
        words = await session.get_one(TemplateVersion, (template_id, number))
        copied = carried(words, source.channel, row)
        if faults := await objections(session, row.channel, copied):
            raise Invalid(f"The newest version does not fit there: {faults[0].pointer}: {faults[0].detail}", errors=faults[:50])
        session.add(TemplateVersion(template_id=row.id, version=1, created_by=caller.name, **copied.stored()))
    changes = {**place.model_dump(exclude={"name"}), "from": str(template_id), "version": number or None}
    await audit.record(session, caller, "template.clone", f"template:{row.id}", changes)
    response.headers["ETag"] = etag(row.revision)
    return shown(row)


def carried(words: TemplateVersion, channel: str, copy: Template) -> VersionIn:
    """What of a version goes to a template of this channel."""
    if channel == copy.channel:
        return VersionIn.model_validate({name: getattr(words, name) for name in FIELDS})
    if copy.channel == "sms":
        return VersionIn(text=words.text)
    return VersionIn(subject=copy.name, text=words.text)


@router.post("/{template_id}/archive", operation_id="archive_template", summary="Put a template away")
async def archive_template(
    template_id: UUID,
    session: SessionDep,
    response: Response,
    caller: MayWriteTemplates,
    *,
    force: Annotated[bool, Query(description="Also when nothing is left then to tell this type by this channel")] = False,
    if_match: IfMatch = None,
) -> TemplateOut:
    """It is not sent any more, and a new version has to wait until it is restored. Its versions stay."""
    row = await alone(session, template_id, if_match)
    kind = await session.get_one(NotificationType, row.type)
    if row.archived_at is None:
        told = row.published_version is not None and kind.enabled and row.channel in kind.channels
        if told and not force and not await session.scalar(OTHERS, {"type": row.type, "channel": row.channel, "id": row.id}):
            raise Conflict(
                "Without this template nothing tells this type by this channel: turn the type off, publish another language, or send force=true.",
                code="template_in_use",
            )
        await audit.record(session, caller, "template.archive", f"template:{row.id}", {"published_version": [row.published_version, None], "force": force})
        # An older service beside this one publishes without saying so.
        row.used_at = row.used_at or (now() if row.published_version is not None else None)
        row.archived_at, row.archived_version, row.published_version = now(), row.published_version, None
        touch(row)
    response.headers["ETag"] = etag(row.revision)
    return shown(row)


@router.post("/{template_id}/restore", operation_id="restore_template", summary="Take a template back")
async def restore_template(
    template_id: UUID, session: SessionDep, response: Response, caller: MayWriteTemplates, *, if_match: IfMatch = None
) -> PublishedTemplateOut:
    """What was sent before is sent again. Where it could not be published today it stays unpublished, and `warnings` says why."""
    row = await found(session, template_id, lock=True)
    if if_match is not None:
        require_match(if_match, row.revision)
    warnings: Sequence[FieldError] = []
    if row.archived_at is not None:
        warnings = await published_again(session, row)
        changes = {"published_version": [None, row.published_version]} if row.published_version is not None else {}
        await audit.record(session, caller, "template.restore", f"template:{row.id}", changes)
        row.archived_at, row.archived_version = None, None
        touch(row)
    response.headers["ETag"] = etag(row.revision)
    return PublishedTemplateOut(**shown(row).model_dump(), warnings=[shown_problem(warning) for warning in warnings[:50]])


async def published_again(session: AsyncSession, row: Template) -> Sequence[FieldError]:
    """Publish what was published when it was put away, if it passes today. What it is warned of; or what keeps it from being published."""
    if row.archived_version is None:
        return []
    kind = await session.get_one(NotificationType, row.type)
    proof = await proved_now(session, kind, row.channel, row.locale, await version_of(session, row.id, row.archived_version))
    if not proof.faults:
        row.published_version = row.archived_version
    return proof.faults or proof.warnings


@router.delete("/{template_id}", operation_id="delete_template", summary="Delete a template that was never used", status_code=204)
async def delete_template(template_id: UUID, session: SessionDep, caller: MayWriteTemplates, *, if_match: IfMatch = None) -> None:
    """One that was ever published, or sent as a test, stays: what was sent can be read for ever. Archive it instead."""
    row = await found(session, template_id, lock=True)
    if if_match is not None:
        require_match(if_match, row.revision)
    if row.used_at is not None or row.published_version is not None:
        raise Conflict("It was published or sent as a test, and what was sent can be read for ever: archive it instead.", code="template_in_use")
    await session.execute(sa.delete(TemplateVersion).where(sa.column("template_id") == template_id))
    await audit.record(session, caller, "template.delete", f"template:{row.id}", {"type": row.type, "channel": row.channel, "locale": row.locale})
    await session.delete(row)


async def alone(session: AsyncSession, template_id: UUID, if_match: str | None) -> Template:
    """The template, locked, and before it its type: of two who put away the last two of a type, the second one sees what the first has done."""
    row = await found(session, template_id)
    await session.execute(sa.text("SELECT FROM notification_type WHERE code = :code FOR NO KEY UPDATE"), {"code": row.type})
    await session.refresh(row, with_for_update=True)
    if if_match is not None:
        require_match(if_match, row.revision)
    return row
