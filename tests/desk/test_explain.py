"""The chain of decisions in words: for an event, a message, and an account with a type and a day."""

import re
from datetime import timedelta

import pytest

from app.core.clock import now
from app.core.ids import new_id
from app.core.wakeups import Wakeups
from app.desk.steps import pieces, steps
from app.notifications.hold import Holding
from app.notifications.plan import Planner
from app.notifications.states import State
from app.sending.outcome import Accepted, Deferred
from tests.builders.accounts import MAIL, PHONE, a_contact, an_account
from tests.builders.events import a_payment, a_waiting_event
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import a_message, claim, one, run, write
from tests.builders.templates import publish

TYPE = "service.connected"


@pytest.fixture
def wakeups(settings):
    return Wakeups(settings.redis_url, direct=lambda _: True)


@pytest.fixture
def planner(database, settings, wakeups):
    return Planner(database, settings, wakeups)


async def explained(client, path, **query):
    answer = await client.get(path, params={"locale": "en"} | query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def codes(explanation):
    return [step["code"] for step in explanation["steps"]]


def said(explanation, code):
    return next(step["words"] for step in explanation["steps"] if step["code"] == code)


async def prefer(database, account, document):
    await run(database, "INSERT INTO account_preference VALUES (:id, 1, CAST(:d AS jsonb), now(), 'subscriber')", id=account.id, d=document)


async def test_event_is_told_from_its_intake_to_the_receipt(database, api, planner):
    account = await an_account(database)
    await an_smpp_gateway(database)
    event = await a_waiting_event(database, account)
    waiting = await explained(api, f"/events/{event}/explain")
    await planner.plan()
    (claimed,) = await claim(database, owner=(owner := new_id()))
    await write(database, owner, (claimed, Accepted(("42",))))
    await run(
        database,
        "INSERT INTO receipt (id, at, gateway, receipt_group, gateway_message_id, message_id, part, status, stat, state, raw)"
        " VALUES (:id, now(), 'main', 'main', '42', :message, 1, 'matched', 'DELIVRD', 'delivered', '')",
        id=new_id(),
        message=claimed.id,
    )
    await run(database, "UPDATE message SET state = 'delivered'")

    told = await explained(api, f"/events/{event}/explain")

    assert codes(waiting) == ["event_taken", "waits_for_planning"]
    assert codes(told) == ["event_taken", "planned", "told", "no_contact", "sending", "came_out", "receipt"]
    assert "SMS to +7916***4567" in said(told, "told")
    assert said(told, "no_contact") == "E-mail: no message: the account has no address on this channel."
    assert said(told, "receipt").endswith("Delivered.")
    assert told["steps"][-1]["message_id"] == str(claimed.id)
    times = [step["at"] for step in told["steps"]]
    assert times == sorted(times)
    assert PHONE not in str(told)


async def test_it_is_said_in_the_language_that_is_asked_for(database, api, planner):
    event = await a_waiting_event(database, await an_account(database))
    await planner.plan()

    async def words(headers, **query):
        return (await api.get(f"/events/{event}/explain", headers=headers, params=query)).json()

    assert (await words({}))["locale"] == "ru"
    assert (await words({"Accept-Language": "en-US,en;q=0.8,ru;q=0.5"}))["locale"] == "en"
    russian = await words({"Accept-Language": "en"}, locale="ru")
    assert russian["locale"] == "ru"
    assert said(russian, "no_contact") == "E-mail: сообщения нет — у счёта нет адреса для этого канала."
    assert (await api.get(f"/events/{event}/explain", params={"locale": "fr"})).status_code == 422


async def test_refusals_say_who_refused_what_and_since_when(database, api, as_subscriber, planner):
    account = await an_account(database, mails=(MAIL,))
    me = await as_subscriber("100500")
    contacts = {item["channel"]: item["id"] for item in (await me.get("/me/contacts")).json()["items"]}
    chosen = {"types": {"tariff.changed": {"enabled": False}}, "contacts": {contacts["email"]: {"types": {TYPE: False}}}}
    assert (await me.put("/me/preferences", json=chosen)).status_code == 200
    await run(database, "INSERT INTO suppression (channel, address, reason, detail, by, at) VALUES ('sms', :a, 'stop_word', '', 'subscriber', now())", a=PHONE)
    event = await a_waiting_event(database, account)
    other = await a_waiting_event(database, account, "tariff.changed", data={"old_tariff": "A", "new_tariff": "B"})
    await planner.plan()

    told, of_other = await explained(api, f"/events/{event}/explain"), await explained(api, f"/events/{other}/explain")

    assert codes(told) == ["event_taken", "planned", "suppressed", "contact_type_off"]
    assert re.search(r"the subscriber has sent STOP since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d, the subscriber", said(told, "suppressed"))
    assert re.search(
        r"E-mail to s\*\*\*@example.org: .*switched this type off for this address \(since 20.*, by the subscriber\)", said(told, "contact_type_off")
    )
    assert re.search(r"switched this type off \(since .*, by the subscriber\)", said(of_other, "type_off"))


async def test_message_that_waits_says_for_what_and_until_when(database, api, settings, wakeups):
    account = await an_account(database)
    await an_smpp_gateway(database)
    event = await a_waiting_event(database, account)
    hour = now().hour  # quiet hours that are now, whatever the time is
    quiet = f"{(hour + 2) % 24:02}:00-{(hour + 5) % 24:02}:00"  # the clock of Moscow is three hours ahead
    await Planner(database, settings.model_copy(update={"quiet_hours": quiet}), wakeups).plan()

    told = await explained(api, f"/events/{event}/explain")

    assert codes(told)[2:] == ["quiet_hours", "no_contact", "quiet_hours"]
    last = told["steps"][-1]
    assert (last["step"], last["at"]) == ("waits_until", None)
    assert last["not_before"] is not None
    assert last["words"].endswith("quiet hours.")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("UPDATE gateway SET enabled = false", "gateway_disabled"),
        ("UPDATE gateway SET paused = true", "gateway_paused"),
        ("DELETE FROM gateway", "gateway_gone"),
        ("DELETE FROM bind_slot", "gateway_down"),
        ("SELECT 1", "in_queue"),
        ("UPDATE outbox SET gateway = NULL", "no_gateway"),
        ("UPDATE outbox SET state = 'held', reason = 'stopped', stopped_at = now()", "stopped"),
        ("UPDATE outbox SET state = 'sending', claimed_at = now()", "on_the_wire"),
    ],
)
async def test_message_that_is_queued_says_what_it_waits_for(database, api, change, code):
    await an_smpp_gateway(database)
    await run(database, "INSERT INTO bind_slot VALUES ('main', 0, 'x', gen_random_uuid(), now() + interval '1 minute', '{\"state\": \"bound\"}')")
    message = await a_message(database, await an_account(database))
    await run(database, change)

    assert codes(await explained(api, f"/messages/{message}/explain"))[-1] == code


