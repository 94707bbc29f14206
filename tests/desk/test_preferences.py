"""What a subscriber chooses: read and written over the API, what comes of it, and what waits."""

import asyncio
from decimal import Decimal

import pytest

from app.core.wakeups import Wakeups
from app.notifications.plan import Planner
from tests.builders.events import a_waiting_event
from tests.builders.messages import rows, run

ACCOUNT = {
    "balance": "112.30",
    "threshold": "50.00",
    "timezone": "Europe/Moscow",
    "contacts": [{"channel": "sms", "address": "+79161234567"}, {"channel": "email", "address": "subscriber@example.org"}],
}


@pytest.fixture
async def account(api):
    await api.put("/accounts/100500", json=ACCOUNT)
    shown = (await api.get("/accounts/100500")).json()
    return {contact["channel"]: contact["id"] for contact in shown["contacts"]}


async def chosen(client, path, document, tag=None, status=200):
    answer = await client.put(path, json=document, headers={"If-Match": tag} if tag else {})
    assert answer.status_code == status, answer.text
    return answer


def effect(answer, code):
    return next(one for one in answer.json()["effective"]["types"] if one["code"] == code)


async def the_type(api, code, **other):
    """Change a type of the catalogue."""
    stored = await api.get(f"/notification-types/{code}")
    body = {name: value for name, value in stored.json().items() if name not in {"code", "builtin", "revision", "updated_at"}}
    answer = await api.put(f"/notification-types/{code}", json=body | other, headers={"If-Match": stored.headers["ETag"]})
    assert answer.status_code == 200, answer.text


async def test_subscriber_who_has_chosen_nothing_sees_what_the_operator_has_set(as_subscriber, account):
    me = await as_subscriber("100500")

    answer = await me.get("/me/preferences")

    shown = answer.json()
    assert answer.headers["ETag"] == '"0"'
    assert (shown["types"], shown["contacts"], shown["hours"], shown["threshold"]) == ({}, {}, [], None)
    assert (shown["effective"]["threshold"], shown["effective"]["locale"]) == ("50.00", "ru")
    assert shown["effective"]["quiet_hours"] == {"timezone": "Europe/Moscow", "workdays": None, "weekends": None}
    paid = effect(answer, "payment.received")
    assert (paid["title"], paid["enabled"], paid["can_change"], paid["ground"]) == ("Платёж получен", True, True, None)
    assert [(one["channel"], one["told"], one["reason"]) for one in paid["contacts"]] == [("sms", True, None), ("email", True, None)]
    assert effect(answer, "balance.exhausting")["days_before"] == [7, 3, 1]
    assert effect(answer, "charges.upcoming")["days_before"] == 3


async def test_what_was_chosen_is_kept_shown_and_put_beside_the_balance(as_subscriber, account, database):
    me = await as_subscriber("100500")
    document = {
        "locale": "en",
        "threshold": "200.5",
        "hours": [{"weekdays": [5, 1], "from": "09:00", "to": "24:00"}],
        "types": {
            "balance.exhausting": {"days_before": [2, 5], "channels": {"email": False}},
            "charges.upcoming": {"days_before": 2},
            "payment.received": {"enabled": False},
        },
        "contacts": {account["email"].upper(): {"types": {"service.connected": False}}},
    }

    answer = await chosen(me, "/me/preferences", document)

    shown = answer.json()
    assert answer.headers["ETag"] == '"1"'
    assert shown["hours"] == [{"weekdays": [1, 5], "from": "09:00", "to": "00:00"}]
    assert shown["types"]["balance.exhausting"]["days_before"] == [5, 2]
    assert shown["effective"]["threshold"] == "200.50"
    assert effect(answer, "payment.received")["title"] == "Payment received"
    assert [one["reason"] for one in effect(answer, "payment.received")["contacts"]] == ["type_off", "type_off"]
    assert [one["reason"] for one in effect(answer, "balance.exhausting")["channels"]] == [None, "channel_off"]
    assert [one["reason"] for one in effect(answer, "service.connected")["contacts"]] == [None, "contact_type_off"]
    (row,) = await rows(database, "SELECT own_threshold, warned_at, threshold, warning_days, upcoming_days FROM account")
    assert tuple(map(str, row[:3])) == ("200.50", "200.50", "50.00")
    assert (row.warning_days, row.upcoming_days) == ([5, 2], 2)
    assert (await me.get("/me")).json()["threshold"] == "200.50"
    assert (await me.get("/me")).json()["locale"] == "en"


