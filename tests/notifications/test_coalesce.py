"""Several events of one type, one message."""

import asyncio
from datetime import timedelta

import pytest
import time_machine

from app.core.clock import now
from app.notifications.coalesce import MOST
from app.notifications.ending import close
from app.notifications.plan import Planner
from app.notifications.rows import Rows
from app.notifications.states import State
from tests.builders.accounts import a_contact, an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import one, rows, run, state_of
from tests.builders.templates import publish
from tests.builders.types import set_type

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def account(database):
    await an_smpp_gateway(database)
    await set_type(database, "service.disconnected", coalesce_seconds=60)
    return await an_account(database)


async def disconnected(database, account, name="TV", **more):
    return await a_waiting_event(database, account, "service.disconnected", data={"service": {"code": "x", "name": name}}, **more)


async def a_mail_contact(database, account):
    async with database.transaction() as session:
        session.add(a_contact(account, "email", "a@example.org"))


async def decisions(database, event_id, channel="sms"):
    found = (await one(database, "SELECT decisions FROM notification WHERE event_id = :id", id=event_id)).decisions
    return [(decision["outcome"], decision["reason"], decision.get("message_id")) for decision in found if decision["channel"] == channel]


async def messages(database):
    return await rows(
        database,
        "SELECT m.id, m.event_id, m.channel, m.text, m.expires_at, o.state, o.reason, o.not_before, o.coalesce_key"
        " FROM message m LEFT JOIN outbox o ON o.message_id = m.id ORDER BY m.id",
    )


async def release(database, holding):
    """As if the time that what is held waits for were over."""
    await run(database, "UPDATE outbox SET not_before = now() - interval '1 second' WHERE state = 'held'")
    return await holding.release()


@time_machine.travel("2026-11-23T12:00:00+03:00", tick=False)
async def test_first_waits_for_the_others_and_they_join_it(database, planner, account):
    first = await disconnected(database, account)
    await planner.plan()
    later = [await disconnected(database, account, name) for name in ("Phone", "Cinema")]
    await planner.plan()

    (message,) = await messages(database)
    assert (message.state, message.reason, message.event_id) == ("held", "coalescing", first)
    assert message.not_before == now() + MINUTE
    assert await decisions(database, first) == [("planned", "coalescing", str(message.id))]
    assert [await decisions(database, event) for event in later] == [[("planned", "coalesced", str(message.id))]] * 2
    joined = await rows(database, "SELECT event_id, message_id FROM notification_event ORDER BY event_id")
    assert [tuple(row) for row in joined] == [(event, message.id) for event in later]


async def test_five_services_disconnected_together_are_one_sms(database, planner, holding, account):
    for name in ("TV", "Интернет 100", "Кино", "Радио", "Телефон"):
        await disconnected(database, account, name)
    await planner.plan()

    assert await release(database, holding) == 1

    message = await one(database, "SELECT id, text, parts, encoding FROM message")
    assert (message.text, message.parts) == ("Счёт 100500: отключены TV, Интернет 100, Кино, Радио,... (5)", 1)
    assert await state_of(database, message.id) == ("queued", None)
    (released,) = await rows(database, "SELECT detail FROM message_change WHERE reason = 'released'")
    assert released.detail == "5 events"


async def test_alone_it_says_what_it_always_said(database, planner, holding, account):
    await disconnected(database, account)
    await planner.plan()

    await release(database, holding)

    assert (await one(database, "SELECT text FROM message")).text == "Счёт 100500: отключено «TV»"


async def test_words_find_all_events_oldest_first_and_the_newest_ones_data(database, planner, holding, account):
    await publish(
        database, "service.disconnected", "{{ service.name }} {{ count }}: {% for one in events %}{{ one.service.name }};{% endfor %} {{ event.time|time }}"
    )
    moment = now() - timedelta(hours=1)
    await disconnected(database, account, "B", time=moment + MINUTE)
    await planner.plan()
    await disconnected(database, account, "A", time=moment)
    newest = await disconnected(database, account, "C", time=moment + 2 * MINUTE)
    await planner.plan()

    await release(database, holding)

    hour = await one(database, "SELECT to_char(time AT TIME ZONE 'Europe/Moscow', 'HH24:MI') AS said FROM event WHERE id = :id", id=newest)
    assert (await one(database, "SELECT text FROM message")).text == f"C 3: A;B;C; {hour.said}"


