"""submit_sm bodies, read back by the simulator's own reader."""

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from app.gateways.smpp import SmppSettings
from app.sending.smpp.compose import Composer, Shipment
from app.simulators import smsc_wire as wire
from app.sms import gsm


def composed(text="Hi", *, urgent=False, reference=0x1234, key=1, kind="payment.received", flash=False, **profile):
    settings = SmppSettings.model_validate({"host": "h", "system_id": "isp", "sender": "MyISP", "profile": profile})
    return Composer(settings).compose(Shipment(UUID(int=key), "+79161234567", text, None, None, urgent, reference, 1, kind, flash))


def compose(text="Hi", **rest):
    """The submit_sm of every part, as the other side reads them."""
    made = composed(text, **rest)
    assert made.refused is None
    submits = [wire.read_submit(1, body) for body in made.bodies]
    assert None not in submits
    return submits


@pytest.mark.parametrize(
    ("validity", "form", "expected"),
    [
        (None, "relative", ""),
        (timedelta(hours=2), "none", ""),
        (timedelta(hours=2), "relative", "000000020000000R"),
        (timedelta(days=3, hours=4, minutes=5, seconds=6.7), "relative", "000003040506000R"),
        (timedelta(days=400), "relative", "000007000000000R"),
        (timedelta(seconds=-5), "relative", "000000000001000R"),
    ],
)
def test_the_validity_is_relative_and_capped(validity, form, expected):
    settings = SmppSettings.model_validate({"host": "h", "system_id": "isp", "sender": "Me", "profile": {"validity": form}})
    made = Composer(settings).compose(Shipment(UUID(int=1), "+79161234567", "Hi", None, validity, False, 1))

    assert wire.read_submit(1, made.bodies[0]).validity == expected


def test_an_absolute_validity_is_in_utc():
    settings = SmppSettings.model_validate({"host": "h", "system_id": "isp", "sender": "Me", "profile": {"validity": "absolute"}})
    made = Composer(settings).compose(Shipment(UUID(int=1), "+79161234567", "Hi", None, timedelta(hours=1), False, 1))
    written = wire.read_submit(1, made.bodies[0]).validity

    assert re.fullmatch(r"\d{12}000\+", written)
    until = datetime.strptime(written[:12], "%y%m%d%H%M%S").replace(tzinfo=UTC)
    assert abs(until - datetime.now(UTC) - timedelta(hours=1)) < timedelta(seconds=5)


def test_flags_codings_and_priorities_are_those_of_the_profile():
    (plain,) = compose(registered_delivery=0x11, data_coding={"GSM7": 0xF1, "UCS2": 0x18}, priority_urgent=2, esm_class=3)
    (urgent,) = compose("Привет", urgent=True, data_coding={"GSM7": 0xF1, "UCS2": 0x18}, priority_urgent=2)

    assert (plain.registered_delivery, plain.data_coding, plain.priority, plain.esm_class) == (0x11, 0xF1, 0, 3)
    assert (urgent.data_coding, urgent.priority) == (0x18, 2)
    assert urgent.short_message.decode("utf-16-be") == "Привет"


@pytest.mark.parametrize(
    ("alphabet", "text", "octets", "coding"),
    [
        ("gsm0338", "a_€@", b"a\x11\x1b\x65\x00", 0),
        ("latin1", "a_é@", b"a_\xe9@", 0),
        ("latin1", "5 €", "5 €".encode("utf-16-be"), 8),
        ("ascii", "[a]{b}", b"[a]{b}", 0),
        ("ascii", "é", "é".encode("utf-16-be"), 8),
        ("latin1", "ç", "ç".encode("utf-16-be"), 8),  # latin-1 has it, but the air interface does not
    ],
)
def test_the_default_alphabet_decides_about_octets_and_what_does_not_fit_goes_as_ucs2(alphabet, text, octets, coding):
    (submit,) = compose(text, default_alphabet=alphabet)

    assert (submit.short_message, submit.data_coding) == (octets, coding)


