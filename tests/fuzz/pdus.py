"""PDUs that an SMSC may send, and what becomes of them on a bad day. Seeded: the same number makes the same octets."""

import itertools
import random
from typing import get_args

from app.simulators import smsc_wire as wire
from app.simulators.smsc_forms import Told, body_of
from app.simulators.smsc_mobile import bodies_of
from app.simulators.smsc_scenario import Carrier, Form, Mobile

NASTY = (
    b"\0",
    b"\xff",
    b"\x80",
    b"\x7f",
    b"\xff\xff",
    b"\0\0\0\0",
    b"id:",
    b"stat:",
    b"text:",
    b" ",
    b"\x1b",
    b"\xd8\x00",
    b"\x04\x24\xff\xff",
    b"\x06\x08\x04",
)


def receipts() -> list[tuple[int, bytes]]:
    """command_id and body, in every form and by every carrier."""
    made = []
    for form, carrier, stat in itertools.product(get_args(Form), get_args(Carrier), ("DELIVRD", "ENROUTE", "UNDELIV", "NONSENSE")):
        told = Told(
            source=b"79161234567", destination=b"MyISP", text_id="4711", tlv_id="4711", stat=stat, err="001", form=form, carrier=carrier,
            reference=b"\x12\x34", network_error=b"\x03\x00\xa5",
        )  # fmt: skip
        made.append(body_of(told))
    return made


def mobiles() -> list[tuple[int, bytes]]:
    made = []
    for joining, text in itertools.product(("udh8", "udh16", "sar", "payload"), ("STOP", "Да " * 60, "hello [€] " * 30, "😀" * 80)):
        made += [(wire.DELIVER_SM, body) for body in bodies_of(Mobile(source="+79161234567", text=text, joining=joining), 0x1234)]
    return made


def answers() -> list[tuple[int, bytes]]:
    return [
        (wire.SUBMIT_SM | wire.RESPONSE, b"4711\0"),
        (wire.SUBMIT_SM | wire.RESPONSE, b""),
        (wire.SUBMIT_SM | wire.RESPONSE, b"\0" + wire.tlv(0x001D, b"why\0")),
        (0x80000009, b"smsc\0" + wire.tlv(0x0210, b"\x34")),
        (0x80000001, b"smsc\0"),
        (wire.ENQUIRE_LINK, b""),
        (wire.ENQUIRE_LINK | wire.RESPONSE, b""),
        (wire.GENERIC_NACK, b""),
        (0x00000102, b"\x01\x01" + b"79161234567\0" + b"\x01\x01" + b"MyISP\0"),
        (0x0000000B, b"smsc\0secret\0"),
        (0x00000111, b"anything"),
    ]


def mutated(chance: random.Random, octets: bytes, other: bytes) -> bytes:
    """One to four accidents."""
    made = bytearray(octets)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(made))
        match chance.randint(0, 7):
            case 0:
                made[at : at + 1] = bytes((chance.randrange(256),))
            case 1:
                made[at : at + len(nasty)] = (nasty := chance.choice(NASTY))
            case 2:
                del made[at : at + chance.randint(1, 12)]
            case 3:
                made[at:at] = chance.choice(NASTY)
            case 4:
                made[at:at] = chance.randbytes(chance.randint(1, 40))
            case 5:
                del made[at:]
            case 6:
                made[at:at] = made[max(0, at - chance.randint(1, 30)) : at]
            case 7:
                start = chance.randint(0, len(other))
                made[at:at] = other[start : start + chance.randint(1, 40)]
    return bytes(made)


def bodies(seed: int, count: int, *, of: list[tuple[int, bytes]] | None = None) -> list[tuple[int, bytes]]:
    """So many mutated bodies with their command_id."""
    chance, valid = random.Random(seed), of or receipts() + mobiles() + answers()
    return [(command, mutated(chance, body, chance.choice(valid)[1])) for command, body in chance.choices(valid, k=count)]


def pdus(seed: int, count: int, *, whole: float = 0.97) -> list[bytes]:
    """Framed ones; but for the share `whole`, the header is mutated, too: a wrong length, an unknown command, any status."""
    chance, made = random.Random(seed), []
    for command, body in bodies(seed, count):
        status = chance.choice((0, 0, 0, 0x0B, 0x58, 0x0412, 0xFFFFFFFF))
        framed = wire.frame(command, status if command & wire.RESPONSE else 0, chance.randint(0, 500), body)
        if chance.random() > whole:
            framed = mutated(chance, framed[:16], b"") + framed[16:]
        made.append(framed)
    return made
