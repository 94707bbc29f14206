"""One message into the bodies of its submit_sm PDUs (SMPP 3.4, 4.4.1), as the gateway's profile wants them."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from app.gateways.smpp import SmppSettings
from app.sending.outcome import Refused
from app.sending.smpp import pdu
from app.sms import gsm
from app.sms.segment import Encoding, Segments, segment

_CODECS = {"gsm0338": None, "latin1": "latin-1", "ascii": "ascii"}
_ALPHANUMERIC_MAX = 11  # 3GPP TS 23.040, 9.1.2.5: ten octets of packed septets
_NUMERIC_MAX = 20


@dataclass(frozen=True, slots=True)
class Shipment:
    """One message for the wire. `reference` ties its parts together and, where receipts echo it, the receipt to the message."""

    key: UUID
    address: str  # E.164 with "+"
    text: str
    sender: str | None
    validity: timedelta | None
    urgent: bool
    reference: int
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Composed:
    """The bodies, one a PDU, and what the message counts for: its billed parts (a message_payload has one PDU and several parts)."""

    bodies: tuple[bytes, ...]
    parts: int
    refused: Refused | None = None


class Composer:
    """Makes submit_sm bodies for one gateway. What does not depend on the message is prepared once."""

    def __init__(self, settings: SmppSettings) -> None:
        profile = settings.profile
        self._profile = profile
        self._default_sender = settings.sender or ""
        self._service_type = pdu.c_string(profile.service_type)
        self._destination_type = bytes((profile.dest_ton, profile.dest_npi))
        self._prefix = {"e164": b"", "e164_plus": b"+", "00": b"00"}[profile.dest_format]
        self._codec = _CODECS[profile.default_alphabet]
        self._with_reference = profile.user_message_reference and profile.interface_version >= 0x34
        self._sources: dict[str, bytes | Refused] = {}
        coding = profile.data_coding
        # registered_delivery, replace_if_present_flag, data_coding, sm_default_msg_id
        self._delivery: dict[Encoding, bytes] = {
            "GSM7": bytes((profile.registered_delivery, 0, coding.GSM7, 0)),
            "UCS2": bytes((profile.registered_delivery, 0, coding.UCS2, 0)),
        }

    def compose(self, shipment: Shipment) -> Composed:
        """The bodies of all parts, or the reason why this message can never go out here."""
        profile = self._profile
        segments = self._segment(shipment.text)
        count = segments.count
        name = shipment.sender or self._default_sender
        source = self._sources.get(name) or self._source(name)
        address = shipment.address
        if isinstance(source, Refused):
            return Composed((), count, source)
        if not (address[:1] == "+" and address[1:].isdecimal() and address.isascii() and 4 <= len(address) <= 19):
            return Composed((), count, Refused("bad_address", detail="the address is not E.164 with a plus sign"))
        if count > profile.max_parts:
            return Composed((), count, Refused("too_many_parts", detail=f"{count} parts, and the profile allows {profile.max_parts}"))

        head = self._service_type + source + self._destination_type + self._prefix + address[1:].encode() + b"\0"
        priority = profile.priority_urgent if shipment.urgent else profile.priority_normal
        validity = _validity(shipment.validity, profile.validity, profile.validity_max) if shipment.validity is not None else b""
        times = b"\0" + validity + b"\0" + self._delivery[segments.encoding]  # schedule_delivery_time is never used
        modes = bytes((profile.esm_class, profile.protocol_id, priority))
        reference = pdu.tlv(pdu.TLV_USER_MESSAGE_REFERENCE, (shipment.reference & 0xFFFF).to_bytes(2, "big")) if self._with_reference else b""
        if count == 1:
            octets = self._in_alphabet(segments, 0)
            return Composed((b"".join((head, modes, times, bytes((len(octets),)), octets, reference)),), 1)
        return Composed(self._joined(segments, head=head, modes=modes, times=times, tail=reference, number=shipment.reference), count)

    def _joined(self, segments: Segments, *, head: bytes, modes: bytes, times: bytes, tail: bytes, number: int) -> tuple[bytes, ...]:
        kind, count = self._profile.long_messages, segments.count
        texts = [self._in_alphabet(segments, index) for index in range(count)]
        if kind == "payload":
            return (head + modes + times + b"\0" + pdu.tlv(pdu.TLV_MESSAGE_PAYLOAD, b"".join(texts)) + tail,)
        if kind == "sar":
            known = pdu.tlv(pdu.TLV_SAR_MSG_REF_NUM, (number & 0xFFFF).to_bytes(2, "big")) + pdu.tlv(pdu.TLV_SAR_TOTAL_SEGMENTS, bytes((count,)))
            return tuple(
                head + modes + times + bytes((len(octets),)) + octets + known + pdu.tlv(pdu.TLV_SAR_SEGMENT_SEQNUM, bytes((index + 1,))) + tail
                for index, octets in enumerate(texts)
            )
        # 3GPP TS 23.040, 9.2.3.24.1 and 9.2.3.24.8: length of the header, element, its length, reference, parts, part.
        joint = bytes((5, 0, 3, number & 0xFF, count)) if kind == "udh8" else bytes((6, 8, 4, number >> 8 & 0xFF, number & 0xFF, count))
        modes = bytes((modes[0] | pdu.UDHI, modes[1], modes[2]))
        return tuple(
            head + modes + times + bytes((len(joint) + 1 + len(octets),)) + joint + bytes((index + 1,)) + octets + tail for index, octets in enumerate(texts)
        )

    def _segment(self, text: str) -> Segments:
        kind = self._profile.long_messages
        if self._codec is not None:
            try:
                text.encode(self._codec)
            except UnicodeEncodeError:
                return segment(text, long_messages=kind, encoding="UCS2")
        return segment(text, long_messages=kind)

    def _in_alphabet(self, segments: Segments, index: int) -> bytes:
        octets = segments.octets[index]
        if self._codec is None or segments.encoding == "UCS2":
            return octets
        return gsm.decode(octets).encode(self._codec)

    def _source(self, name: str) -> bytes | Refused:
        """Type, plan and octets of a sender; kept, for there are few of them."""
        source = _source_address(name, self._profile.addr_charset)
        if isinstance(source, bytes):
            ton, npi = _source_type(name, short=(self._profile.short_code_ton, self._profile.short_code_npi))
            if self._profile.source_ton is not None and self._profile.source_npi is not None:
                ton, npi = self._profile.source_ton, self._profile.source_npi
            source = bytes((ton, npi)) + source + b"\0"
        if len(self._sources) < 1000:
            self._sources[name] = source
        return source


def _source_type(name: str, *, short: tuple[int, int]) -> tuple[int, int]:
    """TON and NPI by the form of the sender (SMPP 3.4, 5.2.5 and 5.2.6)."""
    if not name:
        return 0, 0
    if name.startswith("+") or (name.isdecimal() and len(name) > 8):
        return 1, 1
    return short if name.isdecimal() and len(name) >= 3 else (5, 0)


def _source_address(name: str, charset: str) -> bytes | Refused:
    if re.fullmatch(r"\+?[0-9]{3,}", name):
        digits = name.removeprefix("+")
        return digits.encode() if len(digits) <= _NUMERIC_MAX else Refused("bad_sender", detail="a numeric sender has at most 20 digits")
    octets = _encoded(name, charset)
    if octets is None or b"\0" in octets:  # "@" is 0x00 in the GSM alphabet and would end the field
        return Refused("bad_sender", detail=f"the sender cannot be written in {charset}")
    return octets if len(octets) <= _ALPHANUMERIC_MAX else Refused("bad_sender", detail="an alphanumeric sender has at most 11 characters")


def _encoded(name: str, charset: str) -> bytes | None:
    # Whatever the octets of the field are, on the air a sender is in the GSM alphabet.
    septets = gsm.encode(name)
    if charset == "gsm0338" or septets is None:
        return septets
    try:
        return name.encode("latin-1" if charset == "latin1" else "ascii")
    except UnicodeEncodeError:
        return None


def _validity(left: timedelta, form: str, longest: int) -> bytes:
    """validity_period (SMPP 3.4, 7.1.1): relative "DDhhmmss" after zero years and months, or absolute UTC."""
    if form == "none":
        return b""
    seconds = max(1, min(int(left.total_seconds()), longest))
    if form == "absolute":
        return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%y%m%d%H%M%S000+").encode()
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return b"0000%02d%02d%02d%02d000R" % (days, hours, minutes, seconds)
