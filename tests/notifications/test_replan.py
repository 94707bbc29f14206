"""What waits is decided again when preferences, contacts or quiet hours have changed."""

import asyncio
from datetime import timedelta

import orjson
import pytest
import time_machine

from app.accounts.preference_store import ask_replan, ask_replan_of_zone
from app.core.clock import now
from app.notifications.hold import Holding
from app.notifications.replan import Replanning, replan
from app.notifications.states import State
from tests.builders.accounts import an_account
from tests.builders.messages import a_message, claim, one, rows, run, state_of

MORNING, EVENING = "2026-11-23T09:30:00+03:00", "2026-11-23T21:30:00+03:00"  # a Monday
DAYTIME = {"hours": [{"weekdays": [1, 2, 3, 4, 5, 6, 7], "from": "09:00", "to": "18:00"}]}


@pytest.fixture
async def account(database):
    return await an_account(database, mails=("subscriber@example.org",))


async def contact_of(database, account, channel="sms"):
    return (await one(database, "SELECT id FROM contact WHERE account_id = :id AND channel = :channel", id=account.id, channel=channel)).id


async def waiting(database, account, *, channel="sms", hold=None, **fields):
    """A message of the account's that is queued, or held for this long."""
    contact = fields.pop("contact_id", ...)
    given = {
        "contact_id": await contact_of(database, account, channel) if contact is ... else contact,
        "channel": channel,
        "expires_at": now() + timedelta(days=2),
    }
    if hold is not None:
        given |= {"state": "held", "reason": "own_hours", "not_before": now() + hold}
    return await a_message(database, account, **(given | fields))


async def choose(database, account, document):
    await run(
        database,
        """INSERT INTO account_preference (account_id, revision, document, updated_at, updated_by) VALUES (:id, 1, CAST(:document AS jsonb), now(), 'test')
        ON CONFLICT (account_id) DO UPDATE SET document = excluded.document""",
        id=account.id,
        document=orjson.dumps(document).decode(),
    )


async def replanned(database, settings, *accounts):
    async with database.transaction() as session:
        return await replan(session, [account.id for account in accounts], settings)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"types": {"service.connected": {"enabled": False}}}, "type_off"),
        ({"types": {"service.connected": {"channels": {"sms": False}}}}, "channel_off"),
        ({"contacts": {"CONTACT": {"enabled": False}}}, "contact_off"),
        ({"contacts": {"CONTACT": {"types": {"service.connected": False}}}}, "contact_type_off"),
    ],
)
async def test_what_is_refused_now_is_cancelled_with_the_reason(database, settings, account, choice, reason):
    queued, held = await waiting(database, account), await waiting(database, account, hold=timedelta(hours=3))
    other_type = await waiting(database, account, type="tariff.changed")
    contact = str(await contact_of(database, account))
    await choose(database, account, orjson.loads(orjson.dumps(choice).replace(b"CONTACT", contact.encode())))

    await replanned(database, settings, account)

    assert await state_of(database, queued) == await state_of(database, held) == ("cancelled", reason)
    if reason != "contact_off":
        assert (await state_of(database, other_type))[0] != "cancelled"
    assert [row.reason for row in await rows(database, "SELECT reason FROM message_change WHERE message_id = :id", id=queued)] == [reason]


async def test_mandatory_type_goes_whatever_was_chosen(database, settings, account):
    message = await waiting(database, account)
    await run(database, "UPDATE notification_type SET mandatory = true, revision = revision + 1")
    await choose(database, account, {"types": {"service.connected": {"enabled": False}}})

    await replanned(database, settings, account)

    assert await state_of(database, message) == ("queued", None)


async def test_contact_that_is_gone_gets_nothing_any_more(database, settings, account):
    sms, mail = await waiting(database, account), await waiting(database, account, channel="email")
    await run(database, "DELETE FROM contact WHERE channel = 'sms'")

    await replanned(database, settings, account)

    assert await state_of(database, sms) == ("cancelled", "contact_removed")
    assert await state_of(database, mail) == ("queued", None)


async def test_code_that_proves_a_contact_is_not_kept_back_by_its_being_unproved(database, settings, account):
    code = await waiting(database, account, type="contact.verification")
    await run(database, "UPDATE contact SET origin = 'subscriber'")
    await choose(database, account, {"contacts": {str(await contact_of(database, account)): {"enabled": False}}})

    await replanned(database, settings, account)

    assert (await state_of(database, code))[0] == "queued"


@time_machine.travel(EVENING, tick=False)
async def test_what_is_queued_is_held_when_the_new_hours_are_over_for_today(database, settings, account):
    message = await waiting(database, account)
    await choose(database, account, DAYTIME)

    await replanned(database, settings, account)

    assert await state_of(database, message) == ("held", "own_hours")
    row = await one(database, "SELECT o.not_before, o.send_until, o.expires_at, m.expires_at AS of_message FROM outbox o JOIN message m ON m.id = o.message_id")
    assert (row.not_before.isoformat(), row.send_until.isoformat()) == ("2026-11-24T06:00:00+00:00", "2026-11-24T15:00:00+00:00")
    assert row.expires_at == row.of_message == row.not_before + timedelta(days=2), "its time to live begins when it may go"
    assert await claim(database) == []


