"""Senders and subscribers' numbers on the wire, and numbers read back from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateways.profile import Profile
from app.gateways.smpp import SmppSettings
from app.sending.outcome import Refused
from app.sending.smpp.addresses import Destinations, Senders, digits_of


def source(name, default=None, **profile):
    settings = SmppSettings.model_validate({"host": "h", "system_id": "isp", "sender": default, "profile": profile})
    return Senders(settings).source(name)


@pytest.mark.parametrize(
    ("sender", "kind", "octets"),
    [
        ("Bank", (5, 0), b"Bank"),
        ("12345", (3, 0), b"12345"),
        ("12345678", (3, 0), b"12345678"),
        ("+38591123456", (1, 1), b"38591123456"),
        ("79161234567", (1, 1), b"79161234567"),
        ("123456789", (1, 1), b"123456789"),
        ("+123", (1, 1), b"123"),
        ("7", (5, 0), b"7"),
        ("+Bank", (5, 0), b"+Bank"),
        (None, (5, 0), b"Default"),
    ],
)
def test_c37_the_form_of_the_sender_gives_its_type_and_plan(sender, kind, octets):
    assert source(sender, "Default") == bytes(kind) + octets + b"\0"


def test_c37_the_profile_names_the_pair_for_short_codes_and_may_force_all():
    assert source("12345", short_code_ton=6, short_code_npi=1) == b"\x06\x0112345\0"
    assert source("Bank", source_ton=2, source_npi=8) == b"\x02\x08Bank\0"
    assert source("+79161234567", source_ton=0, source_npi=0) == b"\0\x0079161234567\0"


def test_without_any_sender_the_choice_is_left_to_the_smsc():
    assert source(None) == b"\0\0\0"
    assert source("", allowed_senders=["Bank"]) == b"\0\0\0"


@pytest.mark.parametrize(
    ("sender", "charset", "octets"),
    [
        ("Bäckerei", "ascii", None),
        ("Bäckerei", "latin1", b"B\xe4ckerei"),
        ("Bäckerei", "gsm0338", b"B\x7bckerei"),
        ("a@b", "gsm0338", None),
        ("a@b", "ascii", b"a@b"),
        ("a_b", "gsm0338", b"a\x11b"),
        ("Банк", "latin1", None),
        ("Банк", "gsm0338", None),
        ("A\nB", "ascii", None),
        ("A\0B", "ascii", None),
        ("a`b", "ascii", None),  # ASCII has it, but on the air a sender is in the GSM alphabet
        ("ElevenChars", "ascii", b"ElevenChars"),
        ("TwelveLetter", "ascii", None),
        ("Ten[]chars", "ascii", None),  # the brackets take two septets each
        ("1" * 20, "ascii", b"1" * 20),
        ("1" * 21, "ascii", None),
    ],
)
def test_c37_a_sender_that_the_field_cannot_hold_is_refused_before_sending(sender, charset, octets):
    made = source(sender, addr_charset=charset)

    if octets is None:
        assert isinstance(made, Refused)
        assert made.reason == "bad_sender"
    else:
        assert made[2:] == octets + b"\0"


@pytest.mark.parametrize(("sender", "fits"), [("Bank", True), ("Banks", False), ("123456", True), ("+1234567", False)])
def test_the_profile_may_allow_fewer_characters(sender, fits):
    assert isinstance(source(sender, alphanumeric_max=4, numeric_max=6), bytes) is fits


@pytest.mark.parametrize(("sender", "goes"), [("Bank", True), ("bank", False), ("+79160000000", True), ("79160000000", True), ("79160000001", False)])
def test_a_sender_that_is_not_registered_is_refused_before_sending(sender, goes):
    made = source(sender, allowed_senders=["Bank", "79160000000"])

    assert (made if isinstance(made, bytes) else made.reason) == (made if goes else "sender_not_allowed")


def test_thousands_of_senders_are_not_all_remembered():
    senders = Senders(SmppSettings.model_validate({"host": "h", "system_id": "isp"}))

    made = [senders.source(f"S{number}") for number in range(3000)]

    assert made == [b"\x05\x00S%d\0" % number for number in range(3000)]
    assert len(senders._known) <= 1000


@pytest.mark.parametrize(
    ("form", "address", "written"),
    [
        ("e164", "+79161234567", b"\x02\x0679161234567\0"),
        ("e164_plus", "+79161234567", b"\x02\x06+79161234567\0"),
        ("00", "+79161234567", b"\x02\x060079161234567\0"),
        ("national", "+79161234567", b"\x02\x0689161234567\0"),
        ("national", "+380501234567", b"\x01\x01380501234567\0"),
        ("e164", "79161234567", None),
        ("e164", "+7916-123", None),
        ("e164", "+09161234567", None),
        ("e164", "+٧٩١٦١٢٣٤٥٦٧", None),
        ("e164", "+79161234567\n", None),
        ("e164", "+" + "7" * 19, None),
        ("e164", "", None),
    ],
)
def test_the_destination_is_written_as_the_profile_says(form, address, written):
    assert Destinations(Profile(dest_format=form, dest_ton=2, dest_npi=6)).destination(address) == written


@pytest.mark.parametrize(
    ("written", "form", "digits"),
    [
        ("79161234567", "e164", 79161234567),
        ("+79161234567", "e164", 79161234567),
        ("0079161234567", "e164", 79161234567),
        (" 79161234567 ", "e164", 79161234567),
        ("89161234567", "e164", 79161234567),  # +89 is nobody's country code
        ("89161234567", "national", 79161234567),
        ("79161234567", "national", 79161234567),
        ("81312345678", "e164", 81312345678),  # Tokyo
        ("81312345678", "national", 81312345678),  # +7 131 is nobody's area
        ("84991234567", "e164", 84991234567),  # Vietnam as well as Moscow: the profile says who writes so
        ("84991234567", "national", 74991234567),
        ("+84991234567", "national", 84991234567),
        ("8800", "national", 8800),
        ("12345", "e164", 12345),
        ("MyISP", "e164", None),
        ("", "e164", None),
        ("+", "e164", None),
        ("00", "e164", None),
        ("000", "e164", None),
        ("7916\0", "e164", None),
        ("٧٩١٦١٢٣٤٥٦٧", "e164", None),
        ("9" * 22, "e164", None),
        ("9" * 500, "e164", None),
    ],
)
def test_a_number_in_a_receipt_is_read_whatever_its_form(written, form, digits):
    assert digits_of(written, Profile(dest_format=form)) == digits


def test_a_country_without_a_prefix_of_its_own_is_read_by_its_numbering_plan():
    profile = Profile(dest_format="national", country_code="372", national_prefix="")

    assert [digits_of(written, profile) for written in ("51234567", "37251234567", "+37251234567")] == [37251234567] * 3


def test_a_national_number_without_any_prefix_is_not_taken_for_a_foreign_one():
    assert [digits_of("9161234567", Profile(dest_format=form)) for form in ("e164", "national")] == [79161234567] * 2
    assert digits_of("380501234567", Profile()) == 380501234567
    assert digits_of("4060", Profile()) == 4060


numbers = st.integers(9_000_000_000, 9_999_999_999).map(lambda number: f"+7{number}")


@given(numbers, st.sampled_from(["e164", "e164_plus", "00", "national"]))
def test_what_the_profile_writes_is_read_back(address, form):
    profile = Profile(dest_format=form)

    written = Destinations(profile).destination(address)

    assert digits_of(written[2:-1].decode(), profile) == int(address[1:])


@given(st.text(max_size=30))
def test_reading_an_address_never_fails(written):
    assert digits_of(written, Profile()) is None or any(character.isdecimal() for character in written)