async def test_what_is_left_out_is_as_the_operator_has_it_again(as_subscriber, account, database):
    me = await as_subscriber("100500")
    await chosen(me, "/me/preferences", {"threshold": "200.00", "types": {"balance.exhausting": {"days_before": [5]}}})

    answer = await chosen(me, "/me/preferences", {}, '"1"')

    assert answer.json()["effective"]["threshold"] == "50.00"
    (row,) = await rows(database, "SELECT own_threshold, warning_days FROM account")
    assert tuple(row) == (None, None)


async def test_change_needs_the_version_that_was_read(as_subscriber, account):
    me = await as_subscriber("100500")
    await chosen(me, "/me/preferences", {"locale": "en"})

    await chosen(me, "/me/preferences", {"locale": "ru"}, status=428)
    await chosen(me, "/me/preferences", {"locale": "ru"}, '"0"', status=412)
    answer = await chosen(me, "/me/preferences", {"locale": "ru"}, '"1"')

    assert answer.headers["ETag"] == '"2"'


async def test_same_choices_again_change_nothing(as_subscriber, account, database):
    me = await as_subscriber("100500")
    first = await chosen(me, "/me/preferences", {"types": {"payment.received": {"enabled": False}}})
    document = {name: value for name, value in first.json().items() if name not in {"effective", "warnings"}}

    again = await chosen(me, "/me/preferences", document, '"1"')

    assert again.headers["ETag"] == '"1"'
    assert len(await rows(database, "SELECT id FROM consent")) == 1
    assert len(await rows(database, "SELECT id FROM audit_record WHERE action = 'preferences.update'")) == 1


async def test_every_switch_leaves_a_consent_and_the_change_an_audit_record_with_who(api, as_subscriber, account, database):
    me = await as_subscriber("100500")
    await chosen(
        me,
        "/me/preferences",
        {
            "threshold": "10.00",
            "types": {"payment.received": {"enabled": False, "channels": {"sms": True}}},
            "contacts": {account["sms"]: {"enabled": False, "types": {"tariff.changed": False}}},
        },
    )

    await chosen(api, "/accounts/100500/preferences", {"threshold": "10.00"}, '"1"')

    said = await rows(database, "SELECT act, type, channel, address, via, by FROM consent ORDER BY id")
    assert sorted(map(tuple, said[:4]), key=str) == sorted(
        [
            ("refused", "payment.received", None, None, "cabinet", "subscriber"),
            ("allowed", "payment.received", "sms", None, "cabinet", "subscriber"),
            ("refused", None, "sms", "+79161234567", "cabinet", "subscriber"),
            ("refused", "tariff.changed", "sms", "+79161234567", "cabinet", "subscriber"),
        ],
        key=str,
    )
    assert [row.act for row in said[4:]] == ["allowed"] * 4
    assert {(row.via, row.by[:4]) for row in said[4:]} == {("api", "key:")}
    first, second = await rows(database, "SELECT actor, changes FROM audit_record WHERE action = 'preferences.update' ORDER BY id")
    assert (first.actor, second.actor[:4]) == ("subscriber", "key:")
    assert first.changes["types.payment.received.enabled"] == [None, False]
    assert "threshold" not in second.changes


