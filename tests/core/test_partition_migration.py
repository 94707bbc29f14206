"""Migration 0006 on a living database: the old version writes before it, while it runs and after it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
from alembic import command

from app.core.db import Database, sync_dsn
from app.core.ids import first_id_at, new_id
from app.core.migrate import alembic_config, migrate
from tests.conftest import at, run_sql

# What the version before wrote, word for word where it matters: it knows no column of the new one.
OLD_EVENT = "INSERT INTO event (id, source, external_id, type, account_id, time, data) SELECT i, 's', i::text, 't', $2, now(), '{}' FROM unnest($1::uuid[]) i"
OLD_MESSAGE = """
INSERT INTO message (id, account_id, type, channel, address, locale, state, urgent, not_before, expires_at, text, parts, leads, updated_at)
SELECT i, $2, 't', 'sms', '+79991112233', 'ru', 'queued', false, now(), now(), 'text', 1, true, now() FROM unnest($1::uuid[]) i
"""
OLD_NOTIFICATION = "INSERT INTO notification (event_id, account_id, type, decisions, at) SELECT i, $2, 't', '[]', now() FROM unnest($1::uuid[]) i"
OLD_SUBMISSION = """
INSERT INTO submission (message_id, n, part, parts, gateway, receipt_group, gateway_message_id, outcome, claimed_at, at)
SELECT i, 1, 1, 1, 'g', 'g', i::text, 'accepted', now(), now() FROM unnest($1::uuid[]) i ON CONFLICT DO NOTHING
"""
OLD = (OLD_EVENT, OLD_NOTIFICATION, OLD_MESSAGE)
TABLES = {"event": "id", "notification": "event_id", "message": "id", "submission": "message_id"}
BEFORE = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass($1) ORDER BY 1
"""


@pytest_asyncio.fixture
async def old(servers: tuple[str, str]) -> AsyncIterator[str]:
    """The URL of a database of the version before."""
    name = f"o{uuid4().hex}"
    await run_sql(servers[0], f"CREATE DATABASE {name}")
    url = at(servers[0], name)
    await to_revision(url, command.upgrade, "0005")
    yield url
    await run_sql(servers[0], f"DROP DATABASE {name} WITH (FORCE)")


async def to_revision(url: str, move, revision: str) -> None:
    database = Database(url)
    config = alembic_config()

    def run(connection) -> None:
        config.attributes["connection"] = connection
        move(config, revision)

    async with database.engine.connect() as connection:
        await connection.run_sync(run)
    await database.close()


async def write(connection: asyncpg.Connection, ids: list[UUID]) -> None:
    account = new_id()
    async with connection.transaction():
        for statement in OLD:
            await connection.execute(statement, ids, account)
    await connection.execute(OLD_SUBMISSION, ids)
    await connection.execute("UPDATE message SET state = 'delivered' WHERE id = ANY($1::uuid[])", ids)


async def counts(connection: asyncpg.Connection) -> dict[str, int]:
    return {table: await connection.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES}


async def test_old_version_writes_on_while_its_tables_are_partitioned(old: str):
    connection, watcher = await asyncpg.connect(**sync_dsn(old)), await asyncpg.connect(**sync_dsn(old))
    written: list[UUID] = []
    over = asyncio.Event()

    async def go_on() -> None:
        while not over.is_set():
            ids = [new_id() for _ in range(20)]
            await write(connection, ids)
            written.extend(ids)

    traffic = asyncio.create_task(go_on())
    while len(written) < 200:
        await asyncio.sleep(0.01)
    await to_revision(old, command.upgrade, "0006")
    seen = len(written)
    while len(written) < seen + 200:
        await asyncio.sleep(0.01)
    over.set()
    await traffic

    assert await counts(watcher) == dict.fromkeys(TABLES, len(written))
    assert await watcher.fetchval("SELECT count(*) FROM follow_up") == len(written)  # the trigger was never away
    for table in TABLES:
        names = [row["relname"] for row in await watcher.fetch(BEFORE, table)]
        assert f"{table}_first" in names
        assert f"{table}_tail" in names
        assert len(names) == 5
    await connection.close()
    await watcher.close()


