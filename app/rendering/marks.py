"""HTML and MJML with template marks in them, made ready for compilers that know nothing of marks, and the marks put back afterwards.

    source -> protect: `{{ x }}` is a comment between elements and a word within a value -> MJML, CSS -> restore: the same marks in the same places

A compiler may say a mark twice (a colour that a style sheet gives to ten cells), but never lose one, and never move what begins or ends a block: `lost`
finds out. Not every place can be kept: within a tag a mark may only be part of a value in quotes, for a value from outside could otherwise become an
attribute; and a block opens and closes the same elements, or the parser would close them for it in another place.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from jinja2 import Environment

from app.rendering.markup import Mark, Reader
from app.rendering.syntax import TemplateProblem

MARKS_OF_LAYOUT = frozenset({"subject", "locale"})  # what a layout calls so is not what an event calls so
CONTENT = "content"

LEXER = Environment(keep_trailing_newline=True, autoescape=True).lexer

_OPEN_BRACE = re.compile(r"\{(?=[{%#])")


@dataclass(slots=True)
class Protected:
    """A source without marks. `around`: of a layout, the element in which the content is to stand."""

    html: str
    is_whole: bool  # it brings its own <html>, <body> or <mjml>
    elements: int
    styles: int  # characters of its style sheets, or of the head of its MJML
    around: str | None = None


class Restored(NamedTuple):
    """The template again. `lines` has, for each of its lines, the places that stand in it: (of the layout?, line there)."""

    source: str
    lines: dict[int, list[tuple[bool, int]]]


@dataclass(slots=True)
class Marks:
    """The marks of one letter: those of its words and of its layout."""

    word: str
    marks: list[Mark] = field(default_factory=list)
    problems: list[TemplateProblem] = field(default_factory=list)  # of the words
    problems_of_layout: list[TemplateProblem] = field(default_factory=list)

    @classmethod
    def for_sources(cls, *sources: str) -> "Marks":
        """With a word that stands in none of them."""
        word, everything = "vstmark", "".join(sources).lower()
        while word in everything:
            word += "q"
        return cls(word)

    @property
    def place_of_content(self) -> str:
        return f"<!--{self.word}content-->"

    def protect(self, source: str, *, is_mjml: bool, is_layout: bool = False) -> Protected:
        """The source, which parses as a template, with words and comments for marks. What cannot be kept is in `problems` afterwards."""
        problems = self.problems_of_layout if is_layout else self.problems
        reader = Reader(self.hidden, self.place_of_content, problems, is_mjml=is_mjml)
        for piece in _pieces(source, is_layout=is_layout):
            if isinstance(piece, str):
                reader.text(piece)
            elif is_layout and piece.text == CONTENT:
                reader.content(piece.line)
            else:
                reader.mark(piece)
        reader.end()
        if is_layout and not problems and reader.around is None:
            problems.append(TemplateProblem(1, None, "no_content", "A layout has `{{ content }}` once, where the words of a letter go."))
        return Protected("".join(reader.out), reader.is_whole, reader.elements, reader.styles, reader.around)

    def hidden(self, mark: Mark, in_comment: bool) -> str:
        """What stands for the mark: a comment between elements, a word within a value or a comment."""
        self.marks.append(mark)
        number = len(self.marks) - 1
        return f"<!--{self.word}c{number}x-->" if in_comment else f"{self.word}w{number}x"

    def lost(self, html: str) -> tuple[bool, TemplateProblem] | None:
        """The first mark that did not come through, and whether it is the layout's."""
        found = [int(number or word) for number, word in self._pattern.findall(html)]
        told = Counter(found)
        order = [number for number in found if self.marks[number].keyword]
        wanted = sorted(number for number in told if self.marks[number].keyword)
        for number, mark in enumerate(self.marks):
            if not told[number] and not (mark.may_vanish and not mark.keyword):
                return mark.of_layout, _misplaced(mark)
        if len(order) != len(wanted):
            number = next(number for number in wanted if told[number] > 1)
            return self.marks[number].of_layout, _misplaced(self.marks[number])
        # In the order of each source: those of the words stand together within the layout's.
        for of_layout in (False, True):
            own = [number for number in order if self.marks[number].of_layout is of_layout]
            if own != sorted(own):
                number = next(number for number, place in zip(own, sorted(own), strict=True) if number != place)
                return of_layout, _misplaced(self.marks[number])
        return None

    def restore(self, html: str) -> Restored:
        """The template of compiled HTML that has lost nothing."""
        pieces: list[str] = []
        lines: dict[int, list[tuple[bool, int]]] = {}
        line, at = 1, 0
        for found in self._pattern.finditer(html):
            mark = self.marks[int(found[1] or found[2])]
            # What the compilers have made of texts is no template, whatever braces it has.
            text = _OPEN_BRACE.sub("{{ '{' }}", html[at : found.start()])
            line += text.count("\n")
            lines.setdefault(line, []).append((mark.of_layout, mark.line))
            line += mark.text.count("\n")
            pieces += (text, mark.text)
            at = found.end()
        pieces.append(_OPEN_BRACE.sub("{{ '{' }}", html[at:]))
        return Restored("".join(pieces), lines)

    @property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(rf"<!--{self.word}c(\d+)x-->|{self.word}w(\d+)x")


def _misplaced(mark: Mark) -> TemplateProblem:
    return TemplateProblem(mark.line, None, "mark_misplaced", f"`{mark.text[:60]}` cannot stand here: the parts of the letter around it are put together anew.")


def _pieces(source: str, *, is_layout: bool) -> Iterator[str | Mark]:
    """Texts and marks in turn; comments of the template are left out, and `raw` is what it has within."""
    opened: list[tuple[str, str]] = []
    line = 1
    for number, kind, value in LEXER.tokeniter(source, None):
        if kind == "data":
            yield value
        elif kind in ("variable_begin", "block_begin"):
            opened, line = [(kind, value)], number
        elif kind in ("variable_end", "block_end"):
            yield _mark([*opened, (kind, value)], line, is_layout=is_layout)
            opened = []
        elif opened:
            opened.append((kind, value))


def _mark(tokens: Sequence[tuple[str, str]], line: int, *, is_layout: bool) -> Mark:
    within = [token for token in tokens[1:-1] if token[0] != "whitespace"]
    if tokens[0][0] == "block_begin":
        return Mark("".join(_named(tokens, is_layout=is_layout)), line, is_layout, within[0][1] if within else "")
    if is_layout and within == [("name", CONTENT)]:
        return Mark(CONTENT, line, is_layout, "")
    return Mark("".join(_named(tokens, is_layout=is_layout)), line, is_layout, "")


def _named(tokens: Sequence[tuple[str, str]], *, is_layout: bool) -> Iterator[str]:
    """The tokens as texts. `subject` of a layout is `layout_subject`: the data of an event may have a `subject` of their own."""
    said = [token for token in tokens if token[0] != "whitespace"]
    place = 0
    for kind, value in tokens:
        if kind == "whitespace":
            yield value
            continue
        before = said[place - 1][1] if place else ""
        after = said[place + 1][1] if place + 1 < len(said) else ""
        place += 1
        is_name = is_layout and kind == "name" and value in MARKS_OF_LAYOUT and before not in (".", "|") and after != "="
        yield f"layout_{value}" if is_name else value