BAD = [
    ({"types": {"no.such": {"enabled": True}}}, "/types/no.such/enabled", "unknown_type"),
    ({"types": {"contact.verification": {"enabled": False}}}, "/types/contact.verification/enabled", "unknown_type"),
    ({"contacts": {"5e0c5a9e-0000-7000-8000-000000000000": {"enabled": True}}}, "/contacts/5e0c5a9e-0000-7000-8000-000000000000/enabled", "unknown_contact"),
    ({"contacts": {"+79990000000": {"enabled": True}}}, "/contacts/+79990000000/enabled", "unknown_contact"),
    ({"types": {"payment.received": {"days_before": [1]}}}, "/types/payment.received/days_before", "unknown_setting"),
    ({"types": {"balance.exhausting": {"days_before": [31]}}}, "/types/balance.exhausting/days_before", "days_before"),
    ({"types": {"balance.exhausting": {"days_before": [1, 2, 3, 4, 5, 6]}}}, "/types/balance.exhausting/days_before", "days_before"),
    ({"types": {"balance.exhausting": {"days_before": 3}}}, "/types/balance.exhausting/days_before", "days_before"),
    ({"types": {"charges.upcoming": {"days_before": [3]}}}, "/types/charges.upcoming/days_before", "days_before"),
    ({"types": {"balance.exhausting": {"days_before": [3, 3]}}}, "/types/balance.exhausting/days_before", "days_before"),
    ({"threshold": "-0.01"}, "/threshold", "threshold"),
    ({"threshold": 5}, "/threshold", "money"),
    ({"hours": [{"from": "9:00", "to": "21:00"}]}, "/hours/0/from", "clock"),
    ({"hours": [{"from": "09:00", "to": "21:00", "weekdays": [8]}]}, "/hours/0/weekdays/0", "less_than_equal"),
    ({"hours": [{"from": "09:00", "to": "21:00"}] * 8}, "/hours", "too_long"),
    ({"types": {"payment.received": {"enabled": "no"}}}, "/types/payment.received/enabled", "bool_type"),
    ({"types": {"payment.received": {"channels": {"pigeon": True}}}}, "/types/payment.received/channels/pigeon", "unknown_channel"),
    ({"colour": "red"}, "/colour", "extra_forbidden"),
    ({"contacts": {f"+7916{n:07}": {"types": {"a" * 99: True, "b" * 99: True}} for n in range(100)}}, "", "document_too_large"),
]


@pytest.mark.parametrize(("document", "pointer", "code"), BAD)
async def test_choice_that_cannot_be_made_is_refused_with_its_place(as_subscriber, account, database, document, pointer, code):
    me = await as_subscriber("100500")

    answer = await chosen(me, "/me/preferences", document, status=422)

    faults = [(fault["pointer"], fault["code"]) for fault in answer.json()["errors"]]
    assert (pointer, code) in faults
    assert await rows(database, "SELECT 1 FROM account_preference") == []


@pytest.mark.parametrize(
    "document",
    [
        {"types": {"payment.received": {"enabled": False}}},
        {"types": {"payment.received": {"channels": {"sms": False}}}},
        {"contacts": {"+79161234567": {"types": {"payment.received": False}}}},
    ],
)
async def test_mandatory_type_cannot_be_turned_off_and_says_on_what_ground(api, as_subscriber, account, document):
    await the_type(api, "payment.received", mandatory=True, settings={"ground": "Federal Law 54"})
    me = await as_subscriber("100500")

    answer = await chosen(me, "/me/preferences", document, status=422)

    (fault,) = answer.json()["errors"]
    assert fault["code"] == "mandatory"
    assert "Federal Law 54" in fault["detail"]
    shown = effect(await me.get("/me/preferences"), "payment.received")
    assert (shown["mandatory"], shown["can_change"], shown["ground"]) == (True, False, "Federal Law 54")


async def test_choice_of_before_is_not_in_the_way_when_its_type_becomes_mandatory(api, as_subscriber, account):
    me = await as_subscriber("100500")
    off = {"types": {"payment.received": {"enabled": False}}}
    await chosen(me, "/me/preferences", off)
    await the_type(api, "payment.received", mandatory=True)

    answer = await chosen(me, "/me/preferences", off | {"locale": "en"}, '"1"')

    assert [one["told"] for one in effect(answer, "payment.received")["contacts"]] == [True, True]


