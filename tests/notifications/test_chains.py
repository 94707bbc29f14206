"""Chains of channels: the second message goes when the first has not arrived, and only then."""

import asyncio
from datetime import date, timedelta

import orjson
import pytest
import time_machine

from app.core.clock import now
from app.core.ids import new_id
from app.desk.appraise import Appraiser
from app.forecasts.find import Hit
from app.notifications.ending import close
from app.notifications.follow import Following
from app.notifications.hold import Holding
from app.notifications.plan import Planner
from app.notifications.states import State
from app.notifications.stops import Switch
from app.sending.outcome import Accepted, Refused, Unknown
from app.tracking.moves import move_to
from tests.builders.accounts import a_contact, an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smpp_gateway, an_smtp_gateway
from tests.builders.messages import a_message, claim, one, rows, run, state_of, write

MINUTE = timedelta(minutes=1)
REFUSED = Refused("bad_number", "0x0B", "")


@pytest.fixture
def following(database):
    return Following(database)


@pytest.fixture
async def account(database):
    await an_smpp_gateway(database, bound=True)
    await an_smtp_gateway(database)
    await chained(database)
    return await an_account(database, mails=("a@example.org",))


async def chained(database, channels=("sms", "email"), code="service.connected", **options):
    """The type goes by these channels, one after the other unless `delivery` says otherwise."""
    await run(
        database,
        "UPDATE notification_type SET settings = CAST(:settings AS jsonb), channels = :channels, revision = revision + 1 WHERE code = :code",
        code=code,
        settings=orjson.dumps({"delivery": "chain", "fallback_minutes": 30} | options).decode(),
        channels=list(channels),
    )


async def a_chain(database, planner, account, **event):
    """The first message and the one behind it."""
    event_id = await a_waiting_event(database, account, **event)
    await planner.plan()
    first, *_, second = (row.id for row in await rows(database, "SELECT id FROM message WHERE event_id = :id ORDER BY id", id=event_id))
    return first, second


async def ended(database, message_id, state, reason=None):
    """It has left the outbox, and come to this."""
    await run(database, "DELETE FROM outbox WHERE message_id = :id", id=message_id)
    await run(database, "UPDATE message SET state = :state, reason = :reason WHERE id = :id", id=message_id, state=state.value, reason=reason)


async def delivered(session, message_id):
    """As a receipt says it."""
    await move_to(session, {(State.DELIVERED, None): [message_id]}, now())


async def cancelled(database, message_id, reason):
    async with database.transaction() as session:
        await close(session, [message_id], State.CANCELLED, reason, now())


async def time_passes(database, message_id, minutes):
    await run(database, f"UPDATE outbox SET not_before = not_before - interval '{minutes} minutes' WHERE message_id = :id", id=message_id)


async def sweep(following, holding):
    await following.follow()
    await holding.release()


async def test_second_channel_is_held_behind_the_first_and_the_decision_says_so(database, planner, account):
    event_id = await a_waiting_event(database, account)

    await planner.plan()

    first, second = await rows(database, "SELECT o.*, m.leads FROM outbox o JOIN message m ON m.id = o.message_id ORDER BY o.message_id")
    assert (first.channel, first.state, first.leads, first.after_message) == ("sms", "queued", True, None)
    assert (second.channel, second.state, second.reason, second.leads, second.after_message) == ("email", "held", "fallback", None, first.message_id)
    assert second.not_before - first.not_before == 30 * MINUTE
    decisions = (await one(database, "SELECT decisions FROM notification WHERE event_id = :id", id=event_id)).decisions
    assert [(d["outcome"], d["reason"], d.get("after")) for d in decisions] == [("planned", None, None), ("planned", "fallback", str(first.message_id))]
    assert decisions[1]["not_before"] == second.not_before.isoformat()


async def test_first_mode_skips_the_other_channels(database, planner, account):
    await chained(database, delivery="first")
    event_id = await a_waiting_event(database, account)

    await planner.plan()

    assert [row.channel for row in await rows(database, "SELECT channel FROM outbox")] == ["sms"]
    decisions = (await one(database, "SELECT decisions FROM notification WHERE event_id = :id", id=event_id)).decisions
    assert [(d["channel"], d["outcome"], d["reason"]) for d in decisions] == [("sms", "planned", None), ("email", "skipped", "other_channel")]


