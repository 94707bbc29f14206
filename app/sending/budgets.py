"""Budgets: so many parts, or so much money, a day for one gateway or one type of SMS. What does not fit is held until the operator's midnight.

Where a budget stands, a claim is a transaction: the candidates are locked, then the lines of `usage`, in one order for everybody; what fits is taken and
booked, what does not is held. Several binds and gateways at once never overrun. Without a budget none of this runs.
A message that comes back unsent is given back in the transaction that puts it back. A worker that dies has spent what it had claimed: it may be on its way.
Urgent and mandatory types are no exception: a budget bounds the bill, whatever the reason.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalogue.options import options_of
from app.catalogue.registry import Catalogue
from app.core.db import Database, Executor
from app.core.ids import new_id
from app.notifications.rows import CHANGES
from app.notifications.states import State
from app.sending.claim import DUE, HAND_OVER, PRIORITIES, TAKE, Claimed, Reserved, unclaim

log = structlog.get_logger()

Key = tuple[str, str]  # scope ("gateway" or "type") and name

ALERT = Decimal("0.8")
HELD_AT_ONCE = 500  # looked at by one claim while a budget is used up

OPEN = sa.text("""
INSERT INTO usage (day, scope, name, parts, cost, alerted) SELECT :day, scope, name, 0, 0, false
FROM unnest(CAST(:scopes AS text[]), CAST(:names AS text[])) AS v(scope, name) ORDER BY scope, name ON CONFLICT DO NOTHING
""")
CANDIDATES = sa.text(f"""
WITH due AS MATERIALIZED ({DUE})
SELECT due.message_id, due.parts, m.type, coalesce(m.price, :price) AS price FROM due JOIN message m ON m.id = due.message_id
ORDER BY due.priority, due.not_before, due.message_id
""")
# With the limits of this very moment: the sweep lets go what a raised budget has room for, and a claim that knew the old one would hold it again.
SPENT = sa.text("""
SELECT u.scope, u.name, u.parts, u.cost, u.alerted, CAST(CASE u.scope
           WHEN 'gateway' THEN (SELECT json_build_object('daily_parts', g.settings -> 'daily_parts', 'daily_cost', g.settings -> 'daily_cost')
                                FROM gateway g WHERE g.name = u.name)
           ELSE (SELECT json_build_object('daily_parts', t.settings -> 'daily_parts', 'daily_cost', t.settings -> 'daily_cost')
                 FROM notification_type t WHERE t.code = u.name)
       END AS text) AS said
FROM usage u
JOIN unnest(CAST(:scopes AS text[]), CAST(:names AS text[])) AS v(scope, name) ON v.scope = u.scope AND v.name = u.name
WHERE u.day = :day ORDER BY u.scope, u.name FOR UPDATE OF u
""")
TAKE_THESE = sa.text(f"WITH mine AS ({TAKE.format(ids='CAST(:ids AS uuid[])')}) {HAND_OVER.format(due='(SELECT count(*) FROM mine)')}")
BOOK = sa.text("""
UPDATE usage u SET parts = greatest(0, u.parts + v.parts), cost = greatest(0, u.cost + v.cost), alerted = u.alerted OR v.alerted
FROM unnest(CAST(:days AS date[]), CAST(:scopes AS text[]), CAST(:names AS text[]), CAST(:parts AS bigint[]), CAST(:costs AS numeric[]), CAST(:alerted AS bool[]))
    AS v(day, scope, name, parts, cost, alerted)
WHERE u.day = v.day AND u.scope = v.scope AND u.name = v.name
""")
# It stands still until midnight, and its time to live with it.
HOLD = sa.text("""
WITH held AS (
    UPDATE outbox SET state = 'held', reason = 'budget', not_before = :midnight, expires_at = expires_at + (CAST(:midnight AS timestamptz) - CAST(:now AS timestamptz))
    WHERE message_id = ANY(CAST(:ids AS uuid[])) RETURNING message_id, expires_at
)
UPDATE message m SET expires_at = held.expires_at FROM held WHERE m.id = held.message_id
""")
WHAT = sa.text("SELECT id, type, parts, coalesce(price, :price) AS price FROM message WHERE id = ANY(CAST(:ids AS uuid[])) AND channel = 'sms'")


@dataclass(frozen=True, slots=True)
class Limit:
    """Parts and money a day; None: as much as one likes."""

    parts: int | None
    cost: Decimal | None

    def share(self, parts: int, cost: Decimal) -> Decimal:
        """The larger share of the two that is spent; of a limit of nothing all is."""
        shares = [Decimal(parts) / self.parts if self.parts else Decimal(1)] if self.parts is not None else []
        shares += [cost / self.cost if self.cost else Decimal(1)] if self.cost is not None else []
        return max(shares, default=Decimal(0))


def limit_of(parts: int | None, cost: Decimal | None) -> Limit | None:
    return Limit(parts, cost) if parts is not None or cost is not None else None


def type_limits(catalogue: Catalogue) -> dict[str, Limit]:
    """By the types' settings."""
    return {code: limit for code, options in catalogue.special.items() if (limit := limit_of(*options.limits)) is not None}


