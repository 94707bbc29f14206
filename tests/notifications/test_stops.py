"""The stop switch: what it stands over is held at once and goes on when it is lifted; nothing is dropped, nothing expires meanwhile."""

import asyncio
import time
from datetime import timedelta
from uuid import uuid4

import pytest

from app.core.clock import now
from app.notifications.ending import close
from app.notifications.hold import Holding
from app.notifications.states import State
from app.notifications.stops import Switch
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import HOUR, a_message, claim, one, rows, run, state_of
from tests.builders.stations import many_messages

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def account(database):
    await an_smpp_gateway(database, bound=True)
    return await an_account(database)


@pytest.fixture
def switch(database):
    return Switch(database)


async def a_planned_message(database, account, **fields):
    """With its event and contact, so that it can be released."""
    event_id = await a_waiting_event(database, account, fields.get("type", "service.connected"))
    await run(database, "DELETE FROM event_waiting")
    contact = await one(database, "SELECT id FROM contact WHERE account_id = :id", id=account.id)
    return await a_message(database, account, event_id=event_id, contact_id=contact.id, **fields)


async def a_stop(database, scope="all", name="", *, ago=timedelta(0)):
    await run(
        database,
        "INSERT INTO stop (id, scope, name, reason, by, at) VALUES (:id, :scope, :name, '', 'test', :at)",
        id=uuid4(),
        scope=scope,
        name=name,
        at=now() - ago,
    )


async def lift(database):
    await run(database, "DELETE FROM stop")


@pytest.mark.parametrize(("scope", "name"), [("all", ""), ("gateway", "main"), ("type", "service.connected")])
async def test_stop_keeps_claims_away_before_a_single_row_has_moved(database, account, scope, name):
    await a_message(database, account)

    await a_stop(database, scope, name)

    assert await claim(database) == []
    assert [row.state for row in await rows(database, "SELECT state FROM outbox")] == ["queued"]


async def test_stop_of_one_type_or_gateway_leaves_the_others_alone(database, account, switch):
    await a_stop(database, "type", "tariff.changed")
    await a_stop(database, "gateway", "spare")
    other_type, other_gateway = await a_message(database, account, type="tariff.changed"), await a_message(database, account, gateway="spare")
    free = await a_message(database, account)

    assert await switch.hold() == 2

    assert [claimed.id for claimed in await claim(database)] == [free]
    assert await claim(database, gateway="spare") == []
    assert [await state_of(database, message) for message in (other_type, other_gateway)] == [("held", "stopped")] * 2


async def test_letters_are_stopped_too(database, account):
    await a_message(database, account, channel="email", address="a@example.org", gateway="post")
    await a_stop(database)

    assert await claim(database, gateway="post") == []


async def test_urgent_and_mandatory_are_no_exception(database, account):
    await run(database, "UPDATE notification_type SET mandatory = true, urgent = true, revision = revision + 1")
    await a_message(database, account, priority=0)
    await a_stop(database)

    assert await claim(database) == []


async def test_what_is_stopped_and_what_goes_on_stands_in_the_history(database, account, switch, holding):
    message = await a_planned_message(database, account)
    await a_stop(database)

    await switch.follow()
    await lift(database)
    await switch.follow()
    await holding.release()

    changes = [tuple(row) for row in await rows(database, "SELECT state, reason FROM message_change WHERE message_id = :id ORDER BY id", id=message)]
    assert changes == [("held", "stopped"), ("queued", "released")]
    assert [claimed.id for claimed in await claim(database)] == [message]


async def test_time_that_it_stood_still_is_added_to_its_time_to_live(database, account, switch):
    message = await a_message(database, account, not_before=now() - HOUR, expires_at=now() + MINUTE)
    before = (await one(database, "SELECT expires_at FROM outbox")).expires_at
    await a_stop(database, ago=30 * MINUTE)

    await switch.follow()
    await lift(database)
    await switch.follow()

    row = await one(database, "SELECT o.expires_at, m.expires_at AS of_message, o.stopped_at FROM outbox o JOIN message m ON m.id = o.message_id")
    assert timedelta(0) <= row.expires_at - before - 30 * MINUTE < MINUTE
    assert row.of_message == row.expires_at
    assert row.stopped_at is None
    assert (await state_of(database, message))[0] == "held"


async def test_nothing_expires_or_is_put_off_while_it_is_stopped(database, account, switch, holding):
    late = await a_message(database, account, not_before=now() - 2 * HOUR, expires_at=now() - MINUTE)
    in_batches = await a_message(database, account, send_until=now() - MINUTE)
    await a_stop(database, ago=HOUR)

    assert await holding.expire() == await holding.put_off() == 0
    await switch.follow()
    assert await holding.expire() == await holding.put_off() == 0

    assert [await state_of(database, message) for message in (late, in_batches)] == [("held", "stopped")] * 2
    await lift(database)
    await switch.follow()
    assert await holding.expire() == 0  # it had still to live when the stop was set