async def test_what_was_delivered_needs_no_second_channel(database, planner, following, holding, account):
    first, second = await a_chain(database, planner, account)
    await ended(database, first, State.DELIVERED)

    assert await following.follow() == 1

    assert await state_of(database, second) == ("cancelled", "not_needed")
    assert await rows(database, "SELECT * FROM follow_up") == []


@pytest.mark.parametrize("state", [State.UNDELIVERED, State.EXPIRED])
async def test_what_did_not_arrive_goes_by_the_second_channel_at_once(database, planner, following, holding, account, state):
    first, second = await a_chain(database, planner, account)
    await ended(database, first, state, "absent_subscriber")

    await sweep(following, holding)

    assert await state_of(database, second) == ("queued", None)
    said = [tuple(row) for row in await rows(database, "SELECT state, reason, detail FROM message_change WHERE message_id = :id ORDER BY id", id=second)]
    assert said == [("held", "fallback", None), ("held", "fallback", f"the one before it: {state.value} (absent_subscriber)"), ("queued", "released", None)]


async def test_refusal_on_the_wire_releases_the_second_channel(database, planner, following, holding, account):
    _, second = await a_chain(database, planner, account)
    owner = new_id()
    (claimed,) = await claim(database, owner=owner)

    await write(database, owner, (claimed, REFUSED))
    await sweep(following, holding)

    assert await state_of(database, second) == ("queued", None)


@pytest.mark.parametrize(
    ("reason", "after"),
    [("suppressed", ("queued", None)), ("contact_removed", ("queued", None)), ("operator", ("cancelled", "operator")), ("resolved", ("cancelled", "resolved"))],
)
async def test_why_the_first_was_cancelled_decides_about_the_second(database, planner, following, holding, account, reason, after):
    first, second = await a_chain(database, planner, account)
    await cancelled(database, first, reason)

    await sweep(following, holding)

    assert await state_of(database, second) == after


async def test_silence_waits_its_time_and_then_the_second_channel_goes(database, planner, following, holding, account):
    first, second = await a_chain(database, planner, account)
    owner = new_id()
    (claimed,) = await claim(database, owner=owner)
    await write(database, owner, (claimed, Unknown("no_answer")))

    await sweep(following, holding)
    before = await state_of(database, second)
    await time_passes(database, second, 31)
    await sweep(following, holding)

    assert await state_of(database, first) == ("unknown", "no_answer")
    assert (before, await state_of(database, second)) == (("held", "fallback"), ("queued", None))


@pytest.mark.parametrize("under_way", ["queued", "accepted"])
async def test_first_that_is_still_under_way_when_its_time_is_over_does_not_keep_the_second(database, planner, following, holding, account, under_way):
    first, second = await a_chain(database, planner, account)
    if under_way == "accepted":
        owner = new_id()
        (claimed,) = await claim(database, owner=owner)
        await write(database, owner, (claimed, Accepted(("id-1",))))
    await time_passes(database, second, 31)

    await sweep(following, holding)

    assert await state_of(database, first) == (under_way, None)
    assert await state_of(database, second) == ("queued", None)


async def test_delivery_that_is_told_too_late_takes_back_what_still_waits_in_the_queue(database, planner, following, holding, account):
    first, second = await a_chain(database, planner, account)
    await ended(database, first, State.UNDELIVERED)
    await sweep(following, holding)
    assert await state_of(database, second) == ("queued", None)

    async with database.transaction() as session:
        await delivered(session, first)
    await sweep(following, holding)

    assert await state_of(database, first) == ("delivered", None)
    assert await state_of(database, second) == ("cancelled", "not_needed")


async def test_delivery_that_is_told_after_the_second_has_gone_changes_nothing(database, planner, following, account):
    first, second = await a_chain(database, planner, account)
    await ended(database, second, State.ACCEPTED)
    await ended(database, first, State.DELIVERED)

    assert await following.follow() == 1

    assert await state_of(database, second) == ("accepted", None)


