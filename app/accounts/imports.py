"""Bulk import: JSON lines in, chunks of 5,000 committed, flat in memory however long it is.

A broken line is rejected with its number, and the rest goes on. Whoever hangs up in the middle leaves whole chunks, and sends the file again.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass, field

from pydantic import ValidationError

from app.accounts.save import save
from app.accounts.shapes import AccountLine
from app.accounts.snapshots import Snapshot, snapshot
from app.core.config import Settings
from app.core.db import Database
from app.core.errors import Invalid
from app.core.http import has_nul
from app.core.problems import invalid_from

LINE_OCTETS = 64 << 10
CHUNK_LINES = 5_000
CHUNK_OCTETS = 8 << 20  # long lines: what is not committed yet is held in memory
LISTED = 1_000
BREATH = 100  # lines read in one go: the loop has other requests to serve

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


class LineRejected(Exception):
    """Why one line cannot be taken."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


@dataclass(slots=True)
class _Chunk:
    """Accounts that wait for their commit, each number once."""

    accounts: dict[str, Snapshot] = field(default_factory=dict)
    octets: int = 0
    repeated: int = 0  # lines that came over an earlier one of the same number and changed it
    same: int = 0  # and those that did not

    def add(self, one: Snapshot, octets: int) -> None:
        earlier = self.accounts.get(one.number)
        if earlier is None:
            self.accounts[one.number] = one
        else:
            both = one.over(earlier)
            self.repeated, self.same = (self.repeated, self.same + 1) if both == earlier else (self.repeated + 1, self.same)
            self.accounts[one.number] = both
        self.octets += octets

    @property
    def is_full(self) -> bool:
        return len(self.accounts) + self.repeated + self.same >= CHUNK_LINES or self.octets >= CHUNK_OCTETS


async def import_accounts(
    database: Database, settings: Settings, lines: AsyncIterable[bytes], on_progress: Callable[[ImportReport], None] | None = None
) -> ImportReport:
    """Take accounts from lines (with or without their line ends). Later lines of a number win over earlier ones. `on_progress` hears of every commit."""
    report, chunk, number = ImportReport(), _Chunk(), 0
    async for raw in lines:
        number += 1
        line = (raw.removeprefix(BOM) if number == 1 else raw).strip(b" \t\r\n")
        if number % BREATH == 0:
            await asyncio.sleep(0)
        if not line:
            continue
        report.received += 1
        try:
            chunk.add(read_line(line, settings.phone_region), len(line))
        except LineRejected as why:
            report.reject(number, why.code, why.detail)
        if chunk.is_full:
            await _commit(database, settings, chunk, report)
            chunk = _Chunk()
            if on_progress:
                on_progress(report)
    if chunk.accounts:
        await _commit(database, settings, chunk, report)
    if on_progress:
        on_progress(report)
    return report


def read_line(line: bytes, region: str) -> Snapshot:
    """One account, or LineRejected."""
    if len(line) > LINE_OCTETS:
        raise LineRejected("line_too_long", f"A line has at most {LINE_OCTETS} octets.")
    try:
        given = AccountLine.model_validate_json(line)
        if b"\\u0000" in line and has_nul(given.model_dump()):
            raise LineRejected("nul_character", "A NUL character has no place in a text.")
        return snapshot(given.number, given, region)
    except ValidationError as error:
        found = invalid_from(error.errors(include_url=False, include_context=False, include_input=False))
    except Invalid as error:
        found = error
    code = found.errors[0].code
    if code == "json_invalid":
        raise LineRejected("malformed_json", found.errors[0].detail)
    raise LineRejected(code, found.detail)


async def _commit(database: Database, settings: Settings, chunk: _Chunk, report: ImportReport) -> None:
    saved = await database.again(lambda session: save(session, chunk.accounts.values(), settings))
    report.updated += chunk.repeated
    report.unchanged += chunk.same
    for one in saved.values():
        if one.outcome == "created":
            report.created += 1
        elif one.outcome == "updated":
            report.updated += 1
        else:
            report.unchanged += 1


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
