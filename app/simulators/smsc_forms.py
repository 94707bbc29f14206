"""Delivery receipts in all the forms that SMSCs write them: texts, carriers, and bodies that are no receipt at all."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime

from app.simulators import smsc_wire as wire

_GARBAGE = random.Random(29).randbytes(90)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a receipt says. `text_id` and `tlv_id` differ only where an SMSC writes two."""

    source: bytes
    destination: bytes
    text_id: str
    tlv_id: str
    stat: str
    err: str
    form: str = "standard"
    carrier: str = "both"
    esm_class: int | None = None
    reference: bytes | None = None
    network_error: bytes = b""


def text_of(told: Told) -> str:
    """The text, appendix B and what became of it."""
    now = datetime.now(UTC)
    form, stat, err, identity = told.form, told.stat, told.err, told.text_id
    minutes = now.strftime("%y%m%d%H%M")
    dlvrd = "001" if stat == "DELIVRD" else "000"
    usual = f"id:{identity} sub:001 dlvrd:{dlvrd} submit date:{{0}} done date:{{0}} stat:{stat} err:{err} text:"
    match form:
        case "err_hex":
            return usual.format(minutes).replace(f"err:{err}", "err:A1F")
        case "err_empty":
            return usual.format(minutes).replace(f"err:{err}", "err:")
        case "err_four":
            return usual.format(minutes).replace(f"err:{err}", "err:0000")
        case "seconds":
            return usual.format(now.strftime("%y%m%d%H%M%S"))
        case "fourteen":
            return usual.format(now.strftime("%Y%m%d%H%M%S"))
        case "zeros":
            return usual.format("000000000000")
        case "submitdate":
            return f"id:{identity} sub:001 dlvrd:{dlvrd} submitdate:{minutes} donedate:{minutes} stat:{stat} err:{err} Text:"
        case "short":
            return f"id:{identity} submit date:{minutes} done date:{minutes} stat:{stat} err:{err}"
        case "lower":
            return usual.format(minutes).replace(f"stat:{stat}", f"stat:{stat.lower()}")
        case "upper":
            return f"ID:{identity} SUB:001 DLVRD:{dlvrd} SUBMIT DATE:{minutes} DONE DATE:{minutes} STAT:{stat} ERR:{err} TEXT:"
        case "full_word":
            return usual.format(minutes).replace(f"stat:{stat}", f"stat:{WORDS.get(stat, stat)}")
        case "labels_in_text":
            return usual.format(minutes) + "id:1 stat:UNDELIV err:1"
        case "free":
            return f"Your message was handled at {now:%H:%M}; thank you"
    return usual.format(minutes)


def body_of(told: Told) -> tuple[int, bytes]:
    """command_id and body."""
    carrier = told.carrier
    if carrier == "empty":
        return wire.DELIVER_SM, b""
    if carrier == "garbage":
        return wire.DELIVER_SM, _GARBAGE
    octets = text_of(told).encode("utf-16-be" if carrier == "ucs2" else "latin-1", "replace")[:254]
    esm_class = told.esm_class if told.esm_class is not None else 0x20 if told.stat == "ENROUTE" else 0x04
    tail = b"" if carrier in ("text", "ucs2") else wire.tlv(0x001E, told.tlv_id.encode() + b"\0") + wire.tlv(0x0427, bytes((wire.STATES.get(told.stat, 7),)))
    if told.network_error:
        tail += wire.tlv(0x0423, told.network_error)
    if told.reference is not None:
        tail += wire.tlv(0x0204, told.reference)
    if carrier == "data_sm":
        head = b"\0\x01\x01" + told.source + b"\0\x05\x00" + told.destination + b"\0" + bytes((esm_class, 0, 0))
        return wire.DATA_SM, head + tail + wire.tlv(0x0424, octets)
    if carrier == "payload":
        tail, octets = tail + wire.tlv(0x0424, octets), b""
    elif carrier == "tlv":
        octets = b""
    coding = 8 if carrier == "ucs2" else 0
    return wire.DELIVER_SM, wire.deliver_body(told.source, told.destination, octets, esm_class=esm_class, data_coding=coding, tail=tail)


WORDS = {"DELIVRD": "DELIVERED", "UNDELIV": "UNDELIVERABLE", "REJECTD": "REJECTED", "ACCEPTD": "ACCEPTED"}
