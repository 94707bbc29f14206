"""What is queued leaves a gateway that is gone, disabled, paused, lost or failing, for one that does better.

Gateways are looked at first: while all of them do well, and nothing is queued on one that is not there, no message is touched. A message that is
`sending` or `unknown` never moves: it may be on its way. Each batch is one transaction, so a process that dies leaves whole batches. A long queue takes
several spells: the other sweeps have to go on meanwhile.
"""

import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import now as clock
from app.core.db import Database
from app.core.ids import new_id
from app.core.wakeups import Wakeups
from app.gateways.operators import operators_of
from app.gateways.roads import Roads
from app.gateways.router import NO_ATTRIBUTES, SIMULATED, Choice, Rank, Road, Router
from app.notifications.rows import CHANGES, cut
from app.notifications.states import State
from app.notifications.stops import UNSTOPPED, Stops

log = structlog.get_logger()

BATCH = 500
SPELL, REST = 3.0, 1.0  # seconds that one step of the sweep may take, and that it leaves to the others when that was not enough
AGAIN = 60.0  # seconds after which many that stayed are looked at again, though nothing seems to have changed
MANY = 2_000  # messages that stayed: fewer are looked at with every sweep

# From one gateway to the next in the index: a few descents, however long the queues are.
QUEUED = sa.text("""
WITH RECURSIVE found AS (
    (SELECT gateway FROM outbox WHERE state = 'queued' AND gateway IS NOT NULL ORDER BY gateway LIMIT 1)
    UNION ALL
    SELECT (SELECT gateway FROM outbox WHERE state = 'queued' AND gateway > found.gateway ORDER BY gateway LIMIT 1) FROM found WHERE found.gateway IS NOT NULL
)
SELECT gateway FROM found WHERE gateway IS NOT NULL
UNION ALL SELECT NULL WHERE EXISTS (SELECT FROM outbox WHERE state = 'queued' AND gateway IS NULL)
""")
# In the order in which they would be claimed, on from where the last batch ended. What waits for its second try after a silence may have arrived
# where it was sent first: it stays there. What a stop is about to hold is held, and does not slip out by another gateway.
TAKE = """
SELECT message_id, not_before, channel, parts FROM outbox o WHERE {gateway} AND state = 'queued' AND NOT resent AND priority = :priority
AND (not_before, message_id) > (:not_before, CAST(:message_id AS uuid)) AND {unstopped} ORDER BY not_before, message_id LIMIT :batch FOR UPDATE SKIP LOCKED
"""
OF_GATEWAY = sa.text(TAKE.format(gateway="gateway = :gateway", unstopped=UNSTOPPED))
OF_NONE = sa.text(TAKE.format(gateway="gateway IS NULL AND CAST(:gateway AS text) IS NULL", unstopped=UNSTOPPED))
BEGIN = (datetime.min.replace(tzinfo=UTC), UUID(int=0))
MESSAGES = sa.text("""
SELECT m.id, m.type, m.address, m.account_id, m.text, m.encoding, CAST(a.attributes AS text) AS attributes
FROM message m LEFT JOIN account a ON a.id = m.account_id WHERE m.id = ANY(CAST(:ids AS uuid[]))
""")
MOVE = sa.text("UPDATE outbox SET gateway = :gateway WHERE message_id = ANY(CAST(:ids AS uuid[])) AND state = 'queued'")
TELL = sa.text("""
UPDATE message SET gateway = :gateway, route = :route, sender = :sender, price = :price, updated_at = :now WHERE id = ANY(CAST(:ids AS uuid[]))
""")
RECUT = sa.text("""
WITH v AS (SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:encodings AS text[]), CAST(:parts AS smallint[])) AS v(id, encoding, parts)),
cut AS (UPDATE outbox o SET parts = v.parts FROM v WHERE o.message_id = v.id)
UPDATE message m SET encoding = v.encoding, parts = v.parts FROM v WHERE m.id = v.id
""")
PRIORITIES = (0, 1, 2)


@dataclass(slots=True)
class Moved:
    """What one batch did; `last` is where the next one begins, None at the end of the queue."""

    number: int = 0
    seen: int = 0
    queues: set[str] = field(default_factory=set)
    last: tuple[datetime, UUID] | None = None


@dataclass(slots=True)
class Walk:
    """Through the queue of one gateway; `upto` is where it was broken off, by priority, when there was no more time."""

    mark: Any  # of the roads when it began
    stayed: int = 0
    upto: dict[int, tuple[datetime, UUID]] = field(default_factory=dict)


