"""The SMSC's half of SMPP 3.4, written from the standard and not from app/sending: a shared mistake would hide itself."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from struct import Struct

from app.sms import gsm

HEADER = Struct(">IIII")
BINDS = {0x00000001: "receiver", 0x00000002: "transmitter", 0x00000009: "transceiver"}
UNBIND, ENQUIRE_LINK, SUBMIT_SM, DELIVER_SM, DATA_SM = 0x06, 0x15, 0x04, 0x05, 0x103
RESPONSE = 0x80000000
GENERIC_NACK = 0x80000000

# The fields of submit_sm, 4.4.1, up to and with sm_length.
_SUBMIT = re.compile(
    rb"(?P<service>[^\0]*)\0(?s:(?P<source_type>..))(?P<source>[^\0]*)\0(?s:(?P<dest_type>..))(?P<dest>[^\0]*)\0"
    rb"(?s:(?P<modes>...))(?P<schedule>[^\0]*)\0(?P<validity>[^\0]*)\0(?s:(?P<delivery>....)(?P<length>.))"
)


@dataclass(slots=True)
class Submit:
    """One submit_sm as it came. `user_data` is without its header, `joint` says (reference, parts, part) where there are several."""

    sequence: int
    source: str
    source_type: tuple[int, int]
    destination: str
    destination_type: tuple[int, int]
    esm_class: int
    priority: int
    validity: str
    registered_delivery: int
    data_coding: int
    short_message: bytes
    user_data: bytes
    joint: tuple[int, int, int] | None
    tlvs: dict[int, bytes]
    body: bytes
    at: float = 0.0  # monotonic
    bind: int = 0  # the n-th bind that was accepted
    status: int | None = None  # that it was answered with; None: not answered (yet)
    identity: str | None = None  # that it got; None: not accepted

    @property
    def encoding(self) -> str:
        """By data_coding, 5.2.19: 8 is UCS-2 (0x18 in a flash message), 3 is Latin-1, everything else here is the default alphabet."""
        return "UCS2" if self.data_coding & 0x0C == 0x08 else "LATIN1" if self.data_coding == 0x03 else "GSM7"

    @property
    def text(self) -> str:
        if self.encoding == "GSM7":
            return gsm.decode(self.user_data)
        return self.user_data.decode("utf-16-be" if self.encoding == "UCS2" else "latin-1", "replace")


def frame(command: int, status: int, sequence: int, body: bytes = b"") -> bytes:
    return HEADER.pack(16 + len(body), command, status, sequence) + body


def tlv(tag: int, value: bytes) -> bytes:
    return tag.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value


def frames(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """command_id, status, sequence number, and where the body begins and ends, of every whole PDU; ValueError for a wrong length."""
    start, size = 0, len(data)
    while size - start >= 16:
        length, command, status, sequence = HEADER.unpack_from(data, start)
        if not 16 <= length <= 70_000:
            raise ValueError(f"command_length {length}")
        if start + length > size:
            return
        yield command, status, sequence, start + 16, start + length
        start += length


def read_tlvs(body: bytes, start: int) -> dict[int, bytes]:
    tlvs: dict[int, bytes] = {}
    while start + 4 <= len(body):
        tag, length = int.from_bytes(body[start : start + 2], "big"), int.from_bytes(body[start + 2 : start + 4], "big")
        tlvs[tag] = body[start + 4 : start + 4 + length]
        start += 4 + length
    return tlvs


def read_submit(sequence: int, body: bytes) -> Submit | None:
    """The submit_sm of a body, or None when it is none."""
    found = _SUBMIT.match(body)
    if found is None:
        return None
    length = found["length"][0]
    short_message = body[found.end() : found.end() + length]
    tlvs = read_tlvs(body, found.end() + length)
    modes, delivery = found["modes"], found["delivery"]
    user_data, joint = short_message, None
    if modes[0] & 0x40 and short_message:
        header = short_message[1 : 1 + short_message[0]]
        user_data = short_message[1 + short_message[0] :]
        joint = _joint(header)
    elif 0x020C in tlvs and 0x020E in tlvs and 0x020F in tlvs:
        joint = (int.from_bytes(tlvs[0x020C], "big"), tlvs[0x020E][0], tlvs[0x020F][0])
    elif 0x0424 in tlvs and not short_message:
        user_data = tlvs[0x0424]
    return Submit(
        sequence=sequence,
        source=found["source"].decode("latin-1"),
        source_type=(found["source_type"][0], found["source_type"][1]),
        destination=found["dest"].decode("latin-1"),
        destination_type=(found["dest_type"][0], found["dest_type"][1]),
        esm_class=modes[0],
        priority=modes[2],
        validity=found["validity"].decode("latin-1"),
        registered_delivery=delivery[0],
        data_coding=delivery[2],
        short_message=short_message,
        user_data=user_data,
        joint=joint,
        tlvs=tlvs,
        body=body,
    )


def _joint(header: bytes) -> tuple[int, int, int] | None:
    """The concatenation element of a user data header: 0x00 with an 8-bit reference, 0x08 with a 16-bit one (TS 23.040, 9.2.3.24)."""
    start = 0
    while start + 2 <= len(header):
        element, length = header[start], header[start + 1]
        value = header[start + 2 : start + 2 + length]
        if element == 0x00 and len(value) == 3:
            return value[0], value[1], value[2]
        if element == 0x08 and len(value) == 4:
            return value[0] << 8 | value[1], value[2], value[3]
        start += 2 + length
    return None


def destination_of(body: bytes, start: int) -> tuple[int, int]:
    """Where the destination address of a submit_sm begins and ends: all that a simulator in a hurry has to know."""
    service_end = body.index(b"\0", start)
    source_end = body.index(b"\0", service_end + 3)
    return source_end + 3, body.index(b"\0", source_end + 3)


def receipt_body(
    *, source: bytes, destination: bytes, identity: str, stat: str, err: str = "000", with_tlvs: bool = True, reference: bytes | None = None, text: str = ""
) -> bytes:
    """The body of a deliver_sm with a delivery receipt in the form of appendix B, and its TLVs 0x001E, 0x0427 and, where given, 0x0204."""
    now = datetime.now(UTC).strftime("%y%m%d%H%M")
    dlvrd = "001" if stat == "DELIVRD" else "000"
    octets = f"id:{identity} sub:001 dlvrd:{dlvrd} submit date:{now} done date:{now} stat:{stat} err:{err} text:{text}".encode("latin-1", "replace")[:254]
    tail = b""
    if with_tlvs:
        tail = tlv(0x001E, identity.encode() + b"\0") + tlv(0x0427, bytes((STATES.get(stat, 7),)))
    if reference is not None:
        tail += tlv(0x0204, reference)
    return deliver_body(source, destination, octets, esm_class=0x20 if stat == "ENROUTE" else 0x04, tail=tail)


def deliver_body(source: bytes, destination: bytes, octets: bytes, *, esm_class: int = 0, data_coding: int = 0, tail: bytes = b"") -> bytes:
    """The body of any deliver_sm, 4.6.1."""
    return b"".join(
        (
            b"\0\x01\x01",
            source,
            b"\0\x05\x00",
            destination,
            b"\0",
            bytes((esm_class, 0, 0, 0, 0, 0, 0, data_coding, 0, len(octets))),
            octets,
            tail,
        )
    )


STATES = {"ENROUTE": 1, "DELIVRD": 2, "EXPIRED": 3, "DELETED": 4, "UNDELIV": 5, "ACCEPTD": 6, "UNKNOWN": 7, "REJECTD": 8}
