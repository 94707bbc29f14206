"""Reports over HTTP: groups and filters, files as a spreadsheet opens them, the call centre's list, the SMSC's invoice, two periods."""

import csv
import datetime as dt
import io
from decimal import Decimal
from zipfile import ZipFile

import pytest

from app.core.clock import now
from app.core.ids import new_id
from tests.builders.accounts import an_account
from tests.builders.messages import a_message, run
from tests.builders.receipts import a_submission
from tests.builders.reports import fold, today

PERIOD = today()
DAYS = {"from": PERIOD.first.isoformat(), "to": PERIOD.last.isoformat()}
PRICED = {"price": Decimal("1.5"), "parts": 2, "sender": "ISP", "operator": "МТС"}


async def delivered_in(database, seconds, **fields):
    due = now() - dt.timedelta(hours=1)
    return await a_message(database, ended="delivered", not_before=due, updated_at=due + dt.timedelta(seconds=seconds), **fields)


async def test_viewer_sees_counts_cost_share_and_times_by_type(database, as_role):
    for seconds in (3, 3, 100):
        await delivered_in(database, seconds, **PRICED)
    await a_message(database, ended="undelivered", reason="absent", **PRICED)
    await a_message(database, type="payment.received")
    viewer = await as_role("viewer")

    answer = (await viewer.get("/reports/messages", params=DAYS | {"group_by": "type"})).json()

    assert [line["type"] for line in answer["items"]] == ["payment.received", "service.connected"]
    line = answer["items"][1]
    assert (line["messages"], line["parts"], line["cost"], line["delivered"], line["known"]) == (4, 8, "12.00", 3, 4)
    assert line["delivery_share"] == 0.75
    assert line["p50_seconds"] == pytest.approx(3, rel=0.19)
    assert line["p95_seconds"] == pytest.approx(100, rel=0.19)
    assert answer["total"]["messages"] == 5
    assert answer["complete"] is True


async def test_every_group_and_filter_can_be_asked_for_before_and_after_folding(database, api):
    await delivered_in(database, 5, template_id=new_id(), template_version=3, route="cheap", **PRICED)
    await a_message(database, channel="email", gateway="post")
    every = "day,hour,type,channel,gateway,route,sender,operator,template,state,reason"

    for _ in range(2):
        whole = (await api.get("/reports/messages", params=DAYS | {"group_by": every})).json()
        only = (
            await api.get("/reports/messages", params=DAYS | {"group_by": "state", "operator": ["МТС", "Tele2"], "channel": "sms", "template_version": 3})
        ).json()
        none = (await api.get("/reports/messages", params=DAYS | {"group_by": "operator", "operator": ""})).json()

        assert [line["state"] for line in whole["items"]] in (["delivered", "waiting"], ["waiting", "delivered"])
        assert {line["hour"][:13] for line in whole["items"]}
        assert [(line["state"], line["messages"]) for line in only["items"]] == [("delivered", 1)]
        assert [(line["operator"], line["messages"]) for line in none["items"]] == [(None, 1)]
        await fold(database)


async def test_report_with_nothing_in_it_is_empty_and_says_so(api):
    answer = (await api.get("/reports/messages", params=DAYS)).json()

    assert answer["items"] == []
    assert answer["total"] == {
        "messages": 0, "parts": 0, "cost": "0.00", "delivered": 0, "known": 0, "delivery_share": None, "p50_seconds": None, "p95_seconds": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"from": "2026-02-02", "to": "2026-02-01"}, "period_reversed"),
        ({"from": "2026-01-01", "to": "2026-12-31"}, "period_too_long"),
        ({"from": "2026-01-01", "to": "2026-02-28", "group_by": "hour"}, "period_too_long"),
        ({"from": "0001-01-01", "to": "0001-01-02"}, "period_out_of_range"),
        ({"from": "2026-01-01", "to": "2026-01-02", "group_by": "day,account"}, "unknown_group"),
    ],
)
async def test_wrong_question_is_told_what_to_change(api, asked, code):
    answer = await api.get("/reports/messages", params=asked)

    assert answer.status_code == 422
    assert [error["code"] for error in answer.json()["errors"]] == [code]


