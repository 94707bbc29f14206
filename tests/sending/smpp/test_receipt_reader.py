"""The receipt reader alone, on anything that octets can be."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.gateways.profile import Profile
from app.sending.smpp import pdu
from app.sending.smpp.receipts import ReceiptReader, normaliser
from app.simulators import smsc_wire as wire

READER = ReceiptReader(Profile())
field = st.sampled_from(["id", "sub", "dlvrd", "submit date", "done date", "stat", "err", "text", "ID", "Stat", "foo"])
garbled_texts = st.lists(st.tuples(field, st.sampled_from([":", ": ", " :", ""]), st.text(max_size=12)), max_size=8).map(
    lambda fields: " ".join(label + colon + value for label, colon, value in fields)
)
octets = st.one_of(
    st.binary(max_size=300),
    st.tuples(garbled_texts, st.binary(max_size=40), st.sampled_from([0, 4, 8, 0x20, 0x40, 0xFF]), st.integers(0, 255)).map(
        lambda given: wire.deliver_body(b"7916", b"My", given[0].encode("utf-8")[:254], esm_class=given[2], data_coding=given[3], tail=given[1])
    ),
)


def answer(*_):
    raise AssertionError("reading must not answer")


@given(octets, st.sampled_from([pdu.DELIVER_SM, pdu.DATA_SM]))
@example(wire.deliver_body(b"7916", b"My", b"id:1 stat:DELIVRD", esm_class=4, tail=b"\x04\x27\x00\x00"), pdu.DELIVER_SM)
@settings(max_examples=500, deadline=None)
def test_the_reader_never_raises_and_keeps_the_octets(body, command):
    receipt = READER.read(command, 1, body, answer)

    assert receipt.raw == body
    assert receipt.kind in ("receipt", "message", "unreadable")
    assert receipt.state is None or receipt.gateway_message_id or receipt.stat


@given(st.uuids(), st.uuids())
def test_no_folding_makes_two_uuids_one(one, other):
    profile = Profile(msgid_resp_base="hex", msgid_rcpt_base="dec", msgid_fold=["case", "zeros", "hyphens"])

    same = normaliser(profile, "hex")(str(one)) == normaliser(profile, "dec")(str(other))

    assert same == (one == other)


@given(st.integers(0, 2**64 - 1))
def test_a_number_meets_itself_in_another_base(number):
    profile = Profile(msgid_resp_base="hex", msgid_rcpt_base="dec")

    assert normaliser(profile, "hex")(f"{number:x}") == normaliser(profile, "dec")(str(number)) == str(number)