@pytest.mark.parametrize("kind", ["udh8", "udh16", "sar"])
def test_the_reference_ties_the_parts_and_the_messages_own_number_goes_along(kind):
    submits = compose("a" * 200, reference=0xABCDE, key=0x123456789, long_messages=kind)

    reference = {"udh8": 0xDE, "udh16": 0xBCDE, "sar": 0xBCDE}[kind]
    assert [submit.joint for submit in submits] == [(reference, 2, 1), (reference, 2, 2)]
    assert [submit.esm_class for submit in submits] == [0 if kind == "sar" else 0x40] * 2
    assert [submit.tlvs[0x0204] for submit in submits] == [b"\x67\x89"] * 2


def test_below_3_4_nothing_optional_goes_but_what_was_asked_for():
    profile = {"interface_version": 0x33, "long_messages": "sar", "tlvs": [{"tag": "0x1400", "value": "x"}]}

    submits = compose("a" * 200, **profile)

    assert [sorted(submit.tlvs) for submit in submits] == [[0x020C, 0x020E, 0x020F, 0x1400]] * 2
    assert compose(user_message_reference=False)[0].tlvs == {}


def test_a_payload_is_one_pdu_that_counts_its_parts():
    made = composed("a" * 400, long_messages="payload")

    assert (len(made.bodies), made.parts) == (1, 3)


def test_a_gateway_without_long_messages_refuses_them():
    made = composed("a" * 161, long_messages="refuse")

    assert (made.bodies, made.parts, made.refused.reason) == ((), 2, "too_many_parts")
    assert composed("a" * 160, long_messages="refuse").refused is None


@pytest.mark.parametrize(("most", "reason"), [(3, None), (2, "too_many_parts")])
def test_a_message_of_more_parts_than_the_profile_allows_is_refused(most, reason):
    made = composed("a" * 400, max_parts=most)

    assert (made.refused and made.refused.reason) == reason


def test_all_parts_but_the_last_say_that_more_follows():
    submits = compose("a" * 400, more_messages_to_send=True)

    assert [submit.tlvs.get(0x0426) for submit in submits] == [b"\x01", b"\x01", None]
    assert 0x0426 not in compose("a", more_messages_to_send=True)[0].tlvs


def test_the_flags_that_few_gateways_want_are_those_of_the_profile():
    plain, other = compose()[0], compose(replace_if_present=1, sm_default_msg_id=7, protocol_id=0x40)[0]

    # The octets between the destination and the text: esm_class to sm_length.
    assert plain.body[-9 - 6 :][:9] != other.body[-9 - 6 :][:9]
    fields = other.body.removesuffix(b"\x02Hi" + b"\x02\x04\x00\x02\x00\x01")
    assert fields.endswith(b"\x00\x40\x00" + b"\0\0" + b"\x01\x01\x00\x07")


@pytest.mark.parametrize(
    ("text", "by", "codings", "coding", "subunit"),
    [
        ("Code 1234", "data_coding", {}, 0x10, None),
        ("Code 1234", "data_coding", {"FLASH_GSM7": 0xF0}, 0xF0, None),
        ("Код 1234", "data_coding", {}, 0x18, None),
        ("Code 1234", "tlv", {}, 0, b"\x01"),
        ("Код 1234", "tlv", {}, 8, b"\x01"),
        ("Cão 1234", "data_coding", {}, 3, b"\x01"),  # data_coding has no flash for Latin-1
    ],
)
def test_a_flash_message_is_marked_as_the_profile_says(text, by, codings, coding, subunit):
    (flash,) = compose(text, flash=True, flash_by=by, data_coding=codings, alphabets=["GSM7", "LATIN1", "UCS2"])
    (plain,) = compose(text, flash_by=by, data_coding=codings, alphabets=["GSM7", "LATIN1", "UCS2"])

    assert (flash.data_coding, flash.tlvs.get(0x0005)) == (coding, subunit)
    assert 0x0005 not in plain.tlvs
    assert plain.data_coding in (0, 3, 8)


