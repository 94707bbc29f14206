"""What `+ - * / // %` do in a template: numbers stay exact and of a bounded size, texts and lists may only be joined."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from app.rendering import formats
from app.rendering.filters import BITS, RenderContext, TooMuch, concat, items, known, spend
from app.rendering.questions import is_number


def operate(context: RenderContext, operator: str, left: Any, right: Any) -> Any:
    """`left operator right` on numbers, `+` on texts and lists too, all within bounds."""
    known(left), known(right)
    if isinstance(left, str) and isinstance(right, str) and operator == "+":
        return concat((left, right))
    if isinstance(left, list | tuple) and isinstance(right, list | tuple) and operator == "+":
        spend(context, (len(items(left)) + len(items(right))) // 20)
        return items([*left, *right])
    if not is_number(left) or not is_number(right):
        raise TypeError(f"`{operator}` does not go with these two: join texts with ~")
    if operator in ("/", "//", "%") and not right:
        raise ZeroDivisionError("division by zero")
    if isinstance(left, float) or isinstance(right, float):  # 0.1 as it is written, not as a binary fraction
        left, right = formats.as_amount(left), formats.as_amount(right)
    result = OPERATORS[operator](left, right)
    if isinstance(result, int) and result.bit_length() > BITS:
        raise TooMuch("this number is too large")
    # A quotient of two integers as a Decimal, too: money can be added to it.
    return Decimal(str(result)) if isinstance(result, float) else result


OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": lambda left, right: left / right,
    "//": lambda left, right: left // right,
    "%": lambda left, right: left % right,
}
