"""C01 to C11: what becomes of submits when the SMSC answers late, wrongly, in any order, or never."""

import asyncio

import pytest
import sqlalchemy as sa

from app.sending.outcome import Accepted, Deferred, Refused, Unknown
from tests.builders.messages import rows
from tests.conformance.conftest import until


async def test_c01_an_smsc_that_never_answers_gets_a_window_and_each_message_one_doubt(works, play):
    smsc = await play({"on": "submit", "silent": True}, {"on": "bind", "when": {"nth": 2}, "silent": True})
    await works.tell(25)
    await works.open(smsc, window=10, profile={"response_timeout": 0.4, "reconnect_after_timeouts": 10, "bind_timeout": 60})

    await works.until(unknown=10, queued=15)
    await asyncio.sleep(0.5)

    assert smsc.most_unanswered == 10
    assert smsc.submitted == 10
    assert await works.states() == {"unknown": 10, "queued": 15}
    found = await rows(works.database, "SELECT message_id, count(*) AS n, min(outcome) AS outcome FROM submission GROUP BY 1")
    assert [(row.n, row.outcome) for row in found] == [(1, "unknown")] * 10


async def test_c02_answers_in_reverse_find_each_its_own_message(call, play):
    smsc = await play({"on": "submit", "when": {"to_ends": "7"}, "status": 0x0B}, {"on": "submit", "reorder": 18})
    caller = await call(smsc, window=20)
    caller.ship(*[caller.message() for _ in range(20)])
    await caller.settled(20)

    given = {submit.destination: submit.identity for submit in smsc.submits}
    for address, outcome in caller.order:
        identity = given[address[1:]]
        assert outcome == (Accepted((identity,)) if identity else Refused("refused", "0x0000000B", "ESME_RINVDSTADR"))
    assert caller.kinds == {"Accepted": 18, "Refused": 2}


async def test_c03_answers_that_come_while_the_store_is_slow_are_still_matched(works, play, database):
    smsc = await play(receipts=False)
    await works.open(smsc, window=20)
    async with database.transaction() as session:  # nothing of the messages can be settled while this stands
        await session.execute(sa.text("LOCK TABLE submission IN EXCLUSIVE MODE"))
        await works.tell(40)
        await until(lambda: smsc.accepted >= 20)
        await asyncio.sleep(0.3)

    await works.until(accepted=40)

    told = {row.address[1:]: row.id for row in await rows(database, "SELECT address, gateway_message_id AS id FROM message JOIN submission ON message_id = id")}
    assert told == {submit.destination: submit.identity for submit in smsc.submits}


async def test_c04_a_wrong_number_fails_for_good_and_is_sent_once(works, play):
    smsc = await play({"on": "submit", "when": {"to_ends": "3"}, "status": 0x0B})
    await works.open(smsc)
    await works.tell(5)

    await works.until(failed=1, delivered=4)

    assert (smsc.submitted, len(smsc.binds)) == (5, 1)


@pytest.mark.parametrize("status", [0x58, 0x14], ids=["c05_throttled", "c06_queue_full"])
async def test_c05_c06_an_smsc_that_is_busy_for_a_while_gets_everything_and_burns_no_attempt(works, play, status):
    smsc = await play({"on": "submit", "when": {"nth": 11}, "throttle_for": 1.0, "status": status}, {"on": "time", "at": 0.4, "every": 0.3, "enquire": 1})
    pauses = {"throttle_pause_min": 0.1, "throttle_pause_max": 0.4, "queue_full_pause": 0.2, "temp_attempts": 1}
    await works.open(smsc, profile=pauses)
    await works.tell(60)

    await works.until(delivered=60)

    refused = [submit for submit in smsc.submits if submit.status]
    assert 2 <= len(refused) <= 30  # it knocks, and does not hammer
    assert len(smsc.binds) == 1
    assert smsc.enquiries_answered >= 2
    taken = [submit.destination for submit in smsc.submits if submit.identity]
    assert len(taken) == len(set(taken)) == 60
    deferred = await rows(works.database, "SELECT DISTINCT code FROM submission WHERE outcome = 'deferred'")
    assert {row.code for row in deferred} <= {f"0x{status:08X}", None}


