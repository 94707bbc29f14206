"""Reports of messages: cells and the deltas that are not folded yet, in one statement, so that a report is exact at every moment."""

import datetime as dt
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.tracking.reports.days import WHOLE
from app.tracking.reports.dimensions import TIMES, Period, Wanted, conditions
from app.tracking.reports.times import percentile

# `at` is the number of the day or hour: a search in an array costs a tenth of what cutting a moment in a zone does.
ASK = """
WITH counted AS (
    SELECT {slot} AS at, {key_columns} k.state AS of_state, c.bucket, c.messages, c.parts, c.cost
    FROM report_cell c JOIN report_key k ON k.key = c.key WHERE c.slot >= :begins AND c.slot < :ends AND k.kind = :kind{of_keys}{unless_days}
    UNION ALL{days}
    SELECT {slot_of_delta} AS at, {delta_columns} d.state AS of_state, d.bucket, d.messages, d.parts, d.cost FROM report_delta d
    WHERE d.kind = :kind AND d.slot >= :begins AND d.slot < :ends{of_deltas}
), by_bucket AS (
    SELECT {columns} bucket, sum(messages) AS messages, sum(parts) AS parts, sum(cost) AS cost,
           coalesce(sum(messages) FILTER (WHERE of_state = 'delivered'), 0) AS delivered,
           coalesce(sum(messages) FILTER (WHERE of_state IN ('delivered', 'undelivered', 'expired', 'failed')), 0) AS known
    FROM counted GROUP BY {columns} bucket
)
SELECT {columns} CAST(sum(messages) AS bigint) AS messages, CAST(sum(parts) AS bigint) AS parts, sum(cost) AS cost,
       CAST(sum(delivered) AS bigint) AS delivered, CAST(sum(known) AS bigint) AS known,
       array_agg(bucket ORDER BY bucket) FILTER (WHERE bucket >= 0) AS buckets, array_agg(CAST(messages AS bigint) ORDER BY bucket) FILTER (WHERE bucket >= 0) AS times,
       CAST(count(*) OVER () AS bigint) AS rows
FROM by_bucket {grouped} HAVING sum(messages) <> 0 OR sum(parts) <> 0 OR sum(cost) <> 0 {ordered}
"""
# Days are read where no hours are asked for. One statement decides, by its snapshot, whether they are whole on this clock: after a change of
# VESTNIK_TIMEZONE, and before the first folding, they are not, and the hours are read.
DAYS = f"""
    SELECT {{day}} AS at, {{key_columns}} k.state AS of_state, c.bucket, c.messages, c.parts, c.cost
    FROM report_day c JOIN report_key k ON k.key = c.key
    WHERE c.day >= :first AND c.day <= :last AND k.kind = :kind{{of_keys}} AND {WHOLE} = :zone
    UNION ALL"""
UNLESS_DAYS = f" AND {WHOLE} IS DISTINCT FROM :zone"
# 50,000 groups are added up and sorted without a temporary file.
ROOM = sa.text("SELECT set_config('work_mem', '16MB', true)")
BATCH = 500
BACKFILLING = sa.text("SELECT at, until FROM report_backfill")


@dataclass(slots=True)
class Counts:
    """What is said of a group. `known`: messages whose end is known (delivered, undelivered, expired, failed); the share is of these."""

    messages: int = 0
    parts: int = 0
    cost: Decimal = Decimal(0)
    delivered: int = 0
    known: int = 0
    times: Counter[int] = field(default_factory=Counter)

    def add(self, other: "Counts") -> None:
        self.messages += other.messages
        self.parts += other.parts
        self.cost += other.cost
        self.delivered += other.delivered
        self.known += other.known
        self.times.update(other.times)

    @property
    def share(self) -> float | None:
        return round(self.delivered / self.known, 6) if self.known > 0 else None

    def measures(self) -> dict[str, Any]:
        """As every answer says them; in the order of MEASURES."""
        return {
            "messages": self.messages,
            "parts": self.parts,
            "cost": self.cost,
            "delivered": self.delivered,
            "known": self.known,
            "delivery_share": self.share,
            "p50_seconds": percentile(self.times, 0.5),
            "p95_seconds": percentile(self.times, 0.95),
        }


