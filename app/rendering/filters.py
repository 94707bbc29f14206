"""The filters that a template may use. Whoever writes templates is trusted neither with memory nor with time: every result has its bound, and what takes
long is paid for in steps."""

from collections.abc import Callable, Mapping
from datetime import date, tzinfo
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal
from time import thread_time
from typing import Any
from urllib.parse import quote

from jinja2 import Undefined, pass_context
from jinja2.runtime import Context, markup_join, str_join
from markupsafe import Markup, escape

from app.rendering import formats
from app.rendering.formats import Style
from app.rendering.harmless import as_link, as_style

LONGEST = 10_000  # characters of any string that a template makes on its way
MOST = 1000  # items of any list
BITS = 256  # of an integer
SECONDS = 1.0  # of the processor, for one part: steps are counted so that it is never reached, and this is for what they miss
LONGEST_PHONE = 50  # characters
STRANGE_CURRENCY = 500  # steps: the first sum in a currency has its way of writing made, which takes as long


class Free(dict[str, Any]):
    """Keys that an operator has made up, such as the attributes of an account: one that is not there is none."""


class TooMuch(ValueError):
    """A template wants more than it is given: characters, items, steps."""


class RenderContext(Context):
    """The variables of one rendering, how its language writes, and what it may still spend."""

    style: Style
    steps: int
    began: float  # `thread_time()`

    def look_at_clock(self) -> None:
        """TooMuch where the thread has worked at this rendering for longer than a part may take."""
        if thread_time() - self.began > SECONDS:
            raise TooMuch("this template takes more than a second to write")

    @property
    def zone(self) -> tzinfo:
        zone: tzinfo = self.parent["_zone"]
        return zone


def text(value: Any) -> str:
    """A value as a string within bounds; None is empty."""
    if isinstance(value, str):
        result = value
    elif value is None:
        return ""
    elif isinstance(value, int | float | Decimal | date | Undefined):
        result = str(value)
    else:
        raise TypeError("only a single value has a text: use join or a loop for a list")
    return bounded(result)


def bounded(value: str) -> str:
    within(len(value))
    return value


def within(characters: int) -> None:
    if characters > LONGEST:
        raise TooMuch("a text may not grow beyond 10,000 characters within a template")


def items(value: Any) -> list[Any] | tuple[Any, ...] | range:
    if isinstance(value, Undefined):
        value._fail_with_undefined_error()  # noqa: SLF001 - what every operation on it does
    if value is None:
        return ()
    if not isinstance(value, list | tuple | range | dict):
        raise TypeError("this works on a list")
    if len(value) > MOST:
        raise TooMuch("a list may have at most 1,000 items")
    return list(value) if isinstance(value, dict) else value


def singles(values: Any) -> Any:
    """The same list, where it holds single values alone: lists of lists that share their items grow by doubling, and comparing two of them never ends."""
    if any(isinstance(value, list | tuple | dict | range) for value in values):
        raise TypeError("a list in a template may hold single values only")
    return values


def is_nothing(value: Any) -> bool:
    """What is absent: the null of a key that may be absent, or a text without a character, such as the name of an account that has none."""
    return value is None or (isinstance(value, str) and not value)


def defined(value: Any) -> bool:
    """Present, and not nothing."""
    return not isinstance(value, Undefined) and not is_nothing(value)


def known(value: Any) -> Any:
    if isinstance(value, Undefined):
        value._fail_with_undefined_error()  # noqa: SLF001
    return value


@pass_context
def money(context: RenderContext, value: Any, currency: str | None = None) -> str:
    if value is None:
        return ""
    amount = value if type(value) is Decimal and -formats.LARGEST < value < formats.LARGEST else formats.as_amount(known(value))
    if currency and not context.style.writes(currency):
        spend(context, STRANGE_CURRENCY)
    return context.style.money(amount, currency or context.parent["account"]["currency"])


@pass_context
def day(context: RenderContext, value: Any, form: str | None = None) -> str:
    if value is None:
        return ""
    return context.style.date(formats.as_day(known(value), context.zone), form)


@pass_context
def hour(context: RenderContext, value: Any, form: str | None = None) -> str:
    if value is None:
        return ""
    return context.style.time(formats.as_hour(known(value), context.zone), form)


@pass_context
def plural(context: RenderContext, value: Any, one: str, few: str | None = None, many: str | None = None) -> str:
    number = known(value)
    return context.style.plural(number if type(number) is int else formats.as_amount(number), one, few, many)


def default(value: Any, otherwise: Any = "", boolean: bool = False) -> Any:
    return otherwise if not defined(value) or (boolean and not value) else value


@pass_context
def joined(context: RenderContext, values: Any, separator: str = "", attribute: str | None = None) -> str:
    separator = text(separator)
    parts = [text(value) for value in attributes(context, values, attribute)]
    within(sum(map(len, parts)) + len(parts) * len(separator))
    return separator.join(parts)


