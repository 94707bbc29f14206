"""Is it still true? Asked when a reminder is planned, when a held one is released, and when one has waited in a queue: the one account is computed again.

A reminder that is no longer true dies; one that is goes with the figures of now ("in 2 days", not the "in 3 days" of yesterday evening).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from app.core.db import Executor
from app.core.money import money_string
from app.forecasts.find import LISTED, TYPES, Wanted, exhaustion_words
from app.forecasts.rules import RunsOut, due_of, period_end, runs_out_of, stage_of

REMINDERS = frozenset(TYPES.values())


@dataclass(frozen=True, slots=True)
class Claim:
    """What a reminder says: its type and data, and the account (id, status, balance, balance_as_of, credit_limit, threshold) with the day in its zone."""

    type: str
    data: dict[str, Any]
    account: Any
    today: date


@dataclass(frozen=True, slots=True)
class _Row:
    balance: Decimal
    balance_as_of: Any
    credit_limit: Decimal
    exhausts_on: date
    shortfall: Decimal


async def as_of_now(session: Executor, claims: Sequence[Claim], wanted: Wanted) -> list[dict[str, Any] | None]:
    """For each claim its data with the figures of now, or nothing where it is not true any more."""
    answers: list[dict[str, Any] | None] = [None] * len(claims)
    by_day: dict[date, list[int]] = defaultdict(list)
    for n, claim in enumerate(claims):
        if claim.account.status != "active":
            continue
        if claim.type == TYPES["threshold"]:
            answers[n] = _low(claim)
        elif claim.type == TYPES["exhaustion"]:
            by_day[claim.today].append(n)
        elif claim.type == TYPES["upcoming"]:
            answers[n] = await _upcoming(session, claim, wanted)
        else:
            answers[n] = claim.data
    for day, places in by_day.items():
        accounts = [claims[n].account for n in places]
        out = await runs_out_of(session, [(account.id, account.balance + account.credit_limit) for account in accounts], day, wanted.horizon)
        due = await due_of(session, [accounts[ref].id for ref in out], day, max([period_end(day), *(found.exhausts_on for found in out.values())]))
        for ref, found in out.items():
            if stage_of((found.exhausts_on - day).days, wanted.warning_days) is not None:
                answers[places[ref]] = _exhausting(claims[places[ref]], found, due.get(accounts[ref].id, []), day)
    return answers


def _low(claim: Claim) -> dict[str, Any] | None:
    account = claim.account
    if account.threshold is None or account.balance > account.threshold:
        return None
    return claim.data | {"balance": money_string(account.balance), "threshold": money_string(account.threshold)}


def _exhausting(claim: Claim, found: RunsOut, due: Sequence[Any], day: date) -> dict[str, Any]:
    account = claim.account
    data, _ = exhaustion_words(day, _Row(account.balance, account.balance_as_of, account.credit_limit, found.exhausts_on, found.shortfall), due)
    return claim.data | data


async def _upcoming(session: Executor, claim: Claim, wanted: Wanted) -> dict[str, Any] | None:
    due_on = date.fromisoformat(claim.data["due_on"])
    if due_on < claim.today:
        return None
    account_id: UUID = claim.account.id
    due = [
        charge
        for charge in (await due_of(session, [account_id], due_on, due_on)).get(account_id, [])
        if charge.announce and (charge.kind != "daily" or wanted.upcoming_daily)
    ]
    total = sum((charge.amount for charge in due), Decimal("0.00"))
    if total <= 0:
        return None
    charges = [{"id": charge.id, "title": charge.title, "amount": money_string(charge.amount)} for charge in due[:LISTED]]
    return claim.data | {"total": money_string(total), "charges": charges}
