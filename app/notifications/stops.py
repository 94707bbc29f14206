"""The stop switch: while a stop stands, everything, one type or one gateway is held. Nothing is dropped, and nothing expires meanwhile.

A stop works from its commit on, for every step asks UNSTOPPED in its own statement: claims, release, putting off, expiry, rerouting. The rows of the
outbox follow in batches: `queued` ones, and held ones whose hour has come, become `held` with `stopped_at`. When the last stop that matches a row is
lifted, its time to live is pushed on by the time it stood still, and the usual release takes it: looked at anew, in the words and hours of then.

If a process dies in the middle, the sweep goes on with the rest; two that do it at once share the rows (SKIP LOCKED).
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import metrics
from app.core.clock import now as clock
from app.core.db import Database
from app.core.ids import new_id
from app.notifications.rows import CHANGES
from app.notifications.states import State

BATCH = 2000  # rows looked at in one transaction
SPELL = 2.0  # seconds that one step of the sweep may take
# A look through a long outbox is not repeated at once: its pause is so many times as long as it took.
RESTS, LONGEST_REST = 10.0, 60.0
BEGIN = UUID(int=0)

# Whether no stop stands over the row `o` of the outbox. The first question is asked once a statement; the other, a function of the database that costs the
# planner nothing, for each row and only while there is a stop.
UNSTOPPED = "CASE WHEN EXISTS (SELECT FROM stop) THEN stopped_since(o.message_id, o.gateway) IS NULL ELSE true END"
# As a column of the planner's look: pairs of scope and name.
STOPS = "(SELECT CAST(coalesce(json_agg(json_build_array(scope, name)), '[]') AS text) FROM stop)"

ALL = sa.text("SELECT id, scope FROM stop")
NAMES = sa.text("SELECT scope, name FROM stop")
ANY_STOPPED = sa.text("SELECT EXISTS (SELECT FROM outbox WHERE stopped_at IS NOT NULL)")
# What might have to stand still, in the order of ids on from where the last look ended: whatever else waits is walked over once, and not with every batch.
CHUNK = sa.text("""
SELECT o.message_id, stopped_since(o.message_id, o.gateway) AS since FROM outbox o
WHERE o.message_id > CAST(:after AS uuid) AND (o.state = 'queued' OR (o.state = 'held' AND o.stopped_at IS NULL AND o.not_before <= :now))
ORDER BY o.message_id LIMIT :batch
""")
CAUGHT = sa.text("""
SELECT message_id FROM outbox WHERE message_id = ANY(CAST(:ids AS uuid[])) AND (state = 'queued' OR (state = 'held' AND stopped_at IS NULL AND not_before <= :now))
FOR UPDATE SKIP LOCKED
""")
# A row stands still since its stop was set, or since it would have been sent, whichever came later.
HOLD = sa.text("""
UPDATE outbox o SET state = 'held', reason = 'stopped', stopped_at = greatest(o.not_before, least(v.since, CAST(:now AS timestamptz)))
FROM unnest(CAST(:ids AS uuid[]), CAST(:since AS timestamptz[])) AS v(id, since) WHERE o.message_id = v.id
""")
STOPPED = sa.text("""
SELECT o.message_id, stopped_since(o.message_id, o.gateway) AS since FROM outbox o
WHERE o.stopped_at IS NOT NULL AND o.message_id > CAST(:after AS uuid) ORDER BY o.message_id LIMIT :batch
""")
ANY_OF_THEM = sa.text("SELECT message_id, CAST(NULL AS timestamptz) AS since FROM outbox WHERE stopped_at IS NOT NULL LIMIT :batch")
# The time to live is on the message, too: by it the time for receipts is reckoned.
FREE = sa.text("""
WITH free AS MATERIALIZED (
    SELECT message_id FROM outbox WHERE message_id = ANY(CAST(:ids AS uuid[])) AND stopped_at IS NOT NULL FOR UPDATE SKIP LOCKED
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

    @classmethod
    async def look(cls, session: AsyncSession) -> "Stops":
        return cls.seen([(row.scope, row.name) for row in (await session.execute(NAMES)).all()])

    def hold(self, code: str, gateway: str | None) -> bool:
        """Whether a message of this type over this gateway is held by one of them."""
        return self is not NO_STOPS and (self.everything or code in self.types or gateway in self.gateways)


NO_STOPS = Stops()


class Switch:
    """Makes the rows follow the stops. Any number of processes may do so at the same time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._standing: frozenset[UUID] = frozenset()
        self._held_upto = self._freed_upto = BEGIN
        self._took = self._rest_until = 0.0

    async def follow(self) -> int:
        """A step of the sweep: for at most SPELL, on from where it ended last time; how many rows moved. Costs two small look-ups when no stop stands."""
        async with self._database.transaction() as session:
            standing = (await session.execute(ALL)).all()
            stopped = bool((await session.execute(ANY_STOPPED)).scalar())
        for scope in ("all", "type", "gateway"):
            metrics.STOPS.labels(scope).set(sum(row.scope == scope for row in standing))
        if (now_standing := frozenset(row.id for row in standing)) != self._standing:
            self._standing, self._held_upto, self._freed_upto, self._took, self._rest_until = now_standing, BEGIN, BEGIN, 0.0, 0.0
        if not (standing or stopped) or time.monotonic() < self._rest_until:
            return 0
        began, moved = time.monotonic(), 0
        while time.monotonic() - began < SPELL:
            held, self._held_upto = await self._hold(self._held_upto) if standing else (0, BEGIN)
            freed, self._freed_upto = await self._free(self._freed_upto, others=bool(standing)) if stopped else (0, BEGIN)
            moved += held + freed
            if self._held_upto == self._freed_upto == BEGIN:
                self._rest_until = time.monotonic() + min(RESTS * (self._took + time.monotonic() - began), LONGEST_REST)
                self._took = 0.0
                return min(moved, 1)  # all is looked at: there is no reason to come again at once
        self._took += time.monotonic() - began
        return min(moved, 1)

    async def hold(self, seconds: float = SPELL) -> int:
        """What a stop stands over is held; what is on the wire is finished. How many rows were moved before the time was up."""
        until, moved, upto = time.monotonic() + seconds, 0, BEGIN
        while True:
            held, upto = await self._hold(upto)
            moved += held
            if upto == BEGIN or time.monotonic() > until:
                return moved

    async def free(self, seconds: float = SPELL) -> int:
        """What no stop stands over any more goes the way of what is held."""
        until, moved, upto = time.monotonic() + seconds, 0, BEGIN
        while True:
            freed, upto = await self._free(upto, others=True)
            moved += freed
            if upto == BEGIN or time.monotonic() > until:
                return moved

    async def _hold(self, after: UUID) -> tuple[int, UUID]:
        """One batch; how many of it were held, and where the next one begins (BEGIN: that was the last)."""
        moment = clock()
        async with self._database.transaction() as session:
            rows = (await session.execute(CHUNK, {"after": after, "now": moment, "batch": BATCH})).all()
            since = {row.message_id: row.since for row in rows if row.since is not None}
            ids = list((await session.execute(CAUGHT, {"ids": list(since), "now": moment})).scalars()) if since else []
            if ids:
                await session.execute(HOLD, {"ids": ids, "since": [since[message_id] for message_id in ids], "now": moment})
                await CHANGES.run(session, [(new_id(), message_id, moment, State.HELD.value, "stopped", None) for message_id in ids])
        return len(ids), rows[-1].message_id if len(rows) == BATCH else BEGIN

    async def _free(self, after: UUID, *, others: bool) -> tuple[int, UUID]:
        """The same the other way. Without other stops all are free, and their order is nothing."""
        async with self._database.transaction() as session:
            looked = (await session.execute(STOPPED if others else ANY_OF_THEM, {"batch": BATCH} | ({"after": after} if others else {}))).all()
            ids = [row.message_id for row in looked if row.since is None]
            freed = len((await session.execute(FREE, {"ids": ids, "now": clock()})).all()) if ids else 0
        return freed, looked[-1].message_id if len(looked) == BATCH else BEGIN
