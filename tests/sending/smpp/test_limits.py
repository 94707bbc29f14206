"""The token bucket and the pauses, on a clock of their own."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.gateways.profile import Profile
from app.sending.smpp.limits import Bucket, Throttle

rates = st.floats(0.05, 3000)


def send_all(bucket: Bucket, count: int, lateness, *, start: float = 1000.0) -> list[float]:
    """The times at which so many waiting parts go when every timer fires late by `lateness()` seconds."""
    now, times = start, []
    bucket.idle(now)
    while len(times) < count:
        if bucket.at > now:
            now = bucket.at + lateness()
        while len(times) < count and bucket.at <= now:
            bucket.take(now)
            times.append(now)
    return times


@given(rates, st.lists(st.floats(0, 0.05), min_size=5, max_size=60))
@settings(max_examples=200, deadline=None)
def test_no_second_carries_more_than_the_rate_and_one_part(rate, lateness):
    times = send_all(Bucket(rate), min(3 * math.ceil(rate) + 20, 3000), iter(lateness * 1000).__next__)

    start = 0
    for end, at in enumerate(times):
        while times[start] < at - 1:
            start += 1
        assert end - start + 1 <= rate * 1.01 + 2


@given(rates)
@settings(max_examples=100, deadline=None)
def test_punctual_timers_reach_the_rate_exactly(rate):
    times = send_all(Bucket(rate), 50, lambda: 0.0)

    assert times[-1] - times[0] == pytest.approx(49 / rate, rel=0.02)


@pytest.mark.parametrize("rate", [10, 50, 200, 1000])
def test_timers_that_are_a_little_late_do_not_cost_throughput(rate):
    times = send_all(Bucket(rate), 500, iter([0.0, 0.003, 0.001, 0.008] * 1000).__next__)

    assert times[-1] - times[0] == pytest.approx(499 / rate, rel=0.03)


def test_time_that_nobody_used_is_not_saved_up():
    bucket = Bucket(10)
    bucket.take(1000.0)

    bucket.idle(1060.0)

    assert bucket.due(1060.0, 0.0) == 1
    bucket.take(1060.0)
    assert bucket.at == pytest.approx(1060.1)


def test_what_falls_due_soon_can_be_claimed_ahead():
    bucket = Bucket(50)
    bucket.idle(1000.0)

    assert bucket.due(1000.0, 0.1) == 6
    assert Bucket(None).due(1000.0, 0.1) == math.inf
    slow = Bucket(0.5)
    slow.idle(1000.0)
    slow.take(1000.0)
    assert [slow.due(now, 0.1) for now in (1000.0, 1001.0, 1001.89, 1001.91)] == [0, 0, 0, 1]


def test_throttling_takes_a_fifth_each_time_and_gives_back_a_twentieth_a_minute():
    bucket = Bucket(100)

    bucket.slow_down(0.2, measured=100)
    bucket.slow_down(0.2, measured=80)
    slowest = bucket.rate
    for _ in range(7):
        bucket.recover(0.05)

    assert slowest == pytest.approx(64)
    assert bucket.rate == pytest.approx(99)
    bucket.recover(0.05)
    assert bucket.rate == 100


def test_a_bind_without_a_limit_gets_one_while_it_is_throttled():
    bucket = Bucket(None)

    bucket.slow_down(0.2, measured=500)
    limited = bucket.rate
    bucket.recover(0.15)
    still = bucket.rate
    bucket.recover(0.15)

    assert (limited, still, bucket.rate) == (400, pytest.approx(475), None)


def test_a_pause_doubles_for_each_refusal_after_it_and_a_whole_window_counts_once():
    throttle = Throttle(Profile())
    pauses = []
    now = 100.0
    for _ in range(8):
        sent_at = now
        now += 0.01
        assert throttle.refused(now, sent_at, growing=True)
        assert not throttle.refused(now, sent_at, growing=True)
        pauses.append(throttle.left(now).total_seconds())
        now += pauses[-1] + 0.01

    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])


def test_an_answer_to_something_older_does_not_end_the_pause():
    throttle = Throttle(Profile())
    throttle.refused(100.0, 99.9, growing=True)

    throttle.passed(99.95)
    still = throttle.engaged
    throttle.passed(101.5)

    assert still
    assert not throttle.engaged
    assert throttle.refused(102.0, 101.9, growing=True)
    assert throttle.left(102.0).total_seconds() == 1


def test_a_full_queue_pauses_for_as_long_as_the_profile_says():
    throttle = Throttle(Profile(queue_full_pause=7))

    for _ in range(3):
        throttle.refused(100.0, 99.0, growing=False)

    assert throttle.left(100.0).total_seconds() == 7
