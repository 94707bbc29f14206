"""The receipt reader alone, on anything that octets can be."""

import random
import tracemalloc

import pytest
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


def read(text="", *, tail=b"", esm_class=4, data_coding=0, command=pdu.DELIVER_SM, source=b"79161234567", **profile):
    body = wire.deliver_body(source, b"My", text.encode("latin-1"), esm_class=esm_class, data_coding=data_coding, tail=tail)
    return ReceiptReader(Profile.model_validate(profile)).read(command, 1, body, answer)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "id:A1 sub:001 dlvrd:001 submit date:2611231200 done date:2611231201 stat:DELIVRD err:000 text:Hi",
            ("A1", "DELIVRD", "000", "2611231200", "2611231201"),
        ),
        (
            "id:A1 sub:1 dlvrd:1 submit date:261123120000 done date:261123120101 stat:DELIVRD err:0 Text:",
            ("A1", "DELIVRD", "0", "261123120000", "261123120101"),
        ),
        ("id:A1 submit date:20261123120000 done date:20261123120101 stat:EXPIRED err:0x1B", ("A1", "EXPIRED", "0x1B", "20261123120000", "20261123120101")),
        ("id:A1 submitdate:0000000000 donedate:000000000000 stat:REJECTD err:", ("A1", "REJECTD", "", "0000000000", "000000000000")),
        ("id:A1 submit_date:1 done_date:2 stat:UNDELIV err:ABSENT text:", ("A1", "UNDELIV", "ABSENT", "1", "2")),
        ("ID:a-b_C SUB:001 DLVRD:001 SUBMIT DATE:1 DONE DATE:2 STAT:deliVRD ERR:08A TEXT:x", ("a-b_C", "DELIVRD", "08A", "1", "2")),
        ("id:A1,sub:001,dlvrd:001,submit date:1,done date:2,stat:DELIVRD,err:000,text:Hi", ("A1", "DELIVRD", "000", "1", "2")),
        ("id:A1;stat:DELIVRD;err:0000;", ("A1", "DELIVRD", "0000", "", "")),
        ("id: A1 stat: UNDELIVERABLE err: 1", ("A1", "UNDELIVERABLE", "1", "", "")),
        ("id :A1 stat :FAILED", ("A1", "FAILED", "", "", "")),
        ("id:A1\r\nstat:DELIVRD\r\nerr:000\r\n", ("A1", "DELIVRD", "000", "", "")),
        ("stat:DELIVRD err:000 id:A1", ("A1", "DELIVRD", "000", "", "")),
        ("id:A1 sub: dlvrd: submit date: done date: stat: err: text:", ("A1", "", "", "", "")),
        ("id:A1 stat:DELIVRD text:id:B2 stat:UNDELIV err:999", ("A1", "DELIVRD", "", "", "")),
        ("Message A1 is gone. id:A1 stat:BUFFRED, thank you", ("A1", "BUFFRED", "", "", "")),
        ("id:00B8BE19 stat:ACKED err:000", ("00B8BE19", "ACKED", "000", "", "")),
    ],
)
def test_c26_every_variant_of_the_text_is_read(text, expected):
    receipt = read(text)

    assert receipt.kind == "receipt"
    assert (receipt.gateway_message_id, receipt.stat, receipt.err, receipt.submitted_at, receipt.done_at) == expected


def test_c26_a_receipt_may_be_written_in_ucs2():
    body = wire.deliver_body(b"7916", b"My", "id:A1 stat:DELIVRD".encode("utf-16-be"), esm_class=4, data_coding=8)

    assert (READER.read(pdu.DELIVER_SM, 1, body, answer).gateway_message_id) == "A1"


@pytest.mark.parametrize(("number", "state", "reason"), [
    (0, None, "in_transit"), (1, None, "in_transit"), (2, "delivered", ""), (3, "expired", "expired"), (4, "undelivered", "deleted"),
    (5, "undelivered", "undeliverable"), (6, None, "accepted_by_network"), (7, None, "unknown"), (8, "undelivered", "rejected"),
    (9, "undelivered", "rejected"), (10, None, "unknown"), (255, None, "unknown"),
])  # fmt: skip
def test_c27_every_message_state_without_a_text_is_read(number, state, reason):
    receipt = read(tail=wire.tlv(0x001E, b"T1\0") + wire.tlv(0x0427, bytes((number,))))

    assert (receipt.kind, receipt.gateway_message_id, receipt.state, receipt.reason) == ("receipt", "T1", state, reason)
    assert receipt.is_known_word == (number < 10)


