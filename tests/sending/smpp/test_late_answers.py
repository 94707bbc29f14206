"""Answers that come after their time was up."""

from app.sending.outcome import Accepted, Unknown
from app.simulators import smsc_wire as wire
from app.simulators.smsc import SILENCE, SmscSimulator

RESP = wire.SUBMIT_SM | wire.RESPONSE


def mute(first: int):
    """Does not answer the first submits, and keeps their sequence numbers."""
    silenced = []

    def answer(submit):
        if len(silenced) < first:
            silenced.append(submit.sequence)
            return SILENCE
        return 0

    return silenced, answer


async def test_a_late_answer_names_its_message_and_part_after_the_outcome_was_told(call):
    silenced, answer = mute(1)
    async with SmscSimulator(answer=answer) as smsc:
        caller = await call(smsc, window=10, profile={"msgid_resp_base": "hex"})
        message = caller.message()
        caller.ship(message)
        await caller.settled(1)
        smsc.send(wire.frame(RESP, 0, silenced[0], b"FF\0"))
        smsc.send(wire.frame(RESP, 0, silenced[0], b"FF\0"))
        await caller.until(lambda: caller.late)
        caller.ship(caller.message())
        await caller.settled(2)

        assert caller.late == [(message.key, 0, "255")]
        assert caller.outcomes[message.key] == [Unknown("no_answer", "no answer within 0.6 s")]
        assert len(smsc.binds) == 1


async def test_a_late_refusal_and_an_answer_to_nothing_are_not_told(call):
    silenced, answer = mute(1)
    async with SmscSimulator(answer=answer) as smsc:
        caller = await call(smsc, window=10)
        caller.ship(caller.message())
        await caller.settled(1)
        smsc.send(wire.frame(RESP, 0x0B, silenced[0]) + wire.frame(RESP, 0, 4711, b"9\0"))
        caller.ship(caller.message())
        await caller.settled(2)

        assert caller.late == []
        assert caller.bind.allowance() == 10


async def test_a_part_found_while_the_others_are_out_makes_its_message_whole(call):
    seen = {}

    def answer(submit):
        seen[submit.joint[2]] = submit.sequence
        return SILENCE

    async with SmscSimulator(answer=answer) as smsc:
        caller = await call(smsc, window=20, rate_per_second=4, profile={"response_timeout": 0.6})
        caller.ship(caller.message("a" * 300))
        await caller.until(lambda: len(seen) == 2)
        await caller.until(lambda: 1 in _parts_given_up(caller))
        smsc.send(wire.frame(RESP, 0, seen[1], b"one\0") + wire.frame(RESP, 0, seen[2], b"two\0"))
        await caller.settled(1)

        assert caller.order[0][1] == Accepted(("one", "two"))
        assert caller.late == []


def _parts_given_up(caller) -> set[int]:
    return {index + 1 for _, index in caller.bind._traffic._ghosts.values()}


async def test_no_more_than_half_a_window_is_ever_remembered(call):
    async with SmscSimulator(silent=True) as smsc:
        caller = await call(smsc, window=10, profile={"reconnect_after_timeouts": 1000, "response_timeout": 0.2})
        remembered = set()
        await caller.ship_as_allowed([caller.message() for _ in range(4)])
        await caller.settled(4)
        remembered.add(len(caller.bind._traffic._ghosts))
        caller.ship(caller.message())
        await caller.until(lambda: len(smsc.binds) == 2)

        assert remembered == {4}
        assert len(caller.bind._traffic._ghosts) == 0


async def test_a_late_answer_of_a_session_that_is_over_is_nobodys(call):
    silenced, answer = mute(1)
    async with SmscSimulator(answer=answer) as smsc:
        caller = await call(smsc, window=10)
        caller.ship(caller.message())
        await caller.settled(1)
        smsc.drop_all()
        await caller.until(lambda: len(smsc.binds) == 2)
        await caller.bound()
        smsc.send(wire.frame(RESP, 0, silenced[0], b"7\0"))
        caller.ship(caller.message())
        await caller.settled(2)

        assert caller.late == []
