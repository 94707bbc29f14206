"""The consents of an account, for the operator who must prove them."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from app.accounts.api import AccountNumber
from app.accounts.consents import Act
from app.accounts.models import Consent
from app.accounts.search import account_of
from app.accounts.shapes import Channel
from app.core.auth import MayReadAccounts
from app.core.db import SessionDep
from app.core.http import Guarded
from app.core.page import Page, Paging, encode_cursor

router = APIRouter(prefix="/accounts", tags=["accounts"], route_class=Guarded)


class ConsentOut(BaseModel):
    """One act. Its address is a keyed hash once an erasure has gone over it."""

    model_config = ConfigDict(extra="forbid")

    id: UUID
    at: datetime
    channel: Channel
    address: str
    act: Act
    via: str = Field(description="How it came: sms, api, cabinet, link")
    by: str = Field(description="`subscriber`, or who acted for him")
    text_version: str | None = Field(description="The version of the text that was agreed to, where there was one")
    detail: str = Field(description="The words as they were sent")

    @classmethod
    def of(cls, row: Consent) -> Self:
        return cls.model_validate(row.model_dump(exclude={"account_id"}))


@router.get("/{number}/consents", operation_id="list_consents", summary="What an account allowed and refused, newest first")
async def list_consents(
    number: AccountNumber, session: SessionDep, caller: MayReadAccounts, page: Paging, channel: Annotated[Channel | None, Query()] = None
) -> Page[ConsentOut]:
    """Every act stays, also one that a later one has overtaken."""
    account = await account_of(session, number)
    query = sa.select(Consent).where(sa.column("account_id") == account.id).order_by(sa.column("id").desc()).limit(page.limit + 1)
    if channel is not None:
        query = query.where(sa.column("channel") == channel)
    if key := page.key(UUID):
        query = query.where(sa.column("id") < key[0])
    found = (await session.scalars(query)).all()
    shown = found[: page.limit]
    return Page(items=[ConsentOut.of(row) for row in shown], next_cursor=encode_cursor(shown[-1].id) if len(found) > page.limit else None)
