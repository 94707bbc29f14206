"""Contacts over the API: an operator's, on the subscriber's behalf, and the subscriber's own, proved by a code.

A contact of the subscriber's is told nothing before it is proved. Of others' contacts no answer says anything: an address that half the town has is
added, proved and refused like any other.
"""

from datetime import datetime
from typing import Annotated, Literal, Self, assert_never
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts import contact_book as book
from app.accounts.api import AccountNumber
from app.accounts.cabinet import own_account
from app.accounts.codes import NoCode, Proved, Wrong, enter
from app.accounts.models import Account, Contact
from app.accounts.search import account_of
from app.accounts.shapes import ContactIn, Label
from app.accounts.views import ContactOut
from app.core.auth import Caller, MayReadAccounts, MayWriteAccounts, Subscriber
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import Conflict, Invalid, TooMany, Unavailable, field_invalid
from app.core.http import Guarded
from app.core.limits import admit_code
from app.core.page import Page, Paging
from app.notifications.verification import Sent, TooSoon, Unable, Verification, withdraw_of

router = APIRouter(prefix="/accounts", tags=["accounts"], route_class=Guarded)
own = APIRouter(prefix="/me/contacts", tags=["cabinet"], route_class=Guarded)


class TooManyCodes(TooMany):
    """So many codes were sent already."""

    code, title = "too_many_codes", "Too many codes were sent"


class VerifiedAlready(Conflict):
    """There is nothing to prove."""

    code, title = "already_verified", "This contact is verified already"


class WrongCode(Invalid):
    """It is another one."""

    code, title = "wrong_code", "This is not the code"


class NoValidCode(Conflict):
    """Nothing to compare with."""

    code, title = "no_valid_code", "There is no valid code"


class ContactAdded(ContactIn):
    """A contact on the subscriber's behalf. `verified`: the caller vouches that the subscriber has it; else a code proves it."""

    verified: StrictBool = False


class ContactPatch(BaseModel):
    """What is left out stays."""

    model_config = ConfigDict(extra="forbid")

    label: Label | None = None
    verified: Literal[True] | None = Field(default=None, description="true: the caller vouches that the subscriber has it")


class OwnContactPatch(BaseModel):
    model_config = ConfigDict(extra="forbid")

    label: Label


class CodeIn(BaseModel):
    """The code as it was received."""

    model_config = ConfigDict(extra="forbid")

    code: Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[0-9]{6}$")] = Field(examples=["482913"])


class CodeSentOut(BaseModel):
    """A code is on its way to the contact."""

    model_config = ConfigDict(extra="forbid")

    good_until: datetime
    again_from: datetime = Field(description="From when on another one may be asked for")

    @classmethod
    def of(cls, sent: Sent) -> Self:
        return cls(good_until=sent.good_until, again_from=sent.again_from)


class ContactWithCodeOut(ContactOut):
    """A contact that has just been added, and the code that was sent to it."""

    code: CodeSentOut


@router.get("/{number}/contacts", operation_id="list_contacts", summary="Where an account is reached")
async def list_contacts(number: AccountNumber, session: SessionDep, caller: MayReadAccounts, page: Paging) -> Page[ContactOut]:
    return await book.contacts_page(session, await account_of(session, number), page)


@router.get("/{number}/contacts/{contact_id}", operation_id="get_contact", summary="One contact")
async def get_contact(number: AccountNumber, contact_id: UUID, session: SessionDep, caller: MayReadAccounts) -> ContactOut:
    return ContactOut.of(await book.contact_of(session, await account_of(session, number), contact_id))


@router.post("/{number}/contacts", operation_id="add_contact", summary="Add an address on the subscriber's behalf", status_code=201)
async def add_contact(request: Request, number: AccountNumber, body: ContactAdded, session: SessionDep, caller: MayWriteAccounts) -> ContactOut:
    """It counts as the subscriber's own, so that the billing's next snapshot leaves it alone. Unless it is `verified` it is told nothing until a code
    that the subscriber asks for in his cabinet has proved it. The same address on other accounts is no obstacle."""
    account = await account_of(session, number, lock=True)
    region = request.app.state.settings.phone_region
    return ContactOut.of(await book.add(session, account, body, region, verified=body.verified, caller=caller))


@router.patch("/{number}/contacts/{contact_id}", operation_id="patch_contact", summary="Another label; or vouch for an address")
async def patch_contact(number: AccountNumber, contact_id: UUID, body: ContactPatch, session: SessionDep, caller: MayWriteAccounts) -> ContactOut:
    contact = await book.contact_of(session, await account_of(session, number, lock=True), contact_id)
    if body.label is not None:
        await book.rename(session, contact, body.label, caller)
    if body.verified:
        await book.verify(session, contact, caller, "the operator vouches for it")
    return ContactOut.of(contact)


@router.delete("/{number}/contacts/{contact_id}", operation_id="delete_contact", summary="Forget an address of the subscriber's", status_code=204)
async def delete_contact(number: AccountNumber, contact_id: UUID, session: SessionDep, caller: MayWriteAccounts) -> None:
    """What waits for it is cancelled (`contact_removed`), and what was chosen for it is forgotten. The billing's own contacts are removed in the billing."""
    await _remove(session, await account_of(session, number, lock=True), contact_id, caller)