async def test_test_messages_and_those_of_other_days_are_in_no_report(database, api):
    await a_message(database, test=True)
    await a_message(database, id=id_of_day(-40))

    answer = (await api.get("/reports/messages", params=DAYS)).json()

    assert answer["total"]["messages"] == 0


def id_of_day(days):
    from app.core.ids import first_id_at

    return first_id_at(now() + dt.timedelta(days=days))


async def test_erased_contents_and_accounts_change_no_count(database, api):
    account = await an_account(database)
    await a_message(database, account, ended="accepted", **PRICED)
    before = (await api.get("/reports/messages", params=DAYS)).json()

    await run(database, "UPDATE message SET text = '', subject = NULL, html = NULL")
    assert (await api.delete(f"/accounts/{account.number}")).status_code == 204

    assert (await api.get("/reports/messages", params=DAYS)).json() == before


async def test_csv_in_russian_is_what_a_russian_excel_opens(database, api):
    await delivered_in(database, 5, type="=HYPERLINK(1)", **PRICED)

    answer = await api.get("/reports/messages", params=DAYS | {"group_by": "day,type", "format": "csv", "locale": "ru"})

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].startswith('attachment; filename="messages-')
    assert answer.content.startswith(b"\xef\xbb\xbf")
    heading, line = csv.reader(io.StringIO(answer.content.decode("utf-8-sig")), delimiter=";")
    assert heading[:4] == ["День", "Тип", "Сообщений", "Частей SMS"]
    assert line[0] == f"{dt.date.fromisoformat(DAYS['from']) + dt.timedelta(days=1):%d.%m.%Y}"
    assert line[1] == "'=HYPERLINK(1)"
    assert line[4] == "3,00"


async def test_csv_in_english_has_commas_and_points(database, api):
    await delivered_in(database, 5, **PRICED)

    answer = await api.get("/reports/messages", params=DAYS | {"group_by": "type", "format": "csv", "locale": "en"})

    heading, line = csv.reader(io.StringIO(answer.text))
    assert heading[:3] == ["Type", "Messages", "SMS parts"]
    assert line[:4] == ["service.connected", "1", "2", "3.00"]


async def test_xlsx_has_real_dates_and_numbers_and_no_formulas(database, api):
    await delivered_in(database, 5, type="=1+1", **PRICED)

    answer = await api.get("/reports/messages", params=DAYS | {"group_by": "day,type", "format": "xlsx"})

    book = ZipFile(io.BytesIO(answer.content))
    sheet = book.read("xl/worksheets/sheet1.xml").decode()
    serial = (dt.date.fromisoformat(DAYS["from"]) + dt.timedelta(days=1) - dt.date(1899, 12, 30)).days
    assert f"<v>{serial}</v>" in sheet
    assert "<v>3</v>" in sheet
    assert "=1+1" in sheet + book.read("xl/sharedStrings.xml").decode() if "xl/sharedStrings.xml" in book.namelist() else "=1+1" in sheet
    assert "<f>" not in sheet


async def test_call_centre_gets_everybody_who_was_not_reached_with_the_reason_in_words(database, api):
    account = await an_account(database, "100500")
    unreached = await a_message(database, account, ended="expired", reason="too_late")
    await a_message(database, account, ended="delivered")
    await a_message(database, account, ended="cancelled", reason="cancelled")
    await a_message(database, account, ended="failed", reason="a_gateways_own")
    await a_message(database, account, ended="unknown", reason="no_answer", test=True)

    answer = (await api.get("/reports/undelivered", params=DAYS | {"locale": "ru"})).json()
    sheet = await api.get("/reports/undelivered", params=DAYS | {"format": "csv", "locale": "en", "state": "expired"})

    first, second = answer["items"]
    assert (first["account"], first["address"], first["message_id"]) == ("100500", "+79161234567", str(unreached))
    assert first["reason_words"] != first["reason"] == "too_late"
    assert second["reason_words"] == "a_gateways_own"
    heading, line = csv.reader(io.StringIO(sheet.text))
    assert (heading[2], line[2]) == ("Address", "'+79161234567")


