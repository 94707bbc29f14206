"""When a bind is given up, put off, made anew, and when somebody is told."""

import asyncio
import itertools
import logging
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.gateways.profile import Profile
from app.sending.outcome import Accepted, Deferred
from app.sending.smpp.backoff import Backoff
from app.simulators import smsc_wire as wire
from app.simulators.smsc import SILENCE, SmscSimulator

MOSCOW = ZoneInfo("Europe/Moscow")
ALERT = "smpp bind does not come up, or does not stay up"


def alerts(caplog) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.ERROR]


class Wall:
    """A clock on the wall that the test sets."""

    def __init__(self, shown: str) -> None:
        self.moment = datetime.fromisoformat(shown)

    def __call__(self) -> datetime:
        return self.moment.astimezone(UTC)


async def test_already_bound_may_be_taken_for_yes(call):
    async def kannel(reader, writer):
        header = await reader.readexactly(16)
        await reader.readexactly(int.from_bytes(header[:4], "big") - 16)
        writer.write(wire.frame(0x80000009, 0x05, int.from_bytes(header[12:], "big")))
        await reader.read(16)
        writer.close()

    server = await asyncio.start_server(kannel, "127.0.0.1", 0)
    async with server:
        caller = await call(server.sockets[0].getsockname()[1], profile={"alybnd_policy": "success"})

        assert caller.bind.far_end["trx"].status_name == "ESME_RALYBND"
        assert caller.bind.allowance() > 0
        await caller.bind.stop(0.1)


async def test_already_bound_is_otherwise_a_failure_that_is_waited_out(call):
    async with SmscSimulator(bind_statuses=(0x05, 0x05)) as smsc:
        caller = await call(smsc, profile={"alybnd_wait": 0.3})

        gaps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(smsc.binds)]
        assert [gap >= 0.3 for gap in gaps] == [True, True]
        assert caller.bind.status.last_error.name == "ESME_RALYBND"


async def test_c12_which_refusals_stop_a_bind_is_the_profiles_to_say(call, caplog):
    async with SmscSimulator(bind_statuses=(0x0D,)) as smsc:
        caller = await call(smsc, bound=False, profile={"fatal_bind_statuses": ["0x0D"], "config_probe_interval": 0.3})
        await caller.until(lambda: caller.bind.status.state == "stopped")
        at_stop = len(smsc.binds)
        await caller.bound()

        assert at_stop == 1
        assert smsc.binds[1][0] - smsc.binds[0][0] >= 0.3
        assert alerts(caplog) == ["smpp bind"]


async def test_a_wrong_password_taken_off_the_list_is_tried_again_soon(call):
    async with SmscSimulator(bind_statuses=(0x0E, 0x0E)) as smsc:
        caller = await call(smsc, profile={"fatal_bind_statuses": []})

        assert len(smsc.binds) == 3
        assert "stopped" not in caller.states()


async def test_a_bind_refused_for_unknown_reasons_raises_one_alert_at_the_third_time(call, caplog):
    async with SmscSimulator(bind_statuses=(0x0499,) * 6) as smsc:
        caller = await call(smsc, bound=False, profile={"reconnect_min": 0.02, "reconnect_max": 0.04})
        await caller.until(lambda: len(smsc.binds) == 2)
        at_the_second = list(alerts(caplog))
        await caller.bound()

        assert at_the_second == []
        assert alerts(caplog) == [ALERT]


