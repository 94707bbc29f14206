"""The flusher: everything that the far side said is written, and only then is the far side told so."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from app.core.db import Database
from app.sending import flush
from app.sending.flush import Flusher
from app.sending.late import Late
from app.sending.outcome import Accepted, Deferred, Refused, Unknown
from app.tracking.match import record
from tests.builders.messages import POLICY, a_message, claim, one, rows, run, state_of
from tests.builders.receipts import AGAIN_LATER, OK, a_receipt, a_submission, answer_to


class Desk:
    """A flusher, and who was given their room back."""

    def __init__(self, database):
        self.owner = uuid4()
        self.released = []
        self.unwritten = []
        self.flusher = Flusher(database, self.owner, POLICY, release=self._release, record=record)

    def _release(self, claimed, written):
        (self.released if written else self.unwritten).append(claimed.id)

    async def written(self):
        assert await self.flusher.drained(10)


@pytest.fixture
async def desk(database):
    desk = Desk(database)
    task = asyncio.create_task(desk.flusher.run())
    yield desk
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def claimed(database, desk):
    async def claimed(number, **fields):
        for _ in range(number):
            await a_message(database, **fields)
        return await claim(database, owner=desk.owner, room=number)

    return claimed


class Away(Exception):
    sqlstate = "57P03"


def fail(desk, times, error):
    """The database fails so many times, and then works. Returns how often it was asked."""
    database, asked = desk.flusher._database, []

    def failing(real):
        async def again(work):
            asked.append(work)
            if len(asked) <= times:
                raise error
            return await real(work)

        return again

    database.again, database.again_atomic = failing(database.again), failing(database.again_atomic)
    return asked


async def test_outcomes_are_written_and_their_room_is_given_back(database, desk, claimed):
    batch = await claimed(20)

    for number, message in enumerate(batch):
        desk.flusher.outcome(message, Accepted((str(number),)))
    await desk.written()

    assert desk.released == [message.id for message in batch]
    assert {row.state for row in await rows(database, "SELECT state FROM message")} == {"accepted"}


async def test_receipt_in_the_same_flush_as_its_answer_finds_its_message(database, desk, claimed):
    (message,) = await claimed(1)
    receipt = a_receipt("17")

    desk.flusher.receipt(receipt)
    desk.flusher.outcome(message, Accepted(("17",)))
    await desk.written()

    assert (await state_of(database, message.id))[0] == "delivered"
    assert answer_to(receipt) == OK


async def test_receipt_is_acknowledged_only_when_it_is_committed(database, desk):
    receipt = a_receipt("17")
    async with database.transaction() as session:
        await session.execute(sa.text("LOCK TABLE receipt IN EXCLUSIVE MODE"))
        desk.flusher.receipt(receipt)
        await asyncio.sleep(0.2)
        assert answer_to(receipt) is None

    await desk.written()

    assert answer_to(receipt) == OK


async def test_outcome_that_cannot_be_written_does_not_take_its_neighbours_along(database, desk, claimed):
    batch = await claimed(15)
    await run(database, "ALTER TABLE submission ADD CONSTRAINT poison CHECK (gateway_message_id <> '7')")

    for number, message in enumerate(batch):
        desk.flusher.outcome(message, Accepted((str(number),)))
    await desk.written()

    states = [(await state_of(database, message.id))[0] for message in batch]
    assert states == ["accepted"] * 7 + ["sending"] + ["accepted"] * 7
    assert desk.unwritten == [batch[7].id]
    assert len(desk.released) == 14


async def test_receipt_that_cannot_be_stored_is_refused_and_the_others_are_acknowledged(database, desk):
    await run(database, "ALTER TABLE receipt ADD CONSTRAINT poison CHECK (gateway_message_id <> '7')")
    receipts = [a_receipt(str(number)) for number in range(15)]

    for receipt in receipts:
        desk.flusher.receipt(receipt)
    await desk.written()

    assert [answer_to(receipt) for receipt in receipts] == [OK] * 7 + [AGAIN_LATER] + [OK] * 7


@pytest.mark.parametrize("poison", ["submission", "receipt"])
async def test_one_outcome_and_one_receipt_are_told_apart_when_one_of_them_is_poison(database, desk, claimed, poison):
    (message,) = await claimed(1)
    await run(database, f"ALTER TABLE {poison} ADD CONSTRAINT poison CHECK (gateway_message_id <> '7')")
    receipt = a_receipt("7")

    desk.flusher.outcome(message, Accepted(("7",)))
    desk.flusher.receipt(receipt)
    await desk.written()

    assert (await state_of(database, message.id))[0] == ("sending" if poison == "submission" else "accepted")
    assert answer_to(receipt) == (OK if poison == "submission" else AGAIN_LATER)


@pytest.mark.parametrize("error", [ConnectionRefusedError(), TimeoutError(), OperationalError("", {}, Away())])
async def test_while_the_database_is_away_everything_is_kept_and_nothing_acknowledged(database, desk, claimed, error):
    (message,) = await claimed(1)
    receipt = a_receipt("17")
    asked = fail(desk, 3, error)

    desk.flusher.outcome(message, Accepted(("17",)))
    desk.flusher.receipt(receipt)
    await asyncio.sleep(0.05)
    assert answer_to(receipt) is None
    assert desk.released == []
    await desk.written()

    assert len(asked) == 4
    assert (await state_of(database, message.id))[0] == "delivered"
    assert answer_to(receipt) == OK


async def test_flush_whose_answer_was_lost_is_repeated_without_harm(database, desk, claimed):
    batch = await claimed(3)
    real, lost = desk.flusher._database.again, []

    async def again(work):
        result = await real(work)
        if not lost:
            lost.append(result)
            raise ConnectionResetError
        return result

    desk.flusher._database.again = again
    for message, outcome in zip(batch, (Accepted(("1",)), Refused("refused"), Deferred("busy", timedelta(hours=1))), strict=True):
        desk.flusher.outcome(message, outcome)
    await desk.written()

    assert [(await state_of(database, message.id))[0] for message in batch] == ["accepted", "failed", "queued"]
    assert (await one(database, "SELECT tries, attempts FROM outbox")) == (1, 1)
    assert (await one(database, "SELECT count(*) AS n FROM submission")).n == 3


async def test_c30_receipt_that_can_never_be_stored_is_set_aside_the_third_time_and_comes_no_more(database, desk):
    await run(database, "ALTER TABLE receipt ADD CONSTRAINT poison CHECK (gateway_message_id <> '7')")
    said = []
    for _ in range(4):
        receipt = a_receipt("7", body=a_receipt("7").raw)
        desk.flusher.receipt(receipt)
        await desk.written()
        said.append(answer_to(receipt))

    assert said == [AGAIN_LATER, AGAIN_LATER, OK, OK]
    kept = await rows(database, "SELECT status, gateway_message_id, raw FROM receipt")
    assert {row[:2] for row in kept} == {("quarantined", None)}
    assert b"id:7" in kept[0].raw


async def test_receipt_of_which_not_even_the_octets_can_be_kept_is_acknowledged_in_the_end(database, desk):
    await run(database, "ALTER TABLE receipt ADD CONSTRAINT poison CHECK (length(raw) = 0)")
    said = []
    for _ in range(3):
        receipt = a_receipt("7", body=a_receipt("7").raw)
        desk.flusher.receipt(receipt)
        await desk.written()
        said.append(answer_to(receipt))

    assert said == [AGAIN_LATER, AGAIN_LATER, OK]


async def test_refused_receipts_are_not_remembered_without_bound(database, desk, monkeypatch):
    monkeypatch.setattr("app.sending.flush.REMEMBERED", 2)
    await run(database, "ALTER TABLE receipt ADD CONSTRAINT poison CHECK (gateway_message_id NOT LIKE 'p%')")

    for number in range(4):
        desk.flusher.receipt(a_receipt(f"p{number}"))
    await desk.written()

    assert len(desk.flusher._refused) == 2


async def test_late_answer_is_written_with_its_outcome_and_its_receipt_in_one_flush(database, desk, claimed):
    (message,) = await claimed(1)
    receipt = a_receipt("17")

    desk.flusher.receipt(receipt)
    desk.flusher.outcome(message, Unknown())
    desk.flusher.late(Late(message.id, 1, "17"))
    await desk.written()

    assert (await state_of(database, message.id))[0] == "delivered"
    assert answer_to(receipt) == OK


async def test_late_answer_never_overtakes_its_outcome_when_much_has_gathered(database, desk, claimed, monkeypatch):
    monkeypatch.setattr(flush, "MOST", 2)
    batch = await claimed(5)
    for one_of_them in batch:
        desk.flusher.outcome(one_of_them, Unknown())
    for number, one_of_them in enumerate(batch):
        desk.flusher.late(Late(one_of_them.id, 1, str(number)))

    await desk.written()

    assert [await state_of(database, each.id) for each in batch] == [("accepted", None)] * 5


async def test_late_answer_that_cannot_be_written_takes_nobody_along(database, desk, claimed):
    batch = await claimed(3)
    await run(database, "ALTER TABLE submission ADD CONSTRAINT poison CHECK (gateway_message_id <> '7')")
    for message in batch:
        desk.flusher.outcome(message, Unknown())
    await desk.written()

    for message, identity in zip(batch, ("6", "7", "8"), strict=True):
        desk.flusher.late(Late(message.id, 1, identity))
    await desk.written()

    assert [(await state_of(database, message.id))[0] for message in batch] == ["accepted", "unknown", "accepted"]


async def test_c31_receipts_that_come_while_the_store_fails_are_acknowledged_only_when_they_are_saved(database, desk):
    messages = [await a_message(database, ended="accepted") for _ in range(20)]
    for number, message in enumerate(messages):
        await a_submission(database, message, str(number))
    fail(desk, 5, ConnectionRefusedError())
    receipts = [a_receipt(str(number)) for number in range(20)]

    for receipt in receipts:
        desk.flusher.receipt(receipt)
        await asyncio.sleep(0.01)
        assert answer_to(receipt) is None
    await desk.written()

    assert [answer_to(receipt) for receipt in receipts] == [OK] * 20
    assert {(await state_of(database, message))[0] for message in messages} == {"delivered"}


async def test_what_gathers_during_a_commit_is_written_together(database, desk, claimed):
    batch = await claimed(200)
    asked = fail(desk, 0, ValueError())

    for message in batch:
        desk.flusher.outcome(message, Accepted(("1",)))
        await asyncio.sleep(0)
    await desk.written()

    assert len(asked) < 50
    assert len(desk.released) == 200


async def test_end_of_the_process_does_not_cut_a_flush_in_two(database, settings):
    own = Database.of(settings)
    desk = Desk(own)
    await a_message(database)
    (message,) = await claim(database, owner=desk.owner)
    task = asyncio.create_task(desk.flusher.run())
    async with database.transaction() as session:
        await session.execute(sa.text("LOCK TABLE submission IN EXCLUSIVE MODE"))
        desk.flusher.outcome(message, Accepted(("1",)))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async with asyncio.timeout(5):
        while not desk.released:
            await asyncio.sleep(0.01)
    assert (await state_of(database, message.id))[0] == "accepted"
    await own.close()


async def test_duplicates_are_acknowledged_like_everything_else(database, desk):
    message = await a_message(database, ended="accepted")
    await a_submission(database, message, "17")
    receipts = [a_receipt("17") for _ in range(5)]

    for receipt in receipts:
        desk.flusher.receipt(receipt)
        await asyncio.sleep(0.02)
    await desk.written()

    assert [answer_to(receipt) for receipt in receipts] == [OK] * 5
    assert (await one(database, "SELECT count(*) AS n FROM receipt")).n == 1
