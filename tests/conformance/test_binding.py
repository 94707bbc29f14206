"""C12 to C21, C38: how a bind comes up, what it does when the SMSC will not have it or lets it down, and what becomes of the messages meanwhile."""

import asyncio
import itertools
import tracemalloc

import pytest

from app.simulators import smsc_wire as wire
from tests.builders.messages import rows, run
from tests.conformance.conftest import until

STABLE = {"reconnect_min": 0.1, "reconnect_max": 60, "reconnect_jitter": 0, "stable_after": 30}
CHANGE = "UPDATE gateway SET settings = jsonb_set(settings, '{system_id}', '\"right\"'), revision = revision + 1"


async def test_c12_a_wrong_password_is_tried_once_keeps_the_messages_and_binds_after_the_change(works, play):
    smsc = await play({"on": "bind", "when": {"first": 1}, "status": 0x0E})
    await works.open(smsc)
    await works.tell(3)

    status = await works.bind_is("stopped")
    await asyncio.sleep(0.5)
    refused = len(smsc.binds), await works.states()
    await run(works.database, CHANGE)
    await works.until(delivered=3)

    assert refused == (1, {"queued": 3})
    assert {key: status["last_error"][key] for key in ("where", "command_status", "name")} == {
        "where": "bind", "command_status": "0x0000000E", "name": "ESME_RINVPASWD",
    }  # fmt: skip
    assert [bind[1] for bind in smsc.binds] == ["isp", "right"]


@pytest.mark.parametrize("body", ["header", "nul", "tlv"])
async def test_c12_the_status_of_a_refused_bind_is_seen_whatever_its_body(call, play, body):
    smsc = await play({"on": "bind", "status": 0x0E, "body": body})
    caller = await call(smsc, bound=False)
    await caller.until(lambda: caller.bind.status.state == "stopped")

    assert caller.bind.status.last_error.command_status == "0x0000000E"


async def test_c13_a_bind_that_failed_three_times_waits_longer_each_time_and_then_sends(call, play):
    smsc = await play({"on": "bind", "when": {"first": 3}, "status": 0x0D})
    caller = await call(smsc, profile={"reconnect_min": 0.1, "reconnect_max": 5})
    caller.ship(caller.message())
    await caller.settled(1)

    gaps = [later - earlier for (earlier, *_), (later, *_) in itertools.pairwise(smsc.binds)]
    assert [gap >= least for gap, least in zip(gaps, (0.1, 0.2, 0.4), strict=True)] == [True] * 3
    assert caller.kinds == {"Accepted": 1}


async def test_c15_an_smsc_that_closes_after_every_bind_is_not_stormed_and_loses_nothing(works, play):
    smsc = await play({"on": "bind", "when": {"first": 4}, "link": "close", "link_after": 0.05})
    await works.open(smsc, profile=STABLE, rate_per_second=15)
    await works.tell(20)

    await works.finished(seconds=30)

    # 0.1, 0.2, 0.4, 0.8 s between them: with one second as the least, ten binds take 17 minutes, of which the first has six.
    gaps = [later - earlier for (earlier, *_), (later, *_) in itertools.pairwise(smsc.binds)]
    assert [gap >= least for gap, least in zip(gaps, (0.1, 0.2, 0.4, 0.8), strict=True)] == [True] * 4
    seen = [submit.destination for submit in smsc.submits]
    assert len(seen) == len(set(seen))
    states = await works.states()
    assert set(states) <= {"delivered", "unknown"}
    assert sum(states.values()) == 20


async def test_c16_answers_after_an_unbind_are_used_and_nothing_is_sent_twice(works, play):
    smsc = await play({"on": "submit", "when": {"nth": 10}, "link": "unbind"}, {"on": "submit", "when": {"first": 9}, "delay": 0.1})
    await works.open(smsc, window=10)
    await works.tell(25)

    await works.until(delivered=25)

    assert [command for command, _, _ in smsc.other] == [wire.UNBIND | wire.RESPONSE]
    assert len(smsc.binds) == 2
    assert smsc.submitted == 25


@pytest.mark.parametrize("policy", ["keep", "resend_once"])
async def test_c17_what_was_in_flight_at_a_reset_is_in_doubt_at_once_and_goes_again_only_when_the_profile_says_so(works, play, policy):
    smsc = await play({"on": "submit", "when": {"nth": 10}, "link": "reset"}, {"on": "submit", "when": {"first": 9}, "silent": True})
    await works.open(smsc, window=10, profile={"response_timeout": 60, "on_response_timeout": policy})
    await works.tell(10)

    if policy == "keep":
        await works.until(unknown=10, seconds=5)
        await asyncio.sleep(0.5)
        assert smsc.submitted == 10
    else:
        await works.until(delivered=10)
        assert smsc.submitted == 20
        times = [submit.destination for submit in smsc.submits]
        assert {times.count(number) for number in times} == {2}
    assert len(smsc.binds) == 2


