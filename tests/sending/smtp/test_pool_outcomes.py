"""One letter, one outcome: every way in which a server takes, refuses, puts off or loses it."""

import asyncio
from datetime import timedelta

import pytest

from app.sending.outcome import Accepted, Deferred, Refused, Unknown
from app.simulators.mailbox import HANG_UP, Mailbox, Rule

ONE = {"connections": 1}


async def test_a_letter_that_is_taken_arrives_as_it_was_written(mailbox, sending_to, letter):
    sending = await sending_to(mailbox)
    sent = letter()

    [outcome] = await sending.ship(sent)

    assert outcome == Accepted(ids=("00000001",))
    [received] = mailbox.letters
    assert (received.sender, received.to) == ("noreply@isp.example", "subscriber@example.org")
    assert received.subject == sent.subject
    assert received.text == sent.text


async def test_lines_that_begin_with_a_dot_survive_in_plain_text(mailbox, sending_to, letter):
    sending = await sending_to(mailbox)

    await sending.ship(letter(text=".\n..\n.start\nend.\n"))

    assert mailbox.letters[0].raw.endswith(b"\r\n\r\n.\r\n..\r\n.start\r\nend.\r\n")


@pytest.mark.parametrize("pipelining", [True, False])
async def test_a_refused_letter_does_not_hinder_the_next_one_on_its_connection(sending_to, letter, pipelining):
    async with Mailbox(pipelining=pipelining) as mailbox:
        mailbox.refuse("nobody@*", "550 5.1.1 No such user")
        sending = await sending_to(mailbox, **ONE)

        outcomes = await sending.ship(letter(), letter("nobody@example.org"), letter("nobody@example.org"), letter())

        refused = Refused("mailbox_unavailable", "550 5.1.1", "No such user")
        assert outcomes == [Accepted(("00000001",)), refused, refused, Accepted(("00000002",))]
        assert mailbox.connections == 1


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("when", ["mail", "rcpt", "data", "dot"])
async def test_a_temporary_refusal_at_any_command_puts_the_letter_off(sending_to, letter, when, pipelining):
    async with Mailbox(pipelining=pipelining) as mailbox:
        mailbox.refuse("*", "451 4.3.0 Later", when=when, times=1)
        sending = await sending_to(mailbox, **ONE)

        outcomes = await sending.ship(letter(), letter())

        assert outcomes == [Deferred("server_unavailable", timedelta(seconds=30), code="451 4.3.0", detail="Later"), Accepted(("00000001",))]
        assert mailbox.connections == 1


async def test_a_letter_refused_after_its_text_is_refused_for_good(mailbox, sending_to, letter):
    mailbox.refuse("*", "550 5.7.1 Looks like spam", when="dot")
    sending = await sending_to(mailbox)

    assert await sending.ship(letter()) == [Refused("policy", "550 5.7.1", "Looks like spam")]


async def test_a_letter_that_cannot_be_written_down_is_refused_and_never_sent(mailbox, sending_to, letter):
    sending = await sending_to(mailbox)

    [outcome] = await sending.ship(letter(subject="Hello\r\nBcc: everybody@example.org"))

    assert isinstance(outcome, Refused)
    assert outcome.reason == "malformed"
    assert mailbox.commands["MAIL"] == 0


async def test_a_letter_that_only_a_mistake_in_the_code_can_make_is_put_off_and_its_connection_goes_on(mailbox, sending_to, letter):
    sending = await sending_to(mailbox, **ONE)

    outcomes = await sending.ship(letter(headers={"X-Number": 1}), letter())

    assert (outcomes[0].reason, outcomes[0].spends_attempt) == ("internal_error", True)
    assert outcomes[1] == Accepted(("00000001",))


@pytest.mark.parametrize("when", ["mail", "rcpt", "data"])
async def test_a_connection_lost_before_the_text_was_sent_costs_no_attempt(mailbox, sending_to, letter, when):
    mailbox.rules.append(Rule(when, HANG_UP, times=1))
    sending = await sending_to(mailbox, **ONE)

    [outcome] = await sending.ship(letter())

    assert isinstance(outcome, Deferred)
    assert (outcome.reason, outcome.spends_attempt) == ("connection_lost", False)
    assert await sending.ship(letter()) == [Accepted(("00000001",))]  # it has connected again by itself


