"""Preferences over the API: of one account, for its subscriber and for the operator on his behalf. What waits is decided again with every change."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.api import AccountNumber
from app.accounts.cabinet import own_account
from app.accounts.models import Account
from app.accounts.preference_checks import Known, KnownContact, check, warnings_of, with_ids
from app.accounts.preference_shapes import Leaves, PreferencesIn, check_size, differing
from app.accounts.preference_store import Change, Stored, stored, write
from app.accounts.quiet import QuietHoursNow
from app.accounts.search import account_of
from app.accounts.shapes import LocaleTag
from app.core import audit
from app.core.auth import Caller, MayReadAccounts, MayWriteAccounts, Subscriber
from app.core.clock import now
from app.core.db import SessionDep
from app.core.http import Guarded
from app.core.preconditions import IfMatch, etag, require_match
from app.desk.preferences_view import PreferencesOut, Seen, shown
from app.notifications.audience import Reached
from app.notifications.plan import CONTACTS, zone_of
from app.notifications.replan import replan

router = APIRouter(prefix="/accounts", tags=["accounts"], route_class=Guarded)
own_router = APIRouter(prefix="/me", tags=["cabinet"], route_class=Guarded)

Words = Annotated[LocaleTag | None, Query(description="The language of titles and grounds; left out: that of the account")]


@router.get("/{number}/preferences", operation_id="get_preferences", summary="What a subscriber has chosen, and what comes of it")
async def get_preferences(
    number: AccountNumber, request: Request, session: SessionDep, caller: MayReadAccounts, response: Response, locale: Words = None
) -> PreferencesOut:
    return await _shown(session, request, await account_of(session, number), response, locale)


@router.put("/{number}/preferences", operation_id="put_preferences", summary="Choose on the subscriber's behalf")
async def put_preferences(
    *,
    number: AccountNumber,
    request: Request,
    body: PreferencesIn,
    session: SessionDep,
    caller: MayWriteAccounts,
    response: Response,
    if_match: IfMatch = None,
    locale: Words = None,
) -> PreferencesOut:
    """Replaces all that was chosen: what is left out is as the operator has it. Needs If-Match, but for the first time.

    What is held or queued is decided again: cancelled where it was refused now, moved where the hours are others."""
    account = await account_of(session, number, lock=True)
    await _put(session, request, caller, account, body, if_match, via="api")
    return await _shown(session, request, account, response, locale)


@own_router.get("/preferences", operation_id="get_own_preferences", summary="What I have chosen, and what comes of it")
async def get_own_preferences(request: Request, session: SessionDep, caller: Subscriber, response: Response, locale: Words = None) -> PreferencesOut:
    return await _shown(session, request, await own_account(session, caller), response, locale)


@own_router.put("/preferences", operation_id="put_own_preferences", summary="Choose")
async def put_own_preferences(
    *, request: Request, body: PreferencesIn, session: SessionDep, caller: Subscriber, response: Response, if_match: IfMatch = None, locale: Words = None
) -> PreferencesOut:
    """Replaces all that I have chosen: what is left out is as the operator has it. Needs If-Match, but for the first time."""
    account = await own_account(session, caller, lock=True)
    await _put(session, request, caller, account, body, if_match, via="cabinet")
    return await _shown(session, request, account, response, locale)


async def _put(session: AsyncSession, request: Request, caller: Caller, account: Account, body: PreferencesIn, if_match: str | None, *, via: str) -> None:
    """Everything in the one transaction, the account locked: the choices, their consents, the audit, and what waits."""
    before = (await stored(session, [account.id])).get(account.id, Stored())
    if before.revision or if_match is not None:
        require_match(if_match, before.revision)
    check_size(body.leaves)  # before anything that takes its time with each of them
    seen = await _seen(session, request, account)
    after = with_ids(body.leaves, seen.known.contacts, request.app.state.settings.phone_region)
    after = {place: value for place, value in after.items() if not _is_left_over(place, before.leaves, seen.known)}
    check_size(after)
    check(before.leaves, after, seen.known)
    change = Change(account.id, before.leaves, after, seen.known.contacts)
    if not change.differs:
        return
    await write(session, [change], seen.known.types, by=caller.name, via=via, moment=seen.known.now)
    await session.refresh(account)  # the threshold and the days that are kept beside the balance
    changes = {".".join(place): list(said) for place, said in differing(before.leaves, after).items()}
    await audit.record(session, caller, "preferences.update", f"account:{account.id}", changes)
    await replan(session, [account.id], request.app.state.settings, catalogue=request.app.state.catalogue)


def _is_left_over(place: tuple[str, ...], before: Leaves, known: Known) -> bool:
    """A choice for a contact that has gone since: whoever sends back what he has read is not to blame for it."""
    return place[0] == "contacts" and place in before and all(str(contact.id) != place[1] for contact in known.contacts)


async def _shown(session: AsyncSession, request: Request, account: Account, response: Response, locale: str | None) -> PreferencesOut:
    has = (await stored(session, [account.id])).get(account.id, Stored())
    seen = await _seen(session, request, account)
    response.headers["ETag"] = etag(has.revision)
    leaves = {place: value for place, value in has.leaves.items() if not _is_left_over(place, has.leaves, seen.known)}
    return shown(account, leaves, seen, locale, warnings_of(leaves, seen.known))


async def _seen(session: AsyncSession, request: Request, account: Account) -> Seen:
    """What choices are judged and shown by."""
    settings, catalogue, quiet = request.app.state.settings, request.app.state.catalogue, QuietHoursNow(request.app.state.settings.quiet)
    await catalogue.refresh(session)
    await quiet.refresh(session)
    reached = [Reached(contact_id, *rest) for contact_id, _, *rest in await session.execute(CONTACTS, {"ids": [account.id]})]
    known = Known(
        types=catalogue.types,
        contacts=[KnownContact(contact.id, contact.channel, contact.address) for contact in reached],
        credit_limit=account.credit_limit,
        zone=zone_of(account.timezone, settings.timezone),
        quiet=quiet.of(account.timezone),
        now=now(),
    )
    return Seen(known, reached, settings.locale)
