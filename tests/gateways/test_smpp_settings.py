"""The body of an SMPP gateway."""

import re

import pytest
from pydantic import ValidationError

from app.gateways.profile import DataCoding, Profile, Tlv
from app.gateways.smpp import SmppSettings
from app.gateways.smtp import SmtpProfile, SmtpSettings
from app.gateways.words import wording

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


@pytest.mark.parametrize(
    ("host", "endpoints"),
    [
        ("smsc.example", [("smsc.example", 2775)]),
        ("smsc_1:2776", [("smsc_1", 2776)]),
        ("[2001:db8::1]:2776", [("2001:db8::1", 2776)]),
        ("2001:db8::1", [("2001:db8::1", 2775)]),
        (["a.example", "10.0.0.1:99", "a.example"], [("a.example", 2775), ("10.0.0.1", 99)]),
    ],
)
def test_a_host_is_a_name_or_several_each_with_a_port_of_its_own_if_need_be(host, endpoints):
    assert SmppSettings.model_validate(BODY | {"host": host}).endpoints == tuple(endpoints)


@pytest.mark.parametrize(
    "host", ["", "a b", "http://a", "a:0", "a:65536", "a:b", "[a]:1", "[::1]x", [], ["a"] * 17, ["a", 5], None, 5, {"a": 1}, "a..b", "a/b", "ü" * 200, "a" * 64]
)
def test_what_is_no_host_is_refused(host):
    with pytest.raises(ValidationError):
        SmppSettings.model_validate(BODY | {"host": host})


def test_the_receiver_of_a_pair_may_be_elsewhere():
    def receiver(**profile):
        return SmppSettings.model_validate(BODY | {"host": ["a", "b:1"], "profile": {"bind_mode": "tx_rx"} | profile}).rx_endpoints

    assert receiver() == (("a", 2775), ("b", 1))
    assert receiver(rx_port=9) == (("a", 9), ("b", 9))
    assert receiver(rx_host="c") == (("c", 2775),)
    assert receiver(rx_host=["c", "d:7"], rx_port=9) == (("c", 9), ("d", 7))


def test_money_is_a_decimal_string_both_ways():
    settings = SmppSettings.model_validate(BODY | {"price_per_part": "0.0125", "daily_cost": "1200"})

    dumped = settings.model_dump(mode="json")
    assert (dumped["price_per_part"], dumped["daily_cost"]) == ("0.0125", "1200.00")
    for wrong in ({"price_per_part": 0.0125}, {"price_per_part": "0.00001"}, {"price_per_part": "-1"}, {"price_per_part": "10000"}, {"daily_cost": "1.005"}):
        with pytest.raises(ValidationError):
            SmppSettings.model_validate(BODY | wrong)


