"""The cabinet: a subscriber sees his own account, whatever its number is."""

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.api import contacts_page
from app.accounts.models import Account
from app.accounts.search import account_of
from app.accounts.views import ContactOut, OwnAccountOut
from app.core.auth import Caller, Subscriber
from app.core.db import SessionDep
from app.core.http import Guarded
from app.core.page import Page, Paging

router = APIRouter(prefix="/me", tags=["cabinet"], route_class=Guarded)


@router.get("", operation_id="get_own_account", summary="My account")
async def get_own_account(session: SessionDep, caller: Subscriber) -> OwnAccountOut:
    return OwnAccountOut.of(await own_account(session, caller))


@router.get("/contacts", operation_id="list_own_contacts", summary="Where I am reached")
async def list_own_contacts(session: SessionDep, caller: Subscriber, page: Paging) -> Page[ContactOut]:
    return await contacts_page(session, await own_account(session, caller), page)


async def own_account(session: AsyncSession, caller: Caller) -> Account:
    """The account that the token names, or AccountNotFound: a token may outlive its account."""
    return await account_of(session, caller.account or "")
