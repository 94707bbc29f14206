"""The readers of what comes from outside: whatever it is, something sensible comes of it and nothing is raised."""

import time
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.gateways.profile import Profile
from app.sending.smpp import pdu, trace
from app.sending.smpp.inbound import InboundReader, text_of
from app.sending.smpp.receipts import ReceiptReader
from app.simulators.smsc_mobile import bodies_of
from app.simulators.smsc_scenario import Mobile
from tests.fuzz import pdus

PROFILES = [
    Profile(),
    Profile(receipt_source="text", receipt_detect="esm_class"),
    Profile(msgid_resp_base="hex", msgid_rcpt_base="dec", msgid_fold=["case", "zeros", "hyphens"]),
    Profile(msgid_rcpt_base="hex", accepted_is_final=True, stat_map={"NONSENSE": "delivered"}, error_reasons={"001": "absent_subscriber"}),
]
READERS = [ReceiptReader(profile) for profile in PROFILES]
INBOUND = [InboundReader(profile) for profile in (*PROFILES, Profile(default_alphabet="latin1"), Profile(default_alphabet="gsm_packed"))]
KINDS = {"receipt", "message", "unreadable"}
STATES = {"delivered", "undelivered", "expired", None}
# A mandatory part that fits, so that what follows it is read, too.
HEAD = b"\0\x01\x0179161234567\0\x05\x00MyISP\0"

octets = st.binary(max_size=300)
texts = st.builds(lambda text: text.encode("latin-1", "replace")[:254], st.text(alphabet="idstaerxubmodnl :;,.-_0123456789ABCDEF\0\n€é", max_size=254))
tlvs = st.lists(
    st.builds(pdu.tlv, st.sampled_from([0x001E, 0x0204, 0x020C, 0x020E, 0x020F, 0x0423, 0x0424, 0x0427, 0x1400]), st.binary(max_size=70)), max_size=6
).map(b"".join)
delivers = st.builds(
    lambda esm, coding, text, length, tail: HEAD + bytes((esm, 0, 0, 0, 0, 0, 0, coding, 0, min(len(text) + length, 255))) + text + tail,
    st.integers(0, 255),
    st.integers(0, 255),
    texts | st.binary(max_size=254),
    st.sampled_from([0, 0, 0, 1, 100]),
    tlvs | octets,
)
datas = st.builds(lambda esm, coding, tail: HEAD + bytes((esm, 0, coding)) + tail, st.integers(0, 255), st.integers(0, 255), tlvs | octets)


def read_by_all(command: int, body: bytes) -> None:
    answered = []
    for reader in READERS:
        receipt = reader.read(command, 7, body, lambda *answer: answered.append(answer))
        assert receipt.kind in KINDS
        assert receipt.state in STATES
        assert receipt.raw == body
        assert receipt.kind != "receipt" or receipt.gateway_message_id or receipt.stat
        receipt.ack()
        receipt.ack()
        receipt.nack()
    assert answered == [(command, 7, 0)] * len(READERS)


@given(st.sampled_from([pdu.DELIVER_SM, pdu.DATA_SM, 0x99]), octets)
@example(pdu.DELIVER_SM, b"")
@example(pdu.DATA_SM, b"\0" * 9)
def test_any_octets_are_read_or_called_unreadable(command, body):
    pdu.read_delivered(command, body)
    read_by_all(command, body)


@settings(max_examples=400)
@given(delivers)
def test_any_deliver_sm_is_read(body):
    assert pdu.read_delivered(pdu.DELIVER_SM, body) is not None
    read_by_all(pdu.DELIVER_SM, body)


@given(datas)
def test_any_data_sm_is_read(body):
    assert pdu.read_delivered(pdu.DATA_SM, body) is not None
    read_by_all(pdu.DATA_SM, body)


@given(octets, st.integers(0, 300))
def test_optional_parameters_are_read_as_far_as_they_go(body, start):
    for value in pdu.read_tlvs(body, start).values():
        assert value in body


@given(octets, st.integers(0, 300), st.integers(0, 300))
def test_a_message_id_is_read_from_any_body(body, start, length):
    assert b"\0" not in pdu.message_id_of(body, start, min(start + length, len(body)))


