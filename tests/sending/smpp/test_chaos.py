"""Thousands of messages through binds whose SMSC does everything that an SMSC must not do; seeded.

Whatever it does, a shipped message has exactly one outcome, its room comes back, what the outcome says is what the SMSC saw, and a message
goes again only when nothing of it can have been taken. When the SMSC comes to its senses, so does every bind.
"""

import asyncio
import itertools
import random
import re
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest

from app.gateways.smpp import SmppSettings
from app.sending.outcome import Accepted, Deferred, Outcome, Refused, Unknown
from app.sending.smpp import side
from app.sending.smpp.bind import Bind, Shipment
from app.simulators import smsc_wire as wire

SECONDS = 2.0  # of chaos for each kind of bind
MESSAGES = 4_000
CALM = 10.0  # seconds until everything has come to an end once the SMSC behaves
PUT_OFF = (0x58, 0x58, 0x14, 0x08, 0x64, 0x04, 0x0E, 0x0412)  # throttled, queue full, later, rebind, settings, a vendor's
REFUSED = (0x0B, 0x01, 0x66)
QUICK = {
    "response_timeout": 0.15, "reconnect_min": 0.005, "reconnect_max": 0.02, "stable_after": 0.05, "enquire_interval": 0.2, "enquire_timeout": 0.2,
    "pdu_read_timeout": 0.1, "bind_timeout": 0.1, "connect_timeout": 0.5, "throttle_pause_min": 0.01, "throttle_pause_max": 0.1,
    "queue_full_pause": 0.02, "throttle_slowdown": 0, "config_probe_interval": 0.02, "alybnd_wait": 0.02, "retry_backoff_min": 0.01,
    "retry_backoff_max": 0.05, "reconnect_after_timeouts": 6,
}  # fmt: skip
Part = tuple[str, str, int]  # destination, try, number of the part


