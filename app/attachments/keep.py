"""Files are kept once however often they come, and as long as anything names them."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.attachments.content import content_type_of
from app.attachments.models import Attachment
from app.attachments.names import clean_name
from app.attachments.shapes import AttachedFileIn, GeneratedFileIn
from app.attachments.store import Store
from app.attachments.upload import Upload
from app.core import audit
from app.core.auth import Caller
from app.core.errors import Conflict, FieldError, NotFound, pointer

MOST_TOGETHER = 10 << 20  # octets of all files of one letter: what most mail servers take, once base64 has made it 14 MB
MOST_UPLOADED = 8 << 20  # of those that a version names: the brand's logo and what is made for the letter need room, too

# KEY SHARE: whoever names a file holds it until his commit, so that it is not deleted between this look and that.
HELD = sa.text("SELECT id, size FROM attachment WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR KEY SHARE")
IN_VERSIONS = sa.text("""
SELECT t.name, v.version FROM template_version v JOIN template t ON t.id = v.template_id
WHERE v.attachments @> jsonb_build_array(jsonb_build_object('kind', 'file', 'id', CAST(:id AS text))) ORDER BY t.name, v.version LIMIT 1
""")
# A brand may have got another logo since the letter was written.
IN_LETTERS = sa.text("""
SELECT EXISTS (SELECT FROM outbox o JOIN message m ON m.id = o.message_id
               WHERE o.channel = 'email' AND m.attachments @> jsonb_build_array(jsonb_build_object('kind', 'file', 'id', CAST(:id AS text))))
""")
IN_BRANDS = sa.text("SELECT name FROM brand WHERE settings ->> 'logo' = :id ORDER BY name LIMIT 1")


class AttachmentNotFound(NotFound):
    code = "attachment_not_found"


class AttachmentInUse(Conflict):
    code = "attachment_in_use"


async def keep(session: AsyncSession, store: Store, upload: Upload, caller: Caller) -> tuple[Attachment, bool]:
    """The row of the file, and whether it is new. The same bytes under another name are the file that is there already. WrongMediaType by its contents."""
    kind = await asyncio.to_thread(content_type_of, upload.file, upload.name)  # a text is read to its end
    row = Attachment(sha256=upload.sha256, name=clean_name(upload.name, kind), content_type=kind, size=upload.size, created_by=caller.name)
    # Somebody else's upload of the same bytes is waited for here: it commits, and this is his; or it does not, and this is new.
    statement: sa.Executable = insert(Attachment).values(row.model_dump()).on_conflict_do_nothing(index_elements=["sha256"]).returning(sa.column("id"))
    while await session.scalar(statement) is None:
        there = (await session.scalars(sa.select(Attachment).where(sa.column("sha256") == upload.sha256))).one_or_none()
        if there is not None:
            return there, False  # else it has been deleted just now
    await store.write(session, row.id, upload.file)
    changes = {"name": row.name, "content_type": row.content_type, "size": row.size, "sha256": row.sha256.hex()}
    await audit.record(session, caller, "attachment.create", f"attachment:{row.id}", changes)
    return row, True


async def found(session: AsyncSession, attachment_id: UUID, *, lock: bool = False) -> Attachment:
    row = await session.get(Attachment, attachment_id, with_for_update=True if lock else None)
    if row is None:
        raise AttachmentNotFound("There is no such attachment.")
    return row


async def drop(session: AsyncSession, store: Store, attachment_id: UUID, caller: Caller) -> None:
    """Delete a file. AttachmentInUse when a version of a template, a brand or a waiting letter names it: versions are kept for ever, and so is what they send."""
    row = await found(session, attachment_id, lock=True)
    if used := await _user_of(session, attachment_id):
        raise AttachmentInUse(f"{used} names this file.")
    await store.delete(session, attachment_id)
    await session.delete(row)
    await audit.record(session, caller, "attachment.delete", f"attachment:{attachment_id}", {"sha256": row.sha256.hex()})


async def _user_of(session: AsyncSession, attachment_id: UUID) -> str | None:
    given = {"id": str(attachment_id)}
    version = (await session.execute(IN_VERSIONS, given)).first()
    if version is not None:
        return f"Version {version.version} of the template {version.name!r}"
    if (brand := await session.scalar(IN_BRANDS, given)) is not None:
        return f"The brand {brand!r}"
    return "A letter that waits to be sent" if await session.scalar(IN_LETTERS, given) else None


async def unusable(session: AsyncSession, specs: Sequence[AttachedFileIn | GeneratedFileIn], *steps: str | int) -> list[FieldError]:
    """What is wrong with the attachments that a version is to have; `steps` lead to the list. The files are held until the transaction ends."""
    files = [(n, spec) for n, spec in enumerate(specs) if isinstance(spec, AttachedFileIn)]
    sizes = await hold(session, [spec.id for _, spec in files]) if files else {}
    faults = [FieldError(pointer(*steps, n, "id"), "unknown_attachment", "There is no uploaded file of this id.") for n, f in files if f.id not in sizes]
    if sum(sizes.get(spec.id, 0) for _, spec in files) > MOST_UPLOADED:
        faults.append(FieldError(pointer(*steps), "too_large", f"All files of a version may have at most {MOST_UPLOADED >> 20} MiB together."))
    return faults


async def hold(session: AsyncSession, ids: Sequence[UUID]) -> dict[UUID, int]:
    """The sizes of those that are there, none of which can be deleted until the transaction ends."""
    rows: Any = await session.execute(HELD, {"ids": list(set(ids))})
    return {row.id: row.size for row in rows}
