"""The contacts of one account: added, renamed, proved, removed. Whoever changes them has locked the account."""

from datetime import datetime
from typing import Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.consents import Switch, record_switches
from app.accounts.contacts import AddressError, normalise
from app.accounts.models import Account, Contact
from app.accounts.preference_store import forget_contact
from app.accounts.shapes import MAX_CONTACTS, ContactIn
from app.accounts.views import ContactOut
from app.core import audit
from app.core.auth import Caller
from app.core.clock import now
from app.core.errors import Conflict, NotFound, field_invalid
from app.core.ids import new_id
from app.core.page import Page, Paging, encode_cursor

FORGET_CODE = sa.text("DELETE FROM contact_code WHERE contact_id = :contact")


class ContactNotFound(NotFound):
    """The account has no contact of this id."""

    code, title = "contact_not_found", "The account has no such contact"


class ContactExists(Conflict):
    """The account has this address already."""

    code, title = "contact_exists", "The account has this address already"


class TooManyContacts(Conflict):
    """The account is full."""

    code, title = "too_many_contacts", f"An account has at most {MAX_CONTACTS} contacts"


class BillingsContact(Conflict):
    """It comes and goes with the billing's data."""

    code, title = "billing_contact", "This contact is the billing's"


async def contacts_page(session: AsyncSession, account: Account, page: Paging) -> Page[ContactOut]:
    """The contacts of one account, oldest first."""
    query = sa.select(Contact).where(sa.column("account_id") == account.id).order_by(sa.column("id")).limit(page.limit + 1)
    if key := page.key(UUID):
        query = query.where(sa.column("id") > key[0])
    found = (await session.scalars(query)).all()
    shown = found[: page.limit]
    return Page(items=[ContactOut.of(contact) for contact in shown], next_cursor=encode_cursor(shown[-1].id) if len(found) > page.limit else None)


async def contact_of(session: AsyncSession, account: Account, contact_id: UUID) -> Contact:
    """This contact of this account, or ContactNotFound: another account's is not found either."""
    contact = await session.get(Contact, contact_id)
    if contact is None or contact.account_id != account.id:
        raise ContactNotFound
    return contact


def checked_address(body: ContactIn, region: str) -> str:
    """The address in its one form, or Invalid."""
    try:
        return normalise(body.channel, body.address, region)
    except AddressError as error:
        raise field_invalid(("address",), error.code, error.detail) from None


async def add(session: AsyncSession, account: Account, body: ContactIn, region: str, *, verified: bool, caller: Caller) -> Contact:
    """One more contact of the subscriber's own, so that the billing's next snapshot leaves it alone. `verified`: the caller vouches for it.

    ContactExists, with the id of the one that is there, or TooManyContacts. The same address on another account is nobody's business here."""
    address = checked_address(body, region)
    known = (await session.scalars(sa.select(Contact).where(sa.column("account_id") == account.id))).all()
    if same := next((contact for contact in known if (contact.channel, contact.address) == (body.channel, address)), None):
        raise ContactExists(f"The account has this address already, as the contact {same.id}.")
    if len(known) >= MAX_CONTACTS:
        raise TooManyContacts(f"An account has at most {MAX_CONTACTS} contacts: remove one first.")
    moment = now()
    contact = Contact(
        id=new_id(),
        account_id=account.id,
        channel=body.channel,
        address=address,
        label=body.label,
        origin="subscriber",
        verified_at=moment if verified else None,
        created_at=moment,
    )
    session.add(contact)
    await session.flush()
    await audit.record(session, caller, "contact.create", target(contact), described(contact) | {"verified": verified})
    if verified:
        await consent(session, contact, "allowed", caller, moment, "contact added; the operator vouches for it")
    return contact


async def rename(session: AsyncSession, contact: Contact, label: str, caller: Caller) -> None:
    """Another label. BillingsContact for one of the billing's, whose next snapshot would undo it."""
    if contact.origin == "billing":
        raise BillingsContact("It is the billing's, and so is its label: change it there.")
    if contact.label != label:
        await audit.record(session, caller, "contact.update", target(contact), {"account": str(contact.account_id), "label": [contact.label, label]})
        contact.label = label
        await session.flush()


async def verify(session: AsyncSession, contact: Contact, caller: Caller, how: str) -> None:
    """From now on it is told. Again it changes nothing."""
    if is_verified(contact):
        return
    contact.verified_at = now()
    await session.flush()
    await session.execute(FORGET_CODE, {"contact": contact.id})
    await audit.record(session, caller, "contact.verify", target(contact), described(contact) | {"how": how})
    await consent(session, contact, "allowed", caller, contact.verified_at, f"contact verified: {how}")


async def remove(session: AsyncSession, account: Account, contact: Contact, caller: Caller) -> None:
    """The contact, its code and what was chosen for it are gone. What waits for it is the caller's to end. BillingsContact for one of the billing's."""
    if contact.origin == "billing":
        raise BillingsContact(
            "It is the billing's: leave it out of the account's next snapshot there; or turn it off in the preferences (contacts, its id, enabled: false)."
        )
    moment = now()
    await session.delete(contact)
    await session.flush()
    account.imported = account.imported_lists = None  # the same address in the billing's next snapshot is news
    await session.execute(FORGET_CODE, {"contact": contact.id})
    await forget_contact(session, account.id, contact.id, by=caller.name, moment=moment)
    await audit.record(session, caller, "contact.delete", target(contact), described(contact))
    await consent(session, contact, "refused", caller, moment, "contact removed")


def is_verified(contact: Contact) -> bool:
    """The billing vouches for its own."""
    return contact.origin == "billing" or contact.verified_at is not None


async def consent(session: AsyncSession, contact: Contact, act: Literal["allowed", "refused"], caller: Caller, moment: datetime, detail: str) -> None:
    said = Switch(act, channel=contact.channel, address=contact.address, detail=detail)
    via = "cabinet" if caller.account is not None else "api"
    await record_switches(session, contact.account_id, [said], via=via, by=caller.name, moment=moment)


def target(contact: Contact) -> str:
    return f"contact:{contact.id}"


def described(contact: Contact) -> dict[str, str]:
    return {"account": str(contact.account_id), "channel": contact.channel, "address": contact.address}
