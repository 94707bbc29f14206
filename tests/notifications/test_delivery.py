"""The channels of a notification: all, the first, or one after the other; and the spread of what is released."""

from dataclasses import replace
from datetime import datetime, time, timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.accounts.window import Quiet
from app.catalogue.options import SendingOptions
from app.catalogue.registry import TypeRules
from app.core.ids import new_id
from app.notifications.audience import ORDINARY, URGENT, Around, Reached, Skipped, Told
from app.notifications.delivery import FALLBACK, HOURS, NO_HOUR, OF_ITS_ADDRESS, Cancel, Earlier, Go, Wait, course_of, judge, spread, spread_over
from app.notifications.states import State

MOSCOW = ZoneInfo("Europe/Moscow")
NOON = datetime(2026, 11, 23, 12, tzinfo=MOSCOW)
DAY, PATIENCE = timedelta(days=1), timedelta(minutes=30)
NIGHT = (time(22), time(8))


def rules(delivery="chain", **options):
    return TypeRules(
        code="service.connected",
        titles={},
        enabled=True,
        mandatory=False,
        urgent=False,
        passes_window=False,
        passes_quiet_hours=False,
        coalesce=timedelta(0),
        channels=("sms", "email"),
        ttl=DAY,
        settings={},
        data_schema=None,
        options=SendingOptions(delivery=delivery, **options),
        default_channels=frozenset({"sms", "email"}),
    )


def around(moment=NOON):
    return Around(moment, MOSCOW, Quiet.alike(NIGHT))


def a_choice(channel, moment=NOON):
    return Told(Reached(uuid4(), channel, f"{channel} address", "", suppressed=False), moment, None, moment + DAY, ORDINARY)


def walk(course, choices):
    """What the course makes of them, with the message that each waits for and whether others wait for it; each that is to be told is made."""
    found = []
    for choice in choices:
        made = choice if isinstance(choice, Skipped) else course.turn(choice)
        if isinstance(made, Skipped):
            found.append(made.reason)
            continue
        message_id = new_id()
        course.made(message_id, made.not_before)
        found.append((message_id, made, course.after, course.leads))
    return found


def an_earlier(state, reason=None, not_before=None, *, is_all=False):
    return Earlier(state.value, reason, not_before, is_all)


def test_without_a_word_about_it_every_channel_goes_by_itself():
    choices = [a_choice("sms"), a_choice("email")]

    found = walk(course_of(rules("all"), choices, around()), choices)

    assert [(made, after, leads) for _, made, after, leads in found] == [(choice, None, False) for choice in choices]


def test_first_tells_all_contacts_of_the_first_channel_and_nobody_else():
    choices = [Skipped("sms", None, "no_contact"), a_choice("email"), a_choice("email"), a_choice("push")]

    found = walk(course_of(rules("first"), choices, around()), choices)

    assert found[0] == "no_contact"
    assert [made for _, made, _, _ in found[1:3]] == choices[1:3]
    assert found[3] == "other_channel"
    assert [after for _, _, after, _ in found[1:3]] == [None, None]


def test_first_goes_on_to_the_next_channel_when_no_message_came_of_the_first():
    choices = [a_choice("sms"), a_choice("email")]
    course = course_of(rules("first"), choices, around())

    course.turn(choices[0])  # and its words cannot be made

    assert course.turn(choices[1]) == choices[1]


def test_chain_holds_the_second_channel_behind_the_first_message_of_the_first():
    choices = [a_choice("sms"), a_choice("sms"), a_choice("email")]

    first, second, third = walk(course_of(rules(fallback_minutes=20), choices, around()), choices)

    assert [(made, after, leads) for _, made, after, leads in (first, second)] == [(choice, None, True) for choice in choices[:2]]
    _, made, after, leads = third
    assert (after, leads) == (first[0], False)
    assert (made.waits, made.not_before, made.expires_at) == (FALLBACK, NOON + timedelta(minutes=20), NOON + timedelta(minutes=20) + DAY)


def test_chain_counts_from_when_the_last_of_the_first_channel_goes_and_in_the_hours_of_the_second():
    night = NOON.replace(hour=7)
    choices = [a_choice("email", night), a_choice("email", night + timedelta(minutes=20)), a_choice("sms", night)]

    *_, (_, made, _, _) = walk(course_of(rules(), choices, around(night)), choices)

    # 07:20 and half an hour is 07:50, and SMS sleep until eight.
    assert made.not_before == NOON.replace(hour=8)
    assert made.waits == FALLBACK


def test_chain_of_which_only_one_channel_has_somebody_leads_nobody():
    choices = [a_choice("sms"), Skipped("email", None, "no_contact")]

    (_, _, after, leads), _ = walk(course_of(rules(), choices, around()), choices)

    assert (after, leads) == (None, False)


def test_chain_whose_first_words_cannot_be_made_begins_with_the_second():
    choices = [a_choice("sms"), a_choice("email")]
    course = course_of(rules(), choices, around())

    course.turn(choices[0])

    assert course.turn(choices[1]) == choices[1]
    assert (course.after, course.leads) == (None, False)


ENDED = [State.UNDELIVERED, State.EXPIRED, State.FAILED]


@pytest.mark.parametrize("is_over", [False, True])
@pytest.mark.parametrize("other", list(State))
def test_one_delivery_is_enough_whatever_became_of_the_others(other, is_over):
    assert judge([an_earlier(other), an_earlier(State.DELIVERED)], PATIENCE, NOON, is_over=is_over) == Cancel("not_needed")