async def test_a_connection_lost_after_the_final_dot_leaves_the_letter_unknown(mailbox, sending_to, letter):
    mailbox.rules.append(Rule("dot", HANG_UP, times=1))
    sending = await sending_to(mailbox)

    [outcome] = await sending.ship(letter())

    assert isinstance(outcome, Unknown)
    assert outcome.reason == "no_answer"


async def test_no_answer_to_the_text_within_the_time_limit_leaves_the_letter_unknown(mailbox, sending_to, letter):
    mailbox.rules.append(Rule("dot", delay=5, times=1))
    sending = await sending_to(mailbox, profile={"data_timeout": 0.1})

    [outcome] = await sending.ship(letter())

    assert outcome == Unknown(detail="no answer within 0.1 s")


async def test_no_answer_to_a_command_within_the_time_limit_costs_no_attempt(mailbox, sending_to, letter):
    mailbox.rules.append(Rule("rcpt", delay=5, times=1))
    sending = await sending_to(mailbox, profile={"timeout": 0.1})

    [outcome] = await sending.ship(letter())

    assert isinstance(outcome, Deferred)
    assert (outcome.spends_attempt, outcome.detail) == (False, "no answer within 0.1 s")


async def test_a_large_letter_that_is_not_read_to_its_end_is_put_off_and_not_unknown(sending_to, letter):
    # The server stops reading in the middle: what is left has never gone out, so it cannot have had the final dot.
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in ["220 hello", "250 hello", "250 ok", "250 ok", "354 go on, I am not listening"]:
            writer.write(answer.encode() + b"\r\n")
            if answer != "354 go on, I am not listening":
                await reader.readline()
        await is_over.wait()
        writer.transport.abort()

    is_over = asyncio.Event()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        sending = await sending_to(Mailbox(port=server.sockets[0].getsockname()[1]), profile={"data_timeout": 0.3})

        [outcome] = await sending.ship(letter(html=("y" * 70 + "\n") * 200_000))

        assert isinstance(outcome, Deferred)
        assert (outcome.spends_attempt, outcome.detail) == (False, "no answer within 0.3 s")
        is_over.set()


async def test_a_server_that_says_421_and_goes_costs_the_letter_before_it_nothing(mailbox, sending_to, letter):
    mailbox.refuse("*", "421 4.3.2 Shutting down", when="mail", times=1)
    sending = await sending_to(mailbox, **ONE)

    [outcome] = await sending.ship(letter())

    assert isinstance(outcome, Deferred)
    assert (outcome.spends_attempt, outcome.detail) == (False, "421 4.3.2 Shutting down")
    assert await sending.ship(letter()) == [Accepted(("00000001",))]


async def test_a_sender_that_the_server_does_not_want_takes_the_gateway_down_and_refuses_nothing(mailbox, sending_to, letter):
    mailbox.refuse("noreply@isp.example", "550 5.7.1 Not from here", when="mail", times=1)
    sending = await sending_to(mailbox, connections=1, profile={"reconnect_min": 0.2})

    outcomes = await sending.ship(letter(), letter(), letter())

    assert [outcome.spends_attempt for outcome in outcomes] == [False, False, False]
    assert [outcome.reason for outcome in outcomes] == ["policy", "not_sent", "not_sent"]
    assert sending.pool.status.state == "down"
    assert sending.pool.allowance() == 0
    assert (sending.pool.status.last_error.where, sending.pool.status.last_error.code) == ("mail", "550 5.7.1")
    await sending.until(lambda: mailbox.open_connections == 0)  # whatever else was open is of no use either
    assert await sending.ship(letter()) == [Accepted(("00000001",))]


async def test_an_international_address_is_sent_only_where_the_server_offers_it(sending_to, letter):
    async with Mailbox(smtputf8=False) as old, Mailbox() as new:
        to_old, to_new = await sending_to(old), await sending_to(new)

        [refused], [accepted] = await to_old.ship(letter("иван@example.org")), await to_new.ship(letter("иван@example.org"))

        assert (refused.reason, old.commands["MAIL"]) == ("address_needs_smtputf8", 0)
        assert accepted == Accepted(("00000001",))
        assert new.letters[0].to == "иван@example.org"


async def test_a_letter_over_the_limit_that_the_server_names_is_refused_without_sending_it(sending_to, letter):
    async with Mailbox(size_limit=2000) as mailbox:
        sending = await sending_to(mailbox)

        [outcome] = await sending.ship(letter(text="x" * 3000))

        assert outcome.reason == "message_too_large"
        assert mailbox.commands["MAIL"] == 0
