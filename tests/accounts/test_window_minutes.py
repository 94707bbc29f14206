"""Hours of accounts and contacts together with the operator's quiet ones, against a walk from minute to minute that knows nothing of borders."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from app.accounts import window
from app.accounts.window import Interval, Opening, Quiet, is_open, next_open, open_until

MINUTE, DAYS = timedelta(minutes=1), 14
BERLIN = ZoneInfo("Europe/Berlin")
# Zones that move their clocks by an hour and by half an hour, at night and at midnight, and some that do not.
ZONES = ["UTC", "Europe/Moscow", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Chatham", "America/Santiago", "Africa/Cairo"]

clocks = st.integers(0, 95).map(lambda n: time(n // 4, n % 4 * 15)) | st.sampled_from([time(), time(0, 1), time(1, 59), time(2, 30), time(3), time(23, 59)])
weekdays = st.frozensets(st.integers(1, 7), min_size=1)
intervals = st.lists(st.builds(Interval, clocks, clocks, weekdays), min_size=1, max_size=3).map(tuple)
quiets = st.none() | st.builds(Quiet, st.tuples(clocks, clocks), st.tuples(clocks, clocks))
openings = st.builds(Opening, st.sampled_from(ZONES).map(ZoneInfo), quiets, st.lists(intervals, max_size=2).map(tuple))
# Half of the days are those around which clocks are moved somewhere.
days = st.dates(date(2025, 1, 1), date(2027, 12, 31)) | st.sampled_from(
    [date(2026, month, day) for month, day in ((3, 7), (3, 28), (4, 4), (4, 5), (4, 23), (9, 5), (9, 26), (10, 3), (10, 24), (10, 29), (10, 31))]
)
moments = st.builds(lambda day, minute: datetime.combine(day, time(), UTC) + minute * MINUTE, days, st.integers(0, 3 * 24 * 60))


def is_quiet(local: datetime, quiet: Quiet) -> bool:
    """The rule of this calendar day, in minutes since its midnight."""
    begin, end = (clock.hour * 60 + clock.minute for clock in (quiet.weekends if local.weekday() in (5, 6) else quiet.workdays))
    minute = local.hour * 60 + local.minute
    silent = set(range(begin, end)) if begin <= end else {*range(begin, 1440), *range(end)}
    return minute in silent


def is_within(local: datetime, interval: Interval) -> bool:
    """Whether some day that the interval names began it, and it is not over: today, or yesterday when it goes on over midnight."""
    minute = local.hour * 60 + local.minute
    begin, end = (clock.hour * 60 + clock.minute for clock in (interval.begin, interval.end))
    length = (end - begin) % 1440 or 1440
    for ago in (0, 1):
        day = local.date() - timedelta(days=ago)
        if day.isoweekday() in interval.weekdays and begin <= minute + ago * 1440 < begin + length:
            return True
    return False


def may_go(moment: datetime, opening: Opening) -> bool:
    local = moment.astimezone(opening.zone)
    if opening.quiet is not None and is_quiet(local, opening.quiet):
        return False
    return all(any(is_within(local, interval) for interval in level) for level in opening.own)


def walk(moment: datetime, opening: Opening, *, wanted: bool) -> datetime | None:
    for n in range(DAYS * 1440):
        if may_go(moment + n * MINUTE, opening) is wanted:
            return moment + n * MINUTE
    return None


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(moments, openings)
def test_what_opens_next_is_the_first_minute_at_which_everybody_agrees(moment, opening):
    found = next_open(moment, opening)

    expected = walk(moment, opening, wanted=True)
    if expected is None:
        assert found is None or found >= moment + timedelta(days=DAYS)
    else:
        assert found == expected


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(moments, openings)
def test_what_is_open_ends_with_the_first_minute_at_which_somebody_does_not_agree(moment, opening):
    begins = next_open(moment, opening)
    assume(begins is not None)

    found = open_until(begins, opening)

    expected = walk(begins, opening, wanted=False)
    if expected is None:
        assert found is None or found >= begins + timedelta(days=DAYS)
    else:
        assert found == expected


@settings(max_examples=500)
@given(moments, openings)
def test_one_moment_is_open_when_the_walk_says_so(moment, opening):
    assert is_open(moment, opening) is may_go(moment, opening)


@given(moments, openings, st.integers(1, 59))
def test_between_two_minutes_nothing_changes(moment, opening, seconds):
    assert is_open(moment + timedelta(seconds=seconds), opening) is is_open(moment, opening)


@given(st.lists(moments, min_size=2, max_size=8), openings)
@settings(deadline=None)
def test_what_was_asked_before_changes_no_answer(asked, opening):
    near = [asked[0] + n * timedelta(hours=5) for n in range(8)]

    remembered = [(next_open(moment, opening), open_until(moment, opening)) for moment in (*asked, *near, *reversed(asked))]

    for moment, answer in zip((*asked, *near, *reversed(asked)), remembered, strict=True):
        window._known.cache_clear()
        assert (next_open(moment, opening), open_until(moment, opening)) == answer


@given(moments, openings)
def test_more_rules_never_open_anything(moment, opening):
    if is_open(moment, opening):
        assert is_open(moment, Opening(opening.zone, None, opening.own))
        assert is_open(moment, Opening(opening.zone, opening.quiet, opening.own[:1]))


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).astimezone(UTC)


NIGHT = Quiet((time(22), time(8)), (time(23), time(10)))


@pytest.mark.parametrize(
    ("moment", "opens"),
    [
        ("2026-11-20 22:30", "2026-11-21 10:00"),  # Friday: quiet from ten by the workday's rule, till ten by Saturday's
        ("2026-11-22 22:30", "2026-11-22 22:30"),  # Sunday evening is open till eleven
        ("2026-11-22 23:30", "2026-11-23 08:00"),  # and Monday morning is a workday's
    ],
)
def test_the_evening_before_a_day_off_and_its_morning_have_rules_of_their_own(moment, opens):
    assert next_open(at(moment), Opening(BERLIN, NIGHT)) == at(opens)


def test_an_interval_over_midnight_belongs_to_the_day_on_which_it_begins():
    friday_night = Opening(BERLIN, None, ((Interval(time(22), time(2), frozenset({5})),),))

    assert next_open(at("2026-11-21 01:00"), friday_night) == at("2026-11-21 01:00")  # Saturday, of Friday's night
    assert next_open(at("2026-11-21 03:00"), friday_night) == at("2026-11-27 22:00")
    assert open_until(at("2026-11-20 23:00"), friday_night) == at("2026-11-21 02:00")


def test_hours_of_the_account_and_of_the_contact_leave_what_both_have():
    opening = Opening(BERLIN, NIGHT, ((Interval(time(7), time(12)),), (Interval(time(9), time(23), frozenset({1, 2, 3, 4, 5})),)))

    assert next_open(at("2026-11-21 06:00"), opening) == at("2026-11-23 09:00")
    assert open_until(at("2026-11-23 09:00"), opening) == at("2026-11-23 12:00")


def test_hours_that_have_no_moment_in_common_never_open():
    opening = Opening(BERLIN, None, ((Interval(time(9), time(12)),), (Interval(time(12), time(18)),)))

    assert next_open(at("2026-11-21 06:00"), opening) is None


def test_hours_that_lie_in_the_hour_that_does_not_exist_wait_for_the_next_day():
    opening = Opening(BERLIN, None, ((Interval(time(2), time(3)),),))

    assert next_open(at("2026-03-29 01:30"), opening) == at("2026-03-30 02:00")


def test_hours_in_the_hour_that_comes_twice_are_open_twice():
    opening = Opening(BERLIN, None, ((Interval(time(2), time(2, 30)),),))

    assert open_until(at("2026-10-25 02:00"), opening) == at("2026-10-25 02:30")
    assert next_open(at("2026-10-25 02:30"), opening) == at("2026-10-25 02:00", fold=1)


def test_hours_that_the_clock_is_moved_out_of_end_there_and_come_again():
    opening = Opening(BERLIN, None, ((Interval(time(2, 30), time(4)),),))

    assert open_until(at("2026-10-25 02:40"), opening) == at("2026-10-25 02:00", fold=1)
    assert next_open(at("2026-10-25 02:00", fold=1), opening) == at("2026-10-25 02:30", fold=1)
    assert open_until(at("2026-10-25 02:30", fold=1), opening) == at("2026-10-25 04:00")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(openings, days, st.lists(st.integers(0, 4 * 1440), min_size=2, max_size=12))
def test_one_opening_asked_about_many_moments_answers_as_the_walk_does(opening, day, minutes):
    begin = datetime.combine(day, time(), UTC)
    for minute in minutes:
        moment = begin + minute * MINUTE
        expected = walk(moment, opening, wanted=True)
        found = next_open(moment, opening)
        assert found == expected if expected is not None else found is None or found >= moment + timedelta(days=DAYS)
