"""One account's days to come: what falls due, what is left after it, and what he would be told when. Reading only."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.forecasts.find import TYPES, Wanted
from app.forecasts.rules import Due, due_of, period_end, recommended_payment

ZERO = Decimal("0.00")


@dataclass(frozen=True, slots=True)
class Day:
    """The charges of one day, and what is available after them."""

    on: date
    charges: list[Due]
    total: Decimal
    after: Decimal


@dataclass(frozen=True, slots=True)
class Notice:
    """What would be told on a day. `mark`: the warning days, or the due day."""

    on: date
    type: str
    mark: str


@dataclass(slots=True)
class Forecast:
    """`exhausts_on`, `days_left` and `shortfall` are nothing when the money lasts."""

    as_of: date
    balance: Decimal
    credit_limit: Decimal
    exhausts_on: date | None = None
    shortfall: Decimal | None = None
    recommended_payment: Decimal | None = None
    days: list[Day] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    @property
    def available(self) -> Decimal:
        return self.balance + self.credit_limit

    @property
    def days_left(self) -> int | None:
        return (self.exhausts_on - self.as_of).days if self.exhausts_on else None


@dataclass(frozen=True, slots=True)
class Heard:
    """What an account has been told already and will not be told again: the stage of its running episode, that it is low, the due days announced."""

    stage: int | None = None
    is_low: bool = False
    due_days: frozenset[str] = frozenset()


HEARD = sa.text("""
SELECT 'exhaustion' AS what, CAST(stage AS text) AS mark FROM forecast_episode WHERE account_id = :account AND kind = 'exhaustion' AND is_open
UNION ALL SELECT 'threshold', 'low' FROM forecast_episode WHERE account_id = :account AND kind = 'threshold' AND is_open
UNION ALL SELECT 'upcoming', mark FROM forecast_hit WHERE account_id = :account AND kind = 'upcoming' AND episode = 0 AND mark >= :as_of
""")


async def forecast(session: AsyncSession, account: Any, as_of: date, days: int, wanted: Wanted, moment: datetime) -> Forecast:
    """The forecast of an account (its row) for so many days from as_of, both ends in."""
    upto, wanted = as_of + timedelta(days=days), wanted.of(account)
    account_id: UUID = account.id
    # A notice within these days may speak of a day behind them.
    seen = max(upto + timedelta(days=max(wanted.horizon, wanted.upcoming_days)), period_end(as_of))
    due = (await due_of(session, [account_id], as_of, seen)).get(account_id, [])
    told = reckon(account.balance, account.credit_limit, as_of, upto, due)
    if account.status == "active" and (account.balance_as_of is None or account.balance_as_of >= wanted.fresh(moment)):
        told.notices = notices(told, account.warned_at, upto, due, wanted, await heard(session, account_id, as_of))
    return told


async def heard(session: AsyncSession, account_id: UUID, as_of: date) -> Heard:
    rows = (await session.execute(HEARD, {"account": account_id, "as_of": as_of.isoformat()})).all()
    stage = next((int(row.mark) for row in rows if row.what == "exhaustion" and row.mark is not None), None)
    return Heard(stage, any(row.what == "threshold" for row in rows), frozenset(row.mark for row in rows if row.what == "upcoming"))


def reckon(balance: Decimal, credit_limit: Decimal, as_of: date, upto: date, due: Sequence[Due]) -> Forecast:
    """From the charges that count, in the order of their days, to `period_end` at least. Pure."""
    told = Forecast(as_of, balance, credit_limit)
    told.days = walk(told.available, [charge for charge in due if charge.due_on <= upto])
    told.exhausts_on = ends_on(told, told.days)
    if told.exhausts_on is not None:
        told.shortfall = sum((day.total for day in told.days if day.on <= told.exhausts_on), ZERO) - told.available
    told.recommended_payment = recommended_payment(told.available, [charge for charge in due if charge.due_on <= period_end(as_of)], told.shortfall)
    return told


def walk(available: Decimal, due: Sequence[Due]) -> list[Day]:
    """The days with charges, and what is left after each."""
    days: list[Day] = []
    for on, group in groupby(due, key=lambda charge: charge.due_on):
        charges = list(group)
        total = sum((charge.amount for charge in charges), ZERO)
        available -= total
        days.append(Day(on, charges, total, available))
    return days


def ends_on(told: Forecast, days: Sequence[Day]) -> date | None:
    """The first day that is not covered."""
    return told.as_of if told.available < 0 else next((day.on for day in days if day.after < 0), None)


def notices(told: Forecast, threshold: Decimal | None, upto: date, due: Sequence[Due], wanted: Wanted, heard: Heard = Heard()) -> list[Notice]:
    """What scans, one every day up to `upto`, would tell if nothing is paid and every charge is posted on its day. Pure.

    `due` goes on behind `upto` as far as a notice looks ahead."""
    days, found = walk(told.available, due), list[Notice]()
    if (ends := ends_on(told, days)) is not None:
        # On one day the smallest number of warning days alone; and none that is not below what was told.
        stages = {max(told.as_of, ends - timedelta(days=warning)): warning for warning in sorted(wanted.warning_days, reverse=True)}
        found += [Notice(on, TYPES["exhaustion"], str(stage)) for on, stage in stages.items() if heard.stage is None or stage < heard.stage]
    if threshold is not None and not heard.is_low:
        balances = [(told.as_of, told.balance)] + [(day.on, day.after - told.credit_limit) for day in days]
        low = next((on for on, balance in balances if balance <= threshold), None)
        if low is not None and all(notice.on != low for notice in found):
            found.append(Notice(low, TYPES["threshold"], "low"))
    for day in days:
        on, mark = day.on - timedelta(days=wanted.upcoming_days), day.on.isoformat()
        announced = sum((charge.amount for charge in day.charges if charge.announce and (charge.kind != "daily" or wanted.upcoming_daily)), ZERO)
        if announced > 0 and on >= told.as_of and mark not in heard.due_days:
            found.append(Notice(on, TYPES["upcoming"], mark))
    return sorted((notice for notice in found if notice.on <= upto), key=lambda notice: (notice.on, notice.type))