KEY = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("profile", "says"),
    [
        ({"tls": True, "client_key": "/etc/key.pem"}, "give client_cert"),
        ({"ca": "/etc/ca.pem"}, "set tls to true"),
        ({"tls": True, "ca": KEY}, "private key must not stand in the profile"),
        ({"tls": True, "client_cert": KEY}, "private key must not stand in the profile"),
        ({"tlvs": [{"tag": 0x1400, "value": KEY}]}, "private key must not stand in the profile"),
        ({"tls": True, "ca": "-----BEGIN CERTIFICATE-----\nxx"}, "no certificates in PEM"),
        ({"tls": True, "client_cert": "-----BEGIN CERTIFICATE-----"}, "write the path"),
        ({"source_ip": "eth0"}, "no IP address"),
        ({"rx_host": "a"}, "set bind_mode to tx_rx"),
        ({"rx_port": 5, "bind_mode": "rx"}, "set bind_mode to tx_rx"),
        ({"blackout": ["25:00-26:00"]}, "02:00-02:30"),
        ({"blackout": ["00:00-12:00", "11:00-00:00"]}, "pause or disable"),
        ({"alphabets": ["GSM7", "GSM7"]}, "twice"),
        ({"data_coding": {"GSM7": 8}}, "same octet for GSM7 and UCS2"),
        ({"alphabets": ["GSM7", "LATIN1", "UCS2"], "data_coding": {"LATIN1": 0}}, "same octet for GSM7 and LATIN1"),
        ({"stop_words": ["СТОП"], "start_words": ["стоп "]}, "leave it in one"),
        ({"stop_words": ["  "]}, "blank"),
        ({"tlvs": [{"tag": 0x1400}]}, "nothing says what to send"),
        ({"tlvs": [{"tag": 0x1400, "value": "a"}, {"tag": "0x1400", "value": "b"}]}, "twice"),
        ({"tlvs": [{"tag": 0x0424, "value": "a"}]}, "written by the product"),
        ({"tlvs": [{"tag": 0x0204, "type": "int", "length": 2, "value": 1}]}, "user_message_reference"),
        ({"tlvs": [{"tag": 0x1400, "type": "int", "value": 1}]}, "1, 2, 4 or 8"),
        ({"tlvs": [{"tag": 0x1400, "type": "int", "length": 1, "value": 256}]}, "from 0 to 255"),
        ({"tlvs": [{"tag": 0x1400, "type": "int", "length": 1, "value": "7"}]}, "from 0 to 255"),
        ({"tlvs": [{"tag": 0x1400, "value": "Привет"}]}, "type octets"),
        ({"tlvs": [{"tag": 0x1400, "value": 7}]}, "in quotes"),
        ({"tlvs": [{"tag": 0x1400, "value": "abc", "length": 3}]}, "4 octets with its NUL"),
        ({"tlvs": [{"tag": 0x1400, "type": "octets", "value": "abc"}]}, "pairs of hexadecimal digits"),
        ({"tlvs": [{"tag": 0x1400, "type": "octets", "by_type": {"bill": "0a0b"}, "length": 1}]}, "takes 2 octets"),
        ({"tlvs": [{"tag": 0x1400, "type": "int", "length": 4, "source": "message_id"}]}, "set type to cstr"),
        ({"tlvs": [{"tag": 0x1400, "source": "message_id", "length": 16}]}, "37 octets"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_what_to_change(profile, says):
    with pytest.raises(ValidationError, match=re.escape(says)):
        SmppSettings.model_validate(BODY | {"profile": profile})


def test_what_fits_together_is_taken():
    assert Profile(default_alphabet="latin1", alphabets=["GSM7", "LATIN1", "UCS2"], data_coding={"LATIN1": 0}).data_coding.LATIN1 == 0
    assert Profile(user_message_reference=False, tlvs=[{"tag": 0x0204, "type": "int", "length": 2, "value": 1}]).tlvs[0].value == 1
    assert (
        Profile(tlvs=[{"tag": 0x1400, "type": "int", "length": 8, "value": 2**64 - 1}, {"tag": 0x1401, "source": "message_id"}]).tlvs[1].source == "message_id"
    )
    assert Profile(blackout=["23:00-01:00"]).blackout == ["23:00-01:00"]
    assert Profile(tls=True, client_cert="/etc/cert.pem", client_key="/etc/key.pem", sni="smsc.example").client_key == "/etc/key.pem"


@pytest.mark.parametrize(
    ("sender", "profile", "says"),
    [
        ("Банк", {}, "not of the GSM alphabet"),
        ("Café", {}, "cannot be written in ascii"),
        ("A@B", {"addr_charset": "gsm0338"}, "octet 0"),
        ("TwelveLetter", {}, "at most 11 characters"),
        ("123456", {"numeric_max": 5}, "at most 5 digits"),
        ("MyISP", {"allowed_senders": ["Other"]}, "not in allowed_senders"),
        ("MyISP", {"allowed_senders": ["MyISP", "Имя"]}, "not of the GSM alphabet"),
    ],
)
def test_a_sender_that_could_never_go_out_is_refused(sender, profile, says):
    with pytest.raises(ValidationError, match=says) as refused:
        SmppSettings.model_validate(BODY | {"sender": sender, "profile": profile})

    assert refused.value.errors()[0]["loc"] in {("sender",), ("profile", "allowed_senders", 1)}


def test_a_misspelt_key_gets_the_nearest_known_one():
    with pytest.raises(ValidationError, match=r"did you mean enquire_interval for enquire_intervall\?"):
        Profile.model_validate({"enquire_intervall": 5})
    with pytest.raises(ValidationError, match=r"did you mean reconnect_max for reconect_max\?"):
        SmtpProfile.model_validate({"reconect_max": 5})


def test_a_thousand_unknown_keys_of_a_kilobyte_give_a_short_answer():
    with pytest.raises(ValidationError, match="and 990 more") as refused:
        Profile.model_validate({f"{number:04}" + "x" * 1000: 1 for number in range(1000)})

    assert len(str(refused.value.errors()[0]["msg"])) < 4000


def test_every_key_has_its_title_and_help_in_both_languages_and_nothing_is_said_of_others():
    said = wording()
    sections = {
        "profile": Profile, "data_coding": DataCoding, "tlv": Tlv, "smpp": SmppSettings, "smtp": SmtpSettings, "smtp_profile": SmtpProfile,
    }  # fmt: skip

    for name, model in sections.items():
        section = getattr(said, name)
        assert section.keys() == {field.alias or key for key, field in model.model_fields.items()}, name
        for key, words in section.items():
            assert words.group in said.groups, key
            assert all((words.title.ru, words.title.en)), key
            assert re.search("[а-яё]", words.help.ru), key
            assert words.help.ru.endswith("."), key
            assert words.help.en.endswith("."), key
            assert not re.search("[а-яё]", words.title.en + words.help.en), key
    assert said.groups.keys() == {words.group for name in sections for words in getattr(said, name).values()}