async def test_operators_limits_are_kept(api, as_subscriber, account):
    await the_type(api, "balance.threshold_reached", settings={"own_threshold_most": "500.00"})
    await the_type(api, "charges.upcoming", settings={"days_before": 3, "own_days_most": 0})
    me = await as_subscriber("100500")

    too_much = await chosen(me, "/me/preferences", {"threshold": "500.01", "types": {"charges.upcoming": {"days_before": 1}}}, status=422)
    enough = await chosen(me, "/me/preferences", {"threshold": "500.00"})

    assert [fault["pointer"] for fault in too_much.json()["errors"]] == ["/threshold", "/types/charges.upcoming/days_before"]
    assert enough.json()["effective"]["own_threshold_most"] == "500.00"


async def test_hours_that_quiet_hours_leave_nothing_of_are_warned_of(as_subscriber, account, database):
    await run(database, "INSERT INTO quiet_hours (zone, workdays, weekends, updated_at, updated_by) VALUES ('', '22:00-08:00', '22:00-10:00', now(), 'test')")
    me = await as_subscriber("100500")

    shut = await chosen(me, "/me/preferences", {"hours": [{"from": "23:00", "to": "07:00"}]})
    open_ = await chosen(me, "/me/preferences", {"hours": [{"from": "07:00", "to": "09:00"}]}, '"1"')

    assert [(one["pointer"], one["code"]) for one in shut.json()["warnings"]] == [("/hours", "no_open_hours")]
    assert [(one["channel"], one["reason"]) for one in effect(shut, "service.connected")["contacts"]] == [("sms", "no_open_hours"), ("email", None)]
    assert effect(shut, "payment.received")["contacts"][0]["told"], "an urgent one passes both"
    assert shut.json()["effective"]["quiet_hours"] == {"timezone": "Europe/Moscow", "workdays": "22:00-08:00", "weekends": "22:00-10:00"}
    assert open_.json()["warnings"] == []


async def test_hours_of_a_contact_that_contradict_those_of_the_account_are_refused(as_subscriber, account):
    me = await as_subscriber("100500")

    answer = await chosen(
        me,
        "/me/preferences",
        {"hours": [{"from": "09:00", "to": "12:00"}], "contacts": {account["sms"]: {"hours": [{"from": "12:00", "to": "13:00"}]}}},
        status=422,
    )

    assert answer.json()["errors"][0]["pointer"] == f"/contacts/{account['sms']}/hours"
    assert answer.json()["errors"][0]["code"] == "no_open_hours"


async def test_hours_of_the_account_that_leave_a_contact_no_moment_are_refused_too(as_subscriber, account):
    me = await as_subscriber("100500")
    contacts = {account["sms"]: {"hours": [{"from": "12:00", "to": "13:00"}]}}
    await chosen(me, "/me/preferences", {"contacts": contacts})

    answer = await chosen(me, "/me/preferences", {"hours": [{"from": "09:00", "to": "12:00"}], "contacts": contacts}, '"1"', status=422)

    assert [(one["pointer"], one["code"]) for one in answer.json()["errors"]] == [(f"/contacts/{account['sms']}/hours", "no_open_hours")]


async def test_document_that_is_too_large_is_refused_before_its_addresses_are_looked_at(as_subscriber, account, monkeypatch):
    looked_at = []

    def normalise(channel, address, region):
        looked_at.append(address)
        return address

    monkeypatch.setattr("app.accounts.preference_checks.normalise", normalise)
    me = await as_subscriber("100500")
    strangers = {f"8 916 {number:07}": {"enabled": False} for number in range(2000)}

    answer = await chosen(me, "/me/preferences", {"contacts": strangers}, status=422)

    assert answer.json()["errors"][0]["code"] == "document_too_large"
    assert looked_at == []


async def test_choices_for_a_contact_that_is_gone_are_not_shown_and_not_in_the_way(as_subscriber, account, database):
    me = await as_subscriber("100500")
    document = {"contacts": {account["sms"]: {"enabled": False}}}
    await chosen(me, "/me/preferences", document)
    await run(database, "DELETE FROM contact WHERE channel = 'sms'")

    shown = await me.get("/me/preferences")
    again = await chosen(me, "/me/preferences", document, '"1"')

    assert shown.json()["contacts"] == {}
    assert again.json()["contacts"] == {}
    assert (await rows(database, "SELECT document FROM account_preference"))[0].document == {}