async def test_what_comes_after_the_release_begins_anew(database, planner, holding, account):
    await disconnected(database, account)
    await planner.plan()
    await release(database, holding)

    event = await disconnected(database, account)
    await planner.plan()

    first, second = await messages(database)
    assert (first.state, first.coalesce_key, second.state, second.event_id) == ("queued", None, "held", event)


async def test_message_put_back_to_held_after_its_release_is_in_nobodys_way(database, planner, holding, account):
    await disconnected(database, account)
    await planner.plan()
    await release(database, holding)
    await disconnected(database, account)
    await planner.plan()

    await run(database, "UPDATE outbox SET state = 'held' WHERE state = 'queued'")

    assert [message.state for message in await messages(database)] == ["held", "held"]


@time_machine.travel("2026-11-23T23:30:00+03:00", tick=True)
async def test_what_waits_for_the_morning_is_joined_all_night(database, at_night, wakeups, account):
    planner = Planner(database, at_night, wakeups)
    await disconnected(database, account)
    await planner.plan()
    with time_machine.travel("2026-11-24T04:00:00+03:00", tick=True):
        event = await disconnected(database, account)
        await planner.plan()

    (message,) = await messages(database)
    assert (message.reason, message.not_before.isoformat()) == ("quiet_hours", "2026-11-24T05:00:00+00:00")
    assert await decisions(database, event) == [("planned", "coalesced", str(message.id))]


@time_machine.travel("2026-11-23T12:00:00+03:00", tick=False)
async def test_newest_news_is_of_use_for_its_full_time(database, planner, account):
    await disconnected(database, account)
    await planner.plan()
    await run(database, "UPDATE outbox SET expires_at = :soon", soon=now() + MINUTE)

    await disconnected(database, account)
    await planner.plan()

    message, line = await one(database, "SELECT expires_at FROM message"), await one(database, "SELECT expires_at FROM outbox")
    assert message.expires_at == line.expires_at == now() + timedelta(days=2)


async def test_each_contact_and_each_type_has_a_message_of_its_own(database, planner, account):
    await set_type(database, "service.connected", coalesce_seconds=60)
    other = await an_account(database, "other", phones=("+79160000001", "+79160000002"), mails=("a@example.org",))
    for each in (account, other):
        for _ in range(2):
            await disconnected(database, each)
            await a_waiting_event(database, each)

    await planner.plan()

    assert len(await messages(database)) == 2 + 2 * 3


async def test_types_that_do_not_say_so_are_never_put_together(database, planner, account):
    for _ in range(3):
        await a_waiting_event(database, account, "payment.received", data={"amount": "5.00"})

    await planner.plan()

    assert [message.state for message in await messages(database)] == ["queued"] * 3
    assert await rows(database, "SELECT event_id FROM notification_event") == []


async def test_payments_put_together_are_one_sum(database, planner, holding, account):
    await set_type(database, "payment.received", coalesce_seconds=60)
    for amount, balance in (("5.00", "105.00"), ("7.50", "112.50")):
        await a_waiting_event(database, account, "payment.received", data={"amount": amount, "balance": balance})
    await planner.plan()

    await release(database, holding)

    assert (await one(database, "SELECT text FROM message")).text == "Счёт 100500: +12,50 руб. (2) Баланс 112,50 руб."


async def test_five_hundred_events_of_one_account_are_few_messages_and_none_is_lost(database, planner, holding, account):
    events = [await disconnected(database, account, f"S{number}") for number in range(2 * MOST + 50)]
    await planner.plan()
    await publish(database, "service.disconnected", "{{ count }} {{ events|join(',', 'service.name') }}")

    told = await messages(database)
    assert [message.coalesce_key is None for message in told] == [True, True, False]
    await release(database, holding)

    words = [message.text.split(" ") for message in await messages(database)]
    assert [number for number, _ in words] == [str(MOST), str(MOST), "50"]
    assert [name for _, names in words for name in names.split(",")] == [f"S{number}" for number in range(len(events))]


async def test_full_message_of_an_earlier_batch_makes_room_for_another(database, planner, account):
    await disconnected(database, account)
    await planner.plan()
    message = await one(database, "SELECT id FROM message")
    await run(database, "INSERT INTO notification_event SELECT gen_random_uuid(), :id FROM generate_series(2, :most)", id=message.id, most=MOST)

    events = [await disconnected(database, account) for _ in range(2)]
    await planner.plan()

    full, second = await messages(database)
    assert (full.id, full.coalesce_key) == (message.id, None)
    assert [await decisions(database, event) for event in events] == [[("planned", reason, str(second.id))] for reason in ("coalescing", "coalesced")]