async def test_every_try_of_a_message_is_told_with_what_the_far_side_said(database, api, planner):
    event = await a_waiting_event(database, await an_account(database))
    await an_smpp_gateway(database)
    await planner.plan()
    for outcome in (Deferred("throttled", timedelta(0), False, "0x00000058"), Accepted(("7",))):
        await run(database, "UPDATE outbox SET not_before = now() - interval '1 second'")
        (claimed,) = await claim(database, owner=(owner := new_id()))
        await write(database, owner, (claimed, outcome))

    told = await explained(api, f"/messages/{claimed.id}/explain")

    assert told["event_ids"] == [str(event)]
    assert codes(told) == ["event_taken", "planned", "told", "sending", "throttled", "sending", "came_out"]
    refused = next(step for step in told["steps"] if step["code"] == "throttled")
    assert "0x00000058" in refused["detail"]
    assert refused["words"] == "SMS to +7916***4567: back in the queue: the gateway asked to slow down."


async def test_repetition_of_a_message_says_of_which(database, api):
    account = await an_account(database)
    old = await a_message(database, account, ended="failed", reason="refused")
    answer = await api.post(f"/messages/{old}/resend")

    told = await explained(api, f"/messages/{answer.json()['id']}/explain")

    assert codes(told)[:2] == ["message_made", "resend_of"]
    assert str(old) in said(told, "resend_of")
    assert codes(told)[-1] == "no_gateway"


async def test_balance_of_an_event_is_told_as_kept_or_overtaken(database, api, planner):
    await an_account(database)
    first = (await api.post("/events", json=a_payment(balance="612.30", time="2026-01-10T12:00:00+03:00"))).json()["event_id"]
    kept = await explained(api, f"/events/{first}/explain")
    await api.post("/events", json=a_payment(balance="700.00", time="2026-01-11T12:00:00+03:00"))

    overtaken = await explained(api, f"/events/{first}/explain")

    assert codes(kept)[1] == "balance_kept"
    assert codes(overtaken)[1] == "balance_overtaken"
    assert "612.30; by now the account has 700.00" in said(overtaken, "balance_overtaken")


async def test_day_without_an_event_says_so_and_who_would_be_told_now_by_which_rule(database, api, as_subscriber):
    account = await an_account(database, mails=(MAIL,))
    async with database.transaction() as session:
        session.add(a_contact(account, "sms", "+79165550002", origin="subscriber"))
    await prefer(database, account, f'{{"types": {{"{TYPE}": {{"channels": {{"email": true}}}}}}}}')

    told = await explained(api, "/accounts/100500/explain", type=TYPE, day="2026-01-10")

    assert told["day"] == "2026-01-10"
    assert told["event_ids"] == []
    assert [(step["code"], step["address"]) for step in told["steps"]] == [
        ("no_event", None),
        ("now", None),
        ("would_tell", "+7916***4567"),
        ("not_verified", "+7916***0002"),
        ("would_tell", "s***@example.org"),
    ]
    rules = [step["words"] for step in told["steps"] if step["code"] == "would_tell"]
    assert rules[0].endswith("(by default).")
    assert rules[1].endswith("(the subscriber has chosen it).")