@dataclass(slots=True)
class Spending:
    """What one budget has spent today, as far as this claim knows."""

    limit: Limit
    parts: int
    cost: Decimal
    alerted: bool
    more_parts: int = 0
    more_cost: Decimal = Decimal(0)

    def has(self, parts: int, cost: Decimal) -> bool:
        limit = self.limit
        return (limit.parts is None or self.parts + self.more_parts + parts <= limit.parts) and (
            limit.cost is None or self.cost + self.more_cost + cost <= limit.cost
        )

    def spend(self, parts: int, cost: Decimal) -> None:
        self.more_parts += parts
        self.more_cost += cost

    @property
    def share(self) -> Decimal:
        return self.limit.share(self.parts + self.more_parts, self.cost + self.more_cost)

    @property
    def alerts(self) -> bool:
        """Whether this claim is the one that makes it nearly spent."""
        return not self.alerted and self.share >= ALERT


@dataclass(slots=True)
class Sorting:
    """What a claim may take, and what has to wait; `all` when no candidate was left over for want of room."""

    taken: dict[UUID, Reserved] = field(default_factory=dict)
    held: list[tuple[UUID, Key]] = field(default_factory=list)
    all: bool = True


class Budgets:
    """The budgets that one claiming loop keeps to: its gateway's, and those of types, as they stand at each claim."""

    def __init__(
        self, database: Database, gateway: str, limit: Limit | None, price: Decimal | None, types: Callable[[], Mapping[str, Limit]], zone: ZoneInfo
    ) -> None:
        self._database, self._gateway, self._limit, self._price, self._types, self._zone = database, gateway, limit, price or Decimal(0), types, zone
        self._opened: tuple[date | None, frozenset[Key]] = (None, frozenset())
        self._used_up = False

    @property
    def stand(self) -> bool:
        """Whether there is any; if not, the usual claim is the right one."""
        return self._limit is not None or bool(self._types())

    async def claim(self, owner: UUID, room: int, now: datetime, lease: timedelta, in_hand: list[UUID] | None = None) -> tuple[list[Claimed], bool]:
        """At most `room` parts of what is due and fits, and whether that was all that is due. With `in_hand` given, what was claimed without our knowing
        is given back first."""
        limits = self._limits()
        day = now.astimezone(self._zone).date()
        await self._open(day, limits)
        looked = max(room, HELD_AT_ONCE) if self._used_up else room
        if in_hand is not None:
            async with self._database.transaction() as session:  # of its own: it takes the same lines, and not in one order with those of the claim
                await self._undo(session, owner, in_hand, day, limits)
        async with self._database.transaction() as session:
            values: dict[str, Any] = {"priorities": PRIORITIES, "gateway": self._gateway, "now": now, "room": looked, "price": self._price}
            rows = (await session.execute(CANDIDATES, values)).all()
            if not rows:
                return [], True
            spendings = await self._lock(session, rows, limits, day)
            sorting = sort_out(rows, spendings, self._gateway, room, day)
            batch = await take(session, self._gateway, sorting.taken, owner, now, lease)
            await hold(session, sorting.held, now, midnight_after(day, self._zone))
            await book(session, day, spendings)
        self._used_up = bool(sorting.held)
        for (scope, name), spending in spendings.items():
            if spending.alerts:
                log.warning("budget_nearly_spent", scope=scope, name=name, share=round(float(spending.share), 3), day=day.isoformat())
        return batch, sorting.all and len(rows) < looked

    def _limits(self) -> dict[Key, Limit]:
        limits: dict[Key, Limit] = {("type", code): limit for code, limit in self._types().items()}
        return limits | ({("gateway", self._gateway): self._limit} if self._limit is not None else {})

    async def _open(self, day: date, limits: Mapping[Key, Limit]) -> None:
        """A line for each budget and day, in a transaction of its own: whoever waits for another's new line holds nothing meanwhile."""
        keys = frozenset(limits)
        if self._opened != (day, keys):
            async with self._database.transaction() as session:
                await session.execute(OPEN, {"day": day} | columns(sorted(keys)))
            self._opened = (day, keys)

    async def _lock(self, session: AsyncSession, rows: Iterable[Any], limits: Mapping[Key, Limit], day: date) -> dict[Key, Spending]:
        """The budgets that these messages need, nobody else's until the commit."""
        keys = {key for row in rows for key in keys_of(self._gateway, row.type) if key in limits}
        found = (await session.execute(SPENT, {"day": day} | columns(sorted(keys)))).all()
        return {(row.scope, row.name): Spending(limit_now(row, limits), row.parts, row.cost, row.alerted) for row in found}

    async def _undo(self, session: AsyncSession, owner: UUID, in_hand: list[UUID], day: date, limits: Mapping[Key, Limit]) -> None:
        ids = await unclaim(session, owner, in_hand)
        if ids:
            rows = (await session.execute(WHAT, {"ids": ids, "price": self._price})).all()
            await give_back(
                session,
                [Reserved(day, tuple(key for key in keys_of(self._gateway, row.type) if key in limits), row.parts, row.parts * row.price) for row in rows],
            )


