"""Many messages cancelled, or sent again, by an operator's filter."""

import asyncio
from collections import Counter
from datetime import timedelta
from uuid import uuid4

import pytest

from app.core.clock import now
from app.core.ids import first_id_at
from app.notifications import bulk
from app.notifications.bulk import ATTEMPTS, Bulks
from app.notifications.forget import OldBulks
from tests.builders.accounts import an_account
from tests.builders.bulks import DAY, Past, ask, period, shown, worked
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import claim, one, rows, run, state_of

WHAT_COMES = ("looked_at", "done", "outcomes", "left_out", "parts", "cost")


@pytest.fixture
async def account(database):
    return await an_account(database)


@pytest.fixture
def past(database, account):
    return Past(database, account)


@pytest.fixture
def bulks(database, settings, wakeups):
    return Bulks(database, settings, wakeups)


@pytest.fixture
async def gateway(database):
    return await an_smpp_gateway(database, price_per_part="1.50")


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(bulk, "WINDOW", 2)


async def copies(database):
    """How many copies there are of each message that has any."""
    return Counter(row.resend_of for row in await rows(database, "SELECT resend_of FROM message WHERE resend_of IS NOT NULL"))


async def everything(database):
    """All that a job might change."""
    tables = ("message", "outbox", "message_change")
    return [await one(database, f"SELECT count(*) AS n, md5(string_agg(CAST(t AS text), '|' ORDER BY CAST(t AS text))) AS sum FROM {t} t") for t in tables]


async def audited(database):
    found = await rows(database, "SELECT action FROM audit_record WHERE action LIKE 'message.bulk%' ORDER BY id")
    return [row.action for row in found]


async def a_bit_of_everything(database, past):
    for _ in range(3):
        await past.message(None)
    await past.message(None, state="held", reason="quiet_hours", not_before=now() + timedelta(hours=1))
    await past.message(None, resent=True)
    await past.message(None, gateway="elsewhere")
    await claim(database, gateway="elsewhere")
    for state in ("delivered", "accepted", "cancelled", "unknown", "failed", "undelivered", "expired"):
        await past.message(state, parts=2, text="я" * 80)
    await past.message("failed", test=True)
    await past.message("failed", address="")
    await past.message("failed", contact_id=uuid4())
    await past.message("failed", channel="email", address="a@example.org")  # there is no gateway for it
    first = await past.message("failed")
    again = await past.message("failed", resend_of=first)
    await past.message("failed", resend_of=again)


@pytest.mark.parametrize("action", ["cancel", "resend"])
async def test_dry_run_changes_nothing_and_says_exactly_what_the_real_one_then_does(database, api, bulks, past, gateway, small_windows, action):
    await a_bit_of_everything(database, past)
    before = await everything(database)

    would = await worked(api, bulks, await ask(api, action, dry_run=True))
    unchanged = await everything(database)
    did = await worked(api, bulks, await ask(api, action))

    assert unchanged == before
    assert {name: did[name] for name in WHAT_COMES} == {name: would[name] for name in WHAT_COMES}
    assert did["looked_at"] == 20
    if action == "cancel":
        assert did["outcomes"] == {"cancelled": 4, "unknown": 1}
        assert did["left_out"] == {"in_flight": 1, "not_waiting": 14}
    else:
        assert did["outcomes"] == {"queued": 4}
        assert did["left_out"] == {
            "not_sent_yet": 6,
            "not_failed": 3,
            "unknown": 1,
            "test_message": 1,
            "erased": 1,
            "contact_removed": 1,
            "no_gateway": 1,
            "already_resent": 2,
        }
        assert (did["parts"], did["cost"]) == (7, "10.50")


