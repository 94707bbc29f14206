"""When it is tried again, and when an endpoint is left alone."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.webhooks.pace import DISABLE_AFTER, GIVE_UP_AFTER, LONGEST_REST, SHORTEST_REST, TRIPS_AT, Health, Tried, after, next_attempt, retry_after

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def failed(at=AT, **more):
    return Tried("failed", at, 5, 500, "status_500", **more)


def test_attempts_lie_further_and_further_apart_and_fill_two_days():
    moments, attempts = [AT], 0
    while (due := next_attempt(attempts + 1, AT, failed(moments[-1]))) is not None:
        moments.append(due)
        attempts += 1

    pauses = [later - earlier for earlier, later in pairwise(moments)]
    assert 10 <= len(moments) <= 20
    assert pauses[0] < timedelta(seconds=6)
    assert all(later > earlier * 0.8 for earlier, later in pairwise(pauses))
    assert GIVE_UP_AFTER - timedelta(hours=9) < moments[-1] - AT <= GIVE_UP_AFTER


@given(attempts=st.integers(1, 30_000), seconds=st.integers(0, 200_000), asked=st.integers(0, 3600))
def test_next_attempt_is_never_past_the_two_days_and_never_before_what_was_asked(attempts, seconds, asked):
    tried = failed(AT + seconds * SECOND, retry_after=asked * SECOND)

    due = next_attempt(attempts, AT, tried)

    assert due is None or tried.at + asked * SECOND <= due <= AT + GIVE_UP_AFTER


def test_endpoint_rests_after_five_failures_and_ever_longer():
    health, rests, moment = Health(), [], AT
    for _ in range(40):
        moment = max(moment + SECOND, health.rests_until or AT)
        health = after(health, failed(moment))
        rests.append(health.rests_until - moment if health.rests_until else None)

    assert rests[: TRIPS_AT - 1] == [None] * (TRIPS_AT - 1)
    assert rests[TRIPS_AT - 1] <= SHORTEST_REST * 1.1
    assert rests[TRIPS_AT] > rests[TRIPS_AT - 1]
    assert max(rests[TRIPS_AT - 1 :]) <= LONGEST_REST * 1.1
    assert health.failing_since == AT + SECOND
    assert not health.is_given_up(AT + DISABLE_AFTER)
    assert health.is_given_up(AT + DISABLE_AFTER + 2 * SECOND)
    assert after(health, Tried("delivered", AT, 5, 204)) == Health()


def test_connections_that_fail_at_once_are_one_trouble():
    health = Health()
    for _ in range(16):
        health = after(health, failed(AT))

    assert health.failures == TRIPS_AT
    assert health.rests_until - AT <= SHORTEST_REST * 1.1
    assert after(health, failed(AT + SECOND, retry_after=60 * SECOND)).rests_until == AT + 61 * SECOND, "what it asks for is heard all the same"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        (" 5 ", 5),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30),
        ("999999999999999999999999", 3600),
        ("Mon, 23 Nov 2099 12:00:30 GMT", 3600),
        ("Mon, 23 Nov 2020 12:00:30 GMT", None),
        ("0", None),
        ("-5", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("٣", None),
        ("\x00" * 10, None),
    ],
)
def test_retry_after_is_kept_to_within_an_hour(header, seconds):
    assert retry_after(header, AT) == (None if seconds is None else seconds * SECOND)


@given(st.text(max_size=40))
def test_no_retry_after_does_harm(header):
    wait = retry_after(header, AT)

    assert wait is None or timedelta() < wait <= timedelta(hours=1)
