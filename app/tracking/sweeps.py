"""Sweeps: what no event will ever come for. Leases that ended, receipts that waited, processes that are gone; and a look at the queues."""

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
import structlog

from app.core import metrics
from app.core.clock import now as clock
from app.core.db import Database
from app.core.ids import new_id
from app.core.wakeups import MAIL, PLAN, Wakeups, bind_queue
from app.notifications.rows import CHANGES
from app.notifications.states import State
from app.tracking.match import unpark

log = structlog.get_logger()

BATCH = 500
PARKED_FOR = timedelta(minutes=10)

ENDED = sa.text("""
SELECT o.message_id, o.channel, o.gateway, coalesce(o.claimed_at, now()) AS claimed_at, m.type, EXISTS (
    SELECT FROM message_change c WHERE c.message_id = o.message_id AND c.reason = 'lease_ended'
) AS again
FROM outbox o JOIN message m ON m.id = o.message_id
WHERE o.state = 'sending' AND o.lease_until < now() ORDER BY o.lease_until LIMIT :batch FOR UPDATE OF o SKIP LOCKED
""")
DOUBT = sa.text("""
WITH gone AS (DELETE FROM outbox WHERE message_id = ANY(CAST(:ids AS uuid[])) RETURNING message_id)
UPDATE message SET state = 'unknown', reason = 'no_answer', updated_at = :now WHERE id = ANY(ARRAY(SELECT message_id FROM gone))
""")
ONCE_MORE = sa.text("""
UPDATE outbox SET state = 'queued', claimed_by = NULL, lease_until = NULL, not_before = :now, tries = tries + 1 WHERE message_id = ANY(CAST(:ids AS uuid[]))
""")
PARKED = sa.text(
    "SELECT receipt_group, array_agg(DISTINCT gateway_message_id) AS ids FROM (SELECT * FROM receipt WHERE status = 'parked' LIMIT 2000) p GROUP BY receipt_group"
)
GIVE_UP = sa.text("UPDATE receipt SET status = 'unmatched' WHERE status = 'parked' AND at < :before RETURNING gateway")
DEPTHS = sa.text("""
SELECT coalesce(gateway, 'none') AS gateway, state, count(*) AS number, max(extract(epoch FROM now() - not_before)) FILTER (WHERE state = 'queued' AND not_before <= now()) AS oldest
FROM outbox GROUP BY 1, 2
""")
DUE = sa.text("""
SELECT g.name, g.kind, coalesce(CAST(g.settings ->> 'binds' AS int), 1) AS binds FROM gateway g WHERE g.enabled AND NOT g.paused
AND EXISTS (SELECT FROM outbox o WHERE o.gateway = g.name AND o.state = 'queued' AND o.not_before <= now())
""")
WAITING = sa.text("SELECT EXISTS (SELECT FROM event_waiting)")
GONE = sa.text("DELETE FROM worker_process WHERE seen_at < now() - interval '1 hour'")


class Sweeper:
    """Each step may run anywhere, any number of times, at the same time."""

    def __init__(self, database: Database, wakeups: Wakeups) -> None:
        self._database, self._wakeups = database, wakeups
        self._shown: set[tuple[str, str]] = set()

    async def end_leases(self) -> int:
        """What was claimed and never settled: an SMS may have gone, so it is `unknown`; an e-mail goes once more, with the same Message-ID."""
        async with self._database.transaction() as session:
            rows = (await session.execute(ENDED, {"batch": BATCH})).all()
            if not rows:
                return 0
            moment = clock()
            again = [row for row in rows if row.channel == "email" and not row.again]
            doubt = [row for row in rows if row not in again]
            await session.execute(DOUBT, {"ids": [row.message_id for row in doubt], "now": moment})
            await session.execute(ONCE_MORE, {"ids": [row.message_id for row in again], "now": moment})
            changes: list[tuple[Any, ...]] = [(new_id(), row.message_id, row.claimed_at, State.SENDING.value, None, f"on {row.gateway}") for row in rows]
            changes += [(new_id(), row.message_id, moment, State.UNKNOWN.value, "no_answer", "the worker ended before an answer came") for row in doubt]
            changes += [(new_id(), row.message_id, moment, State.QUEUED.value, "lease_ended", "sent again with the same Message-ID") for row in again]
            await CHANGES.run(session, changes)
        for row in doubt:
            metrics.MESSAGES.labels(row.channel, row.gateway or "none", row.type, State.UNKNOWN.value).inc()
        log.warning("leases_ended", unknown=len(doubt), sent_again=len(again))
        self._wakeups.wake(MAIL)
        return len(rows)

    async def match_parked(self) -> int:
        """Receipts that came before the answer to their submit; after ten minutes they are set aside as unmatched."""
        async with self._database.transaction() as session:
            moment, matched = clock(), 0
            for row in (await session.execute(PARKED)).all():
                matched += await unpark(session, row.receipt_group, row.ids, moment)
            for gateway in (await session.execute(GIVE_UP, {"before": moment - PARKED_FOR})).scalars():
                metrics.RECEIPTS.labels(gateway, "unmatched").inc()
        return matched

    async def look(self) -> None:
        """Show how deep the queues are, and wake whoever has work and has not heard of it."""
        async with self._database.transaction() as session:
            depths = (await session.execute(DEPTHS)).all()
            due = (await session.execute(DUE)).all()
            waiting = (await session.execute(WAITING)).scalar()
            await session.execute(GONE)
        shown = {(row.gateway, row.state) for row in depths}
        for gateway, state in self._shown - shown:
            metrics.QUEUE_MESSAGES.labels(gateway, state).set(0)
            metrics.QUEUE_OLDEST.labels(gateway).set(0)
        for row in depths:
            metrics.QUEUE_MESSAGES.labels(row.gateway, row.state).set(row.number)
            if row.state == State.QUEUED:
                metrics.QUEUE_OLDEST.labels(row.gateway).set(max(0.0, float(row.oldest or 0)))
        self._shown |= shown
        queues = {MAIL for row in due if row.kind == "smtp"} | {bind_queue(row.name, slot) for row in due if row.kind == "smpp" for slot in range(row.binds)}
        self._wakeups.wake(*queues, *([PLAN] if waiting else []))
