"""Messages that wait for another one: released when it was not delivered, cancelled when it was, moved with it while it waits itself.

A trigger writes `follow_up` in the transaction in which a message that others wait for comes to an end; the step of the sweeper deletes the row in the
transaction that acts on it. What is lost all the same is made good at release, which judges once more by what is so then: the row only makes it quicker.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalogue.registry import Catalogue
from app.core.clock import now as clock
from app.core.db import Database
from app.core.ids import new_id
from app.gateways.roads import profile_of
from app.notifications.delivery import FALLBACK, Cancel, Earlier, Go, Verdict, judge, patience_of
from app.notifications.ending import close
from app.notifications.rows import CHANGES
from app.notifications.states import State

BATCH = 500
# The messages of one notification are made together; so long a clock may have been put back meanwhile.
TOGETHER = 60_000  # ms
# A shift that is not worth a write.
SLACK = timedelta(minutes=1)

TAKE = sa.text("""
DELETE FROM follow_up WHERE message_id = ANY(ARRAY(SELECT message_id FROM follow_up LIMIT :batch FOR UPDATE SKIP LOCKED)) RETURNING message_id
""")
# By the account's own messages. LATERAL .. OFFSET 0: a join could become a walk through the whole table.
BEHIND = sa.text("""
SELECT v.id AS leader_id, f.message_id, f.after_message, f.type, f.not_before
FROM unnest(CAST(:ids AS uuid[]), CAST(:since AS uuid[])) AS v(id, since) JOIN message l ON l.id = v.id CROSS JOIN LATERAL (
    SELECT o.message_id, o.after_message, o.not_before, m.type FROM message m JOIN outbox o ON o.message_id = m.id
    WHERE m.account_id = l.account_id AND m.id >= v.since AND m.event_id = l.event_id AND o.after_message IS NOT NULL
      AND o.state = ANY(CAST(:waiting AS text[])) OFFSET 0
) f
""")
BEFORE = sa.text("""
SELECT v.id AS head_id, g.channel, g.gateway, coalesce(o.state, g.state) AS state, CASE WHEN o.message_id IS NULL THEN g.reason ELSE o.reason END AS reason,
       o.not_before
