"""From events to messages and decisions."""

import asyncio
from datetime import timedelta

import orjson
import pytest
import sqlalchemy as sa
import time_machine
from sqlalchemy.exc import OperationalError

from app.core import metrics
from app.core.clock import now
from app.notifications.plan import Planner
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smpp_gateway, an_smtp_gateway
from tests.builders.messages import one, rows, run, state_of
from tests.builders.templates import publish

POISON = "{{ service.name }} {{ 1 / (account.number|length - 7) }}"


async def decisions(database, event_id):
    return (await one(database, "SELECT decisions FROM notification WHERE event_id = :id", id=event_id)).decisions


async def messages(database):
    return await rows(
        database, "SELECT m.*, o.state AS waits, o.gateway AS via, o.priority, o.send_until FROM message m JOIN outbox o ON o.message_id = m.id ORDER BY m.id"
    )


async def test_event_becomes_a_message_for_each_contact_with_its_words_and_gateway(database, planner):
    account = await an_account(database, mails=("a@example.org",))
    await an_smpp_gateway(database, bound=True)
    await an_smtp_gateway(database)
    event_id = await a_waiting_event(database, account)

    assert await planner.plan() == 1

    sms, mail = await messages(database)
    assert (sms.channel, sms.address, sms.via, sms.waits, sms.encoding) == ("sms", "+79161234567", "main", "queued", "UCS2")
    assert (mail.channel, mail.address, mail.via, mail.waits) == ("email", "a@example.org", "post", "queued")
    assert "TV" in sms.text
    assert mail.subject
    assert mail.html
    assert [(d["outcome"], d["message_id"]) for d in await decisions(database, event_id)] == [("planned", str(sms.id)), ("planned", str(mail.id))]
    assert await rows(database, "SELECT event_id FROM event_waiting") == []


@time_machine.travel("2026-11-23T23:30:00+03:00", tick=True)
async def test_at_night_sms_is_held_until_eight_on_the_subscribers_clock(database, at_night, wakeups):
    account = await an_account(database, timezone="Asia/Yekaterinburg")
    event_id = await a_waiting_event(database, account)

    await Planner(database, at_night, wakeups).plan()

    (message,) = await messages(database)
    assert message.not_before.isoformat() == "2026-11-24T03:00:00+00:00"
    assert message.send_until.isoformat() == "2026-11-24T17:00:00+00:00"
    assert message.expires_at == message.not_before + timedelta(days=2)
    assert await state_of(database, message.id) == ("held", "quiet_hours")
    decision, _ = await decisions(database, event_id)
    assert (decision["reason"], decision["not_before"]) == ("quiet_hours", "2026-11-24T03:00:00+00:00")


@time_machine.travel("2026-11-23T23:30:00+03:00", tick=True)
async def test_payer_is_told_at_night(database, at_night, wakeups):
    await a_waiting_event(database, await an_account(database), "payment.received", data={"amount": "5.00"})

    await Planner(database, at_night, wakeups).plan()

    (message,) = await messages(database)
    assert (message.waits, message.priority, message.send_until) == ("queued", 0, None)


async def test_reason_of_each_one_who_is_not_told_is_kept(database, planner):
    closed = await an_account(database, "closed", status="closed")
    nobody = await an_account(database, "nobody", phones=())
    active = await an_account(database, "active")
    events = [
        await a_waiting_event(database, closed),
        await a_waiting_event(database, nobody),
        await a_waiting_event(database, active, "balance.changed", data={"balance": "1.00"}),
        await a_waiting_event(database, active, time=now() - timedelta(days=3)),
    ]

    assert await planner.plan() == 4

    found = [[decision["reason"] for decision in await decisions(database, event)] for event in events]
    assert found == [["account_closed"], ["no_contact", "no_contact"], ["tells_nobody"], ["too_late"]]
    assert await messages(database) == []


async def test_without_published_words_a_channel_is_skipped_and_the_other_is_told(database, planner):
    account = await an_account(database, mails=("a@example.org",))
    await run(database, "UPDATE template SET published_version = NULL, revision = revision + 1 WHERE type = 'service.connected' AND channel = 'sms'")
    event_id = await a_waiting_event(database, account)

    await planner.plan()

    assert [(d["channel"], d["reason"]) for d in await decisions(database, event_id)] == [("sms", "no_template"), ("email", None)]


