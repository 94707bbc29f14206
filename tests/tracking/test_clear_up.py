"""Receipts with ids that nobody knows: whose they are may be told by the reference that they repeat, or by number and time."""

from datetime import timedelta
from uuid import UUID

import pytest

from app.core.clock import now
from app.core.ids import new_id
from app.core.wakeups import Wakeups
from app.tracking.sweeps import Sweeper
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import a_message, one, rows, run, state_of
from tests.builders.receipts import a_receipt, a_submission, receive

PHONE = "+79161234567"


@pytest.fixture
def sweeper(database, settings):
    return Sweeper(database, Wakeups(settings.redis_url, direct=lambda queue: True))


def an_id(reference: int) -> UUID:
    """An id of a message whose reference is this one."""
    return UUID(int=new_id().int >> 16 << 16 | reference)


async def a_doubtful_message(database, *, reference=7, parts=1, address=PHONE, group="main", ago=timedelta(seconds=30), **fields):
    message = await a_message(database, id=an_id(reference), ended=fields.pop("state", "unknown"), reason="no_answer", address=address, parts=parts, **fields)
    await a_submission(database, message, *[""] * parts, outcome="unknown", group=group, at=now() - ago)
    return message


async def statuses(database):
    return [row.status for row in await rows(database, "SELECT status FROM receipt ORDER BY id")]


@pytest.mark.parametrize(
    ("stat", "state"),
    [("DELIVRD", ("delivered", None)), ("UNDELIV", ("undelivered", "undeliverable")), ("EXPIRED", ("expired", "expired")), ("ENROUTE", ("accepted", None))],
)
async def test_receipt_that_repeats_our_reference_clears_up_an_unknown_message(database, sweeper, stat, state):
    message = await a_doubtful_message(database)
    await receive(database, a_receipt("strange", stat, reference=7))
    assert (await state_of(database, message))[0] == "unknown"

    assert await sweeper.match_parked() == 1

    assert await state_of(database, message) == state
    assert (await one(database, "SELECT status, message_id FROM receipt")) == ("matched", message)
    assert (await one(database, "SELECT outcome, reason, gateway_message_id FROM submission")) == ("accepted", "known_by_receipt", "strange")


async def test_later_receipts_of_that_id_find_their_message_like_all_others(database, sweeper):
    message = await a_doubtful_message(database)
    await receive(database, a_receipt("strange", "ENROUTE", reference=7))
    await sweeper.match_parked()

    await receive(database, a_receipt("strange"))

    assert await state_of(database, message) == ("delivered", None)


@pytest.mark.parametrize(
    ("receipt", "fields"),
    [
        ({"reference": 8}, {}),
        ({"reference": 7, "of": "79160000000"}, {}),
        ({"reference": 7, "of": "MyBank"}, {}),
        ({}, {}),
        ({"reference": 7}, {"state": "accepted"}),
        ({"reference": 7}, {"state": "failed"}),
        ({"reference": 7}, {"group": "other"}),
    ],
)
async def test_receipt_that_does_not_fit_in_everything_is_nobodys(database, sweeper, receipt, fields):
    await an_smpp_gateway(database)
    message = await a_doubtful_message(database, **fields)
    before = await state_of(database, message)
    await receive(database, a_receipt("strange", **receipt))

    await sweeper.match_parked()

    assert await state_of(database, message) == before
    assert await statuses(database) == ["parked"]


async def test_two_messages_that_fit_are_one_too_many(database, sweeper):
    messages = [await a_doubtful_message(database) for _ in range(2)]
    await receive(database, a_receipt("strange", reference=7))

    await sweeper.match_parked()

    assert [(await state_of(database, message))[0] for message in messages] == ["unknown", "unknown"]


async def test_each_part_of_a_long_message_takes_one_of_the_ids(database, sweeper):
    message = await a_doubtful_message(database, parts=2)
    await receive(database, a_receipt("a", reference=7))
    await sweeper.match_parked()
    assert (await state_of(database, message))[0] == "unknown"

    await receive(database, a_receipt("b", reference=7), a_receipt("b", reference=7))
    await sweeper.match_parked()

    assert await state_of(database, message) == ("delivered", None)
    assert [row[0] for row in await rows(database, "SELECT gateway_message_id FROM submission ORDER BY part")] == ["a", "b"]


