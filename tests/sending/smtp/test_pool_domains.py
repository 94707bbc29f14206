"""Letters to one domain at once: no more than a gateway's profile allows."""

import asyncio

from app.sending.outcome import Accepted
from app.simulators.mailbox import Rule


async def test_letters_to_a_full_domain_wait_and_others_go_past_them(mailbox, sending_to, letter):
    mailbox.rules.append(Rule("dot", address="*@slow.example", delay=0.1))
    sending = await sending_to(mailbox, connections=3, profile={"per_domain": 1})
    slow, quick = [letter(f"{n}@Slow.example") for n in range(3)], [letter(f"{n}@quick.example") for n in range(3)]

    outcomes = await sending.ship(*slow, *quick)

    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    order = [received.to for received in mailbox.letters]
    assert order.index("2@quick.example") < order.index("1@Slow.example")
    assert [address for address in order if "Slow" in address] == ["0@Slow.example", "1@Slow.example", "2@Slow.example"]


async def test_no_more_than_that_are_on_the_wire(mailbox, sending_to, letter):
    most = 0
    mailbox.rules.append(Rule("data", address="*@slow.example", delay=0.05))
    sending = await sending_to(mailbox, connections=4, profile={"per_domain": 2})
    letters = [letter(f"{n}@slow.example") for n in range(8)]
    shipped = asyncio.create_task(sending.ship(*letters))
    while not shipped.done():
        most = max(most, sum(lane.is_on_wire for lane in sending.pool._lanes))
        await asyncio.sleep(0.002)

    assert most == 2
    assert len(mailbox.letters) == 8


async def test_a_letter_that_fails_gives_its_place_back(mailbox, sending_to, letter):
    mailbox.refuse("0@slow.example", "550 5.1.1 No such user")
    mailbox.refuse("1@slow.example", "421 4.3.2 Closing", times=1)
    sending = await sending_to(mailbox, connections=2, profile={"per_domain": 1})

    outcomes = await sending.ship(*(letter(f"{n}@slow.example") for n in range(4)), letter("not an address@slow.example\r\nx"))

    assert len(outcomes) == 5
    (again,) = await sending.ship(letter("9@slow.example"))
    assert isinstance(again, Accepted)


async def test_without_a_limit_every_connection_may_serve_one_domain(mailbox, sending_to, letter):
    mailbox.rules.append(Rule("dot", delay=0.05))
    sending = await sending_to(mailbox, connections=4)

    await sending.ship(*(letter(f"{n}@slow.example") for n in range(8)))

    assert mailbox.connections == 4
