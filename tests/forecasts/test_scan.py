"""Scans from the request to the events: who is told, once, whatever happens in between."""

import asyncio
from datetime import date
from decimal import Decimal
from uuid import uuid4

import sqlalchemy as sa

from app.core import metrics
from app.core.db import Database
from app.forecasts import ask
from app.forecasts.ask import ask_for
from app.forecasts.find import Wanted
from app.forecasts.scan import Alarm, Scanner
from tests.forecasts.oracle import Charge
from tests.forecasts.test_rules import accounts_with

D = Decimal


async def nothing(_session, hits):
    return {}, [{"account_id": str(hit.account_id)} for hit in hits]


def a_scanner(database: Database, alarm: Alarm | None = None) -> Scanner:
    async def wanted(_session):
        return Wanted(), alarm or Alarm()

    return Scanner(database, wanted, nothing)


async def scanned(database: Database, kind: str, day: date, **more) -> dict:
    scanner = a_scanner(database, more.pop("alarm", None))
    async with database.transaction() as session:
        run_id = await ask_for(session, kind, origin=more.pop("origin", "hand"), by="test", days={"Europe/Moscow": day}, **more)
    while await scanner.step():
        pass
    return await the_run(database, run_id)


async def the_run(database: Database, run_id) -> dict:
    async with database.transaction() as session:
        return dict((await session.execute(sa.text("SELECT * FROM scan_run WHERE id = :id"), {"id": run_id})).one()._mapping)


async def sql(database: Database, statement: str, **values) -> list:
    async with database.transaction() as session:
        result = await session.execute(sa.text(statement), values)
        return list(result.all()) if result.returns_rows else []


async def set_balance(database: Database, account, balance: str) -> None:
    await sql(database, "UPDATE account SET balance = :balance, threshold = 20 WHERE id = :id", balance=D(balance), id=account)


async def told(database: Database) -> list[tuple[str, int]]:
    return [tuple(row) for row in await sql(database, "SELECT mark, episode FROM forecast_hit WHERE kind = 'exhaustion' AND outcome = 'told' ORDER BY at, id")]


async def test_episodes_are_those_of_the_specification(database):
    (account,) = await accounts_with(database, [[Charge("once", D("100"), on=date(2026, 11, 30))]])
    await set_balance(database, account, "50")
    seen = []
    for day, balance in [(22, "50"), (23, "50"), (23, "50"), (24, "50"), (27, "50"), (28, "150"), (28, "60"), (29, "60"), (30, "60")]:
        await set_balance(database, account, balance)
        before = await told(database)
        run = await scanned(database, "exhaustion", date(2026, 11, day))
        assert run["state"] == "done"
        seen.append((await told(database))[len(before) :])

    assert seen == [[], [("7", 1)], [], [], [("3", 1)], [], [("3", 2)], [("1", 2)], []]
    events = await sql(database, "SELECT e.type, e.data FROM event e JOIN event_waiting w ON w.event_id = e.id ORDER BY e.id")
    assert [row.type for row in events] == ["balance.exhausting"] * 4
    assert events[0].data == {
        "days_left": 7,
        "exhausts_on": "2026-11-30",
        "shortfall": "50.00",
        "recommended_payment": "50.00",
        "charges": [{"id": "c0", "title": "Charge 0", "amount": "100.00", "due_on": "2026-11-30"}],
    }


async def test_two_identical_scans_at_once_tell_once(database):
    ids = await accounts_with(database, [[Charge("daily", D("10"))] for _ in range(300)])
    assert len(ids) == 300
    async with database.transaction() as session:
        for _ in range(2):
            await ask_for(session, "exhaustion", origin="hand", by="test", days={"Europe/Moscow": date(2026, 11, 23)})

    async def work(scanner):
        while await scanner.step():
            pass

    await asyncio.gather(*(work(a_scanner(database)) for _ in range(3)))

    assert len(await told(database)) == 300
    assert [row.state for row in await sql(database, "SELECT state FROM scan_run")] == ["done", "done"]
    assert (await sql(database, "SELECT count(*) FROM event_waiting"))[0][0] == 300


async def test_threshold_is_covered_by_the_exhaustion_of_the_same_day(database):
    poor, low = await accounts_with(database, [[Charge("daily", D("10"))], []])
    for account in (poor, low):
        await set_balance(database, account, "15")

    await scanned(database, "exhaustion", date(2026, 11, 23))
    run = await scanned(database, "threshold", date(2026, 11, 23))

    assert (run["found"]["told"], run["found"]["covered"]) == (1, 1)
    assert {tuple(row) for row in await sql(database, "SELECT type, account_id FROM event")} == {
        ("balance.exhausting", poor),
        ("balance.threshold_reached", low),
    }


