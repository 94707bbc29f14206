"""Settle: what each outcome does to a message, once."""

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from app.core.clock import now
from app.sending.outcome import Accepted, Deferred, Refused, Unknown
from tests.builders.messages import POLICY, a_message, claim, one, rows, run, state_of, write

SECONDS = timedelta(seconds=1)
BUSY = Deferred("refused_for_now", timedelta(0), code="0x00000008", detail="ESME_RSYSERR")
NOT_BOUND = Deferred("not_bound", timedelta(seconds=7), spends_attempt=False)


@pytest.fixture
def owner():
    return uuid4()


@pytest.fixture
def send(database, owner):
    """`await send(outcome)`: a message, or the one given, is claimed and this comes of it. Its id."""

    async def send(outcome, message=None, **fields):
        message = message or await a_message(database, **fields)
        await run(database, "UPDATE outbox SET not_before = now() - interval '1 second' WHERE state = 'queued'")
        (claimed,) = await claim(database, owner=owner)
        assert claimed.id == message
        await write(database, owner, (claimed, outcome))
        return message

    return send


async def submissions(database):
    return [tuple(row) for row in await rows(database, "SELECT n, part, parts, outcome, reason, code, gateway_message_id FROM submission ORDER BY n, part")]


async def test_taken_message_is_accepted_and_its_parts_are_kept_with_their_ids(database, send):
    message = await send(Accepted(("17", "18")), parts=2)

    assert await state_of(database, message) == ("accepted", None)
    assert await rows(database, "SELECT message_id FROM outbox") == []
    assert await submissions(database) == [(1, 1, 2, "accepted", None, None, "17"), (1, 2, 2, "accepted", None, None, "18")]


async def test_taken_message_keeps_the_gateway_that_took_it(database, send):
    message = await a_message(database)
    await run(database, "UPDATE message SET gateway = 'planned'")

    await send(Accepted(("1",)), message)

    assert (await one(database, "SELECT gateway FROM message")).gateway == "main"


async def test_letter_without_an_id_is_accepted_all_the_same(database, send):
    await send(Accepted(("",)), channel="email")

    assert await submissions(database) == [(1, 1, 1, "accepted", None, None, None)]


async def test_refused_message_has_failed_with_its_reason(database, send):
    message = await send(Refused("refused", "0x0000000B", "ESME_RINVDSTADR"))

    assert await state_of(database, message) == ("failed", "refused")
    assert await submissions(database) == [(1, 1, 1, "refused", "refused", "0x0000000B", None)]


async def test_of_a_half_taken_refusal_the_taken_parts_keep_their_ids(database, send):
    message = await send(Refused("refused", "0x0000000B", "", ids=("9", "")), parts=2)

    assert await state_of(database, message) == ("failed", "refused")
    assert await submissions(database) == [(1, 1, 2, "accepted", None, None, "9"), (1, 2, 2, "refused", "refused", "0x0000000B", None)]


async def test_unanswered_message_is_unknown_and_is_not_sent_again(database, send):
    message = await send(Unknown("no_answer", "no answer within 60 s"))

    assert await state_of(database, message) == ("unknown", "no_answer")
    assert await claim(database, at=now() + timedelta(minutes=30)) == []


async def test_message_that_was_not_sent_goes_back_without_spending_an_attempt(database, send):
    message = await send(NOT_BOUND)

    row = await one(database, "SELECT state, tries, attempts, claimed_by, lease_until, not_before FROM outbox")
    assert row[:5] == ("queued", 1, 0, None, None)
    assert 6 * SECONDS < row.not_before - now() <= 7 * SECONDS
    assert await submissions(database) == []
    assert await state_of(database, message) == ("queued", None)


