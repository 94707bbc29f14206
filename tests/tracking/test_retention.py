"""Retention: contents after a month, records after a year, and never what is still needed."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa
import time_machine

from app.core.clock import now
from app.core.db import Database
from app.core.ids import first_id_at
from app.core.wakeups import Wakeups
from app.tracking import retention
from app.tracking.partitions import partitions_of, time_of
from app.tracking.retention import LOCK, Retention
from app.tracking.sweeps import Sweeper
from tests.builders.accounts import an_account
from tests.builders.messages import a_message, one, rows, run, state_of
from tests.builders.receipts import a_receipt, a_submission, receive

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
WORDS = {"subject": "О счёте", "html": "<p>Баланс</p>", "attachments": [{"kind": "file"}]}


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    monkeypatch.setattr(retention, "PAUSE", 0)


@pytest.fixture
def tend(database, settings):
    async def tend(*, in_days: float = 0) -> bool:
        return await Retention(database, settings, now=lambda: now() + timedelta(days=in_days)).tend()

    return tend


def made(days_ago: float, nth: int = 0) -> UUID:
    return first_id_at(now() - days_ago * DAY + timedelta(milliseconds=nth))


async def an_event(database: Database, identity: UUID, *, decisions: str = "[]", account: UUID | None = None) -> UUID:
    account = account or identity
    async with database.transaction() as session:
        for statement in (
            "INSERT INTO event_key (source, external_id, event_id) VALUES ('s', CAST(:id AS text), :id)",
            "INSERT INTO event (id, source, external_id, type, account_id, time, data) VALUES (:id, 's', CAST(:id AS text), 't', :account, now(), '{\"balance\": \"10\"}')",
            "INSERT INTO notification (event_id, account_id, type, decisions, at) VALUES (:id, :account, 't', CAST(:decisions AS jsonb), now())",
        ):
            types = [sa.bindparam("id", type_=sa.Uuid())] + ([sa.bindparam("account", type_=sa.Uuid())] if ":account" in statement else [])
            await session.execute(sa.text(statement).bindparams(*types), {"id": identity, "account": account, "decisions": decisions})
    return identity


async def words(database: Database, message: UUID):
    return tuple(
        await one(database, "SELECT text, subject, html, attachments, content_deleted_at IS NOT NULL AS deleted FROM message WHERE id = :id", id=message)
    )


async def data(database: Database, event: UUID):
    return (await one(database, "SELECT data FROM event WHERE id = :id", id=event)).data


async def test_words_of_a_month_ago_are_deleted_and_the_record_stays(database, tend):
    old = await a_message(database, id=made(31), ended="delivered", **WORDS)
    young = await a_message(database, id=made(29), ended="delivered", **WORDS)

    assert await tend()

    assert await words(database, old) == ("", None, None, None, True)
    assert (await words(database, young))[0] == "Баланс 10,00"
    assert await state_of(database, old) == ("delivered", None)
    assert (await one(database, "SELECT address FROM message WHERE id = :id", id=old)).address == "+79161234567"


async def test_subscriber_who_asks_is_told_that_the_words_were_deleted(database, api, tend):
    account = await an_account(database)
    message = await a_message(database, account, id=made(31), ended="delivered")
    event = await an_event(database, made(31), account=account.id)
    await tend()

    shown = (await api.get(f"/messages/{message}")).json()
    again = await api.post(f"/messages/{message}/resend")
    seen = (await api.get(f"/events/{event}")).json()

    assert shown["text"] == ""
    assert shown["content_deleted_at"] is not None
    assert (again.status_code, again.json()["code"]) == (409, "content_deleted")
    assert seen["data"] == {}
    assert seen["content_deleted_at"] is not None


async def test_message_that_still_waits_keeps_its_words_until_it_has_gone(database, tend):
    message = await a_message(database, id=made(40), state="held")
    event = await an_event(database, made(41), decisions=f'[{{"outcome": "planned", "message_id": "{message}"}}]')

    await tend()
    assert (await words(database, message))[0] == "Баланс 10,00"
    assert await data(database, event) == {"balance": "10"}  # its words are made from it anew when it is released

    await run(database, "DELETE FROM outbox")
    await tend()
    assert (await words(database, message))[0] == ""
    assert await data(database, event) == {}
    assert await rows(database, "SELECT id FROM content_left") == []


async def test_event_that_nobody_has_planned_keeps_its_data(database, tend):
    event = await an_event(database, made(50))
    await run(database, "INSERT INTO event_waiting (event_id, account_id) SELECT id, account_id FROM event")

    await tend()
    assert await data(database, event) == {"balance": "10"}

    await run(database, "DELETE FROM event_waiting")
    await tend()
    assert await data(database, event) == {}


async def test_message_that_is_locked_is_passed_over_and_comes_next_time(database, tend):
    busy, free = [await a_message(database, id=made(31, n), ended="accepted") for n in range(2)]
    async with database.transaction() as settling:
        await settling.execute(sa.text("SELECT FROM message WHERE id = :id FOR UPDATE").bindparams(sa.bindparam("id", type_=sa.Uuid())), {"id": busy})
        await tend()
        assert (await words(database, free))[4]
        assert not (await words(database, busy))[4]

    await tend()

    assert (await words(database, busy))[4]


async def test_job_that_was_killed_half_way_goes_on_from_its_mark(database, tend, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 10)
    messages = [await a_message(database, id=made(31, n), ended="delivered") for n in range(35)]
    killed = asyncio.create_task(tend())
    while not (await words(database, messages[9]))[4]:
        await asyncio.sleep(0)
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)

    assert await tend()

    assert (await one(database, "SELECT count(*) AS n FROM message WHERE content_deleted_at IS NULL")).n == 0
    mark = await one(database, "SELECT upto FROM retention_mark WHERE name = 'content:message'")
    assert mark.upto == messages[-1]


async def test_two_processes_share_one_lock(database, tend):
    async with database.atomic() as other:
        await other.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": LOCK})
        assert not await tend()
        await other.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK})

    assert await tend()


async def test_receipts_and_what_came_in_keep_nothing_of_their_texts(database, tend):
    message = await a_message(database, ended="accepted")
    await a_submission(database, message, "17")
    await receive(database, a_receipt("17"))
    await run(
        database,
        "INSERT INTO inbound_message (id, at, gateway, source, destination, text, encoding, parts, is_complete, raw)"
        " VALUES (gen_random_uuid(), now(), 'g', '79', '100', 'стоп', 'ucs2', 1, true, 'x')",
    )
    await run(database, "UPDATE inbound_message SET id = (SELECT id FROM receipt)")
    await run(database, "INSERT INTO bounce (id, at, source, kind, diagnostic, digest) SELECT id, now(), 'dsn', 'hard', 'no such user anna', 'x' FROM receipt")

    await tend(in_days=31)

    assert (await one(database, "SELECT raw, status FROM receipt"))[:] == (b"", "matched")
    assert (await one(database, "SELECT source, text, raw FROM inbound_message"))[:] == ("79", "", b"")
    assert (await one(database, "SELECT kind, diagnostic FROM bounce"))[:] == ("hard", None)


async def test_records_of_more_than_a_year_are_gone_everywhere(database, tend):
    message = await a_message(database, ended="accepted")
    await a_submission(database, message, "17")
    await receive(database, a_receipt("17"))
    event = await an_event(database, made(0))
    await run(database, "INSERT INTO message_change (id, message_id, at, state) SELECT id, id, now(), 'held' FROM message")
    await run(database, "INSERT INTO notification_event (event_id, message_id) SELECT e.id, m.id FROM event e, message m")
    await run(database, "INSERT INTO told (event_id, account_id, kind, type, day, at) SELECT id, account_id, 'k', 't', now(), now() FROM event")

    await tend(in_days=399)
    assert (await one(database, "SELECT count(*) AS n FROM receipt")).n == 1
    await tend(in_days=440)

    for table in ("message", "submission", "receipt", "event", "notification", "event_key", "message_change", "notification_event", "told"):
        assert await rows(database, f"SELECT 1 FROM {table}") == [], (table, event)


async def test_receipt_of_this_month_finds_the_message_of_last_month(database):
    message = await a_message(database, id=made(33), ended="accepted")
    await a_submission(database, message, "17")

    await receive(database, a_receipt("17"))

    assert await state_of(database, message) == ("delivered", None)


async def test_receipt_of_a_message_that_was_held_for_half_a_year_finds_it_at_the_next_sweep(database, settings):
    message = await a_message(database, id=made(180), ended="accepted")
    await a_submission(database, message, "17")
    await receive(database, a_receipt("17"))
    assert await state_of(database, message) == ("accepted", None)

    await Sweeper(database, Wakeups(settings.redis_url, direct=lambda queue: True)).match_parked()

    assert await state_of(database, message) == ("delivered", None)
    assert (await one(database, "SELECT status FROM receipt")).status == "matched"


async def test_month_turns_in_the_middle_of_a_conversation(database, api):
    account = await an_account(database)
    async with database.atomic() as connection:
        border = time_of((await partitions_of(connection, "message"))[0].end)
    old, new = [await a_message(database, account, id=first_id_at(border + hours * HOUR), ended="accepted") for hours in (-1, 1)]
    with time_machine.travel(border + 2 * HOUR):
        await a_submission(database, old, "21")
        await a_submission(database, new, "22")

        await receive(database, a_receipt("21"), a_receipt("22"))

    listed = (await api.get("/messages", params={"account": "100500"})).json()["items"]
    assert [line["id"] for line in listed] == [str(new), str(old)]
    assert {line["state"] for line in listed} == {"delivered"}
    assert (await one(database, "SELECT count(*) AS n FROM message_first")).n == 1


async def test_erased_account_says_when_its_words_went_and_waits_for_no_retention(database, api):
    account = await an_account(database)
    message = await a_message(database, account, ended="delivered", **WORDS)
    event = await an_event(database, made(0), account=account.id)

    assert (await api.delete("/accounts/100500")).status_code == 204

    assert await words(database, message) == ("", None, None, None, True)
    assert (await api.get(f"/events/{event}")).json()["content_deleted_at"] is not None
