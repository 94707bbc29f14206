"""Where the bytes of uploaded files stand. The table `attachment` says what there is; a store has the contents by id, and what it has never changes."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import BinaryIO, Protocol
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.attachments.content import in_header
from app.attachments.files import File
from app.attachments.models import AttachmentPart
from app.core.db import Database, Executor

PIECE = 256 << 10  # octets

PART = sa.text("SELECT data FROM attachment_part WHERE attachment_id = :id AND n = :n")
DELETE = sa.text("DELETE FROM attachment_part WHERE attachment_id = :id")
# More than may go in one letter is not read at all.
WHOLE = sa.text("""
SELECT a.id, a.name, a.content_type, a.size,
    CASE WHEN sum(a.size) OVER () <= :most THEN (SELECT string_agg(p.data, '' ORDER BY p.n) FROM attachment_part p WHERE p.attachment_id = a.id) END AS data
FROM attachment a WHERE a.id = ANY(CAST(:ids AS uuid[]))
""")


class TooMuch(Exception):
    """All the files that were asked for are more together than the caller wanted."""


class Store(Protocol):
    """PostgreSQL has the contents in the transaction of their row. A store elsewhere (S3) puts them there before the commit and removes them after it:
    what a crash in between leaves behind is contents without a row, which no one finds and any sweep may delete, and never a row without its contents."""

    async def write(self, session: AsyncSession, attachment_id: UUID, file: BinaryIO) -> None:
        """Keep all of the file under this id."""

    def read(self, database: Database, attachment_id: UUID) -> AsyncIterator[bytes]:
        """The contents in pieces. No transaction is open while one is handed on."""

    async def read_whole(self, session: Executor, ids: Sequence[UUID], most: int) -> dict[UUID, File]:
        """These files by id; what is not there is left out. TooMuch when they have more than `most` octets together."""

    async def delete(self, session: AsyncSession, attachment_id: UUID) -> None:
        """Forget the contents."""


class PostgresStore:
    """The contents as rows of 256 KiB. A whole file in one row would be in memory four times on its way through the driver."""

    async def write(self, session: AsyncSession, attachment_id: UUID, file: BinaryIO) -> None:
        file.seek(0)
        n = 0
        while piece := file.read(PIECE):
            await session.execute(sa.insert(AttachmentPart), {"attachment_id": attachment_id, "n": n, "data": piece})
            n += 1

    async def read(self, database: Database, attachment_id: UUID) -> AsyncIterator[bytes]:
        n = 0
        while (piece := await _part(database, attachment_id, n)) is not None:
            yield piece
            n += 1

    async def read_whole(self, session: Executor, ids: Sequence[UUID], most: int) -> dict[UUID, File]:
        rows = (await session.execute(WHOLE, {"ids": list(ids), "most": most})).all()
        if sum(row.size for row in rows) > most:
            raise TooMuch
        # A row whose contents are not all there is no file: it is left out as if it were gone.
        return {row.id: File(row.name, in_header(row.content_type), row.data) for row in rows if row.data is not None and len(row.data) == row.size}

    async def delete(self, session: AsyncSession, attachment_id: UUID) -> None:
        await session.execute(DELETE, {"id": attachment_id})


async def _part(database: Database, attachment_id: UUID, n: int) -> bytes | None:
    """One piece, with a connection for no longer than that: whoever downloads may be slow."""
    async with database.atomic() as connection:
        found: bytes | None = await connection.scalar(PART, {"id": attachment_id, "n": n})
        return found


class Shelf:
    """Files that were sent lately, for a process that sends the same one to a hundred thousand subscribers. The longest unused go when there are too many octets."""

    def __init__(self, octets: int = 32 << 20) -> None:
        self._most, self._octets, self._files = octets, 0, OrderedDict[UUID, File]()

    def get(self, ids: Iterable[UUID]) -> dict[UUID, File]:
        found = {attachment_id: self._files[attachment_id] for attachment_id in ids if attachment_id in self._files}
        for attachment_id in found:
            self._files.move_to_end(attachment_id)
        return found

    def put(self, files: dict[UUID, File]) -> None:
        for attachment_id, file in files.items():
            if attachment_id in self._files or len(file.data) > self._most:
                continue
            self._files[attachment_id] = file
            self._octets += len(file.data)
        while self._octets > self._most:
            _, gone = self._files.popitem(last=False)
            self._octets -= len(gone.data)
