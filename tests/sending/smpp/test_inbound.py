"""An SMS from a subscriber, read in every form it comes in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateways.profile import Profile
from app.sending.smpp.inbound import Inbound, InboundReader, Joint, text_of
from app.sending.smpp.receipts import ReceiptReader
from app.simulators.smsc_wire import tlv
from app.sms import gsm
from app.sms.segment import cut_septets
from tests.builders.inbound import an_sms, an_sms_body, joint8, joint16


def read(*arguments, **fields) -> Inbound:
    profile = fields.pop("profile", Profile())
    return InboundReader(profile).read(an_sms(*arguments, profile=profile, **fields))


def text_in(*arguments, **fields) -> str:
    found = read(*arguments, **fields)
    return text_of(found.encoding, found.payload)


@pytest.mark.parametrize(
    ("octets", "coding", "encoding", "text"),
    [
        (b"Hi \x1b\x65 \x00", 0, "GSM7", "Hi € @"),
        (b"plain", 1, "ASCII", "plain"),
        (b"\x00\x01\xff", 2, "BINARY", ""),
        (b"\xe9t\xe9", 3, "LATIN1", "été"),
        (b"\xbf\xe0", 6, "iso8859-5", "Пр"),
        ("Ж🙂".encode("utf-16-be"), 8, "UCS2", "Ж🙂"),
        (b"\xff\xfe" + "Ж".encode("utf-16-le"), 8, "UCS2", "Ж"),
        (b"\x04", 8, "UCS2", "\ufffd"),
        (b"flash", 0x10, "GSM7", "flash"),
        ("Ж".encode("utf-16-be"), 0x18, "UCS2", "Ж"),
        (b"\x01\x02", 0x14, "BINARY", ""),
        (b"class", 0xF1, "GSM7", "class"),
        (b"\x01", 0xF5, "BINARY", ""),
        ("Ж".encode("utf-16-be"), 0xE0, "UCS2", "Ж"),
        ("привет".encode(), 0x9A, "unknown", "привет"),
        (b"\xcf\xf0", 0x9A, "unknown", "Ïð"),
    ],
)
def test_text_is_read_in_the_alphabet_of_its_data_coding(octets, coding, encoding, text):
    found = read(octets, coding=coding)

    assert (found.encoding, text_of(found.encoding, found.payload)) == (encoding, text)


@pytest.mark.parametrize(("alphabet", "octets"), [("latin1", b"\xe9"), ("cp1251", b"\xe9"), ("ascii", b"e"), ("gsm0338", b"\x05")])
def test_data_coding_0_is_what_the_profile_says(alphabet, octets):
    expected = {"latin1": "é", "cp1251": "й", "ascii": "e", "gsm0338": "é"}[alphabet]

    assert text_in(octets, coding=0, profile=Profile(default_alphabet=alphabet)) == expected


@pytest.mark.parametrize("header", [joint8(200, 2, 1), joint16(200, 2, 1)])
def test_packed_septets_begin_after_the_fill_bits_behind_a_header(header):
    septets = gsm.encode("Packed {text} here")
    octets = gsm.pack(septets, -8 * len(header) % 7)

    found = read(octets, coding=0, udh=header, profile=Profile(default_alphabet="gsm_packed"))

    assert text_of(found.encoding, found.payload) == "Packed {text} here"


@pytest.mark.parametrize(
    ("header", "joint"),
    [
        (joint8(200, 3, 2), Joint(200, 3, 2)),
        (joint16(0x0201, 3, 2), Joint(0x10201, 3, 2)),
        (bytes((9, 0x24, 1, 9, 0, 3, 1, 2, 2, 0xFF)), Joint(1, 2, 2)),  # a language table before it, a stray octet after it
        (joint8(1, 0, 1), None),
        (joint8(1, 3, 4), None),
        (joint8(1, 3, 0), None),
        (joint8(1, 1, 1), None),
        (joint8(1, 255, 255), Joint(1, 255, 255)),
        (bytes((4, 0, 3, 1, 2)), None),  # the element ends before its end
        (bytes((6, 5, 4, 0x0B, 0x84, 0x23, 0xF0)), None),  # port numbers alone
    ],
)
def test_joining_element_is_found_among_the_others_and_believed_only_when_it_can_be_true(header, joint):
    found = read("Ж", udh=header)

    assert (found.joint, text_of(found.encoding, found.payload)) == (joint, "Ж")


def test_header_that_is_longer_than_the_message_is_none():
    found = read(bytes((40, 0, 3, 1)), coding=0, udh=b"\x30")

    assert found.joint is None
    assert found.payload == bytes((0x30, 40, 0, 3, 1))


def test_parts_may_be_tied_by_sar_parameters():
    tail = tlv(0x020C, b"\x01\x02") + tlv(0x020E, b"\x03") + tlv(0x020F, b"\x02")

    assert read("Ж", tail=tail).joint == Joint(0x20102, 3, 2)
    assert read("Ж", tail=tlv(0x020C, b"\x01\x02") + tlv(0x020E, b"") + tlv(0x020F, b"\x02")).joint is None


def test_long_text_may_stand_in_message_payload():
    tail = tlv(0x0424, ("Ж" * 300).encode("utf-16-be"))

    assert text_in("", tail=tail) == "Ж" * 300


@pytest.mark.parametrize("written", ["79161234567", "+79161234567", "89161234567", "0079161234567"])
def test_number_is_one_and_the_same_in_every_form(written):
    assert read("x", written).source == "+79161234567"


@pytest.mark.parametrize("written", ["1234", "0890", "MegaFon", "+12", ""])
def test_what_is_no_subscribers_number_stays_as_it_was_written_and_begins_with_no_plus(written):
    assert read("x", written).source == written.lstrip("+")


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("STOP", "stop"),
        (" стоп! ", "stop"),
        ("«Стоп».", "stop"),
        ("ОТПИСАТЬСЯ 🙏", "stop"),
        ("\uff33\uff34\uff2f\uff30", "stop"),
        ("start", "start"),
        ("Подписка", "start"),
        ("стоп пожалуйста", None),
        ("нестоп", None),
        ("", None),
        ("!!!", None),
        ("стоп" + " " * 1000, None),
    ],
)
def test_word_alone_asks_for_something(text, action):
    assert InboundReader(Profile()).action_of(text) == action


def test_words_are_those_of_the_profile_and_a_stop_is_believed_rather_than_a_start():
    reader = InboundReader(Profile(stop_words=["Не писать", "0!"], start_words=["0", "1"]))

    assert [reader.action_of(text) for text in ("не   ПИСАТЬ!", "0", "1", "STOP")] == ["stop", "stop", "start", None]


@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.builds(an_sms_body, st.binary(max_size=160), coding=st.integers(0, 255), udh=st.binary(max_size=60), tail=st.binary(max_size=40)),
    ),
    command=st.sampled_from((0x5, 0x103)),
    alphabet=st.sampled_from(("gsm0338", "gsm_packed", "latin1", "ascii", "cp1251", "unicode_escape", "raw_unicode_escape", "utf-7", "iso8859-5")),
)
def test_nothing_that_comes_makes_it_fail(body, command, alphabet):
    profile = Profile(default_alphabet=alphabet)
    receipt = ReceiptReader(profile).read(command, 1, body, lambda *_: None)

    found = InboundReader(profile).read(receipt)
    text = text_of(found.encoding, found.payload)

    text.encode()
    assert "\0" not in text
    assert len(found.source) <= 32
    assert found.joint is None or 1 <= found.joint.number <= found.joint.total <= 255


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=120))
def test_text_that_was_sent_is_the_text_that_is_read(text):
    if (septets := gsm.encode(text)) is not None and len(septets) <= 160:
        assert text_in(septets, coding=0) == text
    if text[0] not in "\ufeff\ufffe":
        assert text_in(text) == text


def test_characters_that_lie_across_two_parts_are_whole_again():
    septets = gsm.encode("€" * 120)
    first, second = cut_septets(septets, 153)

    assert text_of("GSM7", first[:-1] + first[-1:] + second) == "€" * 120
