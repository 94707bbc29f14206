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


def busiest_second(times: list[float]) -> int:
    """The most parts within any second, its end excluded."""
    start, most = 0, 0
    for end, at in enumerate(times):
        while times[start] <= at - 1:
            start += 1
        most = max(most, end - start + 1)
    return most


@given(rates, st.integers(1, 50), st.lists(st.floats(0, 0.3), min_size=5, max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_second_carries_more_than_the_rate_and_a_burst(rate, burst, lateness):
    times = send_all(Bucket(rate, burst), min(3 * math.ceil(rate) + 20 + burst, 3000), iter(lateness * 1000).__next__)

    assert busiest_second(times) <= rate + burst


@given(rates, st.integers(1, 20), st.lists(st.tuples(st.floats(0, 3), st.integers(1, 30)), min_size=2, max_size=20))
@settings(max_examples=200, deadline=None)
def test_no_second_carries_more_when_traffic_comes_in_waves(rate, burst, waves):
    bucket, now, times = Bucket(rate, burst), 1000.0, []
    for pause, count in waves:
        times += send_all(bucket, count, lambda: 0.0, start=now)
        now = times[-1] + pause

    assert busiest_second(times) <= rate + burst


@given(rates, st.integers(1, 20), st.lists(st.tuples(st.booleans(), st.integers(1, 40)), min_size=1, max_size=10))
@settings(max_examples=100, deadline=None)
def test_no_second_carries_more_while_the_rate_is_lowered_and_recovers(rate, burst, changes):
    bucket, now, times = Bucket(rate, burst), 1000.0, []
    for slower, count in changes:
        bucket.slow_down(0.2, measured=rate) if slower else bucket.recover(0.1)
        times += send_all(bucket, count, lambda: 0.0, start=now)
        now = times[-1]

    assert busiest_second(times) <= rate + burst


@given(st.floats(0.05, 500), st.integers(2, 20))
@settings(max_examples=100, deadline=None)
def test_after_a_pause_a_burst_goes_at_once_and_then_the_rate_again(rate, burst):
    bucket = Bucket(rate, burst)

    times = send_all(bucket, burst + 20, lambda: 0.0)

    assert times[burst - 1] == times[0]
    assert times[burst] > times[0]
    # The rate is never exceeded in the long run by more than that burst.
    assert times[-1] - times[0] >= 20 / rate * 0.98 - 1e-6


def test_what_falls_due_soon_counts_the_burst():
    bucket = Bucket(10, 5)
    bucket.idle(1000.0)

    assert bucket.due(1000.0, 0.0) == 5
    assert bucket.due(1000.0, 0.1) == 6
    for _ in range(5):
        bucket.take(1000.0)
    assert [bucket.due(now, 0.0) for now in (1000.0, 1000.11, 1000.31, 1060.0)] == [0, 1, 3, 5]


def test_a_tenth_a_second_is_a_part_every_ten_seconds():
    times = send_all(Bucket(0.1), 5, lambda: 0.0)

    assert [at - times[0] for at in times] == pytest.approx([0, 10, 20, 30, 40], abs=0.03 * 5)


def test_a_payload_of_several_parts_is_paid_for_part_by_part():
    bucket = Bucket(10)
    bucket.idle(1000.0)

    bucket.take(1000.0, parts=5)

    assert bucket.at == pytest.approx(1000.5)


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


def test_a_bind_that_is_free_again_remembers_nothing_of_its_limit():
    bucket = Bucket(None)
    bucket.slow_down(0.5, measured=2)
    bucket.idle(1000.0)
    bucket.take(1000.0)

    bucket.recover(1)
    bucket.idle(1001.0)

    assert bucket.rate is None
    assert bucket.at <= 1001.0


def test_an_hour_of_throttling_leaves_a_hundredth_of_the_rate():
    limited, free = Bucket(100), Bucket(None)

    for _ in range(1000):
        limited.slow_down(0.2, measured=1)
        free.slow_down(0.2, measured=500)

    assert (limited.rate, free.rate) == (1, 5)
    for _ in range(30):
        free.recover(0.05)
    assert free.rate is None


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