@own.get("", operation_id="list_own_contacts", summary="Where I am reached")
async def list_own_contacts(session: SessionDep, caller: Subscriber, page: Paging) -> Page[ContactOut]:
    return await book.contacts_page(session, await own_account(session, caller), page)


@own.get("/{contact_id}", operation_id="get_own_contact", summary="One contact of mine")
async def get_own_contact(contact_id: UUID, session: SessionDep, caller: Subscriber) -> ContactOut:
    return ContactOut.of(await book.contact_of(session, await own_account(session, caller), contact_id))


@own.post("", operation_id="add_own_contact", summary="Add an address, and have a code sent to it", status_code=201)
async def add_own_contact(request: Request, body: ContactIn, session: SessionDep, caller: Subscriber) -> ContactWithCodeOut:
    """Nothing but the code goes there until it was entered."""
    await admit_code(request, caller)
    account = await own_account(session, caller, lock=True)
    contact = await book.add(session, account, body, request.app.state.settings.phone_region, verified=False, caller=caller)
    sent = await _send_code(request, session, contact)
    return ContactWithCodeOut(**ContactOut.of(contact).model_dump(), code=sent)


@own.patch("/{contact_id}", operation_id="patch_own_contact", summary="Another label")
async def patch_own_contact(contact_id: UUID, body: OwnContactPatch, session: SessionDep, caller: Subscriber) -> ContactOut:
    contact = await book.contact_of(session, await own_account(session, caller, lock=True), contact_id)
    await book.rename(session, contact, body.label, caller)
    return ContactOut.of(contact)


@own.delete("/{contact_id}", operation_id="delete_own_contact", summary="Forget an address of mine", status_code=204)
async def delete_own_contact(contact_id: UUID, session: SessionDep, caller: Subscriber) -> None:
    """What waits for it is cancelled, and what was chosen for it is forgotten. Those that come from the billing stay; preferences turn them off."""
    await _remove(session, await own_account(session, caller, lock=True), contact_id, caller)


@own.post("/{contact_id}/code", operation_id="send_own_code", summary="Have another code sent", status_code=202)
async def send_own_code(request: Request, contact_id: UUID, session: SessionDep, caller: Subscriber) -> CodeSentOut:
    """The one before it is good no more. After a minute, five times an hour for a contact, ten times a day for an account."""
    await admit_code(request, caller)
    contact = await book.contact_of(session, await own_account(session, caller, lock=True), contact_id)
    if book.is_verified(contact):
        raise VerifiedAlready("This contact is verified already: there is nothing to prove.")
    return await _send_code(request, session, contact)


@own.post("/{contact_id}/verify", operation_id="verify_own_contact", summary="Enter the code that came to a contact")
async def verify_own_contact(request: Request, contact_id: UUID, body: CodeIn, caller: Subscriber) -> ContactOut:
    """Five attempts for each code. From then on the contact is told what it is to be told. Again, it changes nothing."""
    await admit_code(request, caller)
    state = request.app.state
    # Its own transaction: an attempt is spent whatever comes of it.
    async with state.database.transaction() as session:
        contact = await book.contact_of(session, await own_account(session, caller, lock=True), contact_id)
        entered = Proved() if book.is_verified(contact) else await enter(session, state.verification.digests, contact.id, body.code, now())
        if isinstance(entered, Proved):
            await book.verify(session, contact, caller, "a code sent to it was entered")
            shown = ContactOut.of(contact)
    match entered:
        case Proved():
            return shown
        case Wrong(left=left):
            said = f"{left} more attempts" if left != 1 else "one more attempt"
            raise field_wrong(f"This is not the code that was sent last: you have {said}." if left else "This is not the code: have another one sent.")
        case NoCode():
            raise NoValidCode("There is no code that is still good: have another one sent.")
        case _:
            assert_never(entered)


def field_wrong(detail: str) -> WrongCode:
    return WrongCode(detail, errors=field_invalid(("code",), "wrong_code", detail).errors)


async def _remove(session: AsyncSession, account: Account, contact_id: UUID, caller: Caller) -> None:
    contact = await book.contact_of(session, account, contact_id)
    await book.remove(session, account, contact, caller)
    await withdraw_of(session, contact, "contact_removed", now())


async def _send_code(request: Request, session: AsyncSession, contact: Contact) -> CodeSentOut:
    moment = now()
    verification: Verification = request.app.state.verification
    answer = await verification.send(session, contact, moment)
    match answer:
        case Sent():
            request.state.after_commit = list(answer.queues)
            return CodeSentOut.of(answer)
        case TooSoon(until=until):
            wait = max(1, int((until - moment).total_seconds()) + 1)
            raise TooManyCodes(f"A code was sent already: another one may be asked for in {wait} s.", headers={"Retry-After": str(wait)})
        case Unable(reason=reason):
            if reason == "type_disabled":
                raise Conflict("The operator has turned confirmation codes off: ask him to add the contact.", code="verification_off")
            raise Unavailable("The code cannot be sent just now: try again later.", code="verification_unavailable")
        case _:
            assert_never(answer)