async def test_lost_notice_is_made_good_at_release(database, planner, holding, account):
    first, second = await a_chain(database, planner, account)
    await ended(database, first, State.DELIVERED)
    await run(database, "DELETE FROM follow_up")
    await time_passes(database, second, 31)

    await holding.release()

    assert await state_of(database, second) == ("cancelled", "not_needed")


async def test_channel_has_arrived_when_one_of_its_contacts_has(database, planner, following, holding):
    await chained(database)
    account = await an_account(database, phones=("+79161234567", "+79161234568"), mails=("a@example.org",))
    await a_waiting_event(database, account)
    await planner.plan()
    one_phone, other_phone, mail = (row.id for row in await rows(database, "SELECT id FROM message ORDER BY id"))
    assert [row.leads for row in await rows(database, "SELECT leads FROM message ORDER BY id")] == [True, True, None]

    await ended(database, one_phone, State.UNDELIVERED)
    await sweep(following, holding)
    between = await state_of(database, mail)
    await ended(database, other_phone, State.DELIVERED)
    await sweep(following, holding)

    assert (between, await state_of(database, mail)) == (("held", "fallback"), ("cancelled", "not_needed"))


async def test_channel_has_failed_when_the_last_of_its_contacts_has(database, planner, following, holding):
    await chained(database)
    account = await an_account(database, phones=("+79161234567", "+79161234568"), mails=("a@example.org",))
    await a_waiting_event(database, account)
    await planner.plan()
    one_phone, other_phone, mail = (row.id for row in await rows(database, "SELECT id FROM message ORDER BY id"))

    await ended(database, other_phone, State.UNDELIVERED)
    await cancelled(database, one_phone, "suppressed")
    await sweep(following, holding)

    assert await state_of(database, mail) == ("queued", None)


async def test_letter_that_was_taken_is_all_that_will_be_known_and_needs_no_sms(database, planner, following, holding, account):
    await chained(database, channels=("email", "sms"))
    letter, sms = await a_chain(database, planner, account)
    await ended(database, letter, State.ACCEPTED)
    await sweep(following, holding)
    before = await state_of(database, sms)

    await time_passes(database, sms, 31)
    await sweep(following, holding)

    assert (before, await state_of(database, sms)) == (("held", "fallback"), ("cancelled", "not_needed"))


@pytest.mark.parametrize(("registered_delivery", "after"), [(0, ("cancelled", "not_needed")), (1, ("queued", None))])
async def test_sms_over_a_gateway_without_receipts_has_arrived_when_it_was_taken(database, planner, holding, account, registered_delivery, after):
    await run(
        database,
        "UPDATE gateway SET settings = jsonb_set(settings, '{profile,registered_delivery}', CAST(:value AS jsonb)) WHERE name = 'main'",
        value=str(registered_delivery),
    )
    first, second = await a_chain(database, planner, account)
    await run(database, "DELETE FROM outbox WHERE message_id = :id", id=first)
    await run(database, "UPDATE message SET state = 'accepted', gateway = 'main' WHERE id = :id", id=first)
    await time_passes(database, second, 31)

    await holding.release()

    assert await state_of(database, second) == after


@time_machine.travel("2026-11-23T23:30:00+03:00", tick=True)
async def test_chain_that_begins_in_the_night_is_counted_from_the_morning(database, at_night, wakeups, account):
    _, second = await a_chain(database, Planner(database, at_night, wakeups), account)

    assert (await one(database, "SELECT not_before FROM outbox WHERE message_id = :id", id=second)).not_before.isoformat() == "2026-11-24T05:30:00+00:00"


