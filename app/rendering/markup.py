"""HTML and MJML read once, from mark to mark: what stands for a mark where it stands, and what a letter may not have."""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from app.rendering.syntax import TemplateProblem

# The compiler of MJML calls itself for every element in an element, and takes the process with it when its stack is full (at some thousands).
DEEPEST = 100
MOST_ELEMENTS = 2_000

VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"})  # HTML, 13.1.2
# An open one ends where the next of its kind begins (HTML, 13.1.2.4).
SELF_ENDING = frozenset({"p", "li", "td", "th", "tr", "dt", "dd", "option"})
# What is no element up to its end tag: style sheets, and texts.
RAW = {False: frozenset({"style", "title", "textarea"}), True: frozenset({"mj-style", "mj-title", "mj-preview", "style"})}
# No mail program runs or loads these; who sees the letter in a browser would.
REFUSED = frozenset({"script", "iframe", "frame", "frameset", "object", "embed", "applet", "base", "form", "link"})
# What is in these a parser reads by other rules than ours (HTML, 13.2.5.2 to 13.2.5.5 and 13.2.6.5), and mail programs show nothing of it.
READ_OTHERWISE = frozenset({"svg", "math", "noscript", "template", "xmp", "plaintext", "noembed", "noframes"})
RUNS = frozenset({"formaction", "action", "srcdoc"})  # beside everything that begins with `on`
LINKS = frozenset({"href", "src", "background", "poster", "cite", "longdesc", "data", "background-url", "srcset"})
MJML = frozenset(
    f"mj-{name}"
    for name in (
        *("head", "attributes", "all", "class", "breakpoint", "preview", "style", "title", "html-attributes", "selector", "html-attribute"),
        *("body", "accordion", "accordion-element", "accordion-text", "accordion-title", "button", "carousel", "carousel-image", "column", "divider"),
        *("group", "hero", "image", "navbar", "navbar-link", "raw", "section", "social", "social-element", "spacer", "table", "text", "wrapper"),
    )
)
# A parser begins a <tbody> by itself at the first row, behind a mark that stands before it: it is written out, before the mark.
TABLES = frozenset({"table", "mj-table"})
PARTS_OF_TABLES = frozenset({"thead", "tbody", "tfoot", "caption", "colgroup"})
OPENS, CLOSES = {"if": "if", "for": "for"}, {"endif": "if", "endfor": "for"}
BETWEEN = frozenset({"else", "elif"})
# Spaces are those of HTML (tab, line feed, form feed, return, space), not all that Unicode has: a parser would see other attributes than we do.
_TAG = re.compile(r"<(?:(?P<comment>!--)|(?P<end>/)?(?P<name>[A-Za-z][^\t\n\f\r />]*)|(?P<declaration>[!?])|(?P<broken>/))")
_ATTRIBUTE = re.compile(r"[^\t\n\f\r />=]+")
_SPACE = re.compile(r"[\t\n\f\r /]*")
_EQUALS = re.compile(r"[\t\n\f\r ]*=[\t\n\f\r ]*")
_UNQUOTED_END = re.compile(r"[\t\n\f\r >]")
_CSS_ESCAPE = re.compile(r"/\*.*?\*/|\\(?:([0-9a-fA-F]{1,6})[\t\n\f\r ]?|(.))", re.DOTALL)
_CSS_REFUSED = re.compile(r"@\s*import|expression\s*\(|javascript\s*:|behavior\s*:|-moz-binding", re.IGNORECASE)
# A comment that one parser ends here and another one there: `<!-->`, `<!--->` and `--!>` (HTML, 13.2.5.43 to 13.2.5.51).
_COMMENT_AMBIGUOUS_START = re.compile(r"-?>")
_BESIDE_MARK = re.compile(r"-*!?>|-")
_BLANK = re.compile(r"[\x00-\x20]+")


@dataclass(slots=True)
class Mark:
    """One `{{ ... }}` or `{% ... %}`: what stands there, and where its author has put it. `may_vanish`: in a style sheet, whose rules may fit nothing."""

    text: str
    line: int
    of_layout: bool
    keyword: str  # `if`, `endif`, ...; empty for a value
    may_vanish: bool = False

    def guard(self, name: str) -> None:
        """The value passes this filter, which lets through what may stand in such a place."""
        opening, closing = (2 + (self.text[2] in "-+"), 2 + (self.text[-3] in "-+"))
        self.text = f"{self.text[:opening]} ({self.text[opening:-closing]})|{name} {self.text[-closing:]}"


