"""An SMSC for local runs, tests and benchmarks: raw asyncio, all bind modes, receipts, and the bad habits of real ones.

`async with SmscSimulator() as smsc:` listens on a free port. A scenario says what happens in which case; in a test `answer` may decide
about each submit. `submits`, `received`, `binds` and `log` are for assertions.
"""

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from app.simulators import smsc_wire as wire
from app.simulators.smsc_ids import Identities, Ids
from app.simulators.smsc_link import SILENCE, Link
from app.simulators.smsc_log import Log
from app.simulators.smsc_mobile import bodies_of
from app.simulators.smsc_receipts import Account, Owed
from app.simulators.smsc_scenario import Elapsed, Mobile, OnTime, Player, Scenario

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
    ids: str = "dec"  # how the answer writes an id: a form of smsc_ids; a scenario says more
    tls_cert: Path | None = None  # PEM: the chain
    tls_key: Path | None = None
    tls_client_ca: Path | None = None  # whoever connects must show a certificate of this one
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

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        *,
        answer: Answer | None = None,
        on_event: OnEvent | None = None,
        scenario: Scenario | None = None,
        log_path: Path | None = None,
        **options: Any,
    ) -> None:
        self.behaviour = behaviour or Behaviour(**options)
        self.scenario = scenario
        self.elapsed = Elapsed(time.monotonic)
        self.player = Player(scenario, self.elapsed) if scenario is not None and scenario.rule else None
        self.identities = Identities(scenario.ids if scenario is not None else Ids.model_validate({"answer": self.behaviour.ids}))
        self.log = Log(keep=self.behaviour.keep_log, path=log_path)
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
        self.window_violations = 0  # submits beyond the window that the options allow
        self.throttled_until = 0.0  # monotonic; every submit until then gets `throttle_status`
        self.throttle_status = 0x58
        self.receipts_sent = 0
        self.receipts_acknowledged = 0
        self.receipt_answers: list[int] = []
        self.enquired = 0
        self.enquiries_answered = 0
        self.unbinds = 0
        self.other: list[tuple[int, int, int]] = []  # command_id, status, sequence number of anything else
        self.accounts: dict[str, Account] = {}
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._binds = 0
        self._references = 0
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
        await self._listen(self.behaviour.port if port is None else port)
        self.elapsed.start()
        timed = [rule for rule in self.scenario.rule if rule.on == "time"] if self.scenario is not None else []
        self._tasks = [asyncio.create_task(self._play(rule)) for rule in timed]

    async def close(self) -> None:
        """Stop listening and reset every connection."""
        for task in self._tasks:
            task.cancel()
        if self._server is not None:
            self._server.close()
        self.drop_all()
        self.log.close()
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

    def deliver_mobile(self, mobile: Mobile, *, system_id: str | None = None) -> None:
        """Deliver an SMS from a subscriber, part by part."""
        self._references += 1
        for body in bodies_of(mobile, self._references):
            self.deliver(body, system_id=system_id)

    # -- what the links ask

    def next_bind(self) -> int:
        self._binds += 1
        return self._binds

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
            self.identities.forget(key)
            self._message([parts[index] for index in sorted(parts)])

    def _message(self, parts: list[wire.Submit]) -> None:
        first = parts[0]
        message = Received(first.source, first.destination, "".join(part.text for part in parts), len(parts), first.encoding)
        if self.behaviour.keep_log:
            self.received.append(message)
        self.tell(
            {"kind": "message", "from": message.source, "to": message.destination, "text": message.text, "parts": message.parts, "encoding": message.encoding}
        )

    def tell_of(self, submit: wire.Submit | None, *, taken: bool) -> None:
        """The log's line about one submit."""
        if submit is None or not self.log.is_on:
            return
        reference = submit.tlvs.get(0x0204)
        self.log.note(
            "submit",
            bind=submit.bind,
            sequence=submit.sequence,
            to=submit.destination,
            part=submit.joint,
            reference=int.from_bytes(reference, "big") if reference else None,
            taken=taken,
            status=submit.status,
            id=submit.identity,
        )

    def tell(self, event: dict[str, Any]) -> None:
        if self.on_event is not None:
            self.on_event(event)

    def opened(self, link: Link) -> None:
        self._open.add(link)

    def closed(self, link: Link) -> None:
        self._open.discard(link)
        self.unbound(link)

    def unbound(self, link: Link) -> None:
        """Nothing is sent over it any more."""
        if link in self.links:
            self.links.remove(link)
        if link.account is not None:
            link.account.lost(link)

    # -- details

    async def _listen(self, port: int) -> None:
        behaviour, context = self.behaviour, None
        if behaviour.tls_cert is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=behaviour.tls_client_ca)
            context.load_cert_chain(behaviour.tls_cert, behaviour.tls_key)
            context.verify_mode = ssl.CERT_REQUIRED if behaviour.tls_client_ca is not None else ssl.CERT_NONE
        self._server = await asyncio.get_running_loop().create_server(lambda: Link(self), behaviour.host, port, reuse_address=True, ssl=context)

    async def _play(self, rule: OnTime) -> None:
        """One rule on time, as often as it says."""
        await asyncio.sleep(rule.at)
        for turn in range(rule.times or (1_000_000_000 if rule.every else 1)):
            if turn and rule.every:
                await asyncio.sleep(rule.every)
            with contextlib.suppress(OSError):
                await self._happen(rule)

    async def _happen(self, rule: OnTime) -> None:
        assert self.player is not None
        if rule.outage:
            await self._go_away(rule.outage)
        if rule.mobile is not None and self.accounts:
            self.deliver_mobile(rule.mobile)
        links = list(self.links)
        for link in [self.player.choice(links)] if links and rule.which == "one" else links:
            link.write(b"".join(wire.frame(wire.ENQUIRE_LINK, 0, link.next_sequence()) for _ in range(rule.enquire)))
            link.say(rule)
            link.act(rule.link)

    async def _go_away(self, seconds: float) -> None:
        """As a machine that is started again: nobody listens for a while."""
        port = self.port
        assert self._server is not None
        self._server.close()
        self.log.note("time", how="outage", seconds=seconds)
        self.drop_all()
        await asyncio.sleep(seconds)
        await self._listen(port)


async def serve(
    on_event: OnEvent | None = None,
    *,
    ready: Callable[[int], None] = lambda _: None,
    scenario: Scenario | None = None,
    log_path: Path | None = None,
    **options: Any,
) -> None:
    """Run until cancelled. `ready` is told the port; `on_event` each message and each receipt; the log goes to a file."""
    async with SmscSimulator(on_event=on_event, scenario=scenario, log_path=log_path, **options) as smsc:
        ready(smsc.port)
        await asyncio.Event().wait()


__all__ = ["SILENCE", "Behaviour", "Mobile", "Received", "Scenario", "SmscSimulator", "serve"]
