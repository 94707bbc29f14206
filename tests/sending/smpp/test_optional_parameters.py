"""What `tlvs` of a profile puts behind every submit_sm."""

from uuid import UUID

import pytest

from app.gateways.profile import Profile
from app.sending.outcome import Refused
from app.sending.smpp.optional_parameters import OptionalParameters
from app.sending.smpp.pdu import read_tlvs

KEY = UUID("0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")


def parameters(*tlvs: dict) -> OptionalParameters:
    return OptionalParameters(Profile.model_validate({"tlvs": list(tlvs)}))


@pytest.mark.parametrize(
    ("tlv", "octets"),
    [
        ({"type": "int", "length": 1, "value": 5}, b"\x05"),
        ({"type": "int", "length": 4, "value": 258}, b"\x00\x00\x01\x02"),
        ({"type": "cstr", "value": "1101234"}, b"1101234\0"),
        ({"type": "cstr", "length": 8, "value": "1101234"}, b"1101234\0"),
        ({"type": "octets", "value": "00ff10"}, b"\x00\xff\x10"),
        ({"source": "message_id"}, str(KEY).encode() + b"\0"),
        ({"type": "octets", "source": "message_id"}, KEY.bytes),
        ({"source": "type"}, b"payment.received\0"),
    ],
)
def test_a_value_is_written_in_its_form(tlv, octets):
    written = parameters({"tag": "0x1400", **tlv}).octets(KEY, "payment.received")

    assert read_tlvs(written, 0) == {0x1400: octets}


def test_the_most_exact_value_wins():
    made = parameters({"tag": 0x1401, "value": "any", "by_type": {"payment.received": "of the type"}, "source": "message_id"})

    assert read_tlvs(made.octets(KEY, "payment.received"), 0) == {0x1401: b"of the type\0"}
    assert read_tlvs(made.octets(KEY, "balance.low"), 0) == {0x1401: str(KEY).encode() + b"\0"}


def test_the_fixed_value_serves_a_message_whose_type_is_not_known():
    made = parameters({"tag": 0x1401, "value": "any", "source": "type"})

    assert [read_tlvs(made.octets(KEY, kind), 0)[0x1401] for kind in ("", "balance.low")] == [b"any\0", b"balance.low\0"]


def test_one_without_a_value_is_left_out_and_a_required_one_refuses_the_message():
    template = {"tag": 0x1401, "by_type": {"payment.received": "1107"}}

    left_out = parameters(template, {"tag": 0x1400, "value": "x"}).octets(KEY, "balance.low")
    refused = parameters(template | {"required": True}).octets(KEY, "balance.low")

    assert read_tlvs(left_out, 0) == {0x1400: b"x\0"}
    assert isinstance(refused, Refused)
    assert refused.reason == "missing_tlv"
    assert "0x1401" in refused.detail


def test_a_type_that_does_not_fit_its_parameter_refuses_the_message_instead_of_cutting_it():
    made = parameters({"tag": 0x1401, "length": 8, "source": "type"})

    long, foreign = made.octets(KEY, "payment.received"), made.octets(KEY, "счёт")

    assert [isinstance(result, Refused) and result.reason for result in (long, foreign)] == ["bad_tlv", "bad_tlv"]
    assert read_tlvs(made.octets(KEY, "sale"), 0) == {0x1401: b"sale\0"}


def test_each_message_has_its_own_and_each_type_its_own():
    made = parameters({"tag": 0x1401, "source": "message_id"}, {"tag": 0x1402, "source": "type"})

    first, second = (read_tlvs(made.octets(UUID(int=number), kind), 0) for number, kind in ((1, "a"), (2, "b")))

    assert [first[0x1401][-2:], first[0x1402], second[0x1401][-2:], second[0x1402]] == [b"1\0", b"a\0", b"2\0", b"b\0"]


def test_without_any_nothing_is_written():
    assert parameters().octets(KEY, "payment.received") == b""