@time_machine.travel("2026-11-23T21:50:00+03:00", tick=False)
async def test_first_that_is_put_off_to_the_morning_takes_the_second_with_it(database, at_night, wakeups, account):
    first, second = await a_chain(database, Planner(database, at_night, wakeups), account)
    lives_until = (await one(database, "SELECT expires_at FROM outbox WHERE message_id = :id", id=second)).expires_at
    holding = Holding(database, at_night, wakeups)

    with time_machine.travel("2026-11-23T22:00:01+03:00", tick=False):
        await run(database, "UPDATE outbox SET send_until = now() - interval '1 second' WHERE message_id = :id", id=first)
        await run(database, "UPDATE outbox SET expires_at = greatest(expires_at, now() + interval '1 year') WHERE message_id = :id", id=first)
        assert await holding.put_off() == 1

    row = await one(database, "SELECT o.*, m.expires_at AS of_message FROM outbox o JOIN message m ON m.id = o.message_id WHERE o.message_id = :id", id=second)
    assert await state_of(database, first) == ("held", "quiet_hours")
    assert (row.state, row.reason, row.not_before.isoformat()) == ("held", "fallback", "2026-11-24T05:30:00+00:00")
    assert row.expires_at == row.of_message == lives_until + timedelta(hours=10, minutes=10)


async def test_second_whose_time_comes_while_the_first_is_held_waits_with_it(database, planner, holding, account):
    first, second = await a_chain(database, planner, account)
    opens = now() + timedelta(hours=9)
    await run(database, "UPDATE outbox SET state = 'held', reason = 'own_hours', not_before = :opens WHERE message_id = :id", opens=opens, id=first)
    await time_passes(database, second, 31)
    life = "SELECT o.not_before, o.expires_at, m.expires_at AS of_message FROM outbox o JOIN message m ON m.id = o.message_id WHERE m.id = :id"
    before = await one(database, life, id=second)

    await holding.release()

    row = await one(database, life, id=second)
    assert await state_of(database, second) == ("held", "fallback")
    assert row.not_before == opens + 30 * MINUTE
    assert row.expires_at == row.of_message
    assert row.expires_at - before.expires_at > timedelta(hours=9)


async def test_first_that_is_released_late_has_its_full_time(database, planner, holding, account):
    first, second = await a_chain(database, planner, account)
    await run(database, "UPDATE outbox SET state = 'held', reason = 'own_hours', not_before = now() - interval '2 hours' WHERE message_id = :id", id=first)
    await time_passes(database, second, 120)  # nobody has swept for two hours: both are due

    await holding.release()
    await holding.release()

    assert await state_of(database, first) == ("queued", None)
    assert await state_of(database, second) == ("held", "fallback")
    assert (await one(database, "SELECT not_before > now() + interval '28 minutes' AS waits FROM outbox WHERE message_id = :id", id=second)).waits


async def test_stop_of_the_first_gateway_does_not_keep_the_second_channel(database, planner, following, holding, account):
    first, second = await a_chain(database, planner, account)
    await run(database, "INSERT INTO stop (id, scope, name, reason, by, at) VALUES (:id, 'gateway', 'main', '', 'test', now())", id=new_id())
    await Switch(database).hold()
    await time_passes(database, second, 31)

    await sweep(following, holding)

    assert await state_of(database, first) == ("held", "stopped")
    assert await state_of(database, second) == ("queued", None)


async def test_stop_of_everything_keeps_a_second_channel_that_is_due(database, planner, following, holding, account):
    first, second = await a_chain(database, planner, account)
    await run(database, "INSERT INTO stop (id, scope, name, reason, by, at) VALUES (:id, 'all', '', '', 'test', now())", id=new_id())
    await ended(database, first, State.UNDELIVERED)

    await sweep(following, holding)

    assert await state_of(database, second) == ("held", "fallback")


async def test_released_second_one_still_keeps_the_quiet_hours(database, at_night, wakeups, following, account):
    await chained(database, channels=("email", "sms"))
    with time_machine.travel("2026-11-23T21:00:00+03:00", tick=False):
        letter, sms = await a_chain(database, Planner(database, at_night, wakeups), account)

    with time_machine.travel("2026-11-23T23:00:00+03:00", tick=False):
        await run(database, "UPDATE outbox SET not_before = now(), expires_at = now() + interval '1 year' WHERE message_id = :id", id=sms)
        await ended(database, letter, State.FAILED)
        await Holding(database, at_night, wakeups).release()

    assert await state_of(database, sms) == ("held", "quiet_hours")
    assert (await one(database, "SELECT not_before FROM outbox WHERE message_id = :id", id=sms)).not_before.isoformat() == "2026-11-24T05:00:00+00:00"


