"""What the messages themselves say, against what the cells say. The difference, appended as deltas, makes the cells right: that is the backfill, too.

Both sides are read by one statement, so by one snapshot, and a message's row and its deltas were written in one transaction: whatever happens meanwhile, the
difference is what was missing. Records that retention has dropped are counted in cells alone; the days before the oldest record are therefore left alone.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import Database
from app.core.ids import first_id_at
from app.tracking.reports.cells import ALONE, DIMENSIONS
from app.tracking.reports.days import DAY, OF_PERIOD, WHOLE, limits, sum_anew
from app.tracking.reports.dimensions import Period

log = structlog.get_logger()

CHUNK = dt.timedelta(days=7)
LONGEST_WAIT = dt.timedelta(days=35)  # from the creation of a message to the last submission of a part of it
BEYOND = dt.timedelta(days=1)

SENT = "(state IN ('accepted', 'delivered', 'undelivered', 'unknown') OR state = 'expired' AND reason IS DISTINCT FROM 'too_late')"
OF_MESSAGES = f"""
SELECT 'message' AS kind, date_trunc('hour', report_slot(id), :zone) AS slot, type, channel, gateway, route, sender, operator, template_id, template_version,
       CASE WHEN state IN ('held', 'queued', 'sending') THEN 'waiting' ELSE state END AS state, reason, report_bucket(state, not_before, updated_at) AS bucket,
       1 AS messages, CASE WHEN {SENT} AND channel = 'sms' THEN parts ELSE 0 END AS parts, CASE WHEN {SENT} THEN parts * coalesce(price, 0) ELSE 0 END AS cost
FROM message WHERE id >= :first_id AND id < :end_id AND NOT test
"""
OF_PARTS = """
SELECT 'part', date_trunc('hour', s.at, :zone), NULL, m.channel, s.gateway, NULL, m.sender, m.operator, NULL, NULL, NULL, NULL, -1,
       CASE WHEN s.part = 1 THEN 1 ELSE 0 END, 1, coalesce(m.price, 0)