@dataclass(slots=True)
class Reader:
    """Goes through a source once, piece by piece, and knows where it is. `hide` makes what stands for a mark: a comment, or a word."""

    hide: Callable[[Mark, bool], str]
    place_of_content: str
    problems: list[TemplateProblem]
    is_mjml: bool
    out: list[str] = field(default_factory=list)
    is_whole: bool = False
    elements: int = 0
    styles: int = 0
    around: str | None = None
    _where: str = "between"  # elements, or in a: comment, declaration, tag, value, end tag, raw
    _line: int = 1
    _open: list[str] = field(default_factory=list)
    _blocks: list[tuple[str, tuple[int, str, int]]] = field(default_factory=list)
    _name: str = ""
    _attribute: str = ""
    _attributes: dict[str, str] = field(default_factory=dict)
    _quote: str = ""
    _tags: int = 0
    _rows_at: dict[int, int] = field(default_factory=dict)  # where a <tbody> would go, by the depth of its table
    _bodies: set[int] = field(default_factory=set)  # depths of the tables that have got one
    _is_beside_mark: bool = False  # in a comment, right behind a mark

    def text(self, text: str) -> None:
        at = 0
        while at < len(text):
            step = getattr(self, f"_in_{self._where}")
            end = step(text, at)
            self.out.append(text[at:end])
            self._line += text.count("\n", at, end)
            at = end

    def mark(self, mark: Mark) -> None:
        self._line = mark.line + mark.text.count("\n")
        self._keep_blocks(mark)
        if self._where in ("tag", "end", "declaration") or self._is_beginning_of_tag():
            self._refuse(mark.line, "mark_in_tag", "Within a tag a mark may stand in the value of an attribute alone, in quotes.")
        elif self._where == "value" and self._attribute.startswith("on"):
            self._refuse(mark.line, "mark_in_script", "No value may stand in a script.")
        elif self._where == "comment":
            self._is_beside_mark = True
            if self.out and self.out[-1].endswith(("-", "!")):
                self._refuse(mark.line, "mark_in_tag", "In a comment a mark stands apart from its dashes: put a space between.")
        if not mark.keyword:
            self._guard(mark)
        if self._where == "value":
            self._attributes[self._attribute] = self._attributes.get(self._attribute, "") + "\0"
        mark.may_vanish = self._name in ("style", "mj-style") if self._where == "raw" else self._where == "value" and "mj-head" in self._open
        self.out.append(self.hide(mark, self._where == "between"))

    def _guard(self, mark: Mark) -> None:
        """Where a value becomes an address or a style, escaping is not enough."""
        if self._where == "raw" and self._name in ("style", "mj-style"):
            mark.guard("as_style")
        elif self._where == "value" and self._attribute in LINKS and not self._attributes[self._attribute].strip("\0\t\n\f\r "):
            mark.guard("as_link")
        elif self._where == "value" and (self._attribute == "style" or (self.is_mjml and self._attribute.endswith(("color", "font-family", "css-class")))):
            mark.guard("as_style")

    def content(self, line: int) -> None:
        """Where the words go."""
        if self._where != "between" or self.around is not None:
            self._refuse(line, "no_content", "A layout has `{{ content }}` once, where the words of a letter go.")
        self.around = self._open[-1] if self._open else ""
        self.out.append(self.place_of_content)

    def end(self) -> None:
        if self._where != "between":
            self._refuse(self._line, "unclosed", "The last tag, comment or style sheet is not closed.")

    def _refuse(self, line: int, code: str, detail: str) -> None:
        self.problems.append(TemplateProblem(line, None, code, detail))

    def _is_beginning_of_tag(self) -> bool:
        return self._where == "between" and bool(self.out) and self.out[-1].endswith(("<", "</"))

    def _keep_blocks(self, mark: Mark) -> None:
        """What a block opens it closes, in each of its branches."""
        here = (len(self._open), self._where, self._tags if self._where in ("tag", "value") else 0)
        if mark.keyword in OPENS:
            self._blocks.append((mark.keyword, here))
        elif self._blocks and (mark.keyword in BETWEEN or mark.keyword in CLOSES):
            keyword, there = self._blocks[-1]
            if there != here:
                self._refuse(
                    mark.line, "block_torn", f"Between `{{% {keyword} %}}` and `{{% {mark.keyword} %}}` close every element that you open, and no other."
                )
            if mark.keyword in CLOSES:
                self._blocks.pop()

    # --- one step from `at`: returns where the next one begins ---

    def _in_between(self, text: str, at: int) -> int:
        found = _TAG.search(text, at)
        if found is None:
            return len(text)
        if found.start() > at:
            return found.start()
        if found["comment"]:
            self._where, self._is_beside_mark = "comment", False
            if _COMMENT_AMBIGUOUS_START.match(text, found.end()):
                self._refuse(self._line, "comment_unclear", "Begin a comment with `<!-- ` and end it with ` -->`.")
            return found.end()
        if found["broken"]:
            self._refuse(self._line, "not_allowed", "Write `&lt;/` where you mean these characters: no end tag begins so.")
            return found.end()
        if found["declaration"]:
            if self.is_mjml:
                self._refuse(self._line, "not_allowed", "MJML here has no declarations and no CDATA.")
            self._where, self.is_whole = "declaration", True
        elif found["end"]:
            self._close(found["name"])
            self._where = "end"
        else:
            self._where, self._name, self._attributes = "tag", self._as_named(found["name"]), {}
            self._tags += 1
            self._begin_rows(self._name.lower())
        return found.end()

    def _begin_rows(self, name: str) -> None:
        depth = len(self._open)
        if not depth or self._open[-1] not in TABLES:
            return
        if name == "tr" and depth not in self._bodies:
            self.out.insert(self._rows_at.get(depth, len(self.out)), "<tbody>")
            self._bodies.add(depth)
        elif name in PARTS_OF_TABLES:
            self._end_rows(depth)

    def _end_rows(self, depth: int) -> None:
        if depth in self._bodies:
            self.out.append("</tbody>")
            self._bodies.discard(depth)

    def _after_tag(self) -> None:
        if self._open and self._open[-1] in TABLES:
            self._rows_at[len(self._open)] = len(self.out) + 1

    def _in_comment(self, text: str, at: int) -> int:
        if self._is_beside_mark and _BESIDE_MARK.match(text, at):
            self._refuse(self._line, "mark_in_tag", "In a comment a mark stands apart from its dashes: put a space between.")
        self._is_beside_mark = False
        end = self._until("-->", text, at)
        if "--!>" in text[at:end]:
            self._refuse(self._line, "comment_unclear", "Begin a comment with `<!-- ` and end it with ` -->`.")
        return end

    def _in_declaration(self, text: str, at: int) -> int:
        return self._until(">", text, at)

    def _in_end(self, text: str, at: int) -> int:
        end = self._until(">", text, at)
        self._after_tag()
        return end

    def _until(self, end: str, text: str, at: int) -> int:
        found = text.find(end, at)
        if found < 0:
            return len(text)
        self._where = "between"
        return found + len(end)

    def _in_tag(self, text: str, at: int) -> int:
        start = _SPACE.match(text, at).end()  # type: ignore[union-attr]
        if start == len(text):
            return start
        if text[start] == ">":
            self._opened(self._line_at(text, at, start), closes_itself=text[start - 1] == "/" and start > 0)
            return start + 1
        name = _ATTRIBUTE.match(text, start)
        if name is None:  # an equals sign that nothing stands before
            return start + 1
        self._attribute = name[0].lower()
        self._attributes.setdefault(self._attribute, "")
        equals = _EQUALS.match(text, name.end())
        if equals is None:
            return name.end()
        self._where = "value"
        self._quote = text[equals.end()] if text[equals.end() : equals.end() + 1] in ('"', "'") else ""
        return equals.end() + len(self._quote)

    def _in_value(self, text: str, at: int) -> int:
        found = re.compile(self._quote).search(text, at) if self._quote else _UNQUOTED_END.search(text, at)
        end = found.start() if found else len(text)
        self._attributes[self._attribute] = self._attributes.get(self._attribute, "") + text[at:end]
        if found is None:
            return end
        self._where = "tag"
        return end + len(self._quote)

    def _in_raw(self, text: str, at: int) -> int:
        found = re.compile(rf"</{re.escape(self._name)}(?=[\t\n\f\r />])", re.IGNORECASE).search(text, at)
        end = found.start() if found else len(text)
        within = text[at:end]
        if self._name in ("style", "mj-style"):
            self.styles += len(within)
            self._check_style(within, self._line)
        if self.is_mjml and "<" in within:
            self._refuse(self._line, "not_allowed", f"Within `{self._name}` there are no elements.")
        if found is None:
            return end
        self._close(self._name)
        self._where = "end"
        return found.end()

    # --- elements ---

    def _as_named(self, name: str) -> str:
        return name if self.is_mjml else name.lower()

    def _line_at(self, text: str, at: int, place: int) -> int:
        return self._line + text.count("\n", at, place)

    def _opened(self, line: int, *, closes_itself: bool) -> None:
        name, lower = self._name, self._name.lower()
        self.elements += 1
        if self.elements == MOST_ELEMENTS + 1:
            self._refuse(line, "too_complex", f"Keep a letter under {MOST_ELEMENTS:,} elements.")
        if lower in ("html", "body", "head", "mjml", "mj-body"):
            self.is_whole = True
        if lower in REFUSED or (lower == "meta" and self._attributes.get("http-equiv", "").lower() == "refresh"):
            self._refuse(line, "not_allowed", f"A letter has no `<{lower}>`: mail programs do not run it, and load nothing by it.")
        if lower in READ_OTHERWISE:
            self._refuse(line, "not_allowed", f"A letter has no `<{lower}>`: mail programs show nothing of it.")
        self._check_attributes(line)
        if self.is_mjml:
            self._check_mjml(lower, line)
        self._where = "between"
        if lower in VOID or (self.is_mjml and closes_itself):
            return
        if not self.is_mjml and lower in SELF_ENDING and self._open and self._open[-1] == lower:
            self._open.pop()
        self._open.append(name)
        self._after_tag()
        if len(self._open) == DEEPEST + 1:
            self._refuse(line, "too_complex", f"Keep a letter under {DEEPEST} elements in one another.")
        if lower in RAW[self.is_mjml]:
            self._where = "raw"

    def _check_attributes(self, line: int) -> None:
        for name, value in self._attributes.items():
            if name.startswith("on") or name in RUNS:
                self._refuse(line, "not_allowed", f"A letter has no `{name}`: mail programs run nothing.")
            elif name == "style":
                self._check_style(html.unescape(value), line)
            elif name in LINKS and _BLANK.sub("", html.unescape(value)).lower().startswith(("javascript:", "vbscript:", "data:text")):
                self._refuse(line, "not_allowed", "A link leads to an address: `https://...`, `mailto:` or `tel:`.")

    def _check_style(self, style: str, line: int) -> None:
        if _CSS_REFUSED.search(_CSS_ESCAPE.sub(_unescaped, style)):
            self._refuse(line, "remote_style", "A style sheet may neither load another one nor run anything: put the rules here.")

    def _check_mjml(self, lower: str, line: int) -> None:
        if lower in ("mj-include", "mj-font"):
            self._refuse(line, "remote_style", f"A letter has no `<{lower}>`: nothing is loaded from elsewhere.")
        elif lower.startswith("mj-") and lower not in MJML:
            self._refuse(line, "unknown_element", f"MJML has no `<{lower}>`.")
        elif lower == "mj-social-element" and "src" not in self._attributes:
            self._refuse(line, "remote_style", "Give `mj-social-element` a `src` of your own: its picture would come from somebody else's server.")

    def _close(self, name: str) -> None:
        name = self._as_named(name)
        if self.is_mjml:
            if name == "mj-head":
                self.styles = max(self.styles, sum(map(len, self.out)))
            if name.lower() in VOID:
                return
            if not self._open or self._open[-1] != name:
                self._refuse(self._line, "unclosed", f"`</{name}>` closes nothing: close elements in the order in which they were opened.")
                return
        if name in self._open:
            while True:
                self._end_rows(len(self._open))
                if self._open.pop() == name:
                    break


def _unescaped(found: re.Match[str]) -> str:
    """The character that CSS means (CSS Syntax 3, 4.3.7); nothing for a comment."""
    if found[1]:
        code = int(found[1], 16)
        return chr(code) if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000 else "\ufffd"
    return found[2] or ""
