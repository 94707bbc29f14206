"""Rate and throttling on a live bind."""

import asyncio
import time

import pytest

from app.sending.outcome import Deferred
from app.simulators import smsc_wire as wire
from app.simulators.smsc import SILENCE, SmscSimulator


def stamps():
    times = []

    def answer(_):
        times.append(time.monotonic())
        return 0

    return times, answer


async def test_parts_go_at_the_agreed_rate_and_not_in_bursts(call):
    times, answer = stamps()
    async with SmscSimulator(answer=answer) as smsc:
        caller = await call(smsc, rate_per_second=40, window=100)
        await caller.ship_as_allowed([caller.message() for _ in range(40)])
        await caller.settled(40)

    # A busy machine may make it slower, never faster.
    assert times[-1] - times[0] >= 39 / 40 - 0.05
    assert all(times[index + 10] - times[index] >= 10 / 40 - 0.05 for index in range(len(times) - 10))


async def test_a_rate_below_one_a_second_is_kept(call):
    times, answer = stamps()
    async with SmscSimulator(answer=answer) as smsc:
        caller = await call(smsc, rate_per_second=0.8)
        allowed = []
        await caller.ship_as_allowed([caller.message(), caller.message()])
        allowed.append(caller.bind.allowance())
        await caller.settled(2)

    assert times[1] - times[0] >= 1.2
    assert allowed == [0]


async def test_the_rate_counts_parts_and_not_messages(call):
    times, answer = stamps()
    async with SmscSimulator(answer=answer) as smsc:
        caller = await call(smsc, rate_per_second=20, window=100)
        caller.ship(caller.message("a" * 1000))
        await caller.settled(1)

    assert len(times) == 7
    assert times[-1] - times[0] >= 6 / 20 - 0.03


async def test_the_allowance_is_what_window_and_rate_leave(call):
    async with SmscSimulator(silent=True) as smsc:
        caller = await call(smsc, rate_per_second=50, window=4, profile={"response_timeout": 30})
        at_first = caller.bind.allowance()
        caller.ship(caller.message(), caller.message("a" * 300))
        later = caller.bind.allowance()
        await caller.until(lambda: caller.bind.allowance() == 1)

        assert at_first == 4  # six tokens fall due within the tenth of a second, but the window has four places
        assert later <= 1
        assert caller.bind.in_use == 3
        assert caller.bind.status.window_in_use <= 3


async def test_a_high_rate_is_reached_by_releasing_several_parts_at_a_time(call, smsc):
    caller = await call(smsc, rate_per_second=3000, window=1000)
    began = time.monotonic()
    await caller.ship_as_allowed([caller.message() for _ in range(1500)])
    await caller.settled(1500)

    assert time.monotonic() - began >= 0.47


@pytest.mark.parametrize("status", [0x58, 0x14])
async def test_c05_c06_throttling_pauses_the_bind_and_burns_no_attempt(call, status):
    relents_at = asyncio.get_running_loop().time() + 0.5

    def answer(_):
        return 0 if asyncio.get_running_loop().time() >= relents_at else status

    async with SmscSimulator(answer=answer) as smsc:
        caller = await call(smsc, rate_per_second=200, profile={"queue_full_pause": 0.1, "enquire_interval": 0.1})
        queue = [caller.message() for _ in range(30)]
        accepted = 0
        async with asyncio.timeout(15):
            while queue:
                batch = queue[: max(caller.bind.allowance(), 0)]
                del queue[: len(batch)]
                before = len(caller.order)
                caller.ship(*batch)
                await caller.settled(before + len(batch))
                for address, outcome in caller.order[before:]:
                    if isinstance(outcome, Deferred):
                        assert (outcome.reason, outcome.spends_attempt) == ("throttled", False)
                        queue.insert(0, caller.message(to=address))
                    else:
                        accepted += 1
                await asyncio.sleep(0.01)

        assert accepted == 30
        assert len(smsc.binds) == 1
        assert "throttled" in caller.states()
        if status == 0x58:
            assert caller.bind.status.rate_limit < 200
            # 0.1, 0.2, 0.4 of pause: a handful of refusals and not a storm.
            assert sum(isinstance(outcome, Deferred) for _, outcome in caller.order) <= 20
        await caller.until(lambda: caller.bind.status.state == "bound")


async def test_an_enquiry_is_answered_while_the_bind_is_throttled(call):
    async with SmscSimulator(errors={"": 0x58}) as smsc:
        caller = await call(smsc, profile={"throttle_pause_min": 1})
        caller.ship(caller.message())
        await caller.settled(1)
        smsc.send(wire.frame(wire.ENQUIRE_LINK, 0, 31))
        await caller.until(lambda: smsc.enquiries_answered, timeout=0.5)

        assert caller.bind.allowance() == 0
        assert 0 < caller.bind.next_chance() <= 1


async def test_what_was_not_begun_when_a_pause_starts_goes_back(call):
    held = []

    def answer(submit):
        held.append(submit.sequence)
        return SILENCE

    async with SmscSimulator(answer=answer) as smsc:
        caller = await call(smsc, window=1, profile={"throttle_pause_min": 1, "response_timeout": 30})
        caller.ship(caller.message(), caller.message())
        await caller.until(lambda: held)
        smsc.send(wire.frame(wire.SUBMIT_SM | wire.RESPONSE, 0x58, held[0]))
        await caller.settled(2)

        assert [(outcome.reason, outcome.code) for _, outcome in caller.order] == [("throttled", ""), ("throttled", "0x00000058")]
        assert smsc.submitted == 1


async def test_the_next_chance_is_worth_waiting_for(call, smsc):
    caller = await call(smsc, rate_per_second=50, window=100)
    caller.ship(*[caller.message() for _ in range(caller.bind.allowance())])
    nothing = caller.bind.allowance()
    chance = caller.bind.next_chance()
    await asyncio.sleep(chance + 0.005)

    assert nothing == 0
    assert 0.02 <= chance <= 0.1
    assert caller.bind.allowance() >= 2


async def test_a_bind_that_is_down_has_no_allowance_and_is_asked_again_within_a_second(call):
    async with SmscSimulator(bind_statuses=(0x0D,) * 99) as smsc:
        caller = await call(smsc, bound=False)
        await caller.until(lambda: smsc.binds)

        assert (caller.bind.allowance(), caller.bind.next_chance()) == (0, 1.0)
