"""Receipts for two parts of one message that are stored at the same moment, by two binds or by a bind and the sweeper."""

import asyncio

from app.core.clock import now
from app.tracking import match
from app.tracking.match import Finding, record, take_home
from tests.builders.messages import POLICY, a_message, rows, state_of
from tests.builders.receipts import a_receipt, a_submission


async def together(database, first, second):
    """Both in transactions of their own; the second begins before the first has ended."""
    async with database.transaction() as session:
        await first(session)
        other = asyncio.create_task(_in_one(database, second))
        await asyncio.sleep(0.3)
    await asyncio.wait_for(other, 10)


async def _in_one(database, step):
    async with database.transaction() as session:
        await step(session)


async def test_parts_that_are_reported_over_two_binds_at_once_deliver_the_message(database):
    message = await a_message(database, ended="accepted", parts=2)
    await a_submission(database, message, "one", "two")

    await together(
        database,
        lambda session: record(session, POLICY, [a_receipt("one")], ()),
        lambda session: record(session, POLICY, [a_receipt("two")], ()),
    )

    assert await state_of(database, message) == ("delivered", None)


async def test_parked_parts_that_go_home_at_once_deliver_the_message(database):
    async with database.transaction() as session:
        await record(session, POLICY, [a_receipt("one"), a_receipt("two")], ())
    parked = {row.gateway_message_id: row.id for row in await rows(database, "SELECT id, gateway_message_id FROM receipt WHERE status = 'parked'")}
    message = await a_message(database, ended="accepted", parts=2)
    await a_submission(database, message, "one", "two")

    await together(
        database,
        lambda session: take_home(session, Finding.by(POLICY), [parked["one"]], now()),
        lambda session: take_home(session, Finding.by(POLICY), [parked["two"]], now()),
    )

    assert await state_of(database, message) == ("delivered", None)


async def test_a_part_that_is_reported_while_another_goes_home_delivers_the_message(database):
    async with database.transaction() as session:
        await record(session, POLICY, [a_receipt("one")], ())
    (parked,) = [row.id for row in await rows(database, "SELECT id FROM receipt WHERE status = 'parked'")]
    message = await a_message(database, ended="accepted", parts=2)
    await a_submission(database, message, "one", "two")

    await together(
        database,
        lambda session: record(session, POLICY, [a_receipt("two")], ()),
        lambda session: take_home(session, Finding.by(POLICY), [parked], now()),
    )

    assert await state_of(database, message) == ("delivered", None)


class Halting:
    """An executor that stops before one statement until it may go on: where a process may stand when the other one acts."""

    def __init__(self, executor, before):
        self._executor, self._before = executor, before
        self.stands, self.may_go = asyncio.Event(), asyncio.Event()

    async def execute(self, statement, *rest):
        if statement is self._before:
            self.stands.set()
            await self.may_go.wait()
        return await self._executor.execute(statement, *rest)


async def test_parked_parts_that_go_home_by_statements_of_their_own_beside_the_sweeper_deliver_the_message(database):
    async with database.transaction() as session:
        await record(session, POLICY, [a_receipt("one"), a_receipt("two")], ())
    parked = {row.gateway_message_id: row.id for row in await rows(database, "SELECT id, gateway_message_id FROM receipt WHERE status = 'parked'")}
    message = await a_message(database, ended="accepted", parts=2)
    await a_submission(database, message, "one", "two")

    async with database.atomic() as connection:
        halting = Halting(connection, match.UNPARK)
        slow = asyncio.create_task(take_home(halting, Finding.by(POLICY), [parked["two"]], now()))
        await asyncio.wait_for(halting.stands.wait(), 10)
        await _in_one(database, lambda session: take_home(session, Finding.by(POLICY), [parked["one"]], now()))
        halting.may_go.set()
        await asyncio.wait_for(slow, 10)

    assert await state_of(database, message) == ("delivered", None)
