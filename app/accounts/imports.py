"""Bulk import: JSON lines in, chunks of 5,000 committed, flat in memory however long it is.

A broken line is rejected with its number, and the rest goes on. Whoever hangs up in the middle leaves whole chunks, and sends the file again.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection
from dataclasses import dataclass, field

import sqlalchemy as sa

from app.accounts.lines import LINE_OCTETS, LineRejected, Reader, number_of
from app.accounts.save import save
from app.accounts.snapshots import Snapshot
from app.core.config import Settings
from app.core.db import Database

CHUNK_LINES = 5_000
CHUNK_OCTETS = 8 << 20  # long lines: what is not committed yet is held in memory
LISTED = 1_000
BREATH = 100  # lines read in one go: the loop has other requests to serve

SAME = sa.text("""
SELECT given.place FROM unnest(CAST(:numbers AS text[]), CAST(:digests AS bigint[])) WITH ORDINALITY AS given(number, digest, place)
JOIN account a ON a.number = given.number AND a.imported = given.digest
""")

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class RejectedLine:
    """`line` counts from 1, blank lines too: as an editor shows it."""

    line: int
    code: str
    detail: str


@dataclass(slots=True)
class ImportReport:
    """What became of the lines. The first 1,000 rejections are listed, all are counted."""

    received: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: list[RejectedLine] = field(default_factory=list)
    rejected_total: int = 0

    def reject(self, line: int, code: str, detail: str) -> None:
        self.rejected_total += 1
        if len(self.rejected) < LISTED:
            self.rejected.append(RejectedLine(line, code, detail))


@dataclass(slots=True)
class _Chunk:
    """Accounts that wait for their commit, each number once."""

    accounts: dict[str, Snapshot] = field(default_factory=dict)
    repeated: int = 0  # lines that came over an earlier one of the same number and changed it
    same: int = 0  # lines that change nothing

    def add(self, one: Snapshot) -> None:
        earlier = self.accounts.get(one.number)
        if earlier is None:
            self.accounts[one.number] = one
        else:
            both = one.over(earlier)
            self.repeated, self.same = (self.repeated, self.same + 1) if both == earlier else (self.repeated + 1, self.same)
            self.accounts[one.number] = both


@dataclass(slots=True)
class _Batch:
    """Lines as they came: (number of the line, octets)."""

    lines: list[tuple[int, bytes]] = field(default_factory=list)
    octets: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.lines) >= CHUNK_LINES or self.octets >= CHUNK_OCTETS


async def import_accounts(
    database: Database, settings: Settings, lines: AsyncIterable[bytes], on_progress: Callable[[ImportReport], None] | None = None
) -> ImportReport:
    """Take accounts from lines (with or without their line ends). Later lines of a number win over earlier ones. `on_progress` hears of every commit.

    While PostgreSQL writes one chunk, the next one is read; chunks are committed in their order.
    """
    report, reader, writing = ImportReport(), Reader(settings.phone_region), _Writing(database, settings, on_progress)
    try:
        async for batch in _batches(lines, report):
            chunk = await _chunk(database, reader, batch, report, writing.numbers)
            await writing.follow(chunk, report)
    finally:
        await writing.end()
    return report


class _Writing:
    """The chunk that is being committed, if any."""

    def __init__(self, database: Database, settings: Settings, on_progress: Callable[[ImportReport], None] | None) -> None:
        self._database, self._settings, self._on_progress = database, settings, on_progress
        self._task: asyncio.Task[None] | None = None
        self.numbers: Collection[str] = ()

    async def follow(self, chunk: _Chunk, report: ImportReport) -> None:
        """Begin to commit this one when the one before it is committed."""
        await self.end()
        if chunk.accounts or chunk.same:
            self.numbers = chunk.accounts.keys()
            self._task = asyncio.create_task(self._commit(chunk, report))

    async def end(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await task

    async def _commit(self, chunk: _Chunk, report: ImportReport) -> None:
        if chunk.accounts:
            saved = await self._database.again(lambda session: save(session, chunk.accounts.values(), self._settings))
            outcomes = Counter(one.outcome for one in saved.values())
            report.created += outcomes["created"]
            report.updated += outcomes["updated"]
            report.unchanged += outcomes["unchanged"]
        report.updated += chunk.repeated
        report.unchanged += chunk.same
        if self._on_progress:
            self._on_progress(report)


async def _batches(lines: AsyncIterable[bytes], report: ImportReport) -> AsyncIterator[_Batch]:
    batch, number = _Batch(), 0
    async for raw in lines:
        number += 1
        line = (raw.removeprefix(BOM) if number == 1 else raw).strip(b" \t\r\n")
        if not line:
            continue
        report.received += 1
        batch.lines.append((number, line))
        batch.octets += len(line)
        if batch.is_full:
            yield batch
            batch = _Batch()
    if batch.lines:
        yield batch


async def _chunk(database: Database, reader: Reader, batch: _Batch, report: ImportReport, written: Collection[str]) -> _Chunk:
    """The batch without the lines that would change nothing. `written` are the numbers that are being written just now."""
    digests = [reader.digest(line) for _, line in batch.lines]
    same = await _same(database, batch, digests, written)
    chunk = _Chunk(same=len(same))
    for turn, ((number, line), digest) in enumerate(zip(batch.lines, digests, strict=True)):
        if turn in same:
            continue
        try:
            chunk.add(reader.read(line, digest))
        except LineRejected as why:
            report.reject(number, why.code, why.detail)
        if turn % BREATH == 0:
            await asyncio.sleep(0)
    return chunk


async def _same(database: Database, batch: _Batch, digests: list[int], written: Collection[str]) -> set[int]:
    """Places of the lines whose accounts remember just these.

    Not of a number that comes twice in the batch, or is being written: there the order of the lines decides.
    """
    asked: dict[str, int] = {}
    twice: set[str] = set()
    for place, (_, line) in enumerate(batch.lines):
        number = number_of(line) if len(line) <= LINE_OCTETS else None
        if number is not None and (asked.setdefault(number, place) != place or number in written):
            twice.add(number)
        if place % BREATH == 0:
            await asyncio.sleep(0)
    for number in twice:
        del asked[number]
    places = list(asked.values())
    async with database.atomic() as connection:
        rows = await connection.execute(SAME, {"numbers": list(asked), "digests": [digests[place] for place in places]})
        return {places[n - 1] for n in rows.scalars()}


async def split_lines(pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The lines of a stream, without their ends. Of a line that is too long only so much is kept as shows that it is."""
    rest = b""
    async for piece in pieces:
        *whole, last = piece.split(b"\n")
        if whole:
            whole[0], rest = rest + whole[0], b""
        for line in whole:
            yield line
        rest = (rest + last)[: LINE_OCTETS + 64]
    if rest:
        yield rest
