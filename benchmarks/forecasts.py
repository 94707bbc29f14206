"""(d) Forecast scans over many accounts with three charges each, beside the least that PostgreSQL needs to read the charges once, and a naive loop."""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg

from app.core.db import Database, sync_dsn
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.running import find_running
from app.forecasts.ask import ask_for
from app.forecasts.models import KINDS
from app.schema import prepare
from benchmarks.stack import ROOT, Stack

AS_OF = date(2026, 11, 23)
HORIZON = 7
NAIVE = 2000  # accounts of which the naive loop's time is scaled up

ACCOUNTS = """
INSERT INTO account (id, number, name, status, balance, balance_as_of, credit_limit, currency, locale, timezone, tariff, threshold, attributes, created_at, updated_at)
SELECT uuidv7(), 'f' || n, 'Subscriber ' || n, CASE WHEN n % 50 = 0 THEN 'suspended' ELSE 'active' END, CAST(random() * 4200 AS numeric(14, 2)), now(),
    CASE WHEN n % 20 = 0 THEN 300 ELSE 0 END, 'RUB', 'ru',
    (ARRAY['Europe/Moscow', 'Europe/Moscow', 'Europe/Moscow', 'Europe/Samara', 'Asia/Yekaterinburg', 'Asia/Omsk', 'Asia/Krasnoyarsk', 'Asia/Vladivostok'])[1 + n % 8],
    'Home', 75, '{}', now(), now()
FROM generate_series(1, $1::int) n
"""
# Monthly for the tariff, something daily, weekly or monthly beside it, and one that comes once; an account's own beside each other, as an import leaves them.
CHARGES = """
INSERT INTO planned_charge (id, account_id, external_id, title, amount, kind, slot, on_date, announce)
SELECT uuidv7(), a.id, 's' || k, 'Service ' || k,
    CAST(CASE q.kind WHEN 'monthly' THEN 200 + random() * 400 WHEN 'daily' THEN 1 + random() * 5 WHEN 'weekly' THEN 10 + random() * 30 ELSE 50 + random() * 100 END AS numeric(14, 2)),
    q.kind, CASE q.kind WHEN 'monthly' THEN CASE WHEN random() < 0.5 THEN 1 ELSE 1 + CAST(random() * 27 AS int) END WHEN 'weekly' THEN 1 + CAST(random() * 6 AS int) ELSE 0 END,
    CASE q.kind WHEN 'once' THEN $1::date - 20 + CAST(random() * 300 AS int) END, true
FROM account a CROSS JOIN generate_series(1, 3) k CROSS JOIN LATERAL (
    SELECT CASE k WHEN 1 THEN 'monthly' WHEN 2 THEN CASE WHEN abs(hashtext(a.number)) % 20 < 5 THEN 'daily' WHEN abs(hashtext(a.number)) % 20 < 6 THEN 'weekly' ELSE 'monthly' END ELSE 'once' END AS kind
) q WHERE a.number LIKE 'f%' ORDER BY a.id, k
"""
CONTACTS = """
INSERT INTO contact (id, account_id, channel, address, label, origin, created_at)
SELECT uuidv7(), id, 'sms', '+7916' || lpad(substr(number, 2), 7, '0'), '', 'billing', now() FROM account WHERE number LIKE 'f%'
"""
FLOOR = "SELECT sum(amount) FROM planned_charge"
CLEAR = "TRUNCATE forecast_hit, forecast_episode, event, event_key, event_waiting, scan_run, scan_slice"


def scans(accounts: int) -> dict[str, Any]:
    """Each kind by one process and by two, hits written; the same again; the naive loop. Ratios are to the floor of the same run."""
    with tempfile.TemporaryDirectory(prefix="vestnik-forecasts-") as home:
        Path(home).chmod(0o755)
        postgres = EmbeddedPostgres(Path(home))
        try:
            return asyncio.run(_scans(postgres.start(), accounts))
        finally:
            postgres.stop()


async def _scans(url: str, accounts: int) -> dict[str, Any]:
    await prepare(url)
    connection, database = await asyncpg.connect(**sync_dsn(url), server_settings={"jit": "off"}), Database(url, pool_size=2)
    await _fill(connection, accounts)
    floor = await _floor(connection)
    figures: dict[str, Any] = {"accounts": accounts, "floor_s": round(floor, 3)}
    for kind in KINDS:
        for workers in (1, 2):
            await connection.execute(CLEAR)
            await connection.execute("VACUUM ANALYZE")
            seconds, found, used = await _scan(database, url, kind, workers)
            figures[f"{kind}_{workers}"] = {"s": round(seconds, 2), "x_floor": round(seconds / floor, 1), "hits": found["told"] + found["covered"], **used}
        seconds, found, _ = await _scan(database, url, kind, 1)
        figures[f"{kind}_again"] = {"s": round(seconds, 2), "x_floor": round(seconds / floor, 1), "hits": found["told"] + found["covered"]}
    naive = await _naive(connection) / NAIVE * accounts
    figures["naive"] = {"s": round(naive, 1), "x_floor": round(naive / floor, 1)}
    figures["floor_after_s"] = round(await _floor(connection), 3)
    figures["rate_per_s"] = round(accounts / figures["exhaustion_1"]["s"])
    await database.close()
    await connection.close()
    return figures


