"""Sweeps: what no event will ever come for. Leases that ended, receipts that waited, processes that are gone; and a look at the queues."""

import dataclasses
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.suppressions import lately_suppressed
from app.catalogue.registry import Catalogue
from app.core import metrics
from app.core.clock import now as clock
from app.core.db import Database
from app.core.ids import first_id_at, new_id
from app.core.wakeups import MAIL, PLAN, Wakeups, bind_queue
from app.notifications.follow import Following
from app.notifications.rows import CHANGES
from app.notifications.states import IN_OUTBOX, State
from app.notifications.withdraw import withdraw
from app.sending.settle import ONCE_MORE_DETAIL
from app.tracking.clear_up import clear_up
from app.tracking.inbound import give_up_parts
from app.tracking.match import take_home
from app.tracking.moves import revisit
from app.tracking.rules import GatewayRules
from app.tracking.silence import Silence

log = structlog.get_logger()

BATCH = 500
PARKED_BATCH = 2000
QUICK = 0.25  # seconds that a count may take and still be made at every look
SHARE = 20  # a count that takes longer than that takes one part in so many of the time
PARKED_FOR = timedelta(minutes=10)
NOTHING = UUID(int=0)
SENT_AGAIN = {"email": "sent again with the same Message-ID", "sms": ONCE_MORE_DETAIL}

ENDED = sa.text("""
SELECT o.message_id, o.channel, o.gateway, coalesce(o.claimed_at, now()) AS claimed_at, o.resent, o.expires_at > now() AS is_of_use, m.type
FROM outbox o JOIN message m ON m.id = o.message_id
WHERE o.state = 'sending' AND o.lease_until < now() ORDER BY o.lease_until LIMIT :batch FOR UPDATE OF o SKIP LOCKED
""")
DOUBT = sa.text("""
WITH gone AS (DELETE FROM outbox WHERE message_id = ANY(CAST(:ids AS uuid[])) RETURNING message_id, gateway)
UPDATE message m SET state = 'unknown', reason = 'no_answer', gateway = coalesce(gone.gateway, m.gateway), updated_at = :now
FROM gone WHERE m.id = gone.message_id
""")
ONCE_MORE = sa.text("""
UPDATE outbox SET state = 'queued', claimed_by = NULL, lease_until = NULL, not_before = :now, resent = true,
       tries = CASE WHEN tries < 32766 THEN tries + 1 ELSE 32766 END
WHERE message_id = ANY(CAST(:ids AS uuid[]))
""")
# In the order of their coming, and round again: no receipt that will never find its message keeps others from being looked at.
PARKED = sa.text("SELECT id, gateway, receipt_group FROM receipt WHERE status = 'parked' AND id > :after ORDER BY id LIMIT :batch")
GIVE_UP = sa.text("UPDATE receipt SET status = 'unmatched' WHERE status = 'parked' AND id < :before RETURNING gateway")
DEPTHS = sa.text("""
SELECT coalesce(gateway, 'none') AS gateway, state, count(*) AS number, max(extract(epoch FROM now() - not_before)) FILTER (WHERE state = 'queued' AND not_before <= now()) AS oldest
FROM outbox GROUP BY 1, 2
""")
GATEWAYS = sa.text("SELECT name, kind, enabled, coalesce(CAST(settings ->> 'binds' AS int), 1) AS binds FROM gateway")
DUE = sa.text("""
SELECT g.name, g.kind, coalesce(CAST(g.settings ->> 'binds' AS int), 1) AS binds FROM gateway g WHERE g.enabled AND NOT g.paused
AND EXISTS (SELECT FROM outbox o WHERE o.gateway = g.name AND o.state = 'queued' AND o.not_before <= now())
""")
# As many as are of interest: an import of millions is not to be counted every five seconds.
WAITING = sa.text("""
SELECT (SELECT count(*) FROM (SELECT FROM event_waiting LIMIT 100000) AS bounded) AS number,
       (SELECT event_id FROM event_waiting ORDER BY event_id LIMIT 1) AS oldest
""")
GONE = sa.text("DELETE FROM worker_process WHERE seen_at < now() - interval '1 hour'")


