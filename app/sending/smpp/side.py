"""One connection of a bind - its only one, or the transmitter or the receiver of a pair: kept up, and its life turned into a state."""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from app.gateways.hosts import Endpoint
from app.gateways.smpp import SmppSettings
from app.sending.smpp import statuses
from app.sending.smpp.backoff import Backoff
from app.sending.smpp.far_side import Submits
from app.sending.smpp.hours import Blackout
from app.sending.smpp.link import Link
from app.sending.smpp.opening import Mode
from app.sending.smpp.receipts import Answer, Receipt, ReceiptReader
from app.sending.smpp.status import BindState, LastError, Where

log = logging.getLogger(__name__)

# Receipts handed over and not yet answered. Beyond this the store is not keeping up, and the SMSC keeps them better than our memory.
RECEIPTS_IN_HAND = 10_000
ALERT_AFTER = 3  # attempts and short sessions in a row that came to nothing
_SAME_ERRORS = 32
_LOOK_AGAIN = 60.0  # seconds; a long pause is slept in pieces, for the clock of the wall may be put right meanwhile
_UNBIND_PATIENCE = 5.0
_RECEIPTS_AWAITED = 2.0  # seconds of a session that is to end
_LONGEST_DRAIN = 30.0  # seconds that a session may take to end when nothing hurries it


@dataclass(frozen=True, slots=True)
class Clocks:
    """`now` counts seconds that only grow; `wall` is what a clock on the wall shows, with its zone."""

    now: Callable[[], float]
    wall: Callable[[], datetime]


class Owner(Protocol):
    """The bind that a side belongs to."""

    @property
    def is_stopping(self) -> bool: ...
    def side_changed(self) -> None: ...
    def side_lost(self, side: "Side", why: str) -> None: ...
    def side_ticks(self, side: "Side", now: float) -> str | None: ...


