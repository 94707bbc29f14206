"""What comes between the steps of a scan: a second clock, a payment, an edit, a day that ends before somebody has confirmed."""

import asyncio
from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa

from app.core.clock import now
from app.core.db import Database
from app.core.wakeups import Wakeups
from app.forecasts import ask, scan
from app.forecasts.ask import ask_for, confirm
from app.forecasts.find import Wanted, count, find
from app.forecasts.rules import Span
from app.forecasts.scan import Alarm, Scanner
from app.forecasts.schedule import ask_for_due, today_in
from app.forecasts.tell import Told, tell
from app.notifications.plan import Planner
from tests.builders.accounts import an_account
from tests.builders.charges import a_charge
from tests.builders.events import a_waiting_event
from tests.forecasts.test_scan import a_scanner, sql, the_run
from tests.forecasts.test_schedule import KINDS, MOSCOW, TEN

D = Decimal


@pytest.fixture
def planner(database, settings) -> Planner:
    return Planner(database, settings, Wakeups(settings.redis_url, direct=lambda _queue: True))


def today() -> date:
    return today_in(MOSCOW, MOSCOW, now()).date()


async def finish(scanner: Scanner) -> None:
    while await scanner.step():
        pass


async def a_run(database: Database, kind: str, day: date, **more):
    async with database.transaction() as session:
        return await ask_for(session, kind, origin="hand", by="test", days={MOSCOW: day}, **more)


async def told(database: Database) -> list[tuple[str, int, str]]:
    rows = await sql(database, "SELECT kind, episode, mark FROM forecast_hit WHERE outcome = 'told' ORDER BY at, id")
    return [tuple(row) for row in rows]


async def test_a_clock_that_comes_second_does_not_ask_for_threshold_beside_exhaustion(database):
    await an_account(database, phones=(), balance=D(-1), threshold=D(10))
    noon = datetime.fromisoformat("2026-11-23T12:00+03:00")

    async def second() -> None:
        async with database.transaction() as session:
            await ask_for_due(session, KINDS, TEN, MOSCOW, noon)

    async with database.transaction() as session:
        await ask_for_due(session, KINDS, TEN, MOSCOW, noon)
        waiting = asyncio.create_task(second())  # it does not see yet what the first has asked for
        while not await sql(database, "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"):
            await asyncio.sleep(0.01)
    await waiting

    assert {row.kind for row in await sql(database, "SELECT kind FROM scan_run")} == {"exhaustion", "upcoming"}


async def test_a_threshold_that_a_payment_made_untrue_in_the_middle_of_the_scan_is_told_again_at_the_next_fall(database, planner: Planner):
    account = await an_account(database, balance=D(5), threshold=D(20))
    run_id = await a_run(database, "threshold", today())

    async with database.transaction(isolation="REPEATABLE READ") as session:
        await session.execute(sa.text("SELECT 1"))  # as the scan's snapshot is: before the payment
        await sql(database, "UPDATE account SET balance = 100")
        await a_waiting_event(database, account, "balance.changed", data={"balance": "100.00"})
        assert await planner.plan() == 1
        assert (await tell_with(session, run_id)).told == 1
    await planner.plan()  # "not any more": it is skipped
    await sql(database, "UPDATE account SET balance = 10")
    await a_waiting_event(database, account, "balance.changed", data={"balance": "10.00"})
    await planner.plan()
    await planner.plan()

    assert [row.type for row in await sql(database, "SELECT type FROM message WHERE type <> 'balance.changed'")] == ["balance.threshold_reached"]


async def tell_with(session, run_id) -> Told:
    """The telling of a run's only slice in a session whose snapshot is old already."""
    counted = await count(session, "threshold", Span(ask.BEGINNING, ask.END), today(), Wanted(), now())
    await find(session, "threshold", counted.candidates, today(), Wanted(), now())
    return await tell(session, run_id, now())


async def test_a_spell_that_began_between_counting_and_telling_goes_on(database):
    account = await an_account(database, phones=(), balance=D(500))
    await a_charge(database, account, "100.00", on_date=today() + timedelta(days=2))
    run_id, scanner = await a_run(database, "exhaustion", today()), a_scanner(database)
    await scanner.step()  # counted: nobody runs out
    await sql(database, "UPDATE account SET balance = 50")
    await sql(
        database,
        "INSERT INTO forecast_episode (account_id, kind, number, is_open, stage, changed_at) VALUES (:id, 'exhaustion', 1, true, 3, now())",
        id=account.id,
    )  # told at the balance that crossed the threshold as well

    await finish(scanner)
    await a_run(database, "exhaustion", today())
    await finish(scanner)

    assert (await the_run(database, run_id))["state"] == "done"
    assert await told(database) == []


