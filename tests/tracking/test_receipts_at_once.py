"""Receipts that several processes have in hand at the same moment."""

import asyncio
from datetime import timedelta

import pytest

from app.core.clock import now
from app.core.ids import first_id_at
from app.core.wakeups import Wakeups
from app.tracking.match import record
from app.tracking.sweeps import Sweeper
from tests.builders.messages import POLICY, a_message, one, rows, state_of
from tests.builders.receipts import a_receipt, a_submission, receive


@pytest.fixture
def sweeper(database, settings):
    return Sweeper(database, Wakeups(settings.redis_url, direct=lambda queue: True))


@pytest.mark.parametrize("other_commits_each_statement", [False, True])
async def test_two_binds_that_store_the_two_parts_of_a_message_at_once_deliver_it(database, other_commits_each_statement):
    message = await a_message(database, ended="accepted", parts=2)
    await a_submission(database, message, "17", "18")

    async def other_bind():
        opened = database.atomic if other_commits_each_statement else database.transaction
        async with opened() as executor:
            await record(executor, POLICY, [a_receipt("18")], [])

    async with database.transaction() as session:
        await record(session, POLICY, [a_receipt("17")], [])
        other = asyncio.create_task(other_bind())
        await asyncio.sleep(0.3)  # it has stored its part, and looked at the others, or waits for us
    await asyncio.wait_for(other, 10)

    assert await state_of(database, message) == ("delivered", None)


async def test_receipts_of_both_tries_of_a_message_that_were_parked_find_it_together(database, sweeper):
    message, stranger = await a_message(database, ended="accepted"), await a_message(database, ended="accepted")
    await receive(database, a_receipt("17"), a_receipt("18"), a_receipt("19"))
    await a_submission(database, message, "17", n=1)
    await a_submission(database, message, "18", n=2)
    await a_submission(database, stranger, "19")

    await sweeper.match_parked()

    assert (await state_of(database, message))[0] == (await state_of(database, stranger))[0] == "delivered"
    assert sorted(row.status for row in await rows(database, "SELECT status FROM receipt")) == ["matched", "matched"]


async def test_receipt_finds_a_message_that_was_held_for_longer_than_receipts_are_looked_back_for(database):
    old = now() - timedelta(days=30)
    message = await a_message(database, id=first_id_at(old), ended="accepted")
    await a_submission(database, message, "17")

    await receive(database, a_receipt("17"))

    assert await state_of(database, message) == ("delivered", None)


async def test_id_that_was_given_long_ago_is_nobodys(database):
    message = await a_message(database, ended="accepted")
    await a_submission(database, message, "17", at=now() - timedelta(days=8))

    await receive(database, a_receipt("17"))

    assert await state_of(database, message) == ("accepted", None)
    assert (await one(database, "SELECT status FROM receipt")).status == "parked"
