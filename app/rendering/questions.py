"""The tests that a template may use behind `is`. What looks through a value is paid for in steps; arithmetic is done on numbers alone."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from jinja2 import pass_context

from app.rendering import formats
from app.rendering.filters import RenderContext, defined, is_nothing, known, spend

ENDLESS = 100_000  # steps: more than any rendering has


def is_number(value: Any) -> bool:
    return isinstance(known(value), int | float | Decimal) and not isinstance(value, bool)


def remainder(value: Any, number: Any) -> Decimal | int:
    """Of numbers alone: `%` on a text fills it in, and "%600000000d" is filled in with as many characters."""
    if not is_number(value) or not is_number(number):
        raise TypeError("whether it is odd, even or divisible is asked of a number")
    if not number:
        raise ZeroDivisionError("division by zero")
    if isinstance(value, float) or isinstance(number, float):
        value, number = formats.as_amount(value), formats.as_amount(number)
    left: Decimal | int = value % number
    return left


def cost_of_looking(values: Any) -> int:
    """Steps that looking through a value, or comparing it with another, may take: one for each item of a list or key, however deep, and for 100 characters."""
    if isinstance(values, str):
        return len(values) // 100
    if isinstance(values, range):
        return len(values)
    if not isinstance(values, list | tuple | dict):
        return 0
    cost, waiting = 0, [values]
    while waiting and cost <= ENDLESS:
        inner = waiting.pop()
        cost += len(inner)
        for one in inner.values() if isinstance(inner, dict) else inner:
            if isinstance(one, list | tuple | dict):
                waiting.append(one)
            elif isinstance(one, str):
                cost += len(one) // 100
    return cost


@pass_context
def is_in(context: RenderContext, value: Any, values: Any) -> bool:
    if not isinstance(known(values), str | list | tuple | range | dict):
        raise TypeError("this works on a list")
    spend(context, cost_of_looking(value) + cost_of_looking(values))
    return value in values


TESTS: Mapping[str, Callable[..., Any]] = {
    "defined": defined,
    "undefined": lambda value: not defined(value),
    "none": lambda value: is_nothing(known(value)),
    "number": is_number,
    "string": lambda value: isinstance(known(value), str),
    "odd": lambda value: abs(remainder(value, 2)) == 1,
    "even": lambda value: remainder(value, 2) == 0,
    "divisibleby": lambda value, number: remainder(value, number) == 0,
    "in": is_in,
}
