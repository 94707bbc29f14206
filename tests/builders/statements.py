"""Statements as `statement_of` makes them, without a database."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from app.attachments.statement import Statement, state
from app.forecasts.rules import Due

DAY = date(2026, 1, 10)


@dataclass(frozen=True)
class Somebody:
    number: str = "100500"
    name: str = "Иванов Иван"
    currency: str = "RUB"
    balance: Decimal = Decimal("1000.00")
    credit_limit: Decimal = Decimal("0.00")


def a_statement(charges: Sequence[tuple[int, str, str]] = (), *, as_of: date = DAY, **account: object) -> Statement:
    """Charges as (days from now, amount, title)."""
    due = [Due(as_of + timedelta(days=days), f"c{n}", title, Decimal(amount), True, "once") for n, (days, amount, title) in enumerate(charges)]
    return state(Somebody(**account), due, as_of)
