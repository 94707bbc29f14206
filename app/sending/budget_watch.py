"""What the budgets of all gateways and types have spent, for the gauge and the API; and the release of what a budget held that was raised or removed."""

import time
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalogue.registry import Catalogue
from app.core import metrics
from app.core.clock import now as clock
from app.core.db import Database
from app.sending.budgets import Key, Limit, limit_of, midnight_after, type_limits

BATCH = 500
RESTS = 10.0  # a look through what is held that finds nothing rests so many times as long as it took
KEPT = timedelta(days=400)  # lines of usage

GATEWAYS = sa.text("""
SELECT name, CAST(settings ->> 'daily_parts' AS bigint) AS parts, CAST(settings ->> 'daily_cost' AS numeric) AS cost,
       CAST(settings ->> 'price_per_part' AS numeric) AS price
FROM gateway WHERE kind = 'smpp'
""")
USAGE = sa.text("SELECT scope, name, parts, cost FROM usage WHERE day = :day")
# Held by a budget means held until midnight: that is what the index knows, by priority.
ANY_HELD = sa.text(
    "SELECT EXISTS (SELECT FROM outbox WHERE state = 'held' AND stopped_at IS NULL AND priority IN (0, 1, 2) AND not_before = :midnight AND reason = 'budget')"
)
HELD = sa.text("""
SELECT o.gateway, m.type, count(*) AS number FROM outbox o JOIN message m ON m.id = o.message_id
WHERE o.state = 'held' AND o.stopped_at IS NULL AND o.priority IN (0, 1, 2) AND o.not_before = :midnight AND o.reason = 'budget' GROUP BY 1, 2
""")
# A budget that is gone has no line in `left`, and holds nothing.
FITTING = sa.text("""
WITH room AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:scopes AS text[]), CAST(:names AS text[]), CAST(:parts AS bigint[]), CAST(:costs AS numeric[])) AS v(scope, name, parts, cost)
), prices AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:priced AS text[]), CAST(:prices AS numeric[])) AS v(gateway, price)
)
SELECT o.message_id, o.gateway, m.type, o.parts, o.parts * coalesce(m.price, p.price, 0) AS cost
FROM outbox o JOIN message m ON m.id = o.message_id LEFT JOIN prices p ON p.gateway = o.gateway
WHERE o.state = 'held' AND o.stopped_at IS NULL AND o.priority IN (0, 1, 2) AND o.not_before = :midnight AND o.reason = 'budget' AND NOT EXISTS (
    SELECT FROM room r WHERE ((r.scope = 'gateway' AND r.name = o.gateway) OR (r.scope = 'type' AND r.name = m.type))
    AND (r.parts < o.parts OR r.cost < o.parts * coalesce(m.price, p.price, 0))
) ORDER BY o.message_id LIMIT :batch FOR UPDATE OF o SKIP LOCKED
""")
# What is left of the night is taken off its time to live again.
FREE = sa.text("""
WITH freed AS (
    UPDATE outbox SET not_before = :now, expires_at = expires_at - (CAST(:midnight AS timestamptz) - CAST(:now AS timestamptz))
    WHERE message_id = ANY(CAST(:ids AS uuid[])) RETURNING message_id, expires_at
)
UPDATE message m SET expires_at = freed.expires_at FROM freed WHERE m.id = freed.message_id
""")
FORGET = sa.text("DELETE FROM usage WHERE day < :before")


@dataclass(frozen=True, slots=True)
class BudgetToday:
    """One budget and what is spent of it on this day."""

    scope: str
    name: str
    day: date
    limit: Limit
    parts: int
    cost: Decimal
    held: int = 0

    @property
    def share(self) -> Decimal:
        return self.limit.share(self.parts, self.cost)


