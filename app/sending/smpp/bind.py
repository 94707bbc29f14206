"""One bind of one gateway: kept up, paced, and honest about every message that it was given."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from app.gateways.smpp import SmppSettings
from app.sending.outcome import Deferred, Outcome, Refused
from app.sending.smpp import statuses
from app.sending.smpp.backoff import Backoff
from app.sending.smpp.compose import Composer, Shipment
from app.sending.smpp.flight import Flight
from app.sending.smpp.judge import Judge
from app.sending.smpp.link import Link
from app.sending.smpp.receipts import Answer, Receipt, ReceiptReader, normaliser
from app.sending.smpp.status import BindState, BindStatus, LastError, Where
from app.sending.smpp.traffic import NOW, Traffic

log = logging.getLogger(__name__)

# Receipts handed over and not yet answered. Beyond this the store is not keeping up, and the SMSC keeps them better than our memory.
RECEIPTS_IN_HAND = 10_000
NEXT_LOOK = 1.0
_UNBIND_PATIENCE = 5.0


class Bind:
    """Connects, binds, binds again, submits and receives, until `stop()`.

    Every shipped message gets exactly one outcome by `on_outcome`, never from inside `ship()`. Receipts go to `on_receipt` and
    are answered by whoever stores them. The callbacks run in the event loop and must not block.
    """

    def __init__(
        self,
        settings: SmppSettings,
        *,
        on_outcome: Callable[[Shipment, Outcome], None],
        on_receipt: Callable[[Receipt], None],
        on_change: Callable[[BindStatus], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        slot: int = 0,
    ) -> None:
        self._settings = settings
        self._profile = settings.profile
        self._on_receipt = on_receipt
        self._on_change = on_change
        self._clock = clock
        self._slot = slot
        self._composer = Composer(settings)
        self._reader = ReceiptReader(settings.profile)
        self._judge = Judge(settings.profile)
        self._normalise = normaliser(settings.profile, settings.profile.msgid_resp_base)
        self._backoff = Backoff(settings.profile, clock)
        self._link = Link(settings, self, self._backoff, clock)
        self._traffic = Traffic(settings, on_outcome=on_outcome, wake=self._link.wake, clock=clock)
        self._session: asyncio.Task[None] | None = None
        self._stopping = False
        self._halted = False  # wrong settings: nothing is tried until the next probe
        self._is_explained = False  # why this session ends is known and told; the closing of the socket is only its consequence
        self._unanswered_receipts = 0
        self._answer: Answer = lambda _command, _sequence, _status: None
        self._state: BindState = "down"
        self._since = datetime.now(UTC)
        self._last_error: LastError | None = None
        self._rate_now = 0.0
        self._measured = (clock(), 0)

    # -- the caller's side

    async def run(self) -> None:
        """Keep the bind up until `stop()`. Raises nothing but CancelledError, and leaves no message without an outcome."""
        try:
            while not self._stopping:
                self._session = asyncio.create_task(self._link.start(), name=f"smpp session {self._settings.host} {self._slot}")
                await asyncio.wait({self._session})
                if not self._session.cancelled() and (error := self._session.exception()) is not None:
                    log.error("the session loop failed and is started again", exc_info=error)
                    self._link.give_up("the session loop failed")
                    await self._backoff.wait()
        finally:
            await self._end_session()
            self._traffic.link_lost("the bind was stopped")
            self._move("stopped")

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
        if self._link.is_bound:
            self._move("draining")
        self._traffic.close_door("stopping")
        try:
            async with asyncio.timeout(grace):
                # Asked a hundred times a second, and only while stopping: an event would have to be kept on the hot path.
                while self._link.is_bound and not (self._traffic.is_idle and self._unanswered_receipts == 0):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            log.warning("stopped with messages unanswered", extra={"messages": len(self._traffic.unanswered), "receipts": self._unanswered_receipts})
        self._backoff.end()
        if self._link.is_bound:
            try:
                async with asyncio.timeout(_UNBIND_PATIENCE):
                    await self._link.stop()
            except TimeoutError:
                log.warning("the session did not end by itself")
        await self._end_session()
        self._traffic.link_lost("the bind was stopped")
        self._move("stopped")

    @property
    def in_use(self) -> int:
        """Parts shipped and not yet released."""
        return self._traffic.in_use

    @property
    def status(self) -> BindStatus:
        seen = datetime.now(UTC) - timedelta(seconds=self._clock() - self._link.last_received) if self._link.session else None
        return BindStatus(
            slot=self._slot,
            state=self._state,
            host=f"{self._settings.host}:{self._settings.port}",
            since=self._since,
            last_error=self._last_error,
            window_in_use=len(self._traffic.unanswered),
            rate_now=round(self._rate_now, 1),
            rate_limit=self._traffic.bucket.rate,
            last_activity_at=seen,
        )

    # -- the session's side (FarSide)

    def connecting(self) -> None:
        self._halted = False
        self._move("connecting")

    def not_connected(self, error: str) -> None:
        self._failed("connect", error)
        self._move("down")

    def bind_answered(self, status: int) -> None:
        if status == 0:
            self._answer = partial(self._reply, self._link.session)
            self._unanswered_receipts = 0
            self._traffic.open = not self._stopping
            self._traffic.bucket.idle(self._clock())
            self._is_explained = False
            self._move("draining" if self._stopping else "bound")
            return
        fatal = status in statuses.FATAL_TO_BIND or self._profile.status_overrides.get(statuses.code_of(status)) == "CONFIG"
        self._failed("bind", "the SMSC refused the bind", status)
        if fatal:
            self._backoff.after(self._profile.config_probe_interval)
        elif status == statuses.ALYBND:
            self._backoff.after(self._profile.alybnd_wait)
        self._halted = fatal
        self._move("stopped" if fatal else "down")

    def submit_answered(self, sequence: int, status: int, identity: bytes) -> None:
        entry = self._traffic.answered(sequence)
        if entry is None:
            return
        if status:
            self._refused(entry, status)
            return
        self._judge.passed()
        self._traffic.taken(entry, self._normalise(identity.decode("latin-1")))

    def delivered(self, command: int, sequence: int, body: bytes) -> None:
        if self._unanswered_receipts >= RECEIPTS_IN_HAND:
            self._link.answer(self._link.session, command, sequence, statuses.RX_T_APPN)
            return
        self._unanswered_receipts += 1
        try:
            receipt = self._reader.read(command, sequence, body, self._answer)
        except Exception:
            # The reader promises not to; but one poisonous PDU, redelivered for ever, would take the whole bind down for ever.
            log.exception("a receipt could not be read", extra={"raw": body.hex()})
            receipt = Receipt(command, sequence, body, self._answer)
        try:
            self._on_receipt(receipt)
        except Exception:
            log.exception("the receiver of a receipt failed")
            receipt.nack()

    def write_due(self) -> tuple[bytes, float]:
        return self._traffic.write_due(self._clock())

    def next_sequence(self) -> int:
        return self._traffic.next_sequence()

    def has_unanswered(self) -> bool:
        return bool(self._traffic.unanswered)

    def tick(self, now: float) -> str | None:
        """The clock of the session. Returns why it should end, if it should."""
        traffic = self._traffic
        if traffic.sweep(now):
            why = f"{traffic.silent_in_a_row or 'too many'} submits unanswered"
            self._failed("submit", why)
            self._is_explained = True
            return why
        at, written = self._measured
        if now - at >= 1:
            self._rate_now = (traffic.written - written) / (now - at)
            self._measured = (now, traffic.written)
            traffic.bucket.recover(self._profile.throttle_recovery * (now - at) / 60)
        if self._state == "throttled" and not traffic.throttle.engaged:
            self._move("bound")
        return None

    def retiring(self, why: str) -> None:
        if not self._is_explained:
            self._failed("link", why)
            self._is_explained = True
        self._traffic.close_door("rebind")

    def lost(self, why: str) -> None:
        self._unanswered_receipts = 0
        self._traffic.link_lost(why)
        if not self._stopping and self._state in ("bound", "throttled"):
            if not self._is_explained:
                self._failed("link", why)
            self._move("stopped" if self._halted else "down")

    # -- what a refusal means

    def _refused(self, entry: tuple[Flight, int, float], status: int) -> None:
        flight, index, sent_at = entry
        shipment, count = flight.shipment, len(flight.bodies)
        action, outcome = self._judge.decide(status, shipment, self._link.session, part=f"part {index + 1} of {count}" if count > 1 else "")
        if isinstance(outcome, Refused):
            flight.refused(outcome)
            self._traffic.ended(flight)
            return
        if action == "THROTTLE":
            outcome = self._throttled(status, sent_at, outcome)
        self._traffic.postponed(entry, outcome)
        if action == "CONFIG":
            self._halted = True
            self._backoff.after(self._profile.config_probe_interval)
        if action in ("CONFIG", "REBIND"):
            self._give_session_up(outcome.detail, status)

    def _give_session_up(self, detail: str, status: int) -> None:
        """Reconnect, but use the answers that are on their way first."""
        self._failed("submit", detail, status)
        self._is_explained = True
        self._link.retire(f"{statuses.code_of(status)} to a submit")

    def _throttled(self, status: int, sent_at: float, outcome: Deferred) -> Deferred:
        now, growing = self._clock(), status != statuses.MSGQFUL
        if self._traffic.throttle.refused(now, sent_at, growing=growing):
            if growing:
                at, written = self._measured
                lately = (self._traffic.written - written) / max(now - at, 0.25)
                self._traffic.bucket.slow_down(self._profile.throttle_slowdown, max(self._rate_now, lately, self._settings.window))
            # A pause may outlast the caller's lease, and another bind may be free: what was not begun goes back.
            self._traffic.hand_back("throttled", self._traffic.throttle.left(now))
            self._failed("submit", outcome.detail, status)
            if self._state == "bound":
                self._move("throttled")
        return replace(outcome, retry_in=self._traffic.throttle.left(now))

    # -- details

    def _reply(self, session: int, command: int, sequence: int, status: int) -> None:
        if session == self._link.session and self._unanswered_receipts:
            self._unanswered_receipts -= 1
            self._link.answer(session, command, sequence, status)

    async def _end_session(self) -> None:
        session = self._session
        if session is not None and not session.done():
            session.cancel()
            await asyncio.wait({session})

    def _failed(self, where: Where, detail: str, status: int | None = None) -> None:
        code, name = (statuses.code_of(status), statuses.name_of(status)) if status is not None else ("", "")
        last, self._last_error = self._last_error, LastError(datetime.now(UTC), where, code, name, detail)
        if last is None or (last.where, last.command_status, last.detail) != (where, code, detail):
            log.warning("smpp bind", extra={"host": self._settings.host, "slot": self._slot, "where": where, "status": code, "detail": detail})
            self._tell()

    def _move(self, state: BindState) -> None:
        if state != self._state:
            self._state, self._since = state, datetime.now(UTC)
            self._tell()

    def _tell(self) -> None:
        try:
            self._on_change(self.status)
        except Exception:
            log.exception("the receiver of a status failed")


__all__ = ["Bind", "BindStatus", "LastError", "Receipt", "Shipment"]
