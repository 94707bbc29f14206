"""Reminders that have to wait: whatever becomes untrue meanwhile does not go out, whether a day has passed or something about the account has changed."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import orjson
import pytest

from app.core.clock import now
from app.forecasts.schedule import today_in
from app.notifications.reminders import Reminders, until_midnight
from app.notifications.stops import Switch
from tests.builders.accounts import MAIL, an_account
from tests.builders.events import a_payment, a_waiting_event
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import claim, one, run
from tests.builders.templates import publish
from tests.builders.types import set_type
from tests.notifications.test_reminders import charged, rows, scan, states

MOSCOW = ZoneInfo("Europe/Moscow")
EXHAUSTING, THRESHOLD, UPCOMING = "balance.exhausting", "balance.threshold_reached", "charges.upcoming"


@pytest.fixture
def follow(database, settings, wakeups):
    return Reminders(database, settings, wakeups).follow


@pytest.fixture
def told(database, planner):
    """Scans, and plans what they have found."""

    async def told(*kinds):
        for kind in kinds:
            await scan(database, kind)
        await plan_all(planner)

    return told


async def plan_all(planner):
    while await planner.plan():
        pass


@pytest.fixture
async def anna(database):
    """100.00, and 600.00 in three days: she is told in three days that her money ends, and of the charge."""
    await an_smpp_gateway(database)
    account = await an_account(database, balance=Decimal("100.00"))
    await charged(database, account, Decimal("600.00"), 3)
    return account


async def a_day_passes(database):
    """As far as her charges can tell; and midnight is behind the messages."""
    await run(database, "UPDATE planned_charge SET on_date = on_date - 1")
    await run(database, "UPDATE outbox SET send_until = now() - interval '1 second'")


async def waiting(database) -> list[tuple]:
    return [tuple(row) for row in await rows(database, "SELECT m.type, m.text FROM message m JOIN outbox o ON o.message_id = m.id ORDER BY m.id")]


async def test_a_reminder_is_not_claimed_after_the_midnight_of_its_words(database, anna, told):
    await told("exhaustion")

    row = await one(database, "SELECT send_until FROM outbox")
    assert row.send_until.astimezone(MOSCOW).time().isoformat() == "00:00:00"
    assert timedelta() < row.send_until - now() <= timedelta(days=1)
    assert await claim(database, at=row.send_until) == []
    assert len(await claim(database, at=row.send_until - timedelta(seconds=1))) == 1


def test_a_reminder_keeps_to_its_window_where_that_ends_before_midnight():
    morning = datetime(2026, 11, 23, 5, tzinfo=UTC)

    assert until_midnight(None, morning, MOSCOW) == datetime(2026, 11, 23, 21, tzinfo=UTC)
    assert until_midnight(datetime(2026, 11, 23, 19, tzinfo=UTC), morning, MOSCOW) == datetime(2026, 11, 23, 19, tzinfo=UTC)
    assert until_midnight(datetime(2026, 11, 23, 22, tzinfo=UTC), morning, MOSCOW) == datetime(2026, 11, 23, 21, tzinfo=UTC)


async def test_what_waited_over_midnight_says_the_days_of_the_new_day(database, anna, told, holding):
    await run(
        database,
        "INSERT INTO contact (id, account_id, channel, address, label, origin, created_at) SELECT gen_random_uuid(), id, 'email', :mail, '', 'billing', now() FROM account",
        mail=MAIL,
    )
    await told("exhaustion")
    assert all("на 3 дня" in text for _, text in await waiting(database) if "денег" in text)
    await a_day_passes(database)

    assert await holding.put_off() == 2
    assert [(state, reason) for _, state, reason in await states(database)] == [("held", "outdated")] * 2
    assert await holding.release() == 2

    texts = [text for _, text in await waiting(database)]
    assert [text for text in texts if "на 3 дня" in text] == []
    assert "денег на 2 дня" in texts[0]
    assert len(await claim(database)) == 1
    assert (await one(database, "SELECT min(send_until) > now() AS later FROM outbox WHERE state = 'queued'")).later


async def test_an_ordinary_message_knows_no_midnight(database, anna, planner):
    await a_waiting_event(database, anna)
    await planner.plan()

    assert (await one(database, "SELECT send_until FROM outbox")).send_until is None


async def test_what_is_untrue_on_the_new_day_is_cancelled(database, anna, told, holding):
    await told("upcoming")
    for _ in range(4):
        await a_day_passes(database)

    await holding.put_off()
    await holding.release()

    assert await states(database) == [(UPCOMING, "cancelled", "resolved")]


async def test_a_reminder_that_a_stop_has_held_over_a_day_goes_with_the_new_figures(api, database, anna, told, holding):
    await told("exhaustion")
    stop = (await api.post("/stops", json={"scope": "all"})).json()
    switch = Switch(database)
    await switch.follow()
    await a_day_passes(database)
    assert (await api.delete(f"/stops/{stop['id']}")).status_code == 204
    await switch.follow()

    await holding.release()

    assert "денег на 2 дня" in (await waiting(database))[0][1]


CHARGE = {"id": "c1", "title": "Home 100", "kind": "once"}


def on(days: int) -> str:
    return (today_in("Europe/Moscow", "Europe/Moscow", now()).date() + timedelta(days=days)).isoformat()


@pytest.mark.parametrize(
    "change",
    [
        {"charges": []},
        {"charges": [CHARGE | {"amount": "90.00", "on": "SOON"}]},
        {"charges": [CHARGE | {"amount": "600.00", "on": "LATER"}]},
        {"charges": [CHARGE | {"amount": "600.00", "on": "SOON", "posted_through": "SOON"}]},
        {"credit_limit": "600.00"},
        {"balance": "700.00"},
        {"status": "suspended"},
        {"status": "closed"},
    ],
    ids=lambda change: "-".join(f"{key}" for key in change) + str(len(str(change))),
)
@pytest.mark.parametrize("way", ["PATCH", "PUT", "import"])
async def test_a_change_that_makes_a_reminder_untrue_cancels_it(api, database, anna, told, follow, change, way):
    await told("exhaustion")
    given = orjson.loads(orjson.dumps(change).replace(b"SOON", on(3).encode()).replace(b"LATER", on(30).encode()))

    await changed(api, way, given)
    await follow()

    assert await states(database) == [(EXHAUSTING, "cancelled", "resolved")]


async def changed(api, way: str, given: dict) -> None:
    if way == "import":
        lines = orjson.dumps({"number": "100500"} | given)
        answer = await api.post("/accounts/import", content=lines, headers={"Content-Type": "application/x-ndjson"})
        assert answer.json()["updated"] == 1, answer.text
    else:
        answer = await api.request(way, "/accounts/100500", json=given)
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("charges", [[], [CHARGE | {"amount": "600.00", "on": "LATER"}], [CHARGE | {"amount": "600.00", "on": "SOON", "announce": False}]])
async def test_charges_that_are_not_to_come_any_more_are_not_announced(api, database, anna, told, follow, charges):
    await told("upcoming")
    given = orjson.loads(orjson.dumps(charges).replace(b"SOON", on(3).encode()).replace(b"LATER", on(30).encode()))

    await changed(api, "PATCH", {"charges": given})
    await follow()

    assert await states(database) == [(UPCOMING, "cancelled", "resolved")]


async def test_other_charges_of_that_day_are_announced_with_their_new_sum(api, database, anna, told, follow, holding):
    await told("upcoming")
    before = (await waiting(database))[0][1]

    await changed(api, "PATCH", {"charges": [CHARGE | {"amount": "250.00", "on": on(3)}, CHARGE | {"id": "c2", "title": "TV", "amount": "33.00", "on": on(3)}]})
    await follow()
    assert await states(database) == [(UPCOMING, "held", "outdated")]
    await holding.release()

    assert "600" in before
    assert "283" in (await waiting(database))[0][1]


async def test_figures_that_come_back_are_written_back(api, database, anna, told, follow, holding):
    await told("upcoming")
    for amount in ("250.00", "600.00"):
        await changed(api, "PATCH", {"charges": [CHARGE | {"amount": amount, "on": on(3)}]})
        await follow()
        await holding.release()

    assert "600" in (await waiting(database))[0][1]


async def test_a_change_that_concerns_no_figure_leaves_what_waits_in_its_place(api, database, anna, told, follow):
    await told("exhaustion")

    await changed(api, "PATCH", {"threshold": "10.00"})
    await follow()

    assert await states(database) == [(EXHAUSTING, "queued", None)]


@pytest.mark.parametrize("threshold", [None, "40.00"])
async def test_a_threshold_that_is_another_now_cancels_what_was_said_of_the_old_one(api, database, told, follow, threshold):
    await an_account(database, balance=Decimal("45.00"), threshold=Decimal("50.00"))
    await told("threshold")
    assert await states(database) == [(THRESHOLD, "queued", None)]

    await changed(api, "PATCH", {"threshold": threshold})
    await follow()

    assert await states(database) == [(THRESHOLD, "cancelled", "resolved")]


async def test_a_payment_that_is_not_enough_corrects_what_is_to_be_paid(api, database, anna, told, planner, holding):
    await told("exhaustion")
    assert "500" in (await waiting(database))[0][1]

    await api.post("/events", json=a_payment(amount="200.00", balance="300.00"))
    await plan_all(planner)
    await holding.release()

    texts = dict(await waiting(database))
    assert "на 300" in texts[EXHAUSTING]
    assert "на 500" not in texts[EXHAUSTING]


async def test_a_second_try_after_a_silence_does_not_say_what_was_true_yesterday(database, anna, told, holding):
    await told("exhaustion")
    await run(database, "UPDATE outbox SET resent = true")
    await a_day_passes(database)

    await holding.put_off()
    await holding.release()

    assert await states(database) == [(EXHAUSTING, "unknown", "no_answer")]


async def test_nor_what_was_true_before_a_payment(api, database, anna, told, planner):
    await told("exhaustion")
    await run(database, "UPDATE outbox SET resent = true")

    await api.post("/events", json=a_payment(amount="200.00", balance="300.00"))
    await plan_all(planner)

    assert (EXHAUSTING, "unknown", "no_answer") in await states(database)


async def test_a_second_try_with_the_same_figures_keeps_its_place(api, database, anna, told, follow):
    await told("exhaustion")
    await run(database, "UPDATE outbox SET resent = true")

    await changed(api, "PATCH", {"threshold": "10.00"})
    await follow()

    assert await states(database) == [(EXHAUSTING, "queued", None)]


async def test_the_next_warning_takes_the_place_of_one_that_still_waits(database, anna, told):
    await told("exhaustion")
    await run(database, "UPDATE planned_charge SET on_date = on_date - 2")  # the gateway is down for two days

    await told("exhaustion")

    assert await states(database) == [(EXHAUSTING, "cancelled", "duplicate"), (EXHAUSTING, "queued", None)]
    assert "денег на 1 день" in (await waiting(database))[0][1]


async def test_a_warning_that_comes_too_soon_takes_nobodys_place(database, anna, told):
    await set_type(database, EXHAUSTING, settings={"min_interval_seconds": 7 * 86_400})
    await told("exhaustion")
    await run(database, "UPDATE planned_charge SET on_date = on_date - 2")

    await told("exhaustion")

    assert await states(database) == [(EXHAUSTING, "queued", None)]


async def test_nor_does_one_that_has_no_words(database, anna, told):
    await run(database, "UPDATE account SET threshold = 150")
    await told("threshold")
    await publish(database, EXHAUSTING, "{{ days_left // 0 }}")

    await told("exhaustion")

    assert await states(database) == [(THRESHOLD, "queued", None)]


async def test_the_more_serious_takes_the_place_of_a_threshold_that_still_waits(database, planner, told):
    account = await an_account(database, balance=Decimal("45.00"), threshold=Decimal("50.00"))
    await told("threshold")
    await charged(database, account, Decimal("600.00"), 3)

    await told("exhaustion")

    assert await states(database) == [(THRESHOLD, "cancelled", "duplicate"), (EXHAUSTING, "queued", None)]


async def test_reminders_that_are_planned_together_make_one_message(database, told):
    account = await an_account(database, balance=Decimal("45.00"), threshold=Decimal("50.00"))
    await scan(database, "threshold")
    await charged(database, account, Decimal("600.00"), 3)

    await told("exhaustion")

    assert await states(database) == [(EXHAUSTING, "queued", None)]
    reasons = [row.decisions[0]["reason"] for row in await rows(database, "SELECT decisions FROM notification WHERE type = :type", type=THRESHOLD)]
    assert reasons == ["duplicate"]


async def test_who_was_warned_today_is_not_told_of_his_threshold_as_well(api, database, anna, told, planner):
    await run(database, "UPDATE account SET threshold = 95")
    await told("exhaustion")

    await api.post(
        "/events", json={"specversion": "1.0", "id": "b1", "source": "/b", "type": "balance.changed", "subject": "100500", "data": {"balance": "90.00"}}
    )
    await plan_all(planner)

    hits = await rows(database, "SELECT kind, outcome FROM forecast_hit ORDER BY id")
    assert [tuple(hit) for hit in hits] == [("exhaustion", "told"), ("threshold", "covered")]
    assert {kind for kind, _, _ in await states(database)} == {EXHAUSTING}


async def test_where_nobody_is_warned_the_threshold_is_told(api, database, anna, planner):
    await run(database, "UPDATE account SET threshold = 95")
    await run(database, "UPDATE notification_type SET enabled = false, revision = revision + 1 WHERE code = :code", code=EXHAUSTING)

    await api.post(
        "/events", json={"specversion": "1.0", "id": "b1", "source": "/b", "type": "balance.changed", "subject": "100500", "data": {"balance": "90.00"}}
    )
    await plan_all(planner)

    assert await states(database) == [(THRESHOLD, "queued", None)]


@pytest.mark.parametrize("way", ["event", "batch", "payment", "PATCH", "PUT", "import"])
async def test_a_threshold_is_told_at_once_whichever_way_the_balance_came(api, database, planner, follow, way):
    await an_account(database, balance=Decimal("100.00"), balance_as_of=now() - timedelta(hours=1), threshold=Decimal("50.00"))
    low = {"specversion": "1.0", "id": "b1", "source": "/b", "type": "balance.changed", "subject": "100500", "data": {"balance": "40.00"}}

    if way == "event":
        await api.post("/events", json=low)
    elif way == "batch":
        await api.post("/events", json=[low | {"id": f"b{n}", "data": {"balance": balance}} for n, balance in enumerate(("60.00", "45.00", "40.00"))])
    elif way == "payment":
        await api.post("/events", json=a_payment(amount="1.00", balance="40.00"))
    else:
        await changed(api, way, {"balance": "40.00"})
    await follow()
    await plan_all(planner)

    assert [kind for kind, _, _ in await states(database) if kind != "payment.received"] == [THRESHOLD]


async def test_a_lift_and_a_fall_in_one_batch_of_events_are_told_anew(api, database, planner):
    await an_account(database, balance=Decimal("40.00"), balance_as_of=now() - timedelta(hours=1), threshold=Decimal("50.00"))
    await scan(database, "threshold")
    await plan_all(planner)
    await run(database, "DELETE FROM outbox")  # she has been told
    await run(database, "UPDATE message SET state = 'delivered'")

    balances = [
        {"specversion": "1.0", "id": f"b{n}", "source": "/b", "type": "balance.changed", "subject": "100500", "data": {"balance": balance}}
        for n, balance in enumerate(("500.00", "30.00"))
    ]
    await api.post("/events", json=balances)
    await plan_all(planner)

    assert await states(database) == [(THRESHOLD, "delivered", None), (THRESHOLD, "queued", None)]
    assert [row.episode for row in await rows(database, "SELECT episode FROM forecast_hit ORDER BY id")] == [1, 2]


REFUSED = """INSERT INTO account_preference (account_id, revision, document, updated_at, updated_by)
SELECT id, 1, '{"types": {"balance.exhausting": {"enabled": false}}}', now(), 'test' FROM account"""


@pytest.mark.parametrize("kinds", [("exhaustion", "threshold"), ("threshold", "exhaustion")])
async def test_whoever_has_refused_the_more_serious_reminder_is_told_the_other(database, anna, told, kinds):
    await run(database, "UPDATE account SET threshold = 150")
    await run(database, REFUSED)

    await told(*kinds)

    assert await states(database) == [(THRESHOLD, "queued", None)]


async def test_refused_reminder_does_not_take_the_place_of_one_that_waits(database, anna, told):
    await run(database, "UPDATE account SET threshold = 150")
    await run(database, REFUSED)
    await told("threshold")

    await told("exhaustion")

    assert await states(database) == [(THRESHOLD, "queued", None)]


async def test_whoever_has_refused_to_be_told_when_money_ends_is_told_of_a_threshold_that_was_crossed(database, anna, planner):
    await run(database, "UPDATE account SET threshold = 150")
    await run(database, REFUSED)

    await a_waiting_event(database, anna, data={"service": {"code": "tv", "name": "TV"}, "balance": "100.00"})
    await plan_all(planner)

    assert [state for state in await states(database) if state[0] != "service.connected"] == [(THRESHOLD, "queued", None)]
