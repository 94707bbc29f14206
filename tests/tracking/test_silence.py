"""Receipts that never came, and the time that they are given."""

import asyncio
from datetime import timedelta

import pytest

from app.core import metrics
from app.core.clock import now
from app.core.ids import first_id_at
from app.core.wakeups import Wakeups
from app.tracking import silence
from app.tracking.sweeps import Sweeper
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import a_message, one, rows, run, state_of
from tests.builders.receipts import a_receipt, a_submission, receive

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(silence, "EVERY", 0.0)
    monkeypatch.setattr(silence, "RESTS", 0.0)


@pytest.fixture
def new_sweeper(database, settings):
    return lambda: Sweeper(database, Wakeups(settings.redis_url, direct=lambda queue: True))


@pytest.fixture
def sweeper(new_sweeper):
    return new_sweeper()


@pytest.fixture
async def gateway(database):
    return await an_smpp_gateway(database, profile={"receipt_timeout": 3600})


async def go_through(sweeper):
    """Until the sweep has come to its limit."""
    async with asyncio.timeout(20):
        for _ in range(50):
            await sweeper.end_silence()


async def a_silent_message(database, *ids, expired=2 * HOUR, state="accepted", **fields):
    ids = ids or ("17",)
    message = await a_message(database, ended=state, parts=len(ids), expires_at=now() - expired, **fields)
    await a_submission(database, message, *ids)
    return message


async def test_message_that_waited_for_its_receipt_in_vain_stays_accepted_with_a_reason(database, gateway, sweeper):
    message = await a_silent_message(database)

    await go_through(sweeper)

    assert await state_of(database, message) == ("accepted", "no_receipt")
    assert [tuple(row) for row in await rows(database, "SELECT state, reason FROM message_change")] == [("accepted", "no_receipt")]
    assert metrics.RECEIPTS.labels("main", "no_receipt")._value.get() >= 1


async def test_receipt_that_comes_after_all_still_counts(database, gateway, sweeper):
    message = await a_silent_message(database)
    await go_through(sweeper)

    await receive(database, a_receipt("17"))

    assert await state_of(database, message) == ("delivered", None)


async def test_receipts_that_somebody_stored_and_did_not_act_upon_count_in_the_end(database, gateway, sweeper):
    short, long = await a_silent_message(database, "17"), await a_silent_message(database, "18", "19")
    await receive(database, *(a_receipt(identity) for identity in ("17", "18", "19")))
    await run(database, "UPDATE message SET state = 'accepted'")

    await go_through(sweeper)

    assert (await state_of(database, short))[0] == (await state_of(database, long))[0] == "delivered"


@pytest.mark.parametrize("stat", ["UNKNOWN", "ENROUTE", "ACCEPTD", "WEIRD"])
async def test_intermediate_and_unknown_words_are_no_last_ones(database, gateway, sweeper, stat):
    message = await a_silent_message(database)
    await receive(database, a_receipt("17", stat))
    assert await state_of(database, message) == ("accepted", None)

    await go_through(sweeper)

    assert await state_of(database, message) == ("accepted", "no_receipt")


@pytest.mark.parametrize("state", ["unknown", "delivered", "undelivered", "failed", "expired", "cancelled"])
async def test_other_states_are_left_alone(database, gateway, sweeper, state):
    message = await a_silent_message(database, state=state, reason="before")

    await go_through(sweeper)

    assert await state_of(database, message) == (state, "before")


async def test_letters_never_get_receipts_and_are_not_waited_for(database, gateway, sweeper):
    letter = await a_silent_message(database, channel="email")

    await go_through(sweeper)

    assert await state_of(database, letter) == ("accepted", None)


async def test_receipt_has_its_whole_time(database, gateway, sweeper):
    message = await a_silent_message(database, expired=HOUR - MINUTE)
    await go_through(sweeper)
    assert await state_of(database, message) == ("accepted", None)

    await run(database, "UPDATE gateway SET settings = jsonb_set(settings, '{profile,receipt_timeout}', '60'), revision = revision + 1")
    await go_through(sweeper)

    assert await state_of(database, message) == ("accepted", "no_receipt")


