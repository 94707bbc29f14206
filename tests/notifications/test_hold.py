"""Held messages: released in the words of the day, put off, expired, moved to another gateway."""

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa
import time_machine

from app.core.clock import now
from app.notifications.ending import close
from app.notifications.hold import Holding
from app.notifications.states import State
from tests.builders.accounts import PHONE, a_contact, an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import HOUR, a_message, claim, one, rows, run, state_of
from tests.builders.templates import publish

PAST, SOON = timedelta(minutes=-1), timedelta(minutes=10)


@pytest.fixture
async def account(database):
    return await an_account(database)


async def a_held_message(database, account, *, due=PAST, **fields):
    """Held by quiet hours that are over; with the event and the contact that it came from."""
    event_id = await a_waiting_event(database, account)
    await run(database, "DELETE FROM event_waiting")
    contact = await rows(database, "SELECT id FROM contact WHERE account_id = :id", id=account.id)
    given = {
        "event_id": event_id,
        "contact_id": contact[0].id,
        "state": "held",
        "reason": "quiet_hours",
        "not_before": now() + due,
        "text": "as planned",
        "gateway": None,
    }
    return await a_message(database, account, **(given | fields))


async def test_due_message_is_queued_in_the_words_published_now(database, holding, account, woken):
    await an_smpp_gateway(database)
    message = await a_held_message(database, account)
    version = await publish(database, "service.connected", "New: {{ service.name }}")

    assert await holding.release() == 1

    row = await one(
        database,
        "SELECT m.text, m.template_version, m.parts, m.gateway, o.state, o.reason, o.gateway AS via FROM message m JOIN outbox o ON o.message_id = m.id",
    )
    assert row == ("New: TV", version, 1, "main", "queued", None, "main")
    assert woken == ["smpp:main:0"]
    assert [change.reason for change in await rows(database, "SELECT reason FROM message_change WHERE message_id = :id", id=message)] == ["released"]


async def test_released_message_may_be_claimed_at_once(database, holding, account):
    await an_smpp_gateway(database)
    message = await a_held_message(database, account)

    await holding.release()

    assert [claimed.id for claimed in await claim(database)] == [message]


async def test_message_whose_hour_has_not_come_stays_held(database, holding, account):
    message = await a_held_message(database, account, due=SOON)

    assert await holding.release() == 0
    assert await state_of(database, message) == ("held", "quiet_hours")


async def test_words_that_cannot_be_made_any_more_are_those_of_the_plan(database, holding, account):
    message = await a_held_message(database, account)
    await publish(database, "service.connected", "{{ 1 / 0 }}")

    await holding.release()

    assert await state_of(database, message) == ("queued", None)
    assert (await one(database, "SELECT text FROM message")).text == "as planned"


async def test_resent_message_keeps_its_words(database, holding, account):
    first = await a_message(database, account, ended="delivered")
    await a_held_message(database, account, resend_of=first)
    await publish(database, "service.connected", "New: {{ service.name }}")

    await holding.release()

    assert (await one(database, "SELECT text FROM message WHERE resend_of IS NOT NULL")).text == "as planned"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("DELETE FROM contact", "contact_removed"),
        (
            "INSERT INTO suppression (channel, address, reason, detail, by, at) SELECT channel, address, 'operator', '', 'test', now() FROM contact",
            "suppressed",
        ),
        ("UPDATE notification_type SET enabled = false, revision = revision + 1 WHERE code = 'service.connected'", "type_disabled"),
        ("UPDATE account SET status = 'closed'", "account_closed"),
    ],
)
async def test_message_that_nobody_should_get_any_more_is_cancelled_instead_of_released(database, holding, account, change, reason):
    message = await a_held_message(database, account)
    await run(database, change)

    await holding.release()

    assert await state_of(database, message) == ("cancelled", reason)
    assert (await one(database, "SELECT state, reason FROM message_change WHERE message_id = :id", id=message)) == ("cancelled", reason)


