"""The cabinet: a subscriber sees his own account, whatever its number is."""

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.models import Account
from app.accounts.preference_shapes import Leaves, differing
from app.accounts.preference_store import Change, Stored, stored, write
from app.accounts.search import account_of
from app.accounts.shapes import LocaleTag
from app.accounts.views import OwnAccountOut
from app.core import audit
from app.core.auth import Caller, Subscriber
from app.core.clock import now
from app.core.db import SessionDep
from app.core.http import Guarded

router = APIRouter(prefix="/me", tags=["cabinet"], route_class=Guarded)
LOCALE = ("locale",)


class OwnAccountPatch(BaseModel):
    """What a subscriber may change of his account itself. What is left out stays."""

    model_config = ConfigDict(extra="forbid")

    locale: LocaleTag | None = Field(default=None, description="The language of what is sent to me; null: as the billing says")


@router.get("", operation_id="get_own_account", summary="My account")
async def get_own_account(session: SessionDep, caller: Subscriber) -> OwnAccountOut:
    """With the language and the threshold that are in force: my own ones, where I have chosen any."""
    account = await own_account(session, caller)
    return _shown(account, (await stored(session, [account.id])).get(account.id, Stored()).leaves)


@router.patch("", operation_id="patch_own_account", summary="Change the language of what is sent to me")
async def patch_own_account(session: SessionDep, body: OwnAccountPatch, caller: Subscriber) -> OwnAccountOut:
    """It is one of the preferences, whose revision it raises. What waits already is written anew when it is released."""
    account = await own_account(session, caller, lock=True)
    before = (await stored(session, [account.id])).get(account.id, Stored()).leaves
    after = dict(before)
    if "locale" in body.model_fields_set:
        after = {place: value for place, value in before.items() if place != LOCALE} | ({LOCALE: body.locale} if body.locale is not None else {})
    change = Change(account.id, before, after)
    if change.differs:
        await write(session, [change], {}, by=caller.name, via="cabinet", moment=now())
        changes = {".".join(place): list(said) for place, said in differing(before, after).items()}
        await audit.record(session, caller, "preferences.update", f"account:{account.id}", changes)
    return _shown(account, after)


async def own_account(session: AsyncSession, caller: Caller, *, lock: bool = False) -> Account:
    """The account that the token names, or AccountNotFound: a token may outlive its account. `lock`: against other changes."""
    return await account_of(session, caller.account or "", lock=lock)


def _shown(account: Account, leaves: Leaves) -> OwnAccountOut:
    return OwnAccountOut.of(account).model_copy(update={"threshold": account.warned_at, "locale": leaves.get(LOCALE, account.locale)})