async def test_two_sweepers_act_once(database, planner, settings, wakeups, account):
    chains = [await a_chain(database, planner, account) for _ in range(10)]
    for first, _ in chains:
        await ended(database, first, State.UNDELIVERED)

    moved = await asyncio.gather(*(Following(database).follow() for _ in range(3)))
    await asyncio.gather(*(Holding(database, settings, wakeups).release() for _ in range(2)))

    assert sum(moved) == 10
    assert [await state_of(database, second) for _, second in chains] == [("queued", None)] * 10
    assert (await one(database, "SELECT count(*) AS n FROM message_change WHERE detail LIKE 'the one before it%'")).n == 10


async def test_step_that_dies_before_its_commit_is_done_again(database, planner, following, account):
    first, second = await a_chain(database, planner, account)
    await ended(database, first, State.DELIVERED)

    session = database._sessions()
    await following._follow(session)
    await session.rollback()
    await session.close()

    assert await state_of(database, second) == ("held", "fallback")
    assert await following.follow() == 1
    assert await state_of(database, second) == ("cancelled", "not_needed")


async def test_news_that_comes_while_the_step_is_at_work_is_not_lost(database, planner, following, account):
    first, second = await a_chain(database, planner, account)
    await ended(database, first, State.UNKNOWN)
    async with database.transaction() as session:
        await delivered(session, first)

        assert await asyncio.wait_for(following.follow(), 5) == 0  # whose row the news has locked

    assert await following.follow() == 1
    assert await state_of(database, second) == ("cancelled", "not_needed")


async def test_erasure_leaves_nobody_waiting(database, api, planner, following, account):
    first, second = await a_chain(database, planner, account)

    answer = await api.delete("/accounts/100500")
    await following.follow()

    assert answer.status_code == 204
    assert await state_of(database, first) == await state_of(database, second) == ("cancelled", "erased")
    assert await rows(database, "SELECT * FROM follow_up") == []


async def test_resend_of_the_first_that_arrives_makes_the_second_needless(database, planner, holding, account):
    first, second = await a_chain(database, planner, account)
    await ended(database, first, State.ACCEPTED)
    event = await one(database, "SELECT event_id FROM message WHERE id = :id", id=first)
    await a_message(database, account, event_id=event.event_id, resend_of=first, ended="delivered")
    await time_passes(database, second, 31)

    await holding.release()

    assert await state_of(database, second) == ("cancelled", "not_needed")


async def test_second_try_after_a_silence_is_waited_for(database, planner, following, holding, account):
    first, second = await a_chain(database, planner, account)
    await run(database, "UPDATE outbox SET resent = true, tries = 1 WHERE message_id = :id", id=first)

    await sweep(following, holding)
    before = await state_of(database, second)
    await cancelled(database, first, "resolved")  # what was sent once is in doubt, whatever ends its waiting
    await sweep(following, holding)

    assert before == ("held", "fallback")
    assert await state_of(database, first) == ("unknown", "no_answer")
    assert await state_of(database, second) == ("held", "fallback")


async def test_contact_that_was_removed_meanwhile_is_not_told_by_the_second_channel(database, planner, following, holding, account):
    first, second = await a_chain(database, planner, account)
    await run(database, "DELETE FROM contact WHERE channel = 'email'")
    await ended(database, first, State.FAILED)

    await sweep(following, holding)

    assert await state_of(database, second) == ("cancelled", "contact_removed")


async def test_message_that_nobody_waits_for_leaves_no_notice(database, planner, account):
    await chained(database, delivery="all")
    first, second = await a_chain(database, planner, account)

    await ended(database, first, State.DELIVERED)

    assert await rows(database, "SELECT * FROM follow_up") == []
    assert await state_of(database, second) == ("queued", None)


