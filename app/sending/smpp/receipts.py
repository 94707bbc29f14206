"""What the SMSC tells about messages: delivery receipts in all the forms they come in (SMPP 3.4, 5.2.12, 5.3.2, appendix B).

Nothing here raises: what cannot be read becomes a receipt of kind "unreadable", so that it can be kept and answered.
"""

import re
from collections.abc import Callable
from typing import Literal

from app.gateways.profile import MessageIdBase, Profile, status_number
from app.sending.smpp import pdu
from app.sending.smpp.addresses import digits_of
from app.sending.smpp.network_errors import is_error, reasons

ReceiptState = Literal["delivered", "undelivered", "expired"]
ReceiptKind = Literal["receipt", "message", "unreadable"]
Answer = Callable[[int, int, int], None]  # command_id, sequence_number, status
RX_T_APPN = 0x64

# Appendix B of SMPP 3.4 has seven letters; the full words and the misspellings are in daily use all the same.
STATES: dict[str, tuple[ReceiptState | None, str]] = {
    "DELIVRD": ("delivered", ""),
    "DELIVERED": ("delivered", ""),
    "EXPIRED": ("expired", "expired"),
    "DELETED": ("undelivered", "deleted"),
    "UNDELIV": ("undelivered", "undeliverable"),
    "UNDELIVERABLE": ("undelivered", "undeliverable"),
    "FAILED": ("undelivered", "undeliverable"),
    "REJECTD": ("undelivered", "rejected"),
    "REJECTED": ("undelivered", "rejected"),
    "SKIPPED": ("undelivered", "rejected"),
    "ACCEPTD": (None, "accepted_by_network"),
    "ACCEPTED": (None, "accepted_by_network"),
    "ENROUTE": (None, "in_transit"),
    "SCHEDULED": (None, "in_transit"),
    "BUFFRED": (None, "in_transit"),
    "BUFFERD": (None, "in_transit"),
    "BUFFERED": (None, "in_transit"),
    "ACKED": (None, "in_transit"),
    "UNKNOWN": (None, "unknown"),
}
# What an operator's own word may stand for (`stat_map`).
MEANINGS: dict[str, tuple[ReceiptState | None, str]] = {
    "delivered": STATES["DELIVRD"],
    "undelivered": STATES["UNDELIV"],
    "expired": STATES["EXPIRED"],
    "deleted": STATES["DELETED"],
    "rejected": STATES["REJECTD"],
    "accepted": STATES["ACCEPTD"],
    "in_transit": STATES["ENROUTE"],
    "unknown": STATES["UNKNOWN"],
}
# message_state (SMPP 3.4, 5.2.28; SMPP 5.0 adds 0 and 9)
WORDS = ("SCHEDULED", "ENROUTE", "DELIVRD", "EXPIRED", "DELETED", "UNDELIV", "ACCEPTD", "UNKNOWN", "REJECTD", "SKIPPED")

_NO_TLVS: dict[int, bytes] = {}
_LABELS = r"id|sub|dlvrd|submit[ _]?date|done[ _]?date|stat|err|text"
_USUAL = re.compile(r"id:(\S+) sub:\d* dlvrd:\d* submit date:(\d*) done date:(\d*) stat:(\w+) err:(\w*)(?: |$)")
# A value stops at a space, or where a comma or a semicolon begins the next field; an empty one must not swallow the next label; `text` ends the receipt.
_FIELD = re.compile(rf"(?<!\w)({_LABELS})\s?:[ ]?((?:(?!(?:{_LABELS})\s?:)(?:(?![,;|](?:{_LABELS})\s?:)\S)+)?)", re.IGNORECASE)
_LONGEST_TEXT = 2000  # characters that are looked at: a receipt has 254 at most, and what comes in a message_payload of 64 KiB is none
_BEGINS = re.compile(r"\s*id\s?:", re.IGNORECASE)
_NUMBER = {"dec": re.compile(r"[0-9]{1,20}"), "hex": re.compile(r"(?:0[xX])?[0-9a-fA-F]{1,16}")}
_NUMERIC = re.compile(r"[0-9a-fA-F]{1,20}")


