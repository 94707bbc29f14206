"""One bind of one gateway: kept up, paced, and honest about every message that it was given."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from app.gateways.smpp import SmppSettings
from app.sending.outcome import Deferred, Outcome
from app.sending.smpp.compose import Composer, Shipment
from app.sending.smpp.far_side import NoSubmits
from app.sending.smpp.flight import Flight
from app.sending.smpp.hours import Blackout
from app.sending.smpp.opening import FarEnd, Mode
from app.sending.smpp.receipts import Receipt, ReceiptReader
from app.sending.smpp.side import Clocks, Side
from app.sending.smpp.status import BindState, BindStatus, LastError, state_of
from app.sending.smpp.submitter import OnLate, Submitter
from app.sending.smpp.trace import Tracer
from app.sending.smpp.traffic import NOW

log = logging.getLogger(__name__)

NEXT_LOOK = 1.0
_SIDES: dict[str, tuple[Mode, ...]] = {"trx": ("trx",), "tx_rx": ("tx", "rx"), "tx": ("tx",), "rx": ("rx",)}
_NAMES: dict[Mode, str] = {"trx": "transceiver", "tx": "transmitter", "rx": "receiver"}


class Bind:
    """Connects, binds, binds again, submits and receives, until `stop()`.

    Every shipped message gets exactly one outcome by `on_outcome`, never from inside `ship()`. Receipts go to `on_receipt` and
    are answered by whoever stores them. An answer that comes after its message became Unknown goes to `on_late`. The callbacks run
    in the event loop and must not block.

    A pair (bind_mode tx_rx) is one bind with two connections, which come and go independently. Submits go only while receipts can
    come: while the receiver is bound, or was lost less than `rx_grace` ago.
    """

    def __init__(
        self,
        settings: SmppSettings,
        *,
        on_outcome: Callable[[Shipment, Outcome], None],
        on_receipt: Callable[[Receipt], None],
        on_change: Callable[[BindStatus], None] = lambda _: None,
        on_late: OnLate = lambda _shipment, _part, _identity: None,
        on_trace: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        zone: ZoneInfo = ZoneInfo("UTC"),  # noqa: B008 - it never changes
        slot: int = 0,
    ) -> None:
        self._profile = settings.profile
        self._on_change = on_change
        self._on_trace = on_trace
        self._clock = clock
        self._slot = slot
        self._composer = Composer(settings)
        self._submitter = Submitter(settings, on_outcome=on_outcome, on_late=on_late, clock=clock)
        self._traffic = self._submitter.traffic
        self._stopping = False
        self._ended = False
        self._trace_until = 0.0
        self._state: BindState = "down"
        self._since = datetime.now(UTC)
        self._told_error: LastError | None = None
        modes = _SIDES[settings.profile.bind_mode]
        self._sides = [
            Side(
                settings,
                self,
                NoSubmits() if mode == "rx" else self._submitter,
                mode=mode,
                endpoints=settings.rx_endpoints if mode == "rx" and len(modes) > 1 else settings.endpoints,
                # Every connection of a gateway comes from a port of its own: the first slot from the one that was given.
                source_port=settings.profile.source_port and settings.profile.source_port + max(slot, 0) * len(modes) + index,
                slot=slot,
                reader=ReceiptReader(settings.profile),
                on_receipt=on_receipt,
                clocks=Clocks(clock, wall_clock),
                blackout=Blackout(settings.profile.blackout, zone) if settings.profile.blackout else None,
            )
            for index, mode in enumerate(modes)
        ]
        self._submitting = next((side for side in self._sides if side.mode != "rx"), None)
        self._receiving = next((side for side in self._sides if side.mode == "rx"), None)
        if self._submitting is not None:
            self._submitter.goes_over(self._submitting)

    # -- the caller's side

    async def run(self) -> None:
        """Keep the bind up until `stop()`. Raises nothing but CancelledError, and leaves no message without an outcome."""
        loops = [asyncio.create_task(side.run()) for side in self._sides]
        try:
            await asyncio.wait(loops)
        finally:
            for task in loops:
                task.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            self._end()

    def allowance(self) -> int:
        """Parts that may be shipped now. At least one when nothing is in use and a token is near: one message, however long, fits."""
        return self._traffic.room(self._clock())

    def next_chance(self) -> float:
        """Seconds after which `allowance()` may be more than zero: a second at most; `release()` and `on_change` may give room sooner."""
        return min(self._traffic.next_chance(self._clock()), NEXT_LOOK)

    def ship(self, shipment: Shipment) -> int:
        """Send one message as soon as window and rate permit. Returns the parts that it counts for: the number to `release()`."""
        composed = self._composer.compose(shipment)
        flight = Flight(shipment, composed)
        loop = asyncio.get_running_loop()
        if composed.refused is not None:
            self._traffic.in_use += flight.parts
            loop.call_soon(self._traffic.conclude, flight, composed.refused)
        elif not self._traffic.open:
            self._traffic.in_use += flight.parts
            loop.call_soon(self._traffic.conclude, flight, Deferred("not_bound", NOW, spends_attempt=False))
        else:
            self._traffic.ship(flight)
        return flight.parts

    def release(self, parts: int) -> None:
        """The outcome of a message of so many parts is committed: its room is free."""
        self._traffic.in_use = max(0, self._traffic.in_use - parts)

    async def stop(self, grace: float) -> None:
        """Send no more, wait for answers and for receipts to be acknowledged, unbind.

        What was not begun is Deferred at once; what is unanswered after `grace` seconds is Unknown.
        """
        self._stopping = True
        self._traffic.close_door("stopping")
        self.side_changed()
        try:
            async with asyncio.timeout(grace):
                # Asked a hundred times a second, and only while stopping: an event would have to be kept on the hot path.
                while any(side.link.is_bound for side in self._sides) and not self._is_idle:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            receipts = sum(side.receipts_in_hand for side in self._sides)
            log.warning("stopped with messages unanswered", extra={"messages": len(self._traffic.unanswered), "receipts": receipts})
        await asyncio.gather(*(side.stop() for side in self._sides))
        self._end()

    @property
    def in_use(self) -> int:
        """Parts shipped and not yet released."""
        return self._traffic.in_use

    @property
    def far_end(self) -> dict[Mode, FarEnd]:
        """What the far end said when it was last connected to, by the kind of bind: one, or two of a pair."""
        return {side.mode: side.link.far_end for side in self._sides if side.link.far_end is not None}

    @property
    def trace_until(self) -> float:
        """`on_trace` gets a line for each PDU until then, by the clock of the bind; 0 when it gets none."""
        return self._trace_until

    @trace_until.setter
    def trace_until(self, until: float) -> None:
        self._trace_until = until
        for side in self._sides:
            on = self._on_trace is not None and until > self._clock()
            name = side.mode if len(self._sides) > 1 else ""
            side.link.tracer = Tracer(self._on_trace, until, self._clock, name) if on and self._on_trace is not None else None

    @property
    def status(self) -> BindStatus:
        seen = max((side.link.last_received for side in self._sides if side.link.session), default=None)
        hosts = [side.link.host for side in self._sides]
        return BindStatus(
            slot=self._slot,
            state=self._state,
            host=hosts[0] if len(set(hosts)) == 1 else f"{hosts[0]} (rx {hosts[1]})",
            since=self._since,
            last_error=self._last_error(),
            window_in_use=len(self._traffic.unanswered),
            rate_now=round(self._submitter.rate_now, 1),
            rate_limit=self._traffic.bucket.rate,
            last_activity_at=datetime.now(UTC) - timedelta(seconds=self._clock() - seen) if seen is not None else None,
        )

    # -- the sides' side (Owner)

    @property
    def is_stopping(self) -> bool:
        return self._stopping

    def side_changed(self) -> None:
        """The state or the error of a connection is another one, or the pace."""
        self._mind_the_door()
        state, error = self._combined(), self._last_error()
        if state != self._state:
            self._since = datetime.now(UTC)
        elif _same(error, self._told_error):
            return
        self._state, self._told_error = state, error
        try:
            self._on_change(self.status)
        except Exception:
            log.exception("the receiver of a status failed")

    def side_lost(self, side: Side, why: str) -> None:
        if side is self._submitting:
            self._traffic.link_lost(why)

    def side_ticks(self, side: Side, now: float) -> str | None:
        if side is not self._submitting:
            return None
        if why := self._submitter.tick(now):
            side.explain("submit", why)
            return why
        if self._trace_until and now >= self._trace_until:
            self.trace_until = 0.0
        self._mind_the_door()
        if self._state == "throttled" and not self._submitter.is_throttled:
            self.side_changed()
        return None

    # -- details

    def _mind_the_door(self) -> None:
        """Submits are let in while the connection that they go over is bound, and receipts for them can come."""
        side, traffic = self._submitting, self._traffic
        if side is None:
            return
        is_ready = side.state == "bound" and not self._stopping
        if is_ready and self._is_heard():
            if not traffic.open:
                self._submitter.begins()
        elif traffic.open:
            traffic.close_door("stopping" if self._stopping else "receiver_down" if is_ready else "rebind")

    def _is_heard(self) -> bool:
        """Whether receipts can come, or could a moment ago. A bind without a receiver of its own hears them where it submits, or not at all."""
        receiver = self._receiving
        if receiver is None or receiver.link.is_bound:
            return True
        return receiver.lost_at is not None and self._clock() - receiver.lost_at < self._profile.rx_grace

    def _combined(self) -> BindState:
        if self._ended:
            return "stopped"
        if self._stopping and any(side.link.is_bound for side in self._sides):
            return "draining"
        state = state_of([side.state for side in self._sides])
        return "throttled" if state == "bound" and self._submitter.is_throttled else state

    def _last_error(self) -> LastError | None:
        """The latest; of a pair that is not whole, the one of the side that is missing."""
        told = [side for side in self._sides if side.last_error is not None]
        guilty = [side for side in told if side.state not in ("bound", "draining")] or told
        latest = max(guilty, key=lambda side: side.last_error.at if side.last_error else self._since, default=None)
        if latest is None or latest.last_error is None:
            return None
        error = latest.last_error
        return replace(error, detail=f"{_NAMES[latest.mode]}: {error.detail}") if len(self._sides) > 1 else error

    @property
    def _is_idle(self) -> bool:
        return self._traffic.is_idle and not any(side.receipts_in_hand for side in self._sides)

    def _end(self) -> None:
        self._traffic.link_lost("the bind was stopped")
        self._ended = True
        self.side_changed()


def _same(one: LastError | None, other: LastError | None) -> bool:
    """Whether it says nothing new, but for the time."""
    if one is None or other is None:
        return one is other
    return (one.where, one.command_status, one.detail) == (other.where, other.command_status, other.detail)


__all__ = ["Bind", "BindStatus", "FarEnd", "LastError", "Receipt", "Shipment"]
