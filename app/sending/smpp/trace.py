"""PDUs in one readable line each, for support. Passwords never stand there, addresses are masked, and texts are only measured.

Pure but for `Tracer`, which takes chunks apart and stops by itself. Whatever the octets are, a line comes out and nothing is raised.
"""

import re
from collections.abc import Callable

from app.sending.smpp import pdu, statuses

_COMMANDS = {
    0x00: "generic_nack",
    0x01: "bind_receiver",
    0x02: "bind_transmitter",
    0x03: "query_sm",
    0x04: "submit_sm",
    0x05: "deliver_sm",
    0x06: "unbind",
    0x07: "replace_sm",
    0x08: "cancel_sm",
    0x09: "bind_transceiver",
    0x0B: "outbind",
    0x15: "enquire_link",
    0x21: "submit_multi",
    0x102: "alert_notification",
    0x103: "data_sm",
    0x111: "broadcast_sm",
}
_TLVS = {
    0x0005: "dest_addr_subunit",
    0x000D: "source_addr_subunit",
    0x0017: "qos_time_to_live",
    0x001D: "additional_status_info_text",
    0x001E: "receipted_message_id",
    0x0204: "user_message_reference",
    0x020A: "source_port",
    0x020B: "destination_port",
    0x020C: "sar_msg_ref_num",
    0x020E: "sar_total_segments",
    0x020F: "sar_segment_seqnum",
    0x0210: "sc_interface_version",
    0x0381: "callback_num",
    0x0420: "dpf_result",
    0x0423: "network_error_code",
    0x0424: "message_payload",
    0x0425: "delivery_failure_reason",
    0x0426: "more_messages_to_send",
    0x0427: "message_state",
    0x0501: "ussd_service_op",
    0x1383: "its_session_info",
}
# What may name a person, or carry a text of his: only its length is shown (callback_num and its tag, subaddresses).
_PRIVATE_TLVS = frozenset({0x0202, 0x0203, 0x0302, 0x0303, 0x0381})
_READABLE_TLVS = frozenset({0x001D, 0x001E})
_ALPHABETS = {0: "default", 1: "IA5", 2: "8-bit", 3: "Latin-1", 4: "8-bit", 6: "Cyrillic", 8: "UCS-2"}
_BINDS = (0x01, 0x02, 0x09)
_UDH_SHOWN = 12
_TEXT_SHOWN = 200
_TLV_SHOWN = 64
_TLVS_SHOWN = 40
_ID_SHOWN = 80
_ADDRESS_HEAD, _ADDRESS_TAIL = 4, 2
_LABEL = r"(?:id|sub|dlvrd|submit[ _]?date|done[ _]?date|stat|err)\s?:"
_RECEIPT = re.compile(rf"\s*+(?=.*?(?<!\w)stat\s?:){_LABEL}", re.IGNORECASE | re.DOTALL)
_FIELD = re.compile(rf"(?<!\w){_LABEL}\s?\S*", re.IGNORECASE)
_TEXT_LABEL = re.compile(r"(?<!\w)text\s?:", re.IGNORECASE)


class _Short(Exception):
    """The body ends before its mandatory part does."""


class Tracer:
    """Writes down the traffic of one connection until its hour is over. `name` begins each line where a bind has two connections."""

    def __init__(self, on_line: Callable[[str], None], until: float, clock: Callable[[], float], name: str = "") -> None:
        self._on_line = on_line
        self._until = until
        self._clock = clock
        self._name = f"{name} " if name else ""

    def saw(self, octets: bytes, *, ours: bool) -> None:
        """Every whole PDU of a chunk; what is left over comes again with the rest of it. Never raises."""
        if self._clock() >= self._until:
            return
        try:
            for line in lines(octets, ours=ours):
                self._on_line(self._name + line)
        except Exception as error:  # support is no reason to lose a session
            self._on_line(f"{self._name}the trace stumbled: {type(error).__name__}")


def lines(octets: bytes, *, ours: bool) -> list[str]:
    """A line for each whole PDU in a chunk, and one for a length that cannot be."""
    found, start = [], 0
    while len(octets) - start >= pdu.HEADER_LENGTH:
        length = int.from_bytes(octets[start : start + 4], "big")
        if length < pdu.HEADER_LENGTH:
            found.append(f"{_arrow(ours=ours)} garbage: command_length {length}, {octets[start + 4 : start + 16].hex()}")
            break
        if start + length > len(octets):
            break
        found.append(line(octets[start : start + length], ours=ours))
        start += length
    return found