@pytest.mark.parametrize("kind", ["udh8", "udh16", "sar", "payload"])
@pytest.mark.parametrize("text", ["Olá " * 100, "Привет " * 50, "Hello [x] " * 50], ids=["latin1", "ucs2", "gsm"])
def test_c33_a_nul_ends_every_short_message_and_is_counted(kind, text):
    submits = compose(text, null_terminate_sm=True, long_messages=kind, alphabets=["GSM7", "LATIN1", "UCS2"])

    if kind == "payload":
        assert submits[0].short_message == b""
    else:
        assert all(submit.short_message.endswith(b"\0") for submit in submits)
        most = 160 if submits[0].data_coding == 0 else 140
        assert max(len(submit.short_message) for submit in submits) <= most
    octets = b"".join(submit.user_data.removesuffix(b"\0") for submit in submits)
    assert _read(octets, submits[0].data_coding) == text


@pytest.mark.parametrize("text", ["Code [12]", "@" * 160, "a" * 7, "a" * 8, "€" * 200, "a" * 152 + "€" + "b" * 200])
@pytest.mark.parametrize("kind", ["udh8", "udh16", "sar", "payload"])
def test_c33_packed_septets_are_read_back_behind_any_header(kind, text):
    submits = compose(text, default_alphabet="gsm_packed", long_messages=kind)

    septets = b""
    for submit in submits:
        header = len(submit.short_message) - len(submit.user_data) if submit.short_message else 0
        septets += _unpacked(submit.user_data, -8 * header % 7)
    assert gsm.decode(septets).rstrip("\r") == text
    if kind != "payload":
        assert max(len(submit.short_message) for submit in submits) <= 140


def test_a_full_packed_part_has_153_septets_in_140_octets():
    first, second = compose("a" * 154, default_alphabet="gsm_packed")[0], compose("a" * 160, default_alphabet="gsm_packed")[0]

    assert len(second.short_message) == 140
    assert len(first.short_message) == 135
    assert [len(part.short_message) for part in compose("a" * 306, default_alphabet="gsm_packed")] == [140, 140]
    assert [len(part.short_message) for part in compose("a" * 306, default_alphabet="gsm_packed", long_messages="udh16")] == [140, 140, 9]


def test_text_that_no_allowed_alphabet_can_write_is_refused_before_the_wire():
    made = composed("Баланс 10", alphabets=["GSM7", "LATIN1"])

    assert (made.refused.reason, made.parts) == ("bad_text", 1)
    assert "GSM7 and LATIN1" in made.refused.detail


def test_a_text_goes_in_latin_letters_where_the_profile_prefers_that_to_ucs2():
    (submit,) = compose("Счёт № 5 — 10,00 ₽", transliteration="ascii")

    assert (submit.data_coding, submit.text) == (0, "Schyot No. 5 - 10,00 RUB")


def test_what_the_profile_adds_stands_behind_every_part():
    profile = {"tlvs": [{"tag": "0x1400", "value": "1101"}, {"tag": "0x1401", "by_type": {"payment.received": "1107"}, "required": True}]}

    submits = compose("a" * 200, **profile)
    refused = composed("a", kind="balance.low", **profile).refused

    assert [(submit.tlvs[0x1400], submit.tlvs[0x1401]) for submit in submits] == [(b"1101\0", b"1107\0")] * 2
    assert refused.reason == "missing_tlv"
    assert "balance.low" in refused.detail


def _read(octets: bytes, data_coding: int) -> str:
    return {0: gsm.decode, 3: lambda read: read.decode("latin-1"), 8: lambda read: read.decode("utf-16-be")}[data_coding](octets)


def _unpacked(octets: bytes, fill: int) -> bytes:
    """By the drawing of TS 23.038, 6.1.2.1.1, bit by bit, and not by the code under test."""
    bits = "".join(f"{octet:08b}"[::-1] for octet in octets)[fill:]
    return bytes(int(bits[start : start + 7][::-1], 2) for start in range(0, len(bits) - 6, 7))
