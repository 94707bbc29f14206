"""Balances, common commits, and an intake whose neighbours are in trouble."""

import asyncio
from decimal import Decimal

import pytest
import sqlalchemy as sa

from app.catalogue.registry import Catalogue
from app.core.db import Database
from app.core.wakeups import Wakeups
from app.events.intake import Intake, Taken
from app.main import create_app
from tests.builders.accounts import an_account
from tests.builders.events import a_payment
from tests.builders.messages import one, rows, run

TEN = "2026-01-23T10:00:00+03:00"
ELEVEN = "2026-01-23T11:00:00+03:00"
NOON = "2026-01-23T12:00:00+03:00"


@pytest.fixture
async def account(database):
    return await an_account(database)


@pytest.fixture
async def intake(database, settings):
    intake = Intake(database, Catalogue(), Wakeups(settings.redis_url))
    intake.start()
    yield intake
    await intake.stop()


async def balance(database):
    row = await one(database, "SELECT balance, balance_as_of FROM account")
    return row.balance, row.balance_as_of


async def test_newer_balance_is_applied_and_an_older_one_is_not(api, database, account):
    await api.post("/events", json=a_payment(balance="11.00", time=ELEVEN))
    await api.post("/events", json=a_payment(balance="10.00", time=TEN))

    assert (await balance(database))[0] == Decimal("11.00")
    assert (await one(database, "SELECT count(*) AS number FROM event")).number == 2


async def test_balance_of_the_same_moment_does_not_replace_the_one_that_is_there(api, database, account):
    await api.post("/events", json=a_payment(balance="11.00", time=ELEVEN))
    await api.post("/events", json=a_payment(balance="12.00", time=ELEVEN))

    assert (await balance(database))[0] == Decimal("11.00")


async def test_of_a_batch_the_newest_balance_of_each_account_stays(api, database, account):
    await api.post("/events", json=[a_payment(balance="1.00", time=NOON), a_payment(balance="2.00", time=TEN), a_payment(balance="3.00", time=ELEVEN)])

    assert (await balance(database))[0] == Decimal("1.00")


async def test_event_without_a_time_is_as_new_as_its_arrival(api, database, account):
    await api.post("/events", json=a_payment(balance="12.00", time=NOON))
    await api.post("/events", json=a_payment(balance="13.00"))

    assert (await balance(database))[0] == Decimal("13.00")


async def test_duplicate_with_another_balance_moves_nothing(api, database, account):
    await api.post("/events", json=a_payment(id="p", balance="12.00", time=TEN))
    await api.post("/events", json=a_payment(id="p", balance="99.00", time=NOON))

    assert (await balance(database))[0] == Decimal("12.00")


async def test_account_that_was_erased_is_unknown(api, database, account):
    await run(database, "UPDATE account SET status = 'erased'")

    assert (await api.post("/events", json=a_payment())).json()["code"] == "unknown_account"


async def test_single_events_that_come_together_are_committed_together(database, intake, account):
    before = await one(database, "SELECT count(DISTINCT xmin::text) AS number FROM event")

    answers = await asyncio.gather(*(intake.take_one(a_payment()) for _ in range(200)))

    assert all(isinstance(answer, Taken) and not answer.duplicate for answer in answers)
    after = await one(database, "SELECT count(DISTINCT CAST(xmin AS text)) AS number, count(*) AS events FROM event")
    assert after.events == 200
    assert after.number - before.number < 20


async def test_event_that_the_database_refuses_does_not_take_its_neighbours_along(database, intake, account):
    await run(database, "ALTER TABLE event ADD CONSTRAINT poison CHECK (data ->> 'method' IS DISTINCT FROM 'poison')")

    async def take(number):
        return await intake.take_one(a_payment(id=f"e{number}", method="poison" if number == 7 else "card"))

    answers = await asyncio.gather(*(take(number) for number in range(20)), return_exceptions=True)

    assert isinstance(answers[7], Exception)
    assert [isinstance(answer, Taken) for number, answer in enumerate(answers) if number != 7] == [True] * 19
    assert [row.external_id for row in await rows(database, "SELECT external_id FROM event_key WHERE external_id = 'e7'")] == []


async def test_event_whose_client_has_hung_up_is_kept_all_the_same(database, intake, account):
    caller = asyncio.create_task(intake.take_one(a_payment(id="gone")))
    other = asyncio.create_task(intake.take_one(a_payment(id="stays")))
    await asyncio.sleep(0)

    caller.cancel()

    assert isinstance(await other, Taken)
    assert isinstance(await intake.take_one(a_payment()), Taken)


async def test_stopping_answers_everybody_who_was_promised_an_answer(database, settings, account):
    intake = Intake(database, Catalogue(), Wakeups(settings.redis_url))
    intake.start()
    await intake.take_one(a_payment())
    async with database.transaction() as session:
        await session.execute(sa.text("LOCK TABLE event IN EXCLUSIVE MODE"))  # the commit takes its time
        callers = [asyncio.create_task(intake.take_one(a_payment())) for _ in range(50)]
        await asyncio.sleep(0.1)
        stopping = asyncio.create_task(intake.stop())
        await asyncio.sleep(0.1)

    await stopping

    assert all(isinstance(answer, Taken) for answer in await asyncio.wait_for(asyncio.gather(*callers), 5))


async def test_everybody_is_told_at_once_when_the_database_is_away(settings, database, account):
    nowhere = Database("postgresql+asyncpg://nobody@127.0.0.1:9/nothing")
    intake = Intake(nowhere, Catalogue(), Wakeups(settings.redis_url))
    async with database.transaction() as session:
        await intake._catalogue.refresh(session)
    intake._refreshed = float("inf")
    tries = 0

    async def refuse(*_):
        nonlocal tries
        tries += 1
        raise ConnectionRefusedError

    nowhere.again = refuse
    intake.start()

    answers = await asyncio.gather(*(intake.take_one(a_payment()) for _ in range(50)), return_exceptions=True)

    assert all(isinstance(answer, ConnectionRefusedError) for answer in answers)
    assert tries < 5
    await intake.stop()


async def test_redis_that_is_down_costs_no_event(settings, database, account):
    import httpx

    from app.core.auth import create_key

    app = create_app(settings.model_copy(update={"redis_url": "redis://127.0.0.1:9/0"}))
    async with database.transaction() as session:
        key, _ = await create_key(session, "billing", "billing")
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://vestnik/api/v1", headers={"Authorization": f"Bearer {key}"}) as billing:
            answers = [await billing.post("/events", json=a_payment()) for _ in range(5)]
            batch = await billing.post("/events", json=[a_payment(), a_payment()])

    assert [answer.status_code for answer in [*answers, batch]] == [202] * 6
    assert (await one(database, "SELECT count(*) AS number FROM event_waiting")).number == 7
