"""What is on its way over one bind: the parts that wait, the window, the pace, and exactly one outcome for each message.

    ship -> waiting -> (token and window) -> unanswered -> outcome -> release
                ^                                |
                `------- put off, part of it taken

`in_use` counts parts from ship() to release(): the room that the caller may claim. The wire's own window counts PDUs without
an answer. A part whose answer did not come in time keeps its place in the window until the link ends: the SMSC still counts it.
"""

import logging
import math
from collections import deque
from collections.abc import Callable
from datetime import timedelta

from app.gateways.smpp import SmppSettings
from app.sending.outcome import Accepted, Deferred, Outcome
from app.sending.smpp import pdu
from app.sending.smpp.compose import Shipment
from app.sending.smpp.flight import Flight
from app.sending.smpp.limits import Bucket, Throttle

log = logging.getLogger(__name__)

HORIZON = 0.1  # seconds: claim what can go so soon, and no more
RETRY_INSIDE = 1.0  # seconds before the missing part of a half-taken message goes again
TRIES_INSIDE = 5
NOW = timedelta(0)
OnOutcome = Callable[[Shipment, Outcome], None]


class Traffic:
    """The messages of one bind. `wake` is called when something may be written; `clock` gives seconds that only grow."""

    def __init__(self, settings: SmppSettings, *, on_outcome: OnOutcome, wake: Callable[[], None], clock: Callable[[], float]) -> None:
        self._window = settings.window
        self._timeout = settings.profile.response_timeout
        self._profile = settings.profile
        self._on_outcome = on_outcome
        self.wake = wake
        self._clock = clock
        self.bucket = Bucket(settings.rate_of_bind, settings.profile.burst)
        self.throttle = Throttle(settings.profile)
        self._waiting: deque[tuple[Flight, int]] = deque()
        self._resting: list[tuple[float, Flight]] = []  # half-taken messages until their missing parts go again
        self.unanswered: dict[int, tuple[Flight, int, float]] = {}  # sequence number -> part, in the order of writing
        self._ghosts: dict[int, tuple[Flight, int]] = {}  # sequence number -> part whose time is up; never more than half a window
        self._sequence = 0
        self.in_use = 0
        self.written = 0
        self.silent_in_a_row = 0
        self.open = False

    # -- what the claim asks

    def room(self, now: float) -> int:
        """Parts that may be shipped now."""
        if not self.open or now < self.throttle.until:
            return 0
        room = self._places - self.in_use
        if room <= 0:
            return 0
        return int(max(0, min(room, self.bucket.due(now, HORIZON) - len(self._waiting))))

    def next_chance(self, now: float) -> float:
        """Seconds until a token or the end of a pause may give room; infinity where only an answer or a release can."""
        if not self.open or self.in_use >= self._places:
            return math.inf
        gap = 1 / self.bucket.rate if self.bucket.rate else 0.0
        # What waits keeps the wire busy meanwhile: claim half a horizon at a time, and not one message for each token.
        ahead = HORIZON / 2 if self._waiting else HORIZON
        return max(self.throttle.until - now, self.bucket.at + gap * len(self._waiting) - now - ahead, 0.0)

    def ship(self, flight: Flight) -> None:
        self.in_use += flight.parts
        if not self._waiting:
            self.bucket.idle(self._clock())
        for index in range(len(flight.bodies)):
            self._waiting.append((flight, index))
        self.wake()

    def conclude(self, flight: Flight, outcome: Outcome) -> None:
        try:
            self._on_outcome(flight.shipment, outcome)
        except Exception:
            # The outcome belongs to the caller from here on; its error must not stop the other messages of the link.
            log.exception("the receiver of an outcome failed", extra={"key": str(flight.shipment.key)})

    @property
    def _places(self) -> int:
        """Parts that may be on the wire now. A ghost takes a place of the window, but never that of the part that goes alone after a pause."""
        places = self._window - len(self._ghosts)
        return min(places, 1) if self.throttle.engaged else places

    # -- what the wire does

    def write_due(self, now: float) -> tuple[bytes, float]:
        """The PDUs that may go now, and the seconds until the next may; infinity when an answer has to come first."""
        waiting, unanswered, bucket = self._waiting, self.unanswered, self.bucket
        window = self._places
        if now < self.throttle.until:
            return b"", self.throttle.until - now
        pieces: list[bytes] = []
        paced = bucket.rate is not None
        while waiting and len(unanswered) < window:
            if paced and bucket.at > now:
                self.written += len(pieces)
                return b"".join(pieces), bucket.at - now
            flight, index = waiting.popleft()
            if paced:
                bucket.take(now, flight.cost)
            if not flight.started_at:
                flight.started_at = now
            sequence = self.next_sequence()
            body = flight.bodies[index]
            pieces.append(pdu.HEADER.pack(16 + len(body), 4, 0, sequence) + body)
            flight.on_wire += 1
            unanswered[sequence] = (flight, index, now)
        self.written += len(pieces)
        return b"".join(pieces), math.inf

    def next_sequence(self) -> int:
        """1 to 0x7FFFFFFF and round again (SMPP 3.4, 3.2)."""
        self._sequence = sequence = self._sequence % 0x7FFFFFFF + 1
        return sequence

    def answered(self, sequence: int) -> tuple[Flight, int, float] | None:
        """The part that an answer belongs to; None for a late or a foreign one."""
        self.silent_in_a_row = 0
        entry = self.unanswered.pop(sequence, None)
        if self._waiting:
            self.wake()
        return entry

    def late(self, sequence: int) -> tuple[Flight, int] | None:
        """The part of a late answer; the SMSC has room for one more again. None for an answer that nobody asked for."""
        entry = self._ghosts.pop(sequence, None)
        if entry is not None and self._waiting:
            self.wake()
        return entry

    def taken(self, entry: tuple[Flight, int, float], identity: str) -> None:
        flight, index, sent_at = entry
        if self.throttle.engaged:
            self.throttle.passed(sent_at)
        if len(flight.ids) == 1:
            flight.on_wire = 0
            flight.ids[0] = identity
            self.conclude(flight, Accepted((identity,)))
            return
        flight.taken(index, identity)
        self._settle(flight)

    def postponed(self, entry: tuple[Flight, int, float], outcome: Deferred) -> None:
        flight, index, _ = entry
        self._hold_rest(flight)
        flight.postponed(index, outcome)
        self._settle(flight)

    def ended(self, flight: Flight) -> None:
        """A part was refused for good or lost, and the flight knows it: nothing more of it is written."""
        self._hold_rest(flight)
        self._settle(flight)

    def sweep(self, now: float) -> bool:
        """Give up on answers that are overdue, and send again what rested. True when the link should be given up."""
        for sequence, entry in list(self.unanswered.items()):
            flight, _, sent_at = entry
            # The parts that go again share the time of the first: the caller's lease is one response time-out long, and not two.
            if (flight.started_at if flight.tries else sent_at) + self._timeout > now:
                continue
            del self.unanswered[sequence]
            self._ghosts[sequence] = (flight, entry[1])
            self.silent_in_a_row += 1
            flight.unanswered(f"no answer within {self._timeout:g} s")
            self.ended(flight)
        self._give_up_rests(now)
        self._resume(now)
        if self._waiting:
            self.wake()  # a place may be free without any answer
        # Half a window that is never answered would halve the throughput for good.
        return self.silent_in_a_row >= self._profile.reconnect_after_timeouts or 2 * len(self._ghosts) >= max(self._window, 2)

    def link_lost(self, detail: str) -> None:
        """The connection is gone: what was written and not answered is Unknown, what was not written goes back."""
        self.open = False
        out, self.unanswered = self.unanswered, {}
        flights = dict.fromkeys(entry[0] for entry in out.values())
        flights |= dict.fromkeys(flight for flight, _ in self._waiting)
        flights |= dict.fromkeys(flight for _, flight in self._resting)
        self._waiting.clear()
        self._resting.clear()
        self._ghosts.clear()
        self.silent_in_a_row = 0
        for entry in out.values():
            entry[0].unanswered(detail)
        for flight in flights:
            if flight.is_whole and flight.refusal is None:
                self.conclude(flight, Deferred("link_lost", NOW, spends_attempt=False, detail=detail))
            else:
                self.conclude(flight, flight.outcome() or flight.partial(detail))

    def close_door(self, reason: str) -> None:
        """No new messages: what was not begun goes back at once, what was begun may be finished."""
        self.open = False
        self.hand_back(reason, NOW)

    def hand_back(self, reason: str, retry_in: timedelta) -> None:
        """Messages of which nothing was written are Deferred, without a fault of theirs."""
        fresh = dict.fromkeys(flight for flight, _ in self._waiting if not flight.started_at)
        self._waiting = deque(part for part in self._waiting if part[0].started_at)
        for flight in fresh:
            self.conclude(flight, Deferred(reason, retry_in, spends_attempt=False))

    @property
    def is_idle(self) -> bool:
        return not (self.unanswered or self._waiting or self._resting)

    # -- messages of several parts

    def _settle(self, flight: Flight) -> None:
        outcome = flight.outcome()
        if outcome is not None:
            self.conclude(flight, outcome)
        elif not flight.on_wire and flight.put_off:
            self._rest(flight)

    def _hold_rest(self, flight: Flight) -> None:
        """Keep the unwritten parts back until it is known what became of those on the wire."""
        if len(flight.bodies) > 1 and self._waiting:
            flight.put_off += [index for waiting, index in self._waiting if waiting is flight]
            self._waiting = deque(part for part in self._waiting if part[0] is not flight)

    def _rest(self, flight: Flight) -> None:
        at = max(self._clock() + RETRY_INSIDE, self.throttle.until)
        flight.tries += 1
        if flight.tries > TRIES_INSIDE or self._is_late(flight, at):
            detail = flight.deferral.detail if flight.deferral else ""
            self.conclude(flight, flight.partial(f"the rest was not taken in time: {detail}"))
            return
        self._resting.append((at, flight))

    def _is_late(self, flight: Flight, at: float) -> bool:
        """Whether a part that goes again at that time would be given up before it can be answered."""
        return flight.started_at + self._timeout <= at

    def _give_up_rests(self, now: float) -> None:
        """What was to go again and is kept back by one more pause until its time is over is not written any more."""
        for flight in dict.fromkeys(flight for flight, _ in self._waiting if flight.tries and self._is_late(flight, now)):
            self._hold_rest(flight)
            if not flight.on_wire:  # else it ends with the part that is out
                self.conclude(flight, flight.partial("the rest could not be written in time"))

    def _resume(self, now: float) -> None:
        due = [flight for at, flight in self._resting if at <= now]
        if not due:
            return
        self._resting = [(at, flight) for at, flight in self._resting if at > now]
        for flight in due:
            self._waiting.extendleft((flight, index) for index in sorted(flight.put_off, reverse=True))
            flight.put_off = []
            flight.deferral = None
        self.wake()
