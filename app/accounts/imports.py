"""Bulk import: JSON lines in, chunks of 5,000 committed, flat in memory however long it is.

A broken line is rejected with its number, and the rest goes on. Whoever hangs up in the middle leaves whole chunks, and sends the file again.

One look-up sorts a chunk's lines into those that say nothing new, those of known accounts, and those of new ones. The last are written down as lines of COPY
at once: while PostgreSQL has one chunk to store, the next one is read.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.create import NewAccounts, defaults_of
from app.accounts.lines import LINE_OCTETS, LineRejected, Reader, number_of
from app.accounts.preference_import import PreferencesRefused, take_preferences
from app.accounts.save import save
from app.accounts.snapshots import Snapshot
from app.core.clock import now
from app.core.config import Settings
from app.core.db import Database

CHUNK_LINES = 5_000
CHUNK_OCTETS = 8 << 20  # long lines: what is not committed yet is held in memory
AHEAD = 2  # chunks that may be on their way into the database while another one is read
MANY = 100  # new accounts for which COPY pays
LISTED = 1_000
BREATH = 100  # lines read in one go: the loop has other requests to serve

# Numbers and digests as one text each: as arrays every element would be looked at by the driver. LIMIT 1: by the index, whatever the statistics say.
KNOWN = sa.text("""
SELECT array_agg(place) FILTER (WHERE is_same) AS same, array_agg(place) FILTER (WHERE NOT is_same) AS others, array_agg(lists) FILTER (WHERE NOT is_same) AS lists
FROM (
    SELECT given.place, a.imported IS NOT DISTINCT FROM given.digest AS is_same, a.imported_lists AS lists
    FROM unnest(string_to_array(CAST(:numbers AS text), E'\\n'), CAST(string_to_array(CAST(:digests AS text), ',') AS bigint[]))
        WITH ORDINALITY AS given(number, digest, place)
    CROSS JOIN LATERAL (SELECT imported, imported_lists FROM account WHERE number = given.number LIMIT 1) a
) known
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
class _Batch:
    """Lines as they came: (number of the line, octets)."""

    lines: list[tuple[int, bytes]] = field(default_factory=list)
    octets: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.lines) >= CHUNK_LINES or self.octets >= CHUNK_OCTETS


@dataclass(slots=True)
class _Chunk:
    """Accounts that wait for their commit, each number once. `fresh` ones were not known a moment ago, and are COPY's lines already."""

    fresh: NewAccounts
    fresh_lines: dict[str, tuple[bytes, int]] = field(default_factory=dict)  # by number, with their digests: should COPY fail, they are read again
    accounts: dict[str, Snapshot] = field(default_factory=dict)
    repeated: int = 0  # lines that came over an earlier one of the same number and changed it
    same: int = 0  # lines that change nothing
    choosing: dict[str, int] = field(default_factory=dict)  # by number, the line that says something of preferences, should they be refused

    @property
    def numbers(self) -> AbstractSet[str]:
        return self.accounts.keys() | self.fresh_lines.keys()

    def add(self, one: Snapshot) -> None:
        earlier = self.accounts.get(one.number)
        if earlier is None:
            self.accounts[one.number] = one
        else:
            both = one.over(earlier)
            self.repeated, self.same = (self.repeated, self.same + 1) if both == earlier else (self.repeated + 1, self.same)
            self.accounts[one.number] = both

    def add_fresh(self, one: Snapshot, line: bytes, digest: int) -> None:
        self.fresh.add(one)
        self.fresh_lines[one.number] = (line, digest)


@dataclass(slots=True)
class _Known:
    """What the database knows of a batch's lines, by their places in it."""

    same: set[int] = field(default_factory=set)  # those that would change nothing
    fresh: set[int] = field(default_factory=set)  # those of accounts that there are not, when they are many
    lists: dict[int, int] = field(default_factory=dict)  # the digests of contacts and charges as they are


async def import_accounts(
    database: Database, settings: Settings, lines: AsyncIterable[bytes], on_progress: Callable[[ImportReport], None] | None = None
) -> ImportReport:
    """Take accounts from lines (with or without their line ends). Later lines of a number win over earlier ones. `on_progress` hears of every commit.

    While PostgreSQL writes one chunk, the next ones are read; chunks are committed in their order.
    """
    report, reader = ImportReport(), Reader(settings.phone_region)
    writing = _Writing(database, settings, reader, report, on_progress)
    try:
        async for batch in _batches(lines, report):
            digests = [reader.digest(line) for _, line in batch.lines]
            known = await _known(database, batch, digests, writing)
            await writing.follow(await _chunk(reader, batch, digests, known, report, defaults_of(settings)))
    finally:
        await writing.end()
    return report


