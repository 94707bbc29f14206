"""How a bind comes up, stays up, and goes down."""

import asyncio
import itertools
import time

import pytest

from app.sending.outcome import Accepted, Deferred
from app.simulators import smsc_wire as wire
from app.simulators.smsc import SILENCE, SmscSimulator

RESP = wire.SUBMIT_SM | wire.RESPONSE


async def test_c12_a_wrong_password_is_tried_once_and_reported(call):
    async with SmscSimulator(password="other") as smsc:
        caller = await call(smsc, bound=False)
        await caller.until(lambda: caller.bind.status.state == "stopped")
        await asyncio.sleep(0.3)

        assert len(smsc.binds) == 1
        error = caller.bind.status.last_error
        assert (error.where, error.command_status, error.name) == ("bind", "0x0000000E", "ESME_RINVPASWD")
        assert caller.bind.allowance() == 0
        assert caller.states() == ["connecting", "stopped"]


async def test_c13_a_refused_bind_backs_off_by_doubling(call):
    async with SmscSimulator(bind_statuses=(0x0D, 0x0D, 0x0D)) as smsc:
        caller = await call(smsc, profile={"reconnect_min": 0.1})
        caller.ship(caller.message())
        await caller.settled(1)

        at = [bind[0] for bind in smsc.binds]
        gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
        assert [gap >= least for gap, least in zip(gaps, (0.1, 0.2, 0.4), strict=True)] == [True] * 3
        assert caller.kinds == {"Accepted": 1}


async def test_a_session_that_is_still_there_is_waited_for(call):
    async with SmscSimulator(bind_statuses=(0x05,)) as smsc:
        await call(smsc, profile={"alybnd_wait": 0.4})

        (first, *_), (second, *_) = smsc.binds
        assert second - first >= 0.4


async def test_a_bind_status_of_a_vendor_and_an_smsc_that_says_nothing_are_tried_again(call):
    async with SmscSimulator(bind_statuses=(0x0499, SILENCE)) as smsc:
        caller = await call(smsc, profile={"bind_timeout": 0.2})

        assert [status.last_error.detail for status in caller.changes if status.state == "down"] == [
            "the SMSC refused the bind",
            "no answer within 0.2 s",
        ]


async def test_credentials_longer_than_the_standard_go_out_whole(call):
    async with SmscSimulator(system_id="i" * 40, password="p" * 30) as smsc:
        await call(smsc, system_id="i" * 40, password="p" * 30)

        assert smsc.binds[0][1:3] == ("i" * 40, "p" * 30)


async def test_nobody_listening_is_an_error_of_the_connection(call):
    async with SmscSimulator() as smsc:
        port = smsc.port
    caller = await call(port, bound=False)
    await caller.until(lambda: caller.bind.status.last_error)

    assert caller.bind.status.last_error.where == "connect"
    assert caller.bind.status.state in ("down", "connecting")


async def test_c15_an_smsc_that_closes_after_every_bind_is_not_stormed(call):
    async with SmscSimulator() as smsc:
        await call(smsc, profile={"reconnect_min": 0.1, "reconnect_max": 60, "stable_after": 30})
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            smsc.drop_all()
            await asyncio.sleep(0.02)

        # 0.1, 0.2, 0.4, 0.8: a minute of doubling from one second has room for six.
        assert 3 <= len(smsc.binds) <= 5


async def test_c16_answers_that_follow_an_unbind_are_used(call):
    held = []

    def answer(submit):
        held.append(submit.sequence)
        return SILENCE

    async with SmscSimulator(answer=answer) as smsc:
        caller = await call(smsc, profile={"response_timeout": 5})
        caller.ship(*[caller.message() for _ in range(10)])
        await caller.until(lambda: len(held) == 10)
        smsc.send(wire.frame(wire.UNBIND, 0, 900))
        await caller.until(lambda: smsc.other)
        room_while_unbinding = caller.bind.allowance()
        smsc.send(b"".join(wire.frame(RESP, 0, sequence, b"7\0") for sequence in held))
        await caller.settled(10)
        await caller.until(lambda: len(smsc.binds) == 2)

        assert smsc.other == [(wire.UNBIND | wire.RESPONSE, 0, 900)]
        assert room_while_unbinding == 0
        assert caller.kinds == {"Accepted": 10}
        assert smsc.submitted == 10


