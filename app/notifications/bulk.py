"""Many messages cancelled, or sent again, by an operator: the sweep goes through them in the order of their ids, window by window.

Each window is one transaction, with the place that it has come to: if the process dies, the next sweep goes on from there, and no message is sent twice.
Beside the place there is a mark for each chain of copies that the job has sent (`message_bulk_mark`), and whoever sends a message again locks the first
one of its chain: two jobs, or a job and an operator, see each other's copies. A dry run goes the same way and writes nothing but its counts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import audit
from app.core.clock import now
from app.core.config import Settings
from app.core.db import Database, is_away, is_conflict
from app.core.peppers import hashed
from app.core.wakeups import Wakeups
from app.notifications.bulk_shapes import PERSONAL, STATE, STATES, MessageBulkFilter
from app.notifications.cancel import NotCancelled, cancel_waiting
from app.notifications.chains import chains_of, lock_chain, roots_of
from app.notifications.models import MessageBulk
from app.notifications.resend import Copy, NotResent, Resending
from app.notifications.rows import Rows
from app.notifications.states import State

log = structlog.get_logger()

WINDOW = 1000  # messages looked at in one transaction
ATTEMPTS = 5  # at one window, whatever is wrong with it; not counted while the database is away

# Left out for what only a job asks; the others are those of NotCancelled and NotResent.
NOT_FAILED, UNKNOWN, ALREADY_RESENT, NO_GATEWAY = "not_failed", "unknown", "already_resent", "no_gateway"

NEXT = "SELECT * FROM message_bulk WHERE state = 'running' ORDER BY worked_at, id LIMIT 1 FOR UPDATE SKIP LOCKED"
# The last message of the window; nothing when it is the last one.
WINDOW_END = "SELECT m.id FROM message m WHERE m.id > :position AND m.id < :end_id{indexed} ORDER BY m.id OFFSET :window LIMIT 1"
# LATERAL .. OFFSET 0: without statistics a join would read the whole outbox for each window.
SEEN = f"""
FROM message m LEFT JOIN LATERAL (SELECT q.message_id, q.state, q.gateway, q.reason, q.resent FROM outbox q WHERE q.message_id = m.id OFFSET 0) o ON true
WHERE m.id > :position AND m.id <= :upto AND m.id < :end_id{{indexed}}{{narrowed}} AND {STATE}"""
OTHERS = f"SELECT {STATE} AS state, count(*) AS n {SEEN} <> ALL(CAST(:states AS text[])) GROUP BY 1"
CANDIDATES = f"SELECT m.id, {STATE} AS state, coalesce(o.resent, false) AS resent, m.test {SEEN} = ANY(CAST(:states AS text[])) ORDER BY m.id"
MARK = sa.text("""
INSERT INTO message_bulk_mark (bulk_id, root_id) SELECT :bulk_id, root FROM unnest(CAST(:roots AS uuid[])) AS v(root) ON CONFLICT DO NOTHING RETURNING root_id
""")
MARKED = sa.text("SELECT root_id FROM message_bulk_mark WHERE bulk_id = :bulk_id AND root_id = ANY(CAST(:roots AS uuid[]))")
FAILED = sa.text("""
UPDATE message_bulk SET attempts = attempts + 1, worked_at = :now, error = :error, state = CASE WHEN attempts + 1 >= :most THEN 'failed' ELSE state END,
    finished_at = CASE WHEN attempts + 1 >= :most THEN CAST(:now AS timestamptz) END
