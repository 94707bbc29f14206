"""The submits of one bind: what is due goes to the wire, and every answer becomes an outcome, a pause or an end of the session."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from app.gateways.smpp import SmppSettings
from app.sending.outcome import Deferred, Refused
from app.sending.smpp import statuses
from app.sending.smpp.compose import Shipment
from app.sending.smpp.flight import Flight
from app.sending.smpp.judge import Judge
from app.sending.smpp.receipts import normaliser
from app.sending.smpp.traffic import OnOutcome, Traffic

if TYPE_CHECKING:
    from app.sending.smpp.side import Side

log = logging.getLogger(__name__)

# Seconds after a pause for the part that goes alone to be sent and answered. When nothing is sent at all, the bind says that it is free again:
# it would wait for ever for messages that take another way meanwhile.
PROBE = 10.0
OnLate = Callable[[Shipment, int, str], None]  # the message, the index of its part, the id that the SMSC gave it after all


class Submitter:
    """Judges answers, and slows down where it is asked to. `side` is the connection that submits go over."""

    side: "Side"

    def __init__(self, settings: SmppSettings, *, on_outcome: OnOutcome, on_late: OnLate, clock: Callable[[], float]) -> None:
        profile = settings.profile
        self._settings = settings
        self._profile = profile
        self._on_late = on_late
        self._clock = clock
        self._judge = Judge(profile)
        self._normalise = normaliser(profile, profile.msgid_resp_base)
        self.traffic = Traffic(settings, on_outcome=on_outcome, wake=lambda: None, clock=clock)
        self.rate_now = 0.0
        self._throttled_until = 0.0
        self._measured = (clock(), 0)

    def goes_over(self, side: "Side") -> None:
        self.side = side
        self.traffic.wake = side.link.wake

    @property
    def is_throttled(self) -> bool:
        """Whether the SMSC has asked us to slow down, in this session, and nothing was taken since."""
        return self.traffic.throttle.engaged and self._clock() < self._throttled_until

    def begins(self) -> None:
        """A new session: submits may go."""
        self._throttled_until = 0.0
        self.traffic.bucket.idle(self._clock())
        self.traffic.open = True

    # -- what the session asks (Submits)

    def submit_answered(self, sequence: int, status: int, identity: bytes) -> None:
        entry = self.traffic.answered(sequence)
        if entry is None:
            self._came_late(sequence, status, identity)
            return
        if status:
            self._refused(entry, status)
            return
        self._judge.passed(entry[0].shipment.sender)
        self.traffic.taken(entry, self._normalise(identity.decode("latin-1")))

    def write_due(self) -> tuple[bytes, float]:
        return self.traffic.write_due(self._clock())

    def next_sequence(self) -> int:
        return self.traffic.next_sequence()

    def has_unanswered(self) -> bool:
        return bool(self.traffic.unanswered)

    def tick(self, now: float) -> str | None:
        """Time-outs, rates, and the rate's recovery. Returns why the session should end, if it should."""
        traffic = self.traffic
        if traffic.sweep(now):
            return f"{traffic.silent_in_a_row or 'too many'} submits unanswered"
        at, written = self._measured
        if now - at >= 1:
            self.rate_now = (traffic.written - written) / (now - at)
            self._measured = (now, traffic.written)
            traffic.bucket.recover(self._profile.throttle_recovery * (now - at) / 60)
        return None

    # -- what an answer means

    def _refused(self, entry: tuple[Flight, int, float], status: int) -> None:
        flight, index, sent_at = entry
        shipment, count = flight.shipment, len(flight.bodies)
        action, outcome = self._judge.decide(status, shipment, self.side.link.session, part=f"part {index + 1} of {count}" if count > 1 else "")
        if isinstance(outcome, Refused):
            flight.refused(outcome)
            self.traffic.ended(flight)
            return
        if action == "THROTTLE":
            outcome = self._throttled(status, sent_at, outcome)
        self.traffic.postponed(entry, outcome)
        if action == "CONFIG":
            self.side.halt()
        if action in ("CONFIG", "REBIND"):
            self.side.leave(f"{statuses.code_of(status)} to a submit", detail=outcome.detail, status=status)

    def _throttled(self, status: int, sent_at: float, outcome: Deferred) -> Deferred:
        now, growing = self._clock(), status != statuses.MSGQFUL
        if self.traffic.throttle.refused(now, sent_at, growing=growing):
            if growing:
                at, written = self._measured
                lately = (self.traffic.written - written) / max(now - at, 0.25)
                self.traffic.bucket.slow_down(self._profile.throttle_slowdown, max(self.rate_now, lately, self._settings.window))
            # A pause may outlast the caller's lease, and another bind may be free: what was not begun goes back.
            self.traffic.hand_back("throttled", self.traffic.throttle.left(now))
            self._throttled_until = self.traffic.throttle.until + PROBE
            self.side.failed("submit", outcome.detail, status)
            self.side.changed()
        return replace(outcome, retry_in=self.traffic.throttle.left(now))

    def _came_late(self, sequence: int, status: int, identity: bytes) -> None:
        """An answer to nothing, or to a submit whose time was up. That it was taken is worth knowing even then; a refusal changes nothing any more."""
        late = self.traffic.late(sequence)
        if late is None or status:
            return
        flight, index = late
        written = self._normalise(identity.decode("latin-1"))
        if flight.on_wire:  # its other parts are still out, so nothing has been told about it
            flight.found(index, written)
            return
        try:
            self._on_late(flight.shipment, index, written)
        except Exception:
            log.exception("the receiver of a late answer failed", extra={"key": str(flight.shipment.key)})
