"""Why an event told whom it told: from its intake over the decisions to what became of each message."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.money import money_string
from app.desk.event_view import decisions_of, existing
from app.desk.explain_message import message_steps, waiting_steps
from app.desk.steps import Step, Teller
from app.forecasts.tell import SOURCE
from app.notifications.api import made_at

DECIDED = sa.text("SELECT at FROM notification WHERE event_id = :event")
BALANCE = sa.text("SELECT balance, balance_as_of FROM account WHERE id = :account")
# By the account: a few dozen rows of an index.
HIT = sa.text("""
SELECT h.kind, h.mark, h.as_of, h.at, h.run_id, r.state, r.finished_at FROM forecast_hit h LEFT JOIN scan_run r ON r.id = h.run_id
WHERE h.account_id = :account AND h.event_id = :event
""")
SUPPRESSED = sa.text("SELECT channel, address, reason, at, until, by FROM suppression WHERE address = ANY(CAST(:addresses AS text[])) ORDER BY at DESC")
REFUSED = sa.text("""
SELECT type, channel, address, at, by, via FROM consent WHERE account_id = :account AND act = 'refused' AND at <= :at ORDER BY id DESC LIMIT 200
""")
CAPS = frozenset({"day", "week", "month"})
# Which fields of a refusal name what was refused; the others stand empty.
OF_CHOICE = {
    "type_off": ("type",),
    "channel_off": ("type", "channel"),
    "contact_off": ("channel", "address"),
    "contact_type_off": ("type", "channel", "address"),
}


@dataclass(frozen=True, slots=True)
class Since:
    """Who refused what, and when, of one account: to be said beside a reason."""

    suppressed: list[Any]
    refused: list[Any]

    @classmethod
    async def of(cls, session: AsyncSession, account_id: UUID, addresses: list[str], at: datetime) -> "Since":
        suppressed = list((await session.execute(SUPPRESSED, {"addresses": addresses})).all()) if addresses else []
        return cls(suppressed, list((await session.execute(REFUSED, {"account": account_id, "at": at})).all()))

    def say(self, teller: Teller, decision: dict[str, Any], at: datetime) -> str | None:
        """Nothing where nobody knows."""
        reason, detail = decision["reason"], decision.get("detail")
        if reason == "suppressed":
            return self._suppressed(teller, decision, at)
        if reason == "capped" and detail in CAPS:
            return teller.piece(f"cap_{detail}")
        if reason == "too_soon" and detail:
            return teller.piece("free_from", at=datetime.fromisoformat(detail))
        if reason in OF_CHOICE:
            return self._refused(teller, decision, OF_CHOICE[reason])
        return None

    def _suppressed(self, teller: Teller, decision: dict[str, Any], at: datetime) -> str | None:
        for row in self.suppressed:
            if (row.channel, row.address) == (decision["channel"], decision["address"]) and row.at <= at and (row.until is None or row.until > at):
                what = teller.piece(f"barred_{row.reason}")
                return teller.piece("since" if row.until is None else "since_until", what=what, at=row.at, until=row.until, by=by_whom(teller, row.by))
        return None

    def _refused(self, teller: Teller, decision: dict[str, Any], names: tuple[str, ...]) -> str | None:
        wanted = {name: decision[name] if name in names else None for name in ("type", "channel", "address")}
        for row in self.refused:
            if all(getattr(row, name) == value for name, value in wanted.items()):
                return teller.piece("chosen_at", at=row.at, by=by_whom(teller, row.by))
        return None


def by_whom(teller: Teller, name: str) -> str:
    return teller.piece("by_subscriber") if name == "subscriber" else name


async def event_steps(session: AsyncSession, teller: Teller, event_id: UUID, *, only: UUID | None = None) -> list[Step]:
    """Of one event. `only`: of what was decided, this message alone."""
    row = await existing(session, event_id)
    taken = made_at(event_id)
    steps = [teller.step("event_taken", taken, type=row.type, source=row.source, id=row.id, time=row.time, event_id=event_id)]
    if row.source == SOURCE:
        steps += await _forecast_behind(session, teller, row)
    steps += await _balance(session, teller, row, taken)
    if row.state == "pending":
        return [*steps, teller.step("waits_for_planning", None)]
    at = (await session.execute(DECIDED, {"event": event_id})).scalar() or taken
    decisions = [one for one in await decisions_of(session, row) if only is None or one.get("message_id") == str(only)]
    steps.append(teller.step("planned" if decisions else "told_nobody", at, event_id=event_id))
    addresses = sorted({one["address"] for one in decisions if one["address"]})
    since = await Since.of(session, row.account_id, addresses, at)
    steps += [_decided(teller, one, since, at) for one in decisions]
    messages = [UUID(one["message_id"]) for one in decisions if one.get("message_id")]
    return [*steps, *await message_steps(session, teller, messages), *await waiting_steps(session, teller, messages)]


async def _forecast_behind(session: AsyncSession, teller: Teller, row: Any) -> list[Step]:
    hit = (await session.execute(HIT, {"account": row.account_id, "event": row.event_id})).first()
    if hit is None:
        return []
    kind = teller.piece(f"kind_{hit.kind}")
    steps = [teller.step("forecast_found", hit.at, as_of=hit.as_of, kind=kind, mark=hit.mark)]
    if hit.run_id is None:
        return [*steps, teller.step("seen_at_once", hit.at)]
    outcome = teller.piece(f"scan_{hit.state}") if hit.state else None
    return [*steps, teller.step("scan_ran", hit.at, kind=kind, as_of=hit.as_of, finished=hit.finished_at, outcome=outcome)]


async def _balance(session: AsyncSession, teller: Teller, row: Any, taken: datetime) -> list[Step]:
    said = orjson.loads(row.data).get("balance")
    if said is None or row.source == SOURCE or row.account_id is None:
        return []
    now = (await session.execute(BALANCE, {"account": row.account_id})).first()
    if now is None:
        return []
    kept = now.balance == Decimal(said) and (now.balance_as_of is None or now.balance_as_of <= row.time)
    if kept:
        return [teller.step("balance_kept", taken, balance=said)]
    return [teller.step("balance_overtaken", taken, balance=said, now=money_string(now.balance), as_of=now.balance_as_of)]


def _decided(teller: Teller, decision: dict[str, Any], since: Since, at: datetime) -> Step:
    common = {"channel": decision["channel"], "address": decision["address"], "contact_id": decision["contact_id"]}
    if decision["outcome"] == "skipped":
        why = since.say(teller, decision, at)
        return teller.step("skipped_since" if why else "skipped", at, reason=decision["reason"], since=why, **common)
    common |= {"message_id": decision["message_id"], "not_before": datetime.fromisoformat(decision["not_before"])}
    if decision["reason"] == "coalesced":
        return teller.step("joined", at, reason="coalesced", **common)
    common |= {"gateway": decision.get("gateway"), "template": decision.get("template_id"), "version": decision.get("template_version")}
    return teller.step("told_later" if decision["reason"] else "told", at, reason=decision["reason"], **common)