MEASURES = ("messages", "parts", "cost", "delivered", "known", "delivery_share", "p50_seconds", "p95_seconds")


@dataclass(frozen=True, slots=True)
class Line:
    """One group: its columns, and what was counted. `rows`: how many groups the report has."""

    key: dict[str, Any]
    counts: Counts
    rows: int


def statement(wanted: Wanted, kind: str = "message") -> tuple[sa.TextClause, dict[str, Any]]:
    """The query of a report, and its parameters. Names in it come from our own tables alone."""
    grain, columns = wanted.grain, wanted.columns
    local = "width_bucket({0}, CAST(:starts AS timestamptz[]))" if grain else "0"
    plain = [column for column in columns if column not in TIMES]
    grouped = grouped_by(columns)
    of_keys, values = conditions(wanted.filters, "k")
    of_deltas, _ = conditions(wanted.filters, "d")
    key_columns = "".join(f"k.{column}, " for column in plain)
    by_days = grain != "hour"
    sql = ASK.format(
        days=DAYS.format(day="c.day - :first + 1" if grain else "0", key_columns=key_columns, of_keys=of_keys) if by_days else "",
        unless_days=UNLESS_DAYS if by_days else "",
        slot=local.format("c.slot"),
        slot_of_delta=local.format("d.slot"),
        key_columns=key_columns,
        delta_columns="".join(f"d.{column}, " for column in plain),
        columns="".join(f"{column}, " for column in grouped),
        of_keys=of_keys,
        of_deltas=of_deltas,
        grouped=f"GROUP BY {', '.join(grouped)}" if grouped else "",
        ordered=f"ORDER BY {', '.join(f'{column} NULLS FIRST' for column in grouped)}" if grouped else "",
    )
    values |= {"begins": wanted.period.begins, "ends": wanted.period.ends, "kind": kind}
    if by_days:
        values |= {"first": wanted.period.first, "last": wanted.period.last, "zone": wanted.period.zone}
    return sa.text(sql), values | ({"starts": wanted.period.starts(grain)} if grain else {})


async def report(session: AsyncSession, wanted: Wanted, kind: str = "message") -> AsyncIterator[Line]:
    """The groups in the order of their columns, as the server sends them: any number takes no more memory than a few hundred."""
    sql, values = statement(wanted, kind)
    zone, grouped = ZoneInfo(wanted.period.zone), grouped_by(wanted.columns)
    hours = [at.astimezone(zone) for at in values.get("starts", ())]
    # A day is said as a date, an hour as its beginning on the local clock.
    said: dict[str, Sequence[dt.date]] = {"day": [at.date() for at in hours], "hour": hours}
    columns = [(column, grouped.index("at" if column in TIMES else column), said.get(column)) for column in wanted.columns]
    await session.execute(ROOM)
    found = await session.stream(sql, values, execution_options={"yield_per": BATCH})
    try:
        async for rows in found.partitions(BATCH):
            for row in rows:
                times = Counter(dict(zip(row.buckets, row.times, strict=True))) if row.buckets else Counter[int]()
                counts = Counts(row.messages, row.parts, row.cost, row.delivered, row.known, times)
                key = {column: row[place] if moments is None else moments[row[place] - 1] for column, place, moments in columns}
                yield Line(key, counts, row.rows)
    finally:
        await found.close()


def grouped_by(columns: Sequence[str]) -> list[str]:
    """The first columns of the query, each once. By day and hour: the day is cut from the hour when the line is read."""
    return list(dict.fromkeys("at" if column in TIMES else column for column in columns))


async def is_complete(session: AsyncSession, period: Period) -> bool:
    """Whether everything in it has been counted: after an upgrade, what was there before is counted little by little."""
    row = (await session.execute(BACKFILLING)).first()
    return row is None or period.ends <= row.at or period.begins >= row.until


async def total_of(session: AsyncSession, period: Period, filters: dict[str, list[str]]) -> Counts:
    """A report without groups."""
    async for line in report(session, Wanted(period, (), filters)):
        return line.counts
    return Counts()
