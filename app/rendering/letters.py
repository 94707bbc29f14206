"""The HTML of a letter as one template: MJML or HTML, in its layout, with its style sheets on its elements. Made once for a version, not for a letter.

    words (html | mjml) -+
                         +-> marks hidden -> MJML to HTML -> one document -> CSS inlined -> marks put back -> Jinja
    layout (html | mjml) +

Nothing is loaded, neither from the network nor from a file: style sheets are those of the words and the layout, and `mj-include` is refused. Words that are
a whole document stand by themselves; all others go where the layout has `{{ content }}`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from css_inline import CSSInliner
from mjml import mjml2html

from app.rendering.engine import LIMITS, Part, RenderFailed, compile_part, parse
from app.rendering.formats import Style
from app.rendering.marks import Marks, Protected
from app.rendering.syntax import TemplateProblem

DEFAULT = "default"
# Inlining copies a rule to each element that it fits: the product of both is what it may cost in time and memory.
MOST_WORK = 16_000_000
INSIDE = 520  # pixels: MJML within a layout of HTML is as wide as the text of the built-in one

_INLINER = CSSInliner(load_remote_stylesheets=False, keep_at_rules=True)


@dataclass(frozen=True, slots=True)
class Layout:
    """What stands around the words of letters: MJML or HTML, with `{{ content }}`."""

    name: str
    html: str | None = None
    mjml: str | None = None

    @property
    def source(self) -> str:
        return self.mjml if self.mjml is not None else self.html or ""


@dataclass(frozen=True, slots=True)
class Dressed:
    """The template of a letter's HTML. `lines`: which places of the words (False) and of the layout (True) stand in each of its lines."""

    source: str
    lines: Mapping[int, list[tuple[bool, int]]] = field(default_factory=dict)
    is_whole: bool = False  # by itself, without a layout

    def place_of(self, line: int | None) -> tuple[bool, int | None]:
        """Whether what is in this line is the layout's, and its line there, where that is certain."""
        places = set(self.lines.get(line, ())) if line is not None else set()
        if len(places) == 1:
            (place,) = places
            return place
        return bool(places) and all(of_layout for of_layout, _ in places), None


@dataclass(frozen=True, slots=True)
class Undressed:
    """Why there is no template: what is wrong with the words, and with the layout."""

    problems: list[TemplateProblem]
    of_layout: list[TemplateProblem]


@lru_cache(maxsize=1)
def built_in() -> Mapping[str, Layout]:
    """The layouts that are always there. Constant: the file is part of the product."""
    html = (Path(__file__).parent / "wording" / "layout.html").read_text("utf-8")
    return MappingProxyType({DEFAULT: Layout(DEFAULT, html=html)})


def dressed(html: str | None, mjml: str | None, layout: Layout | None) -> Dressed | Undressed:
    """The words in this layout; a whole document by itself. `layout` is given for words that are none."""
    words, is_mjml = (mjml, True) if mjml is not None else (html or "", False)
    around = layout.source if layout is not None else ""
    unread, unread_layout = ([*tree] if isinstance(tree := parse(source, "html"), list) else [] for source in (words, around))
    if unread or unread_layout:
        return Undressed(unread, unread_layout)
    marks = Marks.for_sources(words, around)
    content = marks.protect(words, is_mjml=is_mjml)
    frame = marks.protect(around, is_mjml=layout.mjml is not None, is_layout=True) if layout is not None and not content.is_whole else None
    if marks.problems or marks.problems_of_layout:
        return Undressed(marks.problems, marks.problems_of_layout)
    if (content.elements + (frame.elements if frame else 0)) * (content.styles + (frame.styles if frame else 0)) > MOST_WORK:
        return Undressed([TemplateProblem(1, None, "too_complex", "There are too many style rules for so many elements: use fewer of either.")], [])
    if is_mjml and not content.is_whole and frame is None:
        return Undressed([TemplateProblem(1, None, "not_whole", "Begin with `<mjml>`, or name a layout.")], [])
    try:
        document = _document(marks, content, frame, is_mjml=is_mjml, is_mjml_layout=layout is not None and layout.mjml is not None)
        whole = _INLINER.inline(document)
    except ValueError as error:  # of MJML: what it says has no line of ours
        return Undressed([TemplateProblem(1, None, "not_mjml", f"This is no MJML: {str(error)[:200]}.")], [])
    if (lost := marks.lost(whole)) is not None:
        return Undressed([] if lost[0] else [lost[1]], [lost[1]] if lost[0] else [])
    restored = marks.restore(whole)
    if torn := _torn(restored.source):
        of_layout, line = Dressed(restored.source, restored.lines).place_of(torn.line)
        problem = replace(torn, line=line or 1)
        return Undressed([] if of_layout else [problem], [problem] if of_layout else [])
    most, _, _ = LIMITS["html"]
    if len(restored.source) > most:
        return Undressed([TemplateProblem(1, None, "too_long", f"With its layout and styles the letter has more than {most:,} characters.")], [])
    return Dressed(restored.source, restored.lines, content.is_whole)


