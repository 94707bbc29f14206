"""Segmentation: 3GPP TS 23.038 and TS 23.040, 9.2.3.16 and 9.2.3.24."""

import pytest
import smsutil
from hypothesis import given, settings
from hypothesis import strategies as st

from app.sms import gsm
from app.sms.explain import forced_ucs2_by
from app.sms.segment import JOINED, SINGLE, segment

GSM_CHARACTERS = gsm.CHARACTERS
KINDS = ["udh8", "udh16", "sar", "payload"]
gsm_texts = st.text(alphabet=GSM_CHARACTERS, max_size=700)
any_texts = st.text(alphabet=st.one_of(st.sampled_from(GSM_CHARACTERS), st.characters(exclude_categories=["Cs"])), max_size=400)


@pytest.mark.parametrize(
    ("text", "encoding", "count", "units"),
    [
        ("", "GSM7", 1, 0),
        ("a" * 160, "GSM7", 1, 160),
        ("a" * 161, "GSM7", 2, 161),
        ("a" * 306, "GSM7", 2, 306),
        ("a" * 307, "GSM7", 3, 307),
        ("€" * 80, "GSM7", 1, 160),
        ("€" * 81, "GSM7", 2, 162),
        ("€" * 153, "GSM7", 3, 306),  # 76 pairs a part: the 153rd septet cannot hold half a pair
        ("я" * 70, "UCS2", 1, 70),
        ("я" * 71, "UCS2", 2, 71),
        ("я" * 134, "UCS2", 2, 134),
        ("я" * 135, "UCS2", 3, 135),
        ("😀" * 35, "UCS2", 1, 70),
        ("😀" * 36, "UCS2", 2, 72),
        ("a\x1bb", "UCS2", 1, 3),  # a bare escape is no character of the alphabet
        ("a\ufffeb", "UCS2", 1, 3),
    ],
)
def test_a_text_is_counted_as_the_network_counts_it(text, encoding, count, units):
    segments = segment(text)

    assert (segments.encoding, segments.count, segments.units) == (encoding, count, units)


@pytest.mark.parametrize(("kind", "septets", "units"), [("udh8", 153, 67), ("udh16", 152, 66), ("sar", 153, 67), ("payload", 153, 67)])
def test_the_joining_header_takes_its_room_from_every_part(kind, septets, units):
    assert [len(part) for part in segment("a" * 400, long_messages=kind).parts] == [septets, septets, 400 - 2 * septets]
    assert [len(part) for part in segment("я" * 150, long_messages=kind).parts] == [units, units, 150 - 2 * units]


def test_an_escape_pair_at_the_border_moves_to_the_next_part_whole():
    segments = segment("a" * 152 + "€" + "b" * 50)

    assert segments.parts == ["a" * 152, "€" + "b" * 50]


def test_a_surrogate_pair_at_the_border_moves_to_the_next_part_whole():
    segments = segment("я" * 66 + "😀" + "я" * 20)

    assert segments.parts == ["я" * 66, "😀" + "я" * 20]


@given(any_texts, st.sampled_from(KINDS))
@settings(max_examples=300, deadline=None)
def test_parts_joined_are_the_text_and_none_is_too_long(text, kind):
    segments = segment(text, long_messages=kind)

    assert "".join(segments.parts) == text
    octets_a_unit = 1 if segments.encoding == "GSM7" else 2
    limit = SINGLE[segments.encoding] if segments.count == 1 else JOINED[segments.encoding][kind]
    assert all(len(part) <= limit * octets_a_unit for part in segments.octets)
    assert (segments.encoding == "UCS2") == bool(forced_ucs2_by(text))


@given(gsm_texts)
@settings(max_examples=200, deadline=None)
def test_the_gsm_alphabet_is_reversible_and_seven_bits_wide(text):
    septets = gsm.encode(text)

    assert septets is not None
    assert max(septets, default=0) < 128
    assert gsm.decode(septets) == text


# Not compared is where smsutil is wrong: it takes a bare escape for a character of the GSM alphabet, and an empty text for UCS-2.
@given(st.one_of(gsm_texts.filter(bool), any_texts.filter(lambda text: text and "\x1b" not in text)))
@settings(max_examples=200, deadline=None)
def test_smsutil_agrees(text):
    theirs = smsutil.split(text)

    ours = segment(text)

    assert ours.encoding == {"gsm0338": "GSM7", "utf_16_be": "UCS2"}[theirs.encoding]
    assert ours.count == len(theirs.parts)
    assert ours.parts == [part.content for part in theirs.parts]


def test_the_characters_that_cost_money_are_named_once_and_in_order():
    assert forced_ucs2_by("Цена 100 ₽, Цена") == ["Ц", "е", "н", "а", "₽"]
    assert forced_ucs2_by("100\u00a0EUR {€}") == ["\u00a0"]
    assert forced_ucs2_by("Plain [text]") == []


def test_a_lone_surrogate_does_not_stop_a_message():
    assert segment("цена \ud83d").parts == ["цена ?"]


@pytest.mark.parametrize(
    ("septets", "octets"),
    [
        (b"", ""),
        (b"a", "61"),
        (b"hello", "e8329bfd06"),
        (b"1234567", "31d98c56b3dd1a"),  # seven bits are left over: a carriage return and no "@"
        (b"12345678", "31d98c56b3dd70"),
    ],
)
def test_eight_septets_are_packed_into_seven_octets(septets, octets):
    assert gsm.pack(septets).hex() == octets
    assert gsm.unpack(bytes.fromhex(octets)) == septets


def test_packed_septets_may_begin_behind_fill_bits():
    assert gsm.pack(b"a", fill=1) == bytes((0x61 << 1,))
    assert gsm.unpack(gsm.pack(b"a" * 153, fill=1), fill=1) == b"a" * 153
    assert len(gsm.pack(b"a" * 153, fill=1)) == 134


@given(st.binary(max_size=200).map(lambda octets: bytes(octet & 0x7F for octet in octets)), st.integers(0, 6))
@settings(deadline=None)
def test_packing_is_reversible_but_for_a_last_carriage_return(septets, fill):
    back = gsm.unpack(gsm.pack(septets, fill), fill)

    assert back == septets or back + b"\r" == septets


@given(st.binary(max_size=200), st.integers(0, 6))
@settings(deadline=None)
def test_unpacking_octets_from_outside_never_fails(octets, fill):
    assert max(gsm.unpack(octets, fill), default=0) < 128


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_decoding_octets_from_outside_never_fails(octets):
    assert isinstance(gsm.decode(octets), str)
