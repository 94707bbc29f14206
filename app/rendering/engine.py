"""Templates compiled and rendered in a sandbox that bounds what they may reach, how long they may run and how much they may write.

compile_part    source -> Part, or the problems with line and column
Part.render     variables -> text, or RenderFailed
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import InvalidOperation
from itertools import islice
from time import thread_time
from typing import Any, Literal

from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, nodes
from jinja2.parser import Parser
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.rendering import syntax
from app.rendering.arithmetic import operate
from app.rendering.filters import CALENDAR, FILTERS, LOOP, Free, RenderContext, text
from app.rendering.formats import Style
from app.rendering.guards import GUARDS
from app.rendering.places import Places
from app.rendering.problem_words import is_ours
from app.rendering.questions import TESTS
from app.rendering.syntax import TemplateProblem
from app.rendering.syntax_words import described

Kind = Literal["sms", "subject", "text", "html"]

# Characters: of the source, of the code in it (tags and their contents), of what comes out.
LIMITS: Mapping[Kind, tuple[int, int, int]] = {
    "sms": (8_000, 8_000, 2_000),
    "subject": (2_000, 2_000, 255),
    "text": (65_536, 32_000, 262_144),
    "html": (131_072, 32_000, 262_144),
}
TOO_COMPLEX = TemplateProblem(1, None, "too_complex", "This template is too complex: make it shorter, or nest it less.")
MOST_PROBLEMS = 50  # that are told at once
STEPS = 50_000  # nodes that the loops of one rendering may visit

_OPENING, _CLOSING = re.compile(r"\{[{%#]"), re.compile(r"[}%#]\}")
# What no message shows and some far ends choke on; line feed and tab stay.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# What turns the direction of the words around it, or is no wide at all: a name with these may look like somebody else's (Unicode TR 36, 2.5). The joiners
# U+200C and U+200D stay: emoji are made by them, and whole languages written.
_UNSEEN = re.compile("[\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")


class RenderFailed(Exception):
    """The text could not be made: why, and in which line of the template."""

    def __init__(self, detail: str, line: int | None = None) -> None:
        super().__init__(detail if line is None else f"line {line}: {detail}")
        self.detail, self.line = detail, line


class Unknown(StrictUndefined):
    """A name that is not there: any use of it fails, and says so in a template author's words."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        return f"`{self._undefined_name}` is undefined" if self._undefined_hint is None else self._undefined_hint


class Sandbox(ImmutableSandboxedEnvironment):
    """Attributes are keys of dicts, the loop's own, and the calendar's parts of a date. Nothing else of any object can be reached."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%"])
    context_class = RenderContext

    def __init__(self, *, autoescape: bool) -> None:
        super().__init__(undefined=Unknown, autoescape=autoescape, finalize=printable, trim_blocks=True, lstrip_blocks=True, cache_size=0)
        self.filters = {**FILTERS, **GUARDS}
        self.tests = dict(TESTS)
        self.globals = {}

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict:
            try:
                return obj[attribute]
            except KeyError:
                return self.undefined(obj=obj, name=attribute)
        if isinstance(obj, Free):
            return obj.get(attribute)
        if isinstance(obj, Undefined):
            obj._fail_with_undefined_error()  # noqa: SLF001 - what every operation on it does
        if isinstance(obj, LoopContext) and attribute in LOOP:
            return getattr(obj, attribute)
        try:
            return attribute_of(obj, attribute)
        except KeyError:
            return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, dict) and isinstance(argument, str):
            return self.getattr(obj, argument)
        if isinstance(obj, str | list | tuple | range) and isinstance(argument, int):  # `x[1:2]` does not come here: the guard `$cut` does it
            try:
                return obj[argument]
            except IndexError:
                return self.undefined(obj=obj, name=str(argument))
        if isinstance(obj, Undefined):
            obj._fail_with_undefined_error()  # noqa: SLF001
        # A list as a key would be written out in full.
        return self.undefined(obj=obj, name=argument[:50] if isinstance(argument, str) else str(argument) if isinstance(argument, int) else "...")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        return operate(context, operator, left, right)


def attribute_of(value: Any, name: str) -> Any:
    """The calendar's parts of a date; KeyError for whatever else is not a key."""
    if name in CALENDAR and isinstance(value, datetime if name in ("hour", "minute") else date):
        return getattr(value, name)
    raise KeyError(name)


def printable(value: Any) -> Any:
    """What may stand between {{ and }}: a single value, without what nobody sees. None is empty."""
    if isinstance(value, str):
        if value.isascii() or not _UNSEEN.search(value):
            return value
        return type(value)(_UNSEEN.sub("", value))  # Markup stays Markup
    return str(value) if isinstance(value, Undefined) else text(value)