async def test_refusal_for_now_spends_an_attempt_and_the_pauses_grow(database, send):
    message, pauses = await a_message(database), []
    for _ in range(2):
        await send(BUSY, message)
        pauses.append((await one(database, "SELECT not_before FROM outbox")).not_before - now())

    first, second = pauses
    assert 26 * SECONDS < first <= 33 * SECONDS
    assert 53 * SECONDS < second <= 66 * SECONDS
    assert (await one(database, "SELECT tries, attempts FROM outbox")) == (2, 2)
    assert [row[:4] for row in await submissions(database)] == [(1, 1, 1, "deferred"), (2, 1, 1, "deferred")]


async def test_message_that_has_used_up_its_attempts_has_failed(database, send):
    message = await a_message(database)
    for _ in range(POLICY.attempts):
        await send(BUSY, message)

    assert await state_of(database, message) == ("failed", "refused_for_now")
    assert [row[3] for row in await submissions(database)] == ["deferred", "deferred", "refused"]


async def test_kind_of_refusal_may_deserve_fewer_attempts_than_others(database, send):
    message = await send(Deferred("refused_for_now", timedelta(0), code="0x00000014", attempts=1))

    assert (await state_of(database, message))[0] == "failed"


async def test_pause_never_grows_beyond_the_longest(database, send):
    message = await a_message(database, attempts=60, tries=60)
    (claimed,) = await claim(database, owner=(owner := uuid4()))

    await write(database, owner, (claimed, BUSY), policy=replace(POLICY, attempts=100))

    assert (await one(database, "SELECT not_before FROM outbox")).not_before - now() <= 1.1 * POLICY.backoff_max
    assert await state_of(database, message) == ("queued", None)


async def test_message_that_was_put_off_very_often_can_still_be_settled(database, send):
    message = await send(NOT_BOUND, tries=32_766, attempts=0)

    assert await state_of(database, message) == ("queued", None)
    await send(Accepted(("1",)), message)
    assert await state_of(database, message) == ("accepted", None)


async def test_settling_twice_changes_nothing(database, owner):
    messages = [await a_message(database) for _ in range(4)]
    claimed = await claim(database, owner=owner)
    outcomes = list(zip(claimed, (Accepted(("1",)), Refused("refused"), Unknown(), BUSY), strict=True))
    await write(database, owner, *outcomes)
    before = await rows(database, "SELECT m.*, o.* FROM message m LEFT JOIN outbox o ON o.message_id = m.id ORDER BY m.id")

    settled = await write(database, owner, *outcomes, at=now() + timedelta(hours=1))

    assert await rows(database, "SELECT m.*, o.* FROM message m LEFT JOIN outbox o ON o.message_id = m.id ORDER BY m.id") == before
    assert len(await submissions(database)) == 4
    assert settled.moved["sms", "main", "service.connected", "accepted"] == 0
    assert len(messages) == 4


async def test_repeated_settle_does_not_touch_the_next_attempt(database, owner):
    # The first commit's answer was lost; meanwhile the same owner has claimed the message once more and it is on the wire.
    message = await a_message(database)
    (first,) = await claim(database, owner=owner)
    await write(database, owner, (first, Deferred("throttled", timedelta(0), spends_attempt=False)))
    (second,) = await claim(database, owner=owner)

    await write(database, owner, (first, Deferred("throttled", timedelta(0), spends_attempt=False)))

    assert second.id == message
    assert await state_of(database, message) == ("sending", None)
    assert await claim(database) == []


@pytest.mark.parametrize("outcome", [Accepted(("1",)), Refused("refused"), Unknown(), BUSY])
async def test_who_does_not_own_a_message_cannot_settle_it(database, outcome):
    message = await a_message(database)
    (claimed,) = await claim(database, owner=uuid4())

    await write(database, uuid4(), (claimed, outcome))

    assert await state_of(database, message) == ("sending", None)


async def test_late_answer_clears_up_what_the_end_of_the_lease_had_left_in_doubt(database, owner):
    message = await a_message(database)
    (claimed,) = await claim(database, owner=owner)
    await run(database, "DELETE FROM outbox")
    await run(database, "UPDATE message SET state = 'unknown', reason = 'no_answer'")

    await write(database, owner, (claimed, Accepted(("77",))))

    assert await state_of(database, message) == ("accepted", None)
    assert (await submissions(database))[0][-1] == "77"


