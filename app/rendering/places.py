"""Where things stand in the source of a template: Jinja's parser keeps the line alone, an operator wants the column too."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from jinja2 import TemplateSyntaxError
from jinja2.environment import Environment
from jinja2.lexer import ignored_tokens, newline_re

# Tokens that the lexer keeps from the parser.
UNSEEN = ignored_tokens | {"raw_begin", "raw_end"}


@dataclass(frozen=True, slots=True)
class Token:
    """One token of the code, with its line and column, both counted from 1."""

    line: int
    column: int
    kind: str
    value: str


@dataclass(slots=True)
class Places:
    """The tokens of a source as the parser sees them; of a source that cannot be read to its end those before that place."""

    source: str
    tokens: list[Token]
    _found: dict[tuple[int, tuple[str, ...]], list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, source: str, environment: Environment) -> "Places":
        source = "\n".join(newline_re.split(source)[::2])
        return cls(source, list(_tokens(source, environment)))

    def column(self, line: int, *words: str) -> int | None:
        """Where the last of these words stands that follow each other in a line of the code: `("|", "money")`; else where it stands alone.

        Asked again for the same, it gives the next place in that line: the second of two equal mistakes is not the first one."""
        if not words:
            return None
        key = line, words
        if key not in self._found:
            self._found[key] = list(self._places(line, words)) or list(self._places(line, words[-1:]))
        found = self._found[key]
        return (found.pop(0) if len(found) > 1 else found[0]) if found else None

    def _places(self, line: int, words: tuple[str, ...]) -> Iterator[int]:
        first, length = words[0], len(words)
        for start, token in enumerate(self.tokens):
            if token.line == line and token.value == first and token.kind != "data":
                following = self.tokens[start : start + length]
                if tuple(one.value for one in following) == words:
                    yield following[-1].column

    def at(self, position: int) -> tuple[int, int]:
        """Line and column of a character of the source."""
        before = self.source[:position]
        return before.count("\n") + 1, position - before.rfind("\n")

    def unclosed(self) -> Token | None:
        """The innermost `if` or `for` that nothing closes."""
        opened: list[Token] = []
        for before, token in zip(self.tokens, self.tokens[1:], strict=False):
            if before.kind != "block_begin" or token.kind != "name":
                continue
            if token.value in ("if", "for"):
                opened.append(token)
            elif token.value in ("endif", "endfor") and opened and opened[-1].value == token.value.removeprefix("end"):
                opened.pop()
        return opened[-1] if opened else None


def _tokens(source: str, environment: Environment) -> Iterator[Token]:
    position, line, start = 0, 1, 0  # `start`: where the line begins
    try:
        for _, kind, value in environment.lexer.tokeniter(source, None):
            found = source.find(value, position)  # between two tokens stands nothing but white space that was stripped
            if found < 0:
                return
            between = source[position:found]
            if "\n" in between:
                line, start = line + between.count("\n"), position + between.rfind("\n") + 1
            if kind not in UNSEEN:
                yield Token(line, found - start + 1, kind, value)
            position = found + len(value)
            if "\n" in value:
                line, start = line + value.count("\n"), found + value.rfind("\n") + 1
    except TemplateSyntaxError:
        return
