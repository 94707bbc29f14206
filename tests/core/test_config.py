import os
from datetime import time

import pytest
from pydantic import ValidationError

from app.core.config import LOCAL_JWT_SECRET, LOCAL_SECRET_KEY, Settings, load_settings, parse_hours
from app.core.errors import ConfigurationError


def test_production_takes_settings_of_its_own(production):
    assert production().env == "production"
    assert production(jwt_hs256_secret=..., jwt_jwks_url="https://idp.example/jwks", jwt_issuer="https://idp.example").jwt_secret == ""


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"database_url": ""}, "VESTNIK_DATABASE_URL"),
        ({"redis_url": ""}, "VESTNIK_REDIS_URL"),
        ({"secret_keys": LOCAL_SECRET_KEY}, "VESTNIK_SECRET_KEYS"),
        ({"secret_keys": ...}, "VESTNIK_SECRET_KEYS"),
        ({"secret_keys": f"b3VyLW93bi1rZXktdGhhdC1pcy1ub3QtbG9jYWwtMSE=,{LOCAL_SECRET_KEY}"}, "VESTNIK_SECRET_KEYS"),
        ({"jwt_hs256_secret": ""}, "VESTNIK_JWT_HS256_SECRET"),
        ({"jwt_hs256_secret": "short"}, "VESTNIK_JWT_HS256_SECRET"),
        ({"jwt_hs256_secret": LOCAL_JWT_SECRET}, "VESTNIK_JWT_HS256_SECRET"),
        ({"jwt_hs256_secret": ..., "jwt_jwks_url": "https://idp.example/jwks"}, "VESTNIK_JWT_ISSUER"),
        ({"jwt_hs256_secret": ..., "jwt_jwks_url": "https://idp.example/jwks", "jwt_issuer": "i", "jwt_audience": ""}, "VESTNIK_JWT_AUDIENCE"),
        ({"jwt_hs256_secret": ..., "jwt_jwks_url": "http://idp.example/jwks", "jwt_issuer": "i"}, "must be https"),
        ({"public_url": ""}, "VESTNIK_PUBLIC_URL"),
        ({"cors_origins": "*"}, "VESTNIK_CORS_ORIGINS"),
        ({"cors_origins": "https://a.example, *"}, "VESTNIK_CORS_ORIGINS"),
    ],
)
def test_production_refuses_what_is_for_local_runs(production, wrong, named):
    with pytest.raises(ValidationError, match=named):
        production(**wrong)


@pytest.mark.parametrize("env", ["local", "production"])
def test_token_has_one_source_of_its_algorithm(production, env):
    with pytest.raises(ValidationError, match="not both"):
        production(env=env, jwt_jwks_url="https://idp.example/jwks", jwt_issuer="i")


@pytest.mark.parametrize(
    "wrong",
    [
        {"env": "staging"},
        {"database_url": "postgresql://db/vestnik"},
        {"database_url": "sqlite:///x"},
        {"timezone": "Moscow"},
        {"quiet_hours": "22:00"},
        {"quiet_hours": "25:00-08:00"},
        {"quiet_hours": "22:00Z-08:00"},
        {"quiet_hours": "22:00+03:00-08:00"},
        {"metrics_allow": "10.0.0.0/33"},
        {"secret_keys": "short"},
        {"http_port": 0},
        {"phone_region": "Russia"},
        {"retention_days_content": 0},
    ],
)
def test_wrong_setting_is_refused_at_the_start(wrong):
    with pytest.raises(ValidationError):
        Settings(_env_file=None, **wrong)


def test_every_wrong_variable_is_named_in_one_line_without_its_value(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VESTNIK_TIMEZONE", "Moscow")
    monkeypatch.setenv("VESTNIK_SECRET_KEYS", "my-secret-that-is-too-short")

    with pytest.raises(ConfigurationError) as refused:
        load_settings()

    said = str(refused.value)
    assert "VESTNIK_TIMEZONE" in said
    assert "VESTNIK_SECRET_KEYS" in said
    assert "\n" not in said
    assert "my-secret" not in said


def test_code_beats_the_environment_which_beats_the_file_which_beats_mounted_secrets(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("VESTNIK_LOCALE=en\nVESTNIK_CURRENCY=USD\nVESTNIK_SCAN_HOUR=11:00\n")
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "vestnik_currency").write_text("KZT")
    (tmp_path / "mounted" / "vestnik_jwt_hs256_secret").write_text("m" * 40)
    monkeypatch.setenv("VESTNIK_SECRETS_DIR", str(tmp_path / "mounted"))
    monkeypatch.setenv("VESTNIK_LOCALE", "kk")
    monkeypatch.setenv("VESTNIK_SCAN_HOUR", "")  # an empty variable, as compose files make them, is none

    settings = load_settings(log_level="error")

    assert (settings.log_level, settings.locale, settings.currency, settings.scan_hour) == ("error", "kk", "USD", "11:00")
    assert settings.jwt_secret == "m" * 40


def test_secrets_do_not_show_in_a_printed_settings_object(production):
    printed = repr(production(jwt_hs256_secret="hidden-" * 8))

    assert "hidden" not in printed
    assert "b3VyLW93" not in printed


def test_local_run_needs_no_variable_at_all(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("VESTNIK_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    settings = load_settings()

    assert settings.jwt_secret == LOCAL_JWT_SECRET
    assert settings.base_url == "http://127.0.0.1:8000"


def test_hours_are_two_times_of_day():
    assert parse_hours("22:00-08:00") == (time(22), time(8))
    assert parse_hours(" 00:00 - 00:00 ") == (time(0), time(0))
