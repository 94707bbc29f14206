"""Messages from subscribers, as an SMSC hands them on: cut into parts, in any alphabet, joined in any way."""

from app.simulators import smsc_wire as wire
from app.simulators.smsc_scenario import Mobile
from app.sms import gsm

OCTETS = {"gsm": 153, "latin1": 134, "ucs2": 134}  # of one part beside its header
ALONE = {"gsm": 160, "latin1": 140, "ucs2": 140}
CODING = {"gsm": 0, "latin1": 3, "ucs2": 8}


def bodies_of(mobile: Mobile, reference: int) -> list[bytes]:
    """The bodies of its deliver_sm, in the order in which they go."""
    alphabet, octets = _encoded(mobile)
    source, destination, coding = mobile.source.encode("latin-1"), mobile.destination.encode("latin-1"), CODING[alphabet]
    if mobile.joining == "payload":
        return [wire.deliver_body(source, destination, b"", data_coding=coding, tail=wire.tlv(0x0424, octets))]
    if len(octets) <= ALONE[alphabet]:
        return [wire.deliver_body(source, destination, octets, data_coding=coding)]
    size = OCTETS[alphabet] - (1 if mobile.joining == "udh16" and alphabet == "gsm" else 0) - (2 if mobile.joining == "udh16" and alphabet != "gsm" else 0)
    pieces = _cut(octets, size, alphabet)
    made = []
    for number, piece in enumerate(pieces, 1):
        place = bytes((len(pieces), number))
        if mobile.joining == "sar":
            tail = wire.tlv(0x020C, (reference & 0xFFFF).to_bytes(2, "big")) + wire.tlv(0x020E, place[:1]) + wire.tlv(0x020F, place[1:])
            made.append(wire.deliver_body(source, destination, piece, data_coding=coding, tail=tail))
            continue
        header = b"\x05\x00\x03" + bytes((reference & 0xFF,)) + place
        if mobile.joining == "udh16":
            header = b"\x06\x08\x04" + (reference & 0xFFFF).to_bytes(2, "big") + place
        made.append(wire.deliver_body(source, destination, header + piece, esm_class=0x40, data_coding=coding))
    return made[::-1] if mobile.reverse else made


def _encoded(mobile: Mobile) -> tuple[str, bytes]:
    if mobile.alphabet in ("auto", "gsm"):
        septets = gsm.encode(mobile.text)
        if septets is not None:
            return "gsm", septets
        if mobile.alphabet == "gsm":
            raise ValueError(f"{mobile.text!r} has characters that GSM 03.38 lacks")
    if mobile.alphabet == "latin1":
        return "latin1", mobile.text.encode("latin-1")
    return "ucs2", mobile.text.encode("utf-16-be")


def _cut(octets: bytes, size: int, alphabet: str) -> list[bytes]:
    """Never within an escape pair or a surrogate pair."""
    pieces, start = [], 0
    while start < len(octets):
        end = min(start + size, len(octets))
        last_is_escape = alphabet == "gsm" and octets[end - 1] == gsm.ESCAPE
        last_is_half = alphabet == "ucs2" and 0xD8 <= octets[end - 2] <= 0xDB
        if end < len(octets):
            end -= 1 if last_is_escape else 2 if last_is_half else 0
        pieces.append(octets[start:end])
        start = end
    return pieces
