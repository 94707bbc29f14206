"""What a mail gateway is told: the body of an SMTP gateway, checked. Pure; the pool of app/sending/smtp takes it as it is."""

import re
from typing import Annotated, Any, Literal, Self

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, StrictBool, StrictInt, model_validator

from app.core.mailboxes import parse_mailbox
from app.gateways import fit
from app.gateways.dkim import Dkim

CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")  # what may end a header or a command line for somebody


def _one_line(value: str) -> str:
    if CONTROL.search(value):
        raise ValueError("line breaks and control characters are not allowed here")
    return value


def _host(value: str) -> str:
    if re.search(r"[\s/@<>]", value):
        raise ValueError("a host name or an IP address, without a scheme, a port or spaces")
    return _one_line(value)


def _sender(value: str) -> str:
    _, address = parse_mailbox(_one_line(value))
    try:
        valid = validate_email(address, check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError as error:
        raise ValueError(f"the address of the sender is not valid: {error}") from None
    if valid.ascii_email is None:
        # RFC 6531, 3.2: it would need SMTPUTF8 at every hop of every letter; one hop without it, and all of them are refused.
        raise ValueError("the part of the sender before @ has to be ASCII")
    return value.strip()


# RFC 5321, 4.5.3.1.1: 64 octets before the @, of which the message and its proof take 44 (app/sending/smtp/verp.py).
RETURN_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,19}")


def _return_path(value: str) -> str:
    local = value.rpartition("@")[0]
    try:
        valid = validate_email(value, check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError as error:
        raise ValueError(f"the address is not valid: {error}") from None
    if valid.ascii_email is None or not RETURN_PATH.fullmatch(local):
        raise ValueError("before the @ at most 20 letters, digits, dots, hyphens and underscores, as bounces@mail.isp.example: the message's id is added there")
    return f"{local}@{valid.ascii_domain}"


Line = Annotated[str, AfterValidator(_one_line)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=3600)]


class SmtpProfile(BaseModel):
    """The differences of one mail server. Times are seconds."""

    model_config = ConfigDict(extra="forbid")

    connect_timeout: Seconds = Field(10, description="TCP, TLS, greeting, EHLO and AUTH: each within this time")
    timeout: Seconds = Field(60, description="for the answer to MAIL, RCPT and DATA")
    # RFC 5321, 4.5.3.2.6: ten minutes, because giving up on a server that is still delivering is what doubles mail.
    data_timeout: Seconds = Field(600, description="for the answer to the whole letter, after its final dot")
    verify: StrictBool = Field(True, description="check the certificate and its name; off only for tests")
    ca_file: Line | None = Field(None, description="PEM file of the authorities to trust instead of the system's")
    ehlo_name: Annotated[str, AfterValidator(_host)] | None = Field(
        None, min_length=1, max_length=253, description="the name given in EHLO; by default the host's own full name"
    )
    max_per_connection: StrictInt = Field(100, ge=1, le=1_000_000, description="letters after which a connection is closed and opened anew")
    idle_timeout: Seconds = Field(30, description="a connection that had nothing to send for this long is closed; the next letter opens one")
    claim_ahead: StrictInt = Field(8, ge=0, le=1000, description="letters claimed for each connection beyond the one on the wire")
    per_domain: StrictInt | None = Field(
        None, ge=1, le=64, description="the most letters on the wire at once to one recipient domain; null: as many as there are connections"
    )
    return_path: Annotated[str, AfterValidator(_return_path)] | None = Field(
        None,
        max_length=254,
        description="envelope sender of every letter, with the message's id in it: what comes back there is read as a bounce; null: the address in `from`",
    )
    reconnect_min: Seconds = Field(1, description="first pause after a failed or lost connection; it doubles")
    reconnect_max: Seconds = Field(60, description="the longest of these pauses")
    retry_backoff_min: Seconds = Field(30, description="first pause before a letter that was answered 4xx is sent again")
    retry_backoff_max: Seconds = Field(900, description="the longest of these pauses")
    temp_attempts: StrictInt = Field(5, ge=1, le=100, description="attempts that a letter gets before 4xx becomes a failure")

    @model_validator(mode="before")
    @classmethod
    def name_the_known_keys(cls, given: Any) -> Any:
        return fit.refuse_unknown(given, cls.model_fields)

    @model_validator(mode="after")
    def least_before_most(self) -> Self:
        fit.least_before_most(self, ("retry_backoff_min", "retry_backoff_max"), ("reconnect_min", "reconnect_max"))
        return self


class SmtpSettings(BaseModel):
    """A mail gateway: one server, a few connections to it."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    kind: Literal["smtp"] = Field(description="the kind of gateway")
    host: Annotated[str, AfterValidator(_host)] = Field(min_length=1, max_length=253, description="name or address of the mail server")
    port: StrictInt = Field(587, ge=1, le=65535, description="its port: usually 587 with starttls, 465 with implicit, 25 inside one's own network")
    username: Line = Field("", max_length=320, description="for AUTH; empty: no authentication")
    password: Annotated[SecretStr, BeforeValidator(lambda value: "" if value is None else value)] = Field(
        SecretStr(""), max_length=1000, description="for AUTH; write-only"
    )
    tls: Literal["starttls", "implicit", "none"] = Field("starttls", description="never falls back: a server without TLS is an error")
    from_: Annotated[str, AfterValidator(_sender)] = Field(alias="from", max_length=500, description="sender of every letter: `MyISP <noreply@isp.example>`")
    connections: StrictInt = Field(2, ge=1, le=64, description="the most connections open at once")
    rate_per_second: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = Field(
        None, description="letters a second over all connections; null: no limit"
    )
    dkim: Dkim | None = Field(None, description="signs every letter (RFC 6376); null: the mail server does, or nobody")
    profile: SmtpProfile = Field(default_factory=SmtpProfile, description="the differences of this server")
    enabled: StrictBool = Field(True, description="whether the gateway is used")
