"""Reports as files: JSON, CSV and XLSX, row by row into a temporary file. A million rows take as much memory as a hundred.

The file is finished before its first octet is sent: a slow reader holds neither a connection nor a transaction, and half a file is never taken for a whole one.
"""

import csv
import datetime as dt
import io
import tempfile
import tomllib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import xlsxwriter  # type: ignore[import-untyped]

from app.core.db import as_utc

Format = Literal["json", "csv", "xlsx"]
Locale = Literal["ru", "en"]

MEDIA: dict[Format, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
IN_MEMORY = 1 << 20  # octets; more goes to the disk
PIECE = 256 << 10
BATCH = 500  # rows that go into the file at once, in a thread
ROWS_OF_A_SHEET = 1_048_575  # Excel's, less the heading
MONEY = frozenset({"cost"})
SHARES = frozenset({"delivery_share"})
# What a spreadsheet would take for a formula (OWASP, CSV Injection). An XLSX says of each cell that it is a text, so nothing is added there.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Look:
    """How a file is written: `head` goes before the items of JSON alone."""

    columns: Sequence[str]
    locale: Locale
    zone: ZoneInfo
    head: Mapping[str, Any]


class Sheet(Protocol):
    """A file that is being written. Rows have a value for each column: a text, a number, a date, an aware moment, a UUID, or None."""

    def write(self, rows: Sequence[Sequence[Any]]) -> None: ...
    def close(self, tail: Mapping[str, Any], /) -> None: ...


@cache
def titles() -> dict[str, dict[str, str]]:
    """Headings by column and language. Constant: the file is part of the product."""
    return tomllib.loads((Path(__file__).parent / "wording" / "columns.toml").read_text("utf-8"))


class JsonSheet:
    """`{..head, "items": [..], ..tail}`."""

    def __init__(self, file: BinaryIO, look: Look) -> None:
        self._file, self._look, self._is_first = file, look, True
        file.write(orjson.dumps(plain(look.head))[:-1] + (b',"items":[' if look.head else b'"items":['))

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        for row in rows:
            self._file.write((b"" if self._is_first else b",") + orjson.dumps(plain(dict(zip(self._look.columns, row, strict=True)))))
            self._is_first = False

    def close(self, tail: Mapping[str, Any]) -> None:
        self._file.write(b"]" + (b"," + orjson.dumps(plain(tail))[1:] if tail else b"}"))


class CsvSheet:
    """Russian: semicolons, decimal commas, a byte order mark, as Excel opens it there. English: commas and points. Times are local."""

    def __init__(self, file: BinaryIO, look: Look) -> None:
        self._look = look
        self._text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        if look.locale == "ru":
            self._text.write("\ufeff")
        self._writer = csv.writer(self._text, delimiter=";" if look.locale == "ru" else ",", lineterminator="\r\n")
        self._writer.writerow([titles()[column][look.locale] for column in look.columns])

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        self._writer.writerows([[self.cell(value) for value in row] for row in rows])

    def cell(self, value: Any) -> str:
        is_russian = self._look.locale == "ru"
        if value is None:
            return ""
        if isinstance(value, dt.datetime):
            return value.astimezone(self._look.zone).strftime("%d.%m.%Y %H:%M:%S" if is_russian else "%Y-%m-%d %H:%M:%S")
        if isinstance(value, dt.date):
            return value.strftime("%d.%m.%Y" if is_russian else "%Y-%m-%d")
        if isinstance(value, Decimal | float | int):
            number = money(value) if isinstance(value, Decimal) else str(value)
            return number.replace(".", ",") if is_russian else number
        text = str(value)
        return f"'{text}" if text.startswith(FORMULA) else text

    def close(self, _: Mapping[str, Any]) -> None:
        self._text.detach()


class XlsxSheet:
    """Real dates and numbers; more rows than a sheet holds go on in the next one."""

    def __init__(self, file: BinaryIO, look: Look) -> None:
        self._look, self._row = look, 0
        self._book = xlsxwriter.Workbook(file, {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False})
        style = self._book.add_format
        self._bold = style({"bold": True})
        self._formats = {
            dt.datetime: style({"num_format": "dd.mm.yyyy hh:mm:ss" if look.locale == "ru" else "yyyy-mm-dd hh:mm:ss"}),
            dt.date: style({"num_format": "dd.mm.yyyy" if look.locale == "ru" else "yyyy-mm-dd"}),
            Decimal: style({"num_format": "#,##0.00##"}),
        }
        self._percent = style({"num_format": "0.00%"})
        self._sheet = self._next()

    def _next(self) -> Any:
        sheet, self._row = self._book.add_worksheet(), 0
        sheet.freeze_panes(1, 0)
        sheet.set_column(0, len(self._look.columns) - 1, 18)
        for column, name in enumerate(self._look.columns):
            sheet.write_string(0, column, titles()[name][self._look.locale], self._bold)
        return sheet

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        for row in rows:
            if self._row == ROWS_OF_A_SHEET:
                self._sheet = self._next()
            self._row += 1
            for column, value in enumerate(row):
                self.cell(column, value)

    def cell(self, column: int, value: Any) -> None:
        if value is None:
            return
        if isinstance(value, dt.datetime):
            self._sheet.write_datetime(self._row, column, value.astimezone(self._look.zone).replace(tzinfo=None), self._formats[dt.datetime])
        elif isinstance(value, dt.date):
            self._sheet.write_datetime(self._row, column, value, self._formats[dt.date])
        elif isinstance(value, Decimal):
            self._sheet.write_number(self._row, column, float(value), self._formats[Decimal])
        elif isinstance(value, int | float):
            self._sheet.write_number(self._row, column, value, self._percent if self._look.columns[column] in SHARES else None)
        else:
            self._sheet.write_string(self._row, column, str(value)[:32_767])  # Excel's longest cell

    def close(self, _: Mapping[str, Any]) -> None:
        self._book.close()


SHEETS: dict[Format, Callable[[BinaryIO, Look], Sheet]] = {"json": JsonSheet, "csv": CsvSheet, "xlsx": XlsxSheet}


def money(amount: Decimal) -> str:
    """At least two decimals, and those of a price in tenths of a kopeck where there are any."""
    return f"{amount:.4f}".removesuffix("00")


def plain(value: Any) -> Any:
    """As JSON says it: money as a string, moments in UTC where they are not local."""
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, Decimal):
        return money(value)
    if isinstance(value, dt.datetime):
        return as_utc(value)
    return str(value) if isinstance(value, UUID) else value


def temporary() -> BinaryIO:
    """A file without a name, in memory while it is small; gone when it is closed, also with its process."""
    return tempfile.SpooledTemporaryFile(IN_MEMORY)  # type: ignore[return-value]


async def pieces_of(file: BinaryIO) -> AsyncIterator[bytes]:
    """The file from its beginning; it is closed at the end, and when the reader has gone."""
    with file:
        file.seek(0)
        while piece := file.read(PIECE):
            yield piece
