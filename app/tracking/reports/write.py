"""From the database into a file: each kind of report as rows, and the rows into a sheet."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

from app.core.db import Database
from app.tracking.reports.ask import MEASURES, Counts, is_complete, report
from app.tracking.reports.dimensions import Period, Wanted
from app.tracking.reports.invoice import INVOICED, billed
from app.tracking.reports.sheets import BATCH, SHEETS, Format, Locale, Look, temporary
from app.tracking.reports.undelivered import COLUMNS, undelivered

# Told after each batch: rows so far, and how much of the whole that is (0..1). Raising ends the writing.
Told = Callable[[int, float], Awaitable[None]]


async def nobody(rows: int, share: float) -> None:
    """Told to nobody."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of report: its columns, its rows with the share of the whole that they reach, what JSON says after them."""

    columns: Sequence[str]
    rows: AsyncGenerator[tuple[list[Any], float], None]
    tail: Callable[[], Mapping[str, Any]]


async def write(database: Database, kind: str, wanted: Wanted, form: Format, locale: Locale, told: Told = nobody) -> BinaryIO:
    """The report in a temporary file, which the caller closes."""
    async with database.transaction() as session:
        complete = await is_complete(session, wanted.period)
    period = wanted.period
    head = {"from": period.first, "to": period.last, "timezone": period.zone, "complete": complete}
    made = KINDS[kind](database, wanted, locale)
    look = Look(made.columns, locale, ZoneInfo(period.zone), head | ({} if kind == "undelivered" else {"group_by": wanted.groups}))
    file = temporary()
    try:
        await filled(file, made, look, form, told)
    except BaseException:
        file.close()
        raise
    return file


async def filled(file: BinaryIO, made: Kind, look: Look, form: Format, told: Told) -> None:
    sheet = await asyncio.to_thread(SHEETS[form], file, look)
    batch, number = list[list[Any]](), 0
    async with contextlib.aclosing(made.rows) as rows:
        async for row, share in rows:
            batch.append(row)
            if len(batch) == BATCH:
                number += len(batch)
                await asyncio.to_thread(sheet.write, batch)
                await told(number, share)
                batch = []
    await asyncio.to_thread(sheet.write, batch)
    await asyncio.to_thread(sheet.close, made.tail())
    await told(number + len(batch), 1.0)


def of_messages(database: Database, wanted: Wanted, _: Locale) -> Kind:
    total = Counts()

    async def rows() -> AsyncGenerator[tuple[list[Any], float], None]:
        number = 0
        async with database.transaction() as session:
            async for line in report(session, wanted):
                number += 1
                total.add(line.counts)
                yield [*line.key.values(), *line.counts.measures().values()], number / line.rows

    return Kind([*wanted.columns, *MEASURES], rows(), lambda: {"total": total.measures()})


def of_undelivered(database: Database, wanted: Wanted, locale: Locale) -> Kind:
    return Kind(COLUMNS, undelivered(database, wanted, locale), dict)


def of_invoice(database: Database, wanted: Wanted, _: Locale) -> Kind:
    total = Counts()

    async def rows() -> AsyncGenerator[tuple[list[Any], float], None]:
        number = 0
        async with database.transaction() as session:
            async for line in billed(session, wanted):
                number += 1
                total.add(line.counts)
                yield [*line.key.values(), *(getattr(line.counts, name) for name in INVOICED)], number / line.rows

    return Kind([*wanted.columns, *INVOICED], rows(), lambda: {"total": {name: getattr(total, name) for name in INVOICED}})


KINDS: dict[str, Callable[[Database, Wanted, Locale], Kind]] = {"messages": of_messages, "undelivered": of_undelivered, "invoice": of_invoice}


def wanted_of(query: Mapping[str, Any], zone: str) -> Wanted:
    """What an export was asked for, as `stored_form` has written it down."""
    period = Period(dt.date.fromisoformat(query["from"]), dt.date.fromisoformat(query["to"]), zone)
    return Wanted(period, tuple(query["group_by"]), query["filters"])


def stored_form(wanted: Wanted, locale: Locale) -> dict[str, Any]:
    filters = {name: list(values) for name, values in wanted.filters.items()}
    return {
        "from": wanted.period.first.isoformat(),
        "to": wanted.period.last.isoformat(),
        "group_by": list(wanted.groups),
        "filters": filters,
        "locale": locale,
    }
