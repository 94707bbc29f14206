"""Not too much: caps by day, week and month, and the least time between two of one type."""

import asyncio
from datetime import UTC, date, datetime, timedelta

import pytest
import time_machine

from app.core.clock import now
from app.notifications.ending import close
from app.notifications.plan import Planner
from app.notifications.states import State
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event
from tests.builders.messages import one, rows, run
from tests.builders.templates import publish
from tests.builders.types import set_type

NOON = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)  # in Moscow
UPCOMING = {"due_on": "2026-12-01", "total": "600.00", "charges": []}
EXHAUSTING = {"days_left": 3, "exhausts_on": "2026-12-01", "recommended_payment": "100.00"}


async def upcoming(database, account, **more):
    return await a_waiting_event(database, account, "charges.upcoming", data=UPCOMING, **more)


async def exhausting(database, account, **more):
    return await a_waiting_event(database, account, "balance.exhausting", data=EXHAUSTING, **more)


async def said(database, event_id):
    """The reason, and what more is said, of each decision about the only contact on SMS."""
    (row,) = await rows(database, "SELECT decisions FROM notification WHERE event_id = :id", id=event_id)
    (decision,) = [decision for decision in row.decisions if decision["channel"] == "sms"]
    return decision["outcome"], decision["reason"], decision.get("detail")


TOLD, FULL = ("planned", None, None), ("skipped", "capped", "day")


@pytest.fixture
async def account(database):
    return await an_account(database)


async def test_third_reminder_of_a_day_is_one_too_many(database, planner, account):
    events = [await upcoming(database, account) for _ in range(3)]

    await planner.plan()

    assert [await said(database, event) for event in events] == [TOLD, TOLD, FULL]
    assert len(await rows(database, "SELECT id FROM message")) == 2
    assert {row.event_id for row in await rows(database, "SELECT event_id FROM told")} == set(events[:2])


async def test_what_was_told_in_earlier_batches_counts(database, planner, account):
    events = []
    for _ in range(3):
        events.append(await upcoming(database, account))
        await planner.plan()

    assert [await said(database, event) for event in events] == [TOLD, TOLD, FULL]


async def test_notification_with_two_messages_counts_once(database, planner):
    account = await an_account(database, mails=("a@example.org",))
    events = [await upcoming(database, account) for _ in range(3)]

    await planner.plan()

    assert [await said(database, event) for event in events] == [TOLD, TOLD, FULL]
    assert len(await rows(database, "SELECT id FROM message")) == 4
    (row,) = await rows(database, "SELECT decisions FROM notification WHERE event_id = :id", id=events[2])
    assert [decision["reason"] for decision in row.decisions] == ["capped", "capped"]


async def test_week_is_full_after_four_and_a_month_after_sixteen(database, planner, account):
    told = {}
    for day in range(32):
        with time_machine.travel(NOON + timedelta(days=day), tick=False):
            event = await upcoming(database, account)
            await planner.plan()
            told[day] = await said(database, event)

    full = {day: detail for day, (_, reason, detail) in told.items() if reason == "capped"}
    assert full == dict.fromkeys((4, 5, 6, 11, 12, 13, 18, 19, 20, 25, 26, 27), "week") | dict.fromkeys((28, 29), "month")


async def test_day_is_the_accounts_own(database, planner):
    far, near = await an_account(database, "far", timezone="Asia/Vladivostok"), await an_account(database, "near")
    with time_machine.travel("2026-11-23T13:30:00Z", tick=False):  # 23:30 in Vladivostok, 16:30 in Moscow
        for account in (far, far, near, near):
            await upcoming(database, account)
        await planner.plan()

    with time_machine.travel("2026-11-23T14:30:00Z", tick=False):
        events = [await upcoming(database, account) for account in (far, near)]
        await planner.plan()

    assert [await said(database, event) for event in events] == [TOLD, FULL]


@time_machine.travel("2026-11-23T23:30:00+03:00", tick=False)
async def test_what_waits_for_the_morning_counts_for_the_day_on_which_it_goes(database, at_night, wakeups, account):
    events = [await upcoming(database, account) for _ in range(3)]

    await Planner(database, at_night, wakeups).plan()

    assert [(await said(database, event))[1] for event in events] == ["quiet_hours", "quiet_hours", "capped"]
    assert {row.day for row in await rows(database, "SELECT day FROM told")} == {date(2026, 11, 24)}


