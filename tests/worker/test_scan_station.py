"""The stations of the queue `scan`: several at once, one that is killed, a payment in the middle, a count that somebody has to confirm."""

import asyncio
import signal
from contextlib import asynccontextmanager
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from app.core import metrics
from app.forecasts import ask, station
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event
from tests.builders.messages import one, rows, run
from tests.forecasts.test_scan import a_scanner
from tests.worker.test_worker import NO_REDIS, Process, until

POOR = """
INSERT INTO account (id, number, name, status, balance, credit_limit, currency, locale, timezone, tariff, attributes, created_at, updated_at)
SELECT CAST(lpad(to_hex(n), 32, '0') AS uuid), 'n' || n, '', 'active', -1, 0, 'RUB', 'ru', 'Europe/Moscow', '', '{}', now(), now() FROM generate_series(1, :many) n
"""


@pytest.fixture
def slices_of_ten(monkeypatch):
    monkeypatch.setattr(ask, "SLICE", 10)


async def told(database) -> int:
    return (await one(database, "SELECT count(*) AS n FROM event WHERE source = '/vestnik/forecasts'")).n


async def state_of(database, run_id) -> str:
    return (await one(database, "SELECT state FROM scan_run WHERE id = :id", id=UUID(run_id))).state


async def asked(api, **given) -> str:
    return (await api.post("/forecasts/scans", json={"kind": "exhaustion"} | given)).json()["id"]


@asynccontextmanager
async def stuck(database, n):
    """Whoever takes this slice of the exhaustion scan stands still in the middle of it."""
    first = UUID(int=n * 10 + 1 if n else 0)
    async with database.engine.connect() as connection:
        await connection.execute(sa.text("SELECT pg_advisory_lock(hashtextextended(:key, 0))"), {"key": f"exhaustion:{first}:None"})
        try:
            yield
        finally:
            await connection.execute(sa.text("SELECT pg_advisory_unlock_all()"))


async def test_the_clock_starts_the_scans_of_a_day_and_each_is_done_once(database, open_office, monkeypatch):
    await run(database, POOR, many=3)
    monkeypatch.setattr(station, "IDLE", 0.05)
    monkeypatch.setattr(station, "LOOK", 0.05)
    offices = [open_office(redis_url=NO_REDIS, scan_hour="00:00") for _ in range(2)]

    for office in offices:
        office.open("scan")
    await until(lambda: all_done(database, 3))

    assert sorted((row.kind, row.origin) for row in await rows(database, "SELECT kind, origin FROM scan_run")) == [
        ("exhaustion", "clock"),
        ("threshold", "clock"),
        ("upcoming", "clock"),
    ]
    assert await told(database) == 3


async def all_done(database, many):
    found = await rows(database, "SELECT state FROM scan_run")
    return len(found) >= many and {row.state for row in found} == {"done"}


async def test_before_the_hour_nothing_is_scanned(database, open_office, monkeypatch):
    await run(database, POOR, many=1)
    looks = []
    monkeypatch.setattr(station, "IDLE", 0.05)
    monkeypatch.setattr(station, "LOOK", 0.0)
    ask = station.ask_for_due

    async def counted(*given):
        looks.append(found := await ask(*given))
        return found

    monkeypatch.setattr(station, "ask_for_due", counted)
    open_office(redis_url=NO_REDIS, scan_hour="23:59:59").open("scan")

    await until(lambda: len(looks) > 3)

    assert await rows(database, "SELECT id FROM scan_run") == []


async def test_two_stations_share_the_slices_and_tell_everybody_once(api, database, open_office, slices_of_ten):
    await run(database, POOR, many=95)
    runs = [await asked(api) for _ in range(2)]  # the same scan twice at once
    for _ in range(2):
        open_office(redis_url=NO_REDIS, scan_hour="23:59:59").open("scan")

    await until(lambda: all_done(database, 2))

    assert await told(database) == 95
    found = [(await one(database, "SELECT found FROM scan_run WHERE id = :id", id=UUID(run_id))).found for run_id in runs]
    assert [one_run["accounts"] for one_run in found] == [95, 95]
    assert sum(one_run["told"] for one_run in found) == 95


async def test_what_a_killed_worker_leaves_behind_is_finished_by_another(api, database, settings, open_office, slices_of_ten):
    await run(database, POOR, many=35)
    run_id = await asked(api)
    async with stuck(database, 2), Process(settings, VESTNIK_SCAN_HOUR="23:59:59") as process:
        await until(lambda: rows(database, "SELECT 1 FROM scan_slice WHERE n = 2 AND state = 'running'"))
        process.tell(signal.SIGKILL)
        await process.ended()
    assert await told(database) == 0
    assert (await one(database, "SELECT count(*) AS n FROM scan_slice WHERE state = 'done'")).n == 2

    await run(database, "UPDATE scan_slice SET lease_until = now() - interval '1 second' WHERE state = 'running'")
    open_office(redis_url=NO_REDIS, scan_hour="23:59:59").open("scan")
    await until(lambda: all_done(database, 1))

    assert (await api.get(f"/forecasts/scans/{run_id}")).json()["found"]["told"] == 35
    assert await told(database) == 35
    assert (await one(database, "SELECT attempts FROM scan_slice WHERE n = 2 AND phase = 'count'")).attempts == 2