async def test_each_gateway_has_its_own_time(database, gateway, sweeper):
    await an_smpp_gateway(database, "patient", profile={"receipt_timeout": 86_400})
    quick, slow = await a_silent_message(database), await a_silent_message(database, gateway="patient")

    await go_through(sweeper)

    assert [(await state_of(database, message))[1] for message in (quick, slow)] == ["no_receipt", None]


@pytest.mark.parametrize("profile", [{"registered_delivery": 0}, {"registered_delivery": 2}, {"bind_mode": "tx"}])
async def test_where_no_receipts_of_deliveries_are_asked_for_none_is_missed(database, sweeper, profile):
    await an_smpp_gateway(database, profile={"receipt_timeout": 60} | profile)
    message = await a_silent_message(database)

    await go_through(sweeper)

    assert await state_of(database, message) == ("accepted", None)


async def test_validity_of_the_smsc_may_be_shorter_than_the_life_of_the_message(database, sweeper):
    await an_smpp_gateway(database, profile={"receipt_timeout": 3600, "validity_max": 3600})
    long_ago = now() - 3 * HOUR
    message = await a_message(database, id=first_id_at(long_ago), ended="accepted", expires_at=now() + DAY, updated_at=long_ago)
    slept = await a_message(database, id=first_id_at(long_ago + MINUTE), ended="accepted", expires_at=now() + DAY, updated_at=now() - HOUR)

    await go_through(sweeper)

    assert await state_of(database, message) == ("accepted", "no_receipt")
    assert await state_of(database, slept) == ("accepted", None)


async def test_long_message_with_a_lost_part_is_undelivered_when_the_others_stay_silent(database, gateway, sweeper):
    lost, half = await a_silent_message(database, "1", "2"), await a_silent_message(database, "3", "4")
    await receive(database, a_receipt("2", "UNDELIV"), a_receipt("3"))

    await go_through(sweeper)

    assert await state_of(database, lost) == ("undelivered", "undeliverable")
    assert await state_of(database, half) == ("accepted", "no_receipt")


async def test_two_sweepers_say_it_once(database, gateway, new_sweeper):
    messages = [await a_silent_message(database, str(number)) for number in range(20)]

    await asyncio.gather(*(go_through(new_sweeper()) for _ in range(2)))

    assert {(await state_of(database, message))[1] for message in messages} == {"no_receipt"}
    assert (await one(database, "SELECT count(*) AS n FROM message_change")).n == 20


async def test_more_than_a_batch_in_one_moment_are_all_ended(database, gateway, sweeper, monkeypatch):
    monkeypatch.setattr(silence, "BATCH", 5)
    moment = now() - 2 * HOUR
    for number in range(17):
        await a_silent_message(database, str(number))
    await run(database, "UPDATE message SET expires_at = :moment", moment=moment)

    await go_through(sweeper)

    assert (await one(database, "SELECT count(*) AS n FROM message WHERE reason = 'no_receipt'")).n == 17


async def test_what_was_gone_through_is_not_gone_through_again(database, gateway, sweeper):
    await go_through(sweeper)
    late = await a_silent_message(database, expired=3 * DAY)  # nobody is given an end in the past; but if so, it would not be found again

    await go_through(sweeper)

    assert await state_of(database, late) == ("accepted", None)
    mark = await one(database, "SELECT upto FROM sweep_mark WHERE name = 'no_receipt:main'")
    assert now() - HOUR - MINUTE < mark.upto <= now() - HOUR


async def test_new_gateway_looks_a_week_back(database, sweeper):
    await an_smpp_gateway(database, profile={"receipt_timeout": 3600})
    recent, ancient = await a_silent_message(database, expired=6 * DAY), await a_silent_message(database, expired=9 * DAY)

    await go_through(sweeper)

    assert [(await state_of(database, message))[1] for message in (recent, ancient)] == ["no_receipt", None]
