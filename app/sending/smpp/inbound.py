"""An SMS from a subscriber, read: whose it is, which part of what, in which alphabet; and the words that mean something.

Joining headers: 3GPP TS 23.040, 9.2.3.24; SAR parameters: SMPP 3.4, 5.3.2.22-24; data_coding: SMPP 3.4, 5.2.19 and TS 23.038, 4.
Nothing here raises: what cannot be read is kept as it came.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from app.accounts.contacts import AddressError, normalise_phone
from app.gateways.profile import Profile
from app.sending.smpp import pdu
from app.sending.smpp.receipts import Receipt
from app.sms import gsm

Action = Literal["stop", "start"]

ADDRESS_LENGTH = 32
BINARY, UNKNOWN = "BINARY", "unknown"
_CODECS = {"GSM7": "", "UCS2": "utf-16-be", "LATIN1": "latin-1", "ASCII": "latin-1"}  # a superset: what is beyond ASCII was meant somehow
_CODINGS = {
    1: "ASCII",
    2: BINARY,
    3: "LATIN1",
    4: BINARY,
    5: "iso2022_jp",
    6: "iso8859-5",
    7: "iso8859-8",
    8: "UCS2",
    10: "iso2022_jp",
    13: "iso2022_jp_1",
    14: "euc_kr",
}
_DEFAULTS = {"gsm0338": "GSM7", "gsm_packed": "GSM7", "latin1": "LATIN1", "ascii": "ASCII"}
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")
_LONGEST_WORD = 100
_NO_TEXT = re.compile("[\0\ud800-\udfff]")

# References of 8 bits, of 16 bits and of SAR parameters are three worlds: the same number in two of them ties nothing together.
_WIDE, _SAR = 1 << 16, 2 << 16


@dataclass(frozen=True, slots=True)
class Joint:
    """Part `number` of `total`; the parts of one message have its reference."""

    reference: int
    total: int
    number: int


@dataclass(frozen=True, slots=True)
class Inbound:
    """One SMS, or one part of it. `payload` has its octets without any header, one septet an octet where it is GSM 7-bit.

    `source` is E.164 with + where it is a subscriber's number, else as it was written."""

    source: str
    destination: str
    encoding: str
    payload: bytes
    joint: Joint | None


class InboundReader:
    """Reads inbound SMS as one gateway writes them."""

    def __init__(self, profile: Profile) -> None:
        self._default = _DEFAULTS.get(profile.default_alphabet, profile.default_alphabet)
        self._is_packed = profile.default_alphabet == "gsm_packed"
        self._words: dict[str, Action] = {_plain(word): "start" for word in profile.start_words}
        self._words |= {_plain(word): "stop" for word in profile.stop_words}  # the same word in both lists: rather too silent than too loud
        self._words.pop("", None)

    def read(self, receipt: Receipt) -> Inbound:
        """What a receipt of kind "message" says."""
        encoding = self._encoding(receipt.data_coding)
        header, payload = _header(receipt.payload) if receipt.esm_class & pdu.UDHI else (b"", receipt.payload)
        if self._is_packed and encoding == "GSM7":
            payload = gsm.unpack(payload, -8 * len(header) % 7)
        joint = _joint(header[1:]) or _sar(receipt.tlvs)
        return Inbound(_source(receipt), _clean(receipt.destination), encoding, payload, joint)

    def action_of(self, text: str) -> Action | None:
        """What the whole text asks for: the word alone, whatever its case and the signs round it."""
        return self._words.get(_plain(text)) if len(text) <= _LONGEST_WORD else None

    def _encoding(self, coding: int) -> str:
        if coding == 0:
            return self._default
        if coding in _CODINGS:
            return _CODINGS[coding]
        group = coding >> 4
        if 0x1 <= group <= 0x7 and not coding & 0x20:  # general groups, uncompressed: bits 3 and 2 are the alphabet
            return (self._default, BINARY, "UCS2", UNKNOWN)[coding >> 2 & 3]
        if group in (0xC, 0xD):  # message waiting
            return self._default
        if group == 0xE:
            return "UCS2"
        if group == 0xF:  # data coding with a message class
            return BINARY if coding & 0x04 else self._default
        return UNKNOWN


def text_of(encoding: str, payload: bytes) -> str:
    """The characters of these octets, as good as can be; none of binary data. A NUL or half a character is no text."""
    return _NO_TEXT.sub("", _decoded(encoding, payload))


def _decoded(encoding: str, payload: bytes) -> str:
    if encoding == BINARY:
        return ""
    if encoding == "GSM7":
        return gsm.decode(payload)
    if encoding == UNKNOWN:
        try:
            return payload.decode("utf-8")
        except UnicodeDecodeError:
            return payload.decode("latin-1")
    if encoding == "UCS2" and payload[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return payload.decode("utf-16", "replace")
    try:
        return payload.decode(_CODECS.get(encoding, encoding), "replace")
    except (LookupError, ValueError):  # a codec that knows no "replace"
        return payload.decode("latin-1")


def _source(receipt: Receipt) -> str:
    if receipt.address is not None:
        try:
            return normalise_phone(f"+{receipt.address}", "ZZ")
        except AddressError:
            pass  # a short code
    return _clean(receipt.source.lstrip("+"))


def _clean(address: str) -> str:
    return address.strip()[:ADDRESS_LENGTH]


def _header(payload: bytes) -> tuple[bytes, bytes]:
    """The user data header with its length octet, and what follows. A header that would be longer than the whole is none."""
    length = payload[0] + 1 if payload else 0
    return (payload[:length], payload[length:]) if length <= len(payload) else (b"", payload)


def _joint(elements: bytes) -> Joint | None:
    start = 0
    while start + 2 <= len(elements):
        element, length = elements[start], elements[start + 1]
        value = elements[start + 2 : start + 2 + length]
        start += 2 + length
        if element == 0x00 and len(value) == length == 3:
            return _checked(value[0], value[1], value[2])
        if element == 0x08 and len(value) == length == 4:
            return _checked(_WIDE | value[0] << 8 | value[1], value[2], value[3])
    return None


def _sar(tlvs: dict[int, bytes]) -> Joint | None:
    found = [tlvs.get(tag, b"") for tag in (pdu.TLV_SAR_MSG_REF_NUM, pdu.TLV_SAR_TOTAL_SEGMENTS, pdu.TLV_SAR_SEGMENT_SEQNUM)]
    if not all(1 <= len(value) <= 2 for value in found):
        return None
    reference, total, number = (int.from_bytes(value, "big") for value in found)
    return _checked(_SAR | reference, total, number)


def _checked(reference: int, total: int, number: int) -> Joint | None:
    """None for what is whole by itself, and for what cannot be: part 5 of 3, or one of none."""
    return Joint(reference, total, number) if 1 < total <= 255 and 1 <= number <= total else None


def _plain(text: str) -> str:
    return " ".join(_EDGES.sub("", unicodedata.normalize("NFKC", text)).casefold().split())
