"""A slot belongs to one owner at a time."""

import asyncio
import os
import subprocess
import sys
import time
from uuid import uuid4

from app.sending.slots import SPARE, is_surely_dead, started_at, take_slot, this_process
from tests.builders.messages import a_message, claim, one, run

STATUS = {"state": "bound"}


async def lapse(database):
    await run(database, "UPDATE bind_slot SET until = now() - interval '1 second'")


async def dead_process():
    """The marks of a process of this machine that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    marks = this_process().split("|")
    owner = "|".join([*marks[:3], str(child.pid), started_at(child.pid)])
    assert not is_surely_dead(owner)
    child.communicate(b"\n")
    return owner


async def test_slot_is_taken_once(database):
    slot = await take_slot(database, "main", 0)

    assert slot.is_sure
    assert await take_slot(database, "main", 0) is None
    assert await take_slot(database, "main", 1) is not None


async def test_of_many_who_want_a_new_slot_at_once_one_has_it(database):
    taken = [slot for slot in await asyncio.gather(*(take_slot(database, "main", 0) for _ in range(12))) if slot]

    assert len(taken) == 1
    assert await taken[0].renew(database, STATUS)


async def test_of_many_who_want_a_lapsed_slot_at_once_one_has_it(database):
    await take_slot(database, "main", 0)
    await lapse(database)

    taken = [slot for slot in await asyncio.gather(*(take_slot(database, "main", 0) for _ in range(12))) if slot]

    assert len(taken) == 1


async def test_lapsed_slot_is_another_ones_and_its_old_owner_learns_that(database):
    old = await take_slot(database, "main", 0)
    await lapse(database)

    new = await take_slot(database, "main", 0)

    assert new.fence != old.fence
    assert not await old.renew(database, STATUS)
    assert await new.renew(database, STATUS)


async def test_owner_who_could_not_renew_is_not_sure_any_more_before_the_end_comes(database):
    slot = await take_slot(database, "main", 0)

    slot.until = time.monotonic() + SPARE - 0.1

    assert not slot.is_sure
    assert await slot.renew(database, STATUS)
    assert slot.is_sure


async def test_slot_that_was_given_up_is_free_at_once_and_says_how_it_ended(database):
    slot = await take_slot(database, "main", 0)

    await slot.give_up(database, {"state": "stopped"})

    assert (await one(database, "SELECT status FROM bind_slot")).status == {"state": "stopped"}
    assert await take_slot(database, "main", 0) is not None


async def test_who_has_lost_a_slot_cannot_give_it_up(database):
    old = await take_slot(database, "main", 0)
    await lapse(database)
    new = await take_slot(database, "main", 0)

    await old.give_up(database, {"state": "stopped"})

    assert await take_slot(database, "main", 0) is None
    assert await new.renew(database, STATUS)


async def test_slot_of_a_dead_process_of_this_machine_is_taken_at_once(database):
    await take_slot(database, "main", 0)
    await run(database, "UPDATE bind_slot SET owner = :owner", owner=await dead_process())

    assert await take_slot(database, "main", 0) is not None


async def test_slot_of_a_process_that_we_cannot_see_is_waited_for(database):
    await take_slot(database, "main", 0)
    for owner in ("another-host|boot|pid:[1]|1|1", this_process(), "?|?|?|?|?", "strange"):
        await run(database, "UPDATE bind_slot SET owner = :owner", owner=owner)
        assert await take_slot(database, "main", 0) is None


async def test_what_the_last_owner_had_claimed_is_in_doubt_from_then_on(database):
    old = await take_slot(database, "main", 0)
    await a_message(database)
    await claim(database, owner=old.fence)
    await a_message(database)
    await claim(database, owner=(other := uuid4()))
    await lapse(database)

    await take_slot(database, "main", 0)

    due = "SELECT lease_until <= now() AS ended FROM outbox WHERE claimed_by = :fence"
    assert (await one(database, due, fence=old.fence)).ended
    assert not (await one(database, due, fence=other)).ended


def test_this_process_is_not_dead():
    assert not is_surely_dead(this_process())
    assert started_at(os.getpid()) is not None
