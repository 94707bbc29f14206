"""How one SMSC differs from the common case: every difference is a key here, with a default, a range and a sentence of help.

Titles and help in Russian and English, and the group that a key stands in on a form, are in `wording/profile.toml`; presets in `presets/`.
Times are seconds.
"""

import codecs
import re
from datetime import time
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

from app.gateways import fit
from app.gateways.hosts import Hosts

StatusAction = Literal["PERM", "TEMP", "THROTTLE", "REBIND", "CONFIG", "BRK"]
MessageIdBase = Literal["string", "dec", "hex"]
BindMode = Literal["trx", "tx_rx", "tx", "rx"]
OnResponseTimeout = Literal["keep", "resend_once"]
AirAlphabet = Literal["GSM7", "LATIN1", "UCS2"]
ReportedState = Literal["delivered", "undelivered", "expired", "deleted", "rejected", "accepted", "in_transit", "unknown"]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
SecondsOrNever = Annotated[float, Field(ge=0, le=86_400)]
Octet = Annotated[StrictInt, Field(ge=0, le=255)]

STATUS = re.compile(r"0x[0-9a-f]{1,8}|\d{1,10}")
ACTION = re.compile(r"PERM|TEMP(\([1-9][0-9]?\))?|THROTTLE|REBIND|CONFIG|BRK")
REASON = re.compile(r"[a-z][a-z0-9_]{0,63}")
ALPHABETS = ("gsm0338", "gsm_packed", "latin1", "ascii")


def c_octets(value: str) -> str:
    if "\0" in value or not value.isascii():
        raise ValueError("ASCII without NUL, as SMPP 3.4 section 3.1 defines a C-octet string")
    return value


def status_number(value: Any) -> int:
    """A command_status given as "0x0412", "1042" or 1042."""
    text = str(value).strip().lower()
    if isinstance(value, bool) or not STATUS.fullmatch(text) or (number := int(text, 16 if text.startswith("0x") else 10)) > 0xFFFFFFFF:
        raise ValueError(f"{value!r} is not a command_status: write it as 0x0412 or 1042")
    return number


def _status(value: Any) -> str:
    return f"0x{status_number(value):08X}"


def _status_keys(value: Any) -> Any:
    return {_status(key): action for key, action in value.items()} if isinstance(value, dict) else value


def _action(value: str) -> str:
    if not ACTION.fullmatch(value):
        raise ValueError(f"{value!r} is no class of refusals: PERM, TEMP, TEMP(n), THROTTLE, REBIND, CONFIG or BRK")
    return value


def _reason(value: str) -> str:
    if not REASON.fullmatch(value):
        raise ValueError("a reason is written in lower-case Latin letters, digits and underscores, as absent_subscriber")
    return value


def _alphabet(value: str) -> str:
    if value in ALPHABETS:
        return value
    try:
        found = codecs.lookup(value)
    except (LookupError, ValueError):
        found = None
    if found is None or not found._is_text_encoding or len("x".encode(found.name)) != 1:  # noqa: SLF001 - the only mark of a text encoding there is
        raise ValueError(f"{value!r} is no alphabet of one octet a character: {', '.join(ALPHABETS)}, or one such as iso8859-5 or cp1251")
    return value


def _hours(value: str) -> str:
    found = re.fullmatch(r"(\d\d:\d\d)-(\d\d:\d\d)", value)
    try:
        begin, end = (time.fromisoformat(part) for part in found.groups()) if found else (None, None)
    except ValueError:
        begin = end = None
    if begin is None or begin == end:
        raise ValueError(f"{value!r} is no span of hours: write it as 02:00-02:30")
    return value


CString = Annotated[str, AfterValidator(c_octets)]
Status = Annotated[str, BeforeValidator(_status)]
Action = Annotated[str, AfterValidator(_action)]
Reason = Annotated[str, AfterValidator(_reason)]
Alphabet = Annotated[str, Field(max_length=32), AfterValidator(_alphabet)]
Hours = Annotated[str, Field(max_length=11), AfterValidator(_hours)]
Word = Annotated[str, Field(min_length=1, max_length=40)]
PemPath = Annotated[str, Field(max_length=500), AfterValidator(fit.a_path)]
PemPathOrText = Annotated[str, Field(max_length=65_536), AfterValidator(fit.path_or_certificates)]
Ip = Annotated[str, Field(max_length=45), AfterValidator(fit.an_address)]
TlvValue = Annotated[StrictStr, Field(max_length=1000)] | StrictInt