def limit_now(row: Any, limits: Mapping[Key, Limit]) -> Limit:
    """As the gateway or the type says at this moment; of one that is gone, as it said last."""
    return Limit(*options_of(row.name, orjson.loads(row.said)).limits) if row.said is not None else limits[row.scope, row.name]


def sort_out(rows: Iterable[Any], spendings: Mapping[Key, Spending], gateway: str, room: int, day: date) -> Sorting:
    """In the order of the queue: what fits is taken until the room is used, what does not is held. The first message always fits the wire."""
    sorting, used = Sorting(), 0
    for row in rows:
        keys, cost = tuple(key for key in keys_of(gateway, row.type) if key in spendings), row.parts * row.price
        lacking = next((key for key in keys if not spendings[key].has(row.parts, cost)), None)
        if lacking is not None:
            sorting.held.append((row.message_id, lacking))
            continue
        if used and used + row.parts > room:
            sorting.all = False
            break
        used += row.parts
        for key in keys:
            spendings[key].spend(row.parts, cost)
        sorting.taken[row.message_id] = Reserved(day, keys, row.parts, cost)
    return sorting


async def take(session: Executor, gateway: str, reserved: Mapping[UUID, Reserved], owner: UUID, now: datetime, lease: timedelta) -> list[Claimed]:
    if not reserved:
        return []
    values = {"gateway": gateway, "ids": list(reserved), "owner": owner, "now": now, "lease": now + lease}
    rows: list[Any] = list((await session.execute(TAKE_THESE, values)).all())
    return [Claimed(**row._mapping, claimed_at=now, reserved=reserved[row.id]) for row in rows]  # noqa: SLF001 - SQLAlchemy's name for it


async def hold(session: AsyncSession, held: list[tuple[UUID, Key]], now: datetime, midnight: datetime) -> None:
    if held:
        await session.execute(HOLD, {"ids": [message_id for message_id, _ in held], "now": now, "midnight": midnight})
        await CHANGES.run(session, [(new_id(), message_id, now, State.HELD.value, "budget", f"of the {scope} {name}") for message_id, (scope, name) in held])


async def book(session: Executor, day: date, spendings: Mapping[Key, Spending]) -> None:
    spent = [
        (day, scope, name, spending.more_parts, spending.more_cost, spending.alerts) for (scope, name), spending in spendings.items() if spending.more_parts
    ]
    await _book(session, spent)


async def give_back(session: Executor, reserved: Iterable[Reserved]) -> None:
    """What was set aside and not sent. In the transaction that puts the messages back, and for those alone that it has put back."""
    sums: dict[tuple[date, str, str], tuple[int, Decimal]] = defaultdict(lambda: (0, Decimal(0)))
    for each in reserved:
        for scope, name in each.budgets:
            parts, cost = sums[each.day, scope, name]
            sums[each.day, scope, name] = (parts + each.parts, cost + each.cost)
    await _book(session, [(*line, -parts, -cost, False) for line, (parts, cost) in sums.items()])


async def _book(session: Executor, lines: list[tuple[date, str, str, int, Decimal, bool]]) -> None:
    if lines:
        # Locked in one order first: an UPDATE takes its rows as they come.
        for day in sorted({line[0] for line in lines}):
            await session.execute(SPENT, {"day": day} | columns(sorted((scope, name) for of, scope, name, *_ in lines if of == day)))
        await session.execute(BOOK, dict(zip(("days", "scopes", "names", "parts", "costs", "alerted"), map(list, zip(*lines, strict=True)), strict=True)))


def keys_of(gateway: str, code: str) -> tuple[Key, Key]:
    return ("gateway", gateway), ("type", code)


def columns(keys: Iterable[Key]) -> dict[str, list[str]]:
    found = list(keys)
    return {"scopes": [scope for scope, _ in found], "names": [name for _, name in found]}


def midnight_after(day: date, zone: ZoneInfo) -> datetime:
    """The end of this day on the clocks of the zone."""
    return datetime.combine(day + timedelta(days=1), time(0), tzinfo=zone).astimezone(UTC)
