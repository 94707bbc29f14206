"""How fast a bind may submit: the rate that was agreed on, and what the SMSC makes of it by throttling."""

import math
from collections import deque
from datetime import timedelta

from app.gateways.profile import Profile

# A timer that fires late may catch up by so much, or by nine tenths of the gap between two parts where that is less than 20 ms.
_SLIP = 0.010
_SLIP_OF_SLOW = 0.020
_SECOND = 1.0
_GRAIN = 1e-9  # below what a clock can tell: without it rounding would hold a part of a burst back
_SLOWEST = 0.01  # of the full rate: throttled for an hour, a bind must not need another one to come back


class Bucket:
    """A token bucket in parts, for one bind. `rate` is parts a second now, None without a limit; `burst` parts may go at once.

    However late timers fire and whatever they catch up, no second carries more than the rate and one burst: the times of so many
    last parts are kept, and the next one waits until the oldest of them is a second old.
    """

    def __init__(self, rate: float | None, burst: int = 1) -> None:
        self._full = rate
        self._ceiling = 1.0  # where throttling began, of a bind without a limit
        self._burst = burst
        self._paid_at = -math.inf  # when the rate has made up for every part that went: the bucket is full again
        self._lately: deque[float] = deque(maxlen=1)
        self.rate: float | None = None
        self._gap = 0.0
        self._slip = 0.0
        self._depth = 0.0
        self._set(rate)

    @property
    def at(self) -> float:
        """When the next part may go."""
        lately = self._lately
        at = self._paid_at - self._depth
        return max(at, lately[0] + _SECOND) if len(lately) == lately.maxlen else at

    def idle(self, now: float) -> None:
        """Nothing was waiting until now: time that nobody used is not saved up beyond a burst."""
        self._paid_at = max(self._paid_at, now)

    def take(self, now: float, parts: int = 1) -> None:
        """Some parts go now, which `at` must have allowed. More than one at a time is one PDU that counts for several."""
        self._paid_at = max(self._paid_at, now - self._slip) + self._gap * parts
        if parts == 1:
            self._lately.append(now)
        else:
            self._lately.extend([now] * parts)

    def due(self, now: float, horizon: float) -> float:
        """How many parts fall due until `horizon` seconds from now."""
        if self.rate is None:
            return math.inf
        wait = max(max(self._paid_at, now) - self._depth, self.at) - now
        # The epsilon keeps 0.1 s * 10/s from being 0.9999 parts.
        return 0 if wait > horizon else math.floor((horizon - wait) * self.rate + 1e-9) + 1

    def slow_down(self, share: float, measured: float) -> None:
        """Less by a share, down to a hundredth; without a limit, less than what was measured."""
        if self._full is None and self.rate is None:
            self._ceiling = max(measured, 1.0)
        ceiling = self._full or self._ceiling
        self._set(max((self.rate or ceiling) * (1 - share), ceiling * _SLOWEST))

    def recover(self, share: float) -> None:
        """More by a share of the full rate, up to it; without a limit, up to where the throttling began, and then free again."""
        if self.rate is None or self.rate == self._full:
            return
        ceiling = self._full or self._ceiling
        faster = self.rate + ceiling * share
        self._set(self._full if faster >= ceiling else faster)

    def _set(self, rate: float | None) -> None:
        self.rate = rate
        self._gap = 1 / rate if rate else 0.0
        self._slip = max(_SLIP, min(_SLIP_OF_SLOW, 0.9 * self._gap)) if rate else 0.0
        self._depth = self._gap * (self._burst - 1) + _GRAIN
        self._lately = deque(self._lately, maxlen=math.floor(rate) + self._burst) if rate else deque(maxlen=1)


class Throttle:
    """The pauses that the SMSC asks for by 0x58 and 0x14. After a pause one part goes alone; the others follow when it was taken."""

    def __init__(self, profile: Profile) -> None:
        self._shortest = profile.throttle_pause_min
        self._longest = profile.throttle_pause_max
        self._queue_full = profile.queue_full_pause
        self._next = self._shortest
        self._since = -math.inf
        self.until = -math.inf
        self.engaged = False  # from the first refusal until a part is taken again

    def refused(self, now: float, sent_at: float, *, growing: bool) -> bool:
        """A submit was throttled. True when this begins a new pause: the rest of a window that was on its way counts as the same refusal."""
        if self.engaged and sent_at <= self._since:
            return False
        pause = self._next if growing else self._queue_full
        if growing:
            self._next = min(self._next * 2, self._longest)
        self._since, self.until, self.engaged = now, now + pause, True
        return True

    def passed(self, sent_at: float) -> None:
        """A submit was taken. Only one that was sent after the refusal says anything."""
        if sent_at > self._since:
            self.engaged = False
            self._next = self._shortest

    def left(self, now: float) -> timedelta:
        return timedelta(seconds=max(self.until - now, 0.0))
