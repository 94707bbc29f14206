"""What is released at eight in the morning: all of it, the urgent first, and no faster than the gateway takes it."""

import asyncio
from datetime import datetime, timedelta

import pytest
import time_machine

from app.core.clock import now
from app.core.wakeups import CRON
from app.notifications.hold import BATCH, Holding
from app.notifications.plan import Planner
from app.worker import Office
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import claim, one, rows, run
from tests.builders.stations import many_messages

MANY = 10_000
EIGHT = datetime.fromisoformat("2026-11-24T08:00:00+03:00")
# Every seventh is urgent; the older an id, the longer it waits.
HELD = """
UPDATE outbox o SET state = 'held', reason = 'quiet_hours', priority = CASE WHEN v.n % 7 = 0 THEN 0 ELSE 1 END, not_before = now() - make_interval(secs => v.n)
FROM (SELECT message_id, row_number() OVER (ORDER BY message_id DESC) AS n FROM outbox) v WHERE v.message_id = o.message_id
"""


@pytest.fixture
async def account(database):
    await an_smpp_gateway(database, bound=True)
    return await an_account(database)


async def test_ten_thousand_are_released_batch_by_batch_the_urgent_first_then_the_oldest(database, holding, account):
    await many_messages(database, account, MANY)
    await run(database, HELD)
    in_order = [row.message_id for row in await rows(database, "SELECT message_id FROM outbox ORDER BY priority, not_before")]

    for upto in range(BATCH, MANY + 1, BATCH):
        assert await holding.release() == BATCH

        queued = {row.message_id for row in await rows(database, "SELECT message_id FROM outbox WHERE state = 'queued'")}
        assert queued == set(in_order[:upto])

    assert await holding.release() == 0
    assert {message.id for message in await claim(database, room=1000)} <= set(in_order[: MANY // 7])


async def test_claim_takes_no_more_of_them_than_the_wire_has_room_for(database, holding, account):
    await many_messages(database, account, 2 * BATCH)
    await run(database, HELD)
    while await holding.release():
        pass

    first, second = await claim(database, room=10), await claim(database, room=10)

    assert (len(first), len(second)) == (10, 10)
    assert (await one(database, "SELECT count(*) AS n FROM outbox WHERE state = 'queued'")).n == 2 * BATCH - 20


async def test_urgent_that_is_due_only_now_overtakes_the_ordinary_that_has_waited_for_long(database, holding, account):
    await many_messages(database, account, BATCH + 10)
    await run(database, "UPDATE outbox SET state = 'held', reason = 'quiet_hours', priority = 1, not_before = now() - interval '1 hour'")
    urgent = (await rows(database, "SELECT message_id FROM outbox ORDER BY message_id DESC LIMIT 1"))[0].message_id
    await run(database, "UPDATE outbox SET priority = 0, not_before = now() - interval '1 second' WHERE message_id = :id", id=urgent)

    await holding.release()

    assert (await one(database, "SELECT state FROM outbox WHERE message_id = :id", id=urgent)).state == "queued"


async def test_sweepers_at_once_release_each_of_them_once(database, settings, wakeups, account):
    await many_messages(database, account, 4 * BATCH)
    await run(database, HELD)

    moved = 0
    while batch := sum(await asyncio.gather(*(Holding(database, settings, wakeups).release() for _ in range(3)))):
        moved += batch

    assert moved == 4 * BATCH
    assert (await one(database, "SELECT count(*) AS n FROM message_change WHERE reason = 'released'")).n == 4 * BATCH


class Step:
    """A step of the sweep that always finds more, or never."""

    def __init__(self, found, seconds=0.0):
        self.found, self.seconds, self.ran = found, seconds, 0

    async def __call__(self):
        self.ran += 1
        await asyncio.sleep(self.seconds)
        return self.found


@pytest.fixture
async def a_station(settings, monkeypatch):
    """The station of the sweeps, with these steps in the place of its own."""
    monkeypatch.setattr("app.worker.TURN", 0.05)
    office = Office(settings)

    def made(*, often, seldom):
        station = office.make(CRON)
        station._often, station._seldom = (often,), (seldom,)
        return station

    yield made
    await office.wakeups.close()
    await office.database.close()


async def test_step_that_always_finds_more_leaves_the_others_their_turn(a_station):
    endless, other = Step(BATCH, 0.01), Step(0)

    await asyncio.wait_for(a_station(often=endless, seldom=other).sweep(seldom=True), 5)

    assert endless.ran > 1
    assert other.ran == 1


async def test_seldom_steps_that_were_asked_for_during_a_sweep_come_with_the_next_one(a_station):
    busy, other = Step(0, 0.1), Step(0)
    station = a_station(often=busy, seldom=other)

    sweep = asyncio.create_task(station.sweep(seldom=False))
    await asyncio.sleep(0.02)
    await station.sweep(seldom=True)
    await sweep
    before = other.ran
    await station.sweep(seldom=False)
    await station.sweep(seldom=False)

    assert (before, other.ran) == (0, 1)


@pytest.fixture
def spreading(at_night):
    return at_night.model_copy(update={"release_spread_seconds": 600})


@time_machine.travel("2026-11-23T23:30:00+03:00", tick=True)
async def test_with_a_spread_what_the_night_has_held_goes_within_its_first_minutes(database, spreading, wakeups, account):
    events = [await a_waiting_event(database, account) for _ in range(40)]

    await Planner(database, spreading, wakeups).plan()

    held = await rows(database, "SELECT o.*, m.not_before AS shown FROM outbox o JOIN message m ON m.id = o.message_id")
    shifts = [row.not_before - EIGHT for row in held]
    assert len({*shifts}) == len(events)
    assert timedelta(0) <= min(shifts) < timedelta(minutes=3)
    assert timedelta(minutes=7) < max(shifts) < timedelta(minutes=10)
    assert all(row.shown == row.not_before and row.expires_at - row.not_before == timedelta(days=2) for row in held)
    decided = [row.decisions[0]["not_before"] for row in await rows(database, "SELECT decisions FROM notification")]
    assert sorted(decided) == sorted(row.not_before.isoformat() for row in held)


@time_machine.travel("2026-11-23T12:00:00+03:00", tick=True)
async def test_spread_keeps_nobody_waiting_by_day(database, spreading, wakeups, account):
    await a_waiting_event(database, account)

    await Planner(database, spreading, wakeups).plan()

    assert [row.state for row in await rows(database, "SELECT state FROM outbox")] == ["queued"]


@time_machine.travel("2026-11-23T22:00:01+03:00", tick=False)
async def test_what_is_put_off_to_the_morning_is_spread_by_the_same_amounts(database, spreading, wakeups, account):
    await many_messages(database, account, 30, expires=86_400 * 365 * 20)
    await run(
        database,
        "UPDATE outbox SET send_until = LEAST(now(), CAST(:now AS timestamptz)) - interval '1 second', expires_at = now() + interval '1 year'",
        now=now(),
    )

    await Holding(database, spreading, wakeups).put_off()
    first = {row.message_id: row.not_before for row in await rows(database, "SELECT message_id, not_before FROM outbox")}
    await run(database, "UPDATE outbox SET state = 'queued', send_until = LEAST(now(), CAST(:now AS timestamptz)) - interval '1 second'", now=now())
    await run(database, "UPDATE outbox SET not_before = CAST(:now AS timestamptz)", now=now())
    await Holding(database, spreading, wakeups).put_off()

    second = {row.message_id: row.not_before for row in await rows(database, "SELECT message_id, not_before FROM outbox")}
    assert first == second
    assert len({*first.values()}) == 30
    assert all(EIGHT <= moment <= EIGHT + timedelta(minutes=10) for moment in first.values())
