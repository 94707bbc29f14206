"""(h) The cabinet's reads at a steady rate over many accounts: how long an answer takes, each from the moment at which it was due.

The database is filled by SQL, and `vestnik serve` and this process are all that runs beside it. A client that waits for slow answers before it asks again
would hide what it waits for (coordinated omission): here the asking keeps its pace whatever becomes of it.

BENCH_RATE (200) requests a second are made for 30 seconds.
"""

import asyncio
import os
import random
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import asyncpg

from app.core.auth import cabinet_token
from app.core.config import Settings
from app.core.db import sync_dsn
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.redis import EmbeddedRedis
from app.schema import prepare
from benchmarks import forecasts, processes
from benchmarks.stack import ROOT, VESTNIK, free_port

SECRET = "a secret of the benchmark alone, forty oc"
RATE, SECONDS = float(os.environ.get("BENCH_RATE", "200")), 30
PATHS = ("/me", "/me/messages?limit=20", "/me/contacts", "/me/preferences", "/me/forecast?days=30", "/me/messages?limit=20&state=delivered")
PREFERENCES = """
INSERT INTO account_preference (account_id, revision, document, updated_at, updated_by)
SELECT id, 1, CAST('{"locale": "ru", "hours": [{"weekdays": [1,2,3,4,5], "from": "09:00", "to": "21:00"}], "types": {"charges.upcoming": {"enabled": false}}}' AS jsonb),
    now(), 'subscriber' FROM account WHERE abs(hashtext(number)) % 3 = 0
"""
MESSAGES = """
INSERT INTO message (id, event_id, account_id, type, channel, contact_id, address, locale, gateway, state, urgent, not_before, expires_at, text, encoding, parts, updated_at)
SELECT uuidv7(CAST(-(k * 5) || ' days' AS interval)), NULL, c.account_id, 'payment.received', 'sms', c.id, c.address, 'ru', 'main', 'delivered', true, now(), now(),
    'Платёж 500,00 получен. Баланс 612,30', 'ucs2', 1, now()
FROM generate_series(1, $1::int) k CROSS JOIN contact c
"""
KEPT = 3.0  # seconds that a connection may rest: the server lets go of it after five
EACH = 3  # messages of an account
BATCH = 100_000


async def fill(url: str, accounts: int) -> None:
    connection = await asyncpg.connect(**sync_dsn(url), command_timeout=3600)
    await connection.execute("SET synchronous_commit = off")
    for statement, values in (
        (forecasts.ACCOUNTS, (accounts,)),
        (forecasts.CHARGES, (forecasts.AS_OF,)),
        (forecasts.CONTACTS, ()),
        (PREFERENCES, ()),
        (MESSAGES, (EACH,)),
    ):
        await connection.execute(statement, *values)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


class Asking:
    """One connection after the other, as many as are needed; each answer is measured from when its request was due."""

    def __init__(self, port: int) -> None:
        self._port, self._idle = port, list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]]()
        self.took: dict[str, list[float]] = defaultdict(list)
        self.bad: list[str] = []
        self.connections = 0

    async def ask(self, path: str, token: str, due: float) -> None:
        since, reader, writer = self._idle.pop() if self._idle else (0.0, None, None)
        if reader is None or writer is None or time.perf_counter() - since > KEPT:
            if writer is not None:
                writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            self.connections += 1
        writer.write(f"GET /api/v1{path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        body = await reader.readexactly(int(head.partition("content-length:")[2].split()[0]))
        self.took[path].append(time.perf_counter() - due)
        if " 200" not in head.partition("\r\n")[0] and len(self.bad) < 3:
            self.bad.append(f"{path}: {head.partition(chr(13))[0]} {body[:200]!r}")
        self._idle.append((time.perf_counter(), reader, writer))


async def drive(port: int, settings: Settings, accounts: int, rate: float, seconds: float, paths: tuple[str, ...]) -> Asking:
    asking, chance = Asking(port), random.Random(1)
    number = int(rate * seconds)
    asked = [(paths[n % len(paths)], cabinet_token(settings, f"f{chance.randint(1, accounts)}")) for n in range(number)]
    began, tasks = time.perf_counter() + 0.1, []
    for n, (path, token) in enumerate(asked):
        due = began + n / rate
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        tasks.append(asyncio.create_task(asking.ask(path, token, due)))
    await asyncio.gather(*tasks)
    return asking


def share(took: list[float], part: float) -> float:
    """In milliseconds."""
    ordered = sorted(took)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000, 1)


def cabinet(accounts: int) -> dict[str, Any]:
    return asyncio.run(_measured(accounts, RATE, SECONDS))


async def _measured(accounts: int, rate: float, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="vestnik-cabinet-") as home:
        Path(home).chmod(0o755)
        postgres, redis = EmbeddedPostgres(Path(home)), EmbeddedRedis(Path(home))
        url, redis_url, port = postgres.start(), redis.start(), free_port()
        try:
            await prepare(url)
            began = time.monotonic()
            await fill(url, accounts)
            filled = time.monotonic() - began
            clean = {name: value for name, value in os.environ.items() if not name.startswith("VESTNIK_")}
            env = clean | {
                "VESTNIK_DATABASE_URL": url,
                "VESTNIK_REDIS_URL": redis_url,
                "VESTNIK_DATA_DIR": home,
                "VESTNIK_JWT_HS256_SECRET": SECRET,
                "VESTNIK_LOG_LEVEL": "warning",
            }
            serve = subprocess.Popen([VESTNIK, "serve", "--port", str(port)], cwd=ROOT, env=env)
            try:
                await until_open(port)
                settings = Settings(_env_file=None, jwt_hs256_secret=SECRET)
                await drive(port, settings, accounts, rate, 3, PATHS)  # warm: connections, plans, the first pages
                before = processes.cpu_by_kind([serve.pid])
                asking = await drive(port, settings, accounts, rate, seconds, PATHS)
                spent = processes.cpu_by_kind([serve.pid])
            finally:
                serve.terminate()
                serve.wait(30)
        finally:
            redis.stop()
            postgres.stop()
    every = [took for each in asking.took.values() for took in each]
    return {
        "accounts": accounts,
        "rate_per_s": rate,
        "answers": len(every),
        "bad": asking.bad,
        "p50_ms": share(every, 0.5),
        "p95_ms": share(every, 0.95),
        "p99_ms": share(every, 0.99),
        "longest_ms": share(every, 1),
        "by_path": {path: {"p50_ms": share(took, 0.5), "p95_ms": share(took, 0.95), "p99_ms": share(took, 0.99)} for path, took in asking.took.items()},
        "api_cpu_ms_per_answer": round(sum(spent[kind] - before.get(kind, 0) for kind in spent) / len(every) * 1000, 2),
        "connections": asking.connections,
        "filled_s": round(filled),
    }


async def until_open(port: int) -> None:
    for _ in range(300):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
    raise SystemExit("the service did not start")
