"""Accounts for the billing and the operators: one by one, in bulk, and found again."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import ClientDisconnect

from app.accounts.imports import import_accounts, split_lines
from app.accounts.preference_shapes import AccountLine
from app.accounts.save import Saved, change, save
from app.accounts.search import MAX_QUERY, AccountNotFound, account_of, find
from app.accounts.shapes import AccountIn, AccountPatch, Number
from app.accounts.snapshots import snapshot
from app.accounts.views import AccountOut, show
from app.core import audit
from app.core.auth import Caller, MayReadAccounts, MayWriteAccounts
from app.core.db import SessionDep
from app.core.errors import BadRequest, WrongMediaType
from app.core.http import Guarded
from app.core.page import Page, Paging, encode_cursor

log = structlog.get_logger()
router = APIRouter(prefix="/accounts", tags=["accounts"], route_class=Guarded)

NDJSON: Final = "application/x-ndjson"
AccountNumber = Annotated[Number, Path(description="The account's number")]


class RejectedLineOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    line: int
    code: str
    detail: str


class ImportOut(BaseModel):
    """`rejected` lists the first 1,000, `rejected_total` counts them all."""

    model_config = ConfigDict(extra="forbid")

    received: int
    created: int
    updated: int
    unchanged: int
    rejected: list[RejectedLineOut]
    rejected_total: int


LINE_SCHEMA = AccountLine.model_json_schema(ref_template="#/components/schemas/{model}")
del LINE_SCHEMA["$defs"]  # the contract has them: they are those of PUT
IMPORT_BODY = {
    "requestBody": {
        "required": True,
        "description": "One account a line: the body of PUT with its `number`",
        "content": {NDJSON: {"schema": LINE_SCHEMA}},
    }
}


@router.get("", operation_id="list_accounts", summary="List accounts, or find them by how something of theirs begins")
async def list_accounts(
    request: Request,
    session: SessionDep,
    caller: MayReadAccounts,
    page: Paging,
    query: Annotated[str, Query(max_length=MAX_QUERY, description="How a number, an address or a word of the name begins")] = "",
) -> Page[AccountOut]:
    """In the order of their numbers. Of several words each begins a word of the name."""
    key = page.key(str)
    found = await find(session, query, key[0] if key else "", page.limit + 1, request.app.state.settings.phone_region)
    shown = found[: page.limit]
    return Page(items=await show(session, shown), next_cursor=encode_cursor(shown[-1].number) if len(found) > page.limit else None)


@router.post("/import", operation_id="import_accounts", summary="Make or update many accounts", openapi_extra=IMPORT_BODY)
async def import_many(request: Request, caller: MayWriteAccounts) -> ImportOut:
    """JSON lines of any number, at most 64 KiB each, committed 5,000 at a time. A broken line is rejected with its number, and the rest goes on.

    Sending the same again changes nothing. Of the lines of one number the later wins. Whoever hangs up in the middle leaves whole chunks.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != NDJSON:
        raise WrongMediaType(f"Send the accounts as {NDJSON}.")
    state = request.app.state
    try:
        report = await import_accounts(state.database, state.settings, split_lines(request.stream()))
    except ClientDisconnect:
        log.warning("import_abandoned")
        raise BadRequest("The body ended before its end: what was committed stays.", code="body_unfinished") from None
    async with state.database.transaction() as session:
        counts = {name: getattr(report, name) for name in ("received", "created", "updated", "unchanged", "rejected_total")}
        await audit.record(session, caller, "account.import", "accounts", counts)
    return ImportOut.model_validate(report, from_attributes=True)


@router.put(
    "/{number}",
    operation_id="put_account",
    summary="Make an account, or bring it up to date",
    responses={201: {"model": AccountOut, "description": "It is a new one"}},
)
async def put_account(
    *, request: Request, number: AccountNumber, body: AccountIn, session: SessionDep, caller: MayWriteAccounts, response: Response
) -> AccountOut:
    """What is given replaces what is stored, what is left out stays; of a new account it is the operator's default.

    A snapshot may be older than what an event has told since: a stored balance of a later `balance_as_of` stays, with its time, and the rest is taken.
    """
    settings = request.app.state.settings
    saved = (await save(session, [snapshot(number, body, settings.phone_region)], settings))[number]
    if saved.outcome == "created":
        response.status_code = 201
    await _record(session, caller, "account.create" if saved.outcome == "created" else "account.update", saved)
    return await _shown(session, number)


@router.get("/{number}", operation_id="get_account", summary="An account with its contacts and charges")
async def get_account(number: AccountNumber, session: SessionDep, caller: MayReadAccounts) -> AccountOut:
    return await _shown(session, number)


@router.patch("/{number}", operation_id="patch_account", summary="Change something of an account")
async def patch_account(request: Request, number: AccountNumber, body: AccountPatch, session: SessionDep, caller: MayWriteAccounts) -> AccountOut:
    """As PUT, but it makes no new account."""
    saved = await change(session, [snapshot(number, body, request.app.state.settings.phone_region)])
    if number not in saved:
        raise AccountNotFound
    await _record(session, caller, "account.update", saved[number])
    return await _shown(session, number)


async def _record(session: AsyncSession, caller: Caller, action: str, saved: Saved) -> None:
    """By the account's id: a number in the audit would outlive an erasure."""
    if saved.outcome != "unchanged":
        await audit.record(session, caller, action, f"account:{saved.id}", {name: _plain(value) for name, value in saved.changes.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


async def _shown(session: AsyncSession, number: str) -> AccountOut:
    return (await show(session, [await account_of(session, number)]))[0]
