"""Hours: when a message may go, on the clock of whoever gets it. Pure.

An interval may cross midnight; equal ends mean none. On the days when clocks change, an opening that falls into the gap comes with the first
minute after it, and of an hour that comes twice the first is taken, unless it is over already.
"""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

Hours = tuple[time, time]


def is_quiet(moment: datetime, zone: ZoneInfo, quiet: Hours) -> bool:
    begin, end = quiet
    clock = moment.astimezone(zone).time()
    if begin == end:
        return False
    return begin <= clock < end if begin < end else clock >= begin or clock < end


def next_open(moment: datetime, zone: ZoneInfo, quiet: Hours) -> datetime:
    """The moment itself outside quiet hours, else their end, in UTC."""
    opens = moment
    while is_quiet(opens, zone, quiet):  # twice where the clocks leave out all of a short opening: that day has none
        opens = _next_clock(opens, zone, quiet[1])
    return opens


def open_until(moment: datetime, zone: ZoneInfo, quiet: Hours) -> datetime | None:
    """The next beginning of quiet hours after an open moment, in UTC; nothing when there are none."""
    if quiet[0] == quiet[1]:
        return None
    closes = _next_clock(moment, zone, quiet[0])
    while not is_quiet(closes, zone, quiet):  # quiet hours that lie in the gap of a clock change are left out with it
        closes = _next_clock(closes, zone, quiet[0])
    return closes


def day_ends(moment: datetime, zone: ZoneInfo) -> datetime:
    """The next midnight on the clocks of the zone, in UTC."""
    return _next_clock(moment, zone, time())


def _next_clock(moment: datetime, zone: ZoneInfo, clock: time) -> datetime:
    """The next moment after this one at which the clocks of the zone show that time."""
    day = moment.astimezone(zone).date()
    while True:
        for fold in (0, 1):
            found = _at(day, clock, zone, fold)
            if found > moment:
                return found
        day += timedelta(days=1)


def _at(day: date, clock: time, zone: ZoneInfo, fold: int) -> datetime:
    first, second = (datetime.combine(day, clock.replace(fold=fold), tzinfo=zone).astimezone(UTC) for fold in (0, 1))
    if first > second:  # PEP 495: only of a time that the clocks leave out is the first reading the later one
        return _leap(second, first, zone)
    return second if fold else first


def _leap(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The moment between the two at which the clocks jump forward."""
    offset, low, high = after.astimezone(zone).utcoffset(), 0, int((after - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        if (before + timedelta(seconds=middle)).astimezone(zone).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return before + timedelta(seconds=high)
