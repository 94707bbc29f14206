"""A trace for support: everything that explains a fault, and nothing that belongs to a person."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sending.smpp import pdu, trace
from app.simulators import smsc_wire as wire
from app.simulators.smsc import SmscSimulator


def submit(text: bytes = b"Your code is 1234", *, esm_class: int = 0, coding: int = 0, tail: bytes = b"", sender: bytes = b"\x05\0MyISP\0") -> bytes:
    body = b"\0" + sender + b"\x01\x0179161234567\0" + bytes((esm_class, 0, 1)) + b"\0" + b"000000010000000R\0" + bytes((1, 0, coding, 0, len(text))) + text
    return pdu.frame(pdu.SUBMIT_SM, 17, body + tail)


def test_a_submit_shows_its_fields_by_name_and_neither_number_nor_text():
    line = trace.line(submit(tail=pdu.tlv(0x0204, b"\0\x07")), ours=True)

    assert line == (
        "-> submit_sm #17 service_type= source=5/0:MyISP dest=1/1:7916*****67 esm_class=0x00 protocol_id=0 priority=1 schedule= validity=000000010000000R"
        " registered_delivery=0x01 replace=0 data_coding=0x00 default_msg=0 sm_length=17 text=(17 octets default) user_message_reference=0007"
    )


def test_a_user_data_header_is_shown_and_the_text_behind_it_is_not():
    line = trace.line(submit(b"\x05\0\x03\xa7\x02\x01" + "Код".encode("utf-16-be"), esm_class=0x40, coding=8), ours=True)

    assert "text=(12 octets UCS-2 udh=050003a70201)" in line


@pytest.mark.parametrize(
    ("coding", "alphabet"), [(0, "default"), (3, "Latin-1"), (4, "8-bit"), (8, "UCS-2"), (0x10, "default"), (0x18, "UCS-2"), (0xF0, "default"), (0xF5, "8-bit")]
)
def test_the_alphabet_of_a_text_is_named(coding, alphabet):
    assert f"text=(17 octets {alphabet})" in trace.line(submit(coding=coding), ours=True)


def test_a_password_is_never_shown():
    binds = [
        pdu.bind(command, 1, system_id="isp", password="s3cretword", system_type="VMA", version=0x34, ton=0, npi=0, address_range="")
        for command in (pdu.BIND_TRANSCEIVER, pdu.BIND_TRANSMITTER, pdu.BIND_RECEIVER)
    ]
    outbind = pdu.frame(pdu.OUTBIND, 3, b"smsc\0s3cretword\0")
    cut = [binds[0][:end] for end in range(16, len(binds[0]))]

    lines = [trace.line(octets, ours=True) for octets in [*binds, outbind, *cut]]

    assert lines[0] == "-> bind_transceiver #1 system_id=isp password=*** system_type=VMA interface_version=0x34 address_range=0/0:"
    assert not any("s3cret" in line for line in lines)


def test_the_answer_to_a_bind_shows_who_answers_and_which_version():
    line = trace.line(pdu.frame(0x80000009, 1, b"SMSC1\0" + pdu.tlv(0x0210, b"\x34")), ours=False)

    assert line == "<- bind_transceiver_resp #1 0x00000000 ESME_ROK system_id=SMSC1 sc_interface_version=34"


def test_a_refusal_is_named_by_number_and_word():
    assert trace.line(pdu.frame(0x80000004, 9, status=0x0B), ours=False) == "<- submit_sm_resp #9 0x0000000B ESME_RINVDSTADR"
    assert trace.line(pdu.frame(0x80000000, 9, status=0x03), ours=False) == "<- generic_nack #9 0x00000003 ESME_RINVCMDID"
    assert trace.line(pdu.frame(0x80000004, 9, b"ab-7\0"), ours=False) == "<- submit_sm_resp #9 0x00000000 ESME_ROK message_id=ab-7"


def deliver(text: bytes, *, esm_class: int = 4, tail: bytes = b"") -> str:
    body = wire.deliver_body(b"79160000001", b"MyISP", text, esm_class=esm_class, tail=tail)
    return trace.line(pdu.frame(pdu.DELIVER_SM, 5, body), ours=False)


@pytest.mark.parametrize("esm_class", [0, 4, 0x20])
def test_a_receipt_is_shown_up_to_the_text_of_the_message(esm_class):
    line = deliver(b"id:77 sub:001 dlvrd:001 submit date:2611231200 done date:2611231201 stat:DELIVRD err:000 Text:Your code is 1234", esm_class=esm_class)

    assert 'text="id:77 sub:001 dlvrd:001 submit date:2611231200 done date:2611231201 stat:DELIVRD err:000"' in line
    assert "code" not in line
    assert "source=1/1:7916*****01" in line


def test_a_text_without_a_label_behind_the_fields_of_a_receipt_is_not_shown():
    assert 'text="id:77 stat:DELIVRD err:000"' in deliver(b"id:77 stat:DELIVRD err:000 Your code is 1234")


def test_a_receipt_in_a_payload_is_shown_and_a_text_there_is_not():
    receipt = deliver(b"", tail=pdu.tlv(0x0424, b"id:78 stat:UNDELIV err:027 text:secret") + pdu.tlv(0x001E, b"78\0") + pdu.tlv(0x0427, b"\x05"))
    message = deliver(b"", esm_class=0, tail=pdu.tlv(0x0424, b"Please call me") + pdu.tlv(0x0381, b"79161234567"))

    assert 'message_payload="id:78 stat:UNDELIV err:027" receipted_message_id="78" message_state=05' in receipt
    assert "text=none message_payload=(14 octets default) callback_num=(11 octets)" in message


def test_what_a_subscriber_writes_is_only_measured():
    line = deliver("Позвоните мне".encode("utf-16-be"), esm_class=0)

    assert "text=(26 octets default)" in line


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("79161234567", "7916*****67"),
        ("+7 916 123-45-67", "+7 916 ***-**-67"),
        ("1234567", "1234*67"),
        ("123456", "123456"),
        ("MyISP", "MyISP"),
        ("", ""),
    ],
)
def test_a_number_loses_its_middle(address, shown):
    assert trace.masked(address) == shown


def test_what_is_no_pdu_is_still_a_line():
    assert trace.line(b"abc", ours=False) == "<- 3 octets, less than a header"
    assert trace.lines(wire.HEADER.pack(15, 5, 0, 1), ours=False) == ["<- garbage: command_length 15, 000000050000000000000001"]
    assert trace.lines(wire.HEADER.pack(0xFFFFFFFF, 5, 0, 1) + b"x" * 50, ours=False) == []
    assert trace.line(pdu.frame(0x111, 7, b"79161234567"), ours=False) == "<- broadcast_sm #7 (11 octets of body)"
    assert trace.line(pdu.frame(pdu.SUBMIT_SM, 7, b"\0\x01"), ours=True) == "-> submit_sm #7 service_type= (cut short: 2 octets of body)"


COMMANDS = st.sampled_from([4, 5, 0x103, 1, 2, 9, 0xB, 0x15, 6, 3, 0x102, 0x111, 0x80000000, 0x80000004, 0x80000005, 0x80000009, 0x80000103, 0xDEAD])


@given(COMMANDS, st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF), st.binary(max_size=300), st.booleans())
def test_any_octets_make_one_printable_line_of_bounded_length(command, status, sequence, body, ours):
    line = trace.line(pdu.frame(command, sequence, body, status), ours=ours)

    assert line.isprintable()
    assert len(line) <= 2000


@given(st.binary(max_size=400), st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_submit_never_gives_its_password_or_text_away(tail, at, octet):
    whole = bytearray(submit(b"Confidential words", tail=tail))
    if 16 <= at < len(whole):
        whole[at] = octet

    lines = trace.lines(bytes(whole), ours=True)

    assert all("Confidential words" not in line for line in lines)


@given(st.binary(max_size=200))
def test_chunks_of_rubbish_do_no_harm(data):
    assert all(line.isprintable() for line in trace.lines(data, ours=False))


def test_a_hostile_payload_takes_no_longer_than_its_length():
    trace.line(pdu.frame(pdu.DELIVER_SM, 1, wire.deliver_body(b"1", b"2", b"", tail=pdu.tlv(0x0424, b" " * 65_000))), ours=False)
    trace.line(pdu.frame(pdu.DELIVER_SM, 1, wire.deliver_body(b"1", b"2", b"", tail=pdu.tlv(0x0424, b"id:" * 20_000))), ours=False)


async def test_a_live_bind_is_traced_from_its_next_pdu_until_the_hour_is_over(call, smsc):
    caller = await call(smsc)
    caller.ship(caller.message())
    await caller.until(lambda: smsc.receipts_acknowledged == 1)
    before = list(caller.lines)
    caller.bind.trace_until = asyncio.get_running_loop().time() + 0.5
    caller.ship(caller.message("Secret words", to="+79161234567"))
    await caller.until(lambda: len(caller.receipts) == 2)
    await caller.until(lambda: sum("deliver_sm_resp" in line for line in caller.lines) == 1)
    during = list(caller.lines)
    await caller.until(lambda: caller.bind.trace_until == 0)
    caller.ship(caller.message())
    await caller.settled(3)

    assert before == []
    assert [line.split()[:2] for line in during] == [["->", "submit_sm"], ["<-", "submit_sm_resp"], ["<-", "deliver_sm"], ["->", "deliver_sm_resp"]]
    assert not any("Secret" in line or "79161234567" in line for line in during)
    assert caller.lines == during
    assert caller.bind._sides[0].link.tracer is None


async def test_the_trace_of_a_pair_says_which_side_it_was_and_shows_the_binds_of_a_reconnect(call):
    async with SmscSimulator(password="secret") as smsc:
        caller = await call(smsc, profile={"bind_mode": "tx_rx"})
        caller.bind.trace_until = asyncio.get_running_loop().time() + 30
        smsc.drop_all()
        await caller.until(lambda: len(smsc.binds) == 4)
        await caller.bound()

        shown = {tuple(line.split()[:3]) for line in caller.lines}
        assert {("tx", "->", "bind_transmitter"), ("rx", "->", "bind_receiver"), ("rx", "<-", "bind_receiver_resp")} <= shown
        assert not any("secret" in line for line in caller.lines)
        caller.bind.trace_until = 0
        count = len(caller.lines)
        caller.ship(caller.message())
        await caller.settled(1)
        assert len(caller.lines) == count
