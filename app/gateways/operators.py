"""Whose number it is, by the imported ranges: a ported number before the span of the numbering plan that it was taken from."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from app.core.db import Executor
from app.gateways.routes import folded

# Two descents of one index for each number, whatever the statistics say.
OPERATORS = sa.text("""
SELECT v.number, coalesce(ported.operator, span.operator) AS operator
FROM unnest(CAST(:numbers AS bigint[])) AS v(number)
LEFT JOIN LATERAL (SELECT operator FROM number_range WHERE kind = 'ported' AND first = v.number) ported ON true
LEFT JOIN LATERAL (SELECT operator, last FROM number_range WHERE kind = 'range' AND first <= v.number ORDER BY first DESC LIMIT 1) span ON span.last >= v.number
WHERE coalesce(ported.operator, span.operator) IS NOT NULL
""")


def number_of(address: str) -> int | None:
    """`+79161234567` as the ranges know it; None of what is no telephone number."""
    digits = address.removeprefix("+")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 15 else None


async def operators_of(session: Executor, addresses: Iterable[str]) -> dict[str, str]:
    """The operator of each address that has one, folded as routes name them. One statement, however many."""
    numbers = {number: address for address in addresses if (number := number_of(address)) is not None}
    if not numbers:
        return {}
    rows: Any = (await session.execute(OPERATORS, {"numbers": list(numbers)})).all()
    return {numbers[row.number]: folded(row.operator) for row in rows}
