"""Claim: what one wire can take now, in the right order, and by nobody else."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

from app.core.clock import now
from app.sending.claim import claim_due, unclaim
from app.sending.references import References
from tests.builders.messages import HOUR, a_message, claim, one, rows, run, state_of

SECOND = timedelta(seconds=1)


async def test_claim_takes_no_more_parts_than_there_is_room_for(database):
    for _ in range(5):
        await a_message(database, parts=2)

    assert [len(await claim(database, room=5)) for _ in range(4)] == [2, 2, 1, 0]


async def test_first_message_always_fits_however_long_it_is(database):
    long = await a_message(database, parts=7, not_before=now() - HOUR)
    await a_message(database)

    assert [claimed.id for claimed in await claim(database, room=3)] == [long]


async def test_message_that_does_not_fit_keeps_its_turn(database):
    first = await a_message(database, parts=2, not_before=now() - 3 * SECOND)
    long = await a_message(database, parts=3, not_before=now() - 2 * SECOND)
    await a_message(database, parts=1, not_before=now() - SECOND)

    assert [claimed.id for claimed in await claim(database, room=3)] == [first]
    assert [claimed.id for claimed in await claim(database, room=3)] == [long]


async def test_urgent_goes_before_old_and_old_before_young(database):
    young, old, urgent, bulk = [
        await a_message(database, priority=priority, not_before=now() - age * SECOND) for priority, age in ((1, 5), (1, 50), (0, 1), (2, 900))
    ]

    assert [claimed.id for claimed in await claim(database)] == [urgent, old, young, bulk]


async def test_what_is_not_due_or_not_ours_is_left(database):
    moment = now()
    for fields in (
        {"not_before": moment + SECOND},
        {"expires_at": moment},
        {"send_until": moment},
        {"state": "held"},
        {"gateway": "other"},
        {"gateway": None},
    ):
        await a_message(database, **fields)
    due = await a_message(database, send_until=moment + HOUR)

    assert [claimed.id for claimed in await claim(database, at=moment)] == [due]


async def test_claimed_message_has_an_owner_and_a_lease(database):
    owner, moment = uuid4(), now()
    message = await a_message(database)

    (claimed,) = await claim(database, owner=owner, at=moment)

    row = await one(database, "SELECT state, claimed_by, claimed_at, lease_until FROM outbox")
    assert row == ("sending", owner, moment, moment + timedelta(minutes=1))
    assert (claimed.id, claimed.address, claimed.text, claimed.tries, claimed.attempts) == (message, "+79161234567", "Баланс 10,00", 0, 0)
    assert await claim(database) == []


async def test_two_claimers_at_once_never_take_the_same(database):
    messages = {await a_message(database) for _ in range(40)}

    async def work():
        taken = []
        for _ in range(12):
            taken += [claimed.id for claimed in await claim(database, room=7)]
        return taken

    taken = await asyncio.gather(*(work() for _ in range(4)))

    together = [message for mine in taken for message in mine]
    assert len(together) == len(set(together))
    assert set(together) == messages


async def test_row_that_another_claimer_is_just_taking_is_not_waited_for(database):
    first, second = [await a_message(database, not_before=now() - age * SECOND) for age in (2, 1)]

    async with database.transaction() as session:
        mine = await claim_due(session, "main", uuid4(), 1, now(), HOUR)
        others = await asyncio.wait_for(claim(database), 5)

    assert ([c.id for c in mine], [c.id for c in others]) == ([first], [second])


async def test_what_was_claimed_without_our_knowing_is_given_back_and_nothing_else(database):
    owner = uuid4()
    in_hand, lost, others = [await a_message(database, not_before=now() - age * SECOND) for age in (3, 2, 1)]
    await claim(database, room=2, owner=owner)
    await claim(database, owner=uuid4())

    async with database.transaction() as session:
        await unclaim(session, owner, [in_hand])

    assert [(await state_of(database, message))[0] for message in (in_hand, lost, others)] == ["sending", "queued", "sending"]
    assert [claimed.id for claimed in await claim(database)] == [lost]


async def test_long_messages_to_one_address_get_numbers_of_their_own(database):
    for address in ("+79160000001", "+79160000001", "+79160000002"):
        await a_message(database, address=address, parts=3)

    claimed = await claim(database)

    numbers = sorted((c.address, c.reference) for c in claimed)
    assert numbers == [("+79160000001", 1), ("+79160000001", 2), ("+79160000002", 1)]


async def test_numbers_go_on_where_the_last_claim_stopped_and_begin_again_after_sixteen_bits(database):
    await run(database, "INSERT INTO joint_reference (address, last, at) VALUES ('+79161234567', 65534, now() - interval '1 day')")
    for age in (3, 2, 1):
        await a_message(database, parts=2, not_before=now() - age * SECOND)

    first, second = await claim(database, room=2), await claim(database, room=4)

    assert [c.reference for c in first + second] == [65535, 0, 1]
    row = await one(database, "SELECT last, at > now() - interval '1 minute' AS fresh FROM joint_reference")
    assert (row.last, row.fresh) == (1, True)


async def test_message_of_one_part_and_a_letter_need_no_number(database):
    await a_message(database)
    await a_message(database, channel="email", address="a" * 300 + "@example.org", parts=2)

    assert [c.reference for c in await claim(database)] == [None, None]
    assert await rows(database, "SELECT address FROM joint_reference") == []


async def test_claimers_at_once_never_give_two_messages_to_one_address_the_same_number(database):
    addresses = [f"+7916000000{number}" for number in range(5)]
    for number in range(60):
        await a_message(database, address=addresses[number % 5], parts=2)

    async def work():
        taken = []
        for _ in range(6):
            taken += await claim(database, room=8)
        return taken

    taken = [claimed for mine in await asyncio.gather(*(work() for _ in range(4))) for claimed in mine]

    numbers = {(claimed.address, claimed.reference) for claimed in taken}
    assert len(taken) == len(numbers) == 60


async def test_numbers_of_addresses_that_got_nothing_long_for_a_fortnight_are_forgotten(database):
    await run(
        database,
        "INSERT INTO joint_reference (address, last, at) VALUES ('+79160000001', 7, now() - interval '15 days'), ('+79160000002', 7, now() - interval '13 days')",
    )
    references = References(database)

    assert [await references.forget() for _ in range(2)] == [1, 0]

    assert [row.address for row in await rows(database, "SELECT address FROM joint_reference")] == ["+79160000002"]


async def test_sender_price_and_second_try_come_along(database):
    await a_message(database, sender="Promo", price=Decimal("0.8500"), resent=True)

    (claimed,) = await claim(database)

    assert (claimed.sender, claimed.price, claimed.resent) == ("Promo", Decimal("0.8500"), True)


async def test_claim_reads_no_more_of_a_long_queue_than_it_takes(database):
    await run(
        database,
        "INSERT INTO outbox (message_id, state, channel, gateway, priority, parts, not_before, expires_at, tries, attempts)"
        " SELECT gen_random_uuid(), 'queued', 'sms', 'main', 1, 1, now() - interval '1 minute', now() + interval '1 hour', 0, 0 FROM generate_series(1, 20000)",
    )
    await run(database, "INSERT INTO outbox SELECT * FROM outbox WHERE false")

    plan = "\n".join(row[0] for row in await rows(database, explained(), **VALUES))

    assert "Seq Scan on outbox" not in plan
    assert "ix_outbox_claim" in plan


VALUES = {"priorities": [0, 1, 2], "gateway": "main", "room": 10, "owner": uuid4(), "now": now(), "lease": now()}


def explained() -> str:
    from app.sending.claim import CLAIM

    return f"EXPLAIN {CLAIM.text}"


async def test_a_message_without_files_has_none_whoever_wrote_it(database):
    """Nothing is NULL, and never JSON's own `null`, which would be a list of files to make."""
    message_id = await a_message(database, attachments=None)

    (claimed,) = await claim(database)

    assert claimed.attachments is None
    assert (await one(database, "SELECT attachments IS NULL AS none FROM message WHERE id = :id", id=message_id)).none