@pytest.mark.parametrize("command", [pdu.DELIVER_SM, pdu.DATA_SM])
def test_receipt_in_a_message_payload_is_read_in_both_carriers(command):
    text = wire.tlv(0x0424, b"id:P1 stat:UNDELIV err:027")
    body = wire.deliver_body(b"7916", b"My", b"", esm_class=4, tail=text) if command == pdu.DELIVER_SM else b"\0\x01\x017916\0\x05\x00My\0\x04\x00\x00" + text

    receipt = READER.read(command, 1, body, answer)

    assert (receipt.gateway_message_id, receipt.state, receipt.reason, receipt.error) == ("P1", "undelivered", "absent_subscriber", "027")


@pytest.mark.parametrize(
    ("text", "code", "error", "reason"),
    [
        ("err:001", None, "001", "unknown_subscriber"),
        ("err:27", None, "27", "absent_subscriber"),
        ("err:0x1B", None, "0x1B", "absent_subscriber"),
        ("err:01B", None, "01B", "absent_subscriber"),
        ("err:013", None, "013", "call_barred"),
        ("err:022", None, "022", "memory_full"),
        ("err:Absent-Subscriber", None, "Absent-Subscriber", "absent_subscriber"),
        ("err:999", None, "999", "undeliverable"),
        ("err:000", None, "", "undeliverable"),
        ("err:", None, "", "undeliverable"),
        ("err:000", b"\x03\x00\x1b", "3:27", "absent_subscriber"),
        ("err:001", b"\x03\x00\x0d", "3:13", "call_barred"),
        ("err:013", b"\x08\x00\x1b", "8:27", "call_barred"),
        ("", b"013", "013", "call_barred"),
        ("", b"\x03\x00\x00", "", "undeliverable"),
    ],
)
def test_error_code_of_a_failed_message_is_a_reason(text, code, error, reason):
    receipt = read(f"id:1 stat:UNDELIV {text}", tail=wire.tlv(0x0423, code) if code is not None else b"")

    assert (receipt.error, receipt.reason) == (error, reason)


@pytest.mark.parametrize(
    ("written", "err", "reason"),
    [
        ("027", "027", "blocked"),
        ("027", "27", "blocked"),
        ("27", "0x1B", "blocked"),
        ("0x1b", "027", "blocked"),
        ("E27", "e27", "blocked"),
        ("27", "028", "incompatible_terminal"),
        ("3:27", "027", "absent_subscriber"),
        ("DND", "dnd", "blocked"),
    ],
)
def test_operators_own_reason_wins_however_the_code_is_written(written, err, reason):
    assert read(f"id:1 stat:UNDELIV err:{err}", error_reasons={written: "blocked"}).reason == reason


def test_code_that_is_written_exactly_so_comes_before_one_that_means_the_same_number():
    own = {"0A": "hexadecimal", "10": "decimal"}

    assert read("id:1 stat:UNDELIV err:10", error_reasons=own).reason == "decimal"
    assert read("id:1 stat:UNDELIV err:0A", error_reasons=own).reason == "hexadecimal"


def test_network_error_code_has_an_own_reason_by_type_and_code():
    receipt = read("id:1 stat:UNDELIV err:001", tail=wire.tlv(0x0423, b"\x03\x01\x02"), error_reasons={"3:258": "blocked"})

    assert (receipt.error, receipt.reason) == ("3:258", "blocked")


@pytest.mark.parametrize(("stat", "state", "reason"), [("DELIVRD", "delivered", ""), ("ENROUTE", None, "in_transit"), ("DELETED", "undelivered", "deleted")])
def test_error_code_changes_nothing_where_the_network_did_not_fail(stat, state, reason):
    receipt = read(f"id:1 stat:{stat} err:027")

    assert (receipt.state, receipt.reason) == (state, reason)


@pytest.mark.parametrize(("meaning", "state", "reason"), [
    ("delivered", "delivered", ""), ("undelivered", "undelivered", "undeliverable"), ("expired", "expired", "expired"), ("deleted", "undelivered", "deleted"),
    ("rejected", "undelivered", "rejected"), ("accepted", None, "accepted_by_network"), ("in_transit", None, "in_transit"), ("unknown", None, "unknown"),
])  # fmt: skip
def test_vendors_word_means_what_the_profile_says(meaning, state, reason):
    receipt = read("id:1 stat:Dostarcz err:000", stat_map={"dostarcz": meaning})

    assert (receipt.stat, receipt.state, receipt.reason, receipt.is_known_word) == ("DOSTARCZ", state, reason, True)


def test_profile_may_overrule_a_standard_word():
    assert read("id:1 stat:UNKNOWN", stat_map={"UNKNOWN": "undelivered"}).state == "undelivered"


def test_accepted_is_the_last_word_where_the_profile_says_so():
    assert read("id:1 stat:ACCEPTD", accepted_is_final=True).state == "delivered"
    assert read("id:1 stat:ACCEPTD").state is None
    assert read("id:1 stat:ACCEPTD", accepted_is_final=True, esm_class=0x20).state is None


