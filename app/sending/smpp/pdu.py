"""SMPP PDUs as octets: built and read by hand, with the numbers left as numbers, so that no vendor's value can be one too many.

SMPP 3.4: header 3.2, bind 4.1.5, submit_sm 4.4, deliver_sm 4.6, optional parameters 3.2.4.1 and 5.3.
"""

import re
from struct import Struct
from typing import NamedTuple

HEADER = Struct(">IIII")  # command_length, command_id, command_status, sequence_number
HEADER_LENGTH = 16

RESPONSE = 0x80000000
GENERIC_NACK = 0x80000000
BIND_RECEIVER = 0x00000001
BIND_TRANSMITTER = 0x00000002
BIND_TRANSCEIVER = 0x00000009
UNBIND = 0x00000006
UNBIND_RESP = 0x80000006
SUBMIT_SM = 0x00000004
SUBMIT_SM_RESP = 0x80000004
DELIVER_SM = 0x00000005
DELIVER_SM_RESP = 0x80000005
OUTBIND = 0x0000000B
ENQUIRE_LINK = 0x00000015
ENQUIRE_LINK_RESP = 0x80000015
ALERT_NOTIFICATION = 0x00000102
DATA_SM = 0x00000103
DATA_SM_RESP = 0x80000103

TLV_DEST_ADDR_SUBUNIT = 0x0005
TLV_RECEIPTED_MESSAGE_ID = 0x001E
TLV_USER_MESSAGE_REFERENCE = 0x0204
TLV_SAR_MSG_REF_NUM = 0x020C
TLV_SC_INTERFACE_VERSION = 0x0210
TLV_SAR_TOTAL_SEGMENTS = 0x020E
TLV_SAR_SEGMENT_SEQNUM = 0x020F
TLV_NETWORK_ERROR_CODE = 0x0423
TLV_MESSAGE_PAYLOAD = 0x0424
TLV_MORE_MESSAGES_TO_SEND = 0x0426
TLV_MESSAGE_STATE = 0x0427

UDHI = 0x40
_TLV = Struct(">HH")
_ANSWER = Struct(">IIIIB")
# service_type, source (ton, npi, addr), destination, esm_class with the two octets after it, two times, then registered_delivery,
# replace_if_present, data_coding, sm_default_msg_id and sm_length. One match is several times cheaper than twelve searches.
_DELIVER = re.compile(
    rb"([^\0]*)\0(?s:..)([^\0]*)\0(?s:..)([^\0]*)\0((?s:...))[^\0]*\0[^\0]*\0(?s:..)((?s:.))(?s:.)((?s:.))",
)
# data_sm 4.7.1: service_type, source, destination, esm_class, registered_delivery, data_coding; the text is a TLV.
_DATA = re.compile(rb"([^\0]*)\0(?s:..)([^\0]*)\0(?s:..)([^\0]*)\0((?s:.))(?s:.)((?s:.))")


def frame(command: int, sequence: int, body: bytes = b"", status: int = 0) -> bytes:
    return HEADER.pack(HEADER_LENGTH + len(body), command, status, sequence) + body


def c_string(text: str, encoding: str = "ascii") -> bytes:
    return text.encode(encoding) + b"\0"


def tlv(tag: int, value: bytes) -> bytes:
    return _TLV.pack(tag, len(value)) + value


def bind(command: int, sequence: int, *, system_id: str, password: str, system_type: str, version: int, ton: int, npi: int, address_range: str) -> bytes:
    """Whatever the lengths: the limits of 15 and 8 octets are often exceeded by real accounts."""
    body = c_string(system_id) + c_string(password) + c_string(system_type) + bytes((version, ton, npi)) + c_string(address_range)
    return frame(command, sequence, body)


def deliver_answer(command: int, sequence: int, status: int) -> bytes:
    """deliver_sm_resp or data_sm_resp; its message_id is unused and NUL (SMPP 3.4, 4.6.2)."""
    return _ANSWER.pack(17, command | RESPONSE, status, sequence, 0)


def message_id_of(data: bytes, start: int, end: int) -> bytes:
    """The message_id of a response body: up to its NUL, or all of it where the NUL is missing. TLVs after it do not belong to it."""
    stop = data.find(b"\0", start, end)
    return data[start : end if stop < 0 else stop]


class Delivered(NamedTuple):
    """A deliver_sm or data_sm taken apart. `payload` is the text in octets, wherever it stood."""

    source: bytes
    destination: bytes
    esm_class: int
    data_coding: int
    payload: bytes
    tlvs: dict[int, bytes]


def read_tlvs(body: bytes, start: int) -> dict[int, bytes]:
    """The optional parameters from `start` on; a truncated last one is left out, stray octets are ignored."""
    tlvs: dict[int, bytes] = {}
    end = len(body)
    while start + 4 <= end:
        tag, length = _TLV.unpack_from(body, start)
        start += 4
        if start + length > end:
            break
        tlvs[tag] = body[start : start + length]
        start += length
    return tlvs


def read_delivered(command: int, body: bytes) -> Delivered | None:
    """The parts of a deliver_sm or data_sm body, or None when even its mandatory part is not there."""
    if command == DELIVER_SM:
        found = _DELIVER.match(body)
        if found is None:
            return None
        _, source, destination, modes, coding, length = found.groups()
        start = found.end()
        text = body[start : start + length[0]]
        start += length[0]
        tlvs = read_tlvs(body, start) if start < len(body) else {}
        if not text and TLV_MESSAGE_PAYLOAD in tlvs:
            text = tlvs[TLV_MESSAGE_PAYLOAD]
        return Delivered(source, destination, modes[0], coding[0], text, tlvs)
    found = _DATA.match(body)
    if found is None:
        return None
    _, source, destination, modes, coding = found.groups()
    tlvs = read_tlvs(body, found.end())
    return Delivered(source, destination, modes[0], coding[0], tlvs.get(TLV_MESSAGE_PAYLOAD, b""), tlvs)