async def test_type_that_has_to_be_chosen_tells_nobody_until_it_is(api, as_subscriber, account):
    await the_type(api, "tariff.changed", settings={"opt_in": True})
    me = await as_subscriber("100500")

    before = effect(await me.get("/me/preferences"), "tariff.changed")
    after = effect(await chosen(me, "/me/preferences", {"types": {"tariff.changed": {"enabled": True}}}), "tariff.changed")

    assert (before["enabled"], [one["reason"] for one in before["contacts"]]) == (False, ["not_chosen", "not_chosen"])
    assert (after["enabled"], [one["told"] for one in after["contacts"]]) == (True, [True, True])


async def test_cabinet_changes_its_language_alone(as_subscriber, account):
    me = await as_subscriber("100500")
    await chosen(me, "/me/preferences", {"threshold": "10.00"})

    answer = await me.patch("/me", json={"locale": "en"})

    assert (answer.status_code, answer.json()["locale"], answer.json()["threshold"]) == (200, "en", "10.00")
    shown = await me.get("/me/preferences")
    assert (shown.headers["ETag"], shown.json()["locale"], shown.json()["threshold"]) == ('"2"', "en", "10.00")
    assert (await me.patch("/me", json={"balance": "1.00"})).status_code == 422
    assert (await me.patch("/me", json={"locale": None})).json()["locale"] == "ru"


async def test_preferences_of_another_are_nobodys(api, as_subscriber, account):
    await api.put("/accounts/100501", json=ACCOUNT)
    other = await as_subscriber("100501")

    answer = await chosen(other, "/me/preferences", {"contacts": {account["sms"]: {"enabled": False}}}, status=422)

    assert answer.json()["errors"][0]["code"] == "unknown_contact"
    assert (await other.get("/accounts/100500/preferences")).status_code == 403
    assert (await (await as_subscriber("404")).get("/me/preferences")).status_code == 404


async def test_erasure_takes_the_choices_with_it(api, as_subscriber, account, database):
    await chosen(api, "/accounts/100500/preferences", {"threshold": "10.00", "types": {"balance.exhausting": {"days_before": [5]}}})

    await api.delete("/accounts/100500")

    assert await rows(database, "SELECT 1 FROM account_preference") == []
    (row,) = await rows(database, "SELECT own_threshold, warning_days, upcoming_days FROM account")
    assert tuple(row) == (None, None, None)


async def test_viewer_reads_and_does_not_write(as_role, account):
    viewer = await as_role("viewer")

    assert (await viewer.get("/accounts/100500/preferences")).status_code == 200
    assert (await viewer.put("/accounts/100500/preferences", json={})).status_code == 403


async def test_of_two_changes_of_the_same_version_one_is_told_to_read_again(as_subscriber, api, account, database):
    me = await as_subscriber("100500")
    await chosen(me, "/me/preferences", {"locale": "en"})

    answers = await asyncio.gather(
        me.put("/me/preferences", json={"threshold": "1.00"}, headers={"If-Match": '"1"'}),
        api.put("/accounts/100500/preferences", json={"threshold": "2.00"}, headers={"If-Match": '"1"'}),
    )

    assert sorted(answer.status_code for answer in answers) == [200, 412]
    kept = next(answer.json()["threshold"] for answer in answers if answer.status_code == 200)
    assert (await rows(database, "SELECT own_threshold FROM account"))[0].own_threshold == Decimal(kept)


async def test_refusal_and_planning_at_the_same_moment_leave_nothing_that_would_go(api, account, database, settings):
    (row,) = await rows(database, "SELECT id FROM account")
    planner, tag = Planner(database, settings, Wakeups(settings.redis_url)), None
    for _ in range(5):
        await a_waiting_event(database, row)

        _, answer = await asyncio.gather(
            planner.plan(),
            api.put("/accounts/100500/preferences", json={"types": {"service.connected": {"enabled": False}}}, headers={"If-Match": tag} if tag else {}),
        )

        assert answer.status_code == 200
        assert await rows(database, "SELECT 1 FROM outbox") == [], "planned before it was cancelled, or never planned"
        tag = (await api.put("/accounts/100500/preferences", json={}, headers={"If-Match": answer.headers["ETag"]})).headers["ETag"]