def line(octets: bytes, *, ours: bool) -> str:
    """One PDU: direction, command, sequence number, status, and its fields by name."""
    if len(octets) < pdu.HEADER_LENGTH:
        return f"{_arrow(ours=ours)} {len(octets)} octets, less than a header"
    _, command, status, sequence = pdu.HEADER.unpack_from(octets)
    body = octets[pdu.HEADER_LENGTH :]
    is_answer = bool(command & pdu.RESPONSE)
    known = _COMMANDS.get(command & ~pdu.RESPONSE)
    name = f"command_0x{command:08x}" if known is None else f"{known}_resp" if is_answer and known != "generic_nack" else known
    words = [_arrow(ours=ours), name, f"#{sequence}"]
    if is_answer or status:
        words.append(f"{statuses.code_of(status)} {statuses.name_of(status)}")
    fields: list[str] = []
    try:
        _read(command, body, fields)
    except _Short:
        fields.append(f"(cut short: {len(body)} octets of body)")
    return " ".join(words + fields)


def masked(address: str) -> str:
    """A number without its middle: of seven digits and more only the first four and the last two are left."""
    digits = sum(sign.isdigit() for sign in address)
    if digits <= _ADDRESS_HEAD + _ADDRESS_TAIL:
        return address
    seen, shown = 0, []
    for sign in address:
        seen += sign.isdigit()
        hidden = sign.isdigit() and _ADDRESS_HEAD < seen <= digits - _ADDRESS_TAIL
        shown.append("*" if hidden else sign)
    return "".join(shown)


def _read(command: int, body: bytes, fields: list[str]) -> None:
    """Put the fields of a body down, as far as they go."""
    cursor = _Cursor(body)
    kind = command & ~pdu.RESPONSE
    if command & pdu.RESPONSE:
        if body and kind in _BINDS:
            fields.append(f"system_id={_plain(cursor.text())}")
        elif body and kind in (pdu.SUBMIT_SM, pdu.DATA_SM, pdu.DELIVER_SM) and (identity := cursor.text()):
            fields.append(f"message_id={_plain(identity)}")
    elif kind in _BINDS:
        _read_bind(cursor, fields)
    elif kind in (pdu.SUBMIT_SM, pdu.DELIVER_SM, pdu.DATA_SM):
        _read_message(kind, cursor, fields)
        return
    elif kind == pdu.OUTBIND:
        fields.append(f"system_id={_plain(cursor.text())} password=***")
        return
    elif kind == pdu.ALERT_NOTIFICATION:
        fields.extend((f"source={cursor.address()}", f"esme={cursor.address()}"))
    elif body:  # what it is, nobody here knows: it may name a subscriber
        fields.append(f"({len(body)} octets of body)")
        return
    fields.extend(_tlvs(cursor.rest()))


def _read_bind(cursor: "_Cursor", fields: list[str]) -> None:
    fields.append(f"system_id={_plain(cursor.text())}")
    cursor.text()
    fields.append("password=***")
    fields.append(f"system_type={_plain(cursor.text())}")
    fields.append(f"interface_version=0x{cursor.octet():02x}")
    fields.append(f"address_range={cursor.address()}")


def _read_message(kind: int, cursor: "_Cursor", fields: list[str]) -> None:
    fields.append(f"service_type={_plain(cursor.text())}")
    fields.append(f"source={cursor.address()}")
    fields.append(f"dest={cursor.address()}")
    esm_class = cursor.octet()
    fields.append(f"esm_class=0x{esm_class:02x}")
    text: bytes | None = None
    if kind == pdu.DATA_SM:
        fields.append(f"registered_delivery=0x{cursor.octet():02x}")
        coding = cursor.octet()
        fields.append(f"data_coding=0x{coding:02x}")
    else:
        fields.append(f"protocol_id={cursor.octet()}")
        fields.append(f"priority={cursor.octet()}")
        fields.append(f"schedule={_plain(cursor.text())}")
        fields.append(f"validity={_plain(cursor.text())}")
        fields.append(f"registered_delivery=0x{cursor.octet():02x}")
        fields.append(f"replace={cursor.octet()}")
        coding = cursor.octet()
        fields.append(f"data_coding=0x{coding:02x}")
        fields.append(f"default_msg={cursor.octet()}")
        length = cursor.octet()
        fields.append(f"sm_length={length}")
        text = cursor.take(length)
    is_ours = kind == pdu.SUBMIT_SM
    if text is not None:
        fields.append(f"text={_text(text, esm_class, coding, is_ours=is_ours)}")
    rest = cursor.rest()
    payload = pdu.read_tlvs(rest, 0).get(pdu.TLV_MESSAGE_PAYLOAD)
    fields.extend(_tlvs(rest, payload="" if payload is None else _text(payload, esm_class, coding, is_ours=is_ours)))


