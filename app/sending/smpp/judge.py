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

FinalAction = Literal["PERM", "TEMP", "THROTTLE", "REBIND", "CONFIG"]


class Judge:
    """Decides about refused submits of one bind, so that a wrong profile does not burn a whole campaign message by message."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._look_up = statuses.judge(profile)
        self._breaker: deque[tuple[int, str]] = deque(maxlen=BREAKER_ANSWERS)
        self._rebinds: dict[int, int] = {}  # status -> the session that was given up for it

    def passed(self) -> None:
        """A submit was taken: whatever was suspected, the settings are good."""
        if self._breaker or self._rebinds:
            self._breaker.clear()
            self._rebinds.clear()

    def decide(self, status: int, shipment: Shipment, session: int, *, part: str = "") -> tuple[FinalAction, Refused | Deferred]:
        """What the bind has to do about a refused part, and what it means for the message. A throttled one gets its pause from the bind."""
        action, verdict = self._action(status, shipment.address, session)
        code, detail = statuses.code_of(status), statuses.name_of(status)
        if part:
            detail = f"{detail}, {part}"
        if action == "PERM":
            return action, Refused("refused", code, detail)
        if action == "TEMP":
            return action, Deferred("refused_for_now", self._pause_after(shipment.attempt), True, code, detail, verdict.attempts)
        # Not the message's fault: its attempts stay as they are.
        reason = {"THROTTLE": "throttled", "REBIND": "rebind", "CONFIG": "gateway_settings"}[action]
        retry_in = timedelta(seconds=self._profile.retry_backoff_min) if action == "CONFIG" else timedelta(0)
        return action, Deferred(reason, retry_in, False, code, detail)

    def _action(self, status: int, address: str, session: int) -> tuple[FinalAction, statuses.Verdict]:
        """BRK becomes PERM or CONFIG; 0x02 and 0x03 rebind once, then they are CONFIG."""
        verdict = self._look_up(status)
        action = verdict.action
        if action == "BRK":
            self._breaker.append((status, address))
            return ("CONFIG" if self._is_settings_fault(status) else "PERM"), verdict
        self._breaker.clear()
        if action == "REBIND" and status in (statuses.INVCMDLEN, statuses.INVCMDID) and self._rebinds.setdefault(status, session) != session:
            return "CONFIG", verdict  # once may be the session's fault; the same again after a new bind is ours
        return action, verdict

    def _pause_after(self, attempt: int) -> timedelta:
        pause = self._profile.retry_backoff_min * 2 ** min(max(attempt - 1, 0), 16)
        return timedelta(seconds=min(pause, self._profile.retry_backoff_max))

    def _is_settings_fault(self, status: int) -> bool:
        answers = self._breaker
        return len(answers) == BREAKER_ANSWERS and all(seen == status for seen, _ in answers) and len({to for _, to in answers}) >= BREAKER_NUMBERS
