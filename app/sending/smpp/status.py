"""How one bind does, for the status of its gateway."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

BindState = Literal["down", "connecting", "bound", "throttled", "draining", "stopped"]
Where = Literal["connect", "bind", "submit", "link"]

_WORST_FIRST: tuple[BindState, ...] = ("stopped", "down", "connecting", "draining", "throttled", "bound")


@dataclass(frozen=True, slots=True)
class LastError:
    """What went wrong last. `command_status` and `name` are empty where the SMSC gave none."""

    at: datetime
    where: Where
    command_status: str
    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class BindStatus:
    """`rate_now` is what was written in the last second; `rate_limit` is what throttling has left of the agreed rate, None without one."""

    slot: int
    state: BindState
    host: str
    since: datetime
    last_error: LastError | None
    window_in_use: int
    rate_now: float
    rate_limit: float | None
    last_activity_at: datetime | None


def state_of(sides: Sequence[BindState]) -> BindState:
    """One word for all connections of a bind: it is bound when each of them is."""
    return min(sides, key=_WORST_FIRST.index)
