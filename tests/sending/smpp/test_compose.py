"""submit_sm bodies, read back by the simulator's own reader."""

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from app.gateways.smpp import SmppSettings
from app.sending.outcome import Refused
from app.sending.smpp.compose import Composer, Shipment
from app.simulators import smsc_wire as wire


def compose(text="Hi", *, sender="MyISP", validity=None, urgent=False, reference=0x1234, to="+79161234567", **profile):
    settings = SmppSettings.model_validate({"host": "h", "system_id": "isp", "sender": "Default", "profile": profile})
    composed = Composer(settings).compose(Shipment(UUID(int=1), to, text, sender, validity, urgent, reference))
    if composed.refused is not None:
        return composed
    submits = [wire.read_submit(1, body) for body in composed.bodies]
    assert None not in submits
    return submits


@pytest.mark.parametrize(
    ("sender", "kind", "octets"),
    [
        ("Bank", (5, 0), "Bank"),
        ("12345", (3, 0), "12345"),
        ("+38591123456", (1, 1), "38591123456"),
        ("79161234567", (1, 1), "79161234567"),
        ("+123", (1, 1), "123"),
        ("7", (5, 0), "7"),
        (None, (5, 0), "Default"),
    ],
)
def test_c37_the_form_of_the_sender_gives_its_type_and_plan(sender, kind, octets):
    (submit,) = compose(sender=sender)

    assert (submit.source_type, submit.source) == (kind, octets)


def test_c37_the_profile_names_the_pair_for_short_codes_and_may_force_all():
    (short,) = compose(sender="12345", short_code_ton=6, short_code_npi=1)
    (forced,) = compose(sender="Bank", source_ton=2, source_npi=8)

    assert short.source_type == (6, 1)
    assert forced.source_type == (2, 8)


@pytest.mark.parametrize(
    ("sender", "charset", "expected"),
    [
        ("Bäckerei", "ascii", None),
        ("Bäckerei", "latin1", "B\xe4ckerei"),
        ("Bäckerei", "gsm0338", "B\x7bckerei"),
        ("a@b", "gsm0338", None),
        ("a_b", "gsm0338", "a\x11b"),
        ("Банк", "latin1", None),
        ("1" * 21, "ascii", None),
        ("TwelveLetter", "ascii", None),
    ],
)
def test_c37_a_sender_that_the_field_cannot_hold_is_refused_before_sending(sender, charset, expected):
    composed = compose(sender=sender, addr_charset=charset)

    if expected is None:
        assert isinstance(composed.refused, Refused)
        assert composed.refused.reason == "bad_sender"
    else:
        assert composed[0].source == expected


@pytest.mark.parametrize(("form", "expected"), [("e164", "79161234567"), ("e164_plus", "+79161234567"), ("00", "0079161234567")])
def test_the_destination_is_written_as_the_profile_says(form, expected):
    (submit,) = compose(dest_format=form, dest_ton=2, dest_npi=6)

    assert (submit.destination, submit.destination_type) == (expected, (2, 6))


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
    composed = Composer(settings).compose(Shipment(UUID(int=1), "+79161234567", "Hi", None, validity, False, 1))

    assert wire.read_submit(1, composed.bodies[0]).validity == expected


def test_an_absolute_validity_is_in_utc():
    settings = SmppSettings.model_validate({"host": "h", "system_id": "isp", "sender": "Me", "profile": {"validity": "absolute"}})
    composed = Composer(settings).compose(Shipment(UUID(int=1), "+79161234567", "Hi", None, timedelta(hours=1), False, 1))
    written = wire.read_submit(1, composed.bodies[0]).validity

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


def test_the_reference_ties_parts_and_receipts_together():
    udh8 = compose("a" * 200, reference=0xABCDE)
    udh16 = compose("a" * 200, reference=0xABCDE, long_messages="udh16")
    sar = compose("a" * 200, reference=0xABCDE, long_messages="sar", interface_version=0x33)

    assert [submit.joint for submit in udh8] == [(0xDE, 2, 1), (0xDE, 2, 2)]
    assert [submit.joint for submit in udh16] == [(0xBCDE, 2, 1), (0xBCDE, 2, 2)]
    assert [submit.joint for submit in sar] == [(0xBCDE, 2, 1), (0xBCDE, 2, 2)]
    assert [submit.esm_class for submit in (*udh8, *udh16, *sar)] == [0x40, 0x40, 0x40, 0x40, 0, 0]
    assert all(submit.tlvs[0x0204] == b"\xbc\xde" for submit in (*udh8, *udh16))
    assert all(0x0204 not in submit.tlvs for submit in sar)
    assert 0x0204 not in compose(user_message_reference=False)[0].tlvs


def test_a_payload_is_one_pdu_that_counts_its_parts():
    settings = SmppSettings.model_validate({"host": "h", "system_id": "isp", "sender": "Me", "profile": {"long_messages": "payload"}})
    composed = Composer(settings).compose(Shipment(UUID(int=1), "+79161234567", "a" * 400, None, None, False, 1))

    assert (len(composed.bodies), composed.parts) == (1, 3)
