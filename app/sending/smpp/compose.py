"""One message into the bodies of its submit_sm PDUs (SMPP 3.4, 4.4.1), as the gateway's profile wants them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from app.gateways.cutting import cutting_of
from app.gateways.smpp import SmppSettings
from app.sending.outcome import Refused
from app.sending.smpp import pdu
from app.sending.smpp.addresses import Destinations, Senders
from app.sending.smpp.optional_parameters import OptionalParameters
from app.sms.segment import Encoding, Segments

_MS_DISPLAY = b"\x01"  # dest_addr_subunit (SMPP 3.4, 5.3.2.1): to be shown at once


@dataclass(frozen=True, slots=True)
class Shipment:
    """One message for the wire.

    `reference` ties the parts of a long message together: no other long message to this address may have the same one as long as
    parts of both may be on their way. Its low 16 bits are used, with udh8 the low 8. `key` is the message; its low 16 bits go
    along as user_message_reference, which some SMSCs echo in receipts. `type` is the code of the notification type.
    """

    key: UUID
    address: str  # E.164 with "+"
    text: str
    sender: str | None
    validity: timedelta | None
    urgent: bool
    reference: int
    attempt: int = 1
    type: str = ""
    flash: bool = False


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
        self._cutting = cutting_of(profile)
        self._senders = Senders(settings)
        self._destinations = Destinations(profile)
        self._parameters = OptionalParameters(profile) if profile.tlvs else None
        self._service_type = pdu.c_string(profile.service_type)
        self._most_parts = 1 if profile.long_messages == "refuse" else profile.max_parts
        # Below 3.4 nothing optional goes unless a key asks for it by name.
        self._with_reference = profile.user_message_reference and profile.interface_version >= 0x34
        self._modes = bytes((profile.esm_class, profile.protocol_id, profile.priority_normal))
        self._urgent_modes = bytes((profile.esm_class, profile.protocol_id, profile.priority_urgent))
        self._end = b"\0" if profile.null_terminate_sm else b""
        self._changes_octets = not self._cutting.default.is_gsm or self._cutting.default.is_packed or profile.null_terminate_sm
        self._delivery, self._flash_delivery = _delivery_octets(settings)
        self._flash_parameter = pdu.tlv(pdu.TLV_DEST_ADDR_SUBUNIT, _MS_DISPLAY)

    def compose(self, shipment: Shipment) -> Composed:
        """The bodies of all parts, or the reason why this message can never go out here."""
        profile = self._profile
        segments = self._cutting.cut(shipment.text)
        if segments is None:
            count = self._cutting.count(shipment.text)[1]
            return Composed((), count, Refused("bad_text", detail=f"the text has characters that {' and '.join(profile.alphabets)} cannot write"))
        count = len(segments.octets)
        source = self._senders.source(shipment.sender)
        if isinstance(source, Refused):
            return Composed((), count, source)
        destination = self._destinations.destination(shipment.address)
        if destination is None:
            return Composed((), count, Refused("bad_address", detail="the address is not E.164 with a plus sign"))
        if count > self._most_parts:
            return Composed((), count, Refused("too_many_parts", detail=f"{count} parts, and the profile allows {self._most_parts}"))
        tail = pdu.tlv(pdu.TLV_USER_MESSAGE_REFERENCE, (shipment.key.int & 0xFFFF).to_bytes(2, "big")) if self._with_reference else b""
        delivery = self._delivery
        if shipment.flash:
            delivery = self._flash_delivery
            if profile.flash_by == "tlv" or segments.encoding == "LATIN1":  # data_coding has no flash for Latin-1
                tail += self._flash_parameter
        if self._parameters is not None:
            parameters = self._parameters.octets(shipment.key, shipment.type)
            if isinstance(parameters, Refused):
                return Composed((), count, parameters)
            tail += parameters

        head = self._service_type + source + destination
        validity = _validity(shipment.validity, profile.validity, profile.validity_max) if shipment.validity is not None else b""
        times = b"\0" + validity + b"\0" + delivery[segments.encoding]  # schedule_delivery_time is never used
        modes = self._urgent_modes if shipment.urgent else self._modes
        if count == 1:
            octets = self._written(segments, 0) + self._end if self._changes_octets else segments.octets[0]
            return Composed((b"".join((head, modes, times, bytes((len(octets),)), octets, tail)),), 1)
        return Composed(self._joined(segments, head=head, modes=modes, times=times, tail=tail, number=shipment.reference), count)

    def _joined(self, segments: Segments, *, head: bytes, modes: bytes, times: bytes, tail: bytes, number: int) -> tuple[bytes, ...]:
        kind, count = self._profile.long_messages, segments.count
        if kind == "payload":
            octets = self._whole(segments)
            return (head + modes + times + b"\0" + pdu.tlv(pdu.TLV_MESSAGE_PAYLOAD, octets) + tail,)
        if kind == "sar":
            joint, known = b"", pdu.tlv(pdu.TLV_SAR_MSG_REF_NUM, (number & 0xFFFF).to_bytes(2, "big"))
            known += pdu.tlv(pdu.TLV_SAR_TOTAL_SEGMENTS, bytes((count,)))
        else:
            # 3GPP TS 23.040, 9.2.3.24.1 and 9.2.3.24.8: length of the header, element, its length, reference, parts; the part follows.
            joint = bytes((5, 0, 3, number & 0xFF, count)) if kind == "udh8" else bytes((6, 8, 4, number >> 8 & 0xFF, number & 0xFF, count))
            known, modes = b"", bytes((modes[0] | pdu.UDHI, modes[1], modes[2]))
        more = pdu.tlv(pdu.TLV_MORE_MESSAGES_TO_SEND, b"\x01") if self._profile.more_messages_to_send else b""
        bodies: list[bytes] = []
        for number_of_part in range(1, count + 1):
            header = joint + bytes((number_of_part,)) if joint else b""
            octets = header + self._written(segments, number_of_part - 1, len(header)) + self._end
            position = known + pdu.tlv(pdu.TLV_SAR_SEGMENT_SEQNUM, bytes((number_of_part,))) if known else b""
            bodies.append(b"".join((head, modes, times, bytes((len(octets),)), octets, position, more if number_of_part < count else b"", tail)))
        return tuple(bodies)

    def _written(self, segments: Segments, index: int, header: int = 0) -> bytes:
        """The octets of one part behind a header of so many; packed septets begin at a septet's border (TS 23.040, 9.2.3.24)."""
        octets = segments.octets[index]
        return self._cutting.default.write(octets, -8 * header % 7) if segments.encoding == "GSM7" else octets

    def _whole(self, segments: Segments) -> bytes:
        octets = b"".join(segments.octets)
        return self._cutting.default.write(octets) if segments.encoding == "GSM7" else octets


def _delivery_octets(settings: SmppSettings) -> tuple[dict[Encoding, bytes], dict[Encoding, bytes]]:
    """registered_delivery, replace_if_present_flag, data_coding and sm_default_msg_id by alphabet, of ordinary and of flash messages."""
    profile = settings.profile
    coding = profile.data_coding
    ordinary: dict[Encoding, int] = {"GSM7": coding.GSM7, "LATIN1": coding.LATIN1, "UCS2": coding.UCS2}
    flash = ordinary if profile.flash_by == "tlv" else ordinary | {"GSM7": coding.FLASH_GSM7, "UCS2": coding.FLASH_UCS2}

    def octets(codings: dict[Encoding, int]) -> dict[Encoding, bytes]:
        return {
            encoding: bytes((profile.registered_delivery, profile.replace_if_present, octet, profile.sm_default_msg_id)) for encoding, octet in codings.items()
        }

    return octets(ordinary), octets(flash)


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
