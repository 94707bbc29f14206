"""All the files of a letter."""

from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from icalendar import Calendar

from app.attachments.files import File
from app.attachments.store import Shelf
from app.attachments.upload import LARGEST
from app.attachments.write import AttachmentMissing, files_of
from tests.attachments.test_payment_qr import PAYEE
from tests.builders import files
from tests.builders.accounts import an_account
from tests.builders.charges import a_charge
from tests.builders.files import uploaded
from tests.builders.pdf_text import lines_of

MOMENT = datetime(2026, 1, 10, 9, tzinfo=UTC)
BRAND = {"payee": PAYEE}
MADE = [{"kind": kind} for kind in ("statement_pdf", "statement_csv", "calendar", "payment_qr")]
DATA = {"exhausts_on": "2026-01-12", "recommended_payment": "250.00"}


async def written(database, specs, account=None, *, brand=BRAND, data=DATA, locale="ru", **more) -> list[File]:
    async with database.transaction() as session:
        return await files_of(session, specs, account, brand, data, MOMENT, locale, **more)


def counting(database) -> list[str]:
    """The statements from now on, as they come."""
    seen: list[str] = []
    sa.event.listen(database.engine.sync_engine, "before_cursor_execute", lambda *said: seen.append(said[2]))
    return seen


async def test_a_letter_gets_its_files_in_order_with_two_queries(api, database):
    account = await an_account(database)
    await a_charge(database, account, "350.00", title="Интернет", on_date=date(2026, 1, 12))
    price, logo = await uploaded(api, files.PDF, "Прайс.pdf"), await uploaded(api, files.PNG, "logo.png")
    specs = [{"kind": "file", "id": price["id"]}, *MADE, {"kind": "file", "id": logo["id"], "name": "logo.png", "inline": True}]
    queries = counting(database)

    found = await written(database, specs, account.id)

    assert len(queries) == 2
    assert [(file.name, file.content_type, file.inline) for file in found] == [
        ("Прайс.pdf", "application/pdf", False),
        ("Предстоящие начисления 2026-01-10.pdf", "application/pdf", False),
        ("Предстоящие начисления 2026-01-10.csv", "text/csv; charset=utf-8", False),
        ("Напоминание.ics", "text/calendar; charset=utf-8; method=PUBLISH", False),
        ("payment-qr.png", "image/png", True),
        ("logo.png", "image/png", True),
    ]
    assert (found[0].data, found[5].data) == (files.PDF, files.PNG)
    assert "Интернет" in lines_of(found[1].data)[0]
    assert "2026-01-12;Интернет;350,00;-250,00" in found[2].data.decode()
    assert Calendar.from_ical(found[3].data).walk("VEVENT")[0]["DTSTART"].dt == date(2026, 1, 12)


async def test_a_letter_without_files_asks_nothing(database):
    queries = counting(database)

    assert await written(database, []) == []
    assert queries == []


async def test_a_version_may_give_a_file_another_name_of_its_kind(api, database):
    price = await uploaded(api, files.PDF, "x.pdf")
    specs = [
        {"kind": "file", "id": price["id"], "name": "../Тарифы 2026.exe"},
        {"kind": "file", "id": price["id"]},
        {"kind": "file", "id": price["id"], "name": "X.PDF"},
    ]

    assert [file.name for file in await written(database, specs)] == ["Тарифы 2026.exe.pdf", "x.pdf", "X (2).PDF"]


async def test_an_inline_file_keeps_the_name_that_the_html_knows(api, database):
    logo = await uploaded(api, files.PNG, "a.png")
    specs = [{"kind": "file", "id": logo["id"]}, {"kind": "file", "id": logo["id"], "name": "a.png", "inline": True}]

    assert [(file.name, file.inline) for file in await written(database, specs)] == [("a (2).png", False), ("a.png", True)]


async def test_large_files_come_whole(api, database):
    data = bytes(range(65, 91)) * 40_000
    text = await uploaded(api, data, "a.txt")

    (file,) = await written(database, [{"kind": "file", "id": text["id"]}])

    assert file.data == data
    assert file.content_type == "text/plain; charset=utf-8"


