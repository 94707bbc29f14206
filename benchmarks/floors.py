"""What this machine's PostgreSQL does with the bare statements: the floor under every other figure."""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from app.core.db import sync_dsn
from app.core.ids import new_id
from app.embedded.postgres import EmbeddedPostgres

BATCH = 500

TABLES = """
CREATE TABLE line (id uuid PRIMARY KEY, state text NOT NULL, gateway text NOT NULL, claimed_by uuid);
CREATE INDEX ON line (gateway, id) WHERE state = 'queued';
CREATE TABLE tick (id int PRIMARY KEY, n int NOT NULL);
INSERT INTO tick VALUES (1, 0)
"""


def measure(messages: int) -> dict[str, Any]:
    """Commits a second on one connection, and rows a second through insert, claim and settle in batches of 500; fsync on."""
    with tempfile.TemporaryDirectory(prefix="vestnik-floors-") as home:
        Path(home).chmod(0o755)
        postgres = EmbeddedPostgres(Path(home))
        try:
            return asyncio.run(_measure(postgres.start(), messages))
        finally:
            postgres.stop()


async def _measure(url: str, messages: int) -> dict[str, Any]:
    connection = await asyncpg.connect(**sync_dsn(url))
    await connection.execute(TABLES)
    began = time.perf_counter()
    for _ in range(500):
        await connection.execute("UPDATE tick SET n = n + 1")
    commits = 500 / (time.perf_counter() - began)
    owner, began = uuid4(), time.perf_counter()
    for _ in range(0, messages, BATCH):
        await _cycle(connection, owner)
    cycle = messages / (time.perf_counter() - began)
    await connection.close()
    return {"rows": messages, "rate_per_s": round(cycle), "commits_per_s": round(commits)}


async def _cycle(connection: asyncpg.Connection, owner: UUID) -> None:
    await connection.execute("INSERT INTO line SELECT id, 'queued', 'main' FROM unnest($1::uuid[]) AS g(id)", [new_id() for _ in range(BATCH)])
    claimed = await connection.fetch(
        "UPDATE line SET state = 'sending', claimed_by = $1 WHERE id = ANY(ARRAY(SELECT id FROM line WHERE gateway = 'main' AND state = 'queued' ORDER BY id "
        "LIMIT 500 FOR UPDATE SKIP LOCKED)) RETURNING id",
        owner,
    )
    await connection.execute("DELETE FROM line WHERE id = ANY($1::uuid[]) AND claimed_by = $2", [row["id"] for row in claimed], owner)