async def test_what_has_no_cap_is_neither_held_back_nor_counted(database, planner, account):
    events = [await a_waiting_event(database, account) for _ in range(20)]

    await planner.plan()

    assert {await said(database, event) for event in events} == {TOLD}
    assert await rows(database, "SELECT event_id FROM told") == []


async def test_mandatory_types_pass_and_take_nobodys_place(database, planner, account):
    await set_type(database, "balance.exhausting", mandatory=True)
    mandatory = [await exhausting(database, account) for _ in range(3)]
    others = [await upcoming(database, account) for _ in range(2)]

    await planner.plan()

    assert {await said(database, event) for event in (*mandatory, *others)} == {TOLD}


async def test_type_counts_towards_the_kind_that_it_says(database, planner, account):
    await set_type(database, "service.connected", settings={"kind": "service"})
    await run(database, "INSERT INTO cap (kind, per_day, updated_at, updated_by) VALUES ('service', 1, now(), 'test')")
    services = [await a_waiting_event(database, account) for _ in range(2)]
    reminder = await upcoming(database, account)

    await planner.plan()

    assert [await said(database, event) for event in (*services, reminder)] == [TOLD, FULL, TOLD]


async def test_the_most_serious_of_a_batch_has_the_first_place(database, planner, account):
    await run(database, "UPDATE cap SET per_day = 1")
    lesser = await upcoming(database, account, time=now() - timedelta(minutes=2))
    serious = await exhausting(database, account, time=now() - timedelta(minutes=1))
    between = await a_waiting_event(database, account, time=now() - timedelta(seconds=90))

    await planner.plan()

    assert [await said(database, event) for event in (lesser, serious, between)] == [FULL, TOLD, TOLD]


async def test_cancelled_notification_gives_its_place_back(database, planner, account):
    await run(database, "UPDATE cap SET per_day = 1")
    await upcoming(database, account)
    await planner.plan()
    message = await one(database, "SELECT id FROM message")

    async with database.transaction() as session:
        await close(session, [message.id], State.CANCELLED, "operator", now())
    event = await upcoming(database, account)
    await planner.plan()

    assert await said(database, event) == TOLD


async def test_notification_of_which_a_message_is_still_there_keeps_its_place(database, planner):
    account = await an_account(database, mails=("a@example.org",))
    await upcoming(database, account)
    await planner.plan()
    sms, mail = [row.id for row in await rows(database, "SELECT id FROM message ORDER BY id")]

    async with database.transaction() as session:
        await close(session, [sms], State.CANCELLED, "operator", now())
    assert len(await rows(database, "SELECT event_id FROM told")) == 1

    async with database.transaction() as session:
        await close(session, [mail], State.EXPIRED, "too_late", now())
    assert await rows(database, "SELECT event_id FROM told") == []


async def test_second_of_a_type_comes_too_soon_until_its_interval_is_over(database, planner, account):
    await set_type(database, "service.connected", settings={"min_interval_seconds": 3600})
    with time_machine.travel(NOON, tick=False):
        first, second = [await a_waiting_event(database, account) for _ in range(2)]
        other = await a_waiting_event(database, account, "service.disconnected")
        await planner.plan()
    with time_machine.travel(NOON + timedelta(hours=1), tick=False):
        third = await a_waiting_event(database, account)
        await planner.plan()

    assert await said(database, second) == ("skipped", "too_soon", "2026-11-23T10:00:00+00:00")
    assert [await said(database, event) for event in (first, other, third)] == [TOLD] * 3


async def test_event_that_could_not_be_told_takes_no_place(database, planner, account):
    await run(database, "UPDATE cap SET per_day = 1")
    words = await publish(database, "charges.upcoming", "{{ 1 / 0 }}")
    await upcoming(database, account)
    await planner.plan()
    await run(database, "UPDATE template SET published_version = :n, revision = revision + 1 WHERE type = 'charges.upcoming'", n=words - 1)

    event = await upcoming(database, account)
    await planner.plan()

    assert await said(database, event) == TOLD