class DataCoding(BaseModel):
    """The data_coding octet for each alphabet (SMPP 3.4, 5.2.19), and for flash messages in two of them."""

    model_config = ConfigDict(extra="forbid")

    GSM7: Octet = 0
    LATIN1: Octet = 3
    UCS2: Octet = 8
    FLASH_GSM7: Octet = 0x10
    FLASH_UCS2: Octet = 0x18


class Tlv(BaseModel):
    """An optional parameter of every submit_sm: a fixed value, one for each notification type, or something of the message."""

    model_config = ConfigDict(extra="forbid")

    tag: Annotated[int, BeforeValidator(status_number), Field(ge=1, le=0xFFFF, description="0x1400 or 5120")]
    type: Literal["int", "cstr", "octets"] = Field("cstr", description="int: big-endian of `length`; cstr: ASCII with a NUL; octets: given in hex")
    length: int = Field(0, ge=0, le=255, description="octets of an int (1, 2, 4 or 8); most octets of the others, 0: any")
    value: TlvValue | None = Field(None, description="sent where nothing more exact is known")
    by_type: dict[str, TlvValue] = Field(default_factory=dict, max_length=500, description="value by notification type")
    source: Literal["message_id", "type"] | None = Field(None, description="taken from the message")
    required: StrictBool = Field(False, description="a message without a value is refused instead of being sent without it")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        fit.tlv_fits(self)
        return self


