"""When a message may go, on the clock of whoever gets it: the operator's quiet hours and the subscriber's own ones, both at once. Pure.

A night that is quiet is a rule of each calendar day (its morning and its evening), so that the evening before a day off and its morning have rules of their
own. An interval of the subscriber's belongs to the day on which it begins, also where it goes on over midnight.

On the days when clocks change, an opening that falls into the gap comes with the first minute after it, and of an hour that comes twice the first is taken,
unless it is over already.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

Hours = tuple[time, time]
EVERY_DAY = frozenset(range(1, 8))
SATURDAY = 6  # ISO weekday
STRETCHES = 4  # that are remembered of one opening: this one and the next one, and those of a message that waits
LOOK_AHEAD = 15  # days: whatever can open within two weeks and a day does


@dataclass(frozen=True, slots=True)
class Interval:
    """From `begin` to `end` on these ISO weekdays; over midnight when it ends no later than it begins (equal ends: a whole day)."""

    begin: time
    end: time
    weekdays: frozenset[int] = EVERY_DAY

    def has(self, local: datetime) -> bool:
        clock, weekday = local.time(), local.isoweekday()
        if self.begin < self.end:
            return weekday in self.weekdays and self.begin <= clock < self.end
        return (clock >= self.begin and weekday in self.weekdays) or (clock < self.end and (weekday - 2) % 7 + 1 in self.weekdays)


Intervals = tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Quiet:
    """The operator's quiet hours on workdays and on Saturdays and Sundays; equal ends: none. They may cross midnight."""

    workdays: Hours
    weekends: Hours

    @classmethod
    def alike(cls, hours: Hours) -> "Quiet":
        return cls(hours, hours)

    def has(self, local: datetime) -> bool:
        begin, end = self.weekends if local.isoweekday() >= SATURDAY else self.workdays
        clock = local.time()
        return begin <= clock < end if begin <= end else clock >= begin or clock < end


@dataclass(frozen=True, slots=True)
class Opening:
    """What holds for one message. `own`: the account's intervals and the contact's, each of which must have the moment; an empty one lets everything through."""

    zone: ZoneInfo
    quiet: Quiet | None = None
    own: tuple[Intervals, ...] = ()

    @property
    def is_always(self) -> bool:
        return self.quiet is None and not any(self.own)


def is_open(moment: datetime, opening: Opening) -> bool:
    local = moment.astimezone(opening.zone)
    if opening.quiet is not None and opening.quiet.has(local):
        return False
    return all(any(interval.has(local) for interval in intervals) for intervals in opening.own if intervals)


def next_open(moment: datetime, opening: Opening) -> datetime | None:
    """The moment itself when it is open, else the next that is, in UTC; nothing when none ever is."""
    if opening.is_always:
        return moment
    stretch = _stretch(moment, opening)
    return moment if stretch.is_open else stretch.until


def open_until(moment: datetime, opening: Opening) -> datetime | None:
    """When it closes next after an open moment, in UTC; nothing when it never does."""
    if opening.is_always:
        return None
    stretch = _stretch(moment, opening)
    return stretch.until if stretch.is_open else moment


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A time throughout which it is open, or is not. `until` is when that changes; nothing: it never does, as was seen at `since`."""

    since: datetime
    until: datetime | None
    is_open: bool

    def has(self, moment: datetime) -> bool:
        return self.since <= moment < (self.until or self.since + timedelta(days=1))


def _stretch(moment: datetime, opening: Opening) -> _Stretch:
    known = _known(opening)
    for stretch in known:
        if stretch.has(moment):
            return stretch
    state = is_open(moment, opening)
    found = _Stretch(moment, next((border for border in _borders(moment, opening) if is_open(border, opening) is not state), None), state)
    known.insert(0, found)
    del known[STRETCHES:]
    return found


@lru_cache(maxsize=16_384)
def _known(opening: Opening) -> list[_Stretch]:  # noqa: ARG001 - it is the key
    """Those that were asked for last. Finding a border takes a hundred times as long as remembering it, and it holds for hours."""
    return []


def _borders(moment: datetime, opening: Opening) -> Iterator[datetime]:
    """Every moment after this one at which anything can begin or end, in order: what the clocks show then, and the moving of the clocks themselves."""
    clocks = {time()}
    if opening.quiet is not None:
        clocks |= {*opening.quiet.workdays, *opening.quiet.weekends}
    for intervals in opening.own:
        clocks |= {clock for interval in intervals for clock in (interval.begin, interval.end)}
    first = moment.astimezone(opening.zone).date() - timedelta(days=1)
    for n in range(LOOK_AHEAD + 1):
        day = first + timedelta(days=n)
        found = {_at(day, clock, opening.zone, fold) for clock in clocks for fold in (0, 1)}
        yield from sorted(border for border in found | _changes(day, opening.zone) if border > moment)


def _changes(day: date, zone: ZoneInfo) -> set[datetime]:
    """The moment of this day at which the clocks are moved, if they are."""
    before, after = (datetime.combine(day + timedelta(days=n), time(), tzinfo=zone).astimezone(UTC) for n in (0, 1))
    moved = before.astimezone(zone).utcoffset() != after.astimezone(zone).utcoffset()
    return {_leap(before, after, zone)} if moved else set()


def day_ends(moment: datetime, zone: ZoneInfo) -> datetime:
    """The next midnight on the clocks of the zone, in UTC."""
    day = moment.astimezone(zone).date()
    while True:
        for fold in (0, 1):
            found = _at(day, time(), zone, fold)
            if found > moment:
                return found
        day += timedelta(days=1)


def _at(day: date, clock: time, zone: ZoneInfo, fold: int) -> datetime:
    first, second = (datetime.combine(day, clock.replace(fold=fold), tzinfo=zone).astimezone(UTC) for fold in (0, 1))
    if first > second:  # PEP 495: only of a time that the clocks leave out is the first reading the later one
        return _leap(second, first, zone)
    return second if fold else first


def _leap(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The moment between the two at which the clocks jump."""
    offset, low, high = after.astimezone(zone).utcoffset(), 0, int((after - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        if (before + timedelta(seconds=middle)).astimezone(zone).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return before + timedelta(seconds=high)