async def test_late_refusal_does_not_overwrite_what_is_final(database, owner):
    message = await a_message(database)
    (claimed,) = await claim(database, owner=owner)
    await run(database, "DELETE FROM outbox")
    await run(database, "UPDATE message SET state = 'delivered'")

    for outcome in (Refused("refused"), Unknown(), Accepted(("1",)), BUSY):
        await write(database, owner, (claimed, outcome))

    assert (await state_of(database, message))[0] == "delivered"


async def test_words_of_the_far_side_that_cannot_be_stored_are_trimmed(database, send):
    message = await send(Accepted(("7\0" + "x" * 300,)))

    assert await state_of(database, message) == ("accepted", None)
    assert len((await submissions(database))[0][-1]) == 200


async def test_long_and_strange_refusals_are_stored_as_far_as_they_go(database, send):
    await send(Refused("r" * 100, "550 5.1.1" + "0" * 100, "no\0 such " + "user" * 300))

    row = await one(database, "SELECT reason, code, detail FROM submission")
    assert (len(row.reason), len(row.code), len(row.detail)) == (64, 32, 500)


async def test_hundreds_of_every_kind_are_settled_together(database, owner):
    for _ in range(200):
        await a_message(database)
    claimed = await claim(database, owner=owner, room=200)
    kinds = (Accepted(("1",)), Refused("a"), Refused("b"), Unknown(), BUSY, NOT_BOUND)

    settled = await write(database, owner, *((one, kinds[number % 6]) for number, one in enumerate(claimed)))

    states = dict(
        tuple(row)
        for row in await rows(database, "SELECT coalesce(o.state, m.state), count(*) FROM message m LEFT JOIN outbox o ON o.message_id = m.id GROUP BY 1")
    )
    assert states == {"accepted": 34, "failed": 67, "unknown": 33, "queued": 66}
    assert settled.moved["sms", "main", "service.connected", "failed"] == 67


async def test_taken_message_keeps_whom_it_was_for_as_a_number(database, send):
    await send(Accepted(("17",)), address="+79161234567")

    assert (await one(database, "SELECT destination FROM submission")).destination == 79161234567


async def test_letter_has_no_such_number(database, send):
    await send(Accepted(("",)), channel="email", address="12345678")

    assert (await one(database, "SELECT destination FROM submission")).destination is None


@pytest.mark.parametrize(("outcome", "parts"), [(Accepted(("1", "2", "3")), 3), (Unknown(), 3), (Refused("refused"), 3)])
async def test_what_the_wire_made_of_a_message_is_what_it_counts_for(database, owner, outcome, parts):
    await a_message(database, parts=1)
    (claimed,) = await claim(database, owner=owner)
    claimed.room = parts

    await write(database, owner, (claimed, outcome))

    assert (await one(database, "SELECT parts FROM message")).parts == parts
    assert [row[2] for row in await submissions(database)] == [parts] * parts


async def test_message_in_one_payload_is_one_submission_and_keeps_its_billed_parts(database, owner):
    await a_message(database, parts=3)
    claimed = await claim(database, owner=owner)
    claimed[0].room = 3

    await write(database, owner, (claimed[0], Unknown()), policy=replace(POLICY, in_one=True))

    assert (await one(database, "SELECT parts FROM message")).parts == 3
    assert [row[:3] for row in await submissions(database)] == [(1, 1, 1)]


async def test_message_of_an_account_that_was_erased_meanwhile_leaves_no_number_behind(database, send):
    message = await a_message(database, address="+79161234567")
    (claimed,) = await claim(database, owner=(owner := uuid4()))
    await run(database, "UPDATE message SET address = ''")

    await write(database, owner, (claimed, Accepted(("17",))))

    assert await state_of(database, message) == ("accepted", None)
    assert (await one(database, "SELECT destination FROM submission")).destination == 0
