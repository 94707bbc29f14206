"""The consents of an account, for the operator who must prove them: page by page, or as one file for a spreadsheet."""

import csv
import io
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.api import AccountNumber
from app.accounts.consents import Act
from app.accounts.models import Consent
from app.accounts.search import account_of
from app.accounts.shapes import Channel
from app.core.auth import MayReadAccounts
from app.core.db import SessionDep, as_utc
from app.core.http import Guarded
from app.core.page import Page, Paging, encode_cursor

router = APIRouter(prefix="/accounts", tags=["accounts"], route_class=Guarded)

# A file is whole: what is more than this no person has switched by hand.
MOST_LINES = 50_000
COLUMNS = ("at", "act", "type", "channel", "address", "via", "by", "text_version", "detail", "id")
# What a spreadsheet takes for a formula, also after white space.
FORMULA = ("=", "+", "-", "@")


class ConsentOut(BaseModel):
    """One act. A type, channel or address that is null stands for all of them. The address is a keyed hash once an erasure has gone over it."""

    model_config = ConfigDict(extra="forbid")

    id: UUID
    at: datetime
    type: str | None
    channel: Channel | None
    address: str | None
    act: Act
    via: str = Field(description="How it came: sms, api, cabinet, link")
    by: str = Field(description="`subscriber`, or who acted for him")
    text_version: str | None = Field(description="The version of the text that was agreed to, where there was one")
    detail: str = Field(description="The words as they were sent")

    @classmethod
    def of(cls, row: Consent) -> Self:
        return cls.model_validate(row.model_dump(exclude={"account_id"}))


@router.get(
    "/{number}/consents",
    operation_id="list_consents",
    summary="What an account allowed and refused, newest first",
    response_model=Page[ConsentOut],
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def list_consents(
    number: AccountNumber,
    session: SessionDep,
    caller: MayReadAccounts,
    page: Paging,
    channel: Annotated[Channel | None, Query()] = None,
    type: Annotated[str | None, Query(max_length=100)] = None,  # noqa: A002 - the contract's word
    format: Annotated[Literal["json", "csv"], Query(description="csv: all of them in one file, without pages")] = "json",  # noqa: A002
) -> Page[ConsentOut] | Response:
    """Every act stays, also one that a later one has overtaken. A channel or a type finds what was said of all channels and types as well."""
    account = await account_of(session, number)
    query = sa.select(Consent).where(sa.column("account_id") == account.id).order_by(sa.column("id").desc())
    for name, value in (("channel", channel), ("type", type)):
        if value is not None:
            query = query.where(sa.or_(sa.column(name) == value, sa.column(name).is_(None)))
    if format == "csv":
        return await _file(session, query, number)
    if key := page.key(UUID):
        query = query.where(sa.column("id") < key[0])
    found = (await session.scalars(query.limit(page.limit + 1))).all()
    shown = found[: page.limit]
    return Page(items=[ConsentOut.of(row) for row in shown], next_cursor=encode_cursor(shown[-1].id) if len(found) > page.limit else None)


async def _file(session: AsyncSession, query: sa.Select[Any], number: str) -> Response:
    rows = (await session.scalars(query.limit(MOST_LINES))).all()
    name = "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in number)
    headers = {"Content-Disposition": f'attachment; filename="consents-{name}.csv"'}
    return Response(as_csv(rows), media_type="text/csv; charset=utf-8", headers=headers)


def as_csv(rows: Iterable[Consent]) -> str:
    """RFC 4180, with a byte order mark: without it the usual spreadsheet does not read Russian."""
    written = io.StringIO()
    lines = csv.writer(written)
    lines.writerow(COLUMNS)
    for row in rows:
        lines.writerow([safe_cell(as_utc(value) if isinstance(value := getattr(row, name), datetime) else value) for name in COLUMNS])
    return "\ufeff" + written.getvalue()


def safe_cell(value: Any) -> str:
    """A cell that no spreadsheet takes for a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text
