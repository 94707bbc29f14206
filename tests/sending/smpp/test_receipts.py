"""Receipts over the wire: read in every form, handed over once, answered when the caller says so."""

import asyncio
import time
from collections import deque

import pytest

from app.simulators import smsc_wire as wire
from app.simulators.smsc import SmscSimulator

UUID_ID = "3f0c2b1e-7d7a-4a52-9a3e-1b2c3d4e5f60"


def text_receipt(text: str, *, esm_class: int = 4, tail: bytes = b"", **rest) -> bytes:
    return wire.deliver_body(b"79160000001", b"MyISP", text.encode("latin-1"), esm_class=esm_class, tail=tail, **rest)


async def deliver(call, smsc, body, **settings):
    caller = await call(smsc, **settings)
    smsc.deliver(body)
    await caller.until(lambda: caller.receipts)
    return caller, caller.receipts[0]


async def test_c22_a_receipt_is_acknowledged_when_the_caller_has_stored_it_and_not_before(call, smsc):
    caller = await call(smsc, ack=False)
    caller.ship(caller.message(text="Balance"))
    await caller.until(lambda: caller.receipts)
    await asyncio.sleep(0.1)
    before = list(smsc.receipt_answers)
    caller.receipts[0].ack()
    caller.receipts[0].ack()
    await caller.until(lambda: smsc.receipt_answers)
    await asyncio.sleep(0.05)

    receipt = caller.receipts[0]
    assert before == []
    assert smsc.receipt_answers == [0]
    assert (receipt.kind, receipt.state, receipt.stat, receipt.err) == ("receipt", "delivered", "DELIVRD", "000")
    assert (receipt.gateway_message_id,) == caller.order[0][1].ids
    assert receipt.user_message_reference == 1
    assert (receipt.source, receipt.destination) == ("79160000001", "MyISP")
    assert len(receipt.submitted_at) == 10


async def test_c23_a_receipt_may_come_before_the_answer_to_its_submit(call):
    def answer(submit):
        smsc.send(wire.frame(wire.DELIVER_SM, 0, 1, wire.receipt_body(source=b"79160000001", destination=b"MyISP", identity="55", stat="DELIVRD")))
        return wire.frame(wire.SUBMIT_SM | wire.RESPONSE, 0, submit.sequence, b"55\0")

    async with SmscSimulator(answer=answer) as smsc:
        caller = await call(smsc)
        caller.ship(caller.message())
        await caller.settled(1)

        assert caller.receipts[0].gateway_message_id == "55"
        assert caller.order[0][1].ids == ("55",)


async def test_c25_intermediate_states_are_not_final_and_every_copy_is_handed_over(call, smsc):
    caller = await call(smsc)
    for stat in ("ENROUTE", "ACCEPTD", "DELIVRD", "DELIVRD"):
        smsc.deliver(wire.receipt_body(source=b"7916", destination=b"MyISP", identity="9", stat=stat))
    await caller.until(lambda: len(caller.receipts) == 4)

    assert [(receipt.state, receipt.reason) for receipt in caller.receipts] == [
        (None, "in_transit"),
        (None, "accepted_by_network"),
        ("delivered", ""),
        ("delivered", ""),
    ]
    await caller.until(lambda: smsc.receipt_answers == [0, 0, 0, 0])


@pytest.mark.parametrize(
    ("text", "identity", "state", "reason", "err", "done_at"),
    [
        ("id:A1 sub:001 dlvrd:001 submit date:2611231200 done date:2611231201 stat:DELIVRD err:000 text:Hi", "A1", "delivered", "", "000", "2611231201"),
        (
            "id:A1 sub:001 dlvrd:000 submit date:2611231200 done date:2611231201 stat:UNDELIV err:0x1B text:",
            "A1",
            "undelivered",
            "absent_subscriber",
            "0x1B",
            "2611231201",
        ),
        ("id:A1 sub:001 dlvrd:000 submit date:2611231200 done date:2611231201 stat:EXPIRED err: text:x", "A1", "expired", "expired", "", "2611231201"),
        (
            "id:A1 sub:001 dlvrd:000 submit date:261123120000 done date:261123120159 stat:DELETED err:0000 text:x",
            "A1",
            "undelivered",
            "deleted",
            "0000",
            "261123120159",
        ),
        ("id:A1 sub:001 dlvrd:001 submit date:20261123120000 done date:00000000000000 stat:REJECTD err:08a", "A1", "undelivered", "rejected", "08a", "0" * 14),
        ("id:A1 submitdate:2611231200 donedate:000000000000 stat:DELIVRD err:0 Text:", "A1", "delivered", "", "0", "0" * 12),
        ("ID:a-1_b SUBMIT DATE:1 DONE DATE:2 STAT:delivered ERR:1", "a-1_b", "delivered", "", "1", "2"),
        ("id: 77 stat: UNDELIVERABLE", "77", "undelivered", "undeliverable", "", ""),
        ("stat:FAILED id:78", "78", "undelivered", "undeliverable", "", ""),
        ("id:79 stat:BUFFRED err:000", "79", None, "in_transit", "000", ""),
        ("id:80 stat:NIEDOSTARCZ err:000", "80", None, "unknown", "000", ""),
        ("id:81 sub:001 dlvrd:001 stat: err:000 text:stat:DELIVRD", "81", None, "unknown", "000", ""),
        ("id:82 stat:UNKNOWN err:000 text:id:99 stat:DELIVRD", "82", None, "unknown", "000", ""),
        (f"id:{UUID_ID} stat:DELIVRD", UUID_ID, "delivered", "", "", ""),
        ("Your message id:83 was handled, stat:DELIVRD, thank you", "83", "delivered", "", "", ""),
    ],
)
async def test_c26_the_text_is_read_in_all_its_forms(call, smsc, text, identity, state, reason, err, done_at):
    _, receipt = await deliver(call, smsc, text_receipt(text))

    assert (receipt.kind, receipt.gateway_message_id, receipt.state, receipt.reason) == ("receipt", identity, state, reason)
    assert (receipt.err, receipt.done_at) == (err, done_at)
    assert len(smsc.binds) == 1