@pytest.mark.parametrize(
    ("overrides", "expected", "submits", "bind"),
    [
        ({}, {"failed": 1}, 2, "bound"),
        ({"0x0412": "PERM"}, {"failed": 1}, 1, "bound"),
        ({"0x0412": "TEMP(4)"}, {"failed": 1}, 4, "bound"),
        ({"0x0412": "CONFIG"}, {"queued": 1}, 1, "stopped"),
    ],
    ids=["default", "perm", "temp", "config"],
)
async def test_c07_a_vendors_status_acts_as_the_profile_says(works, play, overrides, expected, submits, bind):
    smsc = await play({"on": "submit", "status": 0x0412})
    await works.open(smsc, profile={"status_overrides": overrides, "retry_backoff_min": 0.05, "retry_backoff_max": 0.1})
    await works.tell(1)

    await until(lambda: smsc.submitted == submits)
    await works.until(**expected)
    await works.bind_is(bind)
    await asyncio.sleep(0.3)

    assert smsc.submitted == submits
    assert len(smsc.binds) == 1
    assert await works.states() == expected


@pytest.mark.parametrize("body", ["header", "nul", "tlv", "garbage"])
async def test_c09_a_refusal_means_the_same_whatever_its_body(call, play, body):
    smsc = await play({"on": "submit", "status": 0x0B, "body": body})
    caller = await call(smsc)
    caller.ship(caller.message())
    await caller.settled(1)

    assert caller.order[0][1] == Refused("refused", "0x0000000B", "ESME_RINVDSTADR")
    assert len(smsc.binds) == 1


async def test_c11_a_generic_nack_with_our_number_means_its_status(works, play):
    smsc = await play(
        {"on": "submit", "when": {"nth": 1}, "nack": "ours", "status": 0x58}, {"on": "submit", "when": {"nth": 4}, "nack": "ours", "status": 0x03}
    )
    await works.open(smsc, window=1, profile={"throttle_pause_min": 0.1, "temp_attempts": 1})
    await works.tell(6)

    await works.until(delivered=6)

    assert len(smsc.binds) == 2  # 0x03 wants a new session, 0x58 does not
    taken = [submit.destination for submit in smsc.submits if submit.identity]
    assert len(taken) == len(set(taken)) == 6


async def test_c11_nacks_without_a_number_end_a_session_that_is_out_of_step_and_lose_nothing(works, play):
    smsc = await play({"on": "submit", "when": {"first": 3}, "nack": "zero"})
    await works.open(smsc, window=3, profile={"response_timeout": 5})
    await works.tell(6)

    await works.until(delivered=3, unknown=3)

    assert len(smsc.binds) == 2
    assert len(smsc.submits) == 6


async def test_v01_an_answer_that_comes_twice_counts_once(call, play):
    smsc = await play({"on": "submit", "copies": 3})
    caller = await call(smsc, window=5)
    await caller.ship_as_allowed([caller.message() for _ in range(20)])
    await caller.settled(20)

    assert caller.kinds == {"Accepted": 20}
    assert smsc.most_unanswered <= 5 * 3  # it answers three times as often as it is asked
    assert len(smsc.binds) == 1


async def test_v02_a_status_that_means_nothing_at_all_is_tried_again_and_then_given_up(works, play):
    smsc = await play({"on": "submit", "when": {"to_ends": "0"}, "status": 0xFFFFFFFE}, {"on": "submit", "when": {"to_ends": "1"}, "status": 0x00020000})
    await works.open(smsc, profile={"retry_backoff_min": 0.05, "retry_backoff_max": 0.1})
    await works.tell(3)

    await works.until(failed=2, delivered=1)

    assert smsc.submitted == 5


async def test_v03_a_message_that_was_taken_and_never_answered_is_in_doubt_until_its_receipt_names_it(works, play):
    """Its id is unknown to us: only the reference that we gave it, and that the SMSC echoes, says which one it is."""
    smsc = await play({"on": "submit", "when": {"to_ends": "2"}, "silent": True, "taken": True}, {"on": "receipt", "delay": 0.8})
    await works.open(smsc, profile={"response_timeout": 0.3, "reconnect_after_timeouts": 5})
    await works.tell(5)

    await works.until(delivered=5)

    assert smsc.submitted == 5


async def test_v04_deferrals_leave_the_message_as_it_was(call, play):
    smsc = await play({"on": "submit", "when": {"nth": 1}, "status": 0x08})
    caller = await call(smsc)
    caller.ship(caller.message())
    await caller.settled(1)

    outcome = caller.order[0][1]
    assert isinstance(outcome, Deferred)
    assert (outcome.spends_attempt, outcome.code) == (True, "0x00000008")
    assert not any(isinstance(other, Unknown) for _, other in caller.order)
