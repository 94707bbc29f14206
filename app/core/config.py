"""Settings: environment variables `VESTNIK_*`, a `.env` file, or files in `VESTNIK_SECRETS_DIR`."""

import os
from datetime import time
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

from cryptography.fernet import Fernet
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from app.core.errors import ConfigurationError

# For local runs alone, and refused in production: everybody who has read this file knows them.
LOCAL_JWT_SECRET = "a local secret that production refuses, known to everyone"  # noqa: S105
LOCAL_SECRET_KEY = "bG9jYWwta2V5LXRoYXQtcHJvZHVjdGlvbi1yZWZ1c2U="  # noqa: S105

PRIVATE_NETWORKS = "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"


class Settings(BaseSettings):
    """What the operator decides outside the database. `docs/install.md` lists every variable."""

    model_config = SettingsConfigDict(env_prefix="VESTNIK_", env_file=".env", extra="ignore", env_ignore_empty=True)

    env: Literal["local", "production"] = "local"
    database_url: str = ""
    database_pooler: Literal["none", "transaction"] = "none"
    redis_url: str = ""
    data_dir: Path = Path("var")
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8000, ge=1, le=65535)
    public_url: str = ""
    cabinet_url: str = ""
    cors_origins: str = ""
    secret_keys: SecretStr = SecretStr(LOCAL_SECRET_KEY)
    jwt_hs256_secret: SecretStr = SecretStr("")
    jwt_jwks_url: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = "vestnik"
    jwt_account_claim: str = "sub"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"
    docs: Literal["on", "off"] = "on"
    metrics_allow: str = PRIVATE_NETWORKS
    quiet_hours: str = "22:00-08:00"
    release_spread_seconds: int = Field(default=0, ge=0, le=14_400)
    scan_hour: str = "10:00"
    timezone: str = "Europe/Moscow"
    locale: str = Field(default="ru", pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")
    currency: str = Field(default="RUB", pattern="^[A-Z]{3}$")
    bounce_listen: str = ""
    phone_region: str = Field(default="RU", pattern="^[A-Z]{2}$")
    retention_days_content: int = Field(default=30, ge=1)
    retention_days_record: int = Field(default=400, ge=1)
    webhook_allow_private: str = ""
    webhook_allow_http: Literal["on", "off"] = "off"
    webhook_days: int = Field(default=14, ge=3, le=366)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the name that pydantic-settings calls with
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # What is given in code beats the environment, that beats files: a secret mounted as a file needs no variable.
        return init_settings, env_settings, dotenv_settings, file_secret_settings

    @field_validator("database_url")
    @classmethod
    def _asyncpg(cls, value: str) -> str:
        if value and not value.startswith("postgresql+asyncpg://"):
            raise ValueError("must start with postgresql+asyncpg://")
        return value

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"{value!r} is no IANA time zone: write e.g. Europe/Moscow")
        return value

    @field_validator("quiet_hours")
    @classmethod
    def _quiet(cls, value: str) -> str:
        parse_hours(value)
        return value

    @field_validator("scan_hour")
    @classmethod
    def _hour(cls, value: str) -> str:
        try:
            time.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value!r} is no time of day: write e.g. 10:00") from None
        return value

    @field_validator("bounce_listen")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        parse_endpoint(value)
        return value

    @field_validator("public_url", "cabinet_url", "jwt_jwks_url")
    @classmethod
    def _url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value

    @field_validator("metrics_allow")
    @classmethod
    def _networks(cls, value: str) -> str:
        for part in value.split(","):
            ip_network(part.strip())
        return value

    @field_validator("webhook_allow_private")
    @classmethod
    def _private_networks(cls, value: str) -> str:
        parse_networks(value)
        return value

    @field_validator("secret_keys")
    @classmethod
    def _fernet(cls, value: SecretStr) -> SecretStr:
        for key in value.get_secret_value().split(","):
            try:
                Fernet(key.strip())
            except ValueError:
                raise ValueError("every key must be 32 octets in URL-safe base64 (make one with `openssl rand -base64 32 | tr '+/' '-_'`)") from None
        return value

    @model_validator(mode="after")
    def _one_source_of_tokens(self) -> "Settings":
        if self.jwt_jwks_url and self.jwt_hs256_secret.get_secret_value():
            raise ValueError("set VESTNIK_JWT_HS256_SECRET or VESTNIK_JWT_JWKS_URL, not both: a token's algorithm must have one source")
        return self

    @model_validator(mode="after")
    def _production_refuses_local_defaults(self) -> "Settings":
        if self.env != "production":
            return self
        secret = self.jwt_hs256_secret.get_secret_value()
        wrong = [
            said
            for said, bad in (
                ("VESTNIK_DATABASE_URL must be set: the embedded servers are for local runs", not self.database_url),
                ("VESTNIK_REDIS_URL must be set: the embedded servers are for local runs", not self.redis_url),
                ("VESTNIK_SECRET_KEYS must be your own", LOCAL_SECRET_KEY in self.secret_keys.get_secret_value()),
                ("VESTNIK_JWT_HS256_SECRET or VESTNIK_JWT_JWKS_URL must be set", not secret and not self.jwt_jwks_url),
                ("VESTNIK_JWT_HS256_SECRET must be your own, of 32 octets or more", bool(secret) and (secret == LOCAL_JWT_SECRET or len(secret.encode()) < 32)),
                ("VESTNIK_JWT_ISSUER must be set with VESTNIK_JWT_JWKS_URL", bool(self.jwt_jwks_url) and not self.jwt_issuer),
                ("VESTNIK_JWT_AUDIENCE must be set with VESTNIK_JWT_JWKS_URL", bool(self.jwt_jwks_url) and not self.jwt_audience),
                ("VESTNIK_JWT_JWKS_URL must be https", bool(self.jwt_jwks_url) and not self.jwt_jwks_url.startswith("https://")),
                ("VESTNIK_PUBLIC_URL must be set: links in messages start with it", not self.public_url),
                ("VESTNIK_CORS_ORIGINS must list origins, not *", "*" in self.cors_origins),
            )
            if bad
        ]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def jwt_secret(self) -> str:
        """The HS256 secret of cabinet tokens; empty when tokens come from a JWKS."""
        if self.jwt_jwks_url:
            return ""
        return self.jwt_hs256_secret.get_secret_value() or (LOCAL_JWT_SECRET if self.env == "local" else "")

    @property
    def base_url(self) -> str:
        return (self.public_url or f"http://{self.http_host}:{self.http_port}").rstrip("/")

    @cached_property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @cached_property
    def quiet(self) -> tuple[time, time]:
        """Start and end of the operator's quiet hours, on the subscriber's clock; equal when there are none."""
        return parse_hours(self.quiet_hours)

    @property
    def bounce_endpoint(self) -> tuple[str, int] | None:
        """Host and port where bounces are listened for; nothing when they are not."""
        return parse_endpoint(self.bounce_listen)

    @cached_property
    def webhook_private_networks(self) -> list[IPv4Network | IPv6Network]:
        """Networks that are not public, and that webhooks may go to all the same."""
        return parse_networks(self.webhook_allow_private)

    @cached_property
    def metrics_networks(self) -> list[IPv4Network | IPv6Network]:
        return [ip_network(part.strip()) for part in self.metrics_allow.split(",")]


