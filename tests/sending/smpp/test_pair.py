"""A transmitter and a receiver that are one bind, and each of them alone."""

import asyncio
import socket

from app.sending.outcome import Accepted, Deferred
from app.simulators import smsc_wire as wire
from app.simulators.smsc import SILENCE, SmscSimulator

PAIR = {"bind_mode": "tx_rx"}


def modes(smsc) -> list[str]:
    return sorted(link.mode for link in smsc.links)


def link_of(smsc, mode):
    return next(link for link in smsc.links if link.mode == mode)


def pair_at(smsc: SmscSimulator, receipts: SmscSimulator | int, **rest) -> dict:
    """Settings of a pair whose receiver has an SMSC of its own, so that each may fail by itself."""
    port = receipts if isinstance(receipts, int) else receipts.port
    return {"profile": PAIR | {"rx_host": f"127.0.0.1:{port}"} | rest}


def receipt(identity: str) -> bytes:
    return wire.receipt_body(source=b"79160000001", destination=b"MyISP", identity=identity, stat="DELIVRD")


async def test_a_pair_submits_over_the_one_and_gets_its_receipts_over_the_other(call, smsc):
    caller = await call(smsc, profile=PAIR)
    await caller.ship_as_allowed([caller.message() for _ in range(30)])
    await caller.settled(30)
    await caller.until(lambda: smsc.receipts_acknowledged == 30)

    assert modes(smsc) == ["receiver", "transmitter"]
    assert caller.kinds == {"Accepted": 30}
    assert {receipt.gateway_message_id for receipt in caller.receipts} == {outcome.ids[0] for _, outcome in caller.order}
    assert set(caller.bind.far_end) == {"tx", "rx"}


async def test_a_pair_is_bound_when_both_are_and_says_which_one_is_missing(call, smsc):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        caller = await call(smsc, bound=False, **pair_at(smsc, reserved.getsockname()[1]))
        await caller.until(lambda: smsc.links and caller.bind.status.last_error)

        assert modes(smsc) == ["transmitter"]
        assert caller.bind.status.state in ("down", "connecting")
        assert caller.bind.status.last_error.detail.startswith("receiver: ")
        assert caller.bind.allowance() == 0  # nobody could hear a receipt, and nobody ever did
        assert "bound" not in caller.states()


async def test_a_pair_goes_on_submitting_for_a_moment_without_its_receiver_and_then_waits_for_it(call, smsc):
    async with SmscSimulator() as receipts:
        port = receipts.port
        caller = await call(smsc, **pair_at(smsc, receipts, rx_grace=0.4))
        await receipts.close()
        await caller.until(lambda: caller.bind.status.state != "bound")
        within_grace = caller.bind.allowance()
        caller.ship(caller.message())
        await caller.settled(1)
        await caller.until(lambda: caller.bind.allowance() == 0, timeout=3)
        caller.ship(caller.message())
        await caller.settled(2)

        assert within_grace > 0
        assert isinstance(caller.order[0][1], Accepted)
        assert isinstance(caller.order[1][1], Deferred)
        assert caller.order[1][1].spends_attempt is False
        assert len(smsc.links) == 1

        async with SmscSimulator(port=port):
            await caller.bound()
            assert caller.bind.allowance() > 0
            assert len(smsc.binds) == 1


async def test_what_was_not_begun_when_the_grace_is_over_goes_back(call):
    async with SmscSimulator(silent=True) as smsc, SmscSimulator() as receipts:
        caller = await call(smsc, window=1, **pair_at(smsc, receipts, rx_grace=0.1, response_timeout=30))
        caller.ship(caller.message(), caller.message())
        await caller.until(lambda: smsc.submitted == 1)
        await receipts.close()
        await caller.settled(1, timeout=8)

        assert [(address, outcome.reason) for address, outcome in caller.order] == [("+79160000002", "receiver_down")]
        assert caller.bind.status.window_in_use == 1


async def test_each_side_of_a_pair_comes_back_by_itself(call, smsc):
    caller = await call(smsc, profile=PAIR | {"stable_after": 0})
    link_of(smsc, "transmitter").reset()
    await caller.until(lambda: len(smsc.binds) == 3)
    await caller.bound()
    after_the_transmitter = modes(smsc)
    link_of(smsc, "receiver").reset()
    await caller.until(lambda: len(smsc.binds) == 4)
    await caller.bound()

    assert after_the_transmitter == modes(smsc) == ["receiver", "transmitter"]
    assert [detail.partition(":")[0] for detail in caller.details()] == ["transmitter", "receiver"]