async def test_cancel_leaves_other_types_alone_and_what_is_on_the_wire(database, api, bulks, past):
    wrong = [await past.message(None, type="tariff.changed") for _ in range(2)]
    on_the_wire = await past.message(None, type="tariff.changed", gateway="other")
    await claim(database, gateway="other")
    right, gone = await past.message(None), await past.message("delivered", type="tariff.changed")

    done = await worked(api, bulks, await ask(api, "cancel", period(type=["tariff.changed"])))

    assert [await state_of(database, message) for message in wrong] == [("cancelled", "operator")] * 2
    assert (await state_of(database, on_the_wire))[0] == "sending"
    assert (await state_of(database, right))[0] == "queued"
    assert (await state_of(database, gone))[0] == "delivered"
    assert (done["done"], done["left_out"]) == (2, {"in_flight": 1, "not_waiting": 1})
    change = await one(database, "SELECT detail FROM message_change WHERE message_id = :id", id=wrong[0])
    assert change.detail == f"{done['requested_by']}, bulk {done['id']}"


async def test_cancelled_second_try_is_in_doubt_and_counted_so(database, api, bulks, past):
    message = await past.message(None, resent=True)

    done = await worked(api, bulks, await ask(api, "cancel"))

    assert await state_of(database, message) == ("unknown", "no_answer")
    assert done["outcomes"] == {"unknown": 1}


@pytest.mark.parametrize(
    ("narrow", "number"),
    [
        ({"type": ["service.connected", "payment.received"]}, 1),
        ({"channel": "email"}, 2),
        ({"gateway": ["spare"]}, 3),
        ({"state": ["expired"]}, 4),
        ({"reason": ["refused"]}, 5),
        ({"template_id": "01890000-0000-7000-8000-000000000001"}, 6),
        ({"account": "200"}, 7),
        ({"address": "+79160000008"}, 8),
        ({"account": "nobody"}, None),
        ({"channel": "sms", "gateway": ["nowhere"]}, None),
    ],
)
async def test_each_condition_narrows(database, api, bulks, past, narrow, number):
    other = await an_account(database, "200", phones=())
    fields = {
        1: {"type": "payment.received"},
        2: {"channel": "email"},
        3: {"gateway": "spare"},
        4: {"ended": "expired"},
        5: {"reason": "refused"},
        6: {"template_id": "01890000-0000-7000-8000-000000000001"},
        7: {"account": other},
        8: {"address": "+79160000008"},
    }
    for one_of in fields.values():
        await past.message(**({"type": "tariff.changed"} | one_of))

    done = await worked(api, bulks, await ask(api, "resend", period(**narrow), dry_run=True))

    assert done["looked_at"] == (0 if number is None else 1)


async def test_period_decides_by_the_time_of_creation_in_whatever_month(database, api, bulks, past, gateway):
    moment = now()
    inside = [await past.message(ago=timedelta(days=days)) for days in (65, 33, 2)]
    await past.message(ago=timedelta(days=70))
    await past.message(ago=DAY)

    period_ = {"from": (moment - timedelta(days=66)).isoformat(), "to": (moment - timedelta(days=1, hours=1)).isoformat()}
    await worked(api, bulks, await ask(api, "resend", period_))

    assert await copies(database) == Counter(inside)


async def test_resend_sends_each_once_though_it_is_killed_between_the_work_and_the_mark_of_it(database, api, bulks, past, gateway, small_windows, monkeypatch):
    failed = [await past.message() for _ in range(5)]
    asked = await ask(api, "resend")
    await bulks.follow()

    async def dies(*_args, **_more):
        raise asyncio.CancelledError

    with monkeypatch.context() as killed:
        killed.setattr(bulk, "note", dies)
        with pytest.raises(asyncio.CancelledError):
            await bulks.follow()
    assert await copies(database) == Counter(failed[:2]), "the window that died has left nothing"
    done = await worked(api, bulks, asked)

    assert await copies(database) == Counter(failed)
    assert (done["done"], done["outcomes"]) == (5, {"queued": 5})


async def test_second_run_of_the_same_sends_nothing(database, api, bulks, past, gateway):
    failed = [await past.message() for _ in range(3)]
    await worked(api, bulks, await ask(api, "resend"))

    again = await worked(api, bulks, await ask(api, "resend"))

    assert await copies(database) == Counter(failed)
    assert (again["done"], again["left_out"]["already_resent"]) == (0, 3)


