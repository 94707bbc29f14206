"""What waits for the morning is not told where it has been undone in the night."""

from datetime import timedelta

import pytest

from app.core.clock import now
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import one, rows, run, state_of
from tests.builders.templates import publish
from tests.builders.types import set_type

MINUTE = timedelta(minutes=1)
ON, OFF = "service.connected", "service.disconnected"


@pytest.fixture
async def account(database):
    await an_smpp_gateway(database)
    for kind in (ON, OFF):
        await publish(database, kind, "{{ event.type }} {% for one in events %}{{ one.service.code }} {% endfor %}")
    await publish(database, "tariff.changed", "{{ new_tariff }}")
    return await an_account(database)


async def switched(database, planner, account, kind, code="tv", *, minute=0):
    """A service switched on or off in this minute of the night, as its message waits for the morning."""
    time = now() - timedelta(hours=1) + minute * MINUTE
    event_id = await a_waiting_event(database, account, kind, data={"service": {"code": code, "name": code}}, time=time)
    await planner.plan()
    await run(database, "UPDATE outbox SET state = 'held', reason = 'quiet_hours', not_before = now() + interval '1 hour' WHERE state = 'queued'")
    return event_id


async def in_the_morning(database, holding):
    """The words of what goes, and the reasons of what does not."""
    await run(database, "UPDATE outbox SET not_before = now() - interval '1 second' WHERE state = 'held'")
    await holding.release()
    said = await rows(database, "SELECT m.text FROM message m JOIN outbox o ON o.message_id = m.id WHERE o.state = 'queued' ORDER BY m.id")
    ended = await rows(database, "SELECT reason FROM message WHERE state = 'cancelled' ORDER BY id")
    return [row.text.strip() for row in said], [row.reason for row in ended]


async def test_service_switched_back_is_not_told_and_the_later_news_is(database, planner, holding, account):
    await switched(database, planner, account, OFF)
    await switched(database, planner, account, ON, minute=5)

    assert await in_the_morning(database, holding) == ([f"{ON} tv"], ["resolved"])


async def test_of_three_switches_the_last_one_is_told(database, planner, holding, account):
    for minute, kind in enumerate((OFF, ON, OFF)):
        await switched(database, planner, account, kind, minute=minute)

    assert await in_the_morning(database, holding) == ([f"{OFF} tv"], ["resolved", "resolved"])


async def test_another_service_and_another_account_undo_nothing(database, planner, holding, account):
    await switched(database, planner, account, OFF)
    await switched(database, planner, account, ON, "radio", minute=5)
    await switched(database, planner, await an_account(database, "100501", phones=("+79161234599",)), ON, minute=5)

    assert (await in_the_morning(database, holding))[1] == []


async def test_later_is_what_happened_later_not_what_came_in_later(database, planner, holding, account):
    await switched(database, planner, account, OFF, minute=5)
    await switched(database, planner, account, ON)

    assert await in_the_morning(database, holding) == ([f"{OFF} tv"], ["resolved"])


async def test_message_of_several_events_tells_those_that_are_left(database, planner, holding, account):
    await set_type(database, OFF, coalesce_seconds=60)
    for minute, code in enumerate(("tv", "radio", "phone")):
        await switched(database, planner, account, OFF, code, minute=minute)
    await switched(database, planner, account, ON, "tv", minute=9)

    assert await in_the_morning(database, holding) == ([f"{OFF} radio phone", f"{ON} tv"], [])


async def test_message_of_several_events_that_are_all_undone_is_cancelled(database, planner, holding, account):
    await set_type(database, OFF, coalesce_seconds=60)
    await set_type(database, ON, coalesce_seconds=60)
    for minute, kind in enumerate((OFF, OFF, ON, ON)):
        await switched(database, planner, account, kind, "tv" if minute % 2 else "radio", minute=minute)

    assert await in_the_morning(database, holding) == ([f"{ON} radio tv"], ["resolved"])


async def test_of_two_changes_of_the_tariff_the_newer_one_is_told(database, planner, holding, account):
    for minute, (old, new) in enumerate((("A", "B"), ("B", "C"))):
        data = {"old_tariff": old, "new_tariff": new}
        await a_waiting_event(database, account, "tariff.changed", data=data, time=now() - timedelta(hours=1) + minute * MINUTE)
    await planner.plan()
    await run(database, "UPDATE outbox SET state = 'held', not_before = now() + interval '1 hour'")

    assert await in_the_morning(database, holding) == (["C"], ["resolved"])


async def test_what_is_on_its_way_is_not_called_back(database, planner, holding, account):
    await switched(database, planner, account, OFF)
    await run(database, "UPDATE outbox SET state = 'queued', reason = NULL, not_before = now()")
    await a_waiting_event(database, account, ON, data={"service": {"code": "tv", "name": "tv"}})
    await planner.plan()

    assert await holding.release() == 0
    message = await one(database, "SELECT id FROM message ORDER BY id LIMIT 1")
    assert await state_of(database, message.id) == ("queued", None)
