"""What no event will ever come for: leases that ended, and queues that nobody was told of."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from app.core import metrics
from app.core.wakeups import Wakeups
from app.sending.outcome import Accepted
from app.tracking.sweeps import Sweeper
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smpp_gateway, an_smtp_gateway
from tests.builders.messages import a_message, claim, one, rows, run, state_of, write

MINUTE = timedelta(minutes=1)


@pytest.fixture
def woken():
    return []


@pytest.fixture
def sweeper(database, settings, woken):
    return Sweeper(database, Wakeups(settings.redis_url, direct=lambda queue: not woken.append(queue)))


async def end_lease(database):
    await run(database, "UPDATE outbox SET lease_until = now() - interval '1 second' WHERE state = 'sending'")


async def history(database, message):
    return [tuple(row) for row in await rows(database, "SELECT state, reason FROM message_change WHERE message_id = :id ORDER BY id", id=message)]


async def test_sms_whose_worker_died_is_in_doubt_and_is_not_sent_again(database, sweeper):
    message = await a_message(database)
    await claim(database)
    await end_lease(database)

    assert await sweeper.end_leases() == 1

    assert await state_of(database, message) == ("unknown", "no_answer")
    assert await history(database, message) == [("sending", None), ("unknown", "no_answer")]
    assert await claim(database) == []
    assert await sweeper.end_leases() == 0


async def test_lease_that_runs_is_left_alone(database, sweeper):
    message = await a_message(database)
    await claim(database)

    assert await sweeper.end_leases() == 0
    assert await state_of(database, message) == ("sending", None)


async def test_letter_whose_worker_died_goes_once_more_and_then_is_in_doubt(database, sweeper, woken):
    letter = await a_message(database, channel="email", gateway="post")
    await claim(database, gateway="post")
    await end_lease(database)

    await sweeper.end_leases()

    assert await state_of(database, letter) == ("queued", None)
    assert woken == ["mail"]
    (claimed,) = await claim(database, gateway="post")
    assert (claimed.id, claimed.tries) == (letter, 1)

    await end_lease(database)
    await sweeper.end_leases()

    assert await state_of(database, letter) == ("unknown", "no_answer")
    assert await history(database, letter) == [("sending", None), ("queued", "lease_ended"), ("sending", None), ("unknown", "no_answer")]


async def test_answer_that_comes_after_the_end_of_the_lease_is_believed(database, sweeper):
    owner, message = uuid4(), await a_message(database)
    (claimed,) = await claim(database, owner=owner)
    await end_lease(database)
    await sweeper.end_leases()

    await write(database, owner, (claimed, Accepted(("17",))))

    assert await state_of(database, message) == ("accepted", None)


async def test_settle_and_the_end_of_the_lease_at_once_have_one_winner(database, sweeper):
    for _ in range(10):
        owner, message = uuid4(), await a_message(database)
        (claimed,) = await claim(database, owner=owner)
        await end_lease(database)

        await asyncio.gather(sweeper.end_leases(), write(database, owner, (claimed, Accepted(("17",)))))

        # Whoever was first, the answer is known by now.
        assert await state_of(database, message) == ("accepted", None)


async def test_two_sweepers_end_a_lease_once(database, sweeper, settings):
    messages = [await a_message(database) for _ in range(20)]
    await claim(database)
    await end_lease(database)

    ended = await asyncio.gather(sweeper.end_leases(), Sweeper(database, sweeper._wakeups).end_leases())

    assert sum(ended) == 20
    assert (await one(database, "SELECT count(*) AS n FROM message_change WHERE state = 'unknown'")).n == len(messages)


async def test_queues_with_work_are_woken_and_others_are_not(database, sweeper, woken):
    await an_smpp_gateway(database, "main", binds=2)
    await an_smpp_gateway(database, "idle")
    await an_smpp_gateway(database, "halted", paused=True)
    await an_smtp_gateway(database, "post")
    for gateway in ("main", "halted"):
        await a_message(database, gateway=gateway)
    await a_message(database, gateway="post", channel="email")
    await a_waiting_event(database, await an_account(database))

    await sweeper.look()

    assert sorted(woken) == ["mail", "plan", "smpp:main:0", "smpp:main:1"]


async def test_depth_of_a_queue_is_shown_and_goes_back_to_zero(database, sweeper):
    def shown(state):
        return metrics.QUEUE_MESSAGES.labels("deep", state)._value.get()

    for _ in range(3):
        await a_message(database, gateway="deep")
    await claim(database, gateway="deep", room=1)

    await sweeper.look()
    assert (shown("queued"), shown("sending")) == (2, 1)
    assert metrics.QUEUE_OLDEST.labels("deep")._value.get() >= 1

    await run(database, "DELETE FROM outbox")
    await sweeper.look()
    assert (shown("queued"), shown("sending"), metrics.QUEUE_OLDEST.labels("deep")._value.get()) == (0, 0, 0)


async def test_queue_in_which_nothing_has_ever_been_is_shown_as_empty(database, sweeper):
    await an_smpp_gateway(database, "new")

    await sweeper.look()

    shown = {(one.labels["gateway"], one.labels["state"]): one.value for family in metrics.QUEUE_MESSAGES.collect() for one in family.samples}
    assert {shown[name, state] for name in ("new", "none") for state in ("held", "queued", "sending")} == {0}


async def test_process_that_has_not_been_seen_for_an_hour_is_forgotten(database, sweeper):
    for age in ("2 hours", "1 minute"):
        await run(
            database,
            "INSERT INTO worker_process (id, queues, host, started_at, seen_at) VALUES (gen_random_uuid(), :age, 'h', now(), now() - CAST(CAST(:ago AS text) AS interval))",
            age=age,
            ago=age,
        )

    await sweeper.look()

    assert [row.queues for row in await rows(database, "SELECT queues FROM worker_process")] == ["1 minute"]
