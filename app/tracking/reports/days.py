"""Days: the cells of the hours, summed up by the days of VESTNIK_TIMEZONE. Whoever does not ask for hours reads a twentieth as many rows.

Folding adds to both in one statement. Days are cut by one expression, here and there, so that a day has the hours that it says, on every clock. When the clock
is another one, days are summed anew, some at a time, since years of them would hold up the sweeps:

    zone is ours, `next_day` NULL     the days are whole, and reports read them
    zone is ours, `next_day` a day    the days before it are whole; reports read hours; each folding sums further
    another zone, or no row           from the beginning
"""

import datetime as dt
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.tracking.reports.dimensions import Period

log = structlog.get_logger()

CHUNK = dt.timedelta(days=7)
BEGINNING = dt.date(1970, 1, 1)  # no UUIDv7 is older
ASIDE = dt.timedelta(days=1)  # a clock is at most 14 hours from UTC; what lies nearby is looked at, and the expression decides

DAY = "CAST(slot AT TIME ZONE :zone AS date)"
OF_PERIOD = f"slot >= :around AND slot < :until AND {DAY} >= :first AND {DAY} <= :last"
# Whether the days may be read: for a statement that decides by its own snapshot.
WHOLE = "(SELECT zone FROM report_day_zone WHERE next_day IS NULL)"

STATE = sa.text("SELECT zone, next_day FROM report_day_zone")
BEGIN = sa.text("""
INSERT INTO report_day_zone (id, zone, next_day) VALUES (1, :zone, :next_day) ON CONFLICT (id) DO UPDATE SET zone = excluded.zone, next_day = excluded.next_day
""")
NEXT_DAY_OF_CELLS = sa.text(f"SELECT {DAY} FROM report_cell WHERE slot >= :around AND {DAY} >= :first ORDER BY slot LIMIT 1")
MOVED = sa.text("UPDATE report_day_zone SET next_day = :next_day")
FORGET = sa.text("DELETE FROM report_day WHERE day >= :first AND day <= :last")
FORGET_REST = sa.text("DELETE FROM report_day WHERE day >= :first")
SUM = sa.text(f"""
INSERT INTO report_day (day, key, bucket, messages, parts, cost)
SELECT {DAY}, key, bucket, sum(messages), sum(parts), sum(cost) FROM report_cell WHERE {OF_PERIOD}
GROUP BY 1, 2, 3 HAVING sum(messages) <> 0 OR sum(parts) <> 0 OR sum(cost) <> 0
""")


async def sum_further(session: AsyncSession, zone: str) -> bool:
    """A step, if there is anything to sum; whether the days are whole. For whoever has the lock of the folding."""
    state = (await session.execute(STATE)).first()
    if state is not None and state.zone == zone and state.next_day is None:
        return True
    if state is None or state.zone != zone:
        log.info("report_days_summed_anew", zone=zone)
        await session.execute(BEGIN, {"zone": zone, "next_day": BEGINNING})
        next_day = BEGINNING
    else:
        next_day = state.next_day
    found = await session.scalar(NEXT_DAY_OF_CELLS, {"first": next_day, "around": around(next_day), "zone": zone})
    if found is None:
        await session.execute(FORGET_REST, {"first": next_day})
        await session.execute(MOVED, {"next_day": None})
        return True
    # What lies between, and in these days, was of the other clock.
    chunk = Period(found, found + CHUNK - dt.timedelta(days=1), zone)
    await session.execute(FORGET, {"first": next_day, "last": chunk.last})
    await session.execute(SUM, limits(chunk))
    await session.execute(MOVED, {"next_day": found + CHUNK})
    return False


async def sum_anew(session: AsyncSession, period: Period) -> None:
    """The days of the period from their hours, unless they are being summed up anyhow. For whoever has the lock of the folding."""
    state = (await session.execute(STATE)).first()
    if state is not None and state.zone == period.zone and state.next_day is None:
        await session.execute(FORGET, {"first": period.first, "last": period.last})
        await session.execute(SUM, limits(period))


def limits(period: Period) -> dict[str, Any]:
    """The parameters of OF_PERIOD and DAY."""
    return {"first": period.first, "last": period.last, "around": around(period.first), "until": around(period.last) + 3 * ASIDE, "zone": period.zone}


def around(day: dt.date) -> dt.datetime:
    """Before it begins on any clock."""
    return dt.datetime.combine(day, dt.time(), dt.UTC) - ASIDE
