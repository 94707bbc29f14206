"""Planning alone: events that wait become decisions and messages, by one process, with everything that subscribers may choose, and without any of it.

`python -m benchmarks.plan URL` is that process: begun by a line on stdin, it says what it has used, and goes at the next line."""

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from app.core.config import Settings
from app.core.db import Database, sync_dsn
from app.core.wakeups import Wakeups
from app.embedded.postgres import EmbeddedPostgres
from app.gateways.settings import stored
from app.gateways.smpp import SmppSettings
from app.notifications.plan import Planner
from app.schema import prepare
from benchmarks import processes
from benchmarks.stack import ROOT

EACH = 2  # events of an account
NOBODY = "redis://127.0.0.1:1/0"

ACCOUNTS = """
INSERT INTO account (id, number, name, status, balance, balance_as_of, credit_limit, currency, locale, timezone, tariff, threshold, attributes, created_at, updated_at)
SELECT uuidv7(), 'p' || n, 'Subscriber ' || n, 'active', 500, now(), 0, 'RUB', 'ru',
    (ARRAY['Europe/Moscow', 'Europe/Moscow', 'Europe/Samara', 'Asia/Yekaterinburg', 'Asia/Omsk', 'Asia/Vladivostok'])[1 + n % 6], 'Home', 75, '{}', now(), now()
FROM generate_series(1, $1::int) n
"""
CONTACTS = """
INSERT INTO contact (id, account_id, channel, address, label, origin, created_at)
SELECT uuidv7(), id, 'sms', '+7916' || lpad(substr(number, 2), 7, '0'), '', 'billing', now() FROM account
"""
# A third has chosen something, each with the id of a contact in it, so that no two documents are alike; a tenth of all has hours, among which it is now.
PREFERENCES = """
INSERT INTO account_preference (account_id, revision, document, updated_at, updated_by)
SELECT a.id, 1, jsonb_build_object(
    'types', '{"tariff.changed": {"channels": {"sms": true}}, "balance.restored": {"enabled": false}}'::jsonb,
    'contacts', jsonb_build_object(c.id, '{"types": {"payment.received": true}}'::jsonb)
) || CASE WHEN n.number % 10 = 0 THEN jsonb_build_object('hours', jsonb_build_array(jsonb_build_object(
        'from', lpad(CAST((n.hour + 20 + n.number % 3) % 24 AS text), 2, '0') || ':30', 'to', lpad(CAST((n.hour + 3 + n.number % 7) % 24 AS text), 2, '0') || ':00')))
    ELSE '{}' END, now(), 'subscriber'
FROM account a JOIN contact c ON c.account_id = a.id
CROSS JOIN LATERAL (SELECT CAST(substr(a.number, 2) AS int) AS number, CAST(extract(hour FROM now() AT TIME ZONE a.timezone) AS int) AS hour) n
WHERE n.number % 3 = 0 OR n.number % 10 = 0
"""
# Of ten: four payments, two services (put together), two reminders (with a cap), two tariffs.
EVENTS = """
INSERT INTO event (id, source, external_id, type, account_id, time, data)
SELECT uuidv7(), '/bench', CAST(n AS text), k.type, a.id, now() - interval '1 minute' + n * interval '1 microsecond', k.data
FROM generate_series(1, $1::int) n JOIN account a ON a.number = 'p' || (1 + n % (SELECT count(*) FROM account)) CROSS JOIN LATERAL (
    SELECT (ARRAY['payment.received', 'payment.received', 'payment.received', 'payment.received', 'service.connected', 'service.connected',
                  'charges.upcoming', 'charges.upcoming', 'tariff.changed', 'tariff.changed'])[1 + s] AS type,
           (ARRAY['{"amount": "500.00"}', '{"amount": "500.00"}', '{"amount": "500.00"}', '{"amount": "500.00"}',
                  '{"service": {"code": "tv", "name": "TV"}, "price": "300.00"}', '{"service": {"code": "tv", "name": "TV"}, "price": "300.00"}',
                  '{"due_on": "2026-12-01", "total": "600.00", "charges": []}', '{"due_on": "2026-12-01", "total": "600.00", "charges": []}',
                  '{"old_tariff": "Home 50", "new_tariff": "Home 100"}', '{"old_tariff": "Home 50", "new_tariff": "Home 100"}']::jsonb[])[1 + s] AS data
    FROM (SELECT n * 7 / 10 % 10 AS s) s
) k
"""
WAITING = "INSERT INTO event_waiting (event_id, account_id) SELECT id, account_id FROM event ORDER BY id"
TOGETHER = "UPDATE notification_type SET coalesce_seconds = $1, revision = revision + 1 WHERE code = 'service.connected'"
MADE = "SELECT count(*) AS messages, count(*) FILTER (WHERE state = 'held') AS held FROM outbox"
SKIPPED = 'SELECT count(*) FROM notification WHERE decisions @? \'$[*] ? (@.outcome == "skipped" && @.channel == "sms")\''


