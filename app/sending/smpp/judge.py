"""What a refusal means here and now: the verdict of the status table, with the memory that two of its classes need."""

from collections import deque
from dataclasses import replace
from typing import Literal

from app.gateways.smpp import Profile
from app.sending.smpp import statuses

# The last answers that must all be one BRK code, and to how many numbers, before the settings are to blame and not the message.
BREAKER_ANSWERS, BREAKER_NUMBERS = 5, 3

FinalAction = Literal["PERM", "TEMP", "THROTTLE", "REBIND", "CONFIG"]


class Judge:
    """Decides about refused submits of one bind, so that a wrong profile does not burn a whole campaign message by message."""

    def __init__(self, profile: Profile) -> None:
        self._look_up = statuses.judge(profile)
        self._breaker: deque[tuple[int, str]] = deque(maxlen=BREAKER_ANSWERS)
        self._rebinds: dict[int, int] = {}  # status -> the session that was given up for it

    def passed(self) -> None:
        """A submit was taken: whatever was suspected, the settings are good."""
        if self._breaker or self._rebinds:
            self._breaker.clear()
            self._rebinds.clear()

    def decide(self, status: int, address: str, session: int) -> tuple[FinalAction, statuses.Verdict]:
        """What to do, and the verdict it comes from. BRK becomes PERM or CONFIG; 0x02 and 0x03 rebind once, then they are CONFIG."""
        verdict = self._look_up(status)
        action = verdict.action
        if action == "BRK":
            self._breaker.append((status, address))
            return ("CONFIG" if self._is_settings_fault(status) else "PERM"), verdict
        self._breaker.clear()
        if action == "REBIND" and status in (statuses.INVCMDLEN, statuses.INVCMDID):
            # Once may be the session's fault; the same again after a new bind is ours.
            given_up = self._rebinds.setdefault(status, session)
            if given_up != session:
                return "CONFIG", replace(verdict, action="CONFIG")
        return action, verdict

    def _is_settings_fault(self, status: int) -> bool:
        answers = self._breaker
        return len(answers) == BREAKER_ANSWERS and all(seen == status for seen, _ in answers) and len({to for _, to in answers}) >= BREAKER_NUMBERS
