"""How a gateway does: a bind counts its answers and says in its status what it makes of them; whoever chooses a gateway reads that. Pure.

A gateway's own errors are those that another gateway might not have had: it throttles, is out of order, wants other settings, does not answer.
Where they are too large a share of the answers it is failing: it keeps 5 % of the accounts, and gets the others back little by little.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from app.core.db import as_utc
from app.gateways.profile import Profile
from app.gateways.router import Standing

LEAST_SHARE = 0.05
BINS = 12  # of the window: so much of it is forgotten at a time
UP = ("bound", "throttled")
HOLD = 20.0  # seconds that a slot's owner asks for: a slot that nobody has pushed on yet was taken so long before its end


class Health:
    """One bind's. `down_since` is what was known under earlier settings: how long it is down does not depend on them.

    A bind that comes up and is gone again before `stable_after` was never really there: it has been down since it was lost first."""

    def __init__(self, profile: Profile, clock: Callable[[], float] = time.time, down_since: float | None = None) -> None:
        self._profile, self._clock = profile, clock
        self._bins: deque[tuple[float, int, int]] = deque()  # begin, answers, errors
        self._answers = self._errors = 0
        self._failing_since: float | None = None
        self._lost_at: float | None = down_since or clock()  # kept while a bind is up that may be gone in a moment
        self._up_since: float | None = None
        self._throttled_since: float | None = None

    @property
    def down_since(self) -> float | None:
        """None while it is up."""
        return self._lost_at if self._up_since is None else None

    @property
    def share(self) -> float:
        """Of the accounts that this gateway should serve now."""
        if self._failing_since is None:
            return 1.0
        gone_by = (self._clock() - self._failing_since) / self._profile.failing_return
        if gone_by >= 1:
            self._failing_since = None
            return 1.0
        return LEAST_SHARE + (1 - LEAST_SHARE) * max(gone_by, 0.0)

    def answered(self, *, well: bool) -> bool:
        """One submit was answered, or should have been. True when that makes the gateway failing."""
        moment = self._clock()
        self._forget(moment)
        if not self._bins or moment - self._bins[-1][0] >= self._profile.failing_window / BINS:
            self._bins.append((moment, 0, 0))
        begin, answers, errors = self._bins[-1]
        self._bins[-1] = (begin, answers + 1, errors + (not well))
        self._answers, self._errors = self._answers + 1, self._errors + (not well)
        if well or not self._is_too_much():
            return False
        # What comes from now on is judged by itself: the same errors must not make it failing again when they are old.
        self._failing_since = moment
        self._bins.clear()
        self._answers = self._errors = 0
        return True

    def moved(self, state: str) -> None:
        """The bind is in this state from now on."""
        moment = self._clock()
        if state in UP:
            self._up_since = self._up_since or moment
        elif self._up_since is not None:
            was_stable = self._lost_at is None or moment - self._up_since >= self._profile.stable_after
            self._lost_at, self._up_since = moment if was_stable else self._lost_at, None
        self._throttled_since = None if state != "throttled" else self._throttled_since or moment

    def as_json(self) -> dict[str, Any]:
        """For the status of the bind."""
        self._forget(self._clock())
        share = round(self.share, 3)
        return {
            "share": share,
            "failing_since": _told(self._failing_since),
            "down_since": _told(self.down_since),
            "throttled_since": _told(self._throttled_since),
            "answers": self._answers,
            "errors": self._errors,
        }

    def _is_too_much(self) -> bool:
        profile = self._profile
        return profile.failing_share < 1 and self._answers >= profile.failing_least and self._errors >= profile.failing_share * self._answers

    def _forget(self, moment: float) -> None:
        while self._bins and moment - self._bins[0][0] >= self._profile.failing_window:
            _, answers, errors = self._bins.popleft()
            self._answers, self._errors = self._answers - answers, self._errors - errors


def standing_of(slots: Sequence[Sequence[Any]], *, paused: bool, patience: float, since: float, now: float) -> Standing:
    """How an SMPP gateway does, by what its binds say: [alive, until, state, health] of each slot, times in seconds of the epoch.

    `patience` is how long it may be down or throttled before what is queued goes elsewhere, `since` when it was made."""
    shares, troubles = [], []
    for alive, until, state, said in slots:
        health = said or {}
        trouble = _trouble(alive, until, state, health, now)
        if trouble is None or (alive and state in UP and now - trouble <= patience):
            shares.append(float(health.get("share", 1.0)))
        else:
            troubles.append(trouble)
    if shares:
        return Standing(is_open=not paused, share=min(1.0, sum(shares) / len(shares)))
    return Standing(is_open=not paused, is_up=False, is_lost=now - max(troubles, default=since) > patience)


def _trouble(alive: bool, until: float, state: str | None, health: dict[str, Any], now: float) -> float | None:
    """Since when one bind has not sent as it should; None: it does."""
    if not alive:
        return min(until, _moment(health.get("down_since")) or until)
    if state == "throttled":
        return _moment(health.get("throttled_since")) or now
    if state == "bound":
        return None
    return _moment(health.get("down_since")) or until - HOLD


def _moment(told: str | None) -> float | None:
    return datetime.fromisoformat(told).timestamp() if told else None


def _told(moment: float | None) -> str | None:
    return as_utc(datetime.fromtimestamp(moment, UTC)) if moment is not None else None