async def test_c15_binds_that_are_closed_at_once_are_few_and_one_alert_and_lose_nothing(call, caplog):
    closing = True

    async with SmscSimulator() as smsc:
        caller = await call(smsc, bound=False, profile={"reconnect_min": 0.05, "reconnect_max": 3, "stable_after": 1, "reconnect_jitter": 0.5})

        async def shut():
            while closing:
                smsc.drop_all()
                await asyncio.sleep(0.005)

        shutting = asyncio.create_task(shut())
        for _ in range(3):  # as a claim does: what comes back is shipped again
            await caller.until(lambda: caller.bind.status.state == "bound", timeout=10)
            caller.ship(caller.message())
        await caller.settled(3, timeout=10)
        await caller.until(lambda: len(smsc.binds) >= 5, timeout=10)
        closing = False
        await shutting
        await caller.bound(timeout=10)

        # 0.05 doubled each time: with the defaults (a second, doubled) the sixth bind comes after half a minute.
        gaps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(smsc.binds)]
        assert [gap >= least for gap, least in zip(gaps, (0.05, 0.1, 0.2, 0.4), strict=False)] == [True] * 4
        assert alerts(caplog) == [ALERT]
        assert all(len(outcomes) == 1 for outcomes in caller.outcomes.values())
        assert smsc.duplicates == 0


@pytest.mark.parametrize(("jitter", "most"), [(0, 0.09), (1, 0.14)])
async def test_the_pause_is_longer_by_a_share_and_never_shorter(jitter, most):
    loop = asyncio.get_running_loop()
    pauses = []
    for _ in range(5):
        backoff = Backoff(Profile(reconnect_min=0.05, reconnect_jitter=jitter), loop.time)
        began = loop.time()
        await backoff.wait()
        pauses.append(loop.time() - began)

    assert min(pauses) >= 0.049
    assert min(pauses) <= most


async def test_what_another_host_asked_for_is_forgotten_when_a_bind_is_made():
    backoff = Backoff(Profile(reconnect_min=0.01, reconnect_jitter=0), asyncio.get_running_loop().time)
    backoff.after(3600)
    backoff.reset()

    async with asyncio.timeout(2):
        await backoff.wait()


async def test_an_old_session_is_made_anew_without_losing_what_is_on_the_wire(call):
    async with SmscSimulator(answer_delay=0.15) as smsc:
        caller = await call(smsc, window=5, profile={"max_session_age": 0.3, "stable_after": 0.1, "response_timeout": 2})
        accepted, queue = 0, [caller.message() for _ in range(80)]
        async with asyncio.timeout(20):
            while accepted < 80:
                batch = queue[: caller.bind.allowance()]
                del queue[: len(batch)]
                before = len(caller.order)
                caller.ship(*batch)
                await caller.settled(before + len(batch))
                for address, outcome in caller.order[before:]:
                    if isinstance(outcome, Deferred):
                        assert (outcome.reason, outcome.spends_attempt) in (("rebind", False), ("not_bound", False))
                        queue.append(caller.message(to=address))
                    else:
                        assert isinstance(outcome, Accepted)
                        accepted += 1
                await asyncio.sleep(0.01)

        assert len(smsc.binds) >= 3
        assert smsc.unbinds >= 2
        assert smsc.submitted == smsc.accepted == 80
        assert smsc.duplicates == 0
        assert "draining" in caller.states()
        assert caller.bind.status.last_error is None


async def test_a_bind_leaves_for_its_blackout_when_what_is_on_the_wire_was_answered(call):
    wall = Wall("2026-11-23 01:59+03:00")
    held = []

    def answer(submit):
        held.append(submit.sequence)
        return SILENCE

    async with SmscSimulator(answer=answer) as smsc:
        profile = {"blackout": ["02:00-02:30"], "response_timeout": 5}
        caller = await call(smsc, window=1, profile=profile, options={"wall_clock": wall, "zone": MOSCOW})
        caller.ship(caller.message(), caller.message())
        await caller.until(lambda: held)
        wall.moment += timedelta(minutes=1)
        await caller.until(lambda: caller.bind.status.state == "draining")
        smsc.send(wire.frame(wire.SUBMIT_SM | wire.RESPONSE, 0, held[0], b"1\0"))
        await caller.until(lambda: caller.bind.status.state == "stopped")

        assert caller.kinds == {"Accepted": 1, "Deferred": 1}
        assert caller.bind.status.last_error.detail == "blackout until 02:30"
        assert smsc.unbinds == 1
        assert caller.bind.allowance() == 0


