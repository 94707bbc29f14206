"""What an SMPP gateway is told: the connection, and how this SMSC differs from others. Every difference is a key of the profile."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, StrictInt, model_validator

StatusAction = Literal["PERM", "TEMP", "THROTTLE", "REBIND", "CONFIG", "BRK"]
MessageIdBase = Literal["string", "dec", "hex"]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Octet = Annotated[StrictInt, Field(ge=0, le=255)]


def _c_octets(value: str) -> str:
    if "\0" in value or not value.isascii():
        raise ValueError("ASCII without NUL, as SMPP 3.4 section 3.1 defines a C-octet string")
    return value


def _status_key(value: Any) -> Any:
    """A status given as "0x0412", "1042" or 1042 is always written as "0x00000412"."""
    if not isinstance(value, dict):
        return value
    keys: dict[str, Any] = {}
    for key, action in value.items():
        text = str(key).strip().lower()
        if not re.fullmatch(r"0x[0-9a-f]{1,8}|\d{1,10}", text) or (number := int(text, 0 if text.startswith("0x") else 10)) > 0xFFFFFFFF:
            raise ValueError(f"{key!r} is not a command_status: write it as 0x0412 or 1042")
        keys[f"0x{number:08X}"] = action
    return keys


CString = Annotated[str, AfterValidator(_c_octets)]


class DataCoding(BaseModel):
    """The data_coding octet for each alphabet (SMPP 3.4, 5.2.19)."""

    model_config = ConfigDict(extra="forbid")

    GSM7: Octet = 0
    UCS2: Octet = 8


class Profile(BaseModel):
    """How one SMSC differs from the common case. Times are seconds."""

    model_config = ConfigDict(extra="forbid")

    # The connection and the bind
    connect_timeout: Seconds = Field(10, description="for the TCP connection")
    bind_timeout: Seconds = Field(30, description="for bind_transceiver_resp")
    enquire_interval: Seconds = Field(30, description="enquire_link when nothing was received for so long")
    enquire_timeout: Seconds = Field(30, description="reconnect when then nothing is received for so long")
    inactivity_timeout: float = Field(300, ge=0, le=86_400, description="reconnect when no PDU came for so long, whatever was sent; 0: never")
    pdu_read_timeout: Seconds = Field(10, description="reconnect when a PDU was begun and not finished for so long")
    system_type: CString = Field("", max_length=64, description="some SMSCs refuse a wrong one with 0x53")
    interface_version: Octet = Field(0x34, description="0x33, 0x34 or 0x50; below 0x34 no optional parameters are sent unless long_messages asks for them")
    address_range: CString = Field("", max_length=64, description="addresses whose messages and receipts come here; empty: all of the account")
    bind_ton: Octet = Field(0, description="type of the address_range")
    bind_npi: Octet = Field(0, description="numbering plan of the address_range")
    alybnd_wait: Seconds = Field(30, description="after 0x05 in bind_resp: the old session must time out there first")
    reconnect_min: Seconds = Field(1, description="first pause before a reconnect; it doubles, plus up to half of jitter")
    reconnect_max: Seconds = Field(60, description="longest pause before a reconnect")
    stable_after: float = Field(30, ge=0, le=86_400, description="a session that lasted so long takes the pause back to reconnect_min")
    config_probe_interval: Seconds = Field(900, description="a bind stopped by wrong settings (0x0E, 0x0F, 0x53, ...) tries again after so long")

    # Submitting
    response_timeout: Seconds = Field(60, description="without an answer for so long a submit is `unknown`; it is not sent again")
    reconnect_after_timeouts: int = Field(
        3, ge=1, le=1000, description="unanswered submits in a row that make the bind reconnect; half a window of them does so too"
    )
    service_type: CString = Field("", max_length=5, description="SMS application service; empty: the default one of the SMSC")
    protocol_id: Octet = Field(0, description="GSM protocol identifier")
    priority_normal: int = Field(0, ge=0, le=3, description="priority_flag of ordinary messages")
    priority_urgent: int = Field(0, ge=0, le=3, description="priority_flag of urgent messages")
    esm_class: Octet = Field(0, description="the base; 3 asks for store and forward. The UDH indicator is added where it is due")
    registered_delivery: Octet = Field(0x01, description="1: receipt; 2: on failure only; +0x10: intermediate ones as well")
    validity: Literal["none", "relative", "absolute"] = Field("relative", description="form of validity_period; absolute is in UTC")
    validity_max: int = Field(604_800, ge=60, le=8_640_000, description="longest validity_period that is asked for")
    data_coding: DataCoding = Field(default_factory=DataCoding, description="data_coding octet for each alphabet: {GSM7: 0, UCS2: 8}")
    default_alphabet: Literal["gsm0338", "latin1", "ascii"] = Field(
        "gsm0338", description="what the SMSC takes data_coding 0 for; what does not fit goes as UCS-2"
    )
    long_messages: Literal["udh8", "udh16", "sar", "payload"] = Field("udh8", description="how the parts of a long message are tied together")
    max_parts: int = Field(10, ge=1, le=255, description="a message of more parts is refused")
    user_message_reference: bool = Field(True, description="send TLV 0x0204, a reference of the message that some SMSCs echo in receipts")

    # Addresses
    source_ton: Octet | None = Field(None, description="left out: by the form of the sender")
    source_npi: Octet | None = Field(None, description="goes together with source_ton")
    short_code_ton: Octet = Field(3, description="for senders of three to eight digits")
    short_code_npi: Octet = Field(0, description="goes together with short_code_ton")
    addr_charset: Literal["ascii", "latin1", "gsm0338"] = Field("ascii", description="octets of an alphanumeric sender")
    dest_ton: Octet = Field(1, description="type of the subscriber's number; 1: international")
    dest_npi: Octet = Field(1, description="its numbering plan; 1: E.164")
    dest_format: Literal["e164", "e164_plus", "00"] = Field("e164", description="79161234567, +79161234567 or 0079161234567")

    # Refusals
    temp_attempts: int = Field(5, ge=1, le=100, description="attempts that a temporary refusal deserves")
    retry_backoff_min: Seconds = Field(30, description="pause before the second attempt; it doubles")
    retry_backoff_max: Seconds = Field(900, description="longest pause between attempts")
    throttle_pause_min: Seconds = Field(1, description="pause of the bind after 0x58; it doubles while the SMSC goes on refusing")
    throttle_pause_max: Seconds = Field(60, description="longest pause after 0x58")
    queue_full_pause: Seconds = Field(5, description="pause of the bind after 0x14; it does not grow")
    throttle_slowdown: float = Field(0.2, ge=0, le=0.9, description="the share of the rate that each 0x58 takes away")
    throttle_recovery: float = Field(0.05, gt=0, le=1, description="the share of the full rate that comes back each minute")
    status_overrides: Annotated[dict[str, StatusAction], BeforeValidator(_status_key)] = Field(
        default_factory=dict,
        description='what a command_status means here: {"0x0412": "PERM"}',
    )

    # Message ids and receipts
    msgid_resp_base: MessageIdBase = Field("string", description="how submit_sm_resp writes a message id")
    msgid_rcpt_base: MessageIdBase = Field("string", description="how receipts write it")
    msgid_fold: list[Literal["case", "zeros", "hyphens"]] = Field(default_factory=list, description="what does not distinguish two ids")
    receipt_detect: Literal["auto", "esm_class"] = Field("auto", description="auto: also by TLV 0x001E or a text that starts with id:")
    receipt_source: Literal["tlv", "text"] = Field("tlv", description="which one wins where the TLVs and the text differ")
    receipt_group: str = Field("", max_length=64, description="gateways whose receipts may arrive on each other's binds share a name; empty: the gateway alone")

    @model_validator(mode="before")
    @classmethod
    def _name_the_known_keys(cls, value: Any) -> Any:
        if isinstance(value, dict) and (unknown := sorted(str(key) for key in value if key not in cls.model_fields)):
            raise ValueError(f"unknown profile key {', '.join(unknown)}; known keys: {', '.join(sorted(cls.model_fields))}")
        return value

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for low, high in (("reconnect_min", "reconnect_max"), ("retry_backoff_min", "retry_backoff_max"), ("throttle_pause_min", "throttle_pause_max")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} is greater than {high}")
        if (self.source_ton is None) != (self.source_npi is None):
            raise ValueError("source_ton and source_npi go together")
        return self


class SmppSettings(BaseModel):
    """The body of an SMPP gateway."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["smpp"] = "smpp"
    host: str = Field(min_length=1, max_length=253)
    port: int = Field(2775, ge=1, le=65_535)
    # SMPP allows 15 and 8 octets; real accounts have up to a hundred, so the length is not checked here.
    system_id: CString = Field(max_length=255)
    # Null clears it.
    password: Annotated[
        SecretStr,
        BeforeValidator(lambda value: "" if value is None else value),
        AfterValidator(lambda value: (_c_octets(value.get_secret_value()), value)[1]),
    ] = SecretStr("")
    sender: str | None = Field(None, max_length=20, description="used where a message names none")
    rate_per_second: float | None = Field(None, gt=0, le=100_000, description="parts a second on each bind; null: no limit")
    rate_total: float | None = Field(None, gt=0, le=1_000_000, description="parts a second on all binds together")
    window: int = Field(10, ge=1, le=1000, description="submit_sm that may be unanswered on one bind")
    binds: int = Field(1, ge=1, le=32)
    profile: Profile = Field(default_factory=Profile)
    enabled: bool = True

    @property
    def rate_of_bind(self) -> float | None:
        """Parts a second that one bind may send: an even share of the total where that is less."""
        limits = [limit for limit in (self.rate_per_second, self.rate_total and self.rate_total / self.binds) if limit]
        return min(limits, default=None)
