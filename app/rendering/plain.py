"""The text of a letter, for who reads no HTML: its HTML without tags, laid out in lines.

paragraphs and headings   blocks with an empty line between them
lists                     `- ` or `1. `, indented by their depth
rows of tables            a line each, cells two spaces apart
links                     `text (address)`, or the address alone where the text says nothing else
pictures                  their `alt`
hidden elements, styles   nothing
"""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

SILENT = frozenset({"style", "script", "head", "title", "template", "noscript", "textarea", "select", "svg", "math", "object", "iframe"})
BLOCKS = frozenset(
    {"p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "table", "ul", "ol", "dl", "section", "article", "header", "footer", "address", "figure"}
)
LINES = frozenset({"div", "tr", "li", "dt", "dd", "center", "caption", "figcaption", "fieldset", "form", "main", "aside", "nav", "body", "html"})
VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"})
CELLS = frozenset({"td", "th"})
ADDRESSES = ("http://", "https://", "mailto:", "tel:")
MOST_DEEP = 8  # lists in one another that are indented

_HIDDEN = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden|mso-hide\s*:\s*all)", re.IGNORECASE)
_SPACES = re.compile(r"[ \t\n\r\f\v\xa0\u2000-\u200a\u202f\u205f\u3000]+")
# Soft hyphens and characters without a width, which letters put behind their preview. The joiner of emoji stays.
_NOTHING = re.compile(r"[\xad\u034f\u200b\u200c\u200e\u200f\u2060\ufeff]")


def text_of(html: str) -> str:
    """The text, without blanks at the ends of lines and with no more than one empty line in a row. Empty where there is nothing to be read."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.written()


@dataclass(slots=True)
class _List:
    """A list that is open. `number` is None where items have none."""

    number: int | None


@dataclass(slots=True)
class _Link:
    """A link that is open: its address, and the line and place at which its text began."""

    address: str
    said: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    """Lines as they come. `_gap`: what stands before the next word: 0 nothing, 1 a new line, 2 an empty line."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._lines: list[str] = []
        self._line: list[str] = []
        self._gap = 0
        self._lead = ""  # of the next line: the mark of a list's item
        self._is_cell_open = False  # a cell stands before, on the same line
        self._has_space = False
        self._lists: list[_List] = []
        self._links: list[_Link] = []
        self._silent: list[str] = []  # elements that are not read, outermost first
        self._pre = 0

    # --- what HTMLParser calls ---

    def updatepos(self, i: int, j: int) -> int:  # noqa: ARG002 - its signature; nobody asks for lines here, and counting them costs a tenth
        return j

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._silent:
            if tag not in VOID:
                self._silent.append(tag)
            return
        given = dict(attrs)
        if tag in SILENT or "hidden" in given or _HIDDEN.search(given.get("style") or ""):
            if tag not in VOID:
                self._silent.append(tag)
            return
        if tag == "br":
            self._new_line()
        elif tag == "hr":
            self._break(2)
            self._say("---")
            self._break(2)
        elif tag == "img":
            self.handle_data(f" {given.get('alt') or ''} ")
        elif tag == "a":
            self._links.append(_Link(given.get("href") or ""))
        elif tag in ("ul", "ol"):
            self._break(1 if self._lists else 2)
            self._lists.append(_List(_start(given.get("start")) if tag == "ol" else None))
        elif tag == "li":
            self._break(1)
            self._begin_item()
        elif tag in BLOCKS:
            self._break(2)
            self._pre += tag == "pre"
        elif tag in LINES:
            self._break(1)
        elif tag in CELLS:
            self._is_cell_open = bool(self._line) and not self._gap

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._silent:
            if tag in self._silent:
                while self._silent.pop() != tag:
                    pass
            return
        if tag == "a" and self._links:
            self._end_link(self._links.pop())
        elif tag in ("ul", "ol") and self._lists:
            self._lists.pop()
            self._break(1 if self._lists else 2)
        elif tag in BLOCKS:
            self._break(2)
            self._pre = max(0, self._pre - (tag == "pre"))
        elif tag in LINES:
            self._break(1)

    def handle_data(self, data: str) -> None:
        if self._silent:
            return
        data = _NOTHING.sub("", data)
        if self._pre:
            for number, line in enumerate(data.split("\n")):
                if number:
                    self._new_line()
                if line:
                    self._say(line)
            return
        words = _SPACES.sub(" ", data)
        if not words.strip():
            self._has_space = self._has_space or bool(words)
            return
        self._has_space = self._has_space or words[0] == " "
        self._say(words.strip())
        self._has_space = words[-1] == " "

    # --- lines ---

    def _say(self, words: str) -> None:
        if self._gap:
            self._end_line()
            if self._gap > 1 and self._lines and self._lines[-1]:
                self._lines.append("")
            self._gap = 0
        if not self._line:
            self._line.append(self._lead)
            self._lead = ""
        elif self._is_cell_open:
            self._line.append("  ")
        elif self._has_space:
            self._line.append(" ")
        self._has_space = self._is_cell_open = False
        self._line.append(words)
        for link in self._links:
            link.said.append(words)

    def _break(self, gap: int) -> None:
        self._gap = max(self._gap, gap)
        self._has_space = self._is_cell_open = False

    def _new_line(self) -> None:
        """A line ends here, and it may be an empty one."""
        if self._gap:
            return
        self._end_line(even_empty=True)
        self._has_space = self._is_cell_open = False

    def _end_line(self, *, even_empty: bool = False) -> None:
        if self._line or even_empty:
            self._lines.append("".join(self._line).rstrip())
            self._line = []

    def _begin_item(self) -> None:
        depth = min(len(self._lists), MOST_DEEP)
        mark = "- "
        if self._lists and self._lists[-1].number is not None:
            mark = f"{self._lists[-1].number}. "
            self._lists[-1].number += 1
        self._lead = "  " * (depth - 1) + mark

    def _end_link(self, link: _Link) -> None:
        address = _NOTHING.sub("", link.address).strip()
        if not address.lower().startswith(ADDRESSES) or _SPACES.search(address):
            return
        said = " ".join(link.said)
        bare = address.partition(":")[2] if address.lower().startswith(("mailto:", "tel:")) else address
        if not said:
            self._say(bare)
        elif bare.rstrip("/") not in (said.rstrip("/"), f"https://{said}".rstrip("/"), f"http://{said}".rstrip("/")):
            self._has_space = True
            self._say(f"({bare})")

    def written(self) -> str:
        self._end_line()
        return re.sub(r"\n{3,}", "\n\n", "\n".join(self._lines)).strip("\n")


def _start(given: str | None) -> int:
    return int(given) if given and re.fullmatch(r"-?[0-9]{1,6}", given) else 1
