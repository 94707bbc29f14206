"""What `syntax.guard` puts around loops, lists and comparisons: filters whose names begin with `$`, which no template can spell."""

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import pass_context

from app.rendering.filters import MOST, RenderContext, TooMuch, concat, items, spend


@pass_context
def steps(context: RenderContext, values: Any, weight: int) -> Any:
    """What a loop may go through: each round costs as many steps as its body has nodes."""
    found = items(values)
    spend(context, weight * len(found))
    return found


@pass_context
def sought(context: RenderContext, values: Any) -> Any:
    """What is looked through, or compared as a whole: each item of a list costs a step, and what stands in it as much as there may be."""
    if isinstance(values, list | tuple | range | dict):
        inner = next(iter(values.values() if isinstance(values, dict) else values), None) if values else None
        spend(context, len(values) * (1 + (len(inner) if isinstance(inner, list | tuple | dict) else 0)))
    return values


def counted(bounds: Any) -> range:
    made = range(*bounds)
    if len(made) > MOST:
        raise TooMuch("a range may have at most 1,000 numbers")
    return made


def flat(values: Any) -> Any:
    # Lists of lists that share their items grow by doubling, and comparing two of them never ends.
    if any(isinstance(value, list | tuple | dict | range) for value in values):
        raise TypeError("a list in a template may hold single values only")
    return values


GUARDS: Mapping[str, Callable[..., Any]] = {"$steps": steps, "$range": counted, "$concat": concat, "$flat": flat, "$sought": sought}