async def test_statements_of_the_old_version_reach_every_month(old: str):
    await to_revision(old, command.upgrade, "0006")
    connection = await asyncpg.connect(**sync_dsn(old))
    ids = [first_id_at(datetime.now(UTC) + timedelta(days=days)) for days in range(-400, 400, 10)]

    await write(connection, ids)
    await connection.execute(OLD_SUBMISSION, ids)  # a second time: the primary key holds over all partitions

    assert await counts(connection) == dict.fromkeys(TABLES, len(ids))
    assert await connection.fetchval("SELECT count(*) FROM message_tail") > 0
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute(OLD_MESSAGE, ids[-1:], new_id())
    await connection.close()


async def test_upgrade_that_stopped_half_way_goes_on(old: str):
    connection = await asyncpg.connect(**sync_dsn(old))
    ids = [new_id() for _ in range(10)]
    await write(connection, ids)
    await connection.execute("CREATE TABLE message_tail (id int)")  # in its way, after two tables have been turned
    with pytest.raises(Exception, match="message_tail"):
        await to_revision(old, command.upgrade, "0006")
    await write(connection, more := [new_id() for _ in range(10)])

    await connection.execute("DROP TABLE message_tail")
    await to_revision(old, command.upgrade, "0006")

    assert await counts(connection) == dict.fromkeys(TABLES, len(ids + more))
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == "0006"
    await connection.close()


async def test_upgrade_waits_for_a_long_report_and_lets_others_pass(old: str):
    report, clerk = await asyncpg.connect(**sync_dsn(old)), await asyncpg.connect(**sync_dsn(old))
    reading = report.transaction()
    await reading.start()
    await report.fetch("SELECT count(*) FROM event")

    upgrade = asyncio.create_task(to_revision(old, command.upgrade, "0006"))
    for _ in range(20):
        await write(clerk, [new_id()])
        await asyncio.sleep(0.05)
    was_waiting = not upgrade.done()
    await reading.commit()
    await upgrade

    assert was_waiting
    assert await counts(clerk) == dict.fromkeys(TABLES, 20)
    await report.close()
    await clerk.close()


async def test_messages_of_a_clock_that_was_fast_are_in_the_first_partition(old: str):
    connection = await asyncpg.connect(**sync_dsn(old))
    await write(connection, [first_id_at(datetime.now(UTC) + timedelta(days=70)), new_id()])

    await to_revision(old, command.upgrade, "0006")

    assert await connection.fetchval("SELECT count(*) FROM message_first") == 2
    await connection.close()


async def test_id_that_no_clock_has_made_is_named(old: str):
    connection = await asyncpg.connect(**sync_dsn(old))
    await write(connection, [UUID("ffffffff-0000-7000-8000-000000000000")])

    with pytest.raises(RuntimeError, match="ffffffff-0000-7000-8000-000000000000"):
        await to_revision(old, command.upgrade, "0006")
    await connection.close()


async def test_partitions_are_one_table_again_after_a_downgrade(old: str):
    await to_revision(old, command.upgrade, "0006")
    connection = await asyncpg.connect(**sync_dsn(old))
    ids = [first_id_at(datetime.now(UTC) + timedelta(days=days)) for days in range(-100, 200, 10)]
    await write(connection, ids)

    await to_revision(old, command.downgrade, "0005")

    assert await counts(connection) == dict.fromkeys(TABLES, len(ids))
    assert await connection.fetchval("SELECT count(*) FROM pg_class WHERE relkind = 'p'") == 0
    await write(connection, [new_id()])
    await to_revision(old, command.upgrade, "0006")
    assert (await counts(connection))["message"] == len(ids) + 1
    await connection.close()


async def test_two_processes_that_migrate_at_once_do_it_once(old: str):
    await asyncio.gather(migrate(old), migrate(old), migrate(old))

    connection = await asyncpg.connect(**sync_dsn(old))
    assert len(await connection.fetch(BEFORE, "message")) == 5
    await connection.close()
