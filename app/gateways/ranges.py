"""The import of number ranges: lines in, chunks into a staging table, and one transaction that puts the whole in the place of what was there.

Flat in memory however long it is, and no connection is held while the lines come in. Whoever hangs up in the middle has changed nothing.
"""

import asyncio
from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import Database
from app.core.errors import Invalid
from app.core.ids import new_id
from app.gateways.range_lines import Kind, LineReader, LineRejected

CHUNK = 10_000
LISTED = 1_000
BREATH = 200  # lines read in one go: the loop has other requests to serve
BOM = b"\xef\xbb\xbf"
STAGED = ("import_id", "line", "first", "last", "operator", "region")

# Of two that overlap, the one that begins later is rejected (of the same beginning, the later line), whatever became of the other.
OVERLAPS = sa.text("""
WITH ordered AS (
    SELECT line, first, last, max(last) OVER (ORDER BY first, line ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reach
    FROM number_range_import WHERE import_id = :import
), gone AS (
    DELETE FROM number_range_import n USING ordered o WHERE n.import_id = :import AND n.line = o.line AND o.first <= o.reach RETURNING n.line, n.first, n.last
)
SELECT line, first, last, count(*) OVER () AS number FROM gone ORDER BY line LIMIT :listed
""")
ONE_AT_A_TIME = sa.text("SELECT pg_advisory_xact_lock(hashtext('number_range'))")
CLEAR = sa.text("DELETE FROM number_range WHERE kind = :kind")
PUT = sa.text("""
INSERT INTO number_range (kind, first, last, operator, region)
SELECT CAST(:kind AS text), first, last, operator, region FROM number_range_import WHERE import_id = :import
""")
COUNT = sa.text("SELECT count(*) FROM number_range_import WHERE import_id = :import")
FORGET = sa.text("DELETE FROM number_range_import WHERE import_id = :import")
# What an import that was broken off has left: an id tells the time it was made.
LEFT = sa.text("DELETE FROM number_range_import WHERE import_id < :before")
ANALYZE = sa.text("ANALYZE number_range")


@dataclass(frozen=True, slots=True)
class RejectedLine:
    """`line` counts from 1, blank lines and the header too: as an editor shows it."""

    line: int
    code: str
    detail: str


@dataclass(slots=True)
class RangesReport:
    """What became of the lines. The first 1,000 rejections are listed, all are counted."""

    kind: Kind
    received: int = 0
    imported: int = 0
    rejected: list[RejectedLine] = field(default_factory=list)
    rejected_total: int = 0

    def reject(self, line: int, code: str, detail: str) -> None:
        self.rejected_total += 1
        if len(self.rejected) < LISTED:
            self.rejected.append(RejectedLine(line, code, detail))


async def import_ranges(database: Database, lines: AsyncIterable[bytes], reader: LineReader, kind: Kind) -> RangesReport:
    """All of one kind, from lines (with or without their ends), in the place of those that were there. Invalid when no line can be taken."""
    report, chunk, number, made = RangesReport(kind), list[tuple[Any, ...]](), 0, new_id()
    try:
        async for raw in lines:
            number += 1
            line = (raw.removeprefix(BOM) if number == 1 else raw).strip(b" \t\r\n")
            if number % BREATH == 0:
                await asyncio.sleep(0)
            if not line:
                continue
            try:
                span = reader.read(line)
            except LineRejected as why:
                report.received += 1
                report.reject(number, why.code, why.detail)
                continue
            if span is not None:
                report.received += 1
                chunk.append((made, number, span.first, span.last, span.operator, span.region))
            if len(chunk) >= CHUNK:
                await stage(database, chunk)
                chunk = []
        if chunk:
            await stage(database, chunk)
        report.imported, overlaps = await database.again(lambda session: swap(session, made, report))
    finally:
        await forget(database, made)
    for row in overlaps:
        report.reject(row.line, "overlap", f"{row.first} to {row.last} overlaps a line that begins before it, or is the same.")
    report.rejected_total += overlaps[0].number - len(overlaps) if overlaps else 0
    report.rejected.sort(key=lambda one: one.line)
    async with database.atomic() as connection:
        await connection.execute(ANALYZE)
    return report


async def stage(database: Database, chunk: list[tuple[Any, ...]]) -> None:
    """One COPY, which is a transaction of its own."""
    async with database.atomic() as connection:
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        await driver.copy_records_to_table("number_range_import", records=chunk, columns=STAGED, timeout=120)


async def swap(session: AsyncSession, made: UUID, report: RangesReport) -> tuple[int, list[Any]]:
    """How many were put in the place of the old ones, and the lines that overlapped. Until the commit everybody sees the old ones."""
    await session.execute(ONE_AT_A_TIME)
    overlaps: Any = list((await session.execute(OVERLAPS, {"import": made, "listed": LISTED})).all())
    imported = int((await session.execute(COUNT, {"import": made})).scalar_one())
    if imported == 0:
        first = report.rejected[0] if report.rejected else None
        why = f"Line {first.line}: {first.detail} No line could be taken, and nothing was changed." if first else "There is no line in it."
        raise Invalid(why, code="nothing_to_import")
    await session.execute(CLEAR, {"kind": report.kind})
    await session.execute(PUT, {"kind": report.kind, "import": made})
    return imported, overlaps


async def forget(database: Database, made: UUID) -> None:
    """The staged rows of this import, and of those that nobody has finished for a day."""
    day = UUID(int=max(0, made.int - (86_400_000 << 80)))
    async with database.transaction() as session:
        await session.execute(FORGET, {"import": made})
        await session.execute(LEFT, {"before": day})
