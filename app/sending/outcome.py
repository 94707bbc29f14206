"""What can come of one message on the wire. Values, not exceptions: settle handles every case, and mypy proves it."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Accepted:
    """Every part was taken by the far side. `ids` are its message ids in part order ("" where it gave none)."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """For good: no other attempt would be answered otherwise. `ids` are those of parts that had been taken before the refusal ("" for the others)."""

    reason: str
    code: str = ""  # "0x0000000B" (SMPP command_status) or "550 5.1.1" (SMTP reply)
    detail: str = ""
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Deferred:
    """Not now. `spends_attempt` is false when nobody was at fault: never written, throttled, bind lost before the write."""

    reason: str
    retry_in: timedelta
    spends_attempt: bool = True
    code: str = ""
    detail: str = ""
    attempts: int | None = None  # the most attempts that this kind of refusal deserves; None: the gateway's own number


@dataclass(frozen=True, slots=True)
class Unknown:
    """It was written and no answer came: it may or may not have reached the far side. `ids` are those of parts that were answered."""

    reason: str = "no_answer"
    detail: str = ""
    ids: tuple[str, ...] = ()


Outcome = Accepted | Refused | Deferred | Unknown


def is_gateways_fault(outcome: Outcome) -> bool | None:
    """Whether another gateway might have done better with this message; None when the far side had no part in it."""
    if isinstance(outcome, Unknown):
        return True
    if isinstance(outcome, Accepted):
        return False
    # Without a code the far side said nothing: it was never written, or we ourselves would not send it.
    return isinstance(outcome, Deferred) if outcome.code else None