class BudgetWatch:
    """A step of the sweep. Any number of processes may take it."""

    def __init__(self, database: Database, zone: ZoneInfo) -> None:
        self._database, self._zone = database, zone
        self._catalogue = Catalogue()
        self._shown: set[Key] = set()
        self._rest_until = 0.0
        self._forgotten: date | None = None

    async def follow(self) -> int:
        """Show how much is spent, and let go what fits again; how many messages that were. The usual release sends them on their way."""
        moment = clock()
        midnight = midnight_of(moment, self._zone)
        async with self._database.transaction() as session:
            await self._catalogue.refresh(session)
            budgets, prices = await today(session, self._catalogue, moment, self._zone)
            waiting = bool((await session.execute(ANY_HELD, {"midnight": midnight})).scalar())
            if self._forgotten != (day := moment.astimezone(self._zone).date()):
                await session.execute(FORGET, {"before": day - KEPT})
                self._forgotten = day
        self._show(budgets)
        if not waiting or time.monotonic() < self._rest_until:
            return 0
        began = time.monotonic()
        moved = await self._let_go(budgets, prices, moment, midnight)
        if moved == 0:
            self._rest_until = time.monotonic() + RESTS * (time.monotonic() - began)
        return moved

    def _show(self, budgets: list[BudgetToday]) -> None:
        for budget in budgets:
            metrics.BUDGET_USED.labels(budget.scope, budget.name).set(float(budget.share))
        shown = {(budget.scope, budget.name) for budget in budgets}
        for scope, name in self._shown - shown:
            metrics.BUDGET_USED.remove(scope, name)
        self._shown = shown

    async def _let_go(self, budgets: list[BudgetToday], prices: dict[str, Decimal], moment: datetime, midnight: datetime) -> int:
        """No more than there is room for: what did not fit would come back held."""
        left = {(budget.scope, budget.name): room_of(budget) for budget in budgets}
        async with self._database.transaction() as session:
            values = {
                "scopes": [scope for scope, _ in left],
                "names": [name for _, name in left],
                "parts": [parts for parts, _ in left.values()],
                "costs": [cost for _, cost in left.values()],
                "priced": list(prices),
                "prices": list(prices.values()),
                "midnight": midnight,
                "batch": BATCH,
            }
            rows = (await session.execute(FITTING, values)).all()
            ids = [row.message_id for row in rows if fits(row, left)]
            if ids:
                await session.execute(FREE, {"ids": ids, "now": moment, "midnight": midnight})
        return len(ids)


def room_of(budget: BudgetToday) -> tuple[int | None, Decimal | None]:
    limit = budget.limit
    return None if limit.parts is None else limit.parts - budget.parts, None if limit.cost is None else limit.cost - budget.cost


def fits(row: Any, left: dict[Key, tuple[int | None, Decimal | None]]) -> bool:
    """Whether there is room for this message in all its budgets; then it is taken off what is left."""
    keys = [key for key in (("gateway", row.gateway), ("type", row.type)) if key in left]
    if any((parts is not None and parts < row.parts) or (cost is not None and cost < row.cost) for parts, cost in (left[key] for key in keys)):
        return False
    for key in keys:
        parts, cost = left[key]
        left[key] = (None if parts is None else parts - row.parts, None if cost is None else cost - row.cost)
    return True


async def today(session: AsyncSession, catalogue: Catalogue, moment: datetime, zone: ZoneInfo) -> tuple[list[BudgetToday], dict[str, Decimal]]:
    """Every budget that stands, and the prices of a part by gateway."""
    day = moment.astimezone(zone).date()
    gateways = (await session.execute(GATEWAYS)).all()
    limits: dict[Key, Limit] = {("gateway", row.name): limit for row in gateways if (limit := limit_of(row.parts, row.cost)) is not None}
    limits |= {("type", code): limit for code, limit in type_limits(catalogue).items()}
    spent = {(row.scope, row.name): (row.parts, row.cost) for row in (await session.execute(USAGE, {"day": day})).all()} if limits else {}
    budgets = [BudgetToday(*key, day, limits[key], *spent.get(key, (0, Decimal(0)))) for key in sorted(limits)]
    return budgets, {row.name: row.price for row in gateways if row.price is not None}


async def held_today(session: AsyncSession, moment: datetime, zone: ZoneInfo) -> dict[Key, int]:
    """How many messages wait for midnight, by gateway and by type."""
    held: dict[Key, int] = {}
    for row in (await session.execute(HELD, {"midnight": midnight_of(moment, zone)})).all():
        for key in (("gateway", row.gateway), ("type", row.type)):
            held[key] = held.get(key, 0) + row.number
    return held


def midnight_of(moment: datetime, zone: ZoneInfo) -> datetime:
    return midnight_after(moment.astimezone(zone).date(), zone)
