"""What Jinja's parser says, in the words of whoever writes a template; and where it is so."""

import re
from collections.abc import Callable

from jinja2 import TemplateSyntaxError
from jinja2.parser import Parser

from app.rendering.places import Places

# The parser's names of tokens: as they are written.
WRITTEN = {
    "end of print statement": "}}",
    "begin of print statement": "{{",
    "end of statement block": "%}",
    "begin of statement block": "{%",
    "end of template": "the end of the template",
    "template data / text": "text",
    "integer": "a number",
    "float": "a number",
    "string": "a text",
    "name": "a name",
    "assign": "=",
    "in": "in",
}
_QUOTE = r"['\"](.+?)['\"]"


def described(error: TemplateSyntaxError, parser: Parser | None, places: Places) -> tuple[int, int | None, str]:
    """(line, column, sentence) of a source that cannot be parsed. `parser` stands where it gave up; none: the first token was too much."""
    message = error.message or ""
    column: int | None
    if opened := _match(r"[Uu]nexpected end of template\. .*", message) and places.unclosed():
        return opened.line, opened.column, f"`{{% {opened.value} %}}` is not closed: add `{{% end{opened.value} %}}`."
    if char := _match(r"unexpected char (.+) at (\d+)", message):
        line, column = places.at(int(char[2]))
        return line, column, _strange(char[1][1:-1])
    if message == "Missing end of comment tag":
        return *places.at(places.source.rfind("{#")), "This comment is not closed: add `#}`."
    line, column = error.lineno, _stopped_at(parser, places, error.lineno, passed=message == "expected name or number")
    for pattern, sentence in SENTENCES:
        if found := _match(pattern, message):
            return line, column, sentence(found)
    return line, column, "This cannot be read here."


def _match(pattern: str, message: str) -> re.Match[str] | None:
    return re.fullmatch(pattern, message, re.DOTALL)


def _strange(character: str) -> str:
    if character in ("'", '"'):
        return f"This text is not closed: add `{character}`."
    if character in "«»“”„‘’":
        return f"The character `{character}` means nothing here: put texts into straight quotes, '...'."
    return f"The character `{character}` means nothing here."


def _stopped_at(parser: Parser | None, places: Places, line: int, *, passed: bool) -> int | None:
    """The column of the token that the parser could not use: as many are left to it as stand behind it. `passed`: it has taken that one already."""
    if parser is None:
        return None
    try:
        left = sum(1 for _ in parser.stream)
    except TemplateSyntaxError:  # the lexer itself gave up
        return None
    index = min(len(places.tokens) - left - passed, len(places.tokens) - 1)
    return places.tokens[index].column if index >= 0 and places.tokens[index].line == line else None


def _written(name: str) -> str:
    return WRITTEN.get(name, name)


def _unexpected(found: re.Match[str]) -> str:
    met, wanted = _written(found[2]), _written(found[1])
    if met == "the end of the template":
        return f"The template ends in the middle of a tag: `{wanted}` is missing."
    return f"`{met}` does not belong here: `{wanted}` was expected."


def _unknown_tag(found: re.Match[str]) -> str:
    name, inner = found[1], re.search(r"needs to be closed is '(\w+)'", found[0])
    if inner and inner[1] in ("if", "for") and (name.startswith("end") or name in ("else", "elif")):
        return f"`{{% {name} %}}` does not belong here: `{{% {inner[1]} %}}` is still open, close it with `{{% end{inner[1]} %}}`."
    if name in ("endif", "endfor", "else", "elif"):
        return f"`{{% {name} %}}` closes nothing: no `{{% if %}}` or `{{% for %}}` stands before it."
    return f"There is no tag `{name}`. There are: if, elif, else, endif, for, endfor, set."


def _nothing_written(found: re.Match[str]) -> str:
    met = _written(found[1])
    return f"Something is missing before `{met}`: a name or a value." if met in ("}}", "%}", ")", "]", ",") else f"`{met}` does not belong here."


SENTENCES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (rf"expected token {_QUOTE}, got {_QUOTE}", _unexpected),
    (rf"unexpected end of template, expected {_QUOTE}\.", lambda found: f"The template ends in the middle of a tag: `{_written(found[1])}` is missing."),
    (rf"Encountered unknown tag {_QUOTE}\..*", _unknown_tag),
    (rf"Expected an expression, got {_QUOTE}", _nothing_written),
    (rf"unexpected {_QUOTE}, expected {_QUOTE}", lambda found: f"`{found[1]}` does not belong here: `{found[2]}` was expected."),
    (rf"unexpected {_QUOTE}", _nothing_written),
    (r"tag name expected", lambda _: "After `{%` a tag is expected: if, elif, else, endif, for, endfor, set."),
    (r"expected name or number", lambda _: "After the dot a name is expected."),
    (r"Missing end of raw directive", lambda _: "`{% raw %}` is not closed: add `{% endraw %}`."),
    (r"You cannot chain multiple tests with is", lambda _: "One `is` may not follow another: join them with `and`."),
    (r"can't assign to .*", lambda _: "A template cannot give a value to this: use a name of your own."),
    (r"Invalid character in identifier", lambda _: "This name has a character that no name may have."),
    (r"Unexpected end of template\..*", lambda _: "The template ends before all of its tags are closed."),
    (r"invalid syntax for function call expression", lambda _: "These arguments cannot be read: write them one by one, with commas."),
)