def normaliser(profile: Profile, base: MessageIdBase) -> Callable[[str], str]:
    """Makes a message id comparable: a number in its base becomes decimal, and what the profile folds is folded.

    With both bases left at "string" a number stays as it was written. An id too long for a number (a UUID) is never read as
    one, and zeros are only stripped from numbers: two different UUIDs stay different.
    """
    numeric = profile.msgid_resp_base != "string" or profile.msgid_rcpt_base != "string"
    radix = 16 if base == "hex" else 10
    form = _NUMBER["hex" if base == "hex" else "dec"]
    case, zeros, hyphens = ("case" in profile.msgid_fold, "zeros" in profile.msgid_fold, "hyphens" in profile.msgid_fold)
    if not (numeric or case or zeros or hyphens):
        return str.strip

    def normalise(written: str) -> str:
        identity = written.strip()
        if numeric and base != "string" and form.fullmatch(identity):
            return str(int(identity, radix))
        if hyphens:
            identity = identity.replace("-", "")
        if case:
            identity = identity.casefold()
        if zeros and _NUMERIC.fullmatch(identity):
            identity = identity.lstrip("0") or "0"
        return identity

    return normalise


class Receipt:
    """One deliver_sm or data_sm. Commit what it says first, then `ack()`; `nack()` makes the SMSC send it again later.

    `state` is a final one, or None for an intermediate or unknown word, with `reason` saying which. A receipt of kind
    "message" is an SMS from a subscriber; "unreadable" has only `raw`. Answering twice, or after the link has died, does nothing.

    `error` is the raw code of what went wrong, `address` the subscriber's number as the digits of E.164. `is_poison`: it could not
    be stored as what it is, so nothing but its octets is to be kept.
    """

    __slots__ = (
        "_answer",
        "_command",
        "_nack_status",
        "_sequence",
        "address",
        "data_coding",
        "destination",
        "done_at",
        "err",
        "error",
        "esm_class",
        "gateway_message_id",
        "is_known_word",
        "is_poison",
        "kind",
        "network_error",
        "payload",
        "raw",
        "reason",
        "source",
        "stat",
        "state",
        "submitted_at",
        "tlvs",
        "user_message_reference",
    )

    def __init__(self, command: int, sequence: int, raw: bytes, answer: Answer, nack_status: int = RX_T_APPN) -> None:
        self._command = command
        self._sequence = sequence
        self._answer: Answer | None = answer
        self._nack_status = nack_status
        self.raw = raw
        self.is_poison = False
        self.kind: ReceiptKind = "unreadable"
        self.gateway_message_id = ""
        self.stat = ""
        self.is_known_word = True
        self.state: ReceiptState | None = None
        self.reason = ""
        self.err = ""
        self.error = ""
        self.address: int | None = None
        self.submitted_at = ""
        self.done_at = ""
        self.user_message_reference: int | None = None
        self.network_error = ""
        self.source = ""
        self.destination = ""
        self.esm_class = 0
        self.data_coding = 0
        self.payload = b""
        self.tlvs = _NO_TLVS

    def ack(self) -> None:
        """deliver_sm_resp ESME_ROK: the SMSC forgets it."""
        self._reply(0)

    def nack(self) -> None:
        """deliver_sm_resp with what this SMSC takes for a temporary fault of ours: it sends it again."""
        self._reply(self._nack_status)

    def _reply(self, status: int) -> None:
        if (answer := self._answer) is not None:
            self._answer = None
            answer(self._command, self._sequence, status)

    def __repr__(self) -> str:
        return f"Receipt(kind={self.kind!r}, id={self.gateway_message_id!r}, stat={self.stat!r}, state={self.state!r}, err={self.err!r})"