async def test_a_bind_that_starts_in_its_blackout_waits_for_the_end(call, smsc):
    wall = Wall("2026-11-23 02:29:59.700+03:00")
    caller = await call(smsc, bound=False, profile={"blackout": ["02:00-02:30"]}, options={"wall_clock": wall, "zone": MOSCOW})
    await caller.until(lambda: caller.bind.status.state == "stopped")
    before = len(smsc.binds)
    wall.moment += timedelta(seconds=1)
    await caller.bound()

    assert before == 0
    assert caller.states() == ["stopped", "connecting", "bound"]


async def test_both_sides_of_a_pair_leave_for_a_blackout(call, smsc):
    wall = Wall("2026-11-23 01:59+00:00")
    caller = await call(smsc, profile={"bind_mode": "tx_rx", "blackout": ["02:00-02:30"]}, options={"wall_clock": wall})
    wall.moment += timedelta(minutes=2)
    await caller.until(lambda: not smsc.links)

    assert smsc.unbinds == 2
    await caller.until(lambda: caller.bind.status.state == "stopped")


async def test_an_enquiry_is_answered_while_the_bind_drains(call):
    held = []

    def answer(submit):
        held.append(submit.sequence)
        return SILENCE

    async with SmscSimulator(answer=answer) as smsc:
        caller = await call(smsc, profile={"response_timeout": 30})
        caller.ship(caller.message())
        await caller.until(lambda: held)
        stopping = asyncio.create_task(caller.bind.stop(3))
        await caller.until(lambda: caller.bind.status.state == "draining")
        smsc.send(wire.frame(wire.ENQUIRE_LINK, 0, 31))
        await caller.until(lambda: smsc.enquiries_answered, timeout=1)
        smsc.send(wire.frame(wire.SUBMIT_SM | wire.RESPONSE, 0, held[0], b"7\0"))
        await stopping

        assert caller.kinds == {"Accepted": 1}


async def test_a_bind_made_anew_with_other_settings_loses_and_doubles_nothing(call):
    async with SmscSimulator(answer_delay=0.05) as smsc:
        first = await call(smsc, window=20)
        waiting = {f"+7916{number:07d}" for number in range(300)}
        sent = 0
        for address in sorted(waiting)[:120]:
            first.ship(first.message(to=address))
        await first.until(lambda: smsc.submitted >= 40)
        await first.bind.stop(3)  # what the station does before it opens a bind with the changed settings
        taken = {address for address, outcome in first.order if isinstance(outcome, Accepted)}
        sent = len(taken)
        second = await call(smsc, window=7, rate_per_second=2000)
        await second.ship_as_allowed([second.message(to=address) for address in sorted(waiting - taken)])
        await second.settled(300 - sent)

        assert 40 <= sent < 120
        assert len(first.order) == 120
        assert second.kinds == {"Accepted": 300 - sent}
        assert sorted(submit.destination for submit in smsc.submits) == sorted(address[1:] for address in waiting)


async def test_an_urgent_message_overtakes_a_campaign_within_one_window(call, smsc):
    caller = await call(smsc, rate_per_second=5, window=10)
    queue = [caller.message() for _ in range(1000)]
    urgent = caller.message(to="+79990000000", urgent=True)
    async with asyncio.timeout(20):
        at_its_coming = None
        while not any(submit.destination == "79990000000" for submit in smsc.submits):
            if at_its_coming is None and smsc.submitted >= 3:
                at_its_coming = smsc.submitted
                queue.insert(0, urgent)  # as a claim has it: urgent ones first
            allowed = caller.bind.allowance()
            caller.ship(*queue[:allowed])
            del queue[:allowed]
            await asyncio.sleep(min(caller.bind.next_chance(), 0.05))

    assert smsc.submitted - at_its_coming <= 10
    assert len(queue) > 980