@time_machine.travel(MORNING, tick=False)
async def test_what_is_queued_and_open_is_given_its_new_end(database, settings, account):
    message = await waiting(database, account)
    await choose(database, account, DAYTIME)

    await replanned(database, settings, account)

    assert await state_of(database, message) == ("queued", None)
    assert (await one(database, "SELECT send_until FROM outbox")).send_until.isoformat() == "2026-11-23T15:00:00+00:00"


@time_machine.travel(MORNING, tick=False)
async def test_what_is_held_is_released_when_the_hours_are_open_now(database, settings, account, wakeups):
    message = await waiting(database, account, hold=timedelta(hours=5))
    await choose(database, account, DAYTIME)

    await replanned(database, settings, account)
    assert (await one(database, "SELECT not_before FROM outbox")).not_before == now()
    await run(database, "UPDATE outbox SET not_before = LEAST(not_before, now()), expires_at = now() + interval '1 year'")
    await Holding(database, settings, wakeups).release()

    assert await state_of(database, message) == ("queued", None)


@time_machine.travel(EVENING, tick=False)
async def test_what_is_held_waits_for_the_new_hours(database, settings, account):
    message = await waiting(database, account, hold=timedelta(hours=5))
    await choose(database, account, {"hours": [{"weekdays": [3], "from": "12:00", "to": "13:00"}]})

    await replanned(database, settings, account)

    assert await state_of(database, message) == ("held", "own_hours")
    assert (await one(database, "SELECT not_before FROM outbox")).not_before.isoformat() == "2026-11-25T09:00:00+00:00"


@time_machine.travel(EVENING, tick=False)
async def test_hours_that_leave_no_moment_cancel_what_they_would_hold_for_ever(database, at_night, account):
    sms, mail = await waiting(database, account), await waiting(database, account, channel="email")
    await choose(database, account, {"hours": [{"weekdays": [1, 2, 3, 4, 5, 6, 7], "from": "22:00", "to": "08:00"}]})

    await replanned(database, at_night, account)

    assert await state_of(database, sms) == ("cancelled", "no_open_hours")
    assert await state_of(database, mail) == ("held", "own_hours")


@time_machine.travel(EVENING, tick=False)
@pytest.mark.parametrize("reason", ["stopped", "budget", "coalescing", "fallback"])
async def test_what_waits_for_something_else_waits_on_unless_it_is_refused(database, settings, account, reason):
    kept = await waiting(database, account, hold=timedelta(minutes=5), reason=reason)
    refused = await waiting(database, account, hold=timedelta(minutes=5), reason=reason, type="tariff.changed")
    before = (await one(database, "SELECT not_before FROM outbox WHERE message_id = :id", id=kept)).not_before
    await choose(database, account, DAYTIME | {"types": {"tariff.changed": {"enabled": False}}})

    await replanned(database, settings, account)

    assert await state_of(database, kept) == ("held", reason)
    assert (await one(database, "SELECT not_before FROM outbox WHERE message_id = :id", id=kept)).not_before == before
    assert await state_of(database, refused) == ("cancelled", "type_off")


async def test_again_it_changes_nothing(database, settings, account):
    await waiting(database, account)
    await waiting(database, account, hold=timedelta(hours=3))
    await choose(database, account, DAYTIME | {"types": {"tariff.changed": {"enabled": False}}})

    with time_machine.travel(EVENING, tick=False):
        first, again = await replanned(database, settings, account), await replanned(database, settings, account)

    assert (first > 0, again) == (True, 0)


async def test_what_is_on_the_wire_and_what_is_anothers_is_left_alone(database, settings, account):
    sending = await waiting(database, account)
    await claim(database)
    other = await an_account(database, "100501", phones=("+79160000001",))
    others = await waiting(database, other)
    for one_of_them in (account, other):
        await choose(database, one_of_them, {"types": {"service.connected": {"enabled": False}}})

    await replanned(database, settings, account)

    assert (await state_of(database, sending))[0] == "sending"
    assert (await state_of(database, others))[0] == "queued"


async def test_claim_at_the_very_moment_of_a_refusal_has_one_winner(database, settings, account):
    await choose(database, account, {"types": {"service.connected": {"enabled": False}}})
    for _ in range(10):
        message = await waiting(database, account)

        claimed, _ = await asyncio.gather(claim(database), replanned(database, settings, account))

        assert (await state_of(database, message))[0] == ("sending" if claimed else "cancelled")
        await run(database, "DELETE FROM outbox")


async def test_change_over_the_api_decides_about_what_waits_in_the_same_moment(api, database):
    await api.put("/accounts/100500", json={"contacts": [{"channel": "sms", "address": "+79161234567"}]})
    account = await one(database, "SELECT id FROM account")
    message = await waiting(database, account)

    answer = await api.put("/accounts/100500/preferences", json={"types": {"service.connected": {"enabled": False}}})

    assert answer.status_code == 200
    assert await state_of(database, message) == ("cancelled", "type_off")


