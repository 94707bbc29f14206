"""What an account will be charged, read from the database and written as a table for spreadsheets."""

import csv
import io
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest

from app.attachments.statement import as_csv, specimen, statement_of
from app.attachments.words import words_of
from tests.builders.accounts import an_account
from tests.builders.charges import a_charge
from tests.builders.statements import DAY, a_statement

MORNING = datetime(2026, 1, 10, 9, tzinfo=UTC)


async def read(database, account, moment=MORNING):
    async with database.transaction() as session:
        return await statement_of(session, account.id, moment)


def table(written: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(written.decode("utf-8-sig")), delimiter=";"))


async def test_the_charges_of_thirty_days_stand_in_it_with_what_is_left_after_each(database):
    account = await an_account(database, balance=Decimal("500.00"), credit_limit=Decimal("100.00"), name="Иванов\nИван")
    await a_charge(database, account, "200.00", name="tv", title="TV", on_date=date(2026, 1, 12))
    await a_charge(database, account, "150.00", name="net", title="Net", kind="monthly", slot=12)
    await a_charge(database, account, "400.00", name="last", title="Last day", on_date=date(2026, 2, 9))
    await a_charge(database, account, "1.00", name="after", title="A day later", on_date=date(2026, 2, 10))
    await a_charge(database, account, "1.00", name="before", title="Yesterday", on_date=date(2026, 1, 9))
    await a_charge(database, account, "1.00", name="posted", title="Posted already", on_date=date(2026, 1, 11), posted_through=date(2026, 1, 11))
    other = await an_account(database, "100501", phones=())
    await a_charge(database, other, "77.00", title="Somebody else's", on_date=date(2026, 1, 12))

    found = await read(database, account)

    assert (found.as_of, found.upto, found.name) == (DAY, date(2026, 2, 9), "Иванов Иван")
    assert [(line.on.isoformat(), line.title, str(line.amount), str(line.after)) for line in found.lines] == [
        ("2026-01-12", "Net", "150.00", "350.00"),
        ("2026-01-12", "TV", "200.00", "150.00"),
        ("2026-02-09", "Last day", "400.00", "-250.00"),
    ]
    assert (found.total, found.ahead.exhausts_on, found.ahead.shortfall) == (Decimal("750.00"), date(2026, 2, 9), Decimal("150.00"))


@pytest.mark.parametrize(
    ("zone", "day"),
    [("Asia/Kamchatka", date(2026, 1, 11)), ("Europe/Moscow", DAY), ("Pacific/Honolulu", date(2026, 1, 10)), ("Nowhere/At_All", DAY)],
)
async def test_the_day_is_that_of_the_account(database, zone, day):
    account = await an_account(database, timezone=zone)
    await a_charge(database, account, "1.00", title="Today here", on_date=DAY)

    found = await read(database, account, datetime(2026, 1, 10, 14, 30, tzinfo=UTC))

    assert found.as_of == day
    assert [line.on for line in found.lines] == ([DAY] if day == DAY else [])


async def test_an_account_without_charges_has_an_empty_one(database):
    account = await an_account(database)

    found = await read(database, account)

    assert (found.lines, found.total, found.ahead.exhausts_on) == ((), Decimal("0.00"), None)


async def test_of_an_account_that_is_gone_there_is_none(database):
    erased = await an_account(database, status="erased")

    assert await read(database, erased) is None
    async with database.transaction() as session:
        assert await statement_of(session, uuid4(), MORNING) is None


def test_a_spreadsheet_reads_the_table_in_either_language():
    statement = a_statement([(2, "1234.50", "Интернет; «Дом»")], balance=Decimal("1000.00"))

    russian, english = as_csv(statement, words_of("ru-RU")), as_csv(statement, words_of("kk"))

    assert russian.startswith(b"\xef\xbb\xbf")
    assert b"\r\n" in russian
    assert table(russian) == [["Дата", "Начисление", "Сумма, RUB", "Останется, RUB"], ["2026-01-12", "Интернет; «Дом»", "1234,50", "-234,50"]]
    assert table(english)[1] == ["2026-01-12", "Интернет; «Дом»", "1234.50", "-234.50"]


@pytest.mark.parametrize("title", ['=HYPERLINK("http://x.example")', "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "  =1", "\r\n=1", "\u202e=1"])
def test_no_title_of_a_charge_becomes_a_formula(title):
    cell = table(as_csv(a_statement([(1, "1.00", title)]), words_of("ru")))[1][1]

    assert cell.startswith("'")


def test_a_title_with_line_breaks_is_one_cell():
    assert len(table(as_csv(a_statement([(1, "1.00", "a\r\nb;c\0\n")]), words_of("ru")))) == 2


def test_a_specimen_has_something_to_show():
    shown = specimen(DAY, words_of("ru"))

    assert [line.on for line in shown.lines] == [DAY + timedelta(days=3), DAY + timedelta(days=17)]
    assert shown.ahead.exhausts_on == DAY + timedelta(days=17)