class Profile(BaseModel):
    """How one SMSC differs from the common case. Times are seconds."""

    model_config = ConfigDict(extra="forbid")

    # The connection and the bind
    tls: StrictBool = Field(False, description="TLS 1.2 or newer from the first octet; there is no falling back to plain text")
    verify: StrictBool = Field(True, description="check the certificate and its name; off only for tests")
    ca: PemPathOrText | None = Field(None, description="authorities to trust instead of the system's: a PEM file, or PEM text")
    client_cert: PemPath | None = Field(None, description="PEM file on the worker's machine with our certificate (and key, unless client_key)")
    client_key: PemPath | None = Field(None, description="PEM file with the key of client_cert")
    sni: str | None = Field(None, max_length=253, description="name asked for and checked in TLS; left out: the host")
    source_ip: Ip | None = Field(None, description="local address to connect from, for gateways that admit by address")
    source_port: int = Field(0, ge=0, le=65_535, description="local port to connect from; 0: any")
    proxy_protocol: StrictBool = Field(False, description="begin with a PROXY v1 line, for a balancer that asks for it")
    tcp_keepalive: SecondsOrNever = Field(60, description="TCP keep-alive after so long without traffic; 0: off")
    bind_mode: BindMode = Field("trx", description="trx: one transceiver; tx_rx: a transmitter and a receiver; tx or rx alone")
    rx_host: Hosts | None = Field(None, description="host of the receiver of a tx_rx pair; left out: as host")
    rx_port: int | None = Field(None, ge=1, le=65_535, description="its port; left out: as port")
    rx_grace: SecondsOrNever = Field(60, description="a pair goes on submitting for so long after its receiver was lost")
    connect_timeout: Seconds = Field(10, description="for the TCP connection")
    bind_timeout: Seconds = Field(30, description="for the answer to the bind")
    enquire_interval: Seconds = Field(30, description="enquire_link when nothing was received for so long")
    enquire_timeout: Seconds = Field(30, description="reconnect when then nothing is received for so long")
    inactivity_timeout: SecondsOrNever = Field(300, description="reconnect when no PDU came for so long, whatever was sent; 0: never")
    pdu_read_timeout: Seconds = Field(10, description="reconnect when a PDU was begun and not finished for so long")
    max_pdu: int = Field(70_000, ge=1_024, le=1_000_000, description="longest PDU that is read; a longer one ends the session")
    system_type: CString = Field("", max_length=64, description="some SMSCs refuse a wrong one with 0x53")
    interface_version: Octet = Field(
        0x34, description="0x33, 0x34 or 0x50; below 0x34 no optional parameters are sent unless long_messages or tlvs ask for them"
    )
    address_range: CString = Field("", max_length=64, description="addresses whose messages and receipts come here; empty: all of the account")
    bind_ton: Octet = Field(0, description="type of the address_range")
    bind_npi: Octet = Field(0, description="numbering plan of the address_range")
    alybnd_policy: Literal["failure", "success"] = Field("failure", description="what 0x05 in the answer to the bind is taken for: failure or success")
    alybnd_wait: Seconds = Field(30, description="after such a failure: the old session must time out there first")
    fatal_bind_statuses: list[Status] = Field(
        default_factory=lambda: ["0x0000000E", "0x0000000F", "0x0000004D", "0x00000053"],
        max_length=50,
        description="a bind refused with one of these stops until the settings change or config_probe_interval is over",
    )
    config_probe_interval: Seconds = Field(900, description="a bind stopped by wrong settings tries again after so long")
    reconnect_min: Seconds = Field(1, description="first pause before a reconnect; it doubles")
    reconnect_max: Seconds = Field(60, description="longest pause before a reconnect")
    reconnect_jitter: float = Field(0.5, ge=0, le=1, description="the share by which a pause may be longer, so that binds do not come back together")
    stable_after: SecondsOrNever = Field(30, description="a session that lasted so long takes the pause back to reconnect_min")
    max_session_age: float = Field(0, ge=0, le=604_800, description="bind anew after so long; 0: never")
    blackout: list[Hours] = Field(default_factory=list, max_length=20, description="hours of the day without a bind, as 02:00-02:30, in VESTNIK_TIMEZONE")
    failover_after: SecondsOrNever = Field(15, description="what is queued takes another gateway when this one has been down or throttled for so long")

    # Submitting
    burst: int = Field(1, ge=1, le=1000, description="parts that may go at once after a pause, within the rate")
    response_timeout: Seconds = Field(60, description="without an answer for so long a submit is `unknown`")
    on_response_timeout: OnResponseTimeout = Field(
        "keep", description="keep: an unanswered submit stays `unknown`; resend_once: it is sent once more, and the subscriber may get it twice"
    )
    reconnect_after_timeouts: int = Field(
        3, ge=1, le=1000, description="unanswered submits in a row that make the bind reconnect; half a window of them does so too"
    )
    service_type: CString = Field("", max_length=5, description="SMS application service; empty: the default one of the SMSC")
    protocol_id: Octet = Field(0, description="GSM protocol identifier")
    priority_normal: int = Field(0, ge=0, le=3, description="priority_flag of ordinary messages")
    priority_urgent: int = Field(0, ge=0, le=3, description="priority_flag of urgent messages")
    replace_if_present: int = Field(0, ge=0, le=1, description="replace_if_present_flag")
    sm_default_msg_id: Octet = Field(0, description="a canned message of the SMSC; 0: none")
    esm_class: Octet = Field(0, description="the base; 3 asks for store and forward. The UDH indicator is added where it is due")
    registered_delivery: Octet = Field(0x01, description="1: receipt; 2: on failure only; +0x10: intermediate ones as well")
    validity: Literal["none", "relative", "absolute"] = Field("relative", description="form of validity_period: none, relative or absolute (in UTC)")
    validity_max: int = Field(604_800, ge=60, le=8_640_000, description="longest validity_period that is asked for")
    default_alphabet: Alphabet = Field(
        "gsm0338", description="what the SMSC takes data_coding 0 for: gsm0338, gsm_packed, latin1, ascii or another of one octet a character"
    )
    alphabets: list[AirAlphabet] = Field(
        default=["GSM7", "UCS2"], min_length=1, max_length=3, description="tried in this order; the last one takes what fits no other"
    )
    data_coding: DataCoding = Field(default_factory=DataCoding, description="data_coding octet for each alphabet: {GSM7: 0, LATIN1: 3, UCS2: 8}")
    flash_by: Literal["data_coding", "tlv"] = Field(
        "data_coding", description="how a flash message is marked: FLASH_* of data_coding, or TLV dest_addr_subunit 1"
    )
    transliteration: Literal["off", "ascii"] = Field(
        "off", description="ascii: what does not fit the default alphabet is written in Latin letters before UCS-2 is used"
    )
    long_messages: Literal["udh8", "udh16", "sar", "payload", "refuse"] = Field(
        "udh8", description="how the parts of a long message are tied together: udh8, udh16, sar or payload; refuse: a long message is refused"
    )
    max_parts: int = Field(10, ge=1, le=255, description="a message of more parts is refused")
    null_terminate_sm: StrictBool = Field(False, description="end short_message with a NUL, for the few SMSCs that want it")
    more_messages_to_send: StrictBool = Field(False, description="send TLV 0x0426 = 1 with all parts of a long message but the last")
    tlvs: list[Tlv] = Field(default_factory=list, max_length=20, description="optional parameters to send with every message")
    user_message_reference: StrictBool = Field(True, description="send TLV 0x0204, a reference of the message that some SMSCs echo in receipts")

    # Addresses
    source_ton: Octet | None = Field(None, description="left out: by the form of the sender")
    source_npi: Octet | None = Field(None, description="goes together with source_ton")
    short_code_ton: Octet = Field(3, description="for senders of three to eight digits")
    short_code_npi: Octet = Field(0, description="goes together with short_code_ton")
    addr_charset: Literal["ascii", "latin1", "gsm0338"] = Field("ascii", description="octets of an alphanumeric sender: ascii, latin1 or gsm0338")
    alphanumeric_max: int = Field(11, ge=1, le=20, description="most characters of an alphanumeric sender")
    numeric_max: int = Field(20, ge=3, le=20, description="most digits of a numeric sender")
    allowed_senders: list[Annotated[str, Field(min_length=1, max_length=20)]] = Field(
        default_factory=list, max_length=1000, description="senders registered here; another one is refused before sending. Empty: any"
    )
    dest_ton: Octet = Field(1, description="type of the subscriber's number; 1: international")
    dest_npi: Octet = Field(1, description="its numbering plan; 1: E.164")
    dest_format: Literal["e164", "e164_plus", "00", "national"] = Field(
        "e164", description="e164: 79161234567, e164_plus: +79161234567, 00: 0079161234567, national: national_prefix and the number without country_code"
    )
    country_code: str = Field("7", pattern=r"^[1-9][0-9]{0,2}$", description="taken off numbers of the country in national form")
    national_prefix: str = Field("8", pattern=r"^[0-9]{0,4}$", description="put before them instead")

    # Refusals
    temp_attempts: int = Field(5, ge=1, le=100, description="attempts that a temporary refusal deserves")
    retry_backoff_min: Seconds = Field(30, description="pause before the second attempt; it doubles")
    retry_backoff_max: Seconds = Field(900, description="longest pause between attempts")
    throttle_statuses: list[Status] = Field(
        default_factory=lambda: ["0x00000058", "0x00000014"],
        max_length=50,
        description="refusals that ask to slow down: the bind rests, the message goes first after it",
    )
    throttle_pause_min: Seconds = Field(1, description="pause of the bind after such a refusal; it doubles while the SMSC goes on refusing")
    throttle_pause_max: Seconds = Field(60, description="longest pause after such a refusal")
    queue_full_pause: Seconds = Field(5, description="pause of the bind after 0x14; it does not grow")
    throttle_slowdown: float = Field(0.2, ge=0, le=0.9, description="the share of the rate that each such refusal takes away")
    throttle_recovery: float = Field(0.05, gt=0, le=1, description="the share of the full rate that comes back each minute")
    status_overrides: Annotated[dict[str, Action], BeforeValidator(_status_keys)] = Field(
        default_factory=dict,
        description='what a command_status means here: {"0x0412": "PERM"}; TEMP(2) for two attempts',
    )
    failing_share: float = Field(0.5, gt=0, le=1, description="share of the gateway's own errors within failing_window that makes it failing; 1: never")
    failing_window: Seconds = Field(60, description="seconds that are looked at")
    failing_least: int = Field(20, ge=1, le=100_000, description="answers within failing_window before anything is concluded")
    failing_return: Seconds = Field(300, description="time over which a failing gateway gets its messages back, little by little")

    # Message ids and receipts
    msgid_resp_base: MessageIdBase = Field("string", description="how submit_sm_resp writes a message id: string, dec or hex")
    msgid_rcpt_base: MessageIdBase = Field("string", description="how receipts write it: string, dec or hex")
    msgid_fold: list[Literal["case", "zeros", "hyphens"]] = Field(default_factory=list, description="what does not distinguish two ids: case, zeros, hyphens")
    receipt_detect: Literal["auto", "esm_class"] = Field(
        "auto", description="auto: also by TLV 0x001E or a text that starts with id:; esm_class: by esm_class alone"
    )
    receipt_source: Literal["tlv", "text"] = Field("tlv", description="which one wins where the TLVs and the text differ: tlv or text")
    receipt_group: str = Field("", max_length=64, description="gateways whose receipts may arrive on each other's binds share a name; empty: the gateway alone")
    receipts_per: Literal["part", "message"] = Field("part", description="message: one receipt, whichever part it names, speaks for the whole message")
    receipt_address: Literal["prefer", "require", "ignore"] = Field(
        "prefer", description="where one id was given to several messages: prefer the one to the receipt's address, require it, or take the newest"
    )
    receipt_timeout: float = Field(
        86_400, ge=60, le=2_592_000, description="without a receipt for so long after its validity a message ends as accepted, no_receipt"
    )
    match_unknown: float = Field(
        0,
        ge=0,
        le=86_400,
        description="a receipt that matches nothing clears up an unanswered message to its address sent within so many seconds of it; 0: never",
    )
    accepted_is_final: StrictBool = Field(False, description="whether ACCEPTD is the last word, and counts as delivered")
    stat_map: dict[Word, ReportedState] = Field(default_factory=dict, max_length=100, description='what a stat word means here: {"DLVRD": "delivered"}')
    error_reasons: dict[Word, Reason] = Field(
        default_factory=dict, max_length=1000, description='reason for an err or network_error_code of a failed message: {"027": "absent_subscriber"}'
    )
    receipt_nack_status: Status = Field("0x00000064", description="answer to a receipt that could not be stored: the SMSC sends it again")

    # Inbound messages
    stop_words: list[Word] = Field(
        default_factory=lambda: ["STOP", "СТОП", "UNSUBSCRIBE", "ОТПИСАТЬСЯ", "ОТПИСКА"],
        max_length=50,
        description="an SMS of this word alone stops messages to its sender",
    )
    start_words: list[Word] = Field(
        default_factory=lambda: ["START", "СТАРТ", "ПОДПИСАТЬСЯ", "ПОДПИСКА"], max_length=50, description="an SMS of this word alone allows them again"
    )

    @property
    def expects_receipts(self) -> bool:
        """Whether a receipt is asked for whatever comes of a message (registered_delivery: SMPP 3.4, 5.2.17), and can come in."""
        return self.registered_delivery & 0x03 == 0x01 and self.bind_mode != "tx"

    @model_validator(mode="before")
    @classmethod
    def _known_keys_and_no_secrets(cls, value: Any) -> Any:
        fit.refuse_private_keys(value)
        return fit.refuse_unknown(value, cls.model_fields)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        fit.least_before_most(
            self, ("reconnect_min", "reconnect_max"), ("retry_backoff_min", "retry_backoff_max"), ("throttle_pause_min", "throttle_pause_max")
        )
        if (self.source_ton is None) != (self.source_npi is None):
            raise ValueError("source_ton and source_npi go together: give both, or neither")
        fit.tls_fits(self)
        fit.receiver_fits(self)
        fit.day_has_room(self.blackout)
        fit.alphabets_fit(self)
        fit.tlvs_fit(self)
        fit.words_differ(self.stop_words, self.start_words)
        return self
