"""Is it still true? Asked when a reminder is planned, when a held one is released, and when something has changed while one waits: the account is computed again.

A reminder that is no longer true dies; one that is goes with the figures of now ("in 2 days", not the "in 3 days" of yesterday evening).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from app.core.db import Executor
from app.core.money import money_string
from app.forecasts.find import LISTED, TYPES, Wanted
from app.forecasts.rules import Due, RunsOut, due_of, period_end, runs_out_of, stage_of
from app.forecasts.words import exhaustion_words

RESTORED = "balance.restored"
REMINDERS = frozenset({*TYPES.values(), RESTORED})


@dataclass(frozen=True, slots=True)
class Claim:
    """What a reminder says: its type and data, and the account (id, status, balance, balance_as_of, credit_limit, threshold, warning_days, upcoming_days) with the
    day in its zone."""

    type: str
    data: dict[str, Any]
    account: Any
    today: date

    @property
    def is_low(self) -> bool:
        """Whether the balance is at or below the account's threshold."""
        return self.account.threshold is not None and self.account.balance <= self.account.threshold


@dataclass(frozen=True, slots=True)
class _Row:
    balance: Decimal
    balance_as_of: Any
    credit_limit: Decimal
    exhausts_on: date
    shortfall: Decimal


async def as_of_now(session: Executor, claims: Sequence[Claim], wanted: Wanted) -> list[dict[str, Any] | None]:
    """For each claim its data with the figures of now, or nothing where it is not true any more. A few queries for each day, however many claims."""
    answers: list[dict[str, Any] | None] = [None] * len(claims)
    ending: dict[date, list[int]] = defaultdict(list)  # claims that depend on when the money ends, by the account's today
    falling: dict[date, list[int]] = defaultdict(list)  # and on the charges of one day, by that day
    for n, claim in enumerate(claims):
        if claim.account.status != "active":
            continue
        if claim.type == TYPES["threshold"]:
            answers[n] = _low(claim)
        elif claim.type == TYPES["exhaustion"] or (claim.type == RESTORED and not claim.is_low):
            ending[claim.today].append(n)
        elif claim.type == TYPES["upcoming"]:
            if (due_on := date.fromisoformat(claim.data["due_on"])) >= claim.today:
                falling[due_on].append(n)
        elif claim.type not in REMINDERS:
            answers[n] = claim.data
    for day, places in ending.items():
        await _when_money_ends(session, claims, day, places, wanted, answers)
    for day, places in falling.items():
        due = await due_of(session, [claims[n].account.id for n in places], day, day)
        for n in places:
            answers[n] = _upcoming(claims[n], due.get(claims[n].account.id, []), wanted)
    return answers


async def _when_money_ends(
    session: Executor, claims: Sequence[Claim], day: date, places: Sequence[int], wanted: Wanted, answers: list[dict[str, Any] | None]
) -> None:
    accounts = [claims[n].account for n in places]
    days = [wanted.of(account).warning_days for account in accounts]
    horizon = max(max(own) for own in days)
    out = await runs_out_of(session, [(account.id, account.balance + account.credit_limit) for account in accounts], day, horizon)
    warned = {ref: found for ref, found in out.items() if stage_of((found.exhausts_on - day).days, days[ref]) is not None}
    told = [ref for ref in warned if claims[places[ref]].type != RESTORED]
    upto = max([period_end(day), *(warned[ref].exhausts_on for ref in told)])
    due = await due_of(session, [accounts[ref].id for ref in told], day, upto)
    for ref, n in enumerate(places):
        if claims[n].type != RESTORED:
            answers[n] = _exhausting(claims[n], warned[ref], due.get(accounts[ref].id, []), day) if ref in warned else None
        elif ref not in warned:
            answers[n] = claims[n].data | {"balance": money_string(accounts[ref].balance)}


def _low(claim: Claim) -> dict[str, Any] | None:
    account = claim.account
    return claim.data | {"balance": money_string(account.balance), "threshold": money_string(account.threshold)} if claim.is_low else None


def _exhausting(claim: Claim, found: RunsOut, due: Sequence[Due], day: date) -> dict[str, Any]:
    account = claim.account
    data, _ = exhaustion_words(day, _Row(account.balance, account.balance_as_of, account.credit_limit, found.exhausts_on, found.shortfall), due)
    return claim.data | data


def _upcoming(claim: Claim, due: Sequence[Due], wanted: Wanted) -> dict[str, Any] | None:
    announced = [charge for charge in due if charge.announce and (charge.kind != "daily" or wanted.upcoming_daily)]
    total = sum((charge.amount for charge in announced), Decimal("0.00"))
    if total <= 0:
        return None
    charges = [{"id": charge.id, "title": charge.title, "amount": money_string(charge.amount)} for charge in announced[:LISTED]]
    return claim.data | {"total": money_string(total), "charges": charges}
