"""What the rules mean, day by day in plain Python: slow, obvious, and independent of the SQL that it judges."""

import calendar
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal


@dataclass(frozen=True)
class Charge:
    kind: str
    amount: Decimal
    on: date | None = None
    weekday: int | None = None
    month: int | None = None
    day: int | None = None
    start_on: date | None = None
    end_on: date | None = None
    posted_through: date | None = None
    announce: bool = True


def falls_on(charge: Charge, day: date) -> bool:
    """Whether the charge is due on this day and not yet inside the balance."""
    if charge.start_on and day < charge.start_on:
        return False
    if charge.end_on and day > charge.end_on:
        return False
    if charge.posted_through and day <= charge.posted_through:
        return False
    month_length = calendar.monthrange(day.year, day.month)[1]
    if charge.kind == "daily":
        return True
    if charge.kind == "weekly":
        return day.isoweekday() == charge.weekday
    if charge.kind == "monthly":
        return day.day == min(charge.day, month_length)
    if charge.kind == "yearly":
        return day.month == charge.month and day.day == min(charge.day, month_length)
    return day == charge.on


def runs_out(available: Decimal, charges: Sequence[Charge], as_of: date, horizon: int) -> tuple[date, Decimal] | None:
    """The first day that is not covered, and what is missing on it."""
    left = available
    for n in range(horizon + 1):
        day = as_of + timedelta(days=n)
        left -= sum((charge.amount for charge in charges if falls_on(charge, day)), Decimal(0))
        if left < 0:
            return day, -left
    return None
