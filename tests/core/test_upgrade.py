"""The schema is brought to its newest while the version before goes on working: nothing that it does fails, and no row is lost."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest
from alembic import command
from sqlalchemy.exc import DBAPIError

from app.core import migrate as migration
from app.core.db import Database, sync_dsn
from app.core.ids import new_id
from app.core.migrate import alembic_config, head, migrate
from tests.conftest import at, run_sql

BEFORE = "0005"

# What the version of schema 0005 did with one message, as its statements named the columns: taken in, planned, claimed, settled, reported. Kept as it was.
LIFE = (
    "INSERT INTO event_key (source, external_id, event_id) SELECT '/old', CAST(CAST($2 AS uuid) AS text), CAST($2 AS uuid) WHERE CAST($1 AS uuid) IS NOT NULL",
    "INSERT INTO event (id, source, external_id, type, account_id, time, data) VALUES (CAST($2 AS uuid), '/old', CAST(CAST($2 AS uuid) AS text), 'service.connected', CAST($1 AS uuid), now(), '{}')",
    "INSERT INTO event_waiting (event_id, account_id) VALUES (CAST($2 AS uuid), CAST($1 AS uuid))",
    "DELETE FROM event_waiting WHERE event_id = CAST($2 AS uuid) AND account_id = CAST($1 AS uuid)",
    (
        "INSERT INTO notification (event_id, account_id, type, decisions, at) VALUES (CAST($2 AS uuid), CAST($1 AS uuid), 'service.connected', '[]', now())"
        " ON CONFLICT (event_id) DO UPDATE SET decisions = excluded.decisions, at = excluded.at"
    ),
    (
        "INSERT INTO message (id, event_id, account_id, type, channel, contact_id, address, locale, template_id, template_version, gateway, route, sender, price,"
        " state, urgent, not_before, expires_at, subject, text, html, encoding, parts, resend_of, leads, brand, attachments, updated_at)"
        " VALUES (CAST($2 AS uuid), CAST($2 AS uuid), CAST($1 AS uuid), 'service.connected', 'sms', NULL, '+79161234567', 'ru', NULL, NULL, 'main', NULL, NULL, NULL, 'queued', false, now(),"
        " now() + interval '1 hour', NULL, 'text', NULL, 'gsm7', 1, NULL, NULL, NULL, NULL, now())"
    ),
    (
        "INSERT INTO outbox (message_id, state, reason, channel, gateway, priority, parts, not_before, send_until, expires_at, tries, attempts, after_message)"
        " SELECT CAST($2 AS uuid), 'queued', NULL, 'sms', 'main', 1, 1, now(), NULL, now() + interval '1 hour', 0, 0, NULL WHERE CAST($1 AS uuid) IS NOT NULL"
    ),
    "UPDATE outbox SET state = 'sending', claimed_by = CAST($1 AS uuid), claimed_at = now(), lease_until = now() + interval '1 minute' WHERE message_id = CAST($2 AS uuid)",
    (
        "INSERT INTO submission (message_id, n, part, parts, gateway, receipt_group, gateway_message_id, destination, outcome, reason, code, detail, claimed_at, at)"
        " SELECT CAST($2 AS uuid), 1, 1, 1, 'main', 'main', CAST(CAST($2 AS uuid) AS text), 79161234567, 'accepted', NULL, NULL, NULL, now(), now() WHERE CAST($1 AS uuid) IS NOT NULL"
    ),
    (
        "WITH gone AS (DELETE FROM outbox WHERE message_id = CAST($2 AS uuid) AND claimed_by = CAST($1 AS uuid) RETURNING message_id)"
        " UPDATE message m SET state = 'accepted', updated_at = now() FROM gone WHERE m.id = gone.message_id"
    ),
    (
        "INSERT INTO message_change (id, message_id, at, state, reason, detail) SELECT gen_random_uuid(), CAST($2 AS uuid), now(), 'accepted', NULL, NULL"
        " WHERE CAST($1 AS uuid) IS NOT NULL"
    ),
    "UPDATE message SET state = 'delivered', updated_at = now() WHERE id = CAST($2 AS uuid) AND state = 'accepted' AND account_id = CAST($1 AS uuid)",
    "UPDATE account SET balance = balance + 1 WHERE id = CAST($1 AS uuid) AND CAST(CAST($2 AS uuid) AS uuid) IS NOT NULL",
    (
        "INSERT INTO audit_record (id, at, actor, action, object, changes, request_id) SELECT gen_random_uuid(), now(), 'old', 'x', CAST(CAST($2 AS uuid) AS text), '{}', NULL"
        " WHERE CAST($1 AS uuid) IS NOT NULL"
    ),
)


@pytest.fixture
async def old(servers):
    """A database of the version before; its URL."""
    name = f"old{uuid4().hex}"
    await run_sql(servers[0], f"CREATE DATABASE {name}")
    url = at(servers[0], name)
    database = Database(url)

    def upgrade(connection):
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, BEFORE)

    async with database.engine.begin() as connection:
        await connection.run_sync(upgrade)
    await database.close()
    yield url
    await run_sql(servers[0], f"DROP DATABASE {name} WITH (FORCE)")


async def an_account(url: str):
    account = new_id()
    connection = await asyncpg.connect(**sync_dsn(url))
    columns = await connection.fetch(
        "SELECT column_name AS name, data_type AS kind FROM information_schema.columns"
        " WHERE table_name = 'account' AND is_nullable = 'NO' AND column_default IS NULL AND column_name <> 'id'"
    )
    values = {"uuid": "gen_random_uuid()", "numeric": "0", "jsonb": "'{}'", "timestamp with time zone": "now()", "integer": "1", "boolean": "false"}
    own = {"timezone": "'Europe/Moscow'", "locale": "'ru'", "currency": "'RUB'", "status": "'active'", "number": "'1'"}
    given = [own.get(row["name"], values.get(row["kind"], "''")) for row in columns]
    await connection.execute(f"INSERT INTO account (id, {', '.join(row['name'] for row in columns)}) VALUES ($1, {', '.join(given)})", account)
    await connection.close()
    return account


class OldVersion:
    """Messages from their event to their receipt, one after the other, until it is stopped. Prepared statements and all."""

    def __init__(self, url, account):
        self._url, self._account = url, account
        self.lived, self.broke, self._stopping = [], False, False

    async def run(self):
        connection = await asyncpg.connect(**sync_dsn(self._url))
        try:
            while not self._stopping:
                one = new_id()
                for statement in LIFE:
                    await connection.execute(statement, self._account, one)
                self.lived.append(one)
        except Exception:
            self.broke = True
            raise
        finally:
            await connection.close()

    async def reach(self, number):
        async with asyncio.timeout(60):
            while len(self.lived) < number and not self.broke:
                await asyncio.sleep(0.01)

    def stop(self):
        self._stopping = True


async def test_version_before_works_on_while_and_after_the_schema_is_upgraded(old):
    account = await an_account(old)
    running = [OldVersion(old, account) for _ in range(3)]
    tasks = [asyncio.create_task(version.run()) for version in running]
    for version in running:
        await version.reach(20)

    await migrate(old)
    for version in running:
        await version.reach(len(version.lived) + 20)
        version.stop()
    await asyncio.gather(*tasks)

    connection = await asyncpg.connect(**sync_dsn(old))
    lived = {one for version in running for one in version.lived}
    delivered = {row["id"] for row in await connection.fetch("SELECT id FROM message WHERE state = 'delivered'")}
    counts = [await connection.fetchval(f"SELECT count(*) FROM {table}") for table in ("event", "notification", "submission", "message_change", "event_key")]
    left = await connection.fetchval("SELECT count(*) FROM outbox")
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == head() > BEFORE
    await connection.close()
    assert delivered == lived
    assert (counts, left) == ([len(lived)] * 5, 0)


async def test_migration_stands_in_nobodys_way_for_long(old, monkeypatch):
    monkeypatch.setattr(migration, "LOCK_TIMEOUT", "200ms")
    reader = await asyncpg.connect(**sync_dsn(old))
    await reader.execute("BEGIN")
    await reader.execute("LOCK TABLE api_key IN ACCESS SHARE MODE")  # for those that wait with patience: `test_partition_migration`

    with pytest.raises(DBAPIError, match="lock timeout"):
        await migrate(old)
    await reader.execute("COMMIT")
    await reader.close()
    await migrate(old)

    await run_sql(old, f"SELECT 1 / (SELECT count(*) FROM alembic_version WHERE version_num = '{head()}')")  # by nought where it is not there


async def test_two_machines_migrate_at_once_and_one_does_the_work(old):
    await asyncio.gather(migrate(old), migrate(old))

    await run_sql(old, f"SELECT 1 / (SELECT count(*) FROM alembic_version WHERE version_num = '{head()}')")  # by nought where it is not there
