"""The stop switch: while a stop stands, everything, one type or one gateway is held. Nothing is dropped, and nothing expires meanwhile.

A stop works from its commit on, for every step asks UNSTOPPED in its own statement: claims, release, putting off, expiry, rerouting. The rows of the
outbox follow in batches: `queued` ones, and held ones whose hour has come, become `held` with `stopped_at`. When the last stop that matches a row is
lifted, its time to live is pushed on by the time it stood still, and the usual release takes it: looked at anew, in the words and hours of then.

If a process dies in the middle, the sweep goes on with the rest; two that do it at once share the rows (SKIP LOCKED).
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import metrics
from app.core.clock import now as clock
from app.core.db import Database
from app.core.ids import new_id
from app.notifications.rows import CHANGES
from app.notifications.states import State

BATCH = 500
# A look through a long outbox that finds nothing is not repeated at once: its pause is so many times as long as it took.
RESTS = 10.0

# Whether no stop stands over the row `o` of the outbox. The first question is asked once a statement; the other, a function of the database that costs the
# planner nothing, for each row and only while there is a stop.
UNSTOPPED = "CASE WHEN EXISTS (SELECT FROM stop) THEN stopped_since(o.message_id, o.gateway) IS NULL ELSE true END"
# As a column of the planner's look: pairs of scope and name.
STOPS = "(SELECT CAST(coalesce(json_agg(json_build_array(scope, name)), '[]') AS text) FROM stop)"

ALL = sa.text("SELECT id, scope FROM stop")
ANY_STOPPED = sa.text("SELECT EXISTS (SELECT FROM outbox WHERE stopped_at IS NOT NULL)")
# A row stands still since its stop was set, or since it would have been sent, whichever came later.
CAUGHT = sa.text(f"""
SELECT o.message_id, greatest(o.not_before, least(stopped_since(o.message_id, o.gateway), :now)) AS since
FROM outbox o WHERE (o.state = 'queued' OR (o.state = 'held' AND o.stopped_at IS NULL AND o.not_before <= :now)) AND NOT ({UNSTOPPED})
LIMIT :batch FOR UPDATE OF o SKIP LOCKED
""")
HOLD = sa.text("""
UPDATE outbox o SET state = 'held', reason = 'stopped', stopped_at = v.since
FROM unnest(CAST(:ids AS uuid[]), CAST(:since AS timestamptz[])) AS v(id, since) WHERE o.message_id = v.id
""")
# The time to live is on the message, too: by it the time for receipts is reckoned.
FREE = sa.text(f"""
WITH free AS MATERIALIZED (
    SELECT o.message_id FROM outbox o WHERE o.stopped_at IS NOT NULL AND {UNSTOPPED} LIMIT :batch FOR UPDATE OF o SKIP LOCKED
), freed AS (
    UPDATE outbox o SET stopped_at = NULL, expires_at = o.expires_at + greatest(CAST(:now AS timestamptz) - o.stopped_at, interval '0')
    WHERE o.message_id = ANY(ARRAY(SELECT message_id FROM free)) RETURNING o.message_id, o.expires_at
)
UPDATE message m SET expires_at = freed.expires_at FROM freed WHERE m.id = freed.message_id RETURNING m.id
""")


@dataclass(frozen=True, slots=True)
class Stops:
    """The stops at one moment, for planning."""

    everything: bool = False
    types: frozenset[str] = frozenset()
    gateways: frozenset[str] = frozenset()

    @classmethod
    def seen(cls, pairs: Iterable[tuple[str, str]]) -> "Stops":
        """From what STOPS says."""
        found = list(pairs)
        if not found:
            return NO_STOPS
        named = {kind: frozenset(name for scope, name in found if scope == kind) for kind in ("type", "gateway")}
        return cls(any(scope == "all" for scope, _ in found), named["type"], named["gateway"])

    def hold(self, code: str, gateway: str | None) -> bool:
        """Whether a message of this type over this gateway is held by one of them."""
        return self is not NO_STOPS and (self.everything or code in self.types or gateway in self.gateways)


NO_STOPS = Stops()


class Switch:
    """Makes the rows follow the stops. Each step returns how many rows it moved; any number of processes may take them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._standing: frozenset[UUID] = frozenset()
        self._rest_until = 0.0

    async def follow(self) -> int:
        """One batch each way, and the gauge; the sweep comes again for more. Costs two small look-ups when no stop stands."""
        async with self._database.transaction() as session:
            standing = (await session.execute(ALL)).all()
            stopped = bool((await session.execute(ANY_STOPPED)).scalar())
        for scope in ("all", "type", "gateway"):
            metrics.STOPS.labels(scope).set(sum(row.scope == scope for row in standing))
        if (now_standing := frozenset(row.id for row in standing)) != self._standing:
            self._standing, self._rest_until = now_standing, 0.0
        if not (standing or stopped) or time.monotonic() < self._rest_until:
            return 0
        began = time.monotonic()
        moved = max(await self.hold() if standing else 0, await self.free() if stopped else 0)
        if moved < BATCH:
            self._rest_until = time.monotonic() + RESTS * (time.monotonic() - began)
        return moved

    async def hold(self) -> int:
        """What a stop stands over is held. What is on the wire is finished."""
        async with self._database.transaction() as session:
            return await hold(session, clock())

    async def free(self) -> int:
        """What no stop stands over any more goes the way of what is held."""
        async with self._database.transaction() as session:
            return len((await session.execute(FREE, {"now": clock(), "batch": BATCH})).all())

    async def hold_for(self, seconds: float) -> bool:
        """Hold for at most so long; whether that was all."""
        until = time.monotonic() + seconds
        while await self.hold() == BATCH:
            if time.monotonic() > until:
                return False
        return True

    async def free_for(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while await self.free() == BATCH:
            if time.monotonic() > until:
                return False
        return True


async def hold(session: AsyncSession, moment: datetime) -> int:
    """One batch of what a stop stands over; how many they were."""
    rows: list[Any] = list((await session.execute(CAUGHT, {"now": moment, "batch": BATCH})).all())
    if rows:
        await session.execute(HOLD, {"ids": [row.message_id for row in rows], "since": [row.since for row in rows]})
        await CHANGES.run(session, [(new_id(), row.message_id, moment, State.HELD.value, "stopped", None) for row in rows])
    return len(rows)