class Side:
    """Connects, binds and binds again until it is told to stop. Receipts that arrive on it are answered on it."""

    def __init__(
        self,
        settings: SmppSettings,
        owner: Owner,
        submits: Submits,
        *,
        mode: Mode,
        endpoints: tuple[Endpoint, ...],
        source_port: int,
        slot: int,
        reader: ReceiptReader,
        on_receipt: Callable[[Receipt], None],
        clocks: Clocks,
        blackout: Blackout | None,
    ) -> None:
        self.mode: Mode = mode
        self.state: BindState = "down"
        self.last_error: LastError | None = None
        self.lost_at: float | None = None  # None while it is bound, and before it ever was
        self.receipts_in_hand = 0
        self._profile = settings.profile
        self._fatal = frozenset(int(status, 16) for status in settings.profile.fatal_bind_statuses)
        self._owner = owner
        self._submits = submits
        self._has_several_hosts = len(endpoints) > 1
        self._reader = reader
        self._on_receipt = on_receipt
        self._slot = slot
        self._clocks = clocks
        self._blackout = blackout
        self._backoff = Backoff(settings.profile, clocks.now)
        self.link = Link(settings, self, submits, self._backoff, clocks.now, mode=mode, endpoints=endpoints, source_port=source_port)
        self._session: asyncio.Task[None] | None = None
        self._halted = False  # by wrong settings or a blackout: the state of a session that ends now is "stopped"
        self._is_explained = False  # why this session ends is known and told; the closing of the socket is only its consequence
        self._answer: Answer = lambda _command, _sequence, _status: None
        self._bound_at = 0.0
        self._leave_at: float | None = None
        self._retired_at = 0.0
        self._in_vain = 0
        self._logged: set[tuple[str, str, str]] = set()

    # -- the bind's side

    async def run(self) -> None:
        """Keep the connection up until the bind stops. Raises nothing but CancelledError."""
        try:
            while not self._owner.is_stopping:
                self._session = asyncio.create_task(self.link.start(), name=f"smpp session {self.link.host} {self.mode} {self._slot}")
                await asyncio.wait({self._session})
                if not self._session.cancelled() and (error := self._session.exception()) is not None:
                    log.error("the session loop failed and is started again", exc_info=error)
                    self.link.give_up("the session loop failed")
                    await self._backoff.wait()
        finally:
            await self._end_session()

    async def stop(self) -> None:
        """Unbind and close; nothing is awaited any more."""
        self._backoff.end()
        if self.link.is_bound:
            try:
                async with asyncio.timeout(_UNBIND_PATIENCE):
                    await self.link.stop()
            except TimeoutError:
                log.warning("the session did not end by itself")
        await self._end_session()

    def failed(self, where: Where, detail: str, status: int | None = None, *, level: int = logging.WARNING) -> None:
        """Note what went wrong. The same thing is logged once until a session has lasted."""
        code, name = (statuses.code_of(status), statuses.name_of(status)) if status is not None else ("", "")
        last, self.last_error = self.last_error, LastError(datetime.now(UTC), where, code, name, detail)
        mark = (where, code, detail)
        if mark not in self._logged:
            if len(self._logged) >= _SAME_ERRORS:
                self._logged.clear()
            self._logged.add(mark)
            log.log(level, "smpp bind", extra=self._facts | {"where": where, "status": code, "detail": detail})
        if last is None or (last.where, last.command_status, last.detail) != mark:
            self.changed()

    def explain(self, where: Where, detail: str) -> None:
        """Say why the session is about to end, before its socket is closed."""
        self.failed(where, detail)
        self._is_explained = True

    def leave(self, why: str, *, detail: str, status: int) -> None:
        """End this session because of an answer to a submit, but use the answers that are on their way first."""
        self.failed("submit", detail, status)
        self._is_explained = True
        self.link.retire(why)

    def halt(self) -> None:
        """The settings are wrong: when this session has ended, nothing is tried until the next probe."""
        self._halted = True
        self._backoff.after(self._profile.config_probe_interval)

    def changed(self) -> None:
        """What is told of the bind may be another thing now."""
        self._owner.side_changed()

    # -- the session's side (FarSide)

    def connecting(self) -> bool:
        if self._owner.is_stopping or self._rests():
            return False
        self._halted = False
        self._move("connecting")
        return True

    def not_opened(self, error: str, *, is_connected: bool) -> None:
        self.failed("bind" if is_connected else "connect", self._at_host(error))

    def refused(self, status: int) -> bool:
        fatal = status in self._fatal or self._profile.status_overrides.get(statuses.code_of(status)) == "CONFIG"
        self.failed("bind", self._at_host("the SMSC refused the bind"), status, level=logging.ERROR if fatal else logging.WARNING)
        if fatal:
            self.halt()
        elif status == statuses.ALYBND:
            self._backoff.after(self._profile.alybnd_wait)
        return not fatal

    def all_failed(self) -> None:
        self._tried_in_vain()
        self._move("stopped" if self._halted else "down")

    def bound(self) -> None:
        self._answer = partial(self._reply, self.link.session)
        self.receipts_in_hand = 0
        self._is_explained = False
        self._bound_at = now = self._clocks.now()
        age = self._profile.max_session_age
        # A little before its time, or all binds of a gateway would be away together.
        self._leave_at = now + age * random.uniform(0.9, 1) if age else None
        self.lost_at = None
        self._move("bound")

    def delivered(self, command: int, sequence: int, body: bytes) -> None:
        if self.receipts_in_hand >= RECEIPTS_IN_HAND:
            self.link.answer(self.link.session, command, sequence, self._reader.nack_status)
            return
        self.receipts_in_hand += 1
        try:
            receipt = self._reader.read(command, sequence, body, self._answer)
        except Exception:
            # The reader promises not to; but one poisonous PDU, redelivered for ever, would take the whole bind down for ever.
            log.exception("a receipt could not be read", extra={"raw": body.hex()})
            receipt = Receipt(command, sequence, body, self._answer, self._reader.nack_status)
        try:
            self._on_receipt(receipt)
        except Exception:
            log.exception("the receiver of a receipt failed")
            receipt.nack()

    def tick(self, now: float) -> str | None:
        """The clock of the session. Returns why it should end, if it should."""
        if self._in_vain and now - self._bound_at >= self._profile.stable_after:
            self._in_vain = 0
            self._logged.clear()
        if not self.link.is_retiring:
            if self._rests():
                self._leave_in_peace("blackout")
            elif self._leave_at is not None and now >= self._leave_at:
                self._leave_in_peace("max_session_age is over")
        return self._owner.side_ticks(self, now)

    def retiring(self, why: str) -> None:
        self._retired_at = self._clocks.now()
        self._move("draining")
        if not self._is_explained:
            self.failed("link", why)
            self._is_explained = True

    def has_unanswered(self) -> bool:
        # New receipts come as long as the session lives: they are only worth a moment, for the SMSC keeps what is not acknowledged.
        return self._submits.has_unanswered() or (self.receipts_in_hand > 0 and self._clocks.now() - self._retired_at < _RECEIPTS_AWAITED)

    def lost(self, why: str) -> None:
        self.receipts_in_hand = 0
        now = self.lost_at = self._clocks.now()
        if not self._owner.is_stopping:  # then it is the bind's state that counts
            self.state = "stopped" if self._halted else "down"
        self._owner.side_lost(self, why)
        if self._owner.is_stopping:
            return
        if not self._is_explained:
            self.failed("link", why)
        if now - self._bound_at < self._profile.stable_after and not self._halted:
            self._tried_in_vain()
        self.changed()

    # -- details

    def _rests(self) -> bool:
        """Whether these are hours without a bind; if so, the next attempt is put off until they are over."""
        wall = self._clocks.wall()
        until = self._blackout.until(wall) if self._blackout is not None else None
        if until is None:
            return False
        self._halted = True
        self._backoff.after(max(0.05, min((until - wall).total_seconds(), _LOOK_AGAIN)))
        if not self.link.is_bound:
            self._move("stopped")
        self.failed("link", f"blackout until {until:%H:%M}", level=logging.INFO)
        return True

    def _leave_in_peace(self, why: str) -> None:
        """Nothing is wrong: whatever is on the wire may have its answer."""
        self._is_explained = True
        self.link.retire(why, grace=min(self._profile.response_timeout, _LONGEST_DRAIN))

    def _tried_in_vain(self) -> None:
        self._in_vain += 1
        if self._in_vain == ALERT_AFTER and not self._halted:
            detail = self.last_error.detail if self.last_error is not None else ""
            log.error("smpp bind does not come up, or does not stay up", extra=self._facts | {"attempts": self._in_vain, "detail": detail})

    def _at_host(self, sentence: str) -> str:
        """With several hosts it must be said which one it was."""
        return f"{self.link.host}: {sentence}" if self._has_several_hosts else sentence

    def _reply(self, session: int, command: int, sequence: int, status: int) -> None:
        if session == self.link.session and self.receipts_in_hand:
            self.receipts_in_hand -= 1
            self.link.answer(session, command, sequence, status)

    async def _end_session(self) -> None:
        session = self._session
        if session is not None and not session.done():
            session.cancel()
            await asyncio.wait({session})

    @property
    def _facts(self) -> dict[str, object]:
        return {"host": self.link.host, "slot": self._slot, "mode": self.mode}

    def _move(self, state: BindState) -> None:
        if state != self.state:
            self.state = state
            self.changed()
