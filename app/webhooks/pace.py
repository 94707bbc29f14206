"""When a webhook is tried again, and when an endpoint is left alone. All pure."""

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import chain, repeat
from typing import Literal

# After attempt n that failed. The last pause is repeated until two days are over.
PAUSES = (
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=10),
    timedelta(minutes=30),
    timedelta(hours=1),
    timedelta(hours=2),
    timedelta(hours=4),
    timedelta(hours=8),
)
GIVE_UP_AFTER = timedelta(days=2)
JITTER = 0.1
LONGEST_RETRY_AFTER = timedelta(hours=1)  # what an endpoint may ask for

TRIPS_AT = 5  # attempts that failed in a row, after which the endpoint rests
SHORTEST_REST, LONGEST_REST = timedelta(seconds=10), timedelta(minutes=10)
DISABLE_AFTER = timedelta(days=5)  # without a single attempt that succeeded

Verdict = Literal["delivered", "failed", "gone", "refused"]


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt. `verdict`: a 2xx; anything else, or nothing; 410; an address that we do not connect to."""

    verdict: Verdict
    at: datetime
    milliseconds: int
    status: int | None = None
    error: str | None = None
    retry_after: timedelta | None = None

    def as_json(self) -> dict[str, object]:
        return {"at": self.at.isoformat(), "status": self.status, "milliseconds": self.milliseconds, "error": self.error}


@dataclass(frozen=True, slots=True)
class Health:
    """How an endpoint does: attempts failed in a row, since when, and until when nothing is sent to it."""

    failures: int = 0
    failing_since: datetime | None = None
    rests_until: datetime | None = None
    last_error: str | None = None

    @property
    def is_failing(self) -> bool:
        return self.failures >= TRIPS_AT

    def rests(self, moment: datetime) -> bool:
        return self.rests_until is not None and moment < self.rests_until

    def is_given_up(self, moment: datetime) -> bool:
        return self.failing_since is not None and self.is_failing and moment - self.failing_since > DISABLE_AFTER


def next_attempt(attempts: int, queued_at: datetime, tried: Tried) -> datetime | None:
    """When to try again after `attempts` that failed; nothing when two days will be over by then."""
    pause = next(wait for number, wait in enumerate(chain(PAUSES, repeat(PAUSES[-1])), 1) if number >= attempts)
    pause = max(pause * random.uniform(1 - JITTER, 1 + JITTER), tried.retry_after or timedelta())
    due = tried.at + pause
    return due if due <= queued_at + GIVE_UP_AFTER else None


def after(health: Health, tried: Tried) -> Health:
    """How the endpoint does after this attempt. One that succeeds ends a bad spell; five failures in a row, or a Retry-After, give it a rest.

    What was under way when a rest began says nothing new: eight connections that fail at once are one trouble, and not eight."""
    if tried.verdict == "delivered":
        return Health()
    if health.is_failing and health.rests(tried.at):
        return replace(health, rests_until=max(health.rests_until or tried.at, tried.at + (tried.retry_after or timedelta())), last_error=tried.error)
    failures = health.failures + 1
    rest = timedelta()
    if failures >= TRIPS_AT:
        rest = min(SHORTEST_REST * 2 ** min(failures - TRIPS_AT, 16), LONGEST_REST) * random.uniform(1 - JITTER, 1 + JITTER)
    rest = max(rest, tried.retry_after or timedelta())
    return replace(
        health,
        failures=failures,
        failing_since=health.failing_since or tried.at,
        rests_until=max(tried.at + rest, health.rests_until or tried.at) if rest else health.rests_until,
        last_error=tried.error,
    )


def retry_after(header: str | None, moment: datetime) -> timedelta | None:
    """What a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date), an hour at the most; nothing for nonsense and for the past."""
    text = (header or "").strip()
    if text.isascii() and text.isdecimal():
        wait = timedelta(seconds=min(int(text[:9]), 10**9))
    else:
        try:
            said = parsedate_to_datetime(text)
            wait = (said if said.tzinfo else said.replace(tzinfo=UTC)) - moment
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return min(wait, LONGEST_RETRY_AFTER) if wait > timedelta() else None