async def test_c27_a_receipt_may_have_no_text_at_all(call, smsc):
    tail = wire.tlv(0x001E, b"T-9\0") + wire.tlv(0x0427, b"\x05") + wire.tlv(0x0423, b"\x03\x00\xa5") + wire.tlv(0x1400, b"\xff\xfe") + b"\x01"
    _, receipt = await deliver(call, smsc, text_receipt("", tail=tail))

    assert (receipt.gateway_message_id, receipt.state, receipt.stat, receipt.network_error) == ("T-9", "undelivered", "UNDELIV", "3:165")


async def test_c27_a_receipt_may_stand_in_message_payload(call, smsc):
    tail = wire.tlv(0x0424, b"id:P1 sub:001 dlvrd:001 submit date:2611231200 done date:2611231201 stat:DELIVRD err:000 text:")
    _, receipt = await deliver(call, smsc, text_receipt("", tail=tail))

    assert (receipt.gateway_message_id, receipt.state) == ("P1", "delivered")


@pytest.mark.parametrize(("source", "identity", "state"), [("tlv", "T1", "delivered"), ("text", "X1", "undelivered")])
async def test_c27_the_profile_says_whether_tlv_or_text_is_believed(call, smsc, source, identity, state):
    tail = wire.tlv(0x001E, b"T1\0") + wire.tlv(0x0427, b"\x02")
    _, receipt = await deliver(call, smsc, text_receipt("id:X1 stat:UNDELIV", tail=tail), profile={"receipt_source": source})

    assert (receipt.gateway_message_id, receipt.state) == (identity, state)


@pytest.mark.parametrize(
    ("profile", "answered", "told"),
    [
        ({"msgid_resp_base": "hex", "msgid_rcpt_base": "dec"}, "1F4", "500"),
        ({"msgid_resp_base": "hex", "msgid_rcpt_base": "dec"}, "000001f4", "0000000500"),
        ({"msgid_resp_base": "dec", "msgid_rcpt_base": "hex"}, "500", "0x1F4"),
        ({"msgid_fold": ["zeros"]}, "000123", "123"),
        ({"msgid_fold": ["zeros"]}, "0", "000"),
        ({"msgid_fold": ["case"]}, "AbCd-1", "aBcD-1"),
        ({"msgid_fold": ["hyphens", "case"]}, UUID_ID.upper(), UUID_ID.replace("-", "")),
        ({}, "Abc ", "Abc"),
    ],
)
async def test_c28_ids_that_are_written_differently_meet(call, profile, answered, told):
    async with SmscSimulator(answer=lambda submit: wire.frame(wire.SUBMIT_SM | wire.RESPONSE, 0, submit.sequence, answered.encode() + b"\0")) as smsc:
        caller = await call(smsc, profile=profile)
        caller.ship(caller.message())
        await caller.settled(1)
        smsc.deliver(text_receipt(f"id:{told} stat:DELIVRD"))
        await caller.until(lambda: caller.receipts)

        assert caller.order[0][1].ids == (caller.receipts[0].gateway_message_id,)


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\x01", b"\xff" * 40, wire.deliver_body(b"7916", b"My", b"", esm_class=4)[:-1]])
async def test_c30_what_cannot_be_read_is_handed_over_raw_and_can_be_acknowledged(call, smsc, body):
    caller, receipt = await deliver(call, smsc, body)

    assert (receipt.kind, receipt.raw, receipt.state) == ("unreadable", body, None)
    await caller.until(lambda: smsc.receipt_answers == [0])
    assert len(smsc.binds) == 1