async def test_a_worker_that_dies_in_a_slice_leaves_it_to_the_next_one(database, monkeypatch):
    await accounts_with(database, [[Charge("daily", D("10"))] for _ in range(50)])
    async with database.transaction() as session:
        run_id = await ask_for(session, "exhaustion", origin="hand", by="test", days={"Europe/Moscow": date(2026, 11, 23)})
    await sql(database, "UPDATE scan_slice SET state = 'running', attempts = 1, lease_until = now() - interval '1 s'")

    scanner, found = a_scanner(database), metrics.SWEEPER_FOUND.labels("scan")._value.get()
    while await scanner.step():
        pass

    assert (await the_run(database, run_id))["state"] == "done"
    assert len(await told(database)) == 50
    assert metrics.SWEEPER_FOUND.labels("scan")._value.get() == found + 1


async def test_an_alarming_count_waits_for_somebodys_confirmation_and_tells_nobody(database):
    for n in range(3):
        await sql(
            database,
            """INSERT INTO scan_run (id, kind, origin, dry_run, state, phase, requested_by, found, sample, created_at)
            VALUES (:id, 'exhaustion', 'hand', false, 'done', 'tell', 't', '{"told": 10}', '[]', now() - make_interval(days => :n))""",
            id=uuid4(),
            n=n + 1,
        )
    await accounts_with(database, [[Charge("daily", D("10"))] for _ in range(200)])

    run = await scanned(database, "exhaustion", date(2026, 11, 23))

    assert (run["state"], run["usual"], run["found"]["told"]) == ("needs_confirmation", 10, 200)
    assert await told(database) == []


async def test_slices_divide_all_accounts_among_them(database, monkeypatch):
    monkeypatch.setattr(ask, "SLICE", 37)
    await accounts_with(database, [[Charge("daily", D("10"))] for _ in range(200)])

    run = await scanned(database, "exhaustion", date(2026, 11, 23))

    assert run["found"]["accounts"] == 200
    assert run["found"]["told"] == 200
    assert (await sql(database, "SELECT count(*) FROM scan_slice WHERE phase = 'tell'"))[0][0] == 6


async def test_what_was_found_on_the_same_day_of_the_last_month_is_usual(database):
    accounts = await accounts_with(database, [[] for _ in range(40)])
    past = [(date(2026, 10, 23), 30), *((date(2026, 11, day), 1) for day in range(16, 23))]
    for day, many in past:
        await sql(
            database,
            """INSERT INTO scan_run (id, kind, origin, zone, as_of, dry_run, state, phase, requested_by, found, sample, created_at)
            VALUES (gen_random_uuid(), 'threshold', 'clock', 'Europe/Moscow', :day, false, 'done', 'tell', 't', CAST(:found AS jsonb), '[]', now() - interval '1 day')""",
            day=day,
            found=f'{{"told": {many}}}',
        )
    for account in accounts:
        await set_balance(database, account, "5")

    alarm = Alarm(multiple=3, least=0)
    run = await scanned(database, "threshold", date(2026, 11, 23), origin="clock", zone="Europe/Moscow", as_of=date(2026, 11, 23), alarm=alarm)
    other = await scanned(database, "threshold", date(2026, 11, 26), origin="clock", zone="Europe/Moscow", as_of=date(2026, 11, 26), alarm=alarm)

    assert (run["state"], run["usual"]) == ("done", 30)
    assert other["usual"] == 1


async def test_a_scan_by_hand_is_measured_by_the_days_of_the_clocks(database):
    accounts = await accounts_with(database, [[] for _ in range(40)])
    for day in range(16, 20):
        for zone in ("Europe/Moscow", "Asia/Omsk"):
            await sql(
                database,
                """INSERT INTO scan_run (id, kind, origin, zone, as_of, dry_run, state, phase, requested_by, found, sample, created_at)
                VALUES (gen_random_uuid(), 'threshold', 'clock', :zone, :day, false, 'done', 'tell', 't', '{"told": 2}', '[]', now() - interval '1 day')""",
                zone=zone,
                day=date(2026, 11, day),
            )
    for account in accounts:
        await set_balance(database, account, "5")

    run = await scanned(database, "threshold", date(2026, 11, 23), alarm=Alarm(multiple=3, least=0))

    assert (run["state"], run["usual"]) == ("needs_confirmation", 4)