async def test_two_jobs_on_the_same_messages_at_once_send_each_of_them_once(database, settings, wakeups, api, past, gateway, small_windows):
    failed = [await past.message() for _ in range(9)]
    asked = [await ask(api, "resend"), await ask(api, "resend", again=True)]
    hands = [Bulks(database, settings, wakeups) for _ in asked]

    first, second = await asyncio.gather(*(worked(api, *pair) for pair in zip(hands, asked, strict=True)))

    assert await copies(database) == Counter(failed)
    assert first["done"] + second["done"] == 9


async def test_copy_carries_the_words_and_wakes_the_gateway(database, api, bulks, past, gateway, woken):
    old = await past.message(text="the very words")

    await worked(api, bulks, await ask(api, "resend"))

    copy = await one(database, "SELECT text, gateway, resend_of FROM message WHERE resend_of IS NOT NULL")
    assert (copy.text, copy.gateway, copy.resend_of) == ("the very words", "main", old)
    assert any("main" in queue for queue in woken)


async def test_unknown_is_sent_again_only_when_it_is_asked_for(database, api, bulks, past, gateway):
    unknown, failed = await past.message("unknown"), await past.message()

    done = await worked(api, bulks, await ask(api, "resend"))
    assert (await copies(database), done["left_out"]) == (Counter([failed]), {"unknown": 1})

    done = await worked(api, bulks, await ask(api, "resend", period(state=["unknown"])))
    assert (await copies(database), done["done"]) == (Counter([unknown, failed]), 1)


async def test_message_whose_copy_may_have_arrived_is_in_doubt_itself(database, api, bulks, past, gateway):
    old = await past.message()
    await past.message("unknown", resend_of=old)

    done = await worked(api, bulks, await ask(api, "resend", again=True))

    assert (done["done"], done["left_out"]) == (0, {"unknown": 2})


@pytest.mark.parametrize(("copy", "again", "which"), [("failed", False, "copy"), ("failed", True, "old"), ("delivered", True, None), ("queued", True, None)])
async def test_of_a_message_and_its_copy_no_more_than_one_is_sent(database, api, bulks, past, gateway, copy, again, which):
    old = await past.message()
    made = {"old": old, "copy": await past.message(None if copy == "queued" else copy, resend_of=old)}

    done = await worked(api, bulks, await ask(api, "resend", again=again))

    assert await copies(database) == Counter([old, *([made[which]] if which else [])])
    assert done["done"] == (1 if which else 0)


async def test_simulated_copy_of_a_test_key_keeps_no_real_message_back(database, api, bulks, past, gateway):
    old = await past.message()
    await past.message("delivered", ago=timedelta(minutes=30), resend_of=old, gateway="@simulated", test=True)

    done = await worked(api, bulks, await ask(api, "resend"))

    assert done["done"] == 1


async def test_copy_that_was_only_simulated_has_told_nobody(database, api, bulks, past, gateway):
    old = await past.message()
    await past.message("delivered", resend_of=old, test=True)

    done = await worked(api, bulks, await ask(api, "resend"))

    assert (done["done"], await copies(database)) == (1, Counter({old: 2}))


async def test_message_that_was_sent_again_by_hand_meanwhile_is_left_out(database, api, bulks, past, gateway, small_windows):
    failed = [await past.message() for _ in range(4)]
    asked = await ask(api, "resend")
    await bulks.follow()

    answer = await api.post(f"/messages/{failed[3]}/resend")
    done = await worked(api, bulks, asked)

    assert answer.status_code == 201
    assert await copies(database) == Counter(failed)
    assert (done["done"], done["left_out"]) == (3, {"already_resent": 1})


async def until_blocked(database):
    """Until somebody waits for a lock."""
    while not await rows(database, "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"):
        await asyncio.sleep(0.01)