FROM unnest(CAST(:ids AS uuid[]), CAST(:since AS uuid[])) AS v(id, since) JOIN message h ON h.id = v.id CROSS JOIN LATERAL (
    SELECT m.id, m.channel, m.gateway, m.state, m.reason FROM message m
    WHERE m.account_id = h.account_id AND m.id >= v.since AND m.event_id = h.event_id AND m.channel = h.channel OFFSET 0
) g LEFT JOIN outbox o ON o.message_id = g.id ORDER BY g.id
""")
PROFILES = sa.text("SELECT name, CAST(settings AS text) AS settings FROM gateway WHERE name = ANY(CAST(:names AS text[])) AND kind = 'smpp'")
# Only what waits for the other one alone: what waits for its hours, or under a stop, goes when these let it.
NOW = sa.text("""
UPDATE outbox SET not_before = :now WHERE message_id = ANY(CAST(:ids AS uuid[])) AND state = 'held' AND reason = 'fallback' AND not_before > :now
RETURNING message_id
""")
# Its time to live is pushed on with it.
MOVE = sa.text("""
WITH moved AS (
    UPDATE outbox o SET not_before = v.due, expires_at = o.expires_at + (v.due - o.not_before)
    FROM unnest(CAST(:ids AS uuid[]), CAST(:dues AS timestamptz[])) AS v(id, due)
    WHERE o.message_id = v.id AND o.state = 'held' AND o.not_before < v.due - CAST(:slack AS interval) RETURNING o.message_id, o.expires_at
)
UPDATE message m SET expires_at = moved.expires_at FROM moved WHERE m.id = moved.message_id
""")
WAITING = [State.HELD.value, State.QUEUED.value]


class Following:
    """The step of the sweeper. Any number of them may run."""

    def __init__(self, database: Database) -> None:
        self._database, self._catalogue = database, Catalogue()

    async def follow(self) -> int:
        """Act on messages that have come to an end and that others may wait for. How many there were; twice over changes nothing."""
        return await self._database.again(self._follow)

    async def _follow(self, session: AsyncSession) -> int:
        ended = list((await session.execute(TAKE, {"batch": BATCH})).scalars())
        rows = await behind(session, ended)
        if rows:
            await self._catalogue.refresh(session)
            moment = clock()
            verdicts = await judged(session, rows, self._catalogue, moment, is_over=False)
            await cancel(session, verdicts, moment)
            if going := {message_id: said.because for message_id, said in verdicts.items() if isinstance(said, Go)}:
                freed = (await session.execute(NOW, {"ids": list(going), "now": moment})).scalars().all()
                await CHANGES.run(session, [(new_id(), one, moment, State.HELD.value, FALLBACK, f"the one before it: {going[one]}") for one in freed])
        return len(ended)


async def judged(session: AsyncSession, followers: Sequence[Any], catalogue: Catalogue, moment: datetime, *, is_over: bool) -> dict[UUID, Verdict]:
    """Of messages (message_id, after_message, type) what becomes of each. Two queries at most, and none for none."""
    if not followers:
        return {}
    heads = list({row.after_message for row in followers})
    found = (await session.execute(BEFORE, {"ids": heads, "since": bounds(heads)})).all()
    taken = {row.gateway for row in found if row.channel == "sms" and row.state == State.ACCEPTED} if is_over else set()
    silent = await without_receipts(session, taken)
    before: Mapping[UUID, list[Earlier]] = defaultdict(list)
    for row in found:
        is_all = row.channel == "email" or row.gateway in silent
        before[row.head_id].append(Earlier(row.state, row.reason, row.not_before, is_all))
    return {row.message_id: judge(before[row.after_message], patience_of(catalogue.options(row.type)), moment, is_over=is_over) for row in followers}


async def cancel(session: AsyncSession, verdicts: Mapping[UUID, Verdict], moment: datetime) -> None:
    """End those that are not needed. Who waits for them is told by the trigger."""
    reasons: dict[str, list[UUID]] = defaultdict(list)
    for message_id, said in verdicts.items():
        if isinstance(said, Cancel):
            reasons[said.reason].append(message_id)
    for reason, ids in sorted(reasons.items()):
        await close(session, sorted(ids), State.CANCELLED, reason, moment)


async def move_along(session: AsyncSession, leaders: Mapping[UUID, datetime], catalogue: Catalogue) -> None:
    """Messages that others wait for go at other times than was planned: those others wait their full time from then on. Nobody is moved forward."""
    dues: dict[UUID, datetime] = {}
    for row in await behind(session, list(leaders)):
        due = leaders[row.leader_id] + patience_of(catalogue.options(row.type))
        if row.message_id != row.leader_id and row.not_before < due - SLACK:
            dues[row.message_id] = max(due, dues.get(row.message_id, due))
    if dues:
        await session.execute(MOVE, {"ids": list(dues), "dues": list(dues.values()), "slack": SLACK})


async def behind(session: AsyncSession, ids: Sequence[UUID]) -> Sequence[Any]:
    """What waits in the chains of these messages."""
    return (await session.execute(BEHIND, {"ids": list(ids), "since": bounds(ids), "waiting": WAITING})).all() if ids else []


async def without_receipts(session: AsyncSession, gateways: set[str]) -> set[str]:
    """Those of them that never say that an SMS has been delivered."""
    if not gateways:
        return set()
    rows = (await session.execute(PROFILES, {"names": sorted(gateways)})).all()
    return {row.name for row in rows if not profile_of(orjson.loads(row.settings)).expects_receipts}


def bounds(ids: Sequence[UUID]) -> list[UUID]:
    """Ids that are smaller than those of all messages made together with these."""
    return [UUID(int=max(0, (one.int >> 80) - TOGETHER) << 80) for one in ids]
