"""What a refusal means here and now: the verdict of the status table, with the memory that two of its classes need."""

from collections import deque
from datetime import timedelta
from typing import Literal

from app.gateways.profile import Profile
from app.sending.outcome import Deferred, Refused
from app.sending.smpp import statuses
from app.sending.smpp.compose import Shipment

# The last answers that must all be one BRK code, and to how many numbers, before the settings are to blame and not the message.
BREAKER_ANSWERS, BREAKER_NUMBERS = 5, 3

MOST_SENDERS = 1000  # that are remembered

FinalAction = Literal["PERM", "TEMP", "THROTTLE", "REBIND", "CONFIG", "HOLD"]


class Judge:
    """Decides about refused submits of one bind, so that a wrong profile does not burn a whole campaign message by message.

    A refusal of the sender blames the sender: where another one has passed on this bind, the bind goes on, and what is from the
    refused one waits for somebody to register it.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._look_up = statuses.judge(profile)
        self._breaker = Suspicion()
        self._senders: dict[str | None, Suspicion] = {}
        self._good_senders: set[str | None] = set()
        self._rebinds: dict[int, int] = {}  # status -> the session that was given up for it

    def passed(self, sender: str | None) -> None:
        """A submit was taken: whatever was suspected of the settings or of this sender, they are good."""
        if sender not in self._good_senders and len(self._good_senders) < MOST_SENDERS:
            self._good_senders.add(sender)
        if self._breaker or self._senders or self._rebinds:
            self._breaker.clear()
            self._senders.pop(sender, None)
            self._rebinds.clear()

    def decide(self, status: int, shipment: Shipment, session: int, *, part: str = "") -> tuple[FinalAction, Refused | Deferred]:
        """What the bind has to do about a refused part, and what it means for the message. A throttled one gets its pause from the bind."""
        action, verdict = self._action(status, shipment, session)
        code, detail = statuses.code_of(status), statuses.name_of(status)
        if part:
            detail = f"{detail}, {part}"
        if action == "PERM":
            return action, Refused("refused", code, detail)
        if action == "TEMP":
            return action, Deferred("refused_for_now", self._pause_after(shipment.attempt), True, code, detail, verdict.attempts)
        # Not the message's fault: its attempts stay as they are.
        if action == "HOLD":
            retry_in = timedelta(seconds=self._profile.config_probe_interval)
            return action, Deferred("sender_refused", retry_in, False, code, detail)
        reason = {"THROTTLE": "throttled", "REBIND": "rebind", "CONFIG": "gateway_settings"}[action]
        retry_in = timedelta(seconds=self._profile.retry_backoff_min) if action == "CONFIG" else timedelta(0)
        return action, Deferred(reason, retry_in, False, code, detail)

    def _action(self, status: int, shipment: Shipment, session: int) -> tuple[FinalAction, statuses.Verdict]:
        """BRK becomes PERM, HOLD or CONFIG; 0x02 and 0x03 rebind once, then they are CONFIG."""
        verdict = self._look_up(status)
        action, sender = verdict.action, shipment.sender
        if action == "BRK" and status in statuses.ABOUT_THE_SENDER:
            self._breaker.clear()
            return self._about_sender(status, shipment), verdict
        self._senders.pop(sender, None)
        if action == "BRK":
            return ("CONFIG" if self._breaker.confirmed(status, shipment.address) else "PERM"), verdict
        self._breaker.clear()
        if action == "REBIND" and status in (statuses.INVCMDLEN, statuses.INVCMDID) and self._rebinds.setdefault(status, session) != session:
            return "CONFIG", verdict  # once may be the session's fault; the same again after a new bind is ours
        return action, verdict

    def _about_sender(self, status: int, shipment: Shipment) -> FinalAction:
        sender = shipment.sender
        if sender not in self._senders and len(self._senders) >= MOST_SENDERS:
            del self._senders[next(iter(self._senders))]
        if not self._senders.setdefault(sender, Suspicion()).confirmed(status, shipment.address):
            return "PERM"
        return "HOLD" if self._good_senders - {sender} else "CONFIG"

    def _pause_after(self, attempt: int) -> timedelta:
        pause = self._profile.retry_backoff_min * 2 ** min(max(attempt - 1, 0), 16)
        return timedelta(seconds=min(pause, self._profile.retry_backoff_max))


class Suspicion:
    """The last answers as long as they are all one code."""

    __slots__ = ("_answers",)

    def __init__(self) -> None:
        self._answers: deque[tuple[int, str]] = deque(maxlen=BREAKER_ANSWERS)

    def __bool__(self) -> bool:
        return bool(self._answers)

    def clear(self) -> None:
        self._answers.clear()

    def confirmed(self, status: int, address: str) -> bool:
        """One more answer: whether the last ones are enough of this code, and to enough numbers, to blame what they have in common."""
        if self._answers and self._answers[-1][0] != status:
            self._answers.clear()
        self._answers.append((status, address))
        return len(self._answers) == BREAKER_ANSWERS and len({to for _, to in self._answers}) >= BREAKER_NUMBERS