@pytest.mark.parametrize(("stat", "state"), [("UNDELIV", None), ("EXPIRED", None), ("ENROUTE", None), ("DELIVRD", "delivered"), ("DELIVERED", "delivered")])
def test_intermediate_notification_has_no_bad_last_word(stat, state):
    assert read(f"id:1 stat:{stat}", esm_class=0x20).state == state


@pytest.mark.parametrize(
    ("source", "profile", "address"),
    [
        (b"79161234567", {}, 79161234567),
        (b"+79161234567", {}, 79161234567),
        (b"0079161234567", {}, 79161234567),
        (b"89161234567", {"dest_format": "national"}, 79161234567),
        (b"MyBank", {}, None),
        (b"", {}, None),
    ],
)
def test_number_of_the_subscriber_is_read_in_every_form(source, profile, address):
    assert read("id:1 stat:DELIVRD", source=source, **profile).address == address


@pytest.mark.parametrize(("given", "status"), [({}, 0x64), ({"receipt_nack_status": "0x08"}, 0x08), ({"receipt_nack_status": 69}, 0x45)])
def test_receipt_that_could_not_be_stored_is_refused_as_the_profile_says(given, status):
    said = []
    body = wire.deliver_body(b"7916", b"My", b"id:1 stat:DELIVRD", esm_class=4)

    ReceiptReader(Profile.model_validate(given)).read(pdu.DELIVER_SM, 9, body, lambda *answered: said.append(answered)).nack()

    assert said == [(pdu.DELIVER_SM, 9, status)]


@pytest.mark.parametrize(
    ("value", "reference"), [(b"\x00\x07", 7), (b"\x07", 7), (b"\xff\xff", 65535), (b"\x00\x00\x07", None), (b"\xff" * 60_000, None), (b"", None)]
)
def test_reference_has_sixteen_bits(value, reference):
    assert read("id:1 stat:DELIVRD", tail=wire.tlv(0x0204, value)).user_message_reference == reference


VALID = [
    wire.receipt_body(source=b"79161234567", destination=b"MyISP", identity="3f0c2b1e", stat="DELIVRD", reference=b"\0\x07"),
    wire.deliver_body(b"79161234567", b"My", b"id:1 sub:001 dlvrd:000 submit date:1 done date:2 stat:UNDELIV err:027 text:x", esm_class=4),
    wire.deliver_body(b"7916", b"My", b"", esm_class=4, tail=wire.tlv(0x0424, b"id:P1 stat:EXPIRED err:0x1B") + wire.tlv(0x0423, b"\x03\x00\x1b")),
    b"\0\x01\x017916\0\x05\x00My\0\x04\x00\x00" + wire.tlv(0x001E, b"D1\0") + wire.tlv(0x0427, b"\x02"),
]


def test_mutated_receipts_never_raise_and_take_no_memory():
    chance = random.Random(7)
    readers = [
        ReceiptReader(Profile.model_validate(given)) for given in ({}, {"receipt_source": "text", "stat_map": {"X": "delivered"}, "dest_format": "national"})
    ]
    mutants = []
    for _ in range(20_000):
        body = bytearray(chance.choice(VALID))
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(body) + 1)
            body[at : at + chance.choice((0, 0, 1, 1, 4))] = chance.randbytes(chance.choice((0, 1, 1, 2, 9)))
        mutants.append(bytes(body))

    tracemalloc.start()
    for number, body in enumerate(mutants):
        receipt = readers[number % 2].read(chance.choice((pdu.DELIVER_SM, pdu.DATA_SM)), 1, body, answer)
        assert receipt.raw == body
        assert receipt.address is None or 0 < receipt.address < 2**63
        assert receipt.user_message_reference is None or receipt.user_message_reference <= 0xFFFF
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("text", [b"id:" * 21_000, b"err: " * 13_000, b"id:1 " + b"x" * 60_000, b" " * 65_000, b"id:1 stat:" + b"A," * 30_000])
def test_text_as_long_as_a_pdu_allows_is_read_without_running_away(text):
    # A pattern that backtracks would be at it for hours.
    assert read(tail=wire.tlv(0x0424, text[:65_535])).kind in ("receipt", "unreadable")


def test_receipt_whose_id_is_nothing_but_white_space_cannot_be_read():
    body = b"\x00\x01\x0179161234567\x00\x05\x00MyISP\x00\x04\x00\x00" + b"\x00\x1e\x00\x01\t"

    receipt = ReceiptReader(Profile()).read(0x103, 7, body, lambda *_: None)

    assert receipt.kind == "unreadable"
