"""Mailboxes that a server calls dead while it is talking to us: not written to again, as after a bounce."""

import asyncio

import pytest

from app.accounts.unsubscribe import UnsubscribeLinks
from app.core.clock import now
from app.core.secrets import SecretBox
from app.sending import mail_station
from app.sending.claim import Claimed
from app.sending.mail_station import MailStation
from app.sending.outcome import Refused
from app.sending.smtp.verp import Verp
from app.simulators.mailbox import Mailbox
from app.tracking.bounces import HARD_FOR
from app.tracking.refusals import suppress_dead, verdict_of
from tests.builders.accounts import an_account
from tests.builders.gateways import an_smtp_gateway
from tests.builders.messages import a_message, claim, one, rows, run, state_of
from tests.builders.stations import until

DEAD = "nobody@example.org"


@pytest.fixture
async def talk(database, settings, monkeypatch):
    """`await talk(mailbox, condition)`: a mail station sends to it until then."""
    monkeypatch.setattr(mail_station, "WATCH", 0.1)

    async def sent(mailbox, condition):
        await an_smtp_gateway(database, port=mailbox.port, profile={"reconnect_min": 0.05, "retry_backoff_min": 0.2, "temp_attempts": 1})
        station = MailStation(database, SecretBox(settings.secret_keys), UnsubscribeLinks(settings), Verp(settings), suppress_dead)
        running = asyncio.create_task(station.run())
        try:
            await until(condition)
        finally:
            station.stop()
            await asyncio.wait_for(running, 20)

    return sent


async def a_letter(database, address=DEAD, **fields):
    return await a_message(database, channel="email", address=address, subject="S", gateway="post", **fields)


async def suppressions(database):
    return await rows(database, "SELECT address, reason, detail, by, until FROM suppression ORDER BY address")


async def test_a_mailbox_that_is_refused_as_dead_is_not_written_to_for_half_a_year(database, talk):
    async with Mailbox() as mailbox:
        mailbox.refuse(DEAD, "550 5.1.1 No such user here")
        refused, good = await a_letter(database), await a_letter(database, "a@example.org")
        waits = await a_letter(database, state="held")

        await talk(mailbox, lambda: both_are(database, refused, good))

    assert await state_of(database, refused) == ("failed", "mailbox_unavailable")
    (found,) = await suppressions(database)
    assert tuple(found)[:4] == (DEAD, "hard_bounce", "bounce 5.1.1 No such user here", "mail")
    assert abs(found.until - now() - HARD_FOR).total_seconds() < 600
    assert await state_of(database, waits) == ("cancelled", "suppressed")
    record = await one(database, "SELECT actor, changes FROM audit_record WHERE action = 'suppression.create'")
    assert (record.actor, record.changes["reason"]) == ("mail", "hard_bounce")
    assert record.changes["address"].startswith("hmac:")


async def both_are(database, refused, good):
    return [(await state_of(database, message))[0] for message in (refused, good)] == ["failed", "accepted"]


@pytest.mark.parametrize("reply", ["552 5.2.2 Mailbox full", "550 5.7.1 We do not like you", "450 4.1.1 Perhaps later", "554 5.7.1 Relay access denied"])
async def test_an_address_that_is_refused_for_another_reason_stays(database, talk, reply):
    async with Mailbox() as mailbox:
        mailbox.refuse(DEAD, reply)
        message = await a_letter(database)

        async def is_over():
            return (await state_of(database, message))[0] == "failed"

        await talk(mailbox, is_over)

    assert await suppressions(database) == []


@pytest.mark.parametrize(
    ("code", "words", "status"),
    [
        ("550 5.1.1", "", "5.1.1"),
        ("550 5.1.10", "Null MX", "5.1.10"),
        ("550 5.2.1", "Mailbox disabled", "5.2.1"),
        ("550", "User unknown in local recipient table", "550"),
        ("550 5.4.1", "Recipient address rejected: Access denied", "5.4.1"),
        ("550", "Message refused", None),
        ("450 4.1.1", "No such user", None),
        ("550 5.7.1", "No such luck", None),
        ("", "the letter could not be written", None),
        ("0x0000000B", "ESME_RINVDSTADR", None),
    ],
)
def test_what_is_dead_is_said_by_the_table_of_bounces(code, words, status):
    found = verdict_of(Refused("refused", code, words))

    assert (found.status if found is not None else None) == status


async def test_nothing_personal_is_written_down_of_an_account_that_was_erased_meanwhile(database):
    account = await an_account(database, mails=(DEAD,))
    await an_smtp_gateway(database)
    message = await a_letter(database, account=account)
    (claimed,) = await claim(database, gateway="post")
    await run(database, "UPDATE message SET address = '' WHERE id = :id", id=message)

    assert await follow(database, claimed) == 0
    assert await suppressions(database) == []


async def test_a_refusal_that_is_written_twice_changes_nothing(database):
    await an_smtp_gateway(database)
    await a_letter(database)
    (claimed,) = await claim(database, gateway="post")

    assert [await follow(database, claimed), await follow(database, claimed)] == [1, 1]
    assert len(await suppressions(database)) == 1
    assert len(await rows(database, "SELECT 1 FROM audit_record WHERE action = 'suppression.create'")) == 1


async def follow(database, claimed: Claimed) -> int:
    async with database.transaction() as session:
        return await suppress_dead(session, [(claimed, Refused("mailbox_unavailable", "550 5.1.1", "No such user"))])
