"""How much a key may ask: a rate, in Redis, and a quota of the day, in PostgreSQL.

    rate     requests a second, with a burst; counted by all processes together (`limits`). With Redis away each counts for itself: a key is not shut out
    quota    an event counts one, so does any other request, answered well or not; a day ends at midnight in VESTNIK_TIMEZONE. Never more than that gets
             through: a process sets a block aside in the database, a thousandth of the quota and at most 500, and spends it in memory. What a process
             that is killed had set aside is lost to that day; one that ends gives it back. Redis has no part in it

Keys without either cost nothing here.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from math import ceil
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from app.core import metrics
from app.core.auth import Allowance
from app.core.clock import now as clock
from app.core.db import Database
from app.core.errors import TooMany
from app.core.limits import Limits, Rate

LARGEST_BLOCK = 500
USAGE_KEPT = timedelta(days=7)  # a process that ends gives back what it had of yesterday's; nobody asks for more
EVERY = 86_400.0  # seconds between two times of forgetting
RateHeaders = dict[bytes, bytes]

# Of nobody's or of what is left of the day's quota: as much as asked for, or nothing.
SET_ASIDE = sa.text("""
INSERT INTO key_usage (key_id, day, used) SELECT :key_id, :day, CAST(:number AS bigint) WHERE CAST(:number AS bigint) <= :quota
ON CONFLICT (key_id, day) DO UPDATE SET used = key_usage.used + excluded.used WHERE key_usage.used + excluded.used <= :quota
RETURNING used
""")
GIVE_BACK = sa.text("UPDATE key_usage SET used = used - :number WHERE key_id = :key_id AND day = :day")
FORGET = sa.text("DELETE FROM key_usage WHERE day < :before")


@dataclass(slots=True)
class Block:
    """What this process may still spend of one key's day without asking. `used` is what the database said the last time."""

    day: date
    left: int = 0
    used: int = 0
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class KeyLimits:
    """Of one process."""

    def __init__(self, database: Database, limits: Limits, zone: str, now: Callable[[], datetime] = clock) -> None:
        self._database, self._limits, self._zone, self._now = database, limits, ZoneInfo(zone), now
        self._blocks: dict[str, Block] = {}

    async def admit(self, allowance: Allowance, headers: RateHeaders) -> None:
        """One request; TooMany, with the time to wait, when it is one too many. `headers` get what is left, of that which comes to its end first."""
        remaining: int | None = None
        if allowance.rate_per_second is not None:
            burst = allowance.burst or max(1, ceil(allowance.rate_per_second))
            rate = Rate("key", burst, allowance.rate_per_second * 60)
            # A changed rate is another bucket: the old one may hold more than the new one can.
            wait, remaining = await self._limits.take([(rate, f"{allowance.key_id}:{burst}:{allowance.rate_per_second}")])
            tell(headers, burst, remaining, wait or (burst - remaining) / allowance.rate_per_second)
            if wait:
                metrics.KEY_QUOTA_REFUSED.inc()
                raise TooMany(
                    f"This key may ask {allowance.rate_per_second:g} times a second: try again in {ceil(wait)} s.",
                    code="rate_exceeded",
                    headers={"Retry-After": str(ceil(wait))},
                )
        if allowance.daily_quota is not None:
            left = await self._spend(allowance, allowance.daily_quota, 1, headers)
            if remaining is None or left < remaining:
                tell(headers, allowance.daily_quota, left, self._until_midnight())

    async def charge(self, allowance: Allowance, number: int) -> None:
        """So many more of the day's quota, all or none: TooMany when there are not as many left. What the answer says of it was said at the door."""
        if allowance.daily_quota is not None:
            await self._spend(allowance, allowance.daily_quota, number, {})

    async def close(self) -> None:
        """Give back what was set aside and not spent."""
        async with self._database.transaction() as session:
            for key_id, block in sorted(self._blocks.items()):
                if block.left:
                    await session.execute(GIVE_BACK, {"key_id": key_id, "day": block.day, "number": block.left})
        self._blocks.clear()

    async def _spend(self, allowance: Allowance, quota: int, number: int, headers: RateHeaders) -> int:
        """How many are left, as far as this process knows."""
        block = self._block(allowance.key_id)
        if block.left < number:
            async with block.asking:
                while block.left < number:
                    if not await self._set_aside(allowance.key_id, block, quota, number - block.left):
                        wait = self._until_midnight()
                        tell(headers, quota, max(0, quota - block.used) + block.left, wait)
                        metrics.KEY_QUOTA_REFUSED.inc()
                        raise TooMany(
                            f"This key may tell {quota} events a day, other requests included, and has not {number} left: the next day begins in {ceil(wait)} s.",
                            code="quota_exceeded",
                            headers={"Retry-After": str(ceil(wait))},
                        )
                block.left -= number
        else:
            block.left -= number
        return max(0, quota - block.used) + block.left

    def _block(self, key_id: str) -> Block:
        day = self._now().astimezone(self._zone).date()
        block = self._blocks.get(key_id)
        if block is None or block.day != day:
            block = self._blocks[key_id] = Block(day)
        return block

    async def _set_aside(self, key_id: str, block: Block, quota: int, needed: int) -> bool:
        """As much as is needed and some more; near the end of the day just what is needed."""
        for number in sorted({max(needed, min(LARGEST_BLOCK, quota // 1000)), needed}, reverse=True):
            async with self._database.transaction() as session:
                used = (await session.execute(SET_ASIDE, {"key_id": key_id, "day": block.day, "number": number, "quota": quota})).scalar()
            if used is not None:
                block.left, block.used = block.left + number, used
                return True
        block.used = quota
        return False

    def _until_midnight(self) -> float:
        moment = self._now().astimezone(self._zone)
        midnight = datetime.combine(moment.date() + timedelta(days=1), datetime.min.time(), self._zone)
        return max(1.0, midnight.timestamp() - moment.timestamp())


class OldUsage:
    """A step of the sweep: days that are over are forgotten, once a day."""

    def __init__(self, database: Database) -> None:
        self._database, self._next = database, 0.0

    async def forget(self) -> None:
        if time.monotonic() < self._next:
            return
        async with self._database.transaction() as session:
            await session.execute(FORGET, {"before": (clock() - USAGE_KEPT).date()})
        self._next = time.monotonic() + EVERY


def tell(headers: RateHeaders, limit: int, remaining: int, reset: float) -> None:
    """What goes with the answer, well or not (draft-ietf-httpapi-ratelimit-headers, 03: seconds)."""
    headers[b"ratelimit-limit"] = str(limit).encode()
    headers[b"ratelimit-remaining"] = str(max(0, remaining)).encode()
    headers[b"ratelimit-reset"] = str(ceil(reset)).encode()
