"""The consents of an account, for whoever must prove them."""

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest

from app.accounts.consents import Said, Switch, record_consents, record_switches
from app.accounts.consents_api import COLUMNS, safe_cell
from tests.builders.accounts import PHONE, an_account

AT = datetime(2026, 1, 23, 7, 0, tzinfo=UTC)


@pytest.fixture
async def account(database):
    account = await an_account(database)
    async with database.transaction() as session:
        switches = [
            Switch("refused", "payment.received"),
            Switch("allowed", "tariff.changed", "email", "a@example.org", text_version="v2"),
            Switch("refused", channel="sms", address=PHONE, detail="=cmd|' /C calc'!A0"),
        ]
        await record_switches(session, account.id, switches, via="cabinet", by="subscriber", moment=AT)
        await record_consents(session, "sms", [Said(PHONE, "refused", "STOP")], via="sms", by="subscriber", moment=AT + timedelta(hours=1))
    return account


async def listed(api, **query):
    return (await api.get("/accounts/100500/consents", params=query)).json()["items"]


async def test_every_act_says_what_it_was_about(api, account):
    stop, contact, tariff, payment = await listed(api)

    assert (stop["act"], stop["type"], stop["channel"], stop["address"], stop["via"], stop["detail"]) == ("refused", None, "sms", PHONE, "sms", "STOP")
    assert (contact["type"], contact["channel"], contact["address"]) == (None, "sms", PHONE)
    assert (tariff["act"], tariff["type"], tariff["channel"], tariff["text_version"], tariff["via"]) == ("allowed", "tariff.changed", "email", "v2", "cabinet")
    assert (payment["type"], payment["channel"], payment["address"], payment["at"]) == ("payment.received", None, None, "2026-01-23T07:00:00Z")


async def test_filters_find_what_was_said_of_everything_as_well(api, account):
    assert [item["type"] for item in await listed(api, type="payment.received")] == [None, None, "payment.received"]
    assert [item["channel"] for item in await listed(api, channel="email")] == ["email", None]


async def test_file_has_all_of_them_and_no_cell_that_a_spreadsheet_would_run(api, account):
    answer = await api.get("/accounts/100500/consents", params={"format": "csv", "limit": 1})

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="consents-100500.csv"'
    assert answer.text.startswith("\ufeff")
    head, *lines = csv.reader(io.StringIO(answer.text.removeprefix("\ufeff")))
    assert tuple(head) == COLUMNS
    assert len(lines) == 4
    stop, contact, _, payment = (dict(zip(head, line, strict=True)) for line in lines)
    assert (stop["address"], stop["at"]) == (f"'{PHONE}", "2026-01-23T08:00:00Z")
    assert contact["detail"] == "'=cmd|' /C calc'!A0"
    assert (payment["channel"], payment["address"]) == ("", "")


@pytest.mark.parametrize("text", ["=1", "+7", "-1", "@x", "\t=1", " \n+1"])
def test_cell_that_begins_as_a_formula_is_quoted(text):
    assert safe_cell(text) == f"'{text}"


def test_other_cells_stay_as_they_are():
    assert [safe_cell(value) for value in ("a=b", "", None, 7)] == ["a=b", "", "", "7"]