async def test_a_scan_that_is_confirmed_days_later_does_not_end_the_spells_of_later_days(database):
    account = await an_account(database, phones=(), balance=D(50))
    await a_charge(database, account, "100.00", on_date=today() + timedelta(days=6))
    old = await a_run(database, "exhaustion", today() - timedelta(days=3))
    await sql(database, "UPDATE scan_run SET state = 'needs_confirmation', created_at = created_at - interval '3 days'")
    await sql(database, "UPDATE scan_slice SET state = 'done'")
    scanner = a_scanner(database)
    await a_run(database, "exhaustion", today())
    await finish(scanner)
    assert await told(database) == [("exhaustion", 1, "7")]

    async with database.transaction() as session:
        assert await confirm(session, old, "somebody")
    await finish(scanner)
    await a_run(database, "exhaustion", today())
    await finish(scanner)

    assert await told(database) == [("exhaustion", 1, "7")]


async def test_a_scan_that_is_confirmed_days_later_does_not_count_what_was_due_meanwhile(database):
    account = await an_account(database, phones=(), balance=D(50))
    for days in (-2, 6):  # the first is history: the balance has it already
        await a_charge(database, account, "100.00", on_date=today() + timedelta(days=days), name=f"c{days}")
    old = await a_run(database, "exhaustion", today() - timedelta(days=3))
    await sql(database, "UPDATE scan_run SET state = 'needs_confirmation', created_at = created_at - interval '3 days'")
    await sql(database, "UPDATE scan_slice SET state = 'done'")

    async with database.transaction() as session:
        assert await confirm(session, old, "somebody")
    await finish(a_scanner(database))

    assert await told(database) == [("exhaustion", 1, "7")]


async def test_a_dry_run_that_fails_leaves_no_names_in_its_slices(database, monkeypatch):
    monkeypatch.setattr(ask, "SLICE", 1)
    for number in "12":
        await an_account(database, number, phones=(), balance=D(-1))

    async def appraise(_session, hits):
        return {}, [{"account": str(hit.account_id)} for hit in hits]

    async def wanted(_session):
        return Wanted(), Alarm()

    run_id = await a_run(database, "exhaustion", today(), dry_run=True)
    scanner = Scanner(database, wanted, appraise)
    await scanner.step()
    await sql(database, "UPDATE scan_slice SET state = 'failed', error = 'broken' WHERE state = 'waiting'")
    await finish(scanner)

    assert (await the_run(database, run_id))["state"] == "failed"
    assert await sql(database, "SELECT 1 FROM scan_slice WHERE found ? 'sample'") == []


async def test_a_dry_run_that_takes_its_time_holds_up_nobody(database):
    await an_account(database, phones=(), balance=D(-1))
    held = []

    async def appraise(_session, _hits):
        held.extend(
            await sql(
                database, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        )
        return {}, []

    async def wanted(_session):
        return Wanted(), Alarm()

    await a_run(database, "exhaustion", today(), dry_run=True)
    await finish(Scanner(database, wanted, appraise))

    assert held == []
    assert [row.state for row in await sql(database, "SELECT state FROM scan_run")] == ["done"]


async def test_an_account_that_comes_into_a_zone_in_the_middle_of_its_scan_is_looked_at(database):
    early = await an_account(database, "1", phones=(), balance=D(-1), timezone="Asia/Omsk")
    await an_account(database, "2", phones=(), balance=D(-1))
    async with database.transaction() as session:
        await ask_for(session, "exhaustion", origin="clock", by="clock", days={MOSCOW: today()}, zone=MOSCOW, as_of=today())
    await sql(database, "UPDATE account SET timezone = :zone WHERE id = :id", zone=MOSCOW, id=early.id)

    await finish(a_scanner(database))

    assert len(await told(database)) == 2


async def test_a_dry_run_appraises_some_at_a_time_and_adds_them_up(database, monkeypatch):
    monkeypatch.setattr(scan, "TOGETHER", 3)
    for n in range(8):
        await an_account(database, str(n), phones=(), balance=D(-1))
    calls = []

    async def appraise(_session, hits):
        calls.append(len(hits))
        return {"by_type": {"a": len(hits)}, "sms_parts": len(hits), "cost": "0.50"}, [{"account": str(hit.account_id)} for hit in hits]

    async def wanted(_session):
        return Wanted(), Alarm()

    run_id = await a_run(database, "exhaustion", today(), dry_run=True)
    await finish(Scanner(database, wanted, appraise))

    run = await the_run(database, run_id)
    assert calls == [3, 3, 2]
    assert (run["found"]["by_type"], run["found"]["sms_parts"], D(run["found"]["cost"])) == ({"a": 8}, 8, D("1.50"))
    assert len({one["account"] for one in run["sample"]}) == 8


async def test_a_dry_run_holds_no_scan_up(database):
    await an_account(database, phones=(), balance=D(-1))
    dry = await a_run(database, "exhaustion", today(), dry_run=True)
    real = await a_run(database, "exhaustion", today())
    scanner = a_scanner(database)

    await scanner.step()
    await scanner.step()

    assert [(await the_run(database, run_id))["state"] for run_id in (dry, real)] == ["queued", "done"]
