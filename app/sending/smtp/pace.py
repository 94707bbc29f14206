"""When the next letter may go: a token bucket that holds one token, kept as the time at which that token is there."""

AHEAD = 0.1  # seconds: what falls due within them may be claimed now, so that a claim never makes a letter late
NO_LIMIT = 1_000_000


class Pace:
    """Times are seconds of one monotonic clock; the caller reads it."""

    def __init__(self, rate_per_second: float | None) -> None:
        self._rate = rate_per_second
        self._next = 0.0

    def book(self, now: float) -> float:
        """Takes the next token. Returns when it falls due: the letter goes then and not before."""
        if self._rate is None:
            return now
        due = max(self._next, now)
        self._next = due + 1 / self._rate
        return due

    def allowance(self, now: float) -> int:
        """How many tokens fall due shortly."""
        if self._rate is None:
            return NO_LIMIT
        ahead = now + AHEAD - max(self._next, now)
        return int(ahead * self._rate) + 1 if ahead >= 0 else 0

    def wait(self, now: float) -> float:
        """Seconds until allowance() is above 0."""
        return 0.0 if self._rate is None else max(0.0, self._next - AHEAD - now)