async def test_c17_a_reset_makes_what_is_in_flight_unknown_at_once_and_it_is_not_sent_again(call):
    async with SmscSimulator(silent=True) as smsc:
        caller = await call(smsc, window=10, profile={"response_timeout": 60})
        caller.ship(*[caller.message() for _ in range(12)])
        await caller.until(lambda: smsc.submitted == 10)
        smsc.drop_all()
        await caller.settled(12, timeout=1)
        await caller.bound()

        assert caller.kinds == {"Unknown": 10, "Deferred": 2}
        deferred = [outcome for _, outcome in caller.order if isinstance(outcome, Deferred)]
        assert all(not outcome.spends_attempt for outcome in deferred)
        await asyncio.sleep(0.1)
        assert smsc.submitted == 10


async def test_a_message_shipped_to_a_bind_that_has_just_died_comes_back_uncounted(call, smsc):
    caller = await call(smsc)
    smsc.drop_all()
    await caller.until(lambda: caller.bind.status.state != "bound")
    caller.ship(caller.message())
    await caller.settled(1)

    assert caller.order[0][1].spends_attempt is False


async def test_c19_a_link_that_says_nothing_is_found_dead(call):
    async with asyncio.timeout(10):
        connections = []

        async def half_open(reader, writer):
            connections.append(writer)
            request = await reader.readexactly(16)
            await reader.readexactly(int.from_bytes(request[:4], "big") - 16)
            writer.write(wire.frame(0x80000009, 0, int.from_bytes(request[12:], "big"), b"smsc\0"))

        server = await asyncio.start_server(half_open, "127.0.0.1", 0)
        async with server:
            caller = await call(server.sockets[0].getsockname()[1], profile={"enquire_interval": 0.2, "enquire_timeout": 0.2})
            began = time.monotonic()
            await caller.until(lambda: len(connections) == 2)

            assert 0.35 <= time.monotonic() - began <= 2
            assert "enquire_link" in caller.bind.status.last_error.detail
            for writer in connections:
                writer.close()


async def test_a_quiet_link_is_asked_and_stays(call, smsc):
    await call(smsc, profile={"enquire_interval": 0.1, "enquire_timeout": 0.2})
    await asyncio.sleep(0.6)

    assert smsc.enquired >= 3
    assert len(smsc.binds) == 1


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0, 15, 70_001])
async def test_c21_a_length_that_cannot_be_drops_the_link_and_buffers_nothing(call, smsc, length):
    caller = await call(smsc)
    smsc.send(wire.HEADER.pack(length, 0x05, 0, 1) + b"x" * 1000)
    await caller.until(lambda: len(smsc.binds) == 2)

    assert f"command_length {length}" in [status.last_error.detail for status in caller.changes if status.last_error]


async def test_the_longest_pdu_is_the_profiles_to_say(call, smsc):
    caller = await call(smsc, profile={"max_pdu": 2000})
    smsc.send(wire.frame(0x00000111, 0, 77, b"x" * 1984))
    await caller.until(lambda: smsc.other)
    smsc.send(wire.frame(0x00000111, 0, 78, b"x" * 1985))
    await caller.until(lambda: len(smsc.binds) == 2)

    assert caller.details() == ["command_length 2001"]


async def test_what_the_far_end_says_of_itself_is_kept_for_whoever_asks(call, smsc):
    caller = await call(smsc)
    said = caller.bind.far_end["trx"]

    assert (said.host, said.address, said.system_id) == (f"127.0.0.1:{smsc.port}", f"127.0.0.1:{smsc.port}", "simulator")
    assert (said.command_status, said.status_name, said.interface_version) == ("0x00000000", "ESME_ROK", 0x34)
    assert (said.error, said.tls_version, said.certificate_until) == ("", "", None)
    assert said.seconds >= 0


@pytest.mark.parametrize(
    ("statuses", "answer"),
    [((0x0499,) * 9, ("0x00000499", "vendor", "")), ((SILENCE,) * 9, ("", "", "no answer within 0.2 s"))],
)
async def test_a_far_end_that_refuses_or_says_nothing_is_reported_exactly(call, statuses, answer):
    async with SmscSimulator(bind_statuses=statuses) as smsc:
        caller = await call(smsc, bound=False, profile={"bind_timeout": 0.2})
        await caller.until(lambda: caller.bind.status.last_error)
        said = caller.bind.far_end["trx"]

        assert (said.command_status, said.status_name, said.error) == answer
        assert said.address == f"127.0.0.1:{smsc.port}"


@pytest.mark.parametrize("garbage", [b"\xff" * 64, b"\0" * 64, wire.HEADER.pack(15, 9, 0, 1), b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4])
async def test_an_answer_to_the_bind_that_is_no_pdu_is_an_error_and_not_the_end(call, garbage):
    connections = []

    async def strange(reader, writer):
        connections.append(writer)
        writer.write(garbage)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(strange, "127.0.0.1", 0)
    async with server:
        caller = await call(server.sockets[0].getsockname()[1], bound=False)
        await caller.until(lambda: len(connections) >= 2)

        assert "in the answer to the bind" in caller.bind.status.last_error.detail
        assert caller.bind.status.last_error.where == "bind"


