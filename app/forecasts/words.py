"""What an event of exhaustion says of one account. For slices of all accounts `find` says the same in SQL."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from app.core.db import as_utc
from app.core.money import money_string
from app.forecasts.find import LISTED
from app.forecasts.rules import RULES, Due, missing_of, period_end


def exhaustion_words(as_of: date, row: Any, due: Sequence[Due]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The data of a `balance.exhausting` event, and what they were made from. `row` has exhausts_on, shortfall and the account's money;
    the charges in `due` reach to `period_end` and to the day that the money ends."""
    until = [charge for charge in due if charge.due_on <= row.exhausts_on]
    ends = period_end(as_of)
    payment = missing_of(row.balance + row.credit_limit, sum((charge.amount for charge in due if charge.due_on <= ends), Decimal(0)), row.shortfall)
    data = {
        "days_left": (row.exhausts_on - as_of).days,
        "exhausts_on": row.exhausts_on.isoformat(),
        "shortfall": money_string(row.shortfall),
        "recommended_payment": money_string(payment or Decimal(0)),
        "charges": [{"id": c.id, "title": c.title, "amount": money_string(c.amount), "due_on": c.due_on.isoformat()} for c in until[:LISTED]],
    }
    return data, money_of(row) | {"as_of": as_of.isoformat(), "rules": RULES, "charges": len(until), "covers_until": ends.isoformat()}


def money_of(row: Any) -> dict[str, Any]:
    return {"balance": money_string(row.balance), "balance_as_of": as_utc(row.balance_as_of), "credit_limit": money_string(row.credit_limit)}
