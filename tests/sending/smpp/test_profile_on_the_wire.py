"""What a profile says about pace and refusals, by a real bind."""

import time

from app.sending.outcome import Accepted, Deferred, Refused
from app.simulators.smsc import SmscSimulator


async def test_a_burst_goes_at_once_and_the_rest_at_the_rate(call, smsc):
    caller = await call(smsc, rate_per_second=10, window=50, profile={"burst": 8})
    began = time.monotonic()

    await caller.ship_as_allowed([caller.message() for _ in range(12)])
    await caller.settled(12)

    assert time.monotonic() - began >= 0.38  # four more at ten a second, and not eleven


async def test_a_long_message_takes_its_parts_out_of_the_burst(call, smsc):
    caller = await call(smsc, rate_per_second=10, window=50, profile={"burst": 3})
    began = time.monotonic()

    caller.ship(caller.message("a" * 700))  # five parts
    await caller.settled(1)

    assert time.monotonic() - began >= 0.18
    assert isinstance(caller.order[0][1], Accepted)


async def test_the_profile_decides_which_status_throttles(call):
    async with SmscSimulator(errors={"1": 0x0412, "2": 0x58}) as smsc:
        caller = await call(smsc, profile={"throttle_statuses": ["0x0412"], "status_overrides": {"0x58": "TEMP(3)"}, "throttle_pause_min": 0.2})

        caller.ship(caller.message(to="+79160000002"))
        await caller.settled(1)
        state_after_0x58 = caller.bind.status.state
        caller.ship(caller.message(to="+79160000001"))
        await caller.settled(2)

        (_, first), (_, second) = caller.order
        assert (first.reason, first.attempts, first.spends_attempt, state_after_0x58) == ("refused_for_now", 3, True, "bound")
        assert (second.reason, second.spends_attempt, caller.bind.status.state) == ("throttled", False, "throttled")


async def test_a_sender_that_is_not_registered_waits_while_the_others_go_on(call):
    async with SmscSimulator(answer=lambda submit: 0x0A if submit.source == "Bad" else 0) as smsc:
        caller = await call(smsc, profile={"config_probe_interval": 600})

        for _ in range(8):
            caller.ship(caller.message(sender="Good"), caller.message(sender="Bad"))
            await caller.settled(len(caller.parts))

        outcomes = [outcome for _, outcome in caller.order]
        assert sum(isinstance(outcome, Accepted) for outcome in outcomes) == 8
        assert sum(isinstance(outcome, Refused) for outcome in outcomes) == 4
        held = [outcome for outcome in outcomes if isinstance(outcome, Deferred)]
        assert [(outcome.reason, outcome.retry_in.total_seconds(), outcome.spends_attempt) for outcome in held] == [("sender_refused", 600, False)] * 4
        assert len(smsc.binds) == 1
        assert caller.bind.status.state == "bound"


async def test_a_sender_that_is_not_allowed_never_reaches_the_wire(call, smsc):
    caller = await call(smsc, profile={"allowed_senders": ["MyISP"]})

    caller.ship(caller.message(sender="Other"), caller.message())
    await caller.settled(2)

    assert sorted(getattr(outcome, "reason", "accepted") for _, outcome in caller.order) == ["accepted", "sender_not_allowed"]
    assert smsc.submitted == 1