class Sweeper:
    """Each step may run anywhere, any number of times, at the same time."""

    def __init__(self, database: Database, wakeups: Wakeups) -> None:
        self._database, self._wakeups = database, wakeups
        self._shown: set[tuple[str, str]] = set()
        self._begun: set[str] = set()
        self._wanted: set[str] = set()
        self._count_again = 0.0  # monotonic
        self._rules, self._catalogue = GatewayRules(), Catalogue()
        self._silence, self._following = Silence(database, self._rules), Following(database)
        self._looked_at = NOTHING  # the parked receipts up to this one

    async def end_leases(self) -> int:
        """What was claimed and never settled may have gone: an SMS is `unknown`, or goes once more where that is wanted; an e-mail goes once more,
        with the same Message-ID. A second time both are `unknown`."""
        async with self._database.transaction() as session:
            rows = (await session.execute(ENDED, {"batch": BATCH})).all()
            if not rows:
                return 0
            moment = clock()
            again = await self._that_go_again(session, rows)
            doubt = [row for row in rows if row not in again]
            await session.execute(DOUBT, {"ids": [row.message_id for row in doubt], "now": moment})
            await session.execute(ONCE_MORE, {"ids": [row.message_id for row in again], "now": moment})
            changes: list[tuple[Any, ...]] = [(new_id(), row.message_id, row.claimed_at, State.SENDING.value, None, f"on {row.gateway}") for row in rows]
            changes += [(new_id(), row.message_id, moment, State.UNKNOWN.value, "no_answer", "the worker ended before an answer came") for row in doubt]
            changes += [(new_id(), row.message_id, moment, State.QUEUED.value, "lease_ended", SENT_AGAIN[row.channel]) for row in again]
            await CHANGES.run(session, changes)
            if tried_twice := [row.message_id for row in doubt if row.resent and row.channel == "sms"]:
                await revisit(session, tried_twice, moment)
        for row in rows:
            metrics.SWEEPER_FOUND.labels("mail" if row.channel == "email" else "smpp").inc()
        for row in doubt:
            metrics.MESSAGES.labels(row.channel, row.gateway or "none", row.type, State.UNKNOWN.value).inc()
        log.warning("leases_ended", unknown=len(doubt), sent_again=len(again))
        self._wakeups.wake(MAIL)
        return len(rows)

    async def _that_go_again(self, session: AsyncSession, rows: Sequence[Any]) -> list[Any]:
        """Letters, and SMS whose type or gateway says so; each once, and an SMS while it is of use."""
        if any(row.channel == "sms" for row in rows):
            await self._rules.refresh(session)
            await self._catalogue.refresh(session)
        return [row for row in rows if not row.resent and (row.channel == "email" or (row.is_of_use and self._resends(row.type, row.gateway)))]

    def _resends(self, kind: str, gateway: str) -> bool:
        wanted = self._catalogue.options(kind).on_response_timeout
        return wanted == "resend_once" if wanted is not None else self._rules.of(gateway).resends

    async def match_parked(self) -> int:
        """Receipts that came before the answer to their submit, or instead of it; after ten minutes they are set aside as unmatched."""
        async with self._database.transaction() as session:
            moment, matched = clock(), 0
            rows = (await session.execute(PARKED, {"after": self._looked_at, "batch": PARKED_BATCH})).all()
            self._looked_at = rows[-1].id if len(rows) == PARKED_BATCH else NOTHING
            if rows:
                await self._rules.refresh(session)
            for (gateway, receipt_group), ids in by_origin(rows).items():
                matched += await self._take_home(session, gateway, receipt_group, ids, moment)
        async with self._database.transaction() as session:  # of its own: whatever goes wrong with the new ones, the old ones do not pile up
            for gateway in (await session.execute(GIVE_UP, {"before": first_id_at(clock() - PARKED_FOR)})).scalars():
                metrics.RECEIPTS.labels(gateway, "unmatched").inc()
        return matched

    async def _take_home(self, session: AsyncSession, gateway: str, receipt_group: str, ids: list[UUID], moment: datetime) -> int:
        finding = dataclasses.replace(self._rules.of(gateway).finding, receipt_group=receipt_group)
        found = await take_home(session, finding, ids, moment)
        if strangers := set(ids).difference(found):
            known_now = await clear_up(session, self._rules, receipt_group, sorted(strangers), moment)
            found += await take_home(session, finding, known_now, moment) if known_now else []
        return len(found)

    async def end_silence(self) -> int:
        """SMS that were taken and have waited for a receipt in vain."""
        return await self._silence.end()

    async def follow_up(self) -> int:
        """What waited for a message that has come to an end now goes, or is not needed."""
        return await self._following.follow()

    async def give_up_parts(self) -> int:
        """Inbound SMS of which a part never came are kept as they are after a day."""
        return await self._database.again(lambda session: give_up_parts(session, clock()))

    async def withdraw(self) -> int:
        """What was planned, or on the wire, at the very moment when its address was suppressed."""
        async with self._database.transaction() as session:
            return await withdraw(session, await lately_suppressed(session))

    async def look(self) -> None:
        """Show how deep the queues are, and wake whoever has work and has not heard of it."""
        async with self._database.transaction() as session:
            depths = await self._depths(session)
            gateways = (await session.execute(GATEWAYS)).all()
            due = (await session.execute(DUE)).all()
            waiting = (await session.execute(WAITING)).one()
            await session.execute(GONE)
            await self._begin(session, gateways)
        metrics.EVENTS_WAITING.set(waiting.number)
        metrics.EVENTS_OLDEST.set(age(waiting.oldest) if waiting.oldest is not None else 0)
        if depths is not None:
            self._show(depths, [row.name for row in gateways])
        queues = {MAIL for row in due if row.kind == "smtp"} | {bind_queue(row.name, slot) for row in due if row.kind == "smpp" for slot in range(row.binds)}
        self._wakeups.wake(*queues, *([PLAN] if waiting.number else []))

    async def _depths(self, session: AsyncSession) -> Sequence[Any] | None:
        """How deep the queues are. Counting a very deep one takes its time: then it is done more seldom, and takes a twentieth of the time at most."""
        began = time.monotonic()
        if began < self._count_again:
            return None
        depths = (await session.execute(DEPTHS)).all()
        took = time.monotonic() - began
        self._count_again = time.monotonic() + (SHARE * took if took > QUICK else 0)
        return depths

    async def _begin(self, session: AsyncSession, gateways: Sequence[Any]) -> None:
        """The series of every gateway, also of one that was made just now; how many binds each is to have."""
        if new := [row for row in gateways if row.name not in self._begun]:
            await self._catalogue.refresh(session)
            for row in new:
                metrics.start_gateway(row.name, row.kind, self._catalogue.types)
                self._begun.add(row.name)
        wanted = {row.name: row.binds for row in gateways if row.kind == "smpp" and row.enabled}
        for name in self._wanted - wanted.keys():
            metrics.BINDS_WANTED.labels(name).set(0)
        for name, binds in wanted.items():
            metrics.BINDS_WANTED.labels(name).set(binds)
        self._wanted |= wanted.keys()

    def _show(self, depths: Sequence[Any], names: Sequence[str]) -> None:
        shown = {(row.gateway, row.state) for row in depths}
        # A queue that is empty is shown as such, also one that nobody has seen otherwise.
        for gateway, state in (self._shown | {(name, state.value) for name in (*names, "none") for state in IN_OUTBOX}) - shown:
            metrics.QUEUE_MESSAGES.labels(gateway, state).set(0)
            metrics.QUEUE_OLDEST.labels(gateway).set(0)
        for row in depths:
            metrics.QUEUE_MESSAGES.labels(row.gateway, row.state).set(row.number)
            if row.state == State.QUEUED:
                metrics.QUEUE_OLDEST.labels(row.gateway).set(max(0.0, float(row.oldest or 0)))
        self._shown |= shown


def age(identity: UUID) -> float:
    """Seconds since this id was made (RFC 9562, 5.7: the first 48 bits are milliseconds)."""
    return max(0.0, clock().timestamp() - (identity.int >> 80) / 1000)


def by_origin(rows: Sequence[Any]) -> dict[tuple[str, str], list[UUID]]:
    """Parked receipts by the gateway that brought them, and its group."""
    found: dict[tuple[str, str], list[UUID]] = defaultdict(list)
    for row in rows:
        found[row.gateway, row.receipt_group].append(row.id)
    return found