async def test_more_ids_than_parts_are_unclear_and_nothing_is_learnt(database, sweeper):
    message = await a_doubtful_message(database)
    await receive(database, a_receipt("a", reference=7), a_receipt("b", "UNDELIV", reference=7))

    await sweeper.match_parked()

    assert (await state_of(database, message))[0] == "unknown"
    assert await statuses(database) == ["parked", "parked"]


async def test_message_whose_worker_died_before_it_wrote_anything_is_cleared_up_as_well(database, sweeper):
    await an_smpp_gateway(database)
    message = await a_message(database, id=an_id(7), ended="unknown", reason="no_answer", address=PHONE)
    await receive(database, a_receipt("strange", reference=7))

    await sweeper.match_parked()

    assert await state_of(database, message) == ("delivered", None)
    assert (await one(database, "SELECT n, part, parts, gateway, gateway_message_id FROM submission")) == (1, 1, 1, "main", "strange")


async def test_receipt_of_the_first_try_takes_the_second_one_out_of_the_queue(database, sweeper):
    message = await a_message(database, id=an_id(7), resent=True, address=PHONE)
    await a_submission(database, message, "", outcome="unknown")
    await receive(database, a_receipt("strange", "UNDELIV", reference=7))

    await sweeper.match_parked()

    assert await state_of(database, message) == ("undelivered", "undeliverable")
    assert await rows(database, "SELECT message_id FROM outbox") == []


async def test_second_try_that_is_on_the_wire_is_left_alone(database, sweeper):
    message = await a_message(database, id=an_id(7), state="sending", resent=True, address=PHONE)
    await a_submission(database, message, "", outcome="unknown")
    await receive(database, a_receipt("strange", reference=7))

    await sweeper.match_parked()

    assert (await state_of(database, message))[0] == "sending"
    assert await statuses(database) == ["parked"]


@pytest.fixture
async def lenient(database):
    """A gateway whose profile allows to tell by number and time."""
    return await an_smpp_gateway(database, profile={"match_unknown": 300, "response_timeout": 10})


async def grow_old(database, seconds=20):
    await run(database, "UPDATE receipt SET at = at - make_interval(secs => :seconds)", seconds=seconds)


async def test_where_the_profile_allows_number_and_time_are_enough(database, sweeper, lenient):
    message = await a_doubtful_message(database)
    await receive(database, a_receipt("strange"))
    await grow_old(database)

    await sweeper.match_parked()

    assert await state_of(database, message) == ("delivered", None)


async def test_fresh_receipt_may_still_get_its_answer_and_is_not_guessed_at(database, sweeper, lenient):
    message = await a_doubtful_message(database)
    await receive(database, a_receipt("strange"))

    await sweeper.match_parked()

    assert (await state_of(database, message))[0] == "unknown"


@pytest.mark.parametrize("ago", [timedelta(minutes=6), timedelta(seconds=-5)])
async def test_message_that_was_sent_too_long_before_the_receipt_or_after_it_is_not_meant(database, sweeper, lenient, ago):
    message = await a_doubtful_message(database, ago=ago)
    await receive(database, a_receipt("strange"))
    await grow_old(database)

    await sweeper.match_parked()

    assert (await state_of(database, message))[0] == "unknown"


async def test_of_two_messages_to_one_number_none_is_guessed(database, sweeper, lenient):
    messages = [await a_doubtful_message(database, reference=number) for number in range(2)]
    await receive(database, a_receipt("strange"))
    await grow_old(database)

    await sweeper.match_parked()

    assert [(await state_of(database, message))[0] for message in messages] == ["unknown", "unknown"]


async def test_reference_of_another_message_forbids_to_guess_by_time(database, sweeper, lenient):
    message = await a_doubtful_message(database, reference=7)
    await receive(database, a_receipt("strange", reference=8))
    await grow_old(database)

    await sweeper.match_parked()

    assert (await state_of(database, message))[0] == "unknown"


async def test_sweeper_that_dies_halfway_leaves_all_as_it_was(database, sweeper, monkeypatch):
    message = await a_doubtful_message(database)
    await receive(database, a_receipt("strange", reference=7))
    with monkeypatch.context() as dying:
        dying.setattr("app.tracking.match.UNPARK", None)  # the last statement of the step
        with pytest.raises(Exception, match="None"):
            await sweeper.match_parked()
    assert (await state_of(database, message))[0] == "unknown"
    assert (await one(database, "SELECT gateway_message_id FROM submission")).gateway_message_id is None

    await sweeper.match_parked()

    assert (await state_of(database, message))[0] == "delivered"