class Madhouse:
    """An SMSC that answers each submit as a die says. `seen` is what it made of every part, in order; "?" for what it kept to itself."""

    def __init__(self, dice: random.Random) -> None:
        self.dice, self.is_mad = dice, True
        self.seen: dict[Part, list[int | str]] = {}
        self.given: dict[str, Part] = {}  # the ids
        self.events: Counter[str] = Counter()
        self.acknowledged = 0
        self.writers: set[asyncio.StreamWriter] = set()
        self.held: dict[asyncio.StreamWriter, bytes] = {}
        self.dumb: set[asyncio.StreamWriter] = set()
        self._numbers = itertools.count(1)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        try:
            while True:
                length, command, _, sequence = wire.HEADER.unpack(await reader.readexactly(16))
                body = await reader.readexactly(length - 16)
                if not self._take(command, sequence, body, writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self.writers.discard(writer)
            writer.transport.abort()

    def _take(self, command: int, sequence: int, body: bytes, writer: asyncio.StreamWriter) -> bool:
        if command in wire.BINDS:
            return self._bind(command, sequence, writer)
        if command == wire.SUBMIT_SM:
            return self._submit(sequence, body, writer)
        if command == wire.ENQUIRE_LINK and not (self.is_mad and self.dice.random() < 0.1):
            self.write(writer, wire.frame(command | wire.RESPONSE, 0, sequence))
        elif command == wire.UNBIND:
            self.write(writer, wire.frame(command | wire.RESPONSE, 0, sequence))
            return False
        elif command == wire.DELIVER_SM | wire.RESPONSE:
            self.acknowledged += 1
        return True

    def _bind(self, command: int, sequence: int, writer: asyncio.StreamWriter) -> bool:
        kind = self.dice.choices(("ok", "refused", "mute", "hasty"), (80, 10, 3, 7))[0] if self.is_mad else "ok"
        if kind == "mute":
            return True
        status = self.dice.choice((0x0D, 0x05, 0x08, 0x0E)) if kind == "refused" else 0
        self.write(writer, wire.frame(command | wire.RESPONSE, status, sequence, b"" if status else b"mad\0"))
        return kind == "ok"

    def _submit(self, sequence: int, body: bytes, writer: asyncio.StreamWriter) -> bool:
        submit = wire.read_submit(sequence, body)
        part = submit.destination, submit.source, submit.joint[2] if submit.joint else 1
        kind = "taken"
        if self.is_mad:
            kinds = {
                "taken": 3000, "put off": 150, "refused": 20, "silent": 20, "late": 20, "twice": 20, "stranger": 8, "nack": 6, "blind nack": 2, "bare": 6,
                "slow": 40, "receipt": 200, "pieces": 20, "unbind": 4, "unbind and shut": 2, "reset": 5, "garbage": 2, "half": 2, "enquire": 10,
            }  # fmt: skip
            (kind,) = self.dice.choices(list(kinds), list(kinds.values()))
        self.events[kind] += 1
        answer = self._answer_to(kind, part, sequence)
        later = {"late": self.dice.uniform(0.16, 0.3), "slow": self.dice.uniform(0, 0.1)}.get(kind)
        if later is not None:
            asyncio.get_running_loop().call_later(later, self.write, writer, answer)
            return True
        if kind == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if kind == "pieces":
            cut = self.dice.randrange(1, len(answer))
            if writer in self.held:
                cut = len(answer)
            self.write(writer, answer[:cut])
            self.held.setdefault(writer, answer[cut:])
            asyncio.get_running_loop().call_later(0.005, self.let_go, writer)
            return True
        if kind == "half":
            self.let_go(writer)
        self.write(writer, answer)
        if kind == "half":
            self.dumb.add(writer)  # and nothing more, ever
        return kind != "unbind and shut"

    def _answer_to(self, kind: str, part: Part, sequence: int) -> bytes:
        resp = wire.SUBMIT_SM | wire.RESPONSE
        if kind in ("put off", "refused", "nack"):
            status = 0x58 if kind == "nack" else self.dice.choice(PUT_OFF if kind == "put off" else REFUSED)
            self.seen.setdefault(part, []).append(status)
            return wire.frame(wire.GENERIC_NACK if kind == "nack" else resp, status, sequence)
        if kind in ("silent", "stranger", "blind nack", "reset", "garbage", "half"):
            self.seen.setdefault(part, []).append("?")
            return {
                "stranger": wire.frame(resp, 0, sequence ^ 0x40000000, b"stranger\0"),
                "blind nack": wire.frame(wire.GENERIC_NACK, 0x03, 0),
                "garbage": self.dice.choice((b"\xff\xff\xff\xff", b"\0\0\0\x0f", b"\0\0\0\0")) + self.dice.randbytes(12),
                "half": wire.frame(resp, 0, sequence, b"half\0")[:18],
            }.get(kind, b"")
        identity = "" if kind == "bare" else f"id{next(self._numbers)}"
        self.given[identity] = part
        self.seen.setdefault(part, []).append(identity)
        answer = wire.frame(resp, 0, sequence, identity.encode() + b"\0" if identity else b"")
        if kind == "twice":
            answer += wire.frame(resp, 0, sequence, b"again\0") + wire.frame(resp, 0x0B, sequence)
        elif kind == "receipt":
            text = f"id:{identity} sub:001 dlvrd:001 submit date:2601010000 done date:2601010000 stat:DELIVRD err:000 text:".encode()
            answer += wire.frame(wire.DELIVER_SM, 0, 7, b"\0\1\1" + part[0].encode() + b"\0\0\0x\0\4\0\0\0\0\0\0\0\0" + bytes((len(text),)) + text)
        elif kind.startswith("unbind"):
            answer = wire.frame(wire.UNBIND, 0, 9) + answer
        elif kind == "enquire":
            answer += wire.frame(wire.ENQUIRE_LINK, 0, 3) + wire.frame(0x0777, 0, 4)
        return answer

    def write(self, writer: asyncio.StreamWriter, octets: bytes) -> None:
        """What comes after half an answer waits for its other half."""
        if writer in self.held:
            self.held[writer] += octets
        elif writer not in self.dumb and not writer.transport.is_closing():
            writer.write(octets)

    def let_go(self, writer: asyncio.StreamWriter) -> None:
        self.write(writer, self.held.pop(writer, b""))


LOST = re.compile("connection|half a PDU")  # what the SMSC has broken off while it was mad may be noticed when it is no more


class Books:
    """Claims as the delivery does, a try at a time for each message, and checks every outcome against what the SMSC saw."""

    def __init__(self, port: int, smsc: Madhouse, dice: random.Random, **settings) -> None:
        self.smsc, self.dice = smsc, dice
        profile = QUICK | settings.pop("profile", {})
        body = {"host": "127.0.0.1", "port": port, "system_id": "isp", "profile": profile, **settings}
        self.settings = SmppSettings.model_validate(body)
        self.bind = Bind(
            self.settings, on_outcome=self.came, on_receipt=lambda receipt: receipt.ack(), on_late=self.late, on_trace=self.traced, wall_clock=self.wall
        )
        self.bind.trace_until = float("inf")
        self.due: deque[int] = deque(range(1, MESSAGES + 1))
        self.tries: Counter[int] = Counter()
        self.in_hand: dict[UUID, tuple[str, int, int]] = {}  # address and try, parts
        self.told: dict[tuple[str, str], Outcome] = {}  # address, try
        self.faults: list[str] = []
        self.lates = self.lines = 0
        self.blackout = False

    def wall(self) -> datetime:
        return datetime(2026, 1, 1, 2 if self.blackout else 12, tzinfo=UTC)

    def ship(self, number: int) -> None:
        self.tries[number] += 1
        parts = 1 if number % 4 else 1 + number // 4 % 4
        key, address, source = UUID(int=number), f"+7916{number:07d}", f"{self.tries[number]:04d}"
        text = f"{number:07d} " + "x" * (153 * parts - 20 if parts > 1 else 20)
        shipment = Shipment(key, address, text, source, None, urgent=False, reference=self.tries[number])
        if key in self.in_hand:
            self.faults.append(f"{address} is shipped while it is out")
        self.in_hand[key] = (source, parts, 0)
        taken = self.bind.ship(shipment)
        self.in_hand[key] = (source, parts, taken)

    def came(self, shipment: Shipment, outcome: Outcome) -> None:
        held = self.in_hand.pop(shipment.key, None)
        if held is None or held[0] != shipment.sender:
            self.faults.append(f"{shipment.address} has one more outcome, {outcome}")
            return
        source, parts, taken = held
        self.told[shipment.address, source] = outcome
        if fault := self.fault_of(outcome, shipment.address[1:], source, parts):
            self.faults.append(f"{shipment.address}, try {source}: {fault}")
        loop = asyncio.get_running_loop()
        loop.call_later(self.dice.choice((0, 0, 0.003)), self.bind.release, taken)
        if isinstance(outcome, Deferred):
            loop.call_later(min(outcome.retry_in.total_seconds(), 0.1) + 0.004, self.due.appendleft, shipment.key.int)

    def fault_of(self, outcome: Outcome, address: str, source: str, parts: int) -> str:
        """What an outcome says otherwise than the SMSC saw it until now."""
        seen = {part: self.smsc.seen.get((address, source, part), []) for part in range(1, parts + 1)}
        last = {part: happened[-1] if happened else None for part, happened in seen.items()}
        if any(not isinstance(before, int) for happened in seen.values() for before in happened[:-1]):
            return f"a part that may have been taken was written again: {seen}"
        if isinstance(outcome, Deferred):
            return "" if all(status is None or status in PUT_OFF for status in last.values()) else f"goes again, but {seen}"
        if isinstance(outcome, Accepted):
            return "" if list(outcome.ids) == list(last.values()) else f"{outcome}, but {seen}"
        if isinstance(outcome, Refused):
            if not any(status in REFUSED or status in PUT_OFF for status in last.values()):
                return f"{outcome}, but {seen}"
        elif not any(isinstance(status, str) for status in last.values()) and not LOST.search(outcome.detail) and not self.smsc.is_mad:
            return f"{outcome}, but {seen}"
        return "" if all(not given or given == last[part] for part, given in enumerate(outcome.ids, 1)) else f"{outcome}, but {seen}"

    def late(self, shipment: Shipment, index: int, identity: str) -> None:
        self.lates += 1
        part = (shipment.address[1:], shipment.sender or "", index + 1)
        if identity and self.smsc.given.get(identity) != part:
            self.faults.append(f"a late answer of {part} with the id of {self.smsc.given.get(identity)}")
        if not isinstance(self.told.get((shipment.address, part[1])), Unknown | Refused):
            self.faults.append(f"a late answer of {part}, which came to {self.told.get((shipment.address, part[1]))}")

    def traced(self, line: str) -> None:
        self.lines += 1
        if "secret" in line or "stumbled" in line:
            self.faults.append(line)

    async def feed(self, until: Callable[[], bool]) -> None:
        """Claim what there is room for, as the delivery does, and never sleep longer than it would."""
        while not until():
            for _ in range(min(self.bind.allowance(), len(self.due))):
                self.ship(self.due.popleft())
            await asyncio.sleep(min(max(self.bind.next_chance(), 0.001), 0.005))

    async def disturb(self) -> None:
        """What happens by itself: connections that break while nothing is asked, and hours without a bind."""
        while True:
            await asyncio.sleep(self.dice.uniform(0.05, 0.3))
            if self.smsc.writers and self.dice.random() < 0.5:
                writer = self.dice.choice(sorted(self.smsc.writers, key=id))
                self.smsc.write(writer, self.dice.choice((b"", wire.frame(wire.UNBIND, 0, 1), b"\xff" * 16)))
                if self.dice.random() < 0.5:
                    writer.transport.abort()
            self.blackout = self.settings.profile.blackout != [] and self.dice.random() < 0.3


@pytest.mark.parametrize(
    ("seed", "settings"),
    [
        (1, {"window": 60}),
        (2, {"window": 1}),
        (3, {"window": 50, "profile": {"bind_mode": "tx_rx", "rx_grace": 0.05, "max_session_age": 0.5}}),
        (4, {"window": 10, "rate_per_second": 800, "profile": {"blackout": ["02:00-03:00"], "burst": 5, "long_messages": "sar", "throttle_slowdown": 0.02}}),
    ],
    ids=["transceiver", "one at a time", "pair", "paced"],
)
async def test_in_chaos_every_message_has_one_outcome_and_nothing_is_lost_or_sent_twice(seed, settings, monkeypatch):
    monkeypatch.setattr(side, "_LOOK_AGAIN", 0.02)
    dice = random.Random(seed)
    smsc = Madhouse(dice)
    server = await asyncio.start_server(smsc.serve, "127.0.0.1", 0)
    books = Books(server.sockets[0].getsockname()[1], smsc, dice, password="secret", **settings)
    running = asyncio.create_task(books.bind.run())
    disturbing = asyncio.create_task(books.disturb())
    try:
        end = time.monotonic() + SECONDS
        await books.feed(lambda: time.monotonic() > end or books.faults or not books.due)

        disturbing.cancel()
        smsc.is_mad, books.blackout = False, False
        for number in list(books.due)[200:]:  # enough to show that it goes on
            books.due.remove(number)
        calm = time.monotonic() + CALM
        await books.feed(lambda: time.monotonic() > calm or books.faults or not (books.due or books.in_hand))
        await asyncio.sleep(0.15)  # what was put off comes back, and commits end

        await books.feed(lambda: time.monotonic() > calm or books.faults or not (books.due or books.in_hand))
        left = len(books.due), len(books.in_hand)
        await books.bind.stop(1)
        await asyncio.sleep(0.01)
    finally:
        disturbing.cancel()
        await books.bind.stop(0)
        await running
        server.close()

    kinds = Counter(type(outcome).__name__ for outcome in books.told.values())
    assert books.faults == []
    assert left == (0, 0), (left, books.bind.status)
    assert books.in_hand == {}
    assert books.bind.in_use == 0
    assert kinds.keys() >= {"Accepted", "Deferred", "Unknown"}, kinds
    assert smsc.acknowledged > 0
