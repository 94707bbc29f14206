"""How fast a bind may submit: the rate that was agreed on, and what the SMSC makes of it by throttling."""

import math
from datetime import timedelta

from app.gateways.profile import Profile

# A timer that fires late may catch up by so much. It is shorter than the gap between two parts (up to 100 a second) or a hundredth of
# a second's allowance, so that no second carries more than the rate and one part (or one per cent).
_SLIP = 0.010
_SLIP_OF_SLOW = 0.020


class Bucket:
    """A token bucket of depth one, in parts, for one bind. `rate` is parts a second now, None without a limit."""

    def __init__(self, rate: float | None) -> None:
        self._full = rate
        self._at = -math.inf
        self.rate: float | None = None
        self._gap = 0.0
        self._slip = 0.0
        self._set(rate)

    @property
    def at(self) -> float:
        """When the next part may go."""
        return self._at

    def idle(self, now: float) -> None:
        """Nothing was waiting until now: time that nobody used is not saved up."""
        self._at = max(self._at, now)

    def take(self, now: float, parts: int = 1) -> None:
        """Some parts go now, which `at` must have allowed."""
        self._at = max(self._at, now - self._slip) + self._gap * parts

    def due(self, now: float, horizon: float) -> float:
        """How many parts fall due until `horizon` seconds from now."""
        if self.rate is None:
            return math.inf
        wait = max(self._at - now, 0.0)
        # The epsilon keeps 0.1 s * 10/s from being 0.9999 parts.
        return 0 if wait > horizon else math.floor((horizon - wait) * self.rate + 1e-9) + 1

    def slow_down(self, share: float, measured: float) -> None:
        """Less by a share; without a limit, less than what was measured."""
        self._set((self.rate or max(measured, 1.0)) * (1 - share))
        if self._full is None:
            self._ceiling = max(measured, 1.0)

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