def _text(octets: bytes, esm_class: int, coding: int, *, is_ours: bool) -> str:
    """A receipt's known fields, up to its `text:`; of what somebody wrote only size, alphabet and user data header."""
    if not octets:
        return "none"
    if not is_ours and not esm_class & pdu.UDHI:
        said = octets.decode("utf-16-be" if coding == 8 else "latin-1", "replace")
        if _RECEIPT.match(said):
            said = _TEXT_LABEL.split(said, maxsplit=1)[0]
            end = max((field.end() for field in _FIELD.finditer(said)), default=0)
            return f'"{_plain(said[:end].strip(), _TEXT_SHOWN)}"'
    header = f" udh={octets[: min(octets[0] + 1, _UDH_SHOWN)].hex()}" if esm_class & pdu.UDHI else ""
    return f"({len(octets)} octets {_alphabet(coding)}{header})"


def _alphabet(coding: int) -> str:
    """SMPP 3.4, 5.2.19, and the message class groups of GSM 03.38."""
    if coding in _ALPHABETS:
        return _ALPHABETS[coding]
    if coding & 0xF0 == 0xF0:
        return "8-bit" if coding & 0x04 else "default"
    if coding & 0xC0 == 0 and coding & 0x10:
        return ("default", "8-bit", "UCS-2", "reserved")[coding >> 2 & 0x03]
    return f"coding_{coding:02x}"


def _tlvs(octets: bytes, *, payload: str = "") -> list[str]:
    """Optional parameters by name; `payload` says what to show of a message_payload."""
    shown: list[str] = []
    start, end = 0, len(octets)
    while start + 4 <= end:
        if len(shown) >= _TLVS_SHOWN:
            return [*shown, "(and more optional parameters)"]
        tag, length = int.from_bytes(octets[start : start + 2], "big"), int.from_bytes(octets[start + 2 : start + 4], "big")
        value = octets[start + 4 : start + 4 + length]
        if len(value) < length:
            return [*shown, f"(optional parameter 0x{tag:04x} cut short)"]
        name = _TLVS.get(tag, f"tlv_0x{tag:04x}")
        if tag == pdu.TLV_MESSAGE_PAYLOAD:
            shown.append(f"{name}={payload or f'({length} octets)'}")
        elif tag in _PRIVATE_TLVS:
            shown.append(f"{name}=({length} octets)")
        elif tag in _READABLE_TLVS:
            said = value.rstrip(b"\0").decode("latin-1")
            shown.append(f'{name}="{_plain(masked(said) if tag == 0x001D else said)}"')
        else:
            shown.append(f"{name}={value[:_TLV_SHOWN].hex()}{'...' if length > _TLV_SHOWN else ''}")
        start += 4 + length
    if start < end:
        shown.append(f"({end - start} stray octets)")
    return shown


def _plain(text: str, limit: int = _ID_SHOWN) -> str:
    """On one line, printable, and of bounded length."""
    return "".join(sign if sign.isprintable() else "." for sign in text[:limit]) + ("..." if len(text) > limit else "")


def _arrow(*, ours: bool) -> str:
    return "->" if ours else "<-"


class _Cursor:
    """Reads a body field by field; `_Short` where it ends too early."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    def octet(self) -> int:
        return self.take(1)[0]

    def take(self, length: int) -> bytes:
        if self._at + length > len(self._octets):
            raise _Short
        self._at += length
        return self._octets[self._at - length : self._at]

    def text(self) -> str:
        """A C-octet string. One without its NUL is all that is left."""
        end = self._octets.find(b"\0", self._at)
        found = self._octets[self._at : end if end >= 0 else len(self._octets)]
        self._at = end + 1 if end >= 0 else len(self._octets)
        return found.decode("latin-1")

    def address(self) -> str:
        """Type, plan and the masked number or name."""
        ton, npi = self.octet(), self.octet()
        return f"{ton}/{npi}:{_plain(masked(self.text()))}"

    def rest(self) -> bytes:
        return self._octets[self._at :]
