"""One token, at most: never two letters closer together than the rate says."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sending.smtp.pace import AHEAD, Pace


@given(rate=st.floats(0.01, 10_000), waits=st.lists(st.floats(0, 5), min_size=1, max_size=50))
def test_no_two_letters_are_closer_together_than_the_rate_says_and_none_goes_before_it_was_asked(rate, waits):
    pace, now, booked = Pace(rate), 1000.0, []

    for wait in waits:
        now += wait
        booked.append(pace.book(now))
        assert booked[-1] >= now

    assert all(later - earlier >= 1 / rate - 1e-9 for earlier, later in pairwise(booked))


@given(rate=st.floats(0.01, 10_000), taken=st.integers(0, 20))
def test_what_is_allowed_now_falls_due_within_the_time_ahead(rate, taken):
    pace, now = Pace(rate), 1000.0
    for _ in range(taken):
        pace.book(now)

    due = [pace.book(now) for _ in range(min(pace.allowance(now), 2000))]

    assert all(moment <= now + AHEAD + 1e-6 for moment in due)


@pytest.mark.parametrize("rate", [0.1, 1, 7, 50, 3000])
def test_after_the_wait_there_is_something_to_claim(rate):
    pace, now = Pace(rate), 1000.0
    while pace.allowance(now):
        pace.book(now)

    wait = pace.wait(now)

    assert wait > 0
    assert pace.allowance(now + wait + 1e-6) >= 1


def test_without_a_rate_everything_goes_at_once():
    pace = Pace(None)

    assert (pace.book(5.0), pace.book(5.0), pace.wait(5.0)) == (5.0, 5.0, 0.0)
    assert pace.allowance(5.0) > 1000
