"""Hours of the day on the subscriber's clock, also on the two days of the year that have 23 and 25 of them."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.accounts import window
from app.accounts.window import Opening, Quiet


def next_open(moment, zone, hours):
    return window.next_open(moment, Opening(zone, Quiet.alike(hours)))


def open_until(moment, zone, hours):
    return window.open_until(moment, Opening(zone, Quiet.alike(hours)))


def is_quiet(moment, zone, hours):
    return not window.is_open(moment, Opening(zone, Quiet.alike(hours)))


MOSCOW, BERLIN = ZoneInfo("Europe/Moscow"), ZoneInfo("Europe/Berlin")
NIGHT = (time(22), time(8))

clocks = st.times(timezones=st.none()).map(lambda clock: clock.replace(second=0, microsecond=0)) | st.sampled_from([time(1, 30), time(2), time(2, 30), time(3)])
hours = st.tuples(clocks, clocks)
# Lord Howe Island moves its clocks by half an hour, Chatham is at +12:45, Gaza and Nuuk have moved theirs at odd hours.
zones = st.sampled_from(
    ["UTC", "Europe/Moscow", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Chatham", "Asia/Gaza", "America/Nuuk"]
).map(ZoneInfo)
# Half of them on the days around which clocks are moved: somewhere in March, September, October and November.
days = st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31)) | st.sampled_from(
    [datetime(2026, 3, 28), datetime(2026, 10, 24), datetime(2026, 4, 4), datetime(2026, 10, 3)]
)
moments = st.builds(lambda day, minutes: (day + timedelta(minutes=minutes)).replace(tzinfo=UTC), days, st.integers(0, 48 * 60))


def at(text: str, zone: ZoneInfo = MOSCOW, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).astimezone(UTC)


def clock_goes_back(begin: datetime, end: datetime, zone: ZoneInfo) -> bool:
    """An hour comes twice somewhere in between."""
    day = timedelta(days=1)
    return (end + day).astimezone(zone).utcoffset() < (begin - day).astimezone(zone).utcoffset()


@pytest.mark.parametrize(
    ("moment", "opens"),
    [
        ("2026-11-23 21:59:59", "2026-11-23 21:59:59"),
        ("2026-11-23 22:00", "2026-11-24 08:00"),
        ("2026-11-23 23:59:59", "2026-11-24 08:00"),
        ("2026-11-24 00:00", "2026-11-24 08:00"),
        ("2026-11-24 07:59:59", "2026-11-24 08:00"),
        ("2026-11-24 08:00", "2026-11-24 08:00"),
    ],
)
def test_a_night_that_crosses_midnight_ends_the_next_morning(moment, opens):
    assert next_open(at(moment), MOSCOW, NIGHT) == at(opens)


def test_an_interval_within_a_day_ends_the_same_day():
    assert next_open(at("2026-11-23 13:30"), MOSCOW, (time(13), time(14))) == at("2026-11-23 14:00")
    assert open_until(at("2026-11-23 14:00"), MOSCOW, (time(13), time(14))) == at("2026-11-24 13:00")


def test_an_open_day_lasts_until_the_next_evening():
    assert open_until(at("2026-11-23 08:00"), MOSCOW, NIGHT) == at("2026-11-23 22:00")


@given(moments, zones, clocks)
def test_equal_ends_mean_no_quiet_hours(moment, zone, clock):
    assert not is_quiet(moment, zone, (clock, clock))
    assert next_open(moment, zone, (clock, clock)) == moment
    assert open_until(moment, zone, (clock, clock)) is None


def test_an_opening_in_the_hour_that_does_not_exist_comes_with_the_first_minute_after_it():
    # Berlin, 29 March 2026: after 01:59 comes 03:00.
    assert next_open(at("2026-03-28 23:00", BERLIN), BERLIN, (time(22), time(2, 30))) == at("2026-03-29 03:00", BERLIN)


def test_quiet_hours_that_begin_in_the_hour_that_does_not_exist_begin_with_the_first_minute_after_it():
    quiet = (time(2, 30), time(9))

    until = open_until(at("2026-03-29 01:00", BERLIN), BERLIN, quiet)

    assert until == at("2026-03-29 03:00", BERLIN)
    assert is_quiet(until, BERLIN, quiet)


def test_of_an_hour_that_comes_twice_the_first_opens():
    # Berlin, 25 October 2026: after the first 02:59 comes 02:00 once more.
    assert next_open(at("2026-10-24 23:00", BERLIN), BERLIN, (time(22), time(2, 30))) == at("2026-10-25 02:30", BERLIN, fold=0)


def test_of_an_hour_that_comes_twice_the_second_opens_when_the_first_is_over():
    again = at("2026-10-25 02:10", BERLIN, fold=1)

    assert next_open(again, BERLIN, (time(22), time(2, 30))) == at("2026-10-25 02:30", BERLIN, fold=1)


def test_a_night_is_ten_hours_long_on_the_clock_and_nine_or_eleven_in_truth():
    spring = next_open(at("2026-03-28 22:00", BERLIN), BERLIN, NIGHT) - at("2026-03-28 22:00", BERLIN)
    autumn = next_open(at("2026-10-24 22:00", BERLIN), BERLIN, NIGHT) - at("2026-10-24 22:00", BERLIN)

    assert (spring, autumn) == (timedelta(hours=9), timedelta(hours=11))


@settings(max_examples=300)
@given(moments, zones, hours)
def test_what_opens_is_open_and_comes_no_sooner_than_needed(moment, zone, quiet):
    opens = next_open(moment, zone, quiet)

    assert opens >= moment
    assert opens - moment <= timedelta(hours=50)  # a short opening may fall into the gap of a clock change: then that day has none
    assert not is_quiet(opens, zone, quiet)
    assert next_open(opens, zone, quiet) == opens
    assert opens == moment or clock_goes_back(moment, opens, zone) or is_quiet(opens - timedelta(microseconds=1), zone, quiet)


@settings(max_examples=300)
@given(moments, zones, hours)
def test_the_end_of_an_open_stretch_is_the_first_quiet_moment(moment, zone, quiet):
    opens = next_open(moment, zone, quiet)

    until = open_until(opens, zone, quiet)

    if until is None:
        assert quiet[0] == quiet[1]
        return
    assert opens < until
    assert is_quiet(until, zone, quiet) or clock_goes_back(opens, until, zone)
    assert clock_goes_back(opens, until, zone) or not is_quiet(until - timedelta(microseconds=1), zone, quiet)