WHERE id = :id AND state = 'running' RETURNING state
""")


@dataclass(slots=True)
class Count:
    """What one window comes to."""

    outcomes: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    parts: int = 0
    cost: Decimal = Decimal(0)
    is_limited: bool = False
    queues: set[str] = field(default_factory=set)

    @property
    def done(self) -> int:
        return self.outcomes.total()

    @property
    def looked_at(self) -> int:
        return self.done + self.left_out.total()


class Bulks:
    """The step of the sweeper. Any number may run: each job is in one hand at a time, and each job has its turn."""

    def __init__(self, database: Database, settings: Settings, wakeups: Wakeups) -> None:
        self._database, self._wakeups, self._resending = database, wakeups, Resending(settings)

    async def follow(self) -> int:
        """The next window of the job that has waited longest. How many messages there were in it, at least."""
        taken: list[UUID] = []

        async def work(session: AsyncSession) -> tuple[int, set[str]]:
            return await self._work(session, taken)

        try:
            seen, queues = await self._database.again(work)
        except Exception as error:
            if taken and not is_away(error) and not is_conflict(error):
                await self._failed(taken[-1], error)
            raise
        if queues:
            self._wakeups.wake(*sorted(queues))
        return seen

    async def _failed(self, bulk_id: UUID, error: Exception) -> None:
        """A window that cannot be done does not hold the others up for ever."""
        async with self._database.transaction() as session:
            values = {"id": bulk_id, "now": now(), "error": type(error).__name__, "most": ATTEMPTS}
            state = (await session.execute(FAILED, values)).scalar()
            if state == "failed" and (job := await finish(session, bulk_id)) is not None:
                await audit.record(session, job.requested_by, "message.bulk.failed", f"message-bulk:{bulk_id}", counted(job))
        log.warning("message_bulk_failed", bulk=str(bulk_id), error=type(error).__name__, state=state)

    async def _work(self, session: AsyncSession, taken: list[UUID]) -> tuple[int, set[str]]:
        job = (await session.scalars(sa.select(MessageBulk).from_statement(sa.text(NEXT)))).first()
        if job is None:
            return 0, set()
        taken.append(job.id)
        wanted, moment = MessageBulkFilter.model_validate(job.filter), now()
        indexed, values = wanted.indexed
        narrowed, more = wanted.narrowed
        end = {"position": job.position, "end_id": job.end_id, "window": WINDOW - 1}
        upto = (await session.execute(sa.text(WINDOW_END.format(indexed=indexed)), values | end)).scalar()
        states = STATES["cancel" if job.action == "cancel" else "resend"]
        values |= more | {"position": job.position, "end_id": job.end_id, "upto": upto or job.end_id, "states": sorted(states)}
        count = Count()
        others = (await session.execute(sa.text(OTHERS.format(indexed=indexed, narrowed=narrowed)), values)).all()
        rows = (await session.execute(sa.text(CANDIDATES.format(indexed=indexed, narrowed=narrowed)), values)).all()
        if job.action == "cancel":
            count.left_out.update({NotCancelled.NOT_WAITING.value: sum(row.n for row in others)})
            await self._cancel(session, job, rows, moment, count)
        else:
            waiting = sum(row.n for row in others if row.state in (State.HELD, State.QUEUED, State.SENDING))
            count.left_out.update({NotResent.NOT_SENT_YET.value: waiting, NOT_FAILED: sum(row.n for row in others) - waiting})
            await self._resend(session, job, rows, moment, count, asked=wanted.state or ())
        await note(session, job, count, moment, position=upto or job.end_id, is_last=upto is None or count.is_limited)
        return (0 if upto is None else WINDOW), count.queues

    async def _cancel(self, session: AsyncSession, job: MessageBulk, rows: Sequence[Any], moment: datetime, count: Count) -> None:
        waiting = [row for row in rows if row.state != State.SENDING]
        count.left_out[NotCancelled.IN_FLIGHT.value] += len(rows) - len(waiting)
        waiting = within(waiting, job, count)
        stays: dict[UUID, NotCancelled] = {}
        if not job.dry_run and waiting:
            stays = await cancel_waiting(session, [row.id for row in waiting], moment, f"{job.requested_by}, bulk {job.id}")
        count.left_out.update(Counter(why.value for why in stays.values()))
        # What met silence once and waits for its second try is in doubt: `ending.close`.
        count.outcomes.update(Counter(State.UNKNOWN.value if row.resent else State.CANCELLED.value for row in waiting if row.id not in stays))

    async def _resend(self, session: AsyncSession, job: MessageBulk, rows: Sequence[Any], moment: datetime, count: Count, *, asked: Sequence[State]) -> None:
        ids = [row.id for row in rows if not row.test and (row.state != State.UNKNOWN or State.UNKNOWN in asked)]
        count.left_out[NotResent.TEST.value] += sum(row.test for row in rows)
        count.left_out[UNKNOWN] += len(rows) - len(ids) - sum(row.test for row in rows)
        if not ids:
            return
        roots = await (roots_of if job.dry_run else lock_chain)(session, ids)
        chains = await chains_of(session, roots)
        marked = set((await session.execute(MARKED, {"bulk_id": job.id, "roots": list(set(roots.values()))})).scalars())
        fates = await self._resending.weigh(session, ids, moment)
        copies: list[Copy] = []
        for one in ids:
            fate, chain = fates[one], chains[one]
            if chain.root in marked or chain.has_gone or (chain.has_copy and not job.again):
                count.left_out[ALREADY_RESENT] += 1
            elif chain.in_doubt and State.UNKNOWN not in asked:
                count.left_out[UNKNOWN] += 1
            elif isinstance(fate, NotResent):
                count.left_out[fate.value] += 1
            elif fate.old.state not in (asked or STATES["resend"]):
                count.left_out[NOT_FAILED] += 1  # a receipt has come since we looked
            elif fate.road is None:
                count.left_out[NO_GATEWAY] += 1
            else:
                marked.add(chain.root)
                copies.append(fate)
        copies = within(copies, job, count)
        await self._mark(session, job, [roots[copy.old.id] for copy in copies])
        made = Rows()
        for copy in copies:
            count.outcomes[State.HELD.value if copy.waits else State.QUEUED.value] += 1
            if copy.old.channel == "sms":
                count.parts += copy.words.parts
                count.cost += copy.words.parts * ((copy.road.price if copy.road else None) or 0)
            if not job.dry_run:
                copy.add(made, moment)
                count.queues.update(copy.road.queues if copy.road and not copy.waits else ())
        await made.write(session)

    async def _mark(self, session: AsyncSession, job: MessageBulk, roots: Sequence[UUID]) -> None:
        """In a dry run as well: it is to count each chain once, in whatever windows its messages are."""
        new = (await session.execute(MARK, {"bulk_id": job.id, "roots": list(roots)})).all() if roots else []
        if len(new) != len(roots):
            raise RuntimeError("a chain of copies was marked twice")  # nothing of this window is written


def within(found: list[Any], job: MessageBulk, count: Count) -> list[Any]:
    """As many as the job may still move; a dry run counts them all."""
    room = max(0, job.most - job.done)
    count.is_limited = not job.dry_run and len(found) > room
    return found if job.dry_run else found[:room]


async def note(session: AsyncSession, job: MessageBulk, count: Count, moment: datetime, *, position: UUID, is_last: bool) -> None:
    """How far the job has come, in the transaction that has done it."""
    job.position, job.worked_at, job.attempts, job.error = position, moment, 0, None
    job.looked_at, job.done, job.is_limited = job.looked_at + count.looked_at, job.done + count.done, count.is_limited
    job.outcomes, job.left_out = added(job.outcomes, count.outcomes), added(job.left_out, count.left_out)
    job.parts, job.cost = job.parts + count.parts, job.cost + count.cost
    if is_last:
        job.state, job.finished_at = "done", moment
    await session.flush()
    if is_last:
        await finish(session, job.id)
        if not job.dry_run:
            await audit.record(session, job.requested_by, "message.bulk.done", f"message-bulk:{job.id}", counted(job))


async def finish(session: AsyncSession, bulk_id: UUID) -> MessageBulk | None:
    """A job that has ended keeps no address and no number of an account, which would outlive an erasure: keyed hashes, by which it is told from others."""
    job = await session.get(MessageBulk, bulk_id, populate_existing=True)
    if job is not None:
        job.filter = await impersonal(session, job.filter)
        await session.flush()
    return job


async def impersonal(session: AsyncSession, said: Mapping[str, Any]) -> dict[str, Any]:
    """A filter as it stands in a job that has ended."""
    return {name: await hashed(session, value) if name in PERSONAL else value for name, value in said.items()}


def counted(job: MessageBulk) -> dict[str, Any]:
    """For the audit."""
    return {"action": job.action, "done": job.done, "outcomes": job.outcomes, "left_out": job.left_out, "parts": job.parts, "cost": str(job.cost)}


def added(before: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    return {name: n for name, n in (Counter(before) + Counter(more)).items() if n}
