"""One line of an import of number ranges, as CSV or JSON, in any form that operators and registers use. Pure.

CSV with a header names its columns; without one they stand in the order first, last, operator, region or code, from, to, operator, region
(as the register of the Russian numbering plan has them), and for ported numbers number, operator, region.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

Kind = Literal["range", "ported"]

LINE_OCTETS = 64 << 10
OPERATOR, REGION = 200, 200
DIGITS = re.compile(r"\+?[0-9]{1,15}")
CODE = re.compile(r"[0-9]{1,6}")
NATIONAL = 10  # digits of a Russian number without its 7

# The register's own header is in Russian, and spells the code with letters of both alphabets.
COLUMNS = {
    "first": ("first", "начало"),
    "last": ("last", "конец"),
    "code": ("code", "def", "abc/def", "авс/def", "авс/ def", "abc/ def", "код"),
    "from": ("from", "от"),
    "to": ("to", "до"),
    "number": ("number", "msisdn", "номер"),
    "operator": ("operator", "оператор", "ownerid", "owner"),
    "region": ("region", "регион"),
}
NAMES = {name: column for column, names in COLUMNS.items() for name in names}
KEYS = frozenset(COLUMNS)


class LineRejected(Exception):
    """Why one line cannot be taken."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


@dataclass(frozen=True, slots=True)
class Span:
    """Digits of E.164 as numbers; a ported number is a span of one."""

    first: int
    last: int
    operator: str
    region: str | None


class LineReader:
    """Reads the lines of one import, one after the other: the first one of a CSV may be its header."""

    def __init__(self, kind: Kind, *, is_csv: bool, country_code: str = "7") -> None:
        self._kind, self._is_csv, self._country_code = kind, is_csv, country_code
        self._columns: list[str] | None = None
        self._separator: str | None = None

    def read(self, line: bytes) -> Span | None:
        """What the line says; None for a header. LineRejected when it says nothing."""
        if len(line) > LINE_OCTETS:
            raise LineRejected("line_too_long", f"A line has at most {LINE_OCTETS} octets.")
        text = _decoded(line)
        if "\0" in text:
            raise LineRejected("nul_character", "A NUL character has no place in a text.")
        fields = self._of_csv(text) if self._is_csv else _of_json(line)
        return self._span(fields) if fields is not None else None

    def _of_csv(self, text: str) -> Mapping[str, str] | None:
        if self._separator is None:
            self._separator = ";" if ";" in text else "\t" if "\t" in text else ","
        try:
            (cells,) = csv.reader([text], delimiter=self._separator, skipinitialspace=True)
        except (csv.Error, ValueError):
            raise LineRejected("malformed_csv", "The line cannot be read as CSV: check its quotes.") from None
        cells = [cell.strip() for cell in cells]
        if self._columns is None:
            named = [NAMES.get(cell.strip('"').casefold(), "") for cell in cells]
            if "operator" in named:
                self._columns = named
                return None
            self._columns = self._by_place(cells)
        return {name: cell for name, cell in zip(self._columns, cells, strict=False) if name}

    def _by_place(self, cells: list[str]) -> list[str]:
        if self._kind == "ported":
            return ["number", "operator", "region"]
        # A code of three digits and two numbers behind it, or two whole numbers.
        is_coded = len(cells) >= 4 and CODE.fullmatch(cells[0]) is not None and cells[1].isdigit() and cells[2].isdigit()
        return ["code", "from", "to", "operator", "region"] if is_coded else ["first", "last", "operator", "region"]

    def _span(self, fields: Mapping[str, Any]) -> Span:
        operator = _text(fields, "operator")
        if not operator or len(operator) > OPERATOR:
            raise LineRejected("operator_missing", f"Each line names an operator, in at most {OPERATOR} characters.")
        first, last = self._ends(fields)
        if first > last:
            raise LineRejected("backwards", f"It begins at {first} and ends before, at {last}.")
        if self._kind == "ported" and first != last:
            raise LineRejected("not_one_number", "A ported number is one number: import spans with kind=range.")
        return Span(first, last, operator, _text(fields, "region")[:REGION] or None)

    def _ends(self, fields: Mapping[str, Any]) -> tuple[int, int]:
        if fields.get("number") not in (None, ""):
            number = self._number(_text(fields, "number"))
            return number, number
        if fields.get("code") not in (None, ""):
            return self._coded(_text(fields, "code"), _text(fields, "from"), _text(fields, "to"))
        if fields.get("first") in (None, ""):
            raise LineRejected("number_missing", "Each line has first and last, or code, from and to, or a number.")
        first = self._number(_text(fields, "first"))
        return first, self._number(_text(fields, "last")) if fields.get("last") not in (None, "") else first

    def _number(self, text: str) -> int:
        written = re.sub(r"[ ()-]", "", text)
        if not DIGITS.fullmatch(written) or not written.isascii():
            raise LineRejected("not_a_number", f"{text[:40]!r} is no telephone number: write it as +79161234567.")
        if self._country_code == "7" and not written.startswith("+"):
            # As it is dialled: no country code begins with 89, so that 8 916 is never one.
            national = written[1:] if written.startswith("89") and len(written) == NATIONAL + 1 else written
            written = "7" + national if len(national) == NATIONAL else written
        return int(written)

    def _coded(self, code: str, begin: str, end: str) -> tuple[int, int]:
        """The register gives the code and seven digits behind it, with or without their leading zeros."""
        rest = NATIONAL - len(code)
        if not CODE.fullmatch(code) or not all(part.isascii() and part.isdigit() and len(part) <= max(rest, 0) for part in (begin, end)):
            raise LineRejected(
                "not_a_range", f"{code[:10]}, {begin[:15]}, {end[:15]}: a code, and the first and the last number behind it, as 916, 0000000, 9999999."
            )
        return int(self._country_code + code + begin.zfill(rest)), int(self._country_code + code + end.zfill(rest))


def _of_json(line: bytes) -> Mapping[str, Any]:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise LineRejected("malformed_json", "The line is no JSON.") from None
    if not isinstance(fields, dict):
        raise LineRejected("not_an_object", 'A line is an object: {"first": "+79160000000", "last": "+79169999999", "operator": "MTS"}.')
    if unknown := sorted(set(fields) - KEYS):
        raise LineRejected("unknown_key", f"Unknown key {', '.join(unknown)[:100]}; known keys: {', '.join(COLUMNS)}.")
    return fields


def _decoded(line: bytes) -> str:
    """UTF-8, or what Windows writes in Russia: Cyrillic words of the one are never valid in the other."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("cp1251", "replace")


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise LineRejected("not_a_text", f"{name} is a text.")
    text = " ".join(str(value).split())
    try:
        text.encode()
    except UnicodeEncodeError:
        raise LineRejected("lone_surrogate", f"{name} has half a character.") from None
    return text
