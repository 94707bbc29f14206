"""What an event's data say of days and sums: as they are stored (texts), or as templates have them (dates, Decimals). What cannot be read says nothing."""

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from app.core.money import parse_money

# Of several the first that is there: what tops the account up for a month, what is missing, what is charged.
SUMS = ("recommended_payment", "shortfall", "total")


def day_in(data: Mapping[str, Any], name: str) -> date | None:
    value = data.get(name)
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def sum_in(data: Mapping[str, Any], *names: str) -> Decimal | None:
    """The first of these that is a sum above zero."""
    for name in names:
        try:
            amount = parse_money(data.get(name))
        except ValueError:
            continue
        if amount > 0:
            return amount
    return None
