"""Silence, where the operator wants one more try: sent again once, never twice, and nothing that was learnt of the first try is lost."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from app.core.clock import now
from app.core.wakeups import Wakeups
from app.notifications.hold import Holding
from app.sending.late import Late, settle_late
from app.sending.outcome import Accepted, Deferred, Refused, Unknown
from app.sending.settle import Settled
from app.tracking.moves import revisit
from app.tracking.sweeps import Sweeper
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import POLICY, a_message, claim, one, rows, run, state_of, write
from tests.builders.receipts import a_receipt, receive

RESENDS = replace(POLICY, resends=lambda _: True)


@pytest.fixture
def owner():
    return uuid4()


@pytest.fixture
def sweeper(database, settings):
    return Sweeper(database, Wakeups(settings.redis_url, direct=lambda queue: True))


@pytest.fixture
def send(database, owner):
    """`await send(message, outcome)`: claimed, and this comes of it."""

    async def send(message, outcome, *, policy=RESENDS):
        await run(database, "UPDATE outbox SET not_before = now() - interval '1 second' WHERE state = 'queued'")
        (claimed,) = await claim(database, owner=owner)
        assert claimed.id == message
        settled = await write(database, owner, (claimed, outcome), policy=policy)
        if settled.resent:  # as the flusher has it done in the same transaction
            async with database.transaction() as session:
                await revisit(session, settled.resent, now())
        return claimed

    return send


async def answer_late(database, message, identity, part=1):
    settled = Settled()
    async with database.transaction() as session:
        await settle_late(session, POLICY, [Late(message, part, identity)], now(), settled)
    return settled


async def in_outbox(database):
    return [tuple(row) for row in await rows(database, "SELECT state, resent, tries, attempts FROM outbox")]


async def history(database, message):
    return [tuple(row) for row in await rows(database, "SELECT state, reason FROM message_change WHERE message_id = :id ORDER BY at, id", id=message)]


async def end_lease(database):
    await run(database, "UPDATE outbox SET lease_until = now() - interval '1 second' WHERE state = 'sending'")


async def test_c17_silence_is_answered_with_one_more_try_and_the_second_one_is_final(database, send):
    message = await a_message(database)

    await send(message, Unknown())
    assert await in_outbox(database) == [("queued", True, 1, 0)]

    await send(message, Unknown())
    assert await state_of(database, message) == ("unknown", "no_answer")
    assert [row.outcome for row in await rows(database, "SELECT outcome FROM submission ORDER BY n")] == ["unknown", "unknown"]
    assert await history(database, message) == [("queued", "no_answer")]


async def test_c17_silence_stays_in_doubt_where_nobody_wants_a_second_try(database, send):
    message = await a_message(database)

    await send(message, Unknown(), policy=POLICY)

    assert await state_of(database, message) == ("unknown", "no_answer")
    assert await in_outbox(database) == []


async def test_type_may_want_a_second_try_and_another_not(database, owner):
    wanted, unwanted = await a_message(database, type="service.connected"), await a_message(database, type="balance.exhausting")
    claimed = await claim(database, owner=owner)

    await write(database, owner, *((one, Unknown()) for one in claimed), policy=replace(POLICY, resends=lambda code: code == "service.connected"))

    assert (await state_of(database, wanted))[0] == "queued"
    assert (await state_of(database, unwanted))[0] == "unknown"


async def test_second_try_that_is_taken_is_an_ordinary_message(database, send):
    message = await a_message(database)
    await send(message, Unknown())

    await send(message, Accepted(("17",)))
    await receive(database, a_receipt("17"))

    assert await state_of(database, message) == ("delivered", None)


@pytest.mark.parametrize("outcome", [Refused("refused", "0x0000000B"), Deferred("refused_for_now", timedelta(0), attempts=1)])
async def test_refusal_after_a_silence_leaves_the_message_in_doubt_for_the_first_try_may_have_arrived(database, send, outcome):
    message = await a_message(database)
    await send(message, Unknown())

    await send(message, outcome)

    assert await state_of(database, message) == ("unknown", "no_answer")


async def test_message_of_which_a_part_was_taken_is_not_sent_again(database, send):
    message = await a_message(database, parts=2)

    await send(message, Unknown("no_answer", ids=("17", "")))

    assert await state_of(database, message) == ("unknown", "no_answer")


async def test_message_that_is_of_no_use_any_more_is_not_sent_again(database, owner):
    message = await a_message(database)
    (claimed,) = await claim(database, owner=owner)
    claimed.expires_at = now() - timedelta(seconds=1)

    await write(database, owner, (claimed, Unknown()), policy=RESENDS)

    assert (await state_of(database, message))[0] == "unknown"


async def test_letter_is_not_sent_again_by_this_policy(database, owner):
    letter = await a_message(database, channel="email")
    (claimed,) = await claim(database, owner=owner)

    await write(database, owner, (claimed, Unknown()), policy=RESENDS)

    assert (await state_of(database, letter))[0] == "unknown"


async def test_flush_of_a_silence_that_is_repeated_sends_it_no_third_time(database, owner):
    # The answer to the first commit was lost; the message may be claimed again, or even settled, before it is repeated.
    message = await a_message(database)
    (first,) = await claim(database, owner=owner)
    await write(database, owner, (first, Unknown()), policy=RESENDS)

    await write(database, owner, (first, Unknown()), policy=RESENDS)
    assert await in_outbox(database) == [("queued", True, 1, 0)]

    (second,) = await claim(database, owner=owner)
    await write(database, owner, (first, Unknown()), policy=RESENDS)
    assert await in_outbox(database) == [("sending", True, 1, 0)]

    await write(database, owner, (second, Unknown()), policy=RESENDS)
    await write(database, owner, (first, Unknown()), (second, Unknown()), policy=RESENDS)
    assert await state_of(database, message) == ("unknown", "no_answer")
    assert await history(database, message) == [("queued", "no_answer")]


@pytest.mark.parametrize("by", ["gateway", "type"])
async def test_sms_whose_worker_died_goes_once_more_where_that_is_wanted_and_no_third_time(database, sweeper, by):
    await an_smpp_gateway(database, profile={"on_response_timeout": "resend_once" if by == "gateway" else "keep"})
    if by == "type":
        await run(
            database,
            'UPDATE notification_type SET settings = CAST(\'{"on_response_timeout": "resend_once"}\' AS jsonb), revision = revision + 1'
            " WHERE code = 'service.connected'",
        )
    message = await a_message(database)
    for expected in ([("queued", True, 1, 0)], []):
        assert await claim(database)
        await end_lease(database)

        await sweeper.end_leases()

        assert await in_outbox(database) == expected
    assert await state_of(database, message) == ("unknown", "no_answer")
    assert await history(database, message) == [("sending", None), ("queued", "lease_ended"), ("sending", None), ("unknown", "no_answer")]


async def test_type_that_keeps_silence_overrides_a_gateway_that_does_not(database, sweeper):
    await an_smpp_gateway(database, profile={"on_response_timeout": "resend_once"})
    await run(database, 'UPDATE notification_type SET settings = CAST(\'{"on_response_timeout": "keep"}\' AS jsonb), revision = revision + 1')
    message = await a_message(database)
    await claim(database)
    await end_lease(database)

    await sweeper.end_leases()

    assert await state_of(database, message) == ("unknown", "no_answer")


async def test_settle_and_the_end_of_the_lease_at_once_send_it_once_more_and_not_twice(database, sweeper, owner):
    await an_smpp_gateway(database, profile={"on_response_timeout": "resend_once"})
    for _ in range(10):
        message = await a_message(database)
        (claimed,) = await claim(database, owner=owner)
        await end_lease(database)

        await asyncio.gather(sweeper.end_leases(), write(database, owner, (claimed, Unknown()), policy=RESENDS))

        assert await in_outbox(database) == [("queued", True, 1, 0)]
        assert len([reason for state, reason in await history(database, message) if state == "queued"]) == 1
        await run(database, "DELETE FROM outbox")


async def test_late_answer_clears_up_an_unknown_message_and_its_parked_receipt_is_taken_home(database, send, sweeper):
    message = await a_message(database)
    await send(message, Unknown(), policy=POLICY)
    await receive(database, a_receipt("17"))

    settled = await answer_late(database, message, "17")

    assert await state_of(database, message) == ("accepted", None)
    assert settled.gateway_message_ids == ["17"]
    assert (await one(database, "SELECT outcome, reason, gateway_message_id FROM submission")) == ("accepted", "late_answer", "17")
    await receive(database, settled=settled.gateway_message_ids)
    assert (await state_of(database, message))[0] == "delivered"


async def test_late_answer_that_comes_twice_changes_nothing_the_second_time(database, send):
    message = await a_message(database)
    await send(message, Unknown(), policy=POLICY)
    await answer_late(database, message, "17")
    before = await rows(database, "SELECT * FROM message_change")

    settled = await answer_late(database, message, "17")

    assert await rows(database, "SELECT * FROM message_change") == before
    assert not settled.moved


async def test_long_message_is_taken_with_the_last_of_its_late_answers(database, send):
    message = await a_message(database, parts=2)
    await send(message, Unknown("no_answer", ids=("", "18")), policy=POLICY)
    assert (await state_of(database, message))[0] == "unknown"

    await answer_late(database, message, "17", part=1)

    assert await state_of(database, message) == ("accepted", None)


async def test_late_answer_does_not_overwrite_what_is_final(database, send):
    message = await a_message(database)
    await send(message, Unknown(), policy=POLICY)
    await run(database, "UPDATE message SET state = 'delivered'")

    await answer_late(database, message, "17")

    assert (await state_of(database, message))[0] == "delivered"


async def test_late_answer_to_the_first_try_takes_the_second_one_out_of_the_queue(database, send):
    message = await a_message(database)
    await send(message, Unknown())

    await answer_late(database, message, "17")

    assert await in_outbox(database) == []
    assert await state_of(database, message) == ("accepted", None)
    assert await claim(database) == []


async def test_late_answer_while_the_second_try_is_on_the_wire_counts_when_that_is_met_with_silence(database, owner, send):
    message = await a_message(database)
    await send(message, Unknown())
    (second,) = await claim(database, owner=owner)
    await answer_late(database, message, "17")
    await receive(database, a_receipt("17"))
    assert (await state_of(database, message))[0] == "sending"

    settled = await write(database, owner, (second, Unknown()), policy=RESENDS)
    assert settled.resent == [message]
    await receive(database, resent=settled.resent)

    assert await state_of(database, message) == ("delivered", None)


async def test_late_answer_counts_when_the_worker_of_the_second_try_dies(database, owner, send, sweeper):
    message = await a_message(database)
    await send(message, Unknown())
    await claim(database, owner=owner)
    await answer_late(database, message, "17")
    await end_lease(database)

    await sweeper.end_leases()

    assert await state_of(database, message) == ("accepted", None)


async def test_second_try_whose_time_is_over_is_in_doubt_and_not_expired(database, settings, send):
    message, other = await a_message(database), await a_message(database, gateway="elsewhere")
    await send(message, Unknown())
    await run(database, "UPDATE outbox SET expires_at = now() - interval '1 second'")

    await Holding(database, settings, Wakeups(settings.redis_url, direct=lambda queue: True)).expire()

    assert await state_of(database, message) == ("unknown", "no_answer")
    assert await state_of(database, other) == ("expired", "too_late")


async def settle_in_a_flush(database, owner, claimed, outcome, policy=RESENDS):
    """As the flusher has it done: what is known of the other try in the same transaction."""
    settled = await write(database, owner, (claimed, outcome), policy=policy)
    await receive(database, settled=settled.gateway_message_ids, resent=settled.resent)
    return settled


async def test_second_try_that_waits_is_given_up_when_the_first_proves_to_have_been_taken_after_its_lease(database, owner, sweeper):
    # The database was away while the answer came; when it came back the sweeper was the quicker of the two.
    await an_smpp_gateway(database, profile={"on_response_timeout": "resend_once"})
    message = await a_message(database)
    (first,) = await claim(database, owner=owner)
    await end_lease(database)
    await sweeper.end_leases()
    assert await in_outbox(database) == [("queued", True, 1, 0)]

    await settle_in_a_flush(database, owner, first, Accepted(("17",)))

    assert await in_outbox(database) == []
    assert await state_of(database, message) == ("accepted", None)
    await receive(database, a_receipt("17"))
    assert await state_of(database, message) == ("delivered", None)


@pytest.mark.parametrize("outcome", [Unknown("partial", ids=("17", "")), Refused("refused", "0x0000000B", ids=("17", ""))])
async def test_second_try_is_given_up_when_a_part_of_the_first_proves_to_have_been_taken_after_its_lease(database, owner, sweeper, outcome):
    await an_smpp_gateway(database, profile={"on_response_timeout": "resend_once"})
    message = await a_message(database, parts=2)
    (first,) = await claim(database, owner=owner)
    await end_lease(database)
    await sweeper.end_leases()

    await settle_in_a_flush(database, owner, first, outcome)

    assert await in_outbox(database) == []
    assert await state_of(database, message) == ("unknown", "partial")


async def test_second_try_that_was_on_the_wire_by_then_is_finished(database, owner, sweeper):
    await an_smpp_gateway(database, profile={"on_response_timeout": "resend_once"})
    message = await a_message(database)
    (first,) = await claim(database, owner=owner)
    await end_lease(database)
    await sweeper.end_leases()
    another = uuid4()
    (second,) = await claim(database, owner=another)

    await settle_in_a_flush(database, owner, first, Accepted(("17",)))
    assert [row[0] for row in await in_outbox(database)] == ["sending"]

    await settle_in_a_flush(database, another, second, Unknown())
    assert await state_of(database, message) == ("accepted", None)


async def test_second_try_that_is_put_off_is_not_made_again_when_the_first_was_taken_meanwhile(database, owner, send):
    message = await a_message(database)
    await send(message, Unknown())
    (second,) = await claim(database, owner=owner)
    await answer_late(database, message, "17")
    await receive(database, a_receipt("17"))

    await settle_in_a_flush(database, owner, second, Deferred("throttled", timedelta(seconds=1), spends_attempt=False))

    assert await in_outbox(database) == []
    assert await state_of(database, message) == ("delivered", None)


async def test_second_try_that_is_put_off_waits_when_nothing_is_known_of_the_first(database, send):
    message = await a_message(database)
    await send(message, Unknown())

    await send(message, Deferred("throttled", timedelta(seconds=1), spends_attempt=False))

    assert await in_outbox(database) == [("queued", True, 2, 0)]


async def test_late_answer_to_one_part_takes_the_second_try_of_a_long_message_out_of_the_queue(database, send):
    message = await a_message(database, parts=2)
    await send(message, Unknown())

    settled = await answer_late(database, message, "17", part=1)
    await receive(database, settled=settled.gateway_message_ids, resent=settled.resent)

    assert await in_outbox(database) == []
    assert await state_of(database, message) == ("unknown", "partial")


async def test_settle_that_is_repeated_when_nothing_waits_changes_nothing(database, owner):
    message = await a_message(database)
    (claimed,) = await claim(database, owner=owner)
    await settle_in_a_flush(database, owner, claimed, Accepted(("17",)))
    await receive(database, a_receipt("17"))

    settled = await settle_in_a_flush(database, owner, claimed, Accepted(("17",)))

    assert not settled.moved
    assert await state_of(database, message) == ("delivered", None)
