"""One bind against the simulated SMSC, and a caller that keeps the books as settle does."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import pytest

from app.gateways.smpp import SmppSettings
from app.sending.outcome import Outcome
from app.sending.smpp.bind import Bind, BindStatus, Receipt, Shipment
from app.simulators.smsc import SmscSimulator

# Short, so that a scenario takes tenths of a second; the proportions are those of the defaults.
QUICK = {"reconnect_min": 0.05, "reconnect_max": 1, "stable_after": 0.5, "response_timeout": 0.6, "throttle_pause_min": 0.1, "throttle_pause_max": 1}


class Caller:
    """Ships through one bind, counts outcomes by message, commits at once and gives the room back."""

    def __init__(
        self, port: int, *, profile: dict | None = None, ack: bool = True, commit_takes: float = 0, slot: int = 0, options: dict | None = None, **settings
    ) -> None:
        body = {"host": "127.0.0.1", "port": port, "system_id": "isp", "password": "secret", "sender": "MyISP", "profile": QUICK | (profile or {})}
        self.settings = SmppSettings.model_validate(body | settings)
        self.ack = ack
        self.commit_takes = commit_takes
        self.outcomes: dict[UUID, list[Outcome]] = {}
        self.order: list[tuple[str, Outcome]] = []
        self.receipts: list[Receipt] = []
        self.changes: list[BindStatus] = []
        self.parts: dict[UUID, int] = {}
        self.numbers = itertools.count(1)
        self.changed = asyncio.Event()
        self.late: list[tuple[UUID, int, str]] = []
        self.lines: list[str] = []
        self.bind = Bind(
            self.settings,
            on_outcome=self.on_outcome,
            on_receipt=self.on_receipt,
            on_change=self.on_change,
            on_late=self.on_late,
            on_trace=self.lines.append,
            slot=slot,
            **options or {},
        )
        self.running: asyncio.Task | None = None

    def on_outcome(self, shipment: Shipment, outcome: Outcome) -> None:
        self.outcomes.setdefault(shipment.key, []).append(outcome)
        self.order.append((shipment.address, outcome))
        if self.commit_takes:
            asyncio.get_running_loop().call_later(self.commit_takes, self.committed, self.parts[shipment.key])
        else:
            self.committed(self.parts[shipment.key])

    def committed(self, parts: int) -> None:
        self.bind.release(parts)
        self.changed.set()

    def on_receipt(self, receipt: Receipt) -> None:
        self.receipts.append(receipt)
        if self.ack:
            receipt.ack()
        self.changed.set()

    def on_late(self, shipment: Shipment, part: int, identity: str) -> None:
        self.late.append((shipment.key, part, identity))
        self.changed.set()

    def on_change(self, status: BindStatus) -> None:
        self.changes.append(status)
        self.changed.set()

    def message(self, text: str = "Balance 10.00", to: str | None = None, **rest) -> Shipment:
        number = next(self.numbers)
        given = {"sender": None, "validity": timedelta(hours=1), "urgent": False, "reference": number} | rest
        return Shipment(UUID(int=number), to or f"+7916{number:07d}", text, **given)

    def ship(self, *shipments: Shipment) -> None:
        """Ship whatever the allowance says: for scenarios about what happens on the wire."""
        for shipment in shipments:
            self.parts[shipment.key] = 0
            self.parts[shipment.key] = self.bind.ship(shipment)

    async def ship_as_allowed(self, shipments: list[Shipment], *, timeout: float = 10) -> None:
        """As the claim does: no more than the allowance, and sleep until the next chance."""
        async with asyncio.timeout(timeout):
            queue = list(shipments)
            while queue:
                allowed = self.bind.allowance()
                self.ship(*queue[:allowed])
                del queue[:allowed]
                self.changed.clear()
                if not allowed:
                    async with _at_most(max(self.bind.next_chance(), 0.001)):
                        await self.changed.wait()

    async def until(self, condition: Callable[[], object], timeout: float = 5) -> None:
        async with asyncio.timeout(timeout):
            while not condition():
                self.changed.clear()
                async with _at_most(0.02):
                    await self.changed.wait()

    async def settled(self, count: int, timeout: float = 5) -> None:
        await self.until(lambda: len(self.order) >= count, timeout)

    async def bound(self, timeout: float = 5) -> None:
        await self.until(lambda: self.bind.status.state == "bound", timeout)

    @property
    def kinds(self) -> Counter[str]:
        """How many messages came to what; fails when one has more than one outcome."""
        assert all(len(outcomes) == 1 for outcomes in self.outcomes.values())
        return Counter(type(outcomes[0]).__name__ for outcomes in self.outcomes.values())

    def details(self) -> list[str]:
        """What was told to be wrong, each once in a row."""
        return [detail for detail, _ in itertools.groupby(status.last_error.detail for status in self.changes if status.last_error)]

    def states(self) -> list[str]:
        return [state for state, _ in itertools.groupby(status.state for status in self.changes)]


@asynccontextmanager
async def _at_most(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        return


@pytest.fixture
async def call() -> AsyncIterator[Callable[..., Caller]]:
    """Starts callers on an SMSC, and stops them at the end."""
    callers: list[Caller] = []

    async def start(smsc: SmscSimulator | int, *, bound: bool = True, **settings) -> Caller:
        caller = Caller(smsc if isinstance(smsc, int) else smsc.port, **settings)
        callers.append(caller)
        caller.running = asyncio.create_task(caller.bind.run())
        if bound:
            await caller.bound()
        return caller

    yield start
    for caller in callers:
        began = time.monotonic()
        await caller.bind.stop(0.05)
        await caller.running
        assert time.monotonic() - began < 6
        assert caller.bind.status.state == "stopped"


@pytest.fixture
async def smsc() -> AsyncIterator[SmscSimulator]:
    async with SmscSimulator() as simulator:
        yield simulator