async def test_a_receipt_with_esm_class_zero_is_known_by_its_text_or_tlv_and_a_subscribers_sms_is_not_one(call, smsc):
    caller = await call(smsc)
    smsc.deliver(text_receipt("id:1 stat:DELIVRD", esm_class=0))
    smsc.deliver(text_receipt("", esm_class=0, tail=wire.tlv(0x001E, b"2\0") + wire.tlv(0x0427, b"\x02")))
    smsc.deliver(text_receipt("STOP", esm_class=0))
    await caller.until(lambda: len(caller.receipts) == 3)

    assert [receipt.kind for receipt in caller.receipts] == ["receipt", "receipt", "message"]
    assert caller.receipts[2].payload == b"STOP"


async def test_a_receipt_may_come_as_data_sm(call, smsc):
    caller = await call(smsc)
    caller.bind.trace_until = asyncio.get_running_loop().time() + 30
    body = b"\0\x01\x017916\0\x05\x00MyISP\0" + b"\x04\x00\x00" + wire.tlv(0x001E, b"D1\0") + wire.tlv(0x0427, b"\x02")
    smsc.send(wire.frame(0x103, 0, 5, body))
    await caller.until(lambda: smsc.receipt_answers)

    assert (caller.receipts[0].gateway_message_id, caller.receipts[0].state) == ("D1", "delivered")
    assert smsc.receipt_answers == [0]
    assert caller.lines[-1] == "-> data_sm_resp #5 0x00000000 ESME_ROK"


async def test_a_receipt_that_could_not_be_stored_comes_again(call):
    async with SmscSimulator(redelivery_delay=0.05) as smsc:
        caller = await call(smsc, ack=False)
        smsc.deliver(text_receipt("id:1 stat:DELIVRD"))
        await caller.until(lambda: caller.receipts)
        caller.receipts[0].nack()
        await caller.until(lambda: len(caller.receipts) == 2)
        caller.receipts[1].ack()
        await caller.until(lambda: smsc.receipts_acknowledged == 1)

        assert smsc.receipt_answers == [0x64, 0]


async def test_answering_after_the_link_has_died_is_harmless_and_the_receipt_comes_again(call, smsc):
    caller = await call(smsc, ack=False)
    smsc.deliver(text_receipt("id:1 stat:DELIVRD"))
    await caller.until(lambda: caller.receipts)
    smsc.drop_all()
    await caller.until(lambda: len(caller.receipts) == 2)
    caller.receipts[0].ack()
    await asyncio.sleep(0.1)
    none_for_the_dead_one = list(smsc.receipt_answers)
    caller.receipts[1].ack()
    await caller.until(lambda: smsc.receipts_acknowledged == 1)

    assert none_for_the_dead_one == []


async def test_a_receiver_of_receipts_that_fails_does_not_stop_the_link(call, smsc):
    caller = await call(smsc)
    caller.receipts = None  # on_receipt raises
    smsc.deliver(text_receipt("id:1 stat:DELIVRD"))
    await caller.until(lambda: smsc.receipt_answers)

    assert smsc.receipt_answers[0] == 0x64
    assert len(smsc.binds) == 1
    caller.receipts = []


async def test_stop_waits_for_receipts_to_be_acknowledged(call, smsc):
    caller = await call(smsc, ack=False)
    smsc.deliver(text_receipt("id:1 stat:DELIVRD"))
    await caller.until(lambda: caller.receipts)
    asyncio.get_running_loop().call_later(0.2, caller.receipts[0].ack)
    await caller.bind.stop(2)

    assert smsc.receipt_answers == [0]
    assert smsc.unbinds == 1


@pytest.mark.parametrize("allowed", [None, 10])
async def test_c32_a_flood_of_receipts_is_taken_while_the_store_is_slow(call, allowed):
    """The store takes 2 ms a batch, as a flusher with one commit at a time does; an SMSC that allows ten at once is no exception."""
    count = 5000 if allowed is None else 1000
    async with SmscSimulator(receipt_window=allowed) as smsc:
        caller = await call(smsc, ack=False, profile={"enquire_interval": 0.2})
        waiting = deque()
        caller.receipts = waiting

        async def flush():
            stored = 0
            while stored < count:
                batch = [waiting.popleft() for _ in range(min(len(waiting), 500))]
                await asyncio.sleep(0.002)
                for receipt in batch:
                    receipt.ack()
                stored += len(batch)

        began = time.monotonic()
        for index in range(count):
            smsc.deliver(text_receipt(f"id:{index} stat:DELIVRD"))
        async with asyncio.timeout(10):
            await flush()
        await caller.until(lambda: smsc.receipts_acknowledged == count)

        assert time.monotonic() - began < 10
        assert smsc.receipt_answers == [0] * count
