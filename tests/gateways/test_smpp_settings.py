"""The body of an SMPP gateway."""

import pytest
from pydantic import ValidationError

from app.gateways.profile import Profile
from app.gateways.smpp import SmppSettings

BODY = {"kind": "smpp", "host": "127.0.0.1", "port": 2775, "system_id": "isp", "password": "secret", "sender": "MyISP"}


def test_the_contracts_example_is_taken_as_it_stands():
    settings = SmppSettings.model_validate(BODY | {"rate_per_second": 50, "window": 10, "binds": 1, "profile": {}, "enabled": True})

    assert settings.rate_of_bind == 50
    assert settings.profile == Profile()
    assert "secret" not in repr(settings)


def test_an_unknown_profile_key_is_refused_with_the_known_ones():
    with pytest.raises(ValidationError, match=r"unknown profile key enquire_intervall; known keys: .*enquire_interval,"):
        SmppSettings.model_validate(BODY | {"profile": {"enquire_intervall": 5}})


def test_statuses_are_written_in_hex_or_decimal_and_mean_the_same():
    assert Profile(status_overrides={"0x412": "PERM", "1025": "TEMP", 88: "THROTTLE"}).status_overrides == {
        "0x00000412": "PERM",
        "0x00000401": "TEMP",
        "0x00000058": "THROTTLE",
    }


@pytest.mark.parametrize("overrides", [{"0xZZ": "PERM"}, {"0x0412": "GIVE_UP"}, {"0x123456789": "PERM"}])
def test_a_status_override_that_makes_no_sense_is_refused(overrides):
    with pytest.raises(ValidationError):
        Profile(status_overrides=overrides)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate_per_second": 0},
        {"window": 0},
        {"window": 1001},
        {"binds": 33},
        {"colour": "red"},
        {"profile": {"reconnect_min": 10, "reconnect_max": 5}},
        {"profile": {"source_ton": 5}},
        {"password": "sec\0ret"},
    ],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        SmppSettings.model_validate(BODY | wrong)


def test_the_total_rate_is_shared_by_the_binds():
    assert SmppSettings.model_validate(BODY | {"rate_total": 30, "binds": 4}).rate_of_bind == 7.5
    assert SmppSettings.model_validate(BODY | {"rate_total": 30, "binds": 4, "rate_per_second": 5}).rate_of_bind == 5
    assert SmppSettings.model_validate(BODY).rate_of_bind is None


def test_every_profile_key_says_what_it_is_and_has_a_default():
    schema = Profile.model_json_schema()

    assert "required" not in schema
    assert [key for key, field in schema["properties"].items() if not field.get("description")] == []
    assert schema["additionalProperties"] is False