@time_machine.travel("2026-11-23T23:30:00+03:00", tick=True)
async def test_release_that_comes_only_the_next_night_waits_for_the_morning_after(database, at_night, wakeups, account):
    message = await a_held_message(database, account, not_before=now() - timedelta(hours=15))
    await run(database, "UPDATE outbox SET not_before = LEAST(not_before, now()), expires_at = now() + interval '1 year'")

    await Holding(database, at_night, wakeups).release()

    assert await state_of(database, message) == ("held", "quiet_hours")
    row = await one(database, "SELECT not_before, send_until FROM outbox")
    assert row.not_before.isoformat() == "2026-11-24T05:00:00+00:00"
    assert row.send_until.isoformat() == "2026-11-24T19:00:00+00:00"


@pytest.mark.parametrize(("reason", "stands_still"), [("budget", True), ("stopped", True), ("quiet_hours", False)])
@time_machine.travel("2026-11-24T00:00:00+03:00", tick=False)
async def test_what_a_budget_or_a_stop_held_does_not_expire_in_the_night_that_follows(database, at_night, wakeups, account, reason, stands_still):
    message = await a_held_message(database, account, reason=reason)
    await run(database, "UPDATE outbox SET not_before = LEAST(not_before, now()), expires_at = now() + interval '4 hours'")
    before = (await one(database, "SELECT expires_at FROM outbox")).expires_at

    await Holding(database, at_night, wakeups).release()

    row = await one(database, "SELECT o.expires_at, m.expires_at AS of_message FROM outbox o JOIN message m ON m.id = o.message_id")
    assert await state_of(database, message) == ("held", "quiet_hours")
    assert row.expires_at == row.of_message == before + (timedelta(hours=8) if stands_still else timedelta(0))


@time_machine.travel("2026-11-23T12:00:00+03:00", tick=True)
async def test_released_sms_may_go_until_the_evening(database, at_night, wakeups, account):
    await a_held_message(database, account, not_before=now() - HOUR)
    await run(database, "UPDATE outbox SET not_before = LEAST(not_before, now()), expires_at = now() + interval '1 year'")

    await Holding(database, at_night, wakeups).release()

    assert (await one(database, "SELECT send_until FROM outbox")).send_until.isoformat() == "2026-11-23T19:00:00+00:00"


async def test_two_sweepers_release_a_message_once(database, holding, settings, wakeups, account):
    for _ in range(20):
        await a_held_message(database, account)

    moved = await asyncio.gather(holding.release(), Holding(database, settings, wakeups).release())

    assert sum(moved) == 20
    assert (await one(database, "SELECT count(*) AS n FROM message_change")).n == 20


@time_machine.travel("2026-11-23T22:00:01+03:00", tick=True)
async def test_what_backed_up_past_the_window_is_put_off_to_the_morning(database, at_night, wakeups, account):
    late = await a_message(database, account, send_until=now() - timedelta(seconds=1))
    endless = await a_message(database, account)
    await run(database, "UPDATE outbox SET send_until = now() - interval '1 second' WHERE send_until IS NOT NULL")
    await run(database, "UPDATE outbox SET expires_at = now() + interval '1 year'")

    assert await Holding(database, at_night, wakeups).put_off() == 1

    row = await one(database, "SELECT not_before, send_until FROM outbox WHERE message_id = :id", id=late)
    assert (row.not_before.isoformat(), row.send_until.isoformat()) == ("2026-11-24T05:00:00+00:00", "2026-11-24T19:00:00+00:00")
    assert await state_of(database, late) == ("held", "quiet_hours")
    assert await state_of(database, endless) == ("queued", None)


async def test_what_is_on_the_wire_is_not_put_off_or_expired(database, holding, account):
    message = await a_message(database, account)
    await claim(database)
    await run(database, "UPDATE outbox SET send_until = now() - interval '1 second', expires_at = now() - interval '1 second'")

    assert (await holding.put_off(), await holding.expire()) == (0, 0)
    assert await state_of(database, message) == ("sending", None)