async def test_what_joins_takes_no_place_of_a_cap(database, planner, account):
    await set_type(database, "service.disconnected", settings={"kind": "service"})
    await run(database, "INSERT INTO cap (kind, per_day, updated_at, updated_by) VALUES ('service', 1, now(), 'test')")
    events = [await disconnected(database, account) for _ in range(3)]

    await planner.plan()

    assert [(await decisions(database, event))[0][1] for event in events] == ["coalescing", "coalesced", "coalesced"]
    assert [row.event_id for row in await rows(database, "SELECT event_id FROM told")] == [events[0]]


async def test_event_joins_where_it_is_in_time_and_begins_anew_where_it_is_not(database, planner, holding, account):
    await a_mail_contact(database, account)
    await disconnected(database, account)
    await planner.plan()
    await run(database, "UPDATE outbox SET not_before = now() - interval '1 second' WHERE channel = 'email'")
    await holding.release()

    event = await disconnected(database, account)
    await planner.plan()

    sms, sent, mail = await messages(database)
    assert (sms.state, sent.state, mail.state) == ("held", "queued", "held")
    assert await decisions(database, event) == [("planned", "coalesced", str(sms.id))]
    assert await decisions(database, event, "email") == [("planned", "coalescing", str(mail.id))]


async def test_cancelled_message_is_joined_by_nobody(database, planner, account):
    await disconnected(database, account)
    await planner.plan()
    first = await one(database, "SELECT id FROM message")
    async with database.transaction() as session:
        await close(session, [first.id], State.CANCELLED, "operator", now())

    event = await disconnected(database, account)
    await planner.plan()

    _, second = await messages(database)
    assert await decisions(database, event) == [("planned", "coalescing", str(second.id))]


async def test_event_that_joins_while_its_message_is_released_is_told_by_another_one(database, planner, account):
    await disconnected(database, account)
    await planner.plan()
    event = await disconnected(database, account)
    held = await one(database, "SELECT message_id FROM outbox")

    async with database.transaction() as session:
        # As release does: the line is locked, and leaves its key when it goes into the queue.
        connection = await session.connection()
        await connection.exec_driver_sql("SELECT message_id FROM outbox FOR UPDATE")
        planning = asyncio.create_task(planner.plan())
        await asyncio.sleep(0.3)
        assert not planning.done(), "it waits for the message that it would join"
        await connection.exec_driver_sql("UPDATE outbox SET state = 'queued', coalesce_key = NULL")
    await planning

    first, second = await messages(database)
    assert (first.id, first.state) == (held.message_id, "queued")
    assert await decisions(database, event) == [("planned", "coalescing", str(second.id))]


async def test_event_that_joined_in_time_is_told_by_the_release_that_waited_for_it(database, planner, holding, account):
    await disconnected(database, account, "A")
    await planner.plan()
    await run(database, "UPDATE outbox SET not_before = now() - interval '1 second'")
    event = await disconnected(database, account, "B")
    slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); RETURN NEW; END $$"
    await run(database, slow)
    await run(database, "CREATE TRIGGER slow BEFORE INSERT ON notification_event FOR EACH ROW EXECUTE FUNCTION slow()")

    planning = asyncio.create_task(planner.plan())
    await asyncio.sleep(0.25)
    assert await holding.release() == 0, "somebody is joining it"
    await planning
    assert await holding.release() == 1

    message = await one(database, "SELECT id, text FROM message")
    assert message.text == "Счёт 100500: отключены A, B (2)"
    assert await decisions(database, event) == [("planned", "coalesced", str(message.id))]


async def test_planner_that_dies_leaves_the_event_for_another_one(database, planner, holding, account, monkeypatch):
    await disconnected(database, account, "A")
    await planner.plan()
    await disconnected(database, account, "B")

    async def die(_rows, _session):
        raise OSError("killed")

    with monkeypatch.context() as dying:
        dying.setattr(Rows, "write", die)
        with pytest.raises(OSError, match="killed"):
            await planner.plan()
    await planner.plan()
    await release(database, holding)

    assert (await one(database, "SELECT text FROM message")).text == "Счёт 100500: отключены A, B (2)"