async def test_a_worker_killed_while_it_tells_has_told_whole_slices_and_none_twice(api, database, settings, open_office, slices_of_ten):
    await run(database, POOR, many=35)
    run_id = await asked(api)
    async with Process(settings, VESTNIK_SCAN_HOUR="23:59:59") as process:
        await until(lambda: rows(database, "SELECT 1 FROM scan_run WHERE phase = 'tell'"))
        process.tell(signal.SIGKILL)
        await process.ended()
    halfway = await told(database)
    assert halfway % 10 in (0, 5)

    await run(database, "UPDATE scan_slice SET lease_until = now() - interval '1 second' WHERE state = 'running'")
    open_office(redis_url=NO_REDIS, scan_hour="23:59:59").open("scan")
    await until(lambda: all_done(database, 1))

    assert await told(database) == 35
    assert await state_of(database, run_id) == "done"


async def test_progress_is_seen_while_a_slice_is_at_work(api, database, open_office, slices_of_ten, monkeypatch):
    monkeypatch.setattr(station, "LOOK", 0.0)
    await run(database, POOR, many=40)
    run_id = await asked(api)

    async with stuck(database, 3):
        open_office(redis_url=NO_REDIS, scan_hour="23:59:59").open("scan")
        await until(lambda: rows(database, "SELECT 1 FROM scan_slice WHERE n = 3 AND state = 'running'"))
        halfway = (await api.get(f"/forecasts/scans/{run_id}")).json()
        slices = {state: metrics.SCAN_SLICES.labels("exhaustion", state)._value.get() for state in station.STATES}
    await until(lambda: all_done(database, 1))

    assert (halfway["state"], halfway["phase"], halfway["done_share"], halfway["finished_at"]) == ("running", "count", 0.75, None)
    assert slices == {"waiting": 1, "running": 0, "done": 3, "failed": 0}  # as of the moment before the last one was taken
    assert (await api.get(f"/forecasts/scans/{run_id}")).json()["done_share"] == 1
    await until(lambda: metrics.SCAN_SLICES.labels("exhaustion", "done")._value.get() == 0)


async def test_a_payment_in_the_middle_of_a_slice_that_tells_leaves_nobody_reminded(api, database, open_office, slices_of_ten):
    account = await an_account(database, id=UUID(int=1), balance=Decimal(-5))
    run_id = await asked(api)
    await a_scanner(database).step()  # he is counted; telling comes next
    office = open_office(redis_url=NO_REDIS, scan_hour="23:59:59")

    async with stuck(database, 0):
        office.open("scan")
        await until(lambda: rows(database, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))  # its snapshot is taken
        await run(database, "UPDATE account SET balance = 500, balance_as_of = now() WHERE id = :id", id=account.id)
        await a_waiting_event(database, account, "payment.received", data={"amount": "505.00", "balance": "500.00"})
    await until(lambda: is_in(database, run_id, "done"))
    office.open("plan")
    await until(lambda: rows(database, "SELECT 1 FROM notification HAVING count(*) = 2"))

    decisions = [row.decisions[0] for row in await rows(database, "SELECT decisions FROM notification")]
    assert {(decision["type"], decision["outcome"], decision["reason"]) for decision in decisions} == {
        ("balance.exhausting", "skipped", "resolved"),
        ("payment.received", "planned", None),
    }
    assert (await one(database, "SELECT is_open FROM forecast_episode")).is_open is False


async def test_an_unusual_count_waits_and_is_told_when_it_is_confirmed(api, database, open_office):
    for _ in range(3):
        await run(
            database,
            """INSERT INTO scan_run (id, kind, origin, dry_run, state, phase, requested_by, found, sample, created_at)
            VALUES (:id, 'exhaustion', 'hand', false, 'done', 'tell', 't', '{"told": 2}', '[]', now())""",
            id=uuid4(),
        )
    await run(
        database, """UPDATE notification_type SET settings = settings || '{"alarm_least": 5}', revision = revision + 1 WHERE code = 'balance.exhausting'"""
    )
    await run(database, POOR, many=7)
    office = open_office(redis_url=NO_REDIS, scan_hour="23:59:59")
    office.open("scan")
    run_id = await asked(api)
    office.poke("scan")
    await until(lambda: is_in(database, run_id, "needs_confirmation"))
    await asyncio.sleep(0.3)
    assert await told(database) == 0

    await api.post(f"/forecasts/scans/{run_id}/confirm")
    office.poke("scan")
    await until(lambda: is_in(database, run_id, "done"))

    assert await told(database) == 7


async def is_in(database, run_id, state):
    return await state_of(database, run_id) == state
