"""The claiming loop: no more than the wire has room for, and nothing claimed is forgotten."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa

from app.sending.claim import push_on
from app.sending.deliver import Delivery
from app.sending.flush import Flusher
from app.sending.outcome import Accepted, Deferred
from app.tracking.match import record
from tests.builders.messages import POLICY, a_message, one, rows, run, state_of


class HandWire:
    """A wire that a test holds in its hand: `room` to be claimed, what was shipped, and what comes of it when the test says so."""

    def __init__(self, room):
        self.room = room
        self.used = 0
        self.shipped = []
        self.refuses = set()

    def allowance(self):
        return self.room - self.used

    def next_chance(self):
        return 0.05

    async def run(self): ...

    async def stop(self, grace): ...

    def ship(self, claimed):
        if claimed.text in self.refuses:
            raise ValueError("cannot be composed")
        self.used += claimed.parts
        self.shipped.append(claimed)
        return claimed.parts

    def release(self, parts):
        self.used -= parts


class Desk:
    def __init__(self, database, room):
        self.database, self.wire, self.owner, self.sure = database, HandWire(room), uuid4(), True
        self.flusher = Flusher(database, self.owner, POLICY, release=self.done, record=record)
        self.delivery = Delivery(
            database, self.wire, self.owner, POLICY, self.flusher, ship=self.wire.ship, lease=timedelta(minutes=1), may_claim=lambda: self.sure
        )

    def done(self, claimed, written):
        self.wire.release(self.delivery.done(claimed, written=written))

    async def shipped(self, number, seconds=5):
        async with asyncio.timeout(seconds):
            while len(self.wire.shipped) < number:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert len(self.wire.shipped) == number
        return self.wire.shipped

    def answer(self, claimed, outcome):
        self.delivery.came(claimed.id, outcome)


@pytest.fixture
async def open_desk(database):
    tasks = []

    async def open_desk(room=3):
        desk = Desk(database, room)
        tasks.extend(asyncio.create_task(part.run()) for part in (desk.delivery, desk.flusher))
        return desk

    yield open_desk
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_no_more_is_claimed_than_the_wire_has_room_for(database, open_desk):
    for _ in range(5):
        await a_message(database)
    desk = await open_desk(room=3)

    first = (await desk.shipped(3))[0]
    assert (await one(database, "SELECT count(*) AS n FROM outbox WHERE state = 'sending'")).n == 3
    desk.answer(first, Accepted(("1",)))

    await desk.shipped(4)
    assert await state_of(database, first.id) == ("accepted", None)


async def test_room_comes_back_only_when_the_outcome_is_committed(database, open_desk):
    for _ in range(2):
        await a_message(database)
    desk = await open_desk(room=1)
    (first,) = await desk.shipped(1)

    async with database.transaction() as session:
        await session.execute(sa.text("LOCK TABLE submission IN EXCLUSIVE MODE"))
        desk.answer(first, Accepted(("1",)))
        await asyncio.sleep(0.2)
        assert len(desk.wire.shipped) == 1

    await desk.shipped(2)


async def test_poke_is_heard_while_resting(database, open_desk):
    desk = await open_desk()
    await asyncio.sleep(0.1)
    await a_message(database)

    desk.delivery.poke()

    await desk.shipped(1, seconds=1.5)


async def test_who_is_not_sure_of_his_slot_claims_nothing(database, open_desk):
    desk = await open_desk()
    desk.sure = False
    await asyncio.sleep(0.2)
    await a_message(database)
    desk.delivery.poke()
    await asyncio.sleep(0.3)
    assert desk.wire.shipped == []

    desk.sure = True

    await desk.shipped(1)


async def test_message_that_the_wire_cannot_take_spends_an_attempt_and_its_neighbours_go(database, open_desk):
    messages = [await a_message(database, text=text) for text in ("a", "bad", "c")]
    desk = await open_desk()
    desk.wire.refuses = {"bad"}

    await desk.shipped(2)

    assert await desk.flusher.drained(5)
    assert [(await state_of(database, message))[0] for message in messages] == ["sending", "queued", "sending"]
    assert (await one(database, "SELECT attempts FROM outbox WHERE message_id = :id", id=messages[1])).attempts == 1


async def test_claim_whose_answer_was_lost_is_given_back_and_what_is_on_the_wire_is_not(database, open_desk):
    on_wire = await a_message(database)
    desk = await open_desk(room=3)
    await desk.shipped(1)
    lost = await a_message(database)
    # The answer to this claim never came.
    await run(
        database,
        "UPDATE outbox SET state = 'sending', claimed_by = :owner, lease_until = now() + interval '1 minute' WHERE message_id = :id",
        owner=desk.owner,
        id=lost,
    )
    desk.delivery._doubt = True

    desk.delivery.poke()

    assert [claimed.id for claimed in await desk.shipped(2)] == [on_wire, lost]


async def test_outcome_that_could_not_be_written_keeps_its_message_from_being_sent_again(database, open_desk):
    await run(database, "ALTER TABLE submission ADD CONSTRAINT poison CHECK (gateway_message_id <> '7')")
    message = await a_message(database)
    desk = await open_desk(room=3)
    (claimed,) = await desk.shipped(1)

    desk.answer(claimed, Accepted(("7",)))
    assert await desk.flusher.drained(10)
    desk.delivery._doubt = True
    desk.delivery.poke()
    await asyncio.sleep(0.3)

    assert await state_of(database, message) == ("sending", None)
    assert len(desk.wire.shipped) == 1
    assert desk.wire.used == 0
    assert desk.delivery.at_work == []


async def test_outcome_of_the_next_try_is_not_lost_with_the_answer_to_the_first_commit(database, open_desk):
    message = await a_message(database)
    desk = await open_desk(room=3)
    (first,) = await desk.shipped(1)
    real, tries = desk.flusher._database.again, []

    async def again(work):
        tries.append(await real(work))
        if len(tries) == 1:
            desk.delivery.poke()
            await desk.shipped(2)  # claimed and shipped once more, before the first try's flush is over
            raise ConnectionResetError
        return tries[-1]

    desk.flusher._database.again = again
    desk.answer(first, Deferred("throttled", timedelta(0), spends_attempt=False))
    second = (await desk.shipped(2))[1]
    async with asyncio.timeout(5):
        while len(tries) < 2:
            await asyncio.sleep(0.01)
    assert await desk.flusher.drained(5)

    desk.answer(second, Accepted(("17",)))
    assert await desk.flusher.drained(5)

    assert await state_of(database, message) == ("accepted", None)
    assert len(desk.wire.shipped) == 2
    assert len(await rows(database, "SELECT message_id FROM outbox")) == 0


async def test_stopped_loop_claims_nothing_more(database, open_desk):
    desk = await open_desk()
    await asyncio.sleep(0.05)

    desk.delivery.stop()
    await asyncio.sleep(0.1)
    await a_message(database)
    desk.delivery.poke()
    await asyncio.sleep(0.2)

    assert desk.wire.shipped == []


async def test_message_whose_lease_ended_while_it_is_out_is_not_put_on_the_wire_a_second_time(database, open_desk):
    message = await a_message(database)
    desk = await open_desk()
    (first,) = await desk.shipped(1)
    await run(database, "UPDATE outbox SET state = 'queued', claimed_by = NULL, resent = true, tries = tries + 1")  # as the sweeper does with `resend_once`
    desk.delivery.poke()

    await asyncio.sleep(0.5)

    assert len(desk.wire.shipped) == 1
    assert (await one(database, "SELECT state FROM outbox")).state == "queued"
    desk.answer(first, Accepted(("1",)))
    await asyncio.sleep(0.3)
    assert desk.wire.used == 0
    assert await state_of(database, message) == ("accepted", None)
    assert await rows(database, "SELECT * FROM outbox") == []


async def test_leases_of_what_the_wire_has_for_long_can_be_pushed_on(database, open_desk):
    await a_message(database)
    desk = await open_desk()
    (first,) = await desk.shipped(1)
    assert desk.delivery.long_at_work == []
    first.began -= 31  # of a minute's lease
    await run(database, "UPDATE outbox SET lease_until = now()")

    assert desk.delivery.long_at_work == [first.id]
    async with database.transaction() as session:
        await push_on(session, [desk.owner], desk.delivery.long_at_work, desk.delivery.lease)
        await push_on(session, [uuid4()], [first.id], timedelta(hours=1))  # somebody else's

    assert (await one(database, "SELECT lease_until - now() AS left FROM outbox")).left > timedelta(seconds=50)
    assert (await one(database, "SELECT lease_until - now() AS left FROM outbox")).left < timedelta(seconds=70)