class _Writing:
    """The chunks that are on their way into the database, one after the other."""

    def __init__(
        self, database: Database, settings: Settings, reader: Reader, report: ImportReport, on_progress: Callable[[ImportReport], None] | None
    ) -> None:
        self._database, self._settings, self._reader, self._report, self._on_progress = database, settings, reader, report, on_progress
        self._chunks: deque[tuple[_Chunk, asyncio.Task[None]]] = deque()

    def has(self, numbers: AbstractSet[str]) -> set[str]:
        """Those of the numbers that are not committed yet."""
        return {number for chunk, _ in self._chunks for number in chunk.numbers & numbers}

    async def follow(self, chunk: _Chunk) -> None:
        """Commit this one when those before it are committed."""
        while len(self._chunks) >= AHEAD:
            await self._first()
        before = self._chunks[-1][1] if self._chunks else None
        self._chunks.append((chunk, asyncio.create_task(self._commit(chunk, before))))

    async def end(self) -> None:
        """Wait for all of them. After one that failed none is committed; its error is raised."""
        outcomes = await asyncio.gather(*(task for _, task in self._chunks), return_exceptions=True)
        for failed in outcomes:
            if failed is not None:
                raise failed

    async def _first(self) -> None:
        await self._chunks[0][1]
        self._chunks.popleft()

    async def _commit(self, chunk: _Chunk, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await before
        outcomes = await self._stored(chunk)
        report = self._report
        report.created += outcomes["created"]
        report.updated += outcomes["updated"] + chunk.repeated
        report.unchanged += outcomes["unchanged"] + chunk.same
        if self._on_progress:
            self._on_progress(report)

    async def _stored(self, chunk: _Chunk) -> Counter[str]:
        """Twice where something is in the way that only the database knows; then without it."""
        while True:
            try:
                return await self._database.again(lambda session: self._store(session, chunk))
            except IntegrityError:
                if not chunk.fresh_lines:
                    raise
                # One of these numbers has been taken this very moment: COPY knows no way round, INSERT does.
                await self._read_again(chunk)
            except PreferencesRefused as refused:
                for number, why in refused.faults.items():
                    self._report.reject(chunk.choosing[number], why.errors[0].code, why.detail)
                    del chunk.accounts[number]

    async def _store(self, session: AsyncSession, chunk: _Chunk) -> Counter[str]:
        saved = await save(session, chunk.accounts.values(), self._settings)
        if chunk.choosing:
            said = {saved[number].id: one for number, one in chunk.accounts.items() if one.preferences is not None}
            changed = await take_preferences(session, said, self._settings.phone_region)
            for one in saved.values():
                one.outcome = "updated" if one.outcome == "unchanged" and one.id in changed else one.outcome
        if chunk.fresh_lines:
            await chunk.fresh.copy(session)
        return Counter(one.outcome for one in saved.values()) + Counter(created=len(chunk.fresh_lines))

    async def _read_again(self, chunk: _Chunk) -> None:
        for turn, (line, digest) in enumerate(chunk.fresh_lines.values()):
            chunk.add(self._reader.read(line, digest))
            if turn % BREATH == 0:
                await asyncio.sleep(0)
        chunk.fresh_lines = {}


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


async def _known(database: Database, batch: _Batch, digests: list[int], writing: _Writing) -> _Known:
    """Nothing is said of a line whose number comes twice in the batch, or is being written: there the order of the lines decides."""
    asked: dict[str, int] = {}
    twice: set[str] = set()
    for place, (_, line) in enumerate(batch.lines):
        number = number_of(line) if len(line) <= LINE_OCTETS else None
        if number is not None and asked.setdefault(number, place) != place:
            twice.add(number)
        if place % BREATH == 0:
            await asyncio.sleep(0)
    for number in twice | writing.has(asked.keys()):
        del asked[number]
    if not asked:
        return _Known()
    places = list(asked.values())
    async with database.atomic() as connection:
        values = {"numbers": "\n".join(asked), "digests": ",".join([str(digests[place]) for place in places])}
        row = (await connection.execute(KNOWN, values)).one()
    same, others = ([places[n - 1] for n in found or ()] for found in (row.same, row.others))
    lists = {place: digest for place, digest in zip(others, row.lists or (), strict=True) if digest is not None}
    fresh = set(places).difference(same, others)
    return _Known(set(same), fresh if len(fresh) >= MANY else set(), lists)


async def _chunk(reader: Reader, batch: _Batch, digests: list[int], known: _Known, report: ImportReport, defaults: dict[str, Any]) -> _Chunk:
    """The batch without the lines that would change nothing."""
    chunk = _Chunk(NewAccounts(defaults, now()), same=len(known.same))
    for place, ((number, line), digest) in enumerate(zip(batch.lines, digests, strict=True)):
        if place % BREATH == 0:
            await asyncio.sleep(0)
        if place in known.same:
            continue
        try:
            one = reader.read(line, digest, known.lists.get(place))
        except LineRejected as why:
            report.reject(number, why.code, why.detail)
            continue
        if one.preferences is not None:
            chunk.choosing[one.number] = number
            chunk.add(one)
        elif place in known.fresh:
            chunk.add_fresh(one, line, digest)
        else:
            chunk.add(one)
    return chunk


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
