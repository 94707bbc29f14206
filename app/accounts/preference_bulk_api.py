"""An operator's change of many accounts' preferences: asked for here, done by the sweep, and looked at here."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.accounts.models import PreferenceBulk
from app.accounts.preference_bulk import BulkIn
from app.accounts.preference_checks import Known, check
from app.core import audit
from app.core.auth import MayReadAccounts, MayWriteAccounts
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import NotFound, field_invalid
from app.core.http import Guarded
from app.core.page import Page, Paging, encode_cursor

router = APIRouter(prefix="/accounts/preferences/bulk", tags=["accounts"], route_class=Guarded)


class BulkNotFound(NotFound):
    """There is none of this id."""

    code, title = "bulk_not_found", "There is no such change of many accounts"


class BulkOut(BaseModel):
    """How far it has come. `changes`: for each choice how many had which one before."""

    model_config = ConfigDict(extra="forbid")

    id: UUID
    filter: dict[str, Any]
    change: dict[str, Any]
    keep_chosen: bool
    dry_run: bool
    state: Literal["running", "done"]
    looked_at: int = Field(description="Accounts that the filter let through, up to now")
    changed: int = Field(description="of them those that differ; in a dry run those that would")
    changes: dict[str, dict[str, int]] = Field(examples=[{"types.payment.received.enabled": {"null": 812, "true": 3}}])
    requested_by: str
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, row: PreferenceBulk) -> Self:
        return cls.model_validate({name: getattr(row, name) for name in cls.model_fields})


@router.post("", operation_id="change_preferences_in_bulk", summary="Change the preferences of many accounts", status_code=202)
async def change_preferences_in_bulk(request: Request, body: BulkIn, session: SessionDep, caller: MayWriteAccounts, response: Response) -> BulkOut:
    """The workers go through the accounts in batches; a dry run counts how many would change, and how. Consents say `operator`.

    A refusal of a subscriber's own is replaced as well, unless `keep_chosen` says otherwise: have his consent."""
    catalogue = request.app.state.catalogue
    await catalogue.refresh(session)
    said = body.change.leaves
    if not said:
        raise field_invalid(("change", "types"), "nothing_to_change", "Say what is to be chosen: enabled, channels or days_before.")
    check({}, {place: value for place, value in said.items() if value is not None}, Known(catalogue.types, now()), ("change",))
    # Unset and null are two things: what is left out stays, what is null is taken back.
    row = PreferenceBulk(
        filter=body.filter.model_dump(exclude_none=True),
        change=body.change.model_dump(exclude_unset=True),
        keep_chosen=body.keep_chosen,
        dry_run=body.dry_run,
        requested_by=caller.name,
    )
    session.add(row)
    await session.flush()
    numbers = row.filter.get("numbers")
    shown = row.filter | ({"numbers": len(numbers)} if numbers is not None else {})  # a number in the audit would outlive an erasure
    await audit.record(session, caller, "preferences.bulk", f"preferences-bulk:{row.id}", {"filter": shown, "change": row.change, "dry_run": row.dry_run})
    response.headers["Location"] = f"{request.url.path}/{row.id}"
    return BulkOut.of(row)


@router.get("", operation_id="list_preference_bulks", summary="Changes of many accounts' preferences, newest first")
async def list_preference_bulks(session: SessionDep, caller: MayReadAccounts, page: Paging) -> Page[BulkOut]:
    query = sa.select(PreferenceBulk).order_by(sa.column("id").desc()).limit(page.limit + 1)
    if key := page.key(UUID):
        query = query.where(sa.column("id") < key[0])
    found = (await session.scalars(query)).all()
    shown = found[: page.limit]
    return Page(items=[BulkOut.of(row) for row in shown], next_cursor=encode_cursor(shown[-1].id) if len(found) > page.limit else None)


@router.get("/{bulk_id}", operation_id="read_preference_bulk", summary="How far one has come")
async def read_preference_bulk(bulk_id: Annotated[UUID, Path()], session: SessionDep, caller: MayReadAccounts) -> BulkOut:
    row = await session.get(PreferenceBulk, bulk_id)
    if row is None:
        raise BulkNotFound
    return BulkOut.of(row)