class Rerouting:
    """Any number of them may run: each takes other rows."""

    def __init__(self, database: Database, wakeups: Wakeups) -> None:
        self._database, self._wakeups = database, wakeups
        self._roads = Roads()
        self._begun: dict[str | None, Walk] = {}
        self._rest_until = 0.0
        self._stayed: dict[str | None, tuple[Any, float]] = {}  # gateway -> what it looked like when all that is left there was left for good, and until when

    async def run(self) -> int:
        """Move what should move, for at most SPELL. How many messages that were; 0 right after a spell that did not do: other sweeps have their turn first."""
        if time.monotonic() < self._rest_until:
            return 0
        until = time.monotonic() + SPELL
        async with self._database.transaction() as session:
            router = await self._roads.look(session)
            queued = set((await session.execute(QUEUED)).scalars())
        moved, left = 0, {name for name in queued if is_to_leave(router, name)}
        self._stayed = {name: kept for name, kept in self._stayed.items() if name in left}
        self._begun = {name: walk for name, walk in self._begun.items() if name in left}
        for name in sorted(left, key=lambda name: (name not in self._begun, name or "")):
            mark, again = self._stayed.get(name, (None, 0.0))
            if mark == self._roads.mark and time.monotonic() < again:
                continue
            walk = self._begun.pop(name, None) or Walk(self._roads.mark)
            moved += await self._empty(name, walk, until)
            if walk.upto:
                self._begun[name] = walk
                self._rest_until = time.monotonic() + REST
                break
            if walk.stayed > MANY and walk.mark == self._roads.mark:
                self._stayed[name] = (walk.mark, time.monotonic() + AGAIN)
        return moved

    async def _empty(self, name: str | None, walk: Walk, until: float) -> int:
        """Batch by batch through one gateway's queue, as long as it is one to leave and there is time. How many moved."""
        moved = 0
        for priority in PRIORITIES:
            last: tuple[datetime, UUID] | None = walk.upto.pop(priority, BEGIN)
            while last is not None:
                async with self._database.transaction() as session:
                    router = await self._roads.look(session)
                    if not is_to_leave(router, name):
                        walk.upto.clear()
                        return moved
                    batch = await self._batch(session, router, name, priority, last)
                self._wakeups.wake(*batch.queues)
                moved, last = moved + batch.number, batch.last
                walk.stayed += batch.seen - batch.number
                if last is not None and time.monotonic() >= until:
                    walk.upto[priority] = last
                    log.warning("rerouted", gateway=name, messages=moved, unfinished=True)
                    return moved
        if moved:
            log.warning("rerouted", gateway=name, messages=moved)
        return moved

    async def _batch(self, session: AsyncSession, router: Router, name: str | None, priority: int, last: tuple[datetime, UUID]) -> Moved:
        values = {"gateway": name, "priority": priority, "not_before": last[0], "message_id": last[1], "batch": BATCH}
        taken: list[Any] = list((await session.execute(OF_NONE if name is None else OF_GATEWAY, values)).all())
        if not taken:
            return Moved()
        messages = {row.id: row for row in (await session.execute(MESSAGES, {"ids": [row.message_id for row in taken]})).all()}
        operators = await operators_of(session, [row.address for row in messages.values()]) if router.asks_operator else {}
        stops = await Stops.look(session)
        chosen: dict[Road, list[UUID]] = defaultdict(list)
        recut: list[tuple[UUID, str, int]] = []
        for row in taken:
            message = messages[row.message_id]
            attributes = orjson.loads(message.attributes) if router.asks_attributes and message.attributes else NO_ATTRIBUTES
            choice = router.best(row.channel, message.type, message.address, message.account_id, attributes, operators.get(message.address))
            if choice is None or not is_better(router, name, choice) or stops.hold(message.type, choice.road.name):
                continue
            chosen[choice.road].append(row.message_id)
            if message.encoding is not None and (anew := cut(choice.road, message.text)) != (message.encoding, row.parts):
                recut.append((row.message_id, *anew))
        await move(session, name, chosen, recut)
        last_taken = (taken[-1].not_before, taken[-1].message_id) if len(taken) == BATCH else None
        return Moved(sum(len(ids) for ids in chosen.values()), len(taken), {queue for road in chosen for queue in road.queues}, last_taken)


def is_to_leave(router: Router, name: str | None) -> bool:
    """Whether what is queued there should look for another gateway."""
    if name == SIMULATED:
        return False
    standing = router.standing(name) if name is not None else None
    if name is None or standing is None:
        return True
    return (not standing.is_open or standing.is_lost or standing.share < 1) and router.has_other(name)


def is_better(router: Router, name: str | None, choice: Choice) -> bool:
    """Whether to move. From a gateway that is there only to one that takes messages now: there they would wait just as well."""
    if choice.road.name == name:
        return False
    return choice.rank is Rank.READY or name is None or router.standing(name) is None


async def move(session: AsyncSession, before: str | None, chosen: dict[Road, list[UUID]], recut: list[tuple[UUID, str, int]]) -> None:
    """One gateway's batch to those that were chosen, with a line of history for each message."""
    moment = clock()
    for road, ids in chosen.items():
        await session.execute(MOVE, {"gateway": road.name, "ids": ids})
        await session.execute(TELL, {"gateway": road.name, "route": road.route, "sender": road.sender, "price": road.price, "now": moment, "ids": ids})
    if recut:
        given = {name: list(column) for name, column in zip(("ids", "encodings", "parts"), zip(*recut, strict=True), strict=True)}
        await session.execute(RECUT, given)
    if before is not None:
        changes = [(new_id(), message, moment, State.QUEUED.value, "rerouted", f"{before} -> {road.name}") for road, ids in chosen.items() for message in ids]
        await CHANGES.run(session, changes)
