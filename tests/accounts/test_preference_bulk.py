"""One change of many accounts' preferences, from the request to the last batch."""

import pytest

from app.accounts import preference_bulk
from app.accounts.preference_bulk import Bulk
from tests.builders.messages import rows, run

OFF = {"types": {"payment.received": {"enabled": False}}}


@pytest.fixture
async def town(api):
    for n in range(7):
        body = {
            "tariff": "Home" if n < 4 else "Office",
            "timezone": "Asia/Omsk" if n % 2 else "Europe/Moscow",
            "attributes": {"segment": "vip" if n == 3 else "home"},
        }
        await api.put(f"/accounts/{n}", json=body | {"contacts": [{"channel": "sms", "address": f"+7916000000{n}"}]})


@pytest.fixture
def bulk(database):
    return Bulk(database)


async def asked(api, filter_, change=OFF, status=202, **more):
    answer = await api.post("/accounts/preferences/bulk", json={"filter": filter_, "change": change} | more)
    assert answer.status_code == status, answer.text
    return answer.json()


async def swept(api, bulk, bulk_id):
    for _ in range(20):
        await bulk.follow()
        shown = (await api.get(f"/accounts/preferences/bulk/{bulk_id}")).json()
        if shown["state"] == "done":
            return shown
    raise AssertionError(shown)


async def documents(database):
    return {
        row.number: row.document for row in await rows(database, "SELECT a.number, p.document FROM account_preference p JOIN account a ON a.id = p.account_id")
    }


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({}, "0123456"),
        ({"tariff": "Home"}, "0123"),
        ({"zone": "Asia/Omsk"}, "135"),
        ({"attributes": {"segment": "vip"}}, "3"),
        ({"numbers": ["2", "5", "404"]}, "25"),
        ({"tariff": "Home", "zone": "Asia/Omsk"}, "13"),
    ],
)
async def test_those_whom_the_filter_names_are_changed_and_no_others(api, town, bulk, database, monkeypatch, wanted, numbers):
    monkeypatch.setattr(preference_bulk, "BATCH", 3)
    made = await asked(api, wanted)

    done = await swept(api, bulk, made["id"])

    assert await documents(database) == dict.fromkeys(numbers, OFF)
    assert (done["changed"], done["changes"]) == (len(numbers), {"types.payment.received.enabled": {"null": len(numbers)}})


async def test_dry_run_says_how_many_would_change_and_how_and_changes_nothing(api, town, bulk, database):
    for number, choice in (("0", True), ("1", False)):
        await api.put(f"/accounts/{number}/preferences", json={"types": {"payment.received": {"enabled": choice}}})
    before = await documents(database)
    made = await asked(api, {"tariff": "Home"}, dry_run=True)

    done = await swept(api, bulk, made["id"])

    assert (done["looked_at"], done["changed"]) == (4, 3)
    assert done["changes"] == {"types.payment.received.enabled": {"null": 2, "true": 1}}
    assert await documents(database) == before
    assert await rows(database, "SELECT 1 FROM consent WHERE via = 'operator'") == []
    assert await rows(database, "SELECT 1 FROM replan_waiting") == []


async def test_change_leaves_consents_of_the_operator_an_audit_record_and_what_waits_to_be_decided_again(api, town, bulk, database):
    made = await asked(api, {"numbers": ["4", "5"]}, {"types": {"tariff.changed": {"channels": {"sms": False}}, "balance.exhausting": {"days_before": [5]}}})

    done = await swept(api, bulk, made["id"])

    consents = await rows(database, "SELECT type, channel, act, via, by FROM consent")
    assert [tuple(row)[:4] for row in consents] == [("tariff.changed", "sms", "refused", "operator")] * 2
    assert {row.by[:4] for row in consents} == {"key:"}
    assert len(await rows(database, "SELECT 1 FROM replan_waiting")) == 2
    assert [row.action for row in await rows(database, "SELECT action FROM audit_record WHERE action LIKE 'preferences%' ORDER BY id")] == [
        "preferences.bulk",
        "preferences.bulk.done",
    ]
    assert len(await rows(database, "SELECT 1 FROM account WHERE warning_days = '{5}'")) == 2
    assert done["filter"] == {"numbers": 2}, "the numbers themselves are not kept"


async def test_null_takes_a_choice_back_and_what_is_left_out_stays(api, town, bulk, database):
    await api.put("/accounts/0/preferences", json={"locale": "en", "types": {"payment.received": {"enabled": False, "channels": {"sms": False}}}})
    made = await asked(api, {}, {"types": {"payment.received": {"enabled": None}}})

    done = await swept(api, bulk, made["id"])

    assert done["changed"] == 1
    assert await documents(database) == {"0": {"locale": "en", "types": {"payment.received": {"channels": {"sms": False}}}}}


async def test_what_was_chosen_may_be_left_alone(api, town, bulk, database):
    await api.put("/accounts/0/preferences", json=OFF)
    made = await asked(api, {"numbers": ["0", "1"]}, {"types": {"payment.received": {"enabled": True}}}, keep_chosen=True)

    await swept(api, bulk, made["id"])

    assert await documents(database) == {"0": OFF, "1": {"types": {"payment.received": {"enabled": True}}}}


async def test_sweep_that_died_goes_on_where_it_was_and_changes_nobody_twice(api, town, bulk, database, monkeypatch):
    monkeypatch.setattr(preference_bulk, "BATCH", 3)
    made = await asked(api, {})
    await bulk.follow()

    async def dies(*_args, **_more):
        raise ConnectionError

    with monkeypatch.context() as broken:
        broken.setattr(preference_bulk, "ask_replan", dies)
        with pytest.raises(ConnectionError):
            await bulk.follow()
    done = await swept(api, Bulk(database), made["id"])

    assert (done["looked_at"], done["changed"]) == (7, 7)
    assert {row.revision for row in await rows(database, "SELECT revision FROM account_preference")} == {1}
    assert len(await rows(database, "SELECT 1 FROM consent")) == 7


async def test_change_that_cannot_be_made_is_refused_at_once(api, town, database):
    await run(database, "UPDATE notification_type SET mandatory = true, revision = revision + 1 WHERE code = 'payment.received'")

    for change, pointer in (
        (OFF, "/change/types/payment.received/enabled"),
        ({"types": {"no.such": {"enabled": True}}}, "/change/types/no.such/enabled"),
        ({"types": {"tariff.changed": {}}}, "/change/types"),
    ):
        refused = await asked(api, {}, change, status=422)
        assert [fault["pointer"] for fault in refused["errors"]] == [pointer]
    assert await rows(database, "SELECT 1 FROM preference_bulk") == []


async def test_list_has_the_newest_first_and_a_billing_reads_what_is_there(api, as_role, town):
    first, second = await asked(api, {}), await asked(api, {"zone": "Asia/Omsk"})

    listed = (await api.get("/accounts/preferences/bulk")).json()

    assert [one["id"] for one in listed["items"]] == [second["id"], first["id"]]
    assert (await api.get("/accounts/preferences/bulk/5e0c5a9e-0000-7000-8000-000000000000")).json()["code"] == "bulk_not_found"
    assert (await (await as_role("viewer")).post("/accounts/preferences/bulk", json={"filter": {}, "change": OFF})).status_code == 403