PLAIN, ESCAPED = Sandbox(autoescape=False), Sandbox(autoescape=True)


@dataclass(frozen=True, slots=True)
class Part:
    """One compiled part of a template's version: the text of an SMS; subject, text or HTML of an e-mail."""

    kind: Kind
    root: Callable[[RenderContext], Iterator[str]]

    def render(self, variables: dict[str, Any], style: Style) -> str:
        """The finished text. Variables are not changed; `compose.variables` makes them."""
        context = RenderContext(ESCAPED if self.kind == "html" else PLAIN, variables, None, {})
        context.style, context.steps, context.began = style, STEPS, thread_time()
        most = LIMITS[self.kind][2]
        pieces: list[str] = []
        size = 0
        try:
            for piece in self.root(context):
                size += len(piece)
                if size > most:
                    break
                pieces.append(piece)
                if not len(pieces) % 64:
                    context.look_at_clock()
        except Exception as error:
            raise RenderFailed(_said(error), _line_of(error)) from None
        if size > most:
            raise RenderFailed(f"The text would have more than {most:,} characters.")
        return self._finished("".join(pieces))

    def _finished(self, written: str) -> str:
        if self.kind == "subject":
            # A line break in a subject would begin another header (RFC 5322, 2.2).
            return " ".join(_CONTROL.sub(" ", written).split())
        if _CONTROL.search(written):
            written = _CONTROL.sub("", written.replace("\r\n", "\n"))
        return written.strip()


def parse(source: str, kind: Kind) -> nodes.Template | list[TemplateProblem]:
    """The tree of a source that a template may have, or every problem with it."""
    most, most_code, _ = LIMITS[kind]
    if len(source) > most:
        return [TemplateProblem(1, None, "too_long", f"Keep this part under {most:,} characters.")]
    # Before the parser, whose work grows with it.
    if _code_in(source) > most_code:
        return [TemplateProblem(1, None, "too_complex", f"Keep what stands in {{{{ }}}} and {{% %}} under {most_code:,} characters.")]
    parser: Parser | None = None
    try:
        parser = Parser(PLAIN, source)
        tree = parser.parse()
    except TemplateSyntaxError as error:
        return [_unreadable(error, parser, source)]
    except (RecursionError, MemoryError, ValueError, OverflowError):
        return [TOO_COMPLEX]
    return list(islice(syntax.refused(tree, places_of(source)), MOST_PROBLEMS)) or tree


def places_of(source: str) -> Places:
    return Places.of(source, PLAIN)


def _unreadable(error: TemplateSyntaxError, parser: Parser | None, source: str) -> TemplateProblem:
    line, column, detail = described(error, parser, places_of(source))
    return TemplateProblem(line, column, "syntax", detail[:300])


def _code_in(source: str) -> int:
    """How many characters stand in tags. Each is looked at once, whatever opens and never closes."""
    total = at = 0
    while opening := _OPENING.search(source, at):
        closing = _CLOSING.search(source, opening.end())
        at = closing.end() if closing else len(source)
        total += at - opening.start()
    return total


def compile_part(source: str, kind: Kind) -> Part | list[TemplateProblem]:
    """The part, ready to render as often as wanted, or what is wrong with its source."""
    tree = parse(source, kind)
    if isinstance(tree, list):
        return tree
    environment = ESCAPED if kind == "html" else PLAIN
    try:
        code = environment.compile(syntax.guard(tree), filename="<template>")
        template = environment.template_class.from_code(environment, code, {})
    except TemplateSyntaxError as error:
        return [TemplateProblem(error.lineno, None, "syntax", "This cannot be read here.")]
    except (SyntaxError, RecursionError, MemoryError, ValueError, OverflowError):
        return [TOO_COMPLEX]
    return Part(kind, template.root_render_func)


def _said(error: Exception) -> str:
    """Our own sentences as they are; for Python's, whose words are a programmer's, others."""
    said = str(error)[:300]
    if isinstance(error, InvalidOperation):
        return "a number here cannot be calculated"
    if isinstance(error, MemoryError | RecursionError):
        return "this template takes too much memory"
    if is_ours(said):
        return said
    if "not supported between" in said or said.startswith("argument of type"):
        return "values of different kinds cannot be compared"
    return "this cannot be done with a value of this kind" if isinstance(error, TypeError) else "this cannot be written"


def _line_of(error: BaseException) -> int | None:
    """The line of the template in which it failed, from the innermost frame of compiled code."""
    line = None
    trace = error.__traceback__
    while trace is not None:
        template = trace.tb_frame.f_globals.get("__jinja_template__")
        if template is not None:
            line = template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return line