def planning(events: int) -> dict[str, Any]:
    """Events a second of one process; its CPU and PostgreSQL's, by themselves. `bare`: nobody has chosen anything, and nothing is capped or put together."""
    figures = {name: measured(events, full=name == "full") for name in ("bare", "full")}
    return {"events": events, "rate_per_s": figures["full"]["rate_per_s"], **figures}


def measured(events: int, *, full: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="vestnik-plan-") as home:
        Path(home).chmod(0o755)
        postgres = EmbeddedPostgres(Path(home))
        try:
            url = postgres.start()
            asyncio.run(fill(url, events, full=full))
            figures = run(url, home)
            return figures | asyncio.run(counted(url))
        finally:
            postgres.stop()


async def fill(url: str, events: int, *, full: bool) -> None:
    await prepare(url)
    connection = await asyncpg.connect(**sync_dsn(url), server_settings={"jit": "off"})
    shape = SmppSettings.model_validate({"host": "127.0.0.1", "port": 2775, "system_id": "isp", "sender": "MyISP"})
    await connection.execute(
        "INSERT INTO gateway (name, kind, settings, enabled, paused, revision, created_at, updated_at) VALUES ('main', 'smpp', $1, true, false, 1, now(), now())",
        json.dumps(stored(shape)),
    )
    await connection.execute(ACCOUNTS, max(1, events // EACH))
    await connection.execute(CONTACTS)
    if full:
        await connection.execute(PREFERENCES)
        await connection.execute(TOGETHER, 60)
    else:
        await connection.execute("DELETE FROM cap")
    await connection.execute(EVENTS, events)
    await connection.execute(WAITING)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


def run(url: str, home: str) -> dict[str, Any]:
    planner = subprocess.Popen([sys.executable, "-m", "benchmarks.plan", url], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert planner.stdin is not None
    assert planner.stdout is not None
    planner.stdout.readline()
    before = processes.cpu_by_kind(processes.descendants(planner.pid, home))
    planner.stdin.write("go\n")
    planner.stdin.flush()
    used = json.loads(planner.stdout.readline())
    servers = processes.cpu_by_kind(processes.descendants(planner.pid, home))["postgres"] - before["postgres"]
    planner.stdin.write("go\n")
    planner.stdin.flush()
    planner.wait()
    rate = used["events"] / used["seconds"]
    return {
        "rate_per_s": round(rate),
        "seconds": round(used["seconds"], 2),
        "planner_us": round(used["cpu_s"] / used["events"] * 1e6),
        "postgres_us": round(servers / used["events"] * 1e6),
        "per_planner_core": round(used["events"] / used["cpu_s"]),
        "per_core_of_both": round(used["events"] / (used["cpu_s"] + servers)),
    }


async def counted(url: str) -> dict[str, Any]:
    connection = await asyncpg.connect(**sync_dsn(url))
    made, skipped = await connection.fetchrow(MADE), await connection.fetchval(SKIPPED)
    joined = await connection.fetchval("SELECT count(*) FROM notification_event")
    await connection.close()
    return {"messages": made["messages"], "held": made["held"], "joined": joined, "skipped": skipped}


async def work(url: str) -> None:
    # It is never night where this is measured: what is held by quiet hours costs less.
    begins = datetime.now(UTC) + timedelta(hours=14)
    quiet = f"{begins:%H}:00-{begins + timedelta(hours=2):%H}:00"
    settings = Settings(_env_file=None, database_url=url, redis_url=NOBODY, quiet_hours=quiet, log_level="warning")
    database = Database(url, pool_size=2)
    planner = Planner(database, settings, Wakeups(NOBODY, direct=lambda _: True))
    async with database.transaction():
        pass
    print("ready", flush=True)
    sys.stdin.readline()
    idle, began, events = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter(), 0
    while planned := await planner.plan():
        events += planned
    seconds, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"events": events, "seconds": seconds, "cpu_s": used.ru_utime + used.ru_stime - idle.ru_utime - idle.ru_stime}), flush=True)
    sys.stdin.readline()
    await database.close()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]))