async def test_what_came_too_late_expires_held_or_queued(database, holding, account):
    queued = await a_message(database, account, expires_at=now() + PAST)
    held = await a_held_message(database, account, expires_at=now() + PAST)

    assert await holding.release() == 0
    assert await holding.expire() == 2

    assert await state_of(database, queued) == await state_of(database, held) == ("expired", "too_late")
    assert await rows(database, "SELECT message_id FROM outbox") == []
    assert await claim(database) == []


async def test_message_without_a_gateway_takes_the_first_that_comes(database, holding, account, woken):
    message = await a_message(database, account, gateway=None)
    assert await holding.reroute() == 0
    await an_smpp_gateway(database, "later")

    assert await holding.reroute() == 1

    assert (await one(database, "SELECT m.gateway, o.gateway AS via FROM message m JOIN outbox o ON o.message_id = m.id")) == ("later", "later")
    assert woken[-1:] == ["smpp:later:0"]
    assert [claimed.id for claimed in await claim(database, gateway="later")] == [message]


async def test_queue_of_a_disabled_gateway_moves_to_another_of_its_channel(database, holding, account):
    await an_smpp_gateway(database, "main", enabled=False)
    await an_smpp_gateway(database, "spare")
    sms = await a_message(database, account)
    mail = await a_message(database, account, channel="email", gateway="post")

    assert await holding.reroute() == 1

    via = dict(tuple(row) for row in await rows(database, "SELECT message_id, gateway FROM outbox"))
    assert via == {sms: "spare", mail: "post"}


async def test_message_on_the_wire_keeps_its_gateway(database, holding, account):
    await an_smpp_gateway(database, "spare")
    await a_message(database, account)
    await claim(database)

    assert await holding.reroute() == 0


async def test_claim_and_cancel_of_the_same_message_have_one_winner(database, account):
    for _ in range(10):
        message = await a_message(database, account)

        async def cancel(message=message):
            async with database.transaction() as session:
                return await close(session, [message], State.CANCELLED, "operator", now())

        claimed, cancelled = await asyncio.gather(claim(database), cancel())

        assert len(claimed) + len(cancelled) == 1
        assert (await state_of(database, message))[0] == ("sending" if claimed else "cancelled")
        await run(database, "DELETE FROM outbox")


async def test_contact_added_again_meanwhile_is_another_one(database, holding, account):
    message = await a_held_message(database, account)
    async with database.transaction() as session:
        await session.execute(sa.text("DELETE FROM contact"))
        session.add(a_contact(account, "sms", PHONE))

    await holding.release()

    assert await state_of(database, message) == ("cancelled", "contact_removed")


async def test_released_message_takes_the_route_of_the_day(database, holding, account, woken):
    await an_smpp_gateway(database, "alpha", bound=True)
    await an_smpp_gateway(database, "beta", bound=True, profile={"transliteration": "ascii"})
    await run(
        database,
        "INSERT INTO routing (id, routes, revision, updated_at) VALUES (1, CAST(:routes AS jsonb), 1, now())",
        routes='[{"name": "moscow", "prefix": ["+7916"], "gateways": ["beta"], "sender": "MyISP", "price_per_part": "1.5"}]',
    )
    await a_held_message(database, account)
    await publish(database, "service.connected", "Подключено: {{ service.name }}")

    await holding.release()

    row = await one(database, "SELECT m.gateway, m.route, m.sender, m.price, m.encoding, o.gateway AS via FROM message m JOIN outbox o ON o.message_id = m.id")
    assert (*row[:3], str(row.price), row.encoding, row.via) == ("beta", "moscow", "MyISP", "1.5000", "GSM7", "beta")
    assert woken == ["smpp:beta:0"]