async def test_list_goes_on_over_many_batches(database, api, monkeypatch):
    monkeypatch.setattr("app.tracking.reports.undelivered.BATCH", 3)
    made = [await a_message(database, ended="failed", reason="blocked") for _ in range(7)]

    answer = (await api.get("/reports/undelivered", params=DAYS)).json()

    assert [line["message_id"] for line in answer["items"]] == [str(message) for message in made]


async def test_subscribers_addresses_are_for_readers_of_messages_alone(as_role):
    billing = await as_role("billing")

    assert (await billing.get("/reports/undelivered", params=DAYS)).status_code == 403
    assert (await billing.get("/reports/messages", params=DAYS)).status_code == 403


async def test_invoice_counts_each_accepted_part_of_each_try_and_of_tests(database, api):
    message = await a_message(database, ended="delivered", **PRICED)
    await a_submission(database, message, "a", "b")
    await a_submission(database, message, "c", "d", n=2)
    await a_submission(database, message, "", n=3, outcome="unknown")
    await a_submission(database, await a_message(database, ended="accepted", test=True, **PRICED), "e")

    for _ in range(2):
        answer = (await api.get("/reports/invoice", params=DAYS | {"group_by": "gateway,sender,operator"})).json()
        assert answer["items"] == [{"gateway": "main", "sender": "ISP", "operator": "МТС", "parts": 5, "cost": "7.50"}]
        await fold(database)


async def test_smscs_figures_are_compared_and_only_differences_are_listed(database, api):
    for operator, parts in (("МТС", 3), ("Tele2", 2)):
        message = await a_message(database, ended="delivered", **(PRICED | {"operator": operator}))
        await a_submission(database, message, *(f"{operator}{n}" for n in range(parts)))
    theirs = "operator;parts;cost\r\nмтс;3;4,50\r\nTele2;4;6,00\r\nYota;1;1,50\r\n".encode("cp1251")

    answer = await api.post("/reports/invoice", params=DAYS, content=theirs, headers={"Content-Type": "text/csv"})

    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["equal"] == 1
    assert {line["operator"]: (line["our_parts"], line["their_parts"], line["difference_parts"], line["difference_cost"]) for line in found["items"]} == {
        "Tele2": (2, 4, 2, "3.00"),
        "Yota": (0, 1, 1, "1.50"),
    }


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "empty_body"),
        (b"account,parts\n1,2\n", 422, "bad_heading"),
        (b"operator\nMTS\n", 422, "bad_heading"),
        (b"operator,parts\nMTS,many\n", 422, "bad_lines"),
        (b"operator,parts\nMTS\n", 422, "bad_lines"),
        (b"operator,parts,cost\nMTS,1,1e9999999\n", 422, "bad_lines"),
        (b"day,parts\n31.02.2026,1\n", 422, "bad_lines"),
        ("operator,parts\nMTS,٣\n".encode(), 422, "bad_lines"),
        (b"\x00\x01\x02", 422, "bad_heading"),
    ],
)
async def test_nonsense_instead_of_figures_is_refused_with_its_line(api, body, status, code):
    answer = await api.post("/reports/invoice", params=DAYS, content=body, headers={"Content-Type": "text/csv"})

    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


async def test_two_periods_stand_beside_each_other(database, api):
    await a_message(database, ended="delivered", **PRICED)
    await a_message(database, ended="failed", reason="blocked", **PRICED)
    await a_message(database, id=id_of_day(-40), ended="delivered", **PRICED)
    before = dt.date.fromisoformat(DAYS["from"]) - dt.timedelta(days=60)
    with_ = {"with_from": before.isoformat(), "with_to": (before + dt.timedelta(days=50)).isoformat()}

    answer = (await api.get("/reports/compare", params=DAYS | with_ | {"group_by": "type"})).json()

    (line,) = answer["items"]
    assert (line["type"], line["now"]["messages"], line["before"]["messages"], line["messages_change"]) == ("service.connected", 2, 1, 1)
    assert (line["cost_change"], line["share_change"]) == ("0.00", -0.5)
    assert "operator" not in line
    assert answer["total"]["messages_change"] == 1
