"""The optional parameters that a profile asks for with every message: fixed ones, one for each notification type, or something of the message."""

from uuid import UUID

from app.gateways.profile import Profile, Tlv
from app.sending.outcome import Refused
from app.sending.smpp import pdu

_REMEMBERED = 1000  # types whose parameters are kept: the catalogue has tens


class OptionalParameters:
    """The octets behind submit_sm that `tlvs` of the profile makes. What depends on the type alone is made once for each type."""

    def __init__(self, profile: Profile) -> None:
        self._tlvs = profile.tlvs
        self._is_per_message = any(tlv.source == "message_id" for tlv in profile.tlvs)
        self._known: dict[str, bytes | Refused] = {}

    def octets(self, key: UUID, kind: str) -> bytes | Refused:
        """For one message of one notification type; Refused when a required one has no value, or a value does not fit."""
        if not self._tlvs:
            return b""
        if self._is_per_message:
            return self._made(key, kind)
        made = self._known.get(kind)
        if made is None:
            made = self._made(key, kind)
            if len(self._known) < _REMEMBERED:
                self._known[kind] = made
        return made

    def _made(self, key: UUID, kind: str) -> bytes | Refused:
        pieces: list[bytes] = []
        for parameter in self._tlvs:
            value = _value(parameter, key, kind)
            if value is None or value == "":
                if parameter.required:
                    return Refused("missing_tlv", detail=f"no value of the optional parameter 0x{parameter.tag:04X} for the type {kind or 'of this message'}")
                continue
            octets = _octets(value, parameter.type, parameter.length)
            if octets is None:
                return Refused("bad_tlv", detail=f"the value of the optional parameter 0x{parameter.tag:04X} does not fit its type and length")
            pieces.append(pdu.tlv(parameter.tag, octets))
        return b"".join(pieces)


def _value(parameter: Tlv, key: UUID, kind: str) -> str | int | None:
    """The most exact one that is known: for this type, else of this message, else the fixed one."""
    if kind in parameter.by_type:
        return parameter.by_type[kind]
    if parameter.source == "message_id":
        return str(key) if parameter.type == "cstr" else key.hex
    return kind if parameter.source == "type" and kind else parameter.value


def _octets(value: str | int, kind: str, length: int) -> bytes | None:
    """The profile checks values of its own; those of a message may be too long, or of other letters."""
    try:
        if isinstance(value, int):
            return value.to_bytes(length, "big")
        octets = pdu.c_string(value) if kind == "cstr" else bytes.fromhex(value)
    except (ValueError, OverflowError):
        return None
    return octets if len(octets) <= (length or 0xFFFF) else None