class ReceiptReader:
    """Reads receipts as one gateway writes them."""

    def __init__(self, profile: Profile) -> None:
        self._normalise = normaliser(profile, profile.msgid_rcpt_base)
        self._profile = profile
        self._detect_all = profile.receipt_detect == "auto"
        self._tlv_wins = profile.receipt_source == "tlv"
        self.nack_status = status_number(profile.receipt_nack_status)
        self._reason_of = reasons(profile.error_reasons)
        self._states = dict(STATES)
        self._final = {"DELIVRD", "DELIVERED"}  # the last word, even where it is called an intermediate notification
        if profile.accepted_is_final:
            self._states |= dict.fromkeys(("ACCEPTD", "ACCEPTED"), STATES["DELIVRD"])
        for word, meaning in profile.stat_map.items():
            self._states[word.strip().upper()] = MEANINGS[meaning]
            if meaning == "delivered":
                self._final.add(word.strip().upper())

    def read(self, command: int, sequence: int, body: bytes, answer: Answer) -> Receipt:
        """Never raises. The receipt is not answered: that is the reader's caller's to do once it is stored."""
        receipt = Receipt(command, sequence, body, answer, self.nack_status)
        delivered = pdu.read_delivered(command, body)
        if delivered is None:
            return receipt
        receipt.source = delivered.source.decode("latin-1")
        receipt.address = digits_of(receipt.source, self._profile)
        receipt.destination = delivered.destination.decode("latin-1")
        receipt.esm_class = esm_class = delivered.esm_class
        receipt.data_coding = delivered.data_coding
        receipt.payload = payload = delivered.payload
        tlvs = delivered.tlvs
        text = payload.decode("utf-16-be", "replace") if delivered.data_coding == 8 else payload.decode("latin-1")
        # SMPP 3.4, 5.2.12: bits 5 to 2 of esm_class say what it is; some SMSCs leave them zero.
        if not (esm_class & 0x3C or (self._detect_all and (pdu.TLV_RECEIPTED_MESSAGE_ID in tlvs or _BEGINS.match(text)))):
            if text or tlvs:
                receipt.kind, receipt.tlvs = "message", tlvs
            return receipt
        self._read_text(receipt, text[:_LONGEST_TEXT])
        if tlvs:
            self._read_tlvs(receipt, tlvs)
        receipt.gateway_message_id = self._normalise(receipt.gateway_message_id)
        if not (receipt.gateway_message_id or receipt.stat):
            return receipt
        receipt.kind = "receipt"
        receipt.stat = word = receipt.stat.upper()
        meaning = self._states.get(word)
        receipt.is_known_word = meaning is not None
        receipt.state, receipt.reason = meaning or (None, "unknown")
        if esm_class & 0x3C == 0x20 and receipt.state is not None and word not in self._final:
            receipt.state, receipt.reason = None, "in_transit"  # an intermediate notification is not the last word
        self._read_error(receipt)
        return receipt

    def _read_error(self, receipt: Receipt) -> None:
        if not receipt.network_error and not receipt.err.strip("0"):
            return  # nothing went wrong, as with nearly all
        told = (receipt.network_error, receipt.err) if self._tlv_wins else (receipt.err, receipt.network_error)
        receipt.error = next((code for code in told if code and is_error(code)), "")
        if receipt.error and receipt.state in ("undelivered", "expired") and receipt.reason != "deleted":
            receipt.reason = self._reason_of(receipt.err, receipt.network_error) or receipt.reason

    def _read_text(self, receipt: Receipt, text: str) -> None:
        if usual := _USUAL.match(text):
            receipt.gateway_message_id, receipt.submitted_at, receipt.done_at, receipt.stat, receipt.err = usual.groups()
            return
        for found in _FIELD.finditer(text):
            field, value = found[1].lower(), found[2].rstrip(",;")
            if field == "text":
                break
            if field == "id":
                receipt.gateway_message_id = receipt.gateway_message_id or value
            elif field == "stat":
                receipt.stat = receipt.stat or value
            elif field == "err":
                receipt.err = value
            elif field.startswith("submit"):
                receipt.submitted_at = value
            elif field.startswith("done"):
                receipt.done_at = value

    def _read_tlvs(self, receipt: Receipt, tlvs: dict[int, bytes]) -> None:
        identity = tlvs.get(pdu.TLV_RECEIPTED_MESSAGE_ID, b"").split(b"\0", 1)[0].decode("latin-1")
        if identity and (self._tlv_wins or not receipt.gateway_message_id):
            receipt.gateway_message_id = identity
        told = tlvs.get(pdu.TLV_MESSAGE_STATE)
        state = int.from_bytes(told, "big") if told and len(told) <= 4 else None
        if state is not None and (self._tlv_wins or not receipt.stat):
            receipt.stat = WORDS[state] if state < len(WORDS) else f"STATE{state}"
        if (reference := tlvs.get(pdu.TLV_USER_MESSAGE_REFERENCE)) and len(reference) <= 2:
            receipt.user_message_reference = int.from_bytes(reference, "big")
        if error := tlvs.get(pdu.TLV_NETWORK_ERROR_CODE):
            receipt.network_error = _network_error(error)


def _network_error(value: bytes) -> str:
    """network_error_code (SMPP 3.4, 5.3.2.31): a network type and a code, "3:165"; some SMSCs send three digits instead."""
    if len(value) == 3 and not value.isdigit():
        return f"{value[0]}:{int.from_bytes(value[1:], 'big')}"
    return value.decode("latin-1") if value.isalnum() else value.hex()