async def test_what_is_too_old_to_count_goes_with_the_next_notification(database, planner, account):
    with time_machine.travel(NOON, tick=False):
        await upcoming(database, account)
        await planner.plan()
    with time_machine.travel(NOON + timedelta(days=40), tick=False):
        event = await upcoming(database, account)
        await planner.plan()

    assert [row.event_id for row in await rows(database, "SELECT event_id FROM told")] == [event]


async def test_two_planners_do_not_give_the_last_place_away_twice(database, settings, wakeups):
    accounts = [await an_account(database, f"a{number}", phones=(f"+7916000000{number}",)) for number in range(4)]
    for _ in range(5):
        for account in accounts:
            await upcoming(database, account)
    planners = [Planner(database, settings, wakeups) for _ in range(2)]

    async def work(planner):
        while await planner.plan(batch=3):
            pass

    while await rows(database, "SELECT event_id FROM event_waiting"):
        await asyncio.gather(*(work(planner) for planner in planners))

    assert [row.number for row in await rows(database, "SELECT count(*) AS number FROM message GROUP BY account_id")] == [2] * 4


async def test_caps_are_shown_set_and_audited(database, api):
    shown = (await api.get("/caps")).json()["items"]
    assert [(cap["kind"], cap["per_day"], cap["per_week"], cap["per_month"]) for cap in shown] == [
        ("operation", None, None, None),
        ("reminder", 2, 4, 16),
        ("service", None, None, None),
    ]

    answer = await api.put("/caps/reminder", json={"per_day": 3, "per_week": 4})

    assert answer.status_code == 200, answer.text
    cap = answer.json()
    assert (cap["per_day"], cap["per_week"], cap["per_month"]) == (3, 4, None)
    assert cap["updated_by"].startswith("key:")
    assert (await api.get("/caps")).json()["items"][1] == cap
    (record,) = await rows(database, "SELECT action, object, changes FROM audit_record WHERE action = 'cap.set'")
    assert (record.object, record.changes) == ("cap:reminder", {"per_day": [2, 3], "per_month": [16, None]})


@pytest.mark.parametrize("body", [{"per_day": -1}, {"per_day": True}, {"per_day": 1.5}, {"per_year": 1}, []])
async def test_cap_that_makes_no_sense_is_refused(api, body):
    assert (await api.put("/caps/reminder", json=body)).status_code == 422


async def test_there_are_no_other_kinds(api):
    assert (await api.put("/caps/spam", json={"per_day": 1})).status_code == 422


async def test_viewer_may_look_and_not_touch(as_role):
    viewer = await as_role("viewer")

    assert (await viewer.get("/caps")).status_code == 200
    assert (await viewer.put("/caps/reminder", json={"per_day": 1})).status_code == 403


@pytest.mark.parametrize("delivery", ["first", "chain"])
@time_machine.travel("2026-11-23T23:30:00+03:00", tick=False)
async def test_day_is_that_of_the_channel_that_goes_first_and_not_of_one_that_waits_for_it(database, at_night, wakeups, delivery):
    account = await an_account(database, mails=("a@example.org",))
    await set_type(database, "charges.upcoming", settings={"delivery": delivery})
    events = [await upcoming(database, account) for _ in range(3)]

    await Planner(database, at_night, wakeups).plan()

    assert [(await said(database, event))[1] for event in events] == ["quiet_hours", "quiet_hours", "capped"]


@time_machine.travel("2026-11-23T23:50:00+03:00", tick=False)
async def test_what_waits_for_others_past_midnight_has_to_find_a_place_on_the_next_day(database, planner, account):
    for code in ("charges.upcoming", "balance.exhausting"):
        await set_type(database, code, coalesce_seconds=1200)
    await run(database, "UPDATE cap SET per_day = 1 WHERE kind = 'reminder'")
    events = [await upcoming(database, account), await exhausting(database, account)]

    await planner.plan()

    assert {(await said(database, event))[1] for event in events} == {"capped", "coalescing"}
