"""When to connect again: the retry timer that aiosmpplib's session loop asks."""

import asyncio
import random
from collections.abc import Callable

from aiosmpplib.retrytimer import AbstractRetryTimer

from app.gateways.profile import Profile


class Backoff(AbstractRetryTimer):  # type: ignore[misc]  # the library has no types
    """Doubling pauses with jitter. Only a session that lasted takes them back: an SMSC that accepts a bind and closes at once is not stable."""

    def __init__(self, profile: Profile, clock: Callable[[], float]) -> None:
        self._least = profile.reconnect_min
        self._most = profile.reconnect_max
        self._jitter = profile.reconnect_jitter
        self._stable_after = profile.stable_after
        self._clock = clock
        self._next = self._least
        self._bound_at: float | None = None
        self._instead: float | None = None
        self._ended = asyncio.Event()

    def reset(self) -> None:
        """Called by the session loop after every bind, which proves nothing yet; but what other hosts asked for before it is of no interest."""
        self._bound_at = self._clock()
        self._instead = None

    def next_delay(self) -> float:
        return self._next

    def after(self, seconds: float) -> None:
        """The next pause lasts so long, whatever came before (an old session that has to time out, settings that somebody must change)."""
        self._instead = seconds

    async def wait(self) -> None:
        """Pause before the next attempt, or until `end()`."""
        if self._bound_at is not None and self._clock() - self._bound_at >= self._stable_after:
            self._next = self._least
        self._bound_at = None
        if self._instead is not None:
            pause, self._instead = self._instead, None
        else:
            # Upwards only: "at least one, two, four seconds" stays true, and many binds do not come back together.
            pause = self._next * random.uniform(1, 1 + self._jitter)
            self._next = min(self._next * 2, self._most)
        try:
            async with asyncio.timeout(pause):
                await self._ended.wait()
        except TimeoutError:
            return

    def end(self) -> None:
        """No pause any more: the bind stops."""
        self._ended.set()
