"""How a gateway does: what a bind makes of its answers, and what is read of that."""

import pytest

from app.gateways.health import Health, standing_of
from app.gateways.profile import Profile
from app.gateways.router import Standing

NOW = 1_800_000_000.0


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def health(clock, **profile):
    return Health(Profile(**({"failing_share": 0.5, "failing_window": 60, "failing_least": 10, "failing_return": 100} | profile)), clock)


def test_gateway_whose_errors_are_half_of_its_answers_is_failing_and_comes_back_little_by_little(clock):
    bind, shares = health(clock), []

    told = [bind.answered(well=number % 2 == 0) for number in range(10)]
    for _ in range(5):
        shares.append(round(bind.share, 3))
        clock.now += 25

    assert told == [False] * 9 + [True]
    assert shares == [0.05, 0.287, 0.525, 0.762, 1.0]
    assert bind.as_json()["failing_since"] is None


def test_few_answers_and_a_small_share_of_errors_prove_nothing(clock):
    few, small = health(clock), health(clock)

    assert not any(few.answered(well=False) for _ in range(9))
    assert not any(small.answered(well=number % 5 != 0) for number in range(1_000))
    assert few.share == small.share == 1


def test_errors_beyond_the_window_are_forgotten(clock):
    bind = health(clock)
    for _ in range(9):
        bind.answered(well=False)
    clock.now += 61

    assert not bind.answered(well=False)
    assert (bind.as_json()["answers"], bind.as_json()["errors"]) == (1, 1)


def test_gateway_that_goes_on_failing_begins_its_return_anew(clock):
    bind = health(clock)
    [bind.answered(well=False) for _ in range(10)]
    clock.now += 50
    assert bind.share == pytest.approx(0.525)

    [bind.answered(well=False) for _ in range(10)]

    assert bind.share == pytest.approx(0.05)


def test_share_of_one_never_fails(clock):
    bind = health(clock, failing_share=1)

    assert not any(bind.answered(well=False) for _ in range(100))


def test_window_takes_the_same_memory_for_many_answers(clock):
    bind = health(clock)
    for _ in range(20_000):
        clock.now += 0.05
        bind.answered(well=True)

    assert len(bind._bins) <= 14
    assert bind.as_json()["answers"] == sum(answers for _, answers, _ in bind._bins) <= 1_300


def slot(state="bound", *, alive=True, until=NOW + 15, **said):
    return [alive, until, state, said or None]


def told(moment):
    return Health(Profile(), lambda: moment, down_since=moment).as_json()["down_since"]


@pytest.mark.parametrize(
    ("slots", "standing"),
    [
        ([slot()], Standing()),
        ([slot("connecting", down_since=told(NOW - 5))], Standing(is_up=False)),
        ([slot("connecting", down_since=told(NOW - 20))], Standing(is_up=False, is_lost=True)),
        ([slot("stopped", down_since=told(NOW - 20))], Standing(is_up=False, is_lost=True)),
        ([slot("connecting", down_since=told(NOW - 20)), slot()], Standing()),
        ([slot("connecting", down_since=told(NOW - 20)), slot("down", down_since=told(NOW - 5))], Standing(is_up=False)),
        ([slot(alive=False, until=NOW - 5)], Standing(is_up=False)),
        ([slot(alive=False, until=NOW - 20)], Standing(is_up=False, is_lost=True)),
        ([slot("throttled", throttled_since=told(NOW - 5))], Standing()),
        ([slot("throttled", throttled_since=told(NOW - 20))], Standing(is_up=False, is_lost=True)),
        ([slot("throttled", throttled_since=told(NOW - 20)), slot()], Standing()),
        ([slot(share=0.05), slot()], Standing(share=0.525)),
        ([slot("connecting")], Standing(is_up=False)),
        ([], Standing(is_up=False)),
    ],
)
def test_gateway_does_as_well_as_its_binds_say(slots, standing):
    assert standing_of(slots, paused=False, patience=15, since=NOW - 10, now=NOW) == standing


def test_gateway_that_nobody_has_ever_served_is_lost_after_a_while():
    assert standing_of([], paused=False, patience=15, since=NOW - 20, now=NOW).is_lost
    assert not standing_of([slot()], paused=True, patience=15, since=NOW, now=NOW).is_open


def test_bind_that_comes_up_for_a_moment_again_and_again_has_been_down_all_the_time(clock):
    bind = health(clock, stable_after=30)
    bind.moved("bound")
    clock.now += 100
    first_lost = clock.now
    bind.moved("connecting")

    for _ in range(5):
        clock.now += 10
        bind.moved("bound")
        assert bind.down_since is None
        clock.now += 0.1
        bind.moved("connecting")

    assert bind.down_since == first_lost
    bind.moved("bound")
    clock.now += 30
    bind.moved("connecting")
    assert bind.down_since == clock.now
