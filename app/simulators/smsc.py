"""An SMSC for local runs, tests and benchmarks: raw asyncio, all bind modes, receipts, and the bad habits of real ones.

`async with SmscSimulator() as smsc:` listens on a free port. `answer` decides about each submit where the options do not do.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from app.simulators import smsc_wire as wire
from app.simulators.smsc_link import SILENCE, Link
from app.simulators.smsc_receipts import Account, Owed

Answer = Callable[[wire.Submit], int | bytes]
OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What the simulator does. Rates are probabilities from 0 to 1, times are seconds, statuses are command_status numbers."""

    host: str = "127.0.0.1"
    port: int = 0
    system_id: str | None = None  # None: anybody
    password: str | None = None
    bind_statuses: tuple[int, ...] = ()  # for the first binds, one after the other; then as the credentials say
    window: int | None = None  # submits unanswered on one link; more are refused
    window_status: int = 0x58
    rate: float | None = None  # parts a second on one link; more are refused with 0x58
    answer_delay: float = 0.0
    error_rate: float = 0.0
    error_status: int = 0x08
    errors: Mapping[str, int] = field(default_factory=dict)  # end of the destination number -> status
    silent: bool = False
    silence_rate: float = 0.0
    drop_rate: float = 0.0  # the connection is reset instead of an answer
    receipts: bool = True
    receipt_delay: float = 0.0
    outcomes: Mapping[str, str] = field(default_factory=dict)  # end of the destination number -> stat word
    failure_rate: float = 0.0  # receipts that say UNDELIV
    receipt_window: int | None = None  # receipts that may be unacknowledged on one link
    redelivery_delay: float = 1.0
    ids: str = "dec"  # dec | hex
    keep_log: bool = True
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Received:
    """One message as its reader would see it: all parts together."""

    source: str
    destination: str
    text: str
    parts: int
    encoding: str


class SmscSimulator:
    """Counts what comes, and keeps it when `keep_log` is on."""

    def __init__(self, behaviour: Behaviour | None = None, *, answer: Answer | None = None, on_event: OnEvent | None = None, **options: Any) -> None:
        self.behaviour = behaviour or Behaviour(**options)
        self.answer = answer
        self.on_event = on_event
        self.random = random.Random(self.behaviour.seed)
        self.links: list[Link] = []  # bound and open ones
        self.binds: list[tuple[float, str, str, int]] = []  # time, system_id, password, status given
        self.received: list[Received] = []
        self.submits: list[wire.Submit] = []
        self.submitted = 0
        self.accepted = 0
        self.duplicates = 0
        self.most_unanswered = 0
        self.receipts_sent = 0
        self.receipts_acknowledged = 0
        self.receipt_answers: list[int] = []
        self.enquired = 0
        self.unbinds = 0
        self.other: list[tuple[int, int, int]] = []  # command_id, status, sequence number of anything else
        self.accounts: dict[str, Account] = {}
        self._server: asyncio.Server | None = None
        self._next_id = 0
        self._seen: set[int] = set()
        self._parts: dict[tuple[str, str, int], dict[int, wire.Submit]] = {}
        self._open: set[Link] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self, port: int | None = None) -> None:
        loop = asyncio.get_running_loop()
        wanted = self.behaviour.port if port is None else port
        self._server = await loop.create_server(lambda: Link(self), self.behaviour.host, wanted, reuse_address=True)

    async def close(self) -> None:
        """Stop listening and reset every connection."""
        if self._server is not None:
            self._server.close()
        self.drop_all()
        for account in self.accounts.values():
            account.close()
        await asyncio.sleep(0)

    def drop_all(self) -> None:
        """Reset every connection, as a crash would."""
        for link in list(self._open):
            link.reset()

    def send(self, octets: bytes) -> None:
        """Write raw octets to every bound link."""
        for link in self.links:
            link.write(octets)

    def deliver(self, body: bytes, *, system_id: str | None = None) -> None:
        """Deliver a deliver_sm body to an account (the first one), redelivering it until it is acknowledged."""
        account = self.accounts[system_id] if system_id else next(iter(self.accounts.values()))
        account.owe(Owed(body, asyncio.get_running_loop().time()))

    # -- what the links ask

    def next_id(self) -> str:
        self._next_id += 1
        return f"{self._next_id:X}" if self.behaviour.ids == "hex" else str(self._next_id)

    def account(self, system_id: str) -> Account:
        if system_id not in self.accounts:
            self.accounts[system_id] = Account(self)
        return self.accounts[system_id]

    def count(self, destination: bytes, content: bytes) -> None:
        """A submit came: the same content to the same number, part by part, is a duplicate."""
        self.submitted += 1
        mark = hash((destination, content))
        if mark in self._seen:
            self.duplicates += 1
        else:
            self._seen.add(mark)

    def keep(self, submit: wire.Submit) -> None:
        """An accepted submit: put its message together when all parts are there."""
        if submit.joint is None:
            self._message([submit])
            return
        number, count, part = submit.joint
        key = (submit.source, submit.destination, number)
        parts = self._parts.setdefault(key, {})
        parts[part] = submit
        if len(parts) == count:
            del self._parts[key]
            self._message([parts[index] for index in sorted(parts)])

    def _message(self, parts: list[wire.Submit]) -> None:
        first = parts[0]
        message = Received(first.source, first.destination, "".join(part.text for part in parts), len(parts), first.encoding)
        if self.behaviour.keep_log:
            self.received.append(message)
        self.tell(
            {"kind": "message", "from": message.source, "to": message.destination, "text": message.text, "parts": message.parts, "encoding": message.encoding}
        )

    def tell(self, event: dict[str, Any]) -> None:
        if self.on_event is not None:
            self.on_event(event)

    def opened(self, link: Link) -> None:
        self._open.add(link)

    def closed(self, link: Link) -> None:
        self._open.discard(link)
        if link in self.links:
            self.links.remove(link)
        if link.account is not None:
            link.account.lost(link)


async def serve(on_event: OnEvent | None = None, *, ready: Callable[[int], None] = lambda _: None, **options: Any) -> None:
    """Run until cancelled. `ready` is told the port; `on_event` each message and each receipt."""
    async with SmscSimulator(on_event=on_event, **options) as smsc:
        ready(smsc.port)
        await asyncio.Event().wait()


__all__ = ["SILENCE", "Behaviour", "Received", "SmscSimulator", "serve"]
