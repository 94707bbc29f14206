"""Reconciliation with an SMSC's invoice: parts that it has taken, by the hour of the submission; and the differences from its own figures.

Every part that was accepted counts, of each try, and of test messages too: the SMSC bills them all. A part that met silence was not accepted as far as we
know; that is where differences come from, and `unknown` messages of the period say how many there may be.
"""

import csv
import datetime as dt
import io
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import FieldError, Invalid
from app.tracking.reports.ask import Line, report
from app.tracking.reports.dimensions import BILLED, Wanted

INVOICED = ("parts", "cost")
LARGEST = 4 << 20  # octets of an SMSC's figures
MOST_LINES = 100_000
MOST_FAULTS = 20
AMOUNT = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,6})?").fullmatch

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Theirs:
    """An SMSC's figures: the columns that they are split by, and parts and cost (or None) of each."""

    groups: tuple[str, ...]
    lines: dict[Key, tuple[int, Decimal | None]]


@dataclass(frozen=True, slots=True)
class Difference:
    """A line where either side has something; `parts` and `cost` are theirs less ours."""

    key: Key
    ours: tuple[int, Decimal]
    theirs: tuple[int, Decimal | None]

    @property
    def parts(self) -> int:
        return self.theirs[0] - self.ours[0]

    @property
    def cost(self) -> Decimal | None:
        return None if self.theirs[1] is None else self.theirs[1] - self.ours[1]


def billed(session: AsyncSession, wanted: Wanted) -> AsyncIterator[Line]:
    """Parts and their cost by day, gateway, sender and operator, whichever are asked for."""
    return report(session, wanted, "part")


def read_figures(octets: bytes) -> Theirs:
    """A CSV with a heading: `parts`, maybe `cost`, and any of day, gateway, sender, operator. UTF-8 or Windows-1251; commas or semicolons. Invalid names the lines."""
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = octets.decode("cp1251", "replace")
    head, _, _ = text.partition("\n")
    rows = csv.reader(io.StringIO(text), delimiter=";" if head.count(";") >= head.count(",") and ";" in head else ",")
    try:
        names = [name.strip().casefold() for name in next(rows, [])]
    except csv.Error:
        names = []
    unknown = [name for name in names if name not in (*BILLED, *INVOICED)]
    if "parts" not in names or unknown or len(set(names)) != len(names):
        said = f"`{unknown[0][:40]}` is none of them." if unknown else "`parts` is needed, and each column once."
        raise Invalid(f"The first line must name the columns: parts, and any of cost, {', '.join(BILLED)}. {said}", code="bad_heading")
    groups = tuple(group for group in BILLED if group in names)
    lines, faults = dict[Key, tuple[int, Decimal | None]](), list[FieldError]()
    number = 1
    try:
        for number, row in enumerate(rows, 2):
            if number > MOST_LINES:
                raise Invalid(f"Send at most {MOST_LINES:,} lines: split the period.", code="too_many_lines")
            if not any(cell.strip() for cell in row):
                continue
            try:
                key, parts, cost = figures(dict(zip(names, row, strict=True)), groups)
            except ValueError as bad:
                faults.append(FieldError(f"/lines/{number}", "bad_line", str(bad) if str(bad).endswith(".") else "The line has other cells than the heading."))
                if len(faults) == MOST_FAULTS:
                    break
                continue
            before = lines.get(key, (0, None))
            lines[key] = (before[0] + parts, cost if before[1] is None else before[1] + (cost or 0))
    except csv.Error:
        faults.append(FieldError(f"/lines/{number}", "bad_line", "This is no line of a CSV file."))
    if faults:
        raise Invalid("Some lines cannot be read: nothing was compared.", code="bad_lines", errors=faults)
    return Theirs(groups, lines)


def figures(cells: dict[str, str], groups: Sequence[str]) -> tuple[Key, int, Decimal | None]:
    """One line; ValueError says what is wrong with it."""
    count = cells["parts"].replace("\u00a0", "").replace(" ", "")
    if not (count.isascii() and count.isdigit() and len(count) <= 12):
        raise ValueError("`parts` is a whole number.")
    cost = None
    if amount := cells.get("cost", "").replace("\u00a0", "").replace(" ", "").replace(",", "."):
        if not AMOUNT(amount):
            raise ValueError("`cost` is an amount of money.")
        cost = Decimal(amount)
    key = tuple(day_of(cells[group]) if group == "day" else cells[group].strip() or None for group in groups)
    return key, int(count), cost


def day_of(text: str) -> dt.date:
    """`2026-11-23`, or `23.11.2026` as Russian invoices have it."""
    for form in ("%Y-%m-%d", "%d.%m.%Y"):
        try:
            return dt.datetime.strptime(text.strip(), form).date()  # noqa: DTZ007 - a day has no zone
        except ValueError:
            continue
    raise ValueError("`day` is written as 2026-11-23 or 23.11.2026.")


async def differences(session: AsyncSession, wanted: Wanted, theirs: Theirs) -> list[Difference]:
    """Every line that either side has, in order. Operators and senders are compared without regard to case."""
    ours = {folded(tuple(line.key.values())): (tuple(line.key.values()), line.counts) async for line in billed(session, wanted)}
    given = {folded(key): (key, said) for key, said in theirs.lines.items()}
    found = list[Difference]()
    for key in sorted({*ours, *given}, key=str):
        shown = (ours.get(key) or given[key])[0]
        mine = ours[key][1] if key in ours else None
        found.append(Difference(shown, (mine.parts, mine.cost) if mine else (0, Decimal(0)), given[key][1] if key in given else (0, None)))
    return found


def folded(key: Key) -> Key:
    return tuple(" ".join(value.split()).casefold() if isinstance(value, str) else value for value in key)