def attributes(context: RenderContext, values: Any, attribute: str | None) -> list[Any]:
    """Of the items of a list, one key each: `amount`, or a key of a key: `service.name`. Each item costs a step, and each of its keys."""
    found: list[Any] = list(items(values))
    keys = text(attribute).split(".") if attribute is not None else []
    spend(context, len(found) * (1 + len(keys)))
    for key in keys:
        if not all(isinstance(value, dict) and key in value for value in found):
            raise TypeError(f"the items of this list have no `{attribute}`")
        found = [value[key] for value in found]
    return found


@pass_context
def total(context: RenderContext, values: Any, attribute: str | None = None) -> Decimal:
    return sum((formats.as_amount(value) for value in attributes(context, values, attribute)), Decimal(0))


def whole(value: Any) -> int:
    return int(formats.as_amount(known(value)))


ROUNDING = {"common": ROUND_HALF_UP, "ceil": ROUND_CEILING, "floor": ROUND_FLOOR}


def rounded(value: Any, precision: int = 0, method: str = "common") -> Decimal:
    if type(precision) is not int or not 0 <= precision <= 6 or method not in ROUNDING:
        raise ValueError("round to 0-6 digits, by common, ceil or floor")
    return formats.as_amount(known(value)).quantize(Decimal(1).scaleb(-precision), rounding=ROUNDING[method])


@pass_context
def replaced(context: RenderContext, value: Any, old: str, new: str) -> str:
    source, old, new = text(value), text(old), text(new)
    spend(context, len(source) // 100)
    within(len(source) + source.count(old) * max(0, len(new) - len(old)))
    return source.replace(old, new)


def truncated(value: Any, length: int = 255, end: str = "...") -> str:
    source = text(value)
    if len(source) <= length:
        return source
    return bounded(source[: max(0, length - len(end))].rstrip() + end)


def length(value: Any) -> int:
    known(value)
    return len(value) if isinstance(value, str | dict) else len(items(value))


def extreme(choose: Callable[[Any], Any], *, looks_at_all: bool = True) -> Callable[[RenderContext, Any], Any]:
    @pass_context
    def chosen(context: RenderContext, values: Any) -> Any:
        found = items(values)
        if looks_at_all:
            spend(context, len(found) + sum(len(one) // 100 for one in singles(found) if isinstance(one, str)))
        return choose(found) if found else None

    return chosen


def absolute(value: Any) -> Decimal | int:
    return abs(value) if type(value) is int else abs(formats.as_amount(known(value)))


def on_text(change: Callable[[str], str], *, letters_a_step: int = 100) -> Callable[[RenderContext, Any], str]:
    @pass_context
    def changed(context: RenderContext, value: Any) -> str:
        source = text(value)
        spend(context, len(source) // letters_a_step)
        return bounded(change(source))

    return changed


@pass_context
def phone(context: RenderContext, value: Any) -> str:
    spend(context, 50)
    number = text(value)
    return formats.phone(number) if len(number) <= LONGEST_PHONE else number  # what is remembered is short


@pass_context
def translit(context: RenderContext, value: Any) -> str:
    source = text(value)
    spend(context, len(source) // 5)
    return formats.translit(source)


def spend(context: RenderContext, cost: int) -> None:
    """A step is about a microsecond. What takes longer than a few says so here."""
    context.steps -= cost
    if context.steps < 0:
        raise TooMuch("this template takes too long: its loops go round too often")
    if cost > 10:  # what costs less is followed by something else that looks
        context.look_at_clock()


def concat(parts: Any) -> str:
    # Whether the parts are Markup, and the others so to be escaped, is known to these two of Jinja's.
    join = markup_join if any(isinstance(part, Markup) for part in parts) else str_join
    strings = [part if isinstance(part, Markup) else text(part) for part in parts]
    within(sum(map(len, strings)))
    return join(strings)


FILTERS: Mapping[str, Callable[..., Any]] = {
    "abs": absolute,
    "as_link": on_text(as_link),
    "as_style": on_text(as_style),
    "capitalize": on_text(str.capitalize),
    "count": length,
    "d": default,
    "date": day,
    "default": default,
    "e": lambda value: escape(text(value)),
    "escape": lambda value: escape(text(value)),
    "first": extreme(lambda values: values[0], looks_at_all=False),
    "int": whole,
    "join": joined,
    "last": extreme(lambda values: values[-1], looks_at_all=False),
    "length": length,
    "lower": on_text(str.lower),
    "max": extreme(max),
    "min": extreme(min),
    "money": money,
    "phone": phone,
    "plural": plural,
    "replace": replaced,
    "round": rounded,
    "string": text,
    "sum": total,
    "time": hour,
    "title": on_text(str.title),
    "translit": translit,
    "trim": on_text(str.strip),
    "truncate": truncated,
    "upper": on_text(str.upper),
    "urlencode": on_text(lambda value: quote(value, safe=""), letters_a_step=5),
}


LOOP = frozenset({"index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem"})
CALENDAR = frozenset({"year", "month", "day", "hour", "minute"})
