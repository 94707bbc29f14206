"""Reminders, when things happen late, twice, at once or in the middle of something else."""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa

from app.core.clock import now
from app.core.db import Database
from tests.builders.accounts import an_account
from tests.builders.events import a_payment
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import run
from tests.notifications.test_reminders import rows, states
from tests.notifications.test_reminders_wait import EXHAUSTING, THRESHOLD, anna, changed, follow, plan_all, told, waiting  # noqa: F401 - fixtures
from tests.notifications.test_restored import RESTORED, balance, restored, wanted, warned  # noqa: F401 - fixtures


@asynccontextmanager
async def held_up(database: Database, statement: str):
    """Whoever needs what this statement locks waits until the end."""
    async with database.transaction() as session:
        await session.execute(sa.text(statement))
        yield


async def waits_or_is_done(database: Database, *tasks: asyncio.Task) -> None:
    """Until each of these tasks has ended, or waits for a lock in the database."""
    for _ in range(200):
        blocked = (await rows(database, "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"))[0].n
        if blocked >= sum(not task.done() for task in tasks):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("they neither ended nor waited")


async def events_of(database: Database, code: str) -> int:
    return (await rows(database, "SELECT count(*) AS n FROM event WHERE type = :code AND source = '/vestnik/forecasts'", code=code))[0].n


@pytest.fixture
async def near(database):
    """100.00, an hour old; the threshold is 50.00."""
    await an_smpp_gateway(database)
    return await an_account(database, balance=Decimal("100.00"), balance_as_of=now() - timedelta(hours=1), threshold=Decimal("50.00"))


async def test_a_lift_that_arrives_late_does_not_arm_anew_what_a_later_fall_has_told(api, database, near, planner):
    await api.post("/events", json=balance("40.00", "fall") | {"time": (now() - timedelta(minutes=1)).isoformat()})
    await plan_all(planner)
    assert await events_of(database, THRESHOLD) == 1

    await api.post("/events", json=balance("500.00", "lift") | {"time": (now() - timedelta(minutes=10)).isoformat()})
    await plan_all(planner)

    assert await events_of(database, THRESHOLD) == 1
    assert [state for kind, state, _ in await states(database) if kind == THRESHOLD] == ["queued"]


async def test_nor_does_it_end_a_spell_of_exhaustion(api, database, anna, planner, told):  # noqa: F811
    await run(database, "UPDATE account SET balance_as_of = now() - interval '1 minute'")
    await told("exhaustion")

    await api.post("/events", json=balance("900.00", "lift") | {"time": (now() - timedelta(minutes=10)).isoformat()})
    await plan_all(planner)

    assert [state for kind, state, _ in await states(database) if kind == EXHAUSTING] == ["queued"]
    assert [row.is_open for row in await rows(database, "SELECT is_open FROM forecast_episode")] == [True]


async def test_who_is_lifted_by_two_ways_at_once_is_told_once_that_all_is_well(api, database, planner, follow, warned, wanted):  # noqa: F811
    await changed(api, "PUT", {"balance": "745.00"})
    await api.post("/events", json=a_payment(amount="700.00", balance="745.00"))
    async with held_up(database, "LOCK TABLE notification IN EXCLUSIVE MODE"):
        planning = asyncio.create_task(planner.plan())
        await waits_or_is_done(database, planning)
        following = asyncio.create_task(follow())
        await waits_or_is_done(database, planning, following)
    await asyncio.gather(planning, following)
    await follow()
    await plan_all(planner)

    assert len(await restored(database)) == 1


async def test_a_look_at_changed_accounts_waits_for_nobody_who_has_one_locked(api, database, near, follow, planner):  # noqa: F811
    await changed(api, "PUT", {"balance": "40.00"})
    async with held_up(database, "SELECT FROM account FOR NO KEY UPDATE"):
        assert await asyncio.wait_for(follow(), 5) == 0

    assert await follow() == 1
    assert await events_of(database, THRESHOLD) == 1


async def test_a_payment_while_a_reminder_is_released_corrects_it_all_the_same(api, database, anna, planner, told, holding):  # noqa: F811
    await told("exhaustion")
    await run(database, "UPDATE outbox SET state = 'held', reason = 'quiet_hours'")
    async with held_up(database, "SELECT FROM message FOR UPDATE"):
        releasing = asyncio.create_task(holding.release())
        await waits_or_is_done(database, releasing)
        await api.post("/events", json=a_payment(amount="200.00", balance="300.00"))
        planning = asyncio.create_task(planner.plan())
        await waits_or_is_done(database, releasing, planning)
    await asyncio.gather(releasing, planning)
    await holding.release()

    (text,) = [text for kind, text in await waiting(database) if kind == EXHAUSTING]
    assert "300,00" in text


async def test_what_a_payment_finds_on_the_wire_has_its_last_try(api, database, anna, planner, told):  # noqa: F811
    await told("exhaustion")
    await run(database, "UPDATE outbox SET state = 'sending', lease_until = now() + interval '1 minute'")

    await api.post("/events", json=a_payment(amount="800.00", balance="900.00"))
    await plan_all(planner)

    (reminder,) = await rows(
        database, "SELECT o.state, o.expires_at <= now() AS is_last FROM outbox o JOIN message m ON m.id = o.message_id WHERE m.type = :t", t=EXHAUSTING
    )
    assert tuple(reminder) == ("sending", True)


async def test_a_balance_that_the_billing_tells_with_a_reminder_of_its_own_counts(api, database, near, planner):
    await api.post("/events", json=balance("40.00", "fall"))
    await plan_all(planner)

    said = {"balance": "500.00", "was": "threshold"}
    await api.post("/events", json={"specversion": "1.0", "id": "r1", "source": "/b", "type": RESTORED, "subject": "100500", "data": said})
    await plan_all(planner)

    assert [state for kind, state, _ in await states(database) if kind == THRESHOLD] == ["cancelled"]


async def test_a_balance_that_is_too_old_to_be_spoken_of_crosses_nothing(api, database, near, planner, follow):  # noqa: F811
    await run(database, "UPDATE account SET balance_as_of = now() - interval '9 days'")
    await run(
        database, "UPDATE notification_type SET settings = settings || '{\"stale_after_days\": 3}', revision = revision + 1 WHERE code = :code", code=EXHAUSTING
    )

    await changed(api, "PUT", {"balance": "40.00", "balance_as_of": (now() - timedelta(days=5)).isoformat()})
    await follow()
    await plan_all(planner)

    assert await events_of(database, THRESHOLD) == 0


async def test_where_the_money_ends_anew_nobody_is_told_that_it_is_back(api, database, planner, warned, wanted):  # noqa: F811
    await run(database, "UPDATE account SET threshold = NULL")
    await api.post("/events", json=balance("745.00", "1"))
    await plan_all(planner)
    assert len(await restored(database)) == 1

    await api.post("/events", json=balance("30.00", "2"))
    await plan_all(planner)

    assert [state for kind, state, _ in await states(database) if kind == RESTORED] == ["cancelled"]


async def test_a_lift_and_a_fall_told_otherwise_than_by_events_count_before_anybody_has_looked(api, database, near, follow, planner):  # noqa: F811
    await api.patch(f"/accounts/{near.number}", json={"balance": "40.00"})
    await follow()
    await plan_all(planner)
    assert await events_of(database, THRESHOLD) == 1

    for money in ("500.00", "45.00", "44.00"):
        assert (await api.patch(f"/accounts/{near.number}", json={"balance": money})).status_code == 200
    await follow()
    await plan_all(planner)

    assert await events_of(database, THRESHOLD) == 2