async def test_words_that_fail_set_only_that_message_aside(database, planner):
    await publish(database, "service.connected", POISON)
    good, bad = await an_account(database, "good"), await an_account(database, "seven77", mails=("a@example.org",))
    events = [await a_waiting_event(database, account) for account in (good, bad)]
    failed = metrics.PLAN_FAILURES.labels("render_failed")._value.get()

    assert await planner.plan() == 2

    assert [[d["reason"] for d in await decisions(database, event)] for event in events] == [[None, "no_contact"], ["render_failed", None]]
    assert metrics.PLAN_FAILURES.labels("render_failed")._value.get() == failed + 1


async def test_event_that_cannot_be_planned_is_set_aside_alone(database, planner):
    accounts = [await an_account(database, f"acc{number}") for number in range(8)]
    events = [await a_waiting_event(database, account) for account in accounts for _ in range(2)]
    # Data of an older version of us: intake of today would not have taken it.
    await run(database, "UPDATE event SET data = '{\"service\": 5}' WHERE id = :id", id=events[6])

    while await planner.plan(batch=16):
        pass

    reasons = [(await decisions(database, event))[0]["reason"] for event in events]
    assert reasons == [None] * 6 + ["planning_failed"] + [None] * 9
    assert metrics.PLAN_FAILURES.labels("planning_failed")._value.get() >= 1
    assert await rows(database, "SELECT event_id FROM event_waiting") == []


async def test_message_that_the_database_refuses_sets_only_its_event_aside(database, planner):
    await run(database, "ALTER TABLE message ADD CONSTRAINT poison CHECK (text NOT LIKE '%poison%')")
    account = await an_account(database)
    events = [await a_waiting_event(database, account, data={"service": {"code": "x", "name": name}}) for name in ("a", "poison", "b")]

    while await planner.plan():
        pass

    assert [(await decisions(database, event))[0]["reason"] for event in events] == [None, "planning_failed", None]


async def test_database_that_is_shutting_down_sets_nobody_aside(database, planner, monkeypatch):
    class ShuttingDown(Exception):
        sqlstate = "57P01"

    event_id = await a_waiting_event(database, await an_account(database))
    real, failures = Planner._decide, iter(range(12))

    async def decide(*arguments, **more):
        if next(failures, None) is not None:
            raise OperationalError("SELECT", {}, ShuttingDown())
        return await real(*arguments, **more)

    monkeypatch.setattr(Planner, "_decide", decide)
    for _ in range(12):
        with pytest.raises(OperationalError):
            await planner.plan()

    await planner.plan()

    assert (await decisions(database, event_id))[0]["outcome"] == "planned"


async def test_planners_at_once_plan_no_event_twice(database, settings, wakeups):
    for number in range(60):
        account = await an_account(database, f"acc{number}")
        for _ in range(3):
            await a_waiting_event(database, account)

    async def work():
        planner, done = Planner(database, settings, wakeups), 0
        while planned := await planner.plan(batch=20):
            done += planned
        return done

    done = await asyncio.gather(work(), work(), work())

    assert sum(done) == 180
    assert (await one(database, "SELECT count(*) AS n, count(DISTINCT event_id) AS events FROM message")) == (180, 180)


async def test_planner_does_not_wait_for_accounts_that_another_one_has(database, planner):
    accounts = [await an_account(database, f"acc{number}") for number in range(4)]
    for account in accounts:
        await a_waiting_event(database, account)
    async with database.transaction() as session:
        await session.execute(sa.text("SELECT id FROM account WHERE id = ANY(:ids) FOR NO KEY UPDATE"), {"ids": [account.id for account in accounts[:2]]})

        # The oldest two are taken: what comes after them is planned all the same.
        assert await planner.plan(batch=2) == 2

    assert await planner.plan(batch=2) == 2


async def test_events_of_an_account_are_planned_in_the_order_of_their_time(database, planner):
    account = await an_account(database)
    for minutes in (1, 3, 2):
        await a_waiting_event(database, account, data={"service": {"code": "x", "name": f"N{minutes}"}}, time=now() - timedelta(minutes=minutes))

    await planner.plan(batch=1)

    assert [message.text.count(name) for message, name in zip(await messages(database), ("N3", "N2", "N1"), strict=True)] == [1, 1, 1]


async def test_without_a_gateway_a_message_is_queued_without_one(database, planner):
    event_id = await a_waiting_event(database, await an_account(database))

    await planner.plan()

    (message,) = await messages(database)
    assert (message.waits, message.via, message.gateway) == ("queued", None, None)
    assert (await decisions(database, event_id))[0]["gateway"] is None


