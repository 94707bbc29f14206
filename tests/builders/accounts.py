"""Accounts and their contacts, as rows."""

from decimal import Decimal

from app.accounts.models import Account, Contact
from app.core.db import Database

PHONE = "+79161234567"
MAIL = "subscriber@example.org"


async def an_account(
    database: Database, number: str = "100500", *, phones: tuple[str, ...] = (PHONE,), mails: tuple[str, ...] = (), **fields: object
) -> Account:
    """An active account in Moscow that speaks Russian, reached on these addresses."""
    given = {"number": number, "currency": "RUB", "locale": "ru", "timezone": "Europe/Moscow", "balance": Decimal("100.00")}
    account = Account(**(given | fields))
    async with database.transaction() as session:
        session.add(account)
        await session.flush()
        session.add_all(a_contact(account, "sms", phone) for phone in phones)
        session.add_all(a_contact(account, "email", mail) for mail in mails)
    return account


def a_contact(account: Account, channel: str, address: str, **fields: object) -> Contact:
    return Contact(account_id=account.id, channel=channel, address=address, **fields)
