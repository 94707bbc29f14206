"""One-time codes that prove a contact: made, remembered as a keyed digest, entered, counted.

A code is of six digits, good for ten minutes and five attempts. A new one takes the place of the old one. What keeps a guesser out is that there are so
few of them: five an hour for a contact, ten a day for an account; what keeps a stranger's phone quiet is twenty a day for an address, whoever asks.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.models import Contact
from app.core.config import Settings

DIGITS, ATTEMPTS = 6, 5
GOOD_FOR = timedelta(minutes=10)
AGAIN_AFTER = timedelta(seconds=60)

PUT = sa.text("""
INSERT INTO contact_code (contact_id, digest, expires_at, attempts) VALUES (:contact, :digest, :expires_at, 0)
ON CONFLICT (contact_id) DO UPDATE SET digest = excluded.digest, expires_at = excluded.expires_at, attempts = 0
""")
# The attempt is spent before the code is looked at: two guesses at the same moment are two.
ATTEMPT = sa.text("""
UPDATE contact_code SET attempts = attempts + 1 WHERE contact_id = :contact AND attempts < :most AND expires_at > :now RETURNING digest, attempts
""")
USED = sa.text("DELETE FROM contact_code WHERE contact_id = :contact")
# Accounts are locked one by one, addresses are not: the lock keeps two accounts from sending the twentieth code together.
LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('code:' || encode(:address, 'hex'), 0))")
SENT = sa.text("""
SELECT at, account_id = :account AS same_account, address = :address AS same_address FROM code_message
WHERE (account_id = :account OR address = :address) AND at > :since ORDER BY at DESC
""")
COUNT = sa.text("INSERT INTO code_message (message_id, account_id, address, at, is_blank) VALUES (:message, :account, :address, :at, false)")


@dataclass(frozen=True, slots=True)
class Proved:
    """The code was right. It is used up."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """It was not; so many attempts are left."""

    left: int


@dataclass(frozen=True, slots=True)
class NoCode:
    """There is none to compare with: never sent, too old, or guessed at too often."""


Entered = Proved | Wrong | NoCode


@dataclass(frozen=True, slots=True)
class Sending:
    """A code that was sent before: when, by the same account, to the same address."""

    at: datetime
    same_account: bool
    same_address: bool


class Digests:
    """Keyed: whoever reads the table learns no code and no address from it. The newest of VESTNIK_SECRET_KEYS makes them, each of them is looked for."""

    def __init__(self, settings: Settings) -> None:
        listed = settings.secret_keys.get_secret_value().split(",")
        self._keys = [hashlib.sha256(b"contact-code:" + key.strip().encode()).digest() for key in listed]

    def of_code(self, contact_id: UUID, code: str) -> bytes:
        return _digest(self._keys[0], contact_id, code)

    def is_code(self, contact_id: UUID, code: str, digest: bytes) -> bool:
        """In the same time, whatever is wrong with it."""
        return any([hmac.compare_digest(_digest(key, contact_id, code), digest) for key in self._keys])  # noqa: C419 - all of them, always

    def of_address(self, channel: str, address: str) -> bytes:
        return hmac.digest(self._keys[0], f"{channel}:{address}".encode(), "sha256")


def _digest(key: bytes, contact_id: UUID, code: str) -> bytes:
    return hmac.digest(key, contact_id.bytes + code.encode(), "sha256")


def new_code() -> str:
    return f"{secrets.randbelow(10**DIGITS):0{DIGITS}}"


def next_sending(sent: Iterable[Sending], moment: datetime) -> datetime:
    """From when on another code may be sent to an address by an account; the moment itself when it may at once. Pure."""
    known = sorted(sent, key=lambda one: one.at, reverse=True)
    here = [one.at for one in known if one.same_account and one.same_address]
    rules = (
        (here, 1, AGAIN_AFTER),
        (here, 5, timedelta(hours=1)),
        ([one.at for one in known if one.same_account], 10, timedelta(days=1)),
        ([one.at for one in known if one.same_address], 20, timedelta(days=1)),
    )
    return max([moment, *(times[most - 1] + span for times, most, span in rules if len(times) >= most)])


async def may_send_from(session: AsyncSession, digests: Digests, contact: Contact, moment: datetime) -> datetime:
    """From when on a code may be sent to this contact. The caller has locked its account; its address is locked here."""
    address = digests.of_address(contact.channel, contact.address)
    await session.execute(LOCK, {"address": address})
    since = moment - timedelta(days=1)
    rows: list[Any] = list((await session.execute(SENT, {"account": contact.account_id, "address": address, "since": since})).all())
    return next_sending((Sending(row.at, row.same_account, row.same_address) for row in rows), moment)


async def issue(session: AsyncSession, digests: Digests, contact: Contact, moment: datetime) -> tuple[str, datetime]:
    """A new code for a contact, and until when it is good. The one before it is good no more."""
    code, until = new_code(), moment + GOOD_FOR
    await session.execute(PUT, {"contact": contact.id, "digest": digests.of_code(contact.id, code), "expires_at": until})
    return code, until


async def count_sending(session: AsyncSession, digests: Digests, contact: Contact, message_id: UUID, moment: datetime) -> None:
    """The message that carries the code counts from now on."""
    values = {"message": message_id, "account": contact.account_id, "address": digests.of_address(contact.channel, contact.address), "at": moment}
    await session.execute(COUNT, values)


async def enter(session: AsyncSession, digests: Digests, contact_id: UUID, code: str, moment: datetime) -> Entered:
    """Compare a code with the one that was sent. It spends an attempt: the caller commits, whatever the answer."""
    row = (await session.execute(ATTEMPT, {"contact": contact_id, "most": ATTEMPTS, "now": moment})).first()
    if row is None:
        return NoCode()
    if not digests.is_code(contact_id, code, bytes(row.digest)):
        return Wrong(ATTEMPTS - row.attempts)
    await session.execute(USED, {"contact": contact_id})
    return Proved()
