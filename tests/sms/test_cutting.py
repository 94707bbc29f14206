"""How a gateway cuts texts, in every alphabet and with every way of joining."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.gateways.cutting import cutting_of
from app.gateways.profile import Profile
from app.sms import gsm
from app.sms.cutting import Cutting
from app.sms.segment import segment

KINDS = ["udh8", "udh16", "sar", "payload"]
HEADERS = {"udh8": 6, "udh16": 7, "sar": 0}
LATIN1 = "".join(map(chr, range(256)))
texts = st.one_of(
    st.text(alphabet=gsm.CHARACTERS, max_size=700),
    st.text(alphabet=LATIN1, max_size=500),
    st.text(alphabet="abc[€😀я", max_size=500),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=300),
)
cuttings = st.builds(
    Cutting,
    alphabets=st.permutations(["GSM7", "LATIN1", "UCS2"]).flatmap(lambda order: st.integers(1, 3).map(lambda count: tuple(order[:count]))),
    default_alphabet=st.sampled_from(["gsm0338", "gsm_packed", "latin1", "ascii", "iso8859-5", "utf-8", "cp037"]),
    long_messages=st.sampled_from(KINDS),
    null_terminated=st.booleans(),
)


@given(texts, cuttings)
@settings(max_examples=600, deadline=None)
def test_parts_joined_are_the_text_and_every_part_fits_a_short_message(text, cutting):
    segments = cutting.cut(text)

    if segments is None:
        assert "UCS2" not in cutting.alphabets
        return
    assert "".join(segments.parts) == text
    end = cutting.null_terminated
    header = HEADERS.get(cutting.long_messages, 6) if segments.count > 1 else 0
    for octets in segments.octets:
        if segments.encoding != "GSM7":
            assert header + len(octets) + end <= 140
        elif cutting.default.is_packed:
            assert header + len(gsm.pack(octets, -8 * header % 7)) + end <= 140
        else:
            # What the network packs: the septets behind the header, and the NUL if it takes it for a character.
            assert (8 * header + -8 * header % 7 + 7 * (len(octets) + end) + 7) // 8 <= 140 or cutting.long_messages == "payload"


@given(texts, cuttings)
@settings(max_examples=300, deadline=None)
def test_no_escape_and_no_surrogate_pair_is_split(text, cutting):
    segments = cutting.cut(text)

    for octets in segments.octets if segments is not None else ():
        if segments.encoding == "GSM7":
            assert gsm.encode(gsm.decode(octets)) == octets
        elif segments.encoding == "UCS2":
            octets.decode("utf-16-be")


@given(texts, st.sampled_from(["udh8", "udh16", "sar"]))
@settings(max_examples=200, deadline=None)
def test_packed_parts_never_need_a_carriage_return_but_at_the_end_of_the_text(text, kind):
    cutting = Cutting(default_alphabet="gsm_packed", long_messages=kind)
    segments = cutting.cut(text)

    fill = -8 * HEADERS[kind] % 7
    assert segments.encoding == "UCS2" or all((fill + 7 * len(octets)) % 8 != 1 for octets in segments.octets[:-1])


@given(texts)
@settings(max_examples=200, deadline=None)
def test_the_usual_cutting_is_that_of_the_plan(text):
    cutting = cutting_of(Profile())

    assert cutting.is_usual
    assert cutting.cut(text) == segment(text)
    assert cutting.count(text) == (segment(text).encoding, segment(text).count)


@given(texts, cuttings)
@settings(max_examples=200, deadline=None)
def test_counting_agrees_with_cutting(text, cutting):
    segments = cutting.cut(text)

    encoding, parts = cutting.count(text)

    assert parts >= 1
    if segments is not None:
        assert (encoding, parts) == (segments.encoding, segments.count)
    if cutting.is_usual:
        assert parts == segment(text).count


@pytest.mark.parametrize(
    ("profile", "usual"),
    [
        ({}, True),
        ({"long_messages": "sar", "data_coding": {"GSM7": 1}, "max_parts": 3}, True),
        ({"long_messages": "udh16"}, False),
        ({"alphabets": ["UCS2"]}, False),
        ({"default_alphabet": "latin1"}, False),
        ({"transliteration": "ascii"}, False),
        ({"null_terminate_sm": True}, False),
    ],
)
def test_only_a_cutting_that_counts_as_usual_says_so(profile, usual):
    assert cutting_of(Profile.model_validate(profile)).is_usual is usual


@pytest.mark.parametrize(
    ("text", "profile", "expected"),
    [
        ("é" * 140, {"alphabets": ["GSM7", "LATIN1", "UCS2"]}, ("GSM7", 1)),
        ("ã" * 140, {"alphabets": ["GSM7", "LATIN1", "UCS2"]}, ("LATIN1", 1)),
        ("ã" * 141, {"alphabets": ["GSM7", "LATIN1", "UCS2"]}, ("LATIN1", 2)),
        ("ã" * 268, {"alphabets": ["LATIN1", "UCS2"]}, ("LATIN1", 2)),
        ("ã" * 268, {"alphabets": ["LATIN1", "UCS2"], "long_messages": "udh16"}, ("LATIN1", 3)),
        ("ã€", {"alphabets": ["GSM7", "LATIN1", "UCS2"]}, ("UCS2", 1)),
        ("abc", {"alphabets": ["UCS2", "GSM7"]}, ("UCS2", 1)),
        ("a" * 161, {"alphabets": ["UCS2"]}, ("UCS2", 3)),
        ("a" * 160, {"null_terminate_sm": True}, ("GSM7", 2)),
        ("я" * 70, {"null_terminate_sm": True}, ("UCS2", 2)),
        ("a" * 159, {"null_terminate_sm": True}, ("GSM7", 1)),
        ("a" * 306, {"default_alphabet": "gsm_packed"}, ("GSM7", 2)),
        ("Баланс 10", {"alphabets": ["GSM7"]}, ("GSM7", 1)),  # counted as if it could go
        ("ж" * 141, {"alphabets": ["GSM7", "LATIN1"]}, ("LATIN1", 2)),
        ("Баланс " * 20, {"transliteration": "ascii"}, ("GSM7", 1)),
        ("Баланс 😀", {"transliteration": "ascii"}, ("UCS2", 1)),
        ("Баланс", {"transliteration": "ascii", "alphabets": ["UCS2"]}, ("UCS2", 1)),
        ("Баланс", {"transliteration": "ascii", "alphabets": ["GSM7"]}, ("GSM7", 1)),
    ],
)
def test_the_profile_decides_about_alphabet_and_count(text, profile, expected):
    assert cutting_of(Profile.model_validate(profile)).count(text) == expected


@pytest.mark.parametrize(
    ("long_messages", "default_alphabet", "single", "joined"),
    [
        ("udh8", "gsm0338", 159, 152),
        ("udh16", "gsm0338", 159, 151),
        ("payload", "gsm0338", 159, 153),
        ("udh8", "gsm_packed", 158, 151),
        ("udh16", "gsm_packed", 158, 150),
        ("sar", "gsm_packed", 158, 150),  # 151 would leave seven bits
    ],
)
def test_a_nul_takes_its_room_from_every_part(long_messages, default_alphabet, single, joined):
    cutting = Cutting(long_messages=long_messages, default_alphabet=default_alphabet, null_terminated=True)

    assert cutting.count("a" * single) == ("GSM7", 1)
    assert [len(octets) for octets in cutting.cut("a" * 400).octets][:2] == [joined, joined]
    assert cutting.count("a" * (single + 1)) == ("GSM7", 2)


def test_what_cannot_be_written_in_latin_letters_either_goes_as_it_was_written():
    cutting = Cutting(transliteration="ascii")

    assert cutting.cut("Счёт 😀").parts == ["Счёт 😀"]
    assert cutting.cut("Счёт").parts == ["Schyot"]
    assert cutting.cut("Café — ok").parts == ["Cafe - ok"]
    assert cutting.cut("Café ok").parts == ["Café ok"]  # it fits as it is


@pytest.mark.parametrize(
    ("alphabet", "text", "octets"),
    [
        ("latin1", "a_é@", b"a_\xe9@"),
        ("latin1", "5 €", None),  # the SMSC's alphabet lacks it
        ("latin1", "ç", None),  # and this one GSM lacks
        ("ascii", "[a]{b}", b"[a]{b}"),
        ("ascii", "é", None),
        ("iso8859-5", "Hi §", b"Hi \xfd"),
        ("iso8859-5", "Привет", None),
        ("utf-8", "é", None),  # two octets there
        ("utf-8", "e", b"e"),
        ("cp037", "Hi", b"\xc8\x89"),
        ("gsm0338", "a_€", b"a\x11\x1b\x65"),
    ],
)
def test_a_text_fits_the_default_alphabet_when_smsc_and_network_can_write_it(alphabet, text, octets):
    default = Cutting(default_alphabet=alphabet).default

    septets = default.encode(text)

    assert (None if septets is None else default.write(septets)) == octets