async def test_a_lost_receiver_costs_no_message_on_the_wire(call):
    held = []

    def answer(submit):
        held.append(submit.sequence)
        return SILENCE

    async with SmscSimulator(answer=answer) as smsc:
        caller = await call(smsc, profile=PAIR | {"response_timeout": 10})
        caller.ship(*[caller.message() for _ in range(3)])
        await caller.until(lambda: len(held) == 3)
        link_of(smsc, "receiver").reset()
        await caller.until(lambda: len(smsc.binds) == 3)
        link_of(smsc, "transmitter").write(b"".join(wire.frame(wire.SUBMIT_SM | wire.RESPONSE, 0, sequence, b"7\0") for sequence in held))
        await caller.settled(3)

        assert caller.kinds == {"Accepted": 3}


async def test_a_receipt_is_answered_on_the_connection_that_it_came_on_whichever_that_is(call, smsc):
    caller = await call(smsc, profile=PAIR, ack=False)
    transmitter, receiver = link_of(smsc, "transmitter"), link_of(smsc, "receiver")
    answered = []
    for link in (transmitter, receiver):
        link._take = lambda header, *rest, kept=link._take, mode=link.mode: (answered.append((mode, header[0], header[2])), kept(header, *rest))
    transmitter.write(wire.frame(wire.DELIVER_SM, 0, 501, receipt("1")))
    receiver.write(wire.frame(wire.DELIVER_SM, 0, 777, receipt("2")))
    await caller.until(lambda: len(caller.receipts) == 2)
    for one in caller.receipts:
        one.ack()
    await caller.until(lambda: len(answered) >= 2)

    answers = {entry for entry in answered if entry[1] == wire.DELIVER_SM | wire.RESPONSE}
    assert answers == {("transmitter", wire.DELIVER_SM | wire.RESPONSE, 501), ("receiver", wire.DELIVER_SM | wire.RESPONSE, 777)}


async def test_stop_unbinds_both_and_waits_for_the_answers_of_both(call):
    async with SmscSimulator(answer_delay=0.2) as smsc:
        caller = await call(smsc, profile=PAIR)
        caller.ship(*[caller.message() for _ in range(5)])
        await caller.until(lambda: smsc.submitted == 5)
        await caller.bind.stop(3)

        assert caller.kinds == {"Accepted": 5}
        assert smsc.unbinds == 2
        assert caller.states()[-2:] == ["draining", "stopped"]


async def test_cancelling_a_pair_leaves_no_message_without_an_outcome_and_no_connection(call):
    async with SmscSimulator(silent=True) as smsc:
        caller = await call(smsc, window=2, profile=PAIR | {"response_timeout": 60})
        caller.ship(*[caller.message() for _ in range(3)])
        await caller.until(lambda: smsc.submitted == 2)
        caller.running.cancel()
        await asyncio.wait({caller.running})
        await caller.until(lambda: not smsc.links)

        assert caller.kinds == {"Unknown": 2, "Deferred": 1}
        assert caller.running.cancelled()
        caller.running = asyncio.create_task(asyncio.sleep(0))


async def test_a_transmitter_alone_submits_and_expects_no_receipts(call, smsc):
    caller = await call(smsc, profile={"bind_mode": "tx"})
    caller.ship(caller.message())
    await caller.settled(1)

    assert modes(smsc) == ["transmitter"]
    assert caller.kinds == {"Accepted": 1}


async def test_a_receiver_alone_hears_and_has_no_room(call, smsc):
    caller = await call(smsc, profile={"bind_mode": "rx", "enquire_interval": 0.1, "enquire_timeout": 0.5})
    smsc.deliver(receipt("5"))
    await caller.until(lambda: smsc.receipt_answers == [0])
    caller.ship(caller.message())
    await caller.settled(1)
    await caller.until(lambda: smsc.enquired >= 2)

    assert modes(smsc) == ["receiver"]
    assert caller.bind.allowance() == 0
    assert caller.bind.next_chance() == 1.0
    assert caller.order[0][1].reason == "not_bound"
    assert smsc.submitted == 0
    assert len(smsc.binds) == 1


async def test_chaos_on_both_sides_leaves_every_message_with_one_outcome(call):
    async with SmscSimulator(drop_rate=0.005, error_rate=0.05, error_status=0x0400, seed=5) as smsc:
        quick = {"reconnect_min": 0.02, "reconnect_max": 0.05, "response_timeout": 0.5, "rx_grace": 0.05}
        caller = await call(smsc, window=50, profile=PAIR | quick)

        async def strike():
            while True:
                await asyncio.sleep(0.1)
                if "receiver" in modes(smsc):
                    link_of(smsc, "receiver").reset()

        striking = asyncio.create_task(strike())
        await caller.ship_as_allowed([caller.message() for _ in range(1500)], timeout=30)
        await caller.settled(1500, timeout=10)
        striking.cancel()

        assert sum(caller.kinds.values()) == 1500
        assert smsc.duplicates == 0
        assert len(smsc.binds) > 4
        assert caller.kinds["Accepted"] <= smsc.accepted <= caller.kinds["Accepted"] + caller.kinds["Unknown"]
