"""Reports as tests ask for them, and what they ought to say: counted in Python from the rows, with nothing of the SQL that is on trial."""

import bisect
import datetime as dt
from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from app.core.db import Database
from app.tracking.reports.ask import Counts, Line, report
from app.tracking.reports.cells import Folding
from app.tracking.reports.dimensions import GROUPS, Period, Wanted
from app.tracking.reports.invoice import billed
from app.tracking.reports.times import BORDERS
from tests.builders.messages import rows

ZONE = "Europe/Moscow"
EVERYTHING = tuple(group for group in GROUPS if group != "day")
EVERY_DAY = tuple(group for group in GROUPS if group != "hour")  # the same by days
Key = tuple[Any, ...]


def today(zone: str = ZONE, days: int = 1) -> Period:
    """The days around now."""
    day = dt.datetime.now(ZoneInfo(zone)).date()
    return Period(day - dt.timedelta(days=days), day + dt.timedelta(days=days), zone)


async def told(database: Database, groups: tuple[str, ...] = (), period: Period | None = None, **filters: list[str]) -> dict[Key, Counts]:
    """A report as a table."""
    async with database.transaction() as session:
        return {key_of(line): line.counts async for line in report(session, Wanted(period or today(), groups, filters))}


async def told_parts(database: Database, groups: tuple[str, ...] = (), period: Period | None = None) -> dict[Key, tuple[int, Decimal]]:
    async with database.transaction() as session:
        return {key_of(line): (line.counts.parts, line.counts.cost) async for line in billed(session, Wanted(period or today(), groups))}


def key_of(line: Line) -> Key:
    return tuple(line.key.values())


async def fold(database: Database, zone: str = ZONE) -> None:
    """Until nothing is left."""
    while await Folding(database, zone).fold():
        pass


async def counted(database: Database, zone: str = ZONE) -> dict[Key, Counts]:
    """What a report by everything ought to say."""
    found: dict[Key, Counts] = defaultdict(Counts)
    for row in await rows(database, "SELECT * FROM message WHERE NOT test"):
        made = dt.datetime.fromtimestamp((row.id.int >> 80) / 1000, dt.UTC).astimezone(ZoneInfo(zone))
        state = "waiting" if row.state in ("held", "queued", "sending") else row.state
        hour = made.replace(minute=0, second=0, microsecond=0)
        key = (hour, row.type, row.channel, row.gateway, row.route, row.sender, row.operator, row.template_id, row.template_version, state, row.reason)
        parts = row.parts if state in ("accepted", "delivered", "undelivered", "unknown") or (state == "expired" and row.reason != "too_late") else 0
        is_known = state in ("delivered", "undelivered", "expired", "failed")
        times = Counter([bucket_of((row.updated_at - row.not_before).total_seconds())] if state == "delivered" else [])
        sms_parts = parts if row.channel == "sms" else 0
        found[key].add(Counts(1, sms_parts, parts * (row.price or Decimal(0)), int(state == "delivered"), int(is_known), times))
    return dict(found)


def by_days(by_hours: dict[Key, Counts]) -> dict[Key, Counts]:
    """What a report by everything ought to say when it is by days."""
    found: dict[Key, Counts] = defaultdict(Counts)
    for (hour, *key), counts in by_hours.items():
        found[hour.date(), *key].add(counts)
    return dict(found)


def bucket_of(seconds: float) -> int:
    return bisect.bisect_right(BORDERS, seconds)


async def counted_parts(database: Database) -> dict[Key, tuple[int, Decimal]]:
    """What an invoice by gateway, sender and operator ought to say."""
    found: dict[Key, tuple[int, Decimal]] = defaultdict(lambda: (0, Decimal(0)))
    query = "SELECT s.gateway, m.sender, m.operator, m.price FROM submission s JOIN message m ON m.id = s.message_id WHERE s.outcome = 'accepted'"
    for row in await rows(database, query):
        parts, cost = found[row.gateway, row.sender, row.operator]
        found[row.gateway, row.sender, row.operator] = parts + 1, cost + (row.price or Decimal(0))
    return dict(found)