async def test_chains_of_one_account_do_not_take_each_others_part(database, planner, following, account):
    first, second = await a_chain(database, planner, account)
    other, behind_other = await a_chain(database, planner, account)
    await ended(database, first, State.DELIVERED)

    await following.follow()

    assert await state_of(database, second) == ("cancelled", "not_needed")
    assert (await state_of(database, other), await state_of(database, behind_other)) == (("queued", None), ("held", "fallback"))


async def test_api_shows_when_the_next_one_goes_and_what_it_waits_for(database, api, planner, account):
    first, second = await a_chain(database, planner, account)

    listed = {item["id"]: item for item in (await api.get("/messages", params={"account": "100500"})).json()["items"]}

    assert listed[str(first)]["after"] is None
    waiting = listed[str(second)]
    assert (waiting["state"], waiting["reason"], waiting["after"]) == ("held", "fallback", str(first))
    assert waiting["not_before"] > listed[str(first)]["not_before"]
    event = (await api.get(f"/events/{waiting['event_id']}")).json()
    assert [decision["after"] for decision in event["decisions"]] == [None, str(first)]


async def test_second_phone_added_after_planning_has_no_part_in_the_chain(database, planner, following, holding, account):
    first, second = await a_chain(database, planner, account)
    async with database.transaction() as session:
        session.add(a_contact(account, "sms", "+79161234599"))
    await ended(database, first, State.UNDELIVERED)

    await sweep(following, holding)

    assert await state_of(database, second) == ("queued", None)


async def test_events_put_together_share_the_whole_chain(database, planner, following, holding, account):
    await run(database, "UPDATE notification_type SET coalesce_seconds = 60, revision = revision + 1 WHERE code = 'service.connected'")
    events = [await a_waiting_event(database, account, data={"service": {"code": name, "name": name}}) for name in ("Films", "Sport")]
    await planner.plan()
    first, second = await rows(database, "SELECT message_id, reason, not_before FROM outbox ORDER BY message_id")
    joined = await rows(database, "SELECT event_id, message_id FROM notification_event ORDER BY message_id")

    await ended(database, first.message_id, State.UNDELIVERED)
    await sweep(following, holding)

    assert (first.reason, second.reason) == ("coalescing", "fallback")
    assert second.not_before - first.not_before == 30 * MINUTE
    assert [tuple(row) for row in joined] == [(events[1], first.message_id), (events[1], second.message_id)]
    letter = await one(database, "SELECT text FROM message WHERE id = :id", id=second.message_id)
    assert "Films" in letter.text
    assert "Sport" in letter.text


@pytest.mark.parametrize("channels", [("sms", "email"), ("email", "sms")])
async def test_dry_run_counts_the_first_channel_alone(database, settings, channels):
    await chained(database, channels=channels, code="balance.threshold_reached")
    account = await an_account(database, mails=("a@example.org",))
    said = {"balance": "10.00", "threshold": "50.00"}
    hit = Hit(account.id, "threshold", 1, "2026-11-23", date(2026, 11, 23), said, said)

    async with database.transaction() as session:
        counts, sample = await Appraiser(settings)(session, [hit])

    assert counts["by_channel"] == {channels[0]: 1}
    assert counts["not_reached"] == {"fallback": 1}
    assert len(sample) == 1


async def test_chain_that_is_released_late_moves_no_other_chain_of_the_account(database, planner, holding, account):
    first, second = await a_chain(database, planner, account)
    _, behind_other = await a_chain(database, planner, account)
    await run(database, "UPDATE outbox SET state = 'held', reason = 'own_hours' WHERE message_id = :id", id=first)
    for waiting in (second, behind_other):
        await time_passes(database, waiting, 20)
    before = await one(database, "SELECT not_before FROM outbox WHERE message_id = :id", id=behind_other)

    await holding.release()

    assert (await one(database, "SELECT not_before > now() + interval '28 minutes' AS waits FROM outbox WHERE message_id = :id", id=second)).waits
    assert await one(database, "SELECT not_before FROM outbox WHERE message_id = :id", id=behind_other) == before