FROM submission s LEFT JOIN message m ON m.id = s.message_id
WHERE s.message_id >= :submitted_from_id AND s.message_id < :end_id AND s.at >= :begins AND s.at < :ends AND s.outcome = 'accepted' AND s.gateway <> '@simulated'
"""
NAMES = f"kind, slot, {DIMENSIONS}, bucket"
COUNTED = f"""
SELECT k.kind, date_trunc('hour', c.slot, :zone) AS slot, {DIMENSIONS}, c.bucket, -c.messages, -c.parts, -c.cost
FROM report_cell c JOIN report_key k ON k.key = c.key WHERE c.slot >= :begins AND c.slot < :ends
UNION ALL
SELECT kind, date_trunc('hour', slot, :zone), {DIMENSIONS}, bucket, -messages, -parts, -cost FROM report_delta WHERE slot >= :begins AND slot < :ends
"""
DIFFERENCE = f"""
SELECT {NAMES}, CAST(sum(messages) AS bigint) AS messages, CAST(sum(parts) AS bigint) AS parts, sum(cost) AS cost
FROM ({OF_MESSAGES} UNION ALL {OF_PARTS} UNION ALL {COUNTED}) both_sides ({NAMES}, messages, parts, cost)
GROUP BY {NAMES} HAVING sum(messages) <> 0 OR sum(parts) <> 0 OR sum(cost) <> 0
"""
COMPARE = sa.text(f"{DIFFERENCE} ORDER BY kind, slot LIMIT :most")
CORRECT = sa.text(f"INSERT INTO report_delta ({NAMES}, messages, parts, cost) {DIFFERENCE}")
# Days that are not the sums of their hours.
COMPARE_DAYS = sa.text(f"""
SELECT k.kind, d.day AS slot, {DIMENSIONS}, d.bucket, CAST(sum(d.messages) AS bigint) AS messages, CAST(sum(d.parts) AS bigint) AS parts, sum(d.cost) AS cost
FROM (
    SELECT {DAY}, key, bucket, messages, parts, cost FROM report_cell WHERE {OF_PERIOD}
    UNION ALL SELECT day, key, bucket, -messages, -parts, -cost FROM report_day WHERE day >= :first AND day <= :last
) d (day, key, bucket, messages, parts, cost) JOIN report_key k ON k.key = d.key
WHERE {WHOLE} = :zone
GROUP BY d.day, k.key, d.bucket HAVING sum(d.messages) <> 0 OR sum(d.parts) <> 0 OR sum(d.cost) <> 0 ORDER BY kind, slot LIMIT :most
""")
OLDEST = sa.text("SELECT id FROM message ORDER BY id LIMIT 1")
CELLS_BEFORE = sa.text("SELECT EXISTS (SELECT FROM report_cell WHERE slot < :at)")
NEXT = sa.text("SELECT at, until FROM report_backfill FOR UPDATE SKIP LOCKED")
MOVED = sa.text("UPDATE report_backfill SET at = :at")
DONE = sa.text("DELETE FROM report_backfill")


@dataclass(frozen=True, slots=True)
class Recounted:
    """`first`: the day from which on there are records to count; what cells say of earlier ones stands. `lines`: rows of the difference, of messages less cells; where
    those agree, of the cells less the days that they were summed up in, of the whole period."""

    first: dt.date | None
    lines: list[Any]


async def recount(session: AsyncSession, period: Period, most: int = 1000) -> Recounted:
    """The differences of a period; none is what it should be."""
    whole = await with_records(session, period)
    lines = list((await session.execute(COMPARE, bounds(whole) | {"most": most})).all()) if whole else []
    if not lines:
        lines = list((await session.execute(COMPARE_DAYS, limits(period) | {"most": most})).all())
    return Recounted(whole.first if whole else None, lines)


async def repair(session: AsyncSession, period: Period) -> int:
    """Append what is missing, and sum up the days anew. How many deltas that took. It is alone: two at once would add it twice."""
    await session.execute(ALONE)
    await sum_anew(session, period)
    whole = await with_records(session, period)
    return rows_of(await session.execute(CORRECT, bounds(whole))) if whole else 0


async def with_records(session: AsyncSession, period: Period) -> Period | None:
    """The days of the period whose records are all there: of the oldest day that has any, some may have been dropped."""
    oldest = await session.scalar(OLDEST)
    if oldest is None:
        return None if await session.scalar(CELLS_BEFORE, {"at": period.ends}) else period
    made = await session.scalar(sa.text("SELECT report_slot(:id)"), {"id": oldest})
    day = local_day(made, period.zone)
    if await session.scalar(CELLS_BEFORE, {"at": Period(day, day, period.zone).begins}):
        day += dt.timedelta(days=1)
    first = max(day, period.first)
    return Period(first, period.last, period.zone) if first <= period.last else None


def local_day(moment: dt.datetime, zone: str) -> dt.date:
    return moment.astimezone(ZoneInfo(zone)).date()


def bounds(period: Period) -> dict[str, Any]:
    return values_of(period.begins, period.ends, period.zone)


def values_of(begins: dt.datetime, ends: dt.datetime, zone: str) -> dict[str, Any]:
    ids = {"first_id": first_id_at(begins), "end_id": first_id_at(ends), "submitted_from_id": first_id_at(begins - LONGEST_WAIT)}
    return ids | {"begins": begins, "ends": ends, "zone": zone}


def rows_of(result: Any) -> int:
    return int(result.rowcount)


class Backfill:
    """A step of the sweeps: messages that were there before the triggers, a week at a time, from the oldest on. A week that died is done again."""

    def __init__(self, database: Database, zone: str) -> None:
        self._database, self._zone = database, zone

    async def follow(self) -> int:
        async with self._database.transaction() as session:
            row = (await session.execute(NEXT)).first()
            if row is None:
                return 0
            await session.execute(ALONE)
            begins = await session.scalar(sa.text("SELECT date_trunc('hour', CAST(:at AS timestamptz), :zone)"), {"at": row.at, "zone": self._zone})
            ends = begins + CHUNK
            counted = rows_of(await session.execute(CORRECT, values_of(begins, ends, self._zone)))
            log.info("reports_backfilled", until=ends.isoformat(), deltas=counted)
            if ends >= row.until:
                await session.execute(DONE)
                return 0
            await session.execute(MOVED, {"at": ends})
            return 500  # there is more: come back in this turn
