"""Reminders from the scan to their end: told when true, dead when a payment made them untrue."""

from datetime import timedelta
from decimal import Decimal

import sqlalchemy as sa

from app.core.clock import now
from app.forecasts.ask import ask_for
from app.forecasts.find import Wanted
from app.forecasts.scan import Alarm, Scanner
from app.forecasts.schedule import today_in
from app.notifications.plan import Planner
from app.notifications.reminders import Reminders
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event


async def rows(database, statement, **values):
    async with database.transaction() as session:
        result = await session.execute(sa.text(statement), values)
        return list(result.all()) if result.returns_rows else []


async def charged(database, account, amount, days):
    on = today_in("Europe/Moscow", "Europe/Moscow", now()).date() + timedelta(days=days)
    await rows(
        database,
        """INSERT INTO planned_charge (id, account_id, external_id, title, amount, kind, slot, on_date, announce)
        VALUES (gen_random_uuid(), :account, 'c1', 'Home 100', :amount, 'once', 0, :on, true)""",
        account=account.id,
        amount=amount,
        on=on,
    )


async def scan(database, kind):
    async def wanted(_session):
        return Wanted(), Alarm()

    async def nothing(_session, _hits):
        return {}, []

    async with database.transaction() as session:
        day = today_in("Europe/Moscow", "Europe/Moscow", now()).date()
        await ask_for(session, kind, origin="hand", by="test", days={"Europe/Moscow": day})
    scanner = Scanner(database, wanted, nothing)
    while await scanner.step():
        pass


async def states(database):
    return [
        tuple(row)
        for row in await rows(
            database,
            "SELECT m.type, coalesce(o.state, m.state), coalesce(o.reason, m.reason) FROM message m LEFT JOIN outbox o ON o.message_id = m.id ORDER BY m.id",
        )
    ]


async def test_a_reminder_says_when_the_money_ends_and_what_to_pay(database, planner: Planner):
    account = await an_account(database, balance=Decimal("100.00"))
    await charged(database, account, Decimal("600.00"), 3)

    await scan(database, "exhaustion")
    await planner.plan()

    (message,) = await rows(database, "SELECT type, text FROM message")
    assert message.type == "balance.exhausting"
    assert "500" in message.text


async def test_a_payment_cancels_the_reminder_that_waits(database, planner: Planner):
    account = await an_account(database, balance=Decimal("100.00"))
    await charged(database, account, Decimal("600.00"), 3)
    await scan(database, "exhaustion")
    await planner.plan()
    await rows(database, "UPDATE account SET balance = 900, balance_as_of = now() WHERE id = :id", id=account.id)
    await a_waiting_event(database, account, "payment.received", data={"amount": "800.00", "balance": "900.00"})

    await planner.plan()

    assert ("balance.exhausting", "cancelled", "resolved") in await states(database)
    assert [state for kind, state, _ in await states(database) if kind == "payment.received"] == ["queued"]
    assert (await rows(database, "SELECT is_open FROM forecast_episode"))[0].is_open is False


async def test_a_reminder_whose_payment_came_before_it_was_planned_is_skipped_as_resolved(database, planner: Planner):
    account = await an_account(database, balance=Decimal("100.00"))
    await charged(database, account, Decimal("600.00"), 3)
    await scan(database, "exhaustion")
    await rows(database, "UPDATE account SET balance = 900 WHERE id = :id", id=account.id)

    await planner.plan()

    assert await states(database) == []
    (notification,) = await rows(database, "SELECT decisions FROM notification")
    assert notification.decisions[0]["reason"] == "resolved"


async def test_a_threshold_is_told_by_the_event_that_crossed_it(database, planner: Planner):
    account = await an_account(database, balance=Decimal("100.00"), threshold=Decimal("50.00"))
    await rows(database, "UPDATE account SET balance = 40, balance_as_of = now() WHERE id = :id", id=account.id)
    await a_waiting_event(database, account, "balance.changed", data={"balance": "40.00"})

    while await planner.plan():
        pass

    assert [(kind, state) for kind, state, _ in await states(database)] == [("balance.threshold_reached", "queued")]


async def test_a_balance_that_was_patched_is_looked_at_as_well(database, planner: Planner, settings, wakeups):
    account = await an_account(database, balance=Decimal("100.00"), threshold=Decimal("50.00"))
    await rows(database, "UPDATE account SET balance = 40, balance_as_of = now() WHERE id = :id", id=account.id)
    await rows(database, "INSERT INTO balance_moved VALUES (:id, 0)", id=account.id)

    reminders = Reminders(database, settings, wakeups)
    assert await reminders.follow() == 1
    assert await reminders.follow() == 0
    while await planner.plan():
        pass

    assert [(kind, state) for kind, state, _ in await states(database)] == [("balance.threshold_reached", "queued")]
