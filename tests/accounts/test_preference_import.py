"""Preferences that come with the lines of an import."""

import json

import pytest

from app.accounts import imports
from tests.builders.messages import one, rows

OFF = {"types": {"payment.received": {"enabled": False}}}
PHONE = [{"channel": "sms", "address": "+79161234567"}]


def line(number, **fields):
    return json.dumps({"number": number, "contacts": PHONE} | fields).encode() + b"\n"


async def send(api, *lines):
    answer = await api.post("/accounts/import", content=b"".join(lines), headers={"Content-Type": "application/x-ndjson"})
    assert answer.status_code == 200
    report = answer.json()
    return {name: report[name] for name in ("created", "updated", "unchanged")}, report["rejected"]


async def document(database, number="1"):
    found = await rows(database, "SELECT p.document FROM account_preference p JOIN account a ON a.id = p.account_id WHERE a.number = :number", number=number)
    return found[0].document if found else None


@pytest.mark.parametrize("many", [1, 150], ids=["few", "so many that COPY would take them"])
async def test_line_makes_the_account_with_its_choices_and_the_others_without(api, database, many):
    counted, rejected = await send(api, line("1", preferences=OFF | {"threshold": "20.00"}), *(line(f"n{n}") for n in range(many)))

    assert (counted, rejected) == ({"created": many + 1, "updated": 0, "unchanged": 0}, [])
    assert await document(database) == OFF | {"threshold": "20.00"}
    assert str((await one(database, "SELECT warned_at FROM account WHERE number = '1'")).warned_at) == "20.00"
    assert [tuple(row) for row in await rows(database, "SELECT type, act, via, by FROM consent")] == [("payment.received", "refused", "import", "billing")]
    assert len(await rows(database, "SELECT 1 FROM replan_waiting")) == 1


async def test_keys_that_are_given_are_replaced_and_others_stay(api, database):
    await api.put("/accounts/1", json={"contacts": PHONE})
    await api.put("/accounts/1/preferences", json=OFF | {"locale": "en", "threshold": "20.00"})

    counted, _ = await send(api, line("1", preferences={"types": {"tariff.changed": {"enabled": False}}, "threshold": None}))

    assert counted == {"created": 0, "updated": 1, "unchanged": 0}
    assert await document(database) == {"locale": "en", "types": {"tariff.changed": {"enabled": False}}}


async def test_contact_may_be_named_by_its_address(api, database):
    await send(api, line("1", preferences={"contacts": {"8 916 123-45-67": {"enabled": False}}}))

    contact = (await one(database, "SELECT id FROM contact")).id
    assert await document(database) == {"contacts": {str(contact): {"enabled": False}}}


async def test_same_line_every_night_does_not_undo_what_the_subscriber_has_chosen_since(api, as_subscriber, database):
    await send(api, line("1", tariff="Old", preferences=OFF))
    me = await as_subscriber("1")
    await me.put("/me/preferences", json={"locale": "en"}, headers={"If-Match": '"1"'})

    same, _ = await send(api, line("1", tariff="Old", preferences=OFF))
    other_tariff, _ = await send(api, line("1", tariff="New", preferences=OFF))
    assert (same["unchanged"], other_tariff["updated"]) == (1, 1)
    assert await document(database) == {"locale": "en"}

    await send(api, line("1", tariff="New", preferences=OFF | {"locale": "ru"}))
    assert await document(database) == OFF | {"locale": "ru"}, "something new was said"


async def test_later_line_of_a_number_wins_key_by_key(api, database):
    await send(api, line("1", preferences=OFF | {"threshold": "20.00"}), line("1", preferences={"threshold": "30.00"}))

    assert await document(database) == OFF | {"threshold": "30.00"}


async def test_line_whose_choices_cannot_be_is_not_taken_and_the_others_are(api, database, monkeypatch):
    monkeypatch.setattr(imports, "CHUNK_LINES", 3)
    bad = [
        line("2", preferences={"types": {"no.such": {"enabled": True}}}),
        line("3", preferences={"contacts": {"+79990000000": {"enabled": True}}}),
        line("4", preferences={"hours": [{"from": "25:00", "to": "26:00"}]}),
        line("5", preferences={"threshold": "-1.00"}),
    ]

    counted, rejected = await send(api, line("1", preferences=OFF), *bad, line("6"), line("7", preferences={}))

    assert counted["created"] == 3
    assert sorted((one["line"], one["code"]) for one in rejected) == [(2, "unknown_type"), (3, "unknown_contact"), (4, "clock"), (5, "threshold")]
    assert all("/preferences/" in one["detail"] for one in rejected)
    assert [row.number for row in await rows(database, "SELECT number FROM account ORDER BY number")] == ["1", "6", "7"]
    assert await document(database) == OFF