def parse_networks(text: str) -> list[IPv4Network | IPv6Network]:
    """`10.1.0.0/16,192.168.7.5` as networks; none for nothing."""
    return [ip_network(part.strip()) for part in text.split(",") if part.strip()]


def parse_endpoint(text: str) -> tuple[str, int] | None:
    """`127.0.0.1:2526` or `[::1]:2526` as host and port; nothing for nothing."""
    if not text:
        return None
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536 or (":" in host and not text.startswith("[")):
        raise ValueError(f"{text!r} is no host and port: write e.g. 127.0.0.1:2526")
    return host, int(port)


def parse_hours(text: str) -> tuple[time, time]:
    """`22:00-08:00` as two times of day. An empty interval (`00:00-00:00`) means none."""
    begin, dash, end = text.partition("-")
    try:
        if not dash or "Z" in text.upper() or "+" in text:  # on the subscriber's clock, whatever his zone is
            raise ValueError
        return time.fromisoformat(begin.strip()), time.fromisoformat(end.strip())
    except ValueError:
        raise ValueError(f"{text!r} is no interval of hours: write e.g. 22:00-08:00") from None


def load_settings(**given: object) -> Settings:
    """Settings from the environment, or a ConfigurationError of one line that names each wrong variable."""
    secrets_dir = os.environ.get("VESTNIK_SECRETS_DIR")
    try:
        return Settings(_secrets_dir=secrets_dir, **given)  # type: ignore[arg-type]
    except ValidationError as error:
        wrong = []
        for fault in error.errors():
            said = fault["msg"].removeprefix("Value error, ")
            wrong.append(f"VESTNIK_{str(fault['loc'][0]).upper()}: {said}" if fault["loc"] else said)
        raise ConfigurationError("; ".join(wrong)) from None
