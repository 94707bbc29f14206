"""What the body of an SMTP gateway may say."""

import pytest
from pydantic import ValidationError

from app.gateways.smtp import SmtpProfile, SmtpSettings, parse_mailbox

BODY = {"kind": "smtp", "host": "mail.isp.example", "port": 2525, "from": "MyISP <noreply@isp.example>"}


def test_the_documented_body_is_taken_with_its_defaults():
    settings = SmtpSettings.model_validate({**BODY, "username": "", "password": "", "tls": "none", "connections": 2, "enabled": True})

    assert (settings.from_, settings.connections, settings.rate_per_second) == ("MyISP <noreply@isp.example>", 2, None)
    assert settings.model_dump(by_alias=True)["from"] == "MyISP <noreply@isp.example>"


def test_tls_is_on_and_checked_unless_somebody_says_otherwise():
    settings = SmtpSettings.model_validate(BODY)

    assert (settings.tls, settings.profile.verify) == ("starttls", True)


def test_the_password_is_in_no_representation():
    settings = SmtpSettings.model_validate({**BODY, "password": "geheim"})

    assert "geheim" not in repr(settings) + str(settings.model_dump()) + settings.model_dump_json()


def test_an_unknown_profile_key_is_refused_with_the_list_of_known_ones():
    with pytest.raises(ValidationError, match=r"unknown profile key speed; known keys: ca_file, claim_ahead, connect_timeout"):
        SmtpSettings.model_validate({**BODY, "profile": {"speed": 1}})


@pytest.mark.parametrize(
    "change",
    [
        {"from": "MyISP <noreply@isp.example>\r\nBcc: a@b.example"},
        {"from": "MyISP\n <noreply@isp.example>"},
        {"from": "MyISP"},
        {"from": "a@b.example, c@d.example"},
        {"from": "ньюс@isp.example"},
        {"from": "MyISP <a@b.example> <c@d.example>"},
        {"host": ""},
        {"host": "smtp://mail.isp.example"},
        {"host": "mail.isp.example\r\nEHLO"},
        {"username": "isp\0"},
        {"port": 0},
        {"port": 65536},
        {"port": True},
        {"connections": 0},
        {"connections": 65},
        {"rate_per_second": 0},
        {"rate_per_second": float("inf")},
        {"rate_per_second": False},
        {"tls": "opportunistic"},
        {"speed": 1},
        {"profile": {"retry_backoff_min": 100, "retry_backoff_max": 10}},
        {"profile": {"timeout": 0}},
    ],
)
def test_a_body_that_could_not_work_is_refused(change):
    with pytest.raises(ValidationError):
        SmtpSettings.model_validate({**BODY, **change})


@pytest.mark.parametrize("model", [SmtpSettings, SmtpProfile])
def test_every_field_is_described(model):
    assert [name for name, field in model.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("noreply@isp.example", ("", "noreply@isp.example")),
        ("MyISP <noreply@isp.example>", ("MyISP", "noreply@isp.example")),
        ("Мой, Провайдер <noreply@isp.example>", ("Мой, Провайдер", "noreply@isp.example")),
        (r'"My \"ISP\" <best>" <noreply@isp.example>', ('My "ISP" <best>', "noreply@isp.example")),
    ],
)
def test_a_mailbox_is_a_name_and_an_address(value, expected):
    assert parse_mailbox(value) == expected