async def test_gateways_that_have_work_are_woken(database, planner, woken):
    await an_smpp_gateway(database, binds=2)
    await a_waiting_event(database, await an_account(database))

    await planner.plan()

    assert sorted(woken) == ["smpp:main:0", "smpp:main:1"]


async def test_nothing_waits_and_nothing_is_planned(planner):
    assert await planner.plan() == 0


async def a_routing(database, *given):
    await run(
        database,
        "INSERT INTO routing (id, routes, revision, updated_at) VALUES (1, CAST(:routes AS jsonb), 1, now())"
        " ON CONFLICT (id) DO UPDATE SET routes = excluded.routes, revision = routing.revision + 1",
        routes=orjson.dumps(given).decode(),
    )


async def test_message_keeps_what_its_route_says(database, planner):
    await an_smpp_gateway(database, "main", bound=True, price_per_part="1.10")
    await an_smpp_gateway(database, "vip", bound=True, price_per_part="2.20")
    await a_routing(
        database,
        {"name": "vip", "attributes": {"segment": ["vip"]}, "gateways": ["vip"], "sender": "VIP"},
        {"gateways": ["main"], "price_per_part": "0.95"},
    )
    home, vip = await an_account(database, "home"), await an_account(database, "vip", attributes={"segment": "vip"}, phones=("+79260000001",))
    event_id = await a_waiting_event(database, home)
    await a_waiting_event(database, vip)

    await planner.plan()

    found = {message.address: (message.via, message.gateway, message.route, message.sender, str(message.price)) for message in await messages(database)}
    assert found == {"+79161234567": ("main", "main", "#2", None, "0.9500"), "+79260000001": ("vip", "vip", "vip", "VIP", "2.2000")}
    assert (await decisions(database, event_id))[0]["route"] == "#2"


async def test_change_of_routes_and_of_gateways_holds_for_the_next_batch(database, planner):
    await an_smpp_gateway(database, "alpha", bound=True)
    account, seen = await an_account(database), []

    async def plan():
        await a_waiting_event(database, account)
        await planner.plan()
        seen.append((await messages(database))[-1].via)

    await plan()
    await an_smpp_gateway(database, "beta", bound=True)
    await a_routing(database, {"gateways": ["beta", "alpha"]})
    await plan()
    await run(database, "UPDATE bind_slot SET status = '{\"state\": \"connecting\"}' WHERE gateway = 'beta'")
    await plan()
    await run(database, "UPDATE gateway SET enabled = false WHERE name = 'alpha'")
    await plan()

    assert seen == ["alpha", "beta", "alpha", "beta"]


async def test_subscriber_of_another_operator_takes_another_gateway(database, planner):
    for name in ("mts", "megafon", "other"):
        await an_smpp_gateway(database, name, bound=True)
    await run(
        database,
        "INSERT INTO number_range (kind, first, last, operator) VALUES ('range', 79160000000, 79169999999, 'МТС'),"
        " ('range', 79260000000, 79269999999, 'МегаФон'), ('ported', 79160000002, 79160000002, 'МегаФон')",
    )
    await a_routing(database, {"operator": ["мтс"], "gateways": ["mts"]}, {"operator": ["Мегафон"], "gateways": ["megafon"]}, {"gateways": ["other"]})
    account = await an_account(database, phones=("+79160000001", "+79160000002", "+79260000003", "+79990000004"))
    await a_waiting_event(database, account)

    await planner.plan()

    assert {message.address: message.via for message in await messages(database)} == {
        "+79160000001": "mts",
        "+79160000002": "megafon",
        "+79260000003": "megafon",
        "+79990000004": "other",
    }


async def test_parts_are_counted_as_the_chosen_gateway_cuts(database, planner):
    await publish(database, "service.connected", "Подключена услуга {{ service.name }}, спасибо, что вы с нами! Подробности в личном кабинете.")
    await an_smpp_gateway(database, bound=True, profile={"transliteration": "ascii"})
    await a_waiting_event(database, await an_account(database))

    await planner.plan()

    (message,) = await messages(database)
    assert (message.encoding, message.parts) == ("GSM7", 1)
    assert "Подключена" in message.text


async def test_gateway_whose_row_cannot_be_read_does_not_stop_the_planning(database, planner):
    await an_smpp_gateway(database, bound=True)
    await run(database, 'UPDATE gateway SET settings = settings || \'{"window": "wide"}\', revision = revision + 1')
    await a_routing(database, {"gateways": "nonsense", "colour": 1})
    await a_waiting_event(database, await an_account(database))

    await planner.plan()

    assert [message.via for message in await messages(database)] == ["main"]
