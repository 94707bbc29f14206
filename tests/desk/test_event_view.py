"""What was decided about an event, and planning it once more."""

import asyncio
from uuid import uuid4

import pytest

from app.core.wakeups import Wakeups
from app.notifications.plan import Planner, take
from tests.builders.accounts import an_account
from tests.builders.events import a_payment, a_waiting_event
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import one, rows, run
from tests.builders.templates import publish


@pytest.fixture
def planner(database, settings):
    return Planner(database, settings, Wakeups(settings.redis_url, direct=lambda queue: True))


@pytest.fixture
async def failed(database, planner):
    """An event whose words could not be made."""
    account = await an_account(database, mails=())
    await publish(database, "service.connected", "{{ 1 / 0 }}")
    event_id = await a_waiting_event(database, account)
    await planner.plan()
    return event_id


async def test_event_is_pending_until_it_is_planned_and_then_says_who_was_told(database, api, planner):
    await an_account(database)
    await an_smpp_gateway(database)
    event_id = (await api.post("/events", json=a_payment(id="p1", time="2026-01-23T10:00:00+03:00"))).json()["event_id"]

    pending = (await api.get(f"/events/{event_id}")).json()
    assert (pending["state"], pending["decisions"]) == ("pending", [])
    assert (pending["id"], pending["source"], pending["account"], pending["data"]) == ("p1", "/billing/payments", "100500", {"amount": "500.00"})
    await run(database, "UPDATE event SET time = now()")
    await planner.plan()

    planned = (await api.get(f"/events/{event_id}")).json()
    sms, mail = planned["decisions"]
    assert planned["state"] == "planned"
    assert (sms["outcome"], sms["channel"], sms["address"], sms["gateway"], sms["reason"]) == ("planned", "sms", "+79161234567", "main", None)
    assert (mail["outcome"], mail["channel"], mail["address"], mail["reason"]) == ("skipped", "email", None, "no_contact")
    assert (await api.get(f"/messages/{sms['message_id']}")).json()["event_id"] == event_id


async def test_events_are_found_by_account_type_and_their_own_id(database, api):
    await an_account(database)
    await an_account(database, "other")
    made = {}
    for number, (account, kind) in enumerate((("100500", "payment.received"), ("other", "payment.received"), ("100500", "balance.changed"))):
        event = a_payment(account, id=f"e{number}", type=kind, balance="1.00")
        made[number] = (await api.post("/events", json=event)).json()["event_id"]

    async def found(**query):
        return [item["event_id"] for item in (await api.get("/events", params=query)).json()["items"]]

    assert await found() == [made[2], made[1], made[0]]
    assert await found(account="100500") == [made[2], made[0]]
    assert await found(type="balance.changed") == [made[2]]
    assert await found(source="/billing/payments", id="e1") == [made[1]]
    assert await found(source="/billing/payments", id="e9") == []


async def test_event_whose_words_are_mended_is_planned_again(database, api, planner, failed):
    await publish(database, "service.connected", "{{ service.name }}")

    answer = await api.post(f"/events/{failed}/replan")

    assert (answer.status_code, answer.json()["state"]) == (202, "pending")
    assert await planner.plan() == 1
    decisions = (await api.get(f"/events/{failed}")).json()["decisions"]
    assert [decision["outcome"] for decision in decisions] == ["planned", "skipped"]
    record = await one(database, "SELECT action, changes FROM audit_record")
    assert (record.action, record.changes) == ("event.replan", {"state": ["planned", "pending"], "reasons": [["no_contact", "render_failed"], []]})


async def test_event_that_told_somebody_is_not_planned_again(database, api, planner):
    event_id = await a_waiting_event(database, await an_account(database))
    await planner.plan()

    answer = await api.post(f"/events/{event_id}/replan")

    assert (answer.status_code, answer.json()["code"]) == (409, "already_told")


async def test_event_that_was_rightly_told_to_nobody_is_not_planned_again(database, api, planner):
    event_id = await a_waiting_event(database, await an_account(database, phones=()))
    await planner.plan()

    answer = await api.post(f"/events/{event_id}/replan")

    assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_replan")


async def test_event_that_is_not_there_is_not_found(api):
    for answer in (await api.get(f"/events/{uuid4()}"), await api.post(f"/events/{uuid4()}/replan")):
        assert answer.status_code == 404


async def test_replanning_ten_times_at_once_while_planners_run_tells_nobody_twice(database, api, planner, failed):
    await publish(database, "service.connected", "{{ service.name }}")

    async def plan():
        for _ in range(20):
            await planner.plan()

    answers, _ = await asyncio.gather(asyncio.gather(*(api.post(f"/events/{failed}/replan") for _ in range(10))), plan())
    await planner.plan()

    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len(await rows(database, "SELECT id FROM message")) == 1


async def test_replanning_an_event_that_is_just_being_planned_tells_nobody_twice(database, api, planner, settings):
    account = await an_account(database)
    event_id = await a_waiting_event(database, account)
    async with database.transaction() as session:
        # A planner has taken it and decided; its commit is on the way.
        events = await take(session, 1)
        decided, _, _ = await planner._decide(session, events)
        await decided.write(session)
        replan = asyncio.create_task(api.post(f"/events/{event_id}/replan"))
        await asyncio.sleep(0.2)

    assert (await replan).json()["code"] == "already_told"
    assert await planner.plan() == 0
    assert len(await rows(database, "SELECT id FROM message")) == 1
