"""Answers of one gateway counted by their command_status, by number and by name."""

from app.core import metrics
from app.sending.outcome import Accepted, Outcome, Unknown
from app.sending.smpp import statuses

OK = statuses.code_of(0)
# Codes beyond the standard's that get a series of their own. A far side that sends ever new numbers must not make ever new series.
MOST_STRANGE = 64


class Answers:
    """The counter `vestnik_smpp_status_total` of one gateway, in one process."""

    def __init__(self, gateway: str) -> None:
        self._gateway = gateway
        self._strange: set[str] = set()

    def count(self, outcome: Outcome) -> None:
        """`none` where no answer came. What was put off or refused without asking the far side is no answer, and is not counted."""
        if isinstance(outcome, Accepted):
            self._count(OK)
        elif isinstance(outcome, Unknown):
            metrics.STATUS.labels(self._gateway, "none", "none").inc()
        elif outcome.code:
            self._count(outcome.code)

    def late(self) -> None:
        """A part was taken after its time was up."""
        self._count(OK)

    def _count(self, code: str) -> None:
        number = int(code, 16)
        name = statuses.name_of(number)
        if number not in statuses.NAMES:
            if code not in self._strange and len(self._strange) >= MOST_STRANGE:
                code, name = "other", "other"
            else:
                self._strange.add(code)
        metrics.STATUS.labels(self._gateway, code, name).inc()