async def _fill(connection: asyncpg.Connection, accounts: int) -> None:
    await connection.execute(ACCOUNTS, accounts)
    await connection.execute(CHARGES, AS_OF)
    await connection.execute("VACUUM ANALYZE")


async def _floor(connection: asyncpg.Connection) -> float:
    return statistics.median([await _timed(lambda: connection.fetchval(FLOOR)) for _ in range(5)])


async def _timed(work: Callable[[], Awaitable[Any]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def _scan(database: Database, url: str, kind: str, workers: int) -> tuple[float, dict[str, Any], dict[str, Any]]:
    """Seconds from the first to the last step, what was found, and what the processes took."""
    async with database.transaction() as session:
        zones = list((await (await session.connection()).exec_driver_sql("SELECT DISTINCT timezone FROM account")).scalars())
        asking = time.perf_counter()
        run_id = await ask_for(session, kind, origin="hand", by="bench", days=dict.fromkeys(zones, AS_OF))
        asking = time.perf_counter() - asking
    assert run_id is not None
    command = [sys.executable, "-m", "benchmarks.scanner", url, str(run_id)]
    started = [subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(workers)]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    began = time.monotonic()  # one clock for all processes of the machine
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    await asyncio.gather(*(asyncio.to_thread(process.wait) for process in started))
    used = [json.loads(process.stdout.read()) for process in started if process.stdout is not None]
    seconds = asking + max(one["over"] for one in used) - began
    async with database.transaction() as session:
        run = (await (await session.connection()).exec_driver_sql(f"SELECT state, found FROM scan_run WHERE id = '{UUID(str(run_id))}'")).one()
    assert run.state == "done", run
    return seconds, run.found, {name: round(max(one[name] for one in used), 1) for name in ("cpu_s", "mib_over_idle")}


async def _naive(connection: asyncpg.Connection) -> float:
    """What a first draft does: for each account ask for its charges, and walk through the days."""
    rows = await connection.fetch("SELECT id, balance + credit_limit AS available FROM account WHERE status = 'active' ORDER BY id LIMIT $1", NAIVE)
    days = [AS_OF + timedelta(days=n) for n in range(HORIZON + 1)]
    began = time.perf_counter()
    for row in rows:
        charges = await connection.fetch("SELECT amount, kind, slot, on_date FROM planned_charge WHERE account_id = $1", row["id"])
        left: Decimal = row["available"]
        for day in days:
            last = (day + timedelta(days=1)).day == 1
            for amount, kind, slot, on in charges:
                monthly = kind == "monthly" and (slot == day.day or (last and slot > day.day))
                if kind == "daily" or monthly or (kind == "weekly" and slot == day.isoweekday()) or on == day:
                    left -= amount
            if left < 0:
                break
    return time.perf_counter() - began


def planned(stack: Stack, accounts: int) -> dict[str, Any]:
    """From the request for a scan of exhaustion to the last message planned, with everything that `vestnik up` runs."""
    return asyncio.run(_planned(stack, accounts))


async def _planned(stack: Stack, accounts: int) -> dict[str, Any]:
    url, _ = find_running(Path(stack.data_dir))
    connection = await asyncpg.connect(**sync_dsn(url))
    today = datetime.now(ZoneInfo("Europe/Moscow")).date()
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM account WHERE number = 'f1')"):
        await connection.execute(ACCOUNTS, accounts)
        await connection.execute(CHARGES, today)
        await connection.execute(CONTACTS)
    await connection.execute("DELETE FROM forecast_hit")
    await connection.execute("DELETE FROM forecast_episode")
    await connection.execute("VACUUM ANALYZE")
    messages = await connection.fetchval("SELECT count(*) FROM message WHERE type = 'balance.exhausting'")
    began = time.perf_counter()
    answer = stack.api.post("/forecasts/scans", json={"kind": "exhaustion"})
    answer.raise_for_status()
    run: dict[str, Any] = {}
    while run.get("state") not in ("done", "failed", "needs_confirmation"):
        await asyncio.sleep(0.1)
        run = stack.api.get(f"/forecasts/scans/{answer.json()['id']}").json()
    scanned = time.perf_counter() - began
    assert run["state"] == "done", run
    while await connection.fetchval("SELECT EXISTS (SELECT FROM event_waiting)"):
        await asyncio.sleep(0.1)
    seconds = time.perf_counter() - began
    made = await connection.fetchval("SELECT count(*) FROM message WHERE type = 'balance.exhausting'") - messages
    await connection.close()
    return {"accounts": accounts, "rate_per_s": round(made / seconds, 1), "messages": made, "scan_s": round(scanned, 2), "all_planned_s": round(seconds, 2)}
