"""The pool over time: what it may claim, how it connects, waits, comes back and stops."""

import asyncio
import time
from itertools import pairwise

import pytest

from app.sending.outcome import Accepted, Deferred, Unknown
from app.simulators.mailbox import HANG_UP, Mailbox, Rule


async def test_it_is_bound_before_the_first_letter_and_says_so(mailbox, sending_to):
    sending = await sending_to(mailbox)

    await sending.until(lambda: sending.pool.status.state == "bound")

    assert [status.state for status in sending.states] == ["connecting", "bound"]
    assert sending.pool.status.connections == 1


async def test_connections_are_used_again(mailbox, sending_to, letter):
    sending = await sending_to(mailbox, connections=2)

    outcomes = [outcome for _ in range(10) for outcome in await sending.ship(letter(), letter())]

    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert mailbox.count == 20
    assert mailbox.connections == 2


async def test_one_connection_carries_one_letter_at_a_time_and_several_work_at_once(mailbox, sending_to, letter):
    mailbox.rules.append(Rule("dot", delay=0.05))
    sending = await sending_to(mailbox, connections=4)

    began = time.monotonic()
    await sending.ship(*(letter() for _ in range(8)))

    assert mailbox.connections == 4
    assert time.monotonic() - began >= 0.1  # two rounds of four, each answered after 50 ms


async def test_room_is_for_a_few_letters_a_connection_and_comes_back_with_release(mailbox, sending_to, letter):
    sending = await sending_to(mailbox, connections=2, profile={"claim_ahead": 3})
    await sending.until(lambda: sending.pool.allowance() == 8)

    letters = [letter() for _ in range(8)]
    for each in letters:
        sending.pool.ship(each)
    await sending.outcomes_of(*letters)

    assert sending.pool.allowance() == 0
    sending.pool.release(5)
    assert (sending.pool.allowance(), sending.pool.in_use) == (5, 3)


async def test_letters_go_no_faster_than_the_rate(mailbox, sending_to, letter):
    sending = await sending_to(mailbox, connections=4, rate_per_second=40)

    began, letters = time.monotonic(), [letter() for _ in range(10)]
    for each in letters:
        await sending.until(lambda: sending.pool.allowance() > 0)
        sending.pool.ship(each)
    await sending.outcomes_of(*letters)

    assert time.monotonic() - began >= 9 / 40


async def test_no_more_is_claimed_than_the_rate_lets_go_soon(mailbox, sending_to, letter):
    sending = await sending_to(mailbox, connections=1, rate_per_second=0.5)
    await sending.until(lambda: sending.pool.allowance() == 1)

    await sending.ship(letter())

    assert sending.pool.allowance() == 0
    assert 0 < sending.pool.next_chance() <= 1.9


async def test_a_connection_is_closed_after_its_number_of_letters(mailbox, sending_to, letter):
    sending = await sending_to(mailbox, connections=1, profile={"max_per_connection": 3})

    outcomes = await sending.ship(*(letter() for _ in range(7)))

    assert len([outcome for outcome in outcomes if isinstance(outcome, Accepted)]) == 7
    assert (mailbox.connections, mailbox.commands["QUIT"]) == (3, 2)


async def test_an_idle_connection_is_closed_politely_and_the_pool_stays_ready(mailbox, sending_to, letter):
    sending = await sending_to(mailbox, profile={"idle_timeout": 0.05})
    await sending.ship(letter())

    await sending.until(lambda: mailbox.open_connections == 0)

    assert mailbox.commands["QUIT"] == 1
    assert sending.pool.status.state == "bound"
    assert await sending.ship(letter()) == [Accepted(("00000002",))]


async def test_a_connection_that_the_server_closed_meanwhile_is_replaced_without_a_word(mailbox, sending_to, letter):
    sending = await sending_to(mailbox, connections=1)
    await sending.ship(letter())

    mailbox.hang_up()

    assert await sending.ship(letter()) == [Accepted(("00000002",))]
    assert sending.pool.status.last_error is None


async def test_a_connection_that_the_server_closes_on_the_next_letter_is_replaced_as_well(mailbox, sending_to, letter):
    sending = await sending_to(mailbox, connections=1)
    await sending.ship(letter())

    mailbox.rules.append(Rule("mail", HANG_UP, times=1))  # it has hung up, and the news arrives after MAIL has left

    assert await sending.ship(letter()) == [Accepted(("00000002",))]
    assert sending.pool.status.last_error is None


async def test_one_lost_connection_of_several_does_not_take_the_pool_down(mailbox, sending_to, letter):
    sending = await sending_to(mailbox, connections=2)
    await sending.ship(letter(), letter())
    mailbox.rules.append(Rule("rcpt", HANG_UP, "victim@*", times=1))

    [lost] = await sending.ship(letter("victim@example.org"))

    assert isinstance(lost, Deferred)
    assert sending.pool.status.state == "bound"
    assert await sending.ship(letter()) == [Accepted(("00000003",))]


async def test_without_a_server_it_is_down_claims_nothing_and_comes_up_with_it(sending_to, letter):
    async with Mailbox() as mailbox:
        port = mailbox.port
    sending = await sending_to(mailbox)
    await sending.until(lambda: sending.pool.status.last_error is not None)

    assert (sending.pool.allowance(), sending.pool.status.last_error.where) == (0, "connect")
    async with Mailbox(port=port):
        assert await sending.ship(letter()) == [Accepted(("00000001",))]