async def test_c17_a_message_that_is_in_doubt_twice_is_not_sent_a_third_time(works, play):
    smsc = await play({"on": "submit", "silent": True})
    await works.open(smsc, profile={"response_timeout": 0.3, "on_response_timeout": "resend_once"})
    await works.tell(3)

    await until(lambda: smsc.submitted == 6)
    await works.until(unknown=3)
    await asyncio.sleep(0.6)

    assert smsc.submitted == 6
    assert await works.states() == {"unknown": 3}


async def test_c19_a_link_that_is_half_open_is_found_and_made_again(works, play):
    smsc = await play({"on": "submit", "when": {"nth": 3}, "link": "freeze"})
    await works.open(smsc, window=3, profile={"enquire_interval": 0.3, "enquire_timeout": 0.3, "response_timeout": 30})
    await works.tell(8)

    states = await works.finished()

    assert 1 <= states["unknown"] <= 3  # at most a window
    assert states["delivered"] == 8 - states["unknown"]
    assert len(smsc.binds) == 2
    seen = [submit.destination for submit in smsc.submits]
    assert len(seen) == len(set(seen))
    details = {row.detail for row in await rows(works.database, "SELECT detail FROM submission WHERE outcome = 'unknown'")}
    assert all("enquire_link" in detail for detail in details)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0, 15, 200_000])
async def test_c21_a_length_that_cannot_be_drops_the_link_keeps_memory_and_backs_off(call, play, length):
    smsc = await play({"on": "bind", "when": {"first": 3}, "length": length})
    tracemalloc.start()
    try:
        caller = await call(smsc, profile={"reconnect_min": 0.05, "reconnect_max": 5})
        flood = asyncio.create_task(_flood(smsc))
        await caller.until(lambda: len(smsc.binds) == 4)
        await caller.bound()
        flood.cancel()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    gaps = [later - earlier for (earlier, *_), (later, *_) in itertools.pairwise(smsc.binds)]
    assert [gap >= least for gap, least in zip(gaps, (0.05, 0.1, 0.2), strict=True)] == [True] * 3
    assert peak < 5_000_000
    caller.ship(caller.message())
    await caller.settled(1)
    assert caller.kinds == {"Accepted": 1}


async def _flood(smsc) -> None:
    """Megabytes behind the wrong length."""
    for _ in range(200):
        if len(smsc.binds) < 4:
            smsc.send(b"\xff" * 100_000)
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(("host", "days", "binds"), [("localhost", 30, True), ("elsewhere.example", 30, False), ("localhost", -1, False)])
async def test_c38_only_a_valid_certificate_for_the_right_host_is_bound_to(call, play, authority, host, days, binds):
    smsc = await play(tls_cert=authority.certificate(host, days=days))
    caller = await call(smsc, bound=False, host="localhost", profile={"tls": True, "ca": authority.path.read_text()}, password="0123456789abcdef")

    if binds:
        await caller.bound()
        assert smsc.binds[0][2] == "0123456789abcdef"
        caller.ship(caller.message())
        await caller.settled(1)
        assert caller.kinds == {"Accepted": 1}
    else:
        await caller.until(lambda: caller.bind.status.last_error)
        await asyncio.sleep(0.3)
        assert smsc.binds == []
        assert "certificate" in caller.bind.status.last_error.detail.lower()


async def test_c38_tls_never_falls_back_to_plain_text(call, play, authority):
    plain = await play()
    caller = await call(plain, bound=False, host="localhost", profile={"tls": True, "ca": authority.path.read_text(), "connect_timeout": 1})
    await caller.until(lambda: caller.bind.status.last_error)
    await asyncio.sleep(0.5)

    assert plain.binds == []


async def test_v10_an_smsc_that_is_gone_for_a_while_is_found_again_and_gets_the_rest(works, play):
    smsc = await play({"on": "time", "at": 0.6, "outage": 1.0})
    await works.open(smsc, rate_per_second=100, window=10)
    await works.tell(120)

    states = await works.finished()

    assert states["unknown"] <= 10
    assert states["delivered"] == 120 - states["unknown"]
    seen = [submit.destination for submit in smsc.submits]
    assert len(seen) == len(set(seen))


async def test_v11_a_flood_of_enquire_link_is_answered_and_holds_nothing_up(call, play):
    smsc = await play({"on": "bind", "link_after": 0.05}, {"on": "time", "at": 0.3, "enquire": 2000})
    caller = await call(smsc)
    await caller.until(lambda: smsc.enquiries_answered > 0)
    caller.ship(caller.message())
    await caller.settled(1)
    await caller.until(lambda: smsc.enquiries_answered == 2000)

    assert caller.kinds == {"Accepted": 1}
    assert len(smsc.binds) == 1


async def test_v12_a_bind_answer_that_comes_late_is_waited_for(call, play):
    smsc = await play({"on": "bind", "delay": 0.6})
    await call(smsc, profile={"bind_timeout": 3})

    assert len(smsc.binds) == 1


async def test_v13_an_unbind_that_nobody_follows_up_is_followed_by_a_new_bind(works, play):
    smsc = await play({"on": "bind", "when": {"first": 2}, "link": "unbind", "link_after": 0.1})
    await works.open(smsc, profile={"reconnect_min": 0.05})
    await works.tell(10)

    await works.until(delivered=10)
    await until(lambda: len(smsc.binds) == 3)

    assert smsc.submitted == 10
