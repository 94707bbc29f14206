"""What `syntax.guard` puts around loops, lists and comparisons: filters whose names begin with `$`, which no template can spell."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import pass_context

from app.rendering.filters import LONGEST, MOST, RenderContext, TooMuch, concat, items, known, singles, spend
from app.rendering.questions import cost_of_looking

EVERY = 500  # steps: how far a loop goes between two looks at the clock


@dataclass(frozen=True, slots=True)
class Rounds:
    """What a long loop goes through, with a look at the clock now and then: its body may take longer than was counted."""

    context: RenderContext
    found: Sequence[Any]
    every: int

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Any]:
        for number, one in enumerate(self.found):
            if number % self.every == 0:
                self.context.look_at_clock()
            yield one


@pass_context
def steps(context: RenderContext, values: Any, weight: int) -> Any:
    """What a loop may go through: each round costs as many steps as its body has nodes."""
    found = items(values)
    cost = weight * len(found)
    spend(context, cost)
    return Rounds(context, found, max(1, EVERY // weight)) if cost > EVERY else found


@pass_context
def sought(context: RenderContext, values: Any) -> Any:
    """What is looked through, or compared as a whole."""
    if cost := cost_of_looking(values):
        spend(context, cost)
    return values


def counted(bounds: Any) -> range:
    if any(type(known(bound)) is not int for bound in bounds) or bounds[2:] == [0]:
        raise TypeError("a range is made of whole numbers, and its step is not 0")
    made = range(*bounds)
    if made[MOST:]:  # its len() would overflow where it is very long
        raise TooMuch("a range may have at most 1,000 numbers")
    return made


def cut(value: Any, start: Any, stop: Any, step: Any) -> Any:
    """`value[start:stop:step]`, which may have no more than any other text or list of a template."""
    if any(known(bound) is not None and type(bound) is not int for bound in (start, stop, step)) or step == 0:
        raise TypeError("a part of a text or a list is named by whole numbers, and its step is not 0")
    if not isinstance(known(value), str | list | tuple | range):
        raise TypeError("only a text or a list has parts")
    bounds = slice(start, stop, step)
    if len(range(*bounds.indices(len(value)))) > (LONGEST if isinstance(value, str) else MOST):
        raise TooMuch("a part of a text has at most 10,000 characters, one of a list 1,000 items")
    return value[bounds]


GUARDS: Mapping[str, Callable[..., Any]] = {"$steps": steps, "$range": counted, "$concat": concat, "$flat": singles, "$cut": cut, "$sought": sought}