@pytest.mark.parametrize("state", ENDED)
def test_next_one_goes_at_once_when_the_first_has_not_arrived(state):
    assert isinstance(judge([an_earlier(state, "absent_subscriber")], PATIENCE, NOON, is_over=False), Go)


@pytest.mark.parametrize("reason", sorted(OF_ITS_ADDRESS))
def test_next_one_goes_when_only_the_address_of_the_first_was_at_fault(reason):
    assert judge([an_earlier(State.CANCELLED, reason)], PATIENCE, NOON, is_over=False) == Go(f"cancelled ({reason})")


@pytest.mark.parametrize("reason", ["resolved", "operator", "duplicate", "erased", "type_disabled", "not_needed"])
def test_what_is_not_wanted_any_more_is_not_wanted_on_the_next_channel_either(reason):
    before = [an_earlier(State.FAILED, "bad_number"), an_earlier(State.CANCELLED, reason)]

    assert judge(before, PATIENCE, NOON, is_over=True) == Cancel(reason)


@pytest.mark.parametrize("state", [State.QUEUED, State.SENDING, State.ACCEPTED, State.UNKNOWN])
def test_what_is_under_way_has_its_time_and_then_the_next_one_goes(state):
    before = [an_earlier(State.FAILED, "bad_number"), an_earlier(state, not_before=NOON)]

    assert judge(before, PATIENCE, NOON, is_over=False) == Wait()
    assert isinstance(judge(before, PATIENCE, NOON, is_over=True), Go)


def test_where_more_than_taken_is_never_told_taken_is_enough_when_the_time_is_over():
    before = [an_earlier(State.ACCEPTED, is_all=True)]

    assert judge(before, PATIENCE, NOON, is_over=False) == Wait()
    assert judge(before, PATIENCE, NOON, is_over=True) == Cancel("not_needed")


@pytest.mark.parametrize("reason", sorted(HOURS | {"coalescing", "outdated"}))
def test_next_one_waits_with_the_first_that_waits_for_its_hour(reason):
    opens = NOON + timedelta(hours=20)

    assert judge([an_earlier(State.HELD, reason, opens)], PATIENCE, NOON, is_over=True) == Wait(opens + PATIENCE)
    assert judge([an_earlier(State.HELD, reason, NOON - DAY)], PATIENCE, NOON, is_over=True) == Wait(NOON + PATIENCE)


@pytest.mark.parametrize("reason", sorted(NO_HOUR))
def test_next_one_does_not_wait_for_a_stop_or_a_budget_to_end(reason):
    assert isinstance(judge([an_earlier(State.HELD, reason, NOON + DAY)], PATIENCE, NOON, is_over=True), Go)


def test_message_of_which_nothing_is_known_any_more_keeps_nobody_waiting():
    assert judge([], PATIENCE, NOON, is_over=True) == Go("gone")


earlier_ones = st.builds(
    Earlier,
    st.sampled_from([state.value for state in State]),
    st.sampled_from([None, "resolved", "operator", "suppressed", "quiet_hours", "stopped"]),
    st.datetimes(datetime(2026, 11, 20), datetime(2026, 11, 30), timezones=st.just(MOSCOW)),
    st.booleans(),
)


@given(st.lists(earlier_ones, min_size=1, max_size=5), st.booleans())
def test_nobody_waits_for_ever_and_nobody_is_told_twice_of_what_was_delivered(before, is_over):
    said = judge(before, PATIENCE, NOON, is_over=is_over)

    if any(one.state == "delivered" for one in before):
        assert said == Cancel("not_needed")
    if is_over:
        assert isinstance(said, Cancel | Go) or (said.until is not None and said.until >= NOON + PATIENCE)
    assert said == judge(before[::-1], PATIENCE, NOON, is_over=is_over) or len({one.reason for one in before}) > 1


@given(st.uuids(), st.integers(0, 14_400), st.none() | st.integers(1, 20_000))
def test_spread_is_always_the_same_for_a_message_and_within_its_window(message_id, width, open_for):
    until = None if open_for is None else NOON + timedelta(seconds=open_for)

    shift = spread_over(message_id, NOON, until, timedelta(seconds=width))

    assert timedelta(0) <= shift <= timedelta(seconds=width)
    assert shift == spread_over(message_id, NOON, until, timedelta(seconds=width))
    assert until is None or NOON + shift <= until


def test_spread_fills_the_whole_width():
    width = timedelta(minutes=10)

    shifts = [spread_over(new_id(), NOON, None, width) for _ in range(2000)]

    minutes = [sum(shift // timedelta(minutes=1) == minute for shift in shifts) for minute in range(10)]
    assert min(minutes) > 120


def test_only_what_waits_for_hours_is_spread_and_nothing_urgent():
    width, message_id = timedelta(minutes=10), new_id()
    waiting = replace(a_choice("sms"), waits="quiet_hours")

    later = spread(waiting, message_id, width)

    assert later.not_before - NOON == later.expires_at - waiting.expires_at == spread_over(message_id, NOON, None, width)
    assert later.not_before > NOON
    for choice in (replace(waiting, waits=None), replace(waiting, waits=FALLBACK), replace(waiting, priority=URGENT)):
        assert spread(choice, message_id, width) == choice
    assert spread(waiting, message_id, timedelta(0)) == waiting