async def test_half_a_pdu_is_not_waited_for_for_ever(call, smsc):
    caller = await call(smsc, profile={"pdu_read_timeout": 0.2})
    smsc.send(wire.HEADER.pack(100, 0x05, 0, 1) + b"x" * 10)
    await caller.until(lambda: len(smsc.binds) == 2)

    assert "half a PDU" in next(status.last_error.detail for status in caller.changes if status.last_error)


async def test_a_pdu_that_never_ends_is_not_waited_for_because_it_still_trickles(call, smsc):
    caller = await call(smsc, profile={"pdu_read_timeout": 0.2})
    smsc.send(wire.HEADER.pack(1000, 0x05, 0, 1))
    for _ in range(100):
        smsc.send(b"x")
        await asyncio.sleep(0.02)
        if len(smsc.binds) == 2:
            break

    assert "half a PDU" in next(status.last_error.detail for status in caller.changes if status.last_error)


async def test_pdus_may_come_octet_by_octet(call):
    async with SmscSimulator(answer=lambda _: SILENCE) as smsc:
        caller = await call(smsc)
        caller.ship(caller.message())
        await caller.until(lambda: smsc.submits)
        for octet in wire.frame(RESP, 0, smsc.submits[0].sequence, b"42\0"):
            smsc.send(bytes((octet,)))
            await asyncio.sleep(0.001)
        await caller.settled(1)

        assert caller.order[0][1] == Accepted(("42",))


async def test_stop_waits_for_answers_and_unbinds(call):
    async with SmscSimulator(answer_delay=0.2) as smsc:
        caller = await call(smsc, window=5)
        caller.ship(*[caller.message() for _ in range(8)])
        await caller.until(lambda: smsc.submitted == 5)
        await caller.bind.stop(3)

        assert caller.kinds == {"Accepted": 5, "Deferred": 3}
        assert smsc.unbinds == 1
        assert smsc.submitted == 5
        assert caller.states()[-2:] == ["draining", "stopped"]
        assert caller.bind.allowance() == 0


async def test_stop_gives_up_what_is_unanswered_after_the_grace(call):
    async with SmscSimulator(silent=True) as smsc:
        caller = await call(smsc, profile={"response_timeout": 60})
        caller.ship(*[caller.message() for _ in range(3)])
        await caller.until(lambda: smsc.submitted == 3)
        await caller.bind.stop(0.1)

        assert caller.kinds == {"Unknown": 3}


async def test_stop_ends_a_bind_that_never_came_up(call):
    async with SmscSimulator(bind_statuses=(SILENCE,) * 9) as smsc:
        caller = await call(smsc, bound=False)
        await caller.until(lambda: smsc.binds)
        began = time.monotonic()
        await caller.bind.stop(5)

        assert time.monotonic() - began < 2
        assert caller.running.done() or await caller.running is None


async def test_cancelling_the_run_leaves_no_message_without_an_outcome(call):
    async with SmscSimulator(silent=True) as smsc:
        caller = await call(smsc, window=2, profile={"response_timeout": 60})
        caller.ship(*[caller.message() for _ in range(3)])
        await caller.until(lambda: smsc.submitted == 2)
        caller.running.cancel()
        await asyncio.wait({caller.running})

        assert caller.running.cancelled()
        assert caller.kinds == {"Unknown": 2, "Deferred": 1}
        caller.running = asyncio.create_task(asyncio.sleep(0))


async def test_chaos_leaves_every_message_with_one_outcome_and_none_sent_twice(call):
    async with SmscSimulator(drop_rate=0.005, silence_rate=0.002, error_rate=0.05, error_status=0x0400, seed=7, receipt_window=10) as smsc:
        caller = await call(smsc, window=50, profile={"reconnect_min": 0.02, "reconnect_max": 0.05, "response_timeout": 0.3})
        await caller.ship_as_allowed([caller.message() for _ in range(3000)], timeout=30)
        await caller.settled(3000, timeout=10)
        await caller.until(lambda: all(account.outstanding == 0 for account in smsc.accounts.values()), timeout=10)

        assert sum(caller.kinds.values()) == 3000
        assert len(smsc.binds) > 3
        assert smsc.duplicates == 0
        assert caller.kinds["Accepted"] <= smsc.accepted <= caller.kinds["Accepted"] + caller.kinds["Unknown"]
        told = {receipt.gateway_message_id for receipt in caller.receipts}
        assert {outcome.ids[0] for _, outcome in caller.order if isinstance(outcome, Accepted)} <= told