async def test_held_message_whose_hour_comes_during_a_stop_is_not_released(database, account, switch, holding):
    message = await a_planned_message(database, account, state="held", reason="quiet_hours", not_before=now() - MINUTE, expires_at=now() + MINUTE)
    later = await a_planned_message(database, account, state="held", reason="quiet_hours", not_before=now() + MINUTE)
    await a_stop(database)

    assert await holding.release() == 0
    await switch.follow()
    assert await holding.release() == 0

    assert await state_of(database, message) == ("held", "stopped")
    assert await state_of(database, later) == ("held", "quiet_hours")
    await lift(database)
    await switch.follow()
    assert await holding.release() == 1


async def test_message_under_two_stops_waits_for_both_to_be_lifted(database, account, switch):
    message = await a_message(database, account)
    await a_stop(database)
    await a_stop(database, "type", "service.connected")
    await switch.follow()

    await run(database, "DELETE FROM stop WHERE scope = 'all'")
    assert await switch.free() == 0
    assert await state_of(database, message) == ("held", "stopped")

    await lift(database)
    assert await switch.free() == 1


async def test_message_on_the_wire_is_finished(database, account, switch):
    message = await a_message(database, account)
    await claim(database)
    await a_stop(database)

    await switch.follow()

    assert await state_of(database, message) == ("sending", None)


async def test_message_that_comes_back_unsent_is_held_then(database, account, switch):
    message = await a_message(database, account, state="sending")
    await a_stop(database)
    await switch.follow()
    await run(database, "UPDATE outbox SET state = 'queued', not_before = now() + interval '20 seconds'")

    assert await switch.hold() == 1

    assert await state_of(database, message) == ("held", "stopped")
    assert await claim(database, at=now() + MINUTE) == []


async def test_stopped_message_can_be_cancelled(database, account, switch):
    message = await a_message(database, account)
    await a_stop(database)
    await switch.follow()

    async with database.transaction() as session:
        await close(session, [message], State.CANCELLED, "operator", now())

    assert await state_of(database, message) == ("cancelled", "operator")


async def test_new_message_under_a_stop_is_planned_as_held_and_says_so(database, account, planner, switch, holding, woken):
    await a_waiting_event(database, account)
    await a_stop(database, "gateway", "main")

    await planner.plan()

    row = await one(database, "SELECT o.state, o.reason, o.stopped_at IS NOT NULL AS stopped, o.message_id FROM outbox o")
    assert (row.state, row.reason, row.stopped) == ("held", "stopped", True)
    assert (await one(database, "SELECT decisions FROM notification")).decisions[0]["reason"] == "stopped"
    assert woken == []
    await lift(database)
    await switch.follow()
    await holding.release()
    assert [claimed.id for claimed in await claim(database)] == [row.message_id]


async def test_new_message_of_another_type_is_planned_as_ever(database, account, planner):
    await a_waiting_event(database, account)
    await a_stop(database, "type", "tariff.changed")

    await planner.plan()

    assert (await one(database, "SELECT state FROM outbox")).state == "queued"


async def test_many_rows_follow_batch_by_batch_and_two_sweepers_move_each_once(database, account, switch):
    await many_messages(database, account, 5000)
    await a_stop(database, "type", "service.connected")

    moved = await asyncio.gather(switch.hold(), Switch(database).hold())
    moved.append(await switch.hold())

    assert sum(moved) == 5000
    assert (await one(database, "SELECT count(*) AS n, count(DISTINCT message_id) AS messages FROM message_change")) == (5000, 5000)
    await lift(database)
    await switch.follow()
    assert (await one(database, "SELECT count(*) AS n FROM outbox WHERE stopped_at IS NULL")).n == 5000


async def test_queue_of_others_is_walked_once_and_not_with_every_batch(database, account, switch):
    await many_messages(database, account, 4500, type="tariff.changed")
    mine = await a_message(database, account)
    await a_stop(database, "type", "service.connected")

    await switch.follow()

    assert await state_of(database, mine) == ("held", "stopped")
    assert switch._rest_until > time.monotonic()
    await a_stop(database, "type", "payment.received")
    await a_message(database, account, type="payment.received")
    await switch.follow()  # another stop ends the rest
    assert (await one(database, "SELECT count(*) AS n FROM outbox WHERE state = 'held'")).n == 2


async def test_stop_lifted_at_night_lets_nothing_out_before_the_morning(database, account, switch, at_night, wakeups):
    message = await a_planned_message(database, account)
    await a_stop(database)
    await switch.follow()
    await lift(database)
    await switch.follow()

    all_day = at_night.model_copy(update={"quiet_hours": "00:00-23:59"})
    await Holding(database, all_day, wakeups).release()

    assert await state_of(database, message) == ("held", "quiet_hours")