def read_inbound(command: int, body: bytes) -> None:
    for reader in INBOUND:
        inbound = reader.read(READERS[0].read(command, 7, body, lambda *_: None))
        assert "\0" not in inbound.source + inbound.destination  # PostgreSQL takes none
        text = text_of(inbound.encoding, inbound.payload)
        assert "\0" not in text
        text.encode("utf-8")  # nor half a surrogate pair
        reader.action_of(text)
        if inbound.joint is not None:
            assert 1 <= inbound.joint.number <= inbound.joint.total <= 255


@settings(max_examples=400)
@given(st.sampled_from([pdu.DELIVER_SM, pdu.DATA_SM]), delivers | datas | octets)
def test_any_octets_are_read_as_a_subscribers_message(command, body):
    read_inbound(command, body)


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff\ufffe"), min_size=1, max_size=900),
    st.sampled_from(["udh8", "udh16", "sar", "payload"]),
    st.booleans(),
)
def test_a_subscribers_message_is_put_together_as_it_was_written(text, joining, reverse):
    reader, pieces = INBOUND[0], {}
    bodies = bodies_of(Mobile(source="+79161234567", text=text, joining=joining, reverse=reverse), 300)
    for body in bodies:
        inbound = reader.read(READERS[0].read(pdu.DELIVER_SM, 1, body, lambda *_: None))
        pieces[inbound.joint.number if inbound.joint else 1] = inbound

    encodings = {inbound.encoding for inbound in pieces.values()}
    assert len(pieces) == len(bodies)
    assert len(encodings) == 1
    assert text_of(encodings.pop(), b"".join(inbound.payload for _, inbound in sorted(pieces.items()))) == text


@settings(max_examples=300)
@given(st.sampled_from([0x04, 0x05, 0x09, 0x103, 0x80000004, 0x80000009, 0x15, 0x80000000, 0x102, 0x0B, 0x777]), delivers | datas | octets, st.booleans())
def test_any_pdu_becomes_lines_of_a_trace(command, body, ours):
    framed = pdu.frame(command, 5, body)
    for written in (*trace.lines(framed, ours=ours), *trace.lines(framed[:-3], ours=ours), *trace.lines(framed + body, ours=ours)):
        assert "\n" not in written
        assert "79161234567" not in written


@given(octets)
def test_any_octets_become_lines_of_a_trace(chunk):
    assert all("\n" not in written for written in trace.lines(chunk, ours=False))


def test_a_hundred_thousand_mutated_pdus_raise_nothing_and_leave_no_memory_behind():
    valid = pdus.receipts() + pdus.mobiles()
    sizes, kinds = [], dict.fromkeys(KINDS, 0)
    tracemalloc.start()
    try:
        for seed in range(20):
            for command, body in pdus.bodies(seed, 5_000, of=valid):
                receipt = READERS[seed % len(READERS)].read(command, 1, body, lambda *_: None)
                kinds[receipt.kind] += 1
                if receipt.kind == "message":
                    inbound = INBOUND[seed % len(INBOUND)].read(receipt)
                    assert "\0" not in text_of(inbound.encoding, inbound.payload)
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()

    assert sum(kinds.values()) == 100_000
    assert all(number > 1_000 for number in kinds.values())
    assert sizes[-1] - sizes[2] < 1_000_000


@pytest.mark.parametrize("piece", [b"id:", b" ", b"stat:", b"id:1 ", b"submit date:", b"submit ", b"0", b"text :", b";", b"err:,"])
@pytest.mark.parametrize("coding", [0, 8])
def test_no_text_makes_the_reader_think_for_long(piece, coding):
    """A pattern that looks back from every place takes time by the square: sixty-four kilobytes would then hold the bind for minutes."""
    for payload in (piece * (65_000 // len(piece)), b"id:1 stat:" + piece * (65_000 // len(piece)), "id:".encode("utf-16-be") + piece * 30_000):
        body = HEAD + bytes((4, 0, 0, 0, 0, 0, 0, coding, 0, 0)) + pdu.tlv(pdu.TLV_MESSAGE_PAYLOAD, payload[:65_000])
        began = time.process_time()
        for reader in READERS:
            reader.read(pdu.DELIVER_SM, 1, body, lambda *_: None)
        trace.lines(pdu.frame(pdu.DELIVER_SM, 1, body), ours=False)
        assert time.process_time() - began < 2  # it takes some milliseconds; a square takes minutes