async def test_job_waits_for_an_operator_who_sends_the_same_message_this_moment_and_sees_his_copy(database, api, bulks, past, gateway):
    old = await past.message()
    asked = await ask(api, "resend")
    async with database.transaction() as operator:
        await bulk.lock_chain(operator, [old])
        copy = (await bulks._resending.weigh(operator, [old], now()))[old]

        at_work = asyncio.create_task(bulks.follow())
        await until_blocked(database)
        made = bulk.Rows()
        copy.add(made, now())
        await made.write(operator)
    await at_work

    assert await copies(database) == Counter([old])
    assert (await shown(api, asked))["left_out"] == {"already_resent": 1}


async def test_receipt_that_comes_while_the_job_looks_is_heard(database, api, bulks, past, gateway):
    old = await past.message("undelivered")
    asked = await ask(api, "resend")
    async with database.transaction() as receipt:
        await receipt.execute(bulk.sa.text("UPDATE message SET state = 'delivered' WHERE id = :id"), {"id": old})

        at_work = asyncio.create_task(bulks.follow())
        await until_blocked(database)
    await at_work

    assert await copies(database) == Counter()
    assert (await shown(api, asked))["left_out"] == {"not_failed": 1}


async def test_erasure_of_the_account_waits_for_the_copy_and_takes_it_along(database, api, bulks, past, gateway, monkeypatch):
    await past.message(text="personal")
    await ask(api, "resend")
    noted, may_end = asyncio.Event(), asyncio.Event()
    note = bulk.note

    async def slow(*args, **more):
        await note(*args, **more)
        noted.set()
        await may_end.wait()

    monkeypatch.setattr(bulk, "note", slow)
    at_work = asyncio.create_task(bulks.follow())
    await noted.wait()
    erasure = asyncio.create_task(api.delete("/accounts/100500"))
    await until_blocked(database)
    may_end.set()
    await at_work

    assert (await erasure).status_code == 204
    copy = await one(database, "SELECT address, text, state, reason FROM message WHERE resend_of IS NOT NULL")
    assert tuple(copy) == ("", "", "cancelled", "erased")
    assert await rows(database, "SELECT 1 FROM outbox") == []


async def test_suppressed_addresses_are_left_out(database, api, bulks, past, gateway):
    await past.message(address="+79160000001")
    assert (await api.post("/suppressions", json={"channel": "sms", "address": "+79160000001", "reason": "operator"})).is_success

    done = await worked(api, bulks, await ask(api, "resend"))

    assert done["left_out"] == {"suppressed": 1}


async def test_quiet_hours_and_stops_hold_the_copies(database, api, wakeups, at_night, past, gateway, monkeypatch):
    await past.message()
    midnight = now().replace(hour=21, minute=0)  # in Moscow
    monkeypatch.setattr(bulk, "now", lambda: midnight)

    done = await worked(api, Bulks(database, at_night, wakeups), await ask(api, "resend"))
    held = await one(database, "SELECT state, reason FROM outbox")

    assert (done["outcomes"], tuple(held)) == ({"held": 1}, ("held", "quiet_hours"))


async def test_stop_holds_the_copies(database, api, bulks, past, gateway):
    await past.message()
    await api.post("/stops", json={"scope": "type", "name": "service.connected"})

    done = await worked(api, bulks, await ask(api, "resend"))

    held = await one(database, "SELECT state, reason FROM outbox")
    assert (done["outcomes"], tuple(held)) == ({"held": 1}, ("held", "stopped"))


@pytest.mark.parametrize("action", ["cancel", "resend"])
@pytest.mark.parametrize(("most", "limited"), [(3, True), (5, False)])
async def test_no_more_than_most_are_moved_and_it_says_whether_there_were_more(database, api, bulks, past, gateway, small_windows, action, most, limited):
    for _ in range(5):
        await past.message(None if action == "cancel" else "failed")

    done = await worked(api, bulks, await ask(api, action, most=most))

    assert (done["done"], done["limited"], done["state"]) == (most, limited, "done")
    changed = await rows(database, "SELECT 1 FROM message WHERE state = 'cancelled' OR resend_of IS NOT NULL")
    assert len(changed) == most