async def test_letters_claimed_when_the_server_goes_away_come_back_unsent(mailbox, sending_to, letter):
    sending = await sending_to(mailbox, connections=1)
    await sending.ship(letter())
    mailbox.refuse("*", "554 5.3.2 Out of service", when="connect")
    mailbox.rules.append(Rule("rcpt", HANG_UP))

    outcomes = await sending.ship(*(letter() for _ in range(5)))

    assert [(type(outcome), outcome.spends_attempt) for outcome in outcomes] == [(Deferred, False)] * 5
    assert [outcome.reason for outcome in outcomes] == ["connection_lost", *["not_sent"] * 4]
    await sending.until(lambda: sending.pool.status.last_error.where == "greeting")
    assert sending.pool.status.last_error.code == "554 5.3.2"


async def test_the_pauses_between_attempts_to_connect_double_up_to_their_limit(mailbox, sending_to):
    mailbox.refuse("*", "554 5.3.2 Out of service", when="connect")

    sending = await sending_to(mailbox, profile={"reconnect_min": 0.02, "reconnect_max": 0.1})

    await sending.until(lambda: mailbox.connections >= 6)
    downs = [status.since for status in sending.states if status.state == "down"]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(downs)]
    assert all(gap >= least - 0.005 for gap, least in zip(gaps, [0.02, 0.04, 0.08, 0.1, 0.1], strict=False))


async def test_stop_finishes_what_is_on_the_wire_and_returns_the_rest_unsent(mailbox, sending_to, letter):
    mailbox.rules.append(Rule("dot", delay=0.1))
    sending = await sending_to(mailbox, connections=1)
    await sending.until(lambda: sending.pool.allowance() > 0)
    letters = [letter() for _ in range(4)]
    for each in letters:
        sending.pool.ship(each)
    await sending.until(lambda: mailbox.commands["DATA"] == 1)

    await sending.pool.stop(5)

    outcomes = await sending.outcomes_of(*letters)
    assert outcomes[0] == Accepted(("00000001",))
    assert all(isinstance(outcome, Deferred) and not outcome.spends_attempt for outcome in outcomes[1:])
    assert sending.pool.status.state == "stopped"
    assert mailbox.commands["QUIT"] == 1


@pytest.mark.parametrize(("when", "expected"), [("dot", Unknown), ("rcpt", Deferred)])
async def test_stop_without_grace_tells_the_truth_about_the_letter_on_the_wire(mailbox, sending_to, letter, when, expected):
    mailbox.rules.append(Rule(when, delay=5))
    sending = await sending_to(mailbox, connections=1)
    await sending.until(lambda: sending.pool.allowance() > 0)
    sent = letter()
    sending.pool.ship(sent)
    await sending.until(lambda: mailbox.commands["DATA" if when == "dot" else "RCPT"] == 1)
    await asyncio.sleep(0.05)

    await sending.pool.stop(0)

    [outcome] = await sending.outcomes_of(sent)
    assert isinstance(outcome, expected)


async def test_a_cancelled_run_settles_every_letter_all_the_same(mailbox, sending_to, letter):
    mailbox.rules.append(Rule("dot", delay=5))
    sending = await sending_to(mailbox, connections=2)
    await sending.until(lambda: sending.pool.allowance() > 0)
    letters = [letter() for _ in range(6)]
    for each in letters:
        sending.pool.ship(each)
    await sending.until(lambda: mailbox.commands["DATA"] == 2)

    sending.running.cancel()

    outcomes = await sending.outcomes_of(*letters)
    assert [type(outcome) for outcome in outcomes] == [Unknown, Unknown, Deferred, Deferred, Deferred, Deferred]


async def test_a_letter_shipped_after_stop_comes_back_unsent(mailbox, sending_to, letter):
    sending = await sending_to(mailbox)
    await sending.pool.stop(1)
    late = letter()

    sending.pool.ship(late)

    [outcome] = await sending.outcomes_of(late)
    assert isinstance(outcome, Deferred)
    assert not outcome.spends_attempt


async def test_in_any_confusion_every_letter_gets_exactly_one_outcome(mailbox, sending_to, letter):
    sending = await sending_to(mailbox, connections=3, profile={"reconnect_min": 0.01, "reconnect_max": 0.02, "claim_ahead": 4})
    mailbox.refuse("n*@example.org", "550 5.1.1 No such user")
    mailbox.refuse("l*@example.org", "451 4.3.0 Later", when="dot")
    letters = [letter(f"{kind}{number}@example.org") for number in range(60) for kind in "anl"]

    async def disturb() -> None:
        while True:
            await asyncio.sleep(0.02)
            mailbox.hang_up()

    disturbing = asyncio.create_task(disturb())
    try:
        for each in letters:
            await sending.until(lambda: sending.pool.allowance() > 0)
            sending.pool.ship(each)
            sending.pool.release(1)
        outcomes = await sending.outcomes_of(*letters)
    finally:
        disturbing.cancel()

    assert len(sending.outcomes) == len(letters)
    accepted = {sent.to for sent, outcome in zip(letters, outcomes, strict=True) if isinstance(outcome, Accepted)}
    unknown = {sent.to for sent, outcome in zip(letters, outcomes, strict=True) if isinstance(outcome, Unknown)}
    received = [received.to for received in mailbox.letters]
    assert len(received) == len(set(received))
    assert accepted <= set(received) <= accepted | unknown


async def test_it_stops_at_whatever_moment_of_connecting_it_is_told_to(mailbox, sending_to):
    for attempt in range(40):
        sending = await sending_to(mailbox)
        await asyncio.sleep(attempt / 8000)  # a connection takes about 3 ms: each try meets another step of it

        async with asyncio.timeout(5):
            await sending.pool.stop(0)

        assert sending.pool.status.state == "stopped"
    await sending.until(lambda: mailbox.open_connections == 0)
