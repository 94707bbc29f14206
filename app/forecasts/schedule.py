"""When the clock asks for scans: in each zone once a day, as soon as it is the scan hour there. What is due is read from the ledger and not remembered:
a service that was down over the hour scans when it is up again, once. A day that was missed altogether is history for exhaustion and threshold, whose
state today's scan sees; upcoming charges are told on one day alone, so for them the missed days are scanned as well while the charges are still to come.
"""

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.forecasts.ask import ask_for
from app.forecasts.find import UPCOMING_DAYS

# A walk from zone to zone along the index: a million accounts live in a dozen of them.
ZONES = sa.text("""
WITH RECURSIVE z AS (
    (SELECT timezone FROM account ORDER BY timezone LIMIT 1)
    UNION ALL SELECT (SELECT a.timezone FROM account a WHERE a.timezone > z.timezone ORDER BY a.timezone LIMIT 1) FROM z WHERE z.timezone IS NOT NULL
)
SELECT timezone FROM z WHERE timezone IS NOT NULL
""")
LEDGER = sa.text("SELECT kind, state FROM scan_run WHERE origin = 'clock' AND zone = :zone AND as_of = :as_of")

LAST = sa.text("SELECT max(as_of) FROM scan_run WHERE origin = 'clock' AND zone = :zone AND kind = 'upcoming'")

# Exhaustion first: threshold leaves out whom that has told on the same day.
ORDER = ("exhaustion", "threshold", "upcoming")


def today_in(zone: str, otherwise: str, moment: datetime) -> datetime:
    """The moment on the clocks of the zone; of the operator's where this machine does not know the account's."""
    try:
        return moment.astimezone(ZoneInfo(zone))
    except (KeyError, ValueError, OSError):
        return moment.astimezone(ZoneInfo(otherwise))


async def zones(session: AsyncSession) -> list[str]:
    return list((await session.execute(ZONES)).scalars())


async def ask_for_due(
    session: AsyncSession, kinds: Sequence[str], hour: time, otherwise: str, moment: datetime, upcoming_days: int = UPCOMING_DAYS
) -> list[UUID]:
    """New runs for every zone and kind that is due and not in the ledger. Safe to call at any time, from anywhere, at once."""
    asked: list[UUID] = []
    for zone in await zones(session):
        local = today_in(zone, otherwise, moment)
        if local.time() < hour:
            continue
        known = {row.kind: row.state for row in (await session.execute(LEDGER, {"zone": zone, "as_of": local.date()})).all()}
        for kind in ORDER:
            if kind not in kinds or kind in known:
                continue
            if kind == "threshold" and known.get("exhaustion") in ("queued", "running", "needs_confirmation"):
                continue
            days = await _missed(session, zone, local.date(), upcoming_days) if kind == "upcoming" else []
            for day in (*days, local.date()):
                run_id = await ask_for(session, kind, origin="clock", by="clock", days={zone: day}, zone=zone, as_of=day)
                if run_id is not None:
                    asked.append(run_id)
                known[kind] = "queued"  # by us, or by another just now: threshold waits for it in any case
    return asked


async def _missed(session: AsyncSession, zone: str, today: date, upcoming_days: int) -> list[date]:
    """The days between the last scan of upcoming charges and today whose charges are not yet due."""
    last: date | None = await session.scalar(LAST, {"zone": zone})
    if last is None:
        return []
    first = max(last + timedelta(days=1), today - timedelta(days=upcoming_days))
    return [first + timedelta(days=n) for n in range((today - first).days)]


def days_of(zones_: Sequence[str], otherwise: str, moment: datetime, as_of: date | None) -> tuple[dict[str, date], list[str]]:
    """For a run by hand: the day of each zone, and the zones that are past the given one already."""
    local = {zone: today_in(zone, otherwise, moment).date() for zone in zones_}
    if as_of is None:
        return local, []
    return {zone: as_of for zone, day in local.items() if day <= as_of}, [zone for zone, day in local.items() if day > as_of]