async def test_sweep_decides_about_the_accounts_that_were_asked_for_once(database, settings, account):
    message = await waiting(database, account)
    await choose(database, account, {"types": {"service.connected": {"enabled": False}}})
    async with database.transaction() as session:
        await ask_replan(session, [account.id])
        await ask_replan(session, [account.id])

    taken = await asyncio.gather(Replanning(database, settings).follow(), Replanning(database, settings).follow())

    assert sorted(taken) == [0, 1]
    assert await state_of(database, message) == ("cancelled", "type_off")
    assert await rows(database, "SELECT 1 FROM replan_waiting") == []


async def test_quiet_hours_of_a_zone_concern_those_whose_sms_wait_there(database, settings):
    moscow, omsk, idle = [
        await an_account(database, str(n), phones=(f"+7916000000{n}",), timezone=zone) for n, zone in enumerate(["Europe/Moscow", "Asia/Omsk", "Asia/Omsk"])
    ]
    for account in (moscow, omsk):
        await waiting(database, account)
    await waiting(database, idle, channel="email", contact_id=None)

    async def asked(zone):
        await run(database, "DELETE FROM replan_waiting")
        async with database.transaction() as session:
            await ask_replan_of_zone(session, zone)
        return {row.account_id for row in await rows(database, "SELECT account_id FROM replan_waiting")}

    assert await asked("Asia/Omsk") == {omsk.id}
    assert await asked("") == {moscow.id, omsk.id}
    await run(
        database, "INSERT INTO quiet_hours (zone, workdays, weekends, updated_at, updated_by) VALUES ('Asia/Omsk', '21:00-09:00', '21:00-09:00', now(), 'test')"
    )
    assert await asked("") == {moscow.id}, "the other has hours of its own"


@time_machine.travel(EVENING, tick=False)
async def test_new_quiet_hours_hold_what_is_queued(database, settings, account):
    message = await waiting(database, account)
    await run(
        database,
        "INSERT INTO quiet_hours (zone, workdays, weekends, updated_at, updated_by) VALUES ('Europe/Moscow', '21:00-09:00', '21:00-09:00', now(), 'test')",
    )
    async with database.transaction() as session:
        await ask_replan_of_zone(session, "Europe/Moscow")

    await Replanning(database, settings).follow()

    assert await state_of(database, message) == (State.HELD, "quiet_hours")
    assert (await one(database, "SELECT not_before FROM outbox")).not_before.isoformat() == "2026-11-24T06:00:00+00:00"


@time_machine.travel("2026-11-23T17:50:00+03:00", tick=False)
async def test_another_try_that_is_still_to_come_keeps_to_the_new_hours(database, settings, account):
    await waiting(database, account, not_before=now() + timedelta(minutes=15), send_until=now() + timedelta(hours=4))
    await choose(database, account, DAYTIME)

    await replanned(database, settings, account)

    assert await claim(database, at=now() + timedelta(minutes=16)) == []
    with time_machine.travel("2026-11-23T18:06:00+03:00", tick=False):
        assert await claim(database) == []


async def test_what_was_on_the_wire_and_comes_back_is_not_tried_again_where_it_is_refused(database, settings, account):
    message = await waiting(database, account)
    (claimed,) = await claim(database)
    await choose(database, account, {"types": {"service.connected": {"enabled": False}}})

    await replanned(database, settings, account)
    await run(database, "UPDATE outbox SET state = 'queued', claimed_by = NULL, lease_until = NULL")

    assert claimed.id == message
    assert await claim(database) == []


@time_machine.travel(EVENING, tick=False)
async def test_what_was_on_the_wire_and_comes_back_keeps_to_the_new_hours(database, settings, account):
    await waiting(database, account)
    await claim(database)
    await choose(database, account, DAYTIME)

    await replanned(database, settings, account)
    await run(database, "UPDATE outbox SET state = 'queued', claimed_by = NULL, lease_until = NULL")

    assert await claim(database) == []


async def test_contact_that_the_billing_has_taken_away_gets_nothing_any_more(database, settings, account, api):
    message = await waiting(database, account)

    answer = await api.patch("/accounts/100500", json={"contacts": [{"channel": "email", "address": "subscriber@example.org"}]})
    await Replanning(database, settings).follow()

    assert answer.status_code == 200
    assert await state_of(database, message) == ("cancelled", "contact_removed")


async def test_what_is_queued_for_a_contact_that_the_billing_has_left_out_does_not_go(api, database, settings, account):
    gone, stays = await waiting(database, account), await waiting(database, account, channel="email")

    await api.patch("/accounts/100500", json={"contacts": [{"channel": "email", "address": "subscriber@example.org"}]})
    await Replanning(database, settings).follow()

    assert await state_of(database, gone) == (State.CANCELLED, "contact_removed")
    assert (await state_of(database, stays))[0] == State.QUEUED