def _torn(source: str) -> TemplateProblem | None:
    """What the finished HTML has that no letter may have: it is read again, for a parser has now said what it took the source for. And the first block
    that what the parsers have added by themselves (HTML: a row around a cell) leaves open or closes too early."""
    marks = Marks.for_sources(source)
    marks.protect(source, is_mjml=False)
    return next(iter(marks.problems), None)


def _document(marks: Marks, content: Protected, frame: Protected | None, *, is_mjml: bool, is_mjml_layout: bool) -> str:
    """One HTML document with hidden marks. ValueError for what is no MJML."""
    if frame is None:
        return _compiled(content.html) if is_mjml else content.html
    place = marks.place_of_content
    stands_in_body = is_mjml_layout and frame.around in ("mj-body", "mj-wrapper")
    if is_mjml and stands_in_body:
        return _compiled(frame.html.replace(place, content.html))
    inner = _inner(_compiled(f'<mjml><mj-body width="{INSIDE}px">{content.html}</mj-body></mjml>')) if is_mjml else content.html
    if stands_in_body:
        around = _compiled(frame.html.replace(place, f"<mj-section><mj-column><mj-text>{place}</mj-text></mj-column></mj-section>"))
    else:
        around = _compiled(frame.html) if is_mjml_layout else frame.html
    if place not in around:
        raise ValueError("the layout has its content where MJML shows nothing")
    return around.replace(place, inner)


def _compiled(mjml: str) -> str:
    # Without fonts: those that it knows by name would be loaded from their maker's server.
    return mjml2html(mjml, fonts={})


def _inner(document: str) -> str:
    """The style sheets and the body of a document that MJML has made: its own tags are always written so."""
    head = document[document.index("<head>") + len("<head>") : document.index("</head>")]
    styles = head[head.index("<style") :] if "<style" in head else ""
    start = document.index(">", document.index("<body")) + 1
    return styles + document[start : document.rindex("</body>")]


@dataclass(slots=True)
class Body:
    """The HTML of a version of a letter, compiled once for each layout that it is set into: brands have layouts of their own."""

    html: str | None
    mjml: str | None
    layout: str | None  # that the version names; none, or `default`: that of the brand
    layouts: Mapping[str, Layout]
    _compiled: dict[str, tuple[Dressed, Part]] = field(default_factory=dict)

    def dressed(self, of_brand: str | None) -> Dressed:
        """RenderFailed where it cannot be."""
        return self._in(self._layout(of_brand))[0]

    def render(self, values: dict[str, Any], style: Style, of_brand: str | None) -> str:
        """The HTML of a letter. `values` have `layout_subject` and `layout_locale`, too. RenderFailed with the line of the words."""
        layout = self._layout(of_brand)
        template, part = self._in(layout)
        try:
            return part.render(values, style)
        except RenderFailed as error:
            of_layout, line = template.place_of(error.line)
            raise (in_layout(layout, error.detail) if of_layout else RenderFailed(error.detail, line)) from None

    def _layout(self, of_brand: str | None) -> Layout:
        """A layout that is not there any more is the default one."""
        name = of_brand if of_brand is not None and self.layout in (None, DEFAULT) else self.layout
        return self.layouts.get(name or DEFAULT) or self.layouts[DEFAULT]

    def _in(self, layout: Layout) -> tuple[Dressed, Part]:
        known = self._compiled.get(layout.name)
        if known is None:
            template = dressed(self.html, self.mjml, layout)
            if isinstance(template, Undressed):
                if template.problems:
                    raise RenderFailed(template.problems[0].detail, template.problems[0].line)
                raise in_layout(layout, template.of_layout[0].detail)
            part = compile_part(template.source, "html")
            if isinstance(part, list):
                raise RenderFailed(part[0].detail, template.place_of(part[0].line)[1])
            known = self._compiled[layout.name] = template, part
        return known


def in_layout(layout: Layout, detail: str) -> RenderFailed:
    return RenderFailed(f"In the layout `{layout.name}`: {detail}")
