"""What became of one message, step by step, and what it waits for at this moment."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.desk.steps import Step, Teller
from app.notifications.api import made_at
from app.notifications.history import HistoryLine, history_of
from app.notifications.states import State

MESSAGES = sa.text("""
SELECT m.id, m.event_id, m.channel, m.contact_id, m.address, m.resend_of, o.state AS waits, o.reason, o.not_before, o.gateway, o.priority, o.after_message,
       o.stopped_at IS NOT NULL AS stopped, (SELECT count(*) FROM notification_event n WHERE n.message_id = m.id) AS joined
FROM message m LEFT JOIN outbox o ON o.message_id = m.id WHERE m.id = ANY(CAST(:ids AS uuid[])) ORDER BY m.id
""")
GATEWAY = sa.text("""
SELECT g.kind, g.enabled, g.paused, EXISTS (SELECT FROM bind_slot b WHERE b.gateway = g.name AND b.until > now() AND b.status ->> 'state' = 'bound') AS bound,
       (SELECT b.status #>> '{last_error,detail}' FROM bind_slot b WHERE b.gateway = g.name AND b.until > now() AND b.status ->> 'state' <> 'bound'
        ORDER BY b.slot LIMIT 1) AS trouble,
       EXISTS (SELECT FROM bind_slot b WHERE b.gateway = g.name AND b.until > now()) AS tried
FROM gateway g WHERE g.name = :name
""")
# Of a long queue nobody needs to know how long it is.
BEFORE_IT = sa.text("""
SELECT count(*) FROM (
    SELECT FROM outbox WHERE gateway = :gateway AND state = 'queued' AND (priority, not_before, message_id) < (:priority, :not_before, :id) LIMIT 1000
) q
""")
BACK = frozenset({"released", "replanned"})


async def message_steps(session: AsyncSession, teller: Teller, ids: list[UUID], *, born: bool = False) -> list[Step]:
    """Of these messages, in order of time. `born`: how it was made is told too, where no decision does."""
    found: list[Step] = []
    for row in (await session.execute(MESSAGES, {"ids": ids})).all():
        common = {"channel": row.channel, "address": row.address, "contact_id": row.contact_id, "message_id": row.id}
        made = made_at(row.id)
        if born or row.resend_of is not None:
            found.append(teller.step("message_made", made, **common))
        if row.resend_of is not None:
            found.append(teller.step("resend_of", made, message=row.resend_of, message_id=row.id))
        if row.joined:
            found.append(teller.step("joined_by", made, number=row.joined, message_id=row.id))
        lines = (await history_of(session, row.id, made))[1:]  # the first one is how it was made
        found += [_of_line(teller, line, common) for line in lines]
    return sorted(found, key=lambda step: step.at or made_at(UUID(int=0)))


async def waiting_steps(session: AsyncSession, teller: Teller, ids: list[UUID]) -> list[Step]:
    """What those that have not gone wait for now."""
    rows = (await session.execute(MESSAGES, {"ids": ids})).all()
    return [await _now(session, teller, row) for row in rows if row.waits is not None]


def _of_line(teller: Teller, line: HistoryLine, common: dict[str, Any]) -> Step:
    said = common | {"gateway": line.gateway, "detail": line.detail, "state": line.state.value}
    if line.detail is not None and line.detail.startswith("receipt "):
        return teller.step("receipt", line.at, reason=line.reason, **said)
    match line.state:
        case State.HELD:
            return teller.step("held", line.at, reason=line.reason, **said)
        case State.QUEUED:
            name = "rerouted" if line.reason == "rerouted" else "released" if line.reason in BACK else "requeued"
            return teller.step(name, line.at, reason=line.reason, **said)
        case State.SENDING:
            return teller.step("sending", line.at, **said)
    return teller.step("came_out" if line.gateway else "ended", line.at, reason=line.reason, **said)


async def _now(session: AsyncSession, teller: Teller, row: Any) -> Step:
    common = {"channel": row.channel, "address": row.address, "contact_id": row.contact_id, "message_id": row.id, "gateway": row.gateway}
    if row.waits == State.SENDING:
        return teller.step("on_the_wire", None, **common)
    if row.stopped:
        return teller.step("waits_stopped", None, reason="stopped", **common)
    common |= {"not_before": row.not_before}
    if row.after_message is not None:
        return teller.step("waits_for_message", None, reason=row.reason, message=row.after_message, **common)
    if row.waits == State.HELD:
        return teller.step("waits_until", None, reason=row.reason, **common)
    if row.gateway is None:
        return teller.step("no_gateway", None, **common)
    gateway = (await session.execute(GATEWAY, {"name": row.gateway})).first()
    trouble = gateway_trouble(gateway)
    if trouble is not None:
        return teller.step(trouble, None, **common, **({"detail": gateway.trouble} if trouble == "gateway_down" and gateway and gateway.trouble else {}))
    values = {"gateway": row.gateway, "priority": row.priority, "not_before": row.not_before, "id": row.id}
    return teller.step("in_queue", None, number=(await session.execute(BEFORE_IT, values)).scalar_one(), **common)


def gateway_trouble(gateway: Any) -> str | None:
    """Why nothing goes through it, if so. Of a mail server nobody knows before a station has called there."""
    if gateway is None:
        return "gateway_gone"
    if not gateway.enabled:
        return "gateway_disabled"
    if gateway.paused:
        return "gateway_paused"
    return "gateway_down" if not gateway.bound and (gateway.kind == "smpp" or gateway.tried) else None
