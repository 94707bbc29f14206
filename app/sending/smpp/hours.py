"""Hours of the day without a bind, in the operator's zone. Pure."""

from collections.abc import Sequence
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)


class Blackout:
    """Daily spans such as 02:00-02:30; one may go over midnight, and several may overlap or follow each other."""

    def __init__(self, spans: Sequence[str], zone: ZoneInfo) -> None:
        self._spans = [(time.fromisoformat(begin), time.fromisoformat(end)) for begin, _, end in (span.partition("-") for span in spans)]
        self._zone = zone

    def until(self, moment: datetime) -> datetime | None:
        """The end of the blackout that `moment` is in, in the operator's zone; None outside. Spans that leave no minute free end after a day."""
        begun = local = moment.astimezone(self._zone)
        while (end := max((self._end(local, *span) for span in self._spans if _within(local.time(), *span)), default=None)) is not None:
            local = end
            if local - begun >= DAY:
                break
        return local if local is not begun else None

    def _end(self, local: datetime, begin: time, end: time) -> datetime:
        day = local.date() + DAY if end <= begin and local.time() >= begin else local.date()
        return datetime.combine(day, end, self._zone)


def _within(now: time, begin: time, end: time) -> bool:
    return begin <= now < end if begin < end else now >= begin or now < end