async def test_many_planners_and_a_release_lose_nothing_and_double_nothing(database, settings, wakeups, holding):
    await set_type(database, "service.disconnected", coalesce_seconds=1)
    await publish(database, "service.disconnected", "{{ events|join(',', 'service.name') }}")
    accounts = [await an_account(database, f"a{number}", phones=(f"+7916000000{number}",)) for number in range(3)]
    planners, over = [Planner(database, settings, wakeups) for _ in range(2)], asyncio.Event()

    async def planning(planner):
        while not over.is_set():
            if not await planner.plan(batch=4):
                await asyncio.sleep(0.01)

    async def releasing():
        while not over.is_set():
            await run(database, "UPDATE outbox SET not_before = now() - interval '1 second' WHERE state = 'held'")
            await holding.release()
            await asyncio.sleep(0.02)

    tasks = [asyncio.create_task(work) for work in (*map(planning, planners), releasing())]
    for number in range(40):
        await asyncio.gather(*(disconnected(database, account, f"{account.number}-{number}") for account in accounts))
    while await rows(database, "SELECT event_id FROM event_waiting") or await rows(database, "SELECT message_id FROM outbox WHERE state = 'held'"):
        await asyncio.sleep(0.05)
    over.set()
    await asyncio.gather(*tasks)

    told = [name for message in await messages(database) for name in message.text.split(",")]
    assert sorted(told) == sorted(f"a{account}-{number}" for account in range(3) for number in range(40))


async def test_what_was_told_together_is_sent_again_in_the_same_words(database, planner, holding, account, api):
    for name in ("A", "B"):
        await disconnected(database, account, name)
    await planner.plan()
    await release(database, holding)
    message = await one(database, "SELECT id FROM message")
    await run(database, "DELETE FROM outbox")
    await run(database, "UPDATE message SET state = 'delivered'")

    answer = await api.post(f"/messages/{message.id}/resend")

    assert answer.status_code == 201, answer.text
    assert answer.json()["text"] == "Счёт 100500: отключены A, B (2)"


async def test_decisions_are_shown_with_the_message_that_tells_the_event(database, planner, account, api):
    await disconnected(database, account)
    event = await disconnected(database, account)
    await planner.plan()
    message = await one(database, "SELECT id FROM message")

    (decision, _) = (await api.get(f"/events/{event}")).json()["decisions"]

    assert (decision["outcome"], decision["reason"], decision["message_id"], decision["address"]) == ("planned", "coalesced", str(message.id), "+79161234567")


async def test_erased_account_leaves_neither_message_nor_count(database, planner, account, api):
    await set_type(database, "service.disconnected", settings={"kind": "reminder"})
    for _ in range(2):
        await disconnected(database, account)
    await planner.plan()

    assert (await api.delete("/accounts/100500")).status_code == 204

    assert await rows(database, "SELECT event_id FROM told") == []
    (message,) = await messages(database)
    assert (message.state, message.text) == (None, "")


async def test_chain_of_channels_is_joined_as_a_whole(database, planner, account):
    await set_type(database, "service.disconnected", settings={"delivery": "chain", "fallback_minutes": 30})
    await a_mail_contact(database, account)
    events = []
    for batch in (1, 2):
        events += [await disconnected(database, account) for _ in range(batch)]
        await planner.plan()

    sms, mail = await messages(database)
    assert (sms.reason, mail.reason) == ("coalescing", "fallback")
    for event in events[1:]:
        assert await decisions(database, event) == [("planned", "coalesced", str(sms.id))]
        assert await decisions(database, event, "email") == [("planned", "coalesced", str(mail.id))]


async def test_later_chain_does_not_join_what_follows_an_earlier_one(database, planner, holding, account):
    await set_type(database, "service.disconnected", settings={"delivery": "chain", "fallback_minutes": 30})
    await a_mail_contact(database, account)
    await disconnected(database, account)
    await planner.plan()
    await run(database, "UPDATE outbox SET not_before = now() - interval '1 second' WHERE channel = 'sms'")
    await holding.release()

    await disconnected(database, account)
    await planner.plan()

    follows = await rows(database, "SELECT o.after_message, m.event_id FROM outbox o JOIN message m ON m.id = o.message_id WHERE o.channel = 'email'")
    heads = {row.id: row.event_id for row in await rows(database, "SELECT id, event_id FROM message WHERE channel = 'sms'")}
    assert len(follows) == 2
    assert all(heads[row.after_message] == row.event_id for row in follows)