async def test_what_would_happen_now_counts_what_was_told_already(database, api):
    account = await an_account(database)
    await run(
        database,
        "UPDATE notification_type SET settings = CAST(:s AS jsonb), revision = revision + 1 WHERE code = :c",
        s='{"min_interval_seconds": 3600}',
        c=TYPE,
    )
    await run(
        database,
        "INSERT INTO told (event_id, account_id, kind, type, day, at) VALUES (:id, :account, 'operation', :type, CAST(now() AS date), now())",
        id=new_id(),
        account=account.id,
        type=TYPE,
    )

    told = await explained(api, "/accounts/100500/explain", type=TYPE, day="2026-01-10")

    assert codes(told)[2:] == ["too_soon", "no_contact"]
    assert "free from" in said(told, "too_soon")


async def test_events_of_the_day_are_those_of_the_accounts_own_calendar(database, api):
    await an_account(database, timezone="Asia/Vladivostok")
    late = "2026-01-10T23:30:00+10:00"  # the 10th there, and also in Moscow
    early = "2026-01-10T00:30:00+10:00"  # still the 9th in Moscow
    ids = [(await api.post("/events", json=a_payment(time=moment))).json()["event_id"] for moment in (early, late)]

    of_day = await explained(api, "/accounts/100500/explain", type="payment.received", day="2026-01-10")
    of_before = await explained(api, "/accounts/100500/explain", type="payment.received", day="2026-01-09")
    of_today = await explained(api, "/accounts/100500/explain", type="payment.received")

    assert of_day["event_ids"] == ids
    assert codes(of_day)[0] == "events_found"
    assert of_before["event_ids"] == []
    assert of_today["event_ids"] == ids  # they came today


async def test_reminder_that_nobody_sent_says_whether_anybody_looked_and_when_there_will_be_one(database, api):
    await an_account(database, threshold="50.00")
    quiet = await explained(api, "/accounts/100500/explain", type="balance.threshold_reached")
    await api.put(
        "/accounts/100500",
        json={
            "balance": "100.00",
            "timezone": "Europe/Moscow",
            "threshold": "50.00",
            "charges": [{"id": "s", "title": "S", "amount": "60.00", "kind": "daily"}],
        },
    )

    low = await explained(api, "/accounts/100500/explain", type="balance.threshold_reached")

    assert codes(quiet)[:4] == ["no_event", "no_scan", "threshold", "no_notice"]
    assert "threshold is 50.00, its balance 100.00" in said(quiet, "threshold")
    assert codes(low)[:2] == ["no_event", "no_scan"]


async def test_type_without_a_threshold_says_that_there_is_none(database, api):
    await an_account(database)

    told = await explained(api, "/accounts/100500/explain", type="balance.threshold_reached")

    assert "no_threshold" in codes(told)


async def test_what_is_not_there_is_not_found(database, api, as_subscriber):
    await an_account(database)

    for path in (f"/events/{new_id()}/explain", f"/messages/{new_id()}/explain", "/accounts/404/explain?type=x"):
        assert (await api.get(path)).status_code == 404
    assert codes(await explained(api, "/accounts/100500/explain", type="no.such")) == ["no_event", "unknown_type"]
    assert (await api.get("/accounts/100500/explain", params={"type": TYPE, "day": "yesterday"})).status_code == 422
    assert (await (await as_subscriber("100500")).get("/accounts/100500/explain", params={"type": TYPE})).status_code == 403


async def test_erased_account_leaves_nothing_of_its_own_in_the_explanation(database, api, planner):
    event = await a_waiting_event(database, await an_account(database))
    await planner.plan()
    await api.delete("/accounts/100500")

    told = await explained(api, f"/events/{event}/explain")

    assert told["account"] is None
    assert "4567" not in str(told)
    assert codes(told)[-1] == "erased"


async def test_cancelled_message_says_by_what(database, api, planner, settings, wakeups):
    event = await a_waiting_event(database, await an_account(database))
    await planner.plan()
    await run(database, "UPDATE outbox SET state = 'held', reason = 'quiet_hours', not_before = now() - interval '1 second'")
    await run(database, "UPDATE notification_type SET enabled = false, revision = revision + 1 WHERE code = :c", c=TYPE)
    await Holding(database, settings, wakeups).release()

    told = await explained(api, f"/events/{event}/explain")

    assert (await one(database, "SELECT state FROM message")).state == State.CANCELLED
    assert said(told, "type_disabled") == "SMS to +7916***4567: Cancelled: the operator has switched the type off."


async def test_event_whose_template_is_broken_says_so(database, api, planner):
    await publish(database, TYPE, "{{ 1 / 0 }}")
    event = await a_waiting_event(database, await an_account(database))
    await planner.plan()

    assert "render_failed" in codes(await explained(api, f"/events/{event}/explain"))


def test_every_place_in_a_sentence_stands_in_both_languages():
    for said_ in (*steps().values(), *pieces().values()):
        assert sorted(re.findall(r"\{(\w+)\}", said_.ru)) == sorted(re.findall(r"\{(\w+)\}", said_.en))
