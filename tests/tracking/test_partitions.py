"""Partitions: made ahead, dropped when old, whatever the job did or did not do before."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from app.core import metrics
from app.core.clock import now
from app.core.db import BulkInsert, Database
from app.core.ids import first_id_at, new_id
from app.events.intake import key_source
from app.tracking.partitions import PARTITIONED, Partitions, months_ahead, next_month, partitions_of

MESSAGE = """
INSERT INTO message (id, account_id, type, channel, address, locale, state, urgent, not_before, expires_at, text, parts, updated_at)
VALUES (:id, :id, 't', 'sms', '+79991112233', 'ru', 'accepted', false, now(), now(), 'text', 1, now())
"""
SUBMISSION = """
INSERT INTO submission (message_id, n, part, parts, gateway, receipt_group, gateway_message_id, outcome, claimed_at, at)
VALUES (:id, 1, 1, 1, 'g', 'g', 'x', 'accepted', now(), now())
"""
EVENT = "INSERT INTO event (id, source, external_id, type, account_id, time, data) VALUES (:id, 's', CAST(:id AS text), 't', :id, now(), '{}')"
KEY = "INSERT INTO event_key (source, external_id, event_id) VALUES ('s', CAST(:id AS text), :id)"
NOTIFICATION = "INSERT INTO notification (event_id, account_id, type, decisions, at) VALUES (:id, :id, 't', '[]', now())"
ALL = (EVENT, KEY, NOTIFICATION, MESSAGE, SUBMISSION)
DAY = timedelta(days=1)


async def write(database: Database, *moments: datetime) -> list:
    ids = [first_id_at(moment) for moment in moments]
    async with database.transaction() as session:
        for identity in ids:
            for statement in ALL:
                await session.execute(sa.text(statement).bindparams(sa.bindparam("id", type_=sa.Uuid())), {"id": identity})
    return ids


async def names(database: Database, table: str = "message") -> list[str]:
    async with database.atomic() as connection:
        return [one.name for one in await partitions_of(connection, table)]


async def number(database: Database, table: str) -> int:
    async with database.atomic() as connection:
        return await connection.scalar(sa.text(f"SELECT count(*) FROM {table}"))


async def extend(database: Database, moment: datetime) -> None:
    async with database.atomic() as connection:
        await Partitions(connection).extend(moment)


async def drop(database: Database, before: datetime) -> int:
    async with database.atomic() as connection:
        return await Partitions(connection).drop(before)


def in_months(number: int) -> datetime:
    moment = now()
    for _ in range(number):
        moment = next_month(moment)
    return moment


async def test_job_makes_the_month_that_comes_into_sight(database):
    await extend(database, now())
    before = await names(database)

    await extend(database, in_months(1))
    await extend(database, in_months(1))  # nothing to do

    after = await names(database)
    assert after[:-1] == [*before[:-1], f"message_{in_months(4):%Y_%m}"]
    assert after[-1] == "message_tail"
    for table in PARTITIONED:
        assert metrics.PARTITIONS_AHEAD.labels(table)._value.get() == 3


async def test_new_month_is_like_the_others(database):
    await extend(database, in_months(2))

    async with database.atomic() as connection:
        shapes = (
            await connection.execute(
                sa.text("""
        SELECT c.relname, c.reloptions::text, (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid), (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = c.oid),
               (SELECT count(*) FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c')
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'message'::regclass
        """)
            )
        ).all()
    assert len(shapes) > 5
    assert {shape[1:] for shape in shapes} == {("{fillfactor=70,autovacuum_vacuum_scale_factor=0.05}", 4, 2, 2)}


async def test_rows_of_months_without_the_job_are_kept_where_they_came(database):
    moments = [now() + timedelta(days=30 * n) for n in range(12)]
    ids = await write(database, *moments)  # no insert fails
    assert await number(database, "message_tail") > 5

    await extend(database, moments[-1])
    more = await write(database, moments[-1] + DAY, moments[-1] + 45 * DAY)

    assert await number(database, "message") == len(ids + more)
    assert await number(database, "message_tail") == 0
    assert (await names(database))[-1] == "message_tail"
    async with database.atomic() as connection:
        assert months_ahead(await partitions_of(connection, "message"), moments[-1]) >= 3


async def test_job_that_has_not_run_for_a_year_makes_up_for_it_without_rows_too(database):
    later = now() + 400 * DAY

    await extend(database, later)

    await write(database, later)
    assert await number(database, "message_tail") == 0


async def test_tail_becomes_a_month_while_messages_are_written(database):
    moment, over, written = now() + 300 * DAY, asyncio.Event(), []

    async def pipeline() -> None:
        while not over.is_set():
            written.extend(await write(database, moment + timedelta(milliseconds=len(written))))

    traffic = asyncio.create_task(pipeline())
    while len(written) < 20:
        await asyncio.sleep(0.01)
    await extend(database, moment)
    seen = len(written)
    while len(written) < seen + 20:
        await asyncio.sleep(0.01)
    over.set()
    await traffic

    for table in PARTITIONED:
        assert await number(database, table) == len(written)
    assert await number(database, "message_tail") == 0


async def test_months_older_than_records_are_kept_are_dropped_with_their_keys(database):
    await write(database, now() - 40 * DAY, now() - 10 * DAY)
    await extend(database, in_months(15))
    young = await write(database, in_months(15))

    dropped = await drop(database, in_months(15) - 400 * DAY)

    assert dropped >= 4
    for table in (*PARTITIONED, "event_key"):
        assert await number(database, table) == len(young), table
    assert "message_first" not in await names(database)
    assert await drop(database, in_months(15) - 400 * DAY) == 0


async def test_key_of_a_test_event_goes_with_it(database):
    await write(database, now() - 40 * DAY)
    async with database.transaction() as session:
        await session.execute(sa.text("UPDATE event SET test = true"))
        source = (await session.execute(sa.text("SELECT source FROM event"))).scalar_one()
        await session.execute(sa.text("UPDATE event_key SET source = :source"), {"source": key_source(source)})
    await extend(database, in_months(15))

    await drop(database, in_months(15) - 400 * DAY)

    assert await number(database, "event_key") == 0


async def test_month_with_a_message_that_still_waits_is_not_dropped(database):
    ids = await write(database, now())
    async with database.transaction() as session:
        await session.execute(
            sa.text(
                "INSERT INTO outbox (message_id, state, channel, priority, parts, not_before, expires_at, tries, attempts) VALUES (:id, 'held', 'sms', 5, 1, now(), now(), 0, 0)"
            ),
            {"id": ids[0]},
        )

    await drop(database, in_months(14))

    assert await number(database, "message") == 1
    assert await number(database, "submission") == 1


async def test_dropping_goes_on_where_it_was_killed(database):
    await write(database, now())
    await extend(database, in_months(2))
    async with database.atomic() as connection:  # killed after the detaching ...
        await connection.execute(sa.text("ALTER TABLE event DETACH PARTITION event_first CONCURRENTLY"))
    async with database.transaction() as report:  # ... and, of another table, in the middle of it
        await report.execute(sa.text("SELECT count(*) FROM message"))
        async with database.atomic() as connection:
            await connection.execute(sa.text("SET statement_timeout = '300ms'"))
            with pytest.raises(sa.exc.DBAPIError):
                await connection.execute(sa.text("ALTER TABLE message DETACH PARTITION message_first CONCURRENTLY"))
            await connection.execute(sa.text("RESET statement_timeout"))
    async with database.atomic() as connection:
        assert next(one.pending for one in await partitions_of(connection, "message"))

    await drop(database, in_months(1) + DAY)

    for table in (*PARTITIONED, "event_key"):
        assert await number(database, table) == 0
        assert f"{table}_first" not in await names(database, table)


async def test_making_goes_on_where_it_was_killed(database):
    async with database.atomic() as connection:
        await connection.execute(sa.text("ALTER TABLE message DETACH PARTITION message_tail CONCURRENTLY"))

    await extend(database, now())

    assert (await names(database))[-1] == "message_tail"
    await write(database, now() + 800 * DAY)


async def test_row_that_came_to_the_tail_at_the_last_moment_is_not_lost(database):
    await write(database, now() + 200 * DAY)
    async with database.atomic() as connection:
        await connection.execute(sa.text("ALTER TABLE message DETACH PARTITION message_tail CONCURRENTLY"))

    await extend(database, now())

    assert await number(database, "message") == 1
    assert await number(database, "message_tail") == 0


async def test_old_month_goes_while_messages_are_written_and_read(database):
    await write(database, now())
    await extend(database, in_months(2))
    moment, over, written = in_months(2), asyncio.Event(), []

    async def pipeline() -> None:
        while not over.is_set():
            written.extend(await write(database, moment + timedelta(milliseconds=len(written))))
            await number(database, "message")

    traffic = asyncio.create_task(pipeline())
    while len(written) < 10:
        await asyncio.sleep(0.01)
    assert await drop(database, in_months(1) + DAY) == 4
    seen = len(written)
    while len(written) < seen + 10:
        await asyncio.sleep(0.01)
    over.set()
    await traffic

    for table in (*PARTITIONED, "event_key"):
        assert await number(database, table) == len(written)


async def test_list_of_an_account_reads_the_newest_month_first_and_alone(database):
    await extend(database, in_months(6))
    account = new_id()
    rows = [(first_id_at(in_months(n) + timedelta(seconds=i)), account) for n in range(7) for i in range(60)]
    await insert_messages(database, rows)

    async with database.atomic() as connection:
        await connection.execute(sa.text("ANALYZE message"))
        plan = (
            (
                await connection.execute(
                    sa.text("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT id FROM message WHERE account_id = :a ORDER BY id DESC LIMIT 50"), {"a": account}
                )
            )
            .scalars()
            .all()
        )
    assert "Append" in "".join(plan)
    assert "Merge Append" not in "".join(plan)
    assert sum("never executed" in line for line in plan) >= 6


async def insert_messages(database: Database, rows: list) -> None:
    insert = BulkInsert(
        "message",
        id="uuid",
        account_id="uuid",
        type="text",
        channel="text",
        address="text",
        locale="text",
        state="text",
        urgent="bool",
        not_before="timestamptz",
        expires_at="timestamptz",
        text="text",
        parts="smallint",
        updated_at="timestamptz",
    )
    async with database.transaction() as session:
        await insert.run(session, [(i, a, "t", "sms", "+79991112233", "ru", "delivered", False, now(), now(), "text", 1, now()) for i, a in rows])


def test_month_after_december_is_january():
    assert next_month(datetime(2026, 12, 31, 23, 59, tzinfo=UTC)) == datetime(2027, 1, 1, tzinfo=UTC)
