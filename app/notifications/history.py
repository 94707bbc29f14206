"""The history of one message: creation, attempts, receipts and rare moves, told as one line after the other."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from app.notifications.states import NEXT, State

CHANGES = sa.text("SELECT at, state, reason, detail FROM message_change WHERE message_id = :id ORDER BY id")
# The tables below belong to later steps of the pipeline; what is read here is only what they say of this message.
ATTEMPTS = sa.text("""
SELECT n, min(claimed_at) AS claimed_at, max(at) AS at, max(gateway) AS gateway, max(parts) AS parts, array_agg(outcome ORDER BY part) AS outcomes,
       max(reason) AS reason, max(code) AS code, max(detail) AS detail, array_remove(array_agg(gateway_message_id ORDER BY part), NULL) AS ids
FROM submission WHERE message_id = :id GROUP BY n ORDER BY n
""")
RECEIPTS = sa.text("SELECT at, gateway, part, stat, state, reason, gateway_message_id FROM receipt WHERE message_id = :id AND status = 'matched' ORDER BY id")
NOW = sa.text("SELECT state FROM message WHERE id = :id")
ON_THE_WIRE = sa.text("SELECT claimed_at, gateway FROM outbox WHERE message_id = :id AND state = 'sending'")

STATE_OF = {"accepted": State.ACCEPTED, "refused": State.FAILED, "unknown": State.UNKNOWN, "deferred": State.QUEUED}


class HistoryLine(BaseModel):
    """`state` is what the message was from then on; a receipt that changed nothing repeats the state it was in."""

    at: datetime
    state: State
    reason: str | None
    gateway: str | None
    detail: str | None


async def history_of(session: AsyncSession, message_id: UUID, created: datetime) -> list[HistoryLine]:
    """In order of time."""
    changes = (await session.execute(CHANGES, {"id": message_id})).all()
    attempts = (await session.execute(ATTEMPTS, {"id": message_id})).all()
    receipts = (await session.execute(RECEIPTS, {"id": message_id})).all()
    now_sending = (await session.execute(ON_THE_WIRE, {"id": message_id})).first()
    born_held = bool(changes) and changes[0].state == State.HELD and (changes[0].at - created).total_seconds() < 1
    lines = [] if born_held else [line(created, State.QUEUED)]
    lines += [line(row.at, State(row.state), row.reason, gateway_of(row), row.detail) for row in changes]
    for row in attempts:
        lines.append(line(row.claimed_at, State.SENDING, None, row.gateway, f"attempt {row.n}" if row.n > 1 else None))
        lines.append(line(row.at, outcome_of(row.outcomes), row.reason, row.gateway, said_of(row)))
    if now_sending is not None:
        lines.append(line(now_sending.claimed_at, State.SENDING, None, now_sending.gateway))
    lines.sort(key=lambda entry: entry.at)
    parts = max((row.parts for row in attempts), default=1)
    told = receipt_lines(receipts, lines[-1].state if lines else State.ACCEPTED, parts)
    if told and parts > 1:
        speak_for_all(told, receipts, State((await session.execute(NOW, {"id": message_id})).scalar_one()))
    return lines + told


def line(at: datetime, state: State, reason: str | None = None, gateway: str | None = None, detail: str | None = None) -> HistoryLine:
    return HistoryLine(at=at, state=state, reason=reason, gateway=gateway, detail=detail)


def gateway_of(change: Any) -> str | None:
    """Where a message went when it left another gateway's queue."""
    return str(change.detail).rpartition(" -> ")[2] if change.reason == "rerouted" and change.detail else None


def outcome_of(outcomes: list[str]) -> State:
    """Of an attempt in several parts: the worst decides."""
    worst = next((outcome for outcome in ("refused", "unknown", "deferred") if outcome in outcomes), "accepted")
    return STATE_OF[worst]


def said_of(row: Any) -> str | None:
    parts = [row.code, row.detail, f"id {', '.join(row.ids)}" if row.ids else None]
    return " ".join(part for part in parts if part) or None


def receipt_lines(receipts: Sequence[Any], state: State, parts: int) -> list[HistoryLine]:
    """Each receipt with the state of the message from then on: of a long message its last part decides, and what is final stays."""
    lines, finals = [], dict[int, State]()
    for row in receipts:
        told = State(row.state) if row.state else State.ACCEPTED
        if row.state and finals.get(row.part) != State.DELIVERED:
            finals[row.part] = told
        if row.state and parts > 1:
            bad = [finals[part] for part in sorted(finals) if finals[part] != State.DELIVERED]
            told = state if len(finals) < parts else bad[0] if bad else State.DELIVERED
        state = told if told in NEXT[state] else state
        lines.append(line(row.at, state, row.reason, row.gateway, f"receipt {row.stat} for part {row.part}, id {row.gateway_message_id}"))
    return lines


def speak_for_all(lines: list[HistoryLine], receipts: Sequence[Any], now: State) -> None:
    """Some SMSCs send one receipt for a message of several parts: from the one on that says so, the message was what it is now."""
    if lines[-1].state == now:
        return
    first = next((number for number, row in enumerate(receipts) if row.state == now), len(lines))
    for line_of_receipt in lines[first:]:
        line_of_receipt.state = now