async def test_job_never_sends_its_own_copies_though_the_clock_of_its_worker_is_behind(database, api, bulks, past, gateway, small_windows):
    failed = [await past.message() for _ in range(2)]
    asked = await ask(api, "resend", again=True)
    await run(database, "UPDATE message_bulk SET end_id = :later", later=first_id_at(now() + DAY))

    await bulks.follow()
    await run(database, "DELETE FROM outbox")
    await run(database, "UPDATE message SET state = 'failed'")
    done = await worked(api, bulks, asked)

    assert await copies(database) == Counter(failed)
    assert (done["done"], done["left_out"]) == (2, {"already_resent": 2})


async def test_messages_that_are_made_after_the_request_are_none_of_its_business(database, api, bulks, past):
    asked = await ask(api, "cancel")
    later = await past.message(None, ago=-timedelta(minutes=1))

    done = await worked(api, bulks, asked)

    assert (await state_of(database, later), done["looked_at"]) == (("queued", None), 0)


async def test_window_that_breaks_fails_its_job_in_the_end_and_holds_no_other_up(database, api, bulks, past):
    message = await past.message(None)
    broken, sound = await ask(api, "cancel", period(account="100500")), await ask(api, "cancel")
    await run(database, """UPDATE message_bulk SET filter = filter - 'to' WHERE id = :id""", id=broken)

    for attempt in range(ATTEMPTS + 1):
        if attempt == 1:  # it had its turn, and the next one is the other's
            assert await bulks.follow() == 0
        else:
            with pytest.raises(Exception, match="to"):
                await bulks.follow()
    assert await bulks.follow() == 0

    failed = await shown(api, broken)
    assert (failed["state"], failed["error"], failed["filter"]["account"]) == ("failed", "ValidationError", "*")
    assert (await shown(api, sound))["state"] == "done"
    assert (await state_of(database, message))[0] == "cancelled"
    assert await audited(database) == ["message.bulk", "message.bulk", "message.bulk.done", "message.bulk.failed"]


async def test_window_that_worked_after_all_is_not_held_against_the_next(database, api, bulks, past, small_windows):
    for _ in range(4):
        await past.message(None)
    asked = await ask(api, "cancel")
    await run(database, "UPDATE message_bulk SET attempts = :n, error = 'ValueError'", n=ATTEMPTS - 1)

    await bulks.follow()

    row = await one(database, "SELECT attempts, error FROM message_bulk WHERE id = :id", id=asked)
    assert tuple(row) == (0, None)


async def test_job_that_has_ended_keeps_neither_number_nor_address(database, api, bulks, past, gateway):
    await past.message()

    done = await worked(api, bulks, await ask(api, "resend", period(account="100500", address="+79161234567")))

    assert (done["filter"]["account"], done["filter"]["address"], done["done"]) == ("*", "*", 1)
    (row,) = await rows(database, "SELECT CAST(b AS text) AS b FROM message_bulk b")
    assert "100500" not in row.b
    assert "79161234567" not in row.b


async def test_marks_are_forgotten_with_the_end_of_their_job_and_jobs_when_they_are_old(database, api, bulks, past, gateway, small_windows):
    for _ in range(3):
        await past.message()
    ended, running = await ask(api, "resend", dry_run=True), None
    await worked(api, bulks, ended)
    running = await ask(api, "resend")
    await bulks.follow()
    old = uuid4()
    await run(database, "UPDATE message_bulk SET id = :old WHERE id = :ended", old=(aged := first_id_at(now() - timedelta(days=401))), ended=ended)
    await run(database, "UPDATE message_bulk_mark SET bulk_id = :old WHERE bulk_id = :ended", old=aged, ended=ended)

    assert await OldBulks(database, timedelta(days=400)).forget() == 3
    assert len(await rows(database, "SELECT 1 FROM message_bulk_mark WHERE bulk_id = :id", id=running)) == 2
    assert len(await rows(database, "SELECT 1 FROM message_bulk_mark")) == 2
    assert [str(row.id) for row in await rows(database, "SELECT id FROM message_bulk WHERE id <> :old", old=old)] == [running]