async def test_a_file_that_is_gone_is_missed(api, database):
    kept, gone = await uploaded(api, files.PDF), await uploaded(api, files.PNG)
    await api.delete(f"/attachments/{gone['id']}")

    with pytest.raises(AttachmentMissing, match=gone["id"]):
        await written(database, [{"kind": "file", "id": kept["id"]}, {"kind": "file", "id": gone["id"]}])


async def test_a_file_whose_contents_are_not_whole_is_missed(api, database):
    meta = await uploaded(api, b"word " * 100_000, "a.txt")
    async with database.transaction() as session:
        await session.execute(sa.text("DELETE FROM attachment_part WHERE n = 1"))

    with pytest.raises(AttachmentMissing):
        await written(database, [{"kind": "file", "id": meta["id"]}])


async def test_more_than_ten_mebibytes_are_not_sent_nor_read(api, database):
    large = [(await uploaded(api, b"%d" % n * LARGEST, "a.txt"))["id"] for n in range(3)]
    specs = [{"kind": "file", "id": one} for one in large]

    assert len(await written(database, specs[:2])) == 2
    with pytest.raises(AttachmentMissing, match="10 MiB"):
        await written(database, specs)
    with pytest.raises(AttachmentMissing, match="10 MiB"):
        await written(database, [*specs[:2], *specs[:1]])


async def test_a_brand_without_a_payee_has_no_payment_code(database):
    account = await an_account(database)

    with pytest.raises(AttachmentMissing, match="payee"):
        await written(database, [{"kind": "payment_qr"}], account.id, brand={})


async def test_an_account_that_is_gone_gets_no_statement(database):
    with pytest.raises(AttachmentMissing, match="account"):
        await written(database, [{"kind": "statement_csv"}], uuid4())


@pytest.mark.parametrize("specs", [[{"kind": "virus"}], [{}], ["file"], [{"kind": "file", "id": "x"}]])
async def test_a_list_that_cannot_be_read_is_missed(database, specs):
    with pytest.raises(AttachmentMissing):
        await written(database, specs)


async def test_where_nothing_is_ahead_the_calendar_is_left_out(database):
    account = await an_account(database)

    assert await written(database, [{"kind": "calendar"}], account.id, data={}) == []


async def test_a_preview_without_an_account_gets_specimens(database):
    queries = counting(database)

    found = await written(database, MADE, None, locale="en")

    assert [file.name for file in found] == ["Upcoming charges 2026-01-10.pdf", "Upcoming charges 2026-01-10.csv", "Reminder.ics", "payment-qr.png"]
    assert queries == []


async def test_the_worst_account_gets_all_its_files(database):
    account = await an_account(
        database, "9" * 64, name='"><script>\r\nBcc: x</script>' * 10, balance=Decimal("-999999999999.99"), credit_limit=Decimal("999999999999.99")
    )
    for n in range(100):
        await a_charge(
            database,
            account,
            "999999999999.99",
            name=f"c{n}",
            title=f"=«Услуга» & <{n}>\r\n" + "Ж" * 270,
            kind="daily" if n == 0 else "once",
            on_date=date(2026, 1, 20) if n else None,
        )

    found = await written(database, MADE, account.id)

    assert [len(file.data) > 100 for file in found] == [True] * 4
    pages = lines_of(found[0].data)
    assert sum(text.startswith("=«Услуга»") for page in pages for text in page) == 31 + 99
    assert Calendar.from_ical(found[2].data).walk("VEVENT")


async def test_a_process_that_sends_a_file_to_many_reads_it_once(api, database):
    price = await uploaded(api, files.PDF)
    specs, shelf = [{"kind": "file", "id": price["id"]}], Shelf()
    queries = counting(database)

    first = await written(database, specs, shelf=shelf)
    second = await written(database, specs, shelf=shelf)

    assert first == second
    assert len(queries) == 1


def test_a_shelf_lets_go_what_was_longest_unused():
    shelf, ids = Shelf(octets=100), [UUID(int=n) for n in range(4)]
    for one in ids[:2]:
        shelf.put({one: File("a", "text/plain", b"x" * 40)})
    assert shelf.get(ids[:1]).keys() == {ids[0]}

    shelf.put({ids[2]: File("a", "text/plain", b"x" * 40)})
    shelf.put({ids[3]: File("a", "text/plain", b"x" * 101)})

    assert shelf.get(ids).keys() == {ids[0], ids[2]}
