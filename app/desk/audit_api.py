"""Who changed what: searched by whom, what, when, and whose."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.auth import MayReadAudit
from app.core.db import SessionDep
from app.core.http import Guarded
from app.core.page import Page, Paging, bad_cursor, encode_cursor
from app.core.peppers import forms_of

router = APIRouter(prefix="/audit", tags=["audit"], route_class=Guarded)

SHOWN = """
SELECT r.id, r.at, r.actor, r.action, r.object, r.changes, r.request_id, r.account_id, s.seq
FROM audit_record r LEFT JOIN audit_seal s ON s.record_id = r.id
"""
ACCOUNT = sa.text("SELECT id FROM account WHERE number = :number")
# An erased account has no number any more; the record of its erasure keeps the hash of it.
ERASED = sa.text("SELECT account_id FROM audit_record WHERE action = 'account.erase' AND changes ->> 'number' = ANY(CAST(:forms AS text[]))")


class AuditRecordOut(BaseModel):
    """One change. A pair in `changes` is before and after; `hmac:...` stands for a personal value."""

    model_config = ConfigDict(extra="forbid")

    id: UUID
    seq: int | None = Field(description="Its place in the chain; null for the first seconds")
    at: datetime
    actor: str = Field(examples=["key:ab12cd34"])
    action: str = Field(examples=["template.publish"])
    object: str = Field(examples=["gateway:main"])
    account_id: UUID | None = Field(description="The account that it is about")
    changes: dict[str, Any]
    request_id: str | None


@router.get("", operation_id="search_audit", summary="Who changed what, newest first")
async def search_audit(
    *,
    session: SessionDep,
    caller: MayReadAudit,
    page: Paging,
    actor: Annotated[str | None, Query(max_length=120, description="`key:` and the id of a key, `subscriber`, `command line`")] = None,
    action: Annotated[str | None, Query(max_length=60)] = None,
    object_: Annotated[str | None, Query(alias="object", max_length=300)] = None,
    from_: Annotated[AwareDatetime | None, Query(alias="from", description="Not before")] = None,
    to: Annotated[AwareDatetime | None, Query(description="Before")] = None,
    account: Annotated[str | None, Query(min_length=1, max_length=64, description="The number of an account, an erased one's too")] = None,
) -> Page[AuditRecordOut]:
    """Each filter narrows. Personal values are never in it, but an account is found by its number."""
    wanted: list[tuple[str, str, Any]] = []
    for column, value in (("actor", actor), ("action", action), ("object", object_)):
        if value is not None:
            wanted.append((f"r.{column} = :{column}", column, value))
    if from_ is not None:
        wanted.append(("r.at >= :from_at", "from_at", from_))
    if to is not None:
        wanted.append(("r.at < :to_at", "to_at", to))
    if account is not None:
        wanted.append(("r.account_id = ANY(CAST(:accounts AS uuid[]))", "accounts", await accounts_of(session, account)))
    if key := page.key(str, UUID):
        wanted.append(("(r.at, r.id) < (:after_at, CAST(:after_id AS uuid))", "after_at", moment_of(key[0])))
    values = {name: value for _, name, value in wanted} | {"limit": page.limit + 1} | ({"after_id": key[1]} if key else {})
    where = f"WHERE {' AND '.join(condition for condition, _, _ in wanted)}" if wanted else ""
    found = (await session.execute(sa.text(f"{SHOWN} {where} ORDER BY r.at DESC, r.id DESC LIMIT :limit"), values)).all()
    shown = found[: page.limit]
    items = [AuditRecordOut.model_validate(dict(row._mapping)) for row in shown]  # noqa: SLF001 - SQLAlchemy's name for a row as a mapping
    return Page(items=items, next_cursor=encode_cursor(shown[-1].at.isoformat(), shown[-1].id) if len(found) > page.limit else None)


async def accounts_of(session: AsyncSession, number: str) -> list[UUID]:
    """The accounts that have, or had, this number."""
    living = list((await session.execute(ACCOUNT, {"number": number})).scalars())
    return living + list((await session.execute(ERASED, {"forms": await forms_of(session, number)})).scalars())


def moment_of(written: str) -> datetime:
    """The time in a cursor, which comes from outside, too."""
    try:
        moment = datetime.fromisoformat(written)
        if moment.tzinfo is None:
            raise ValueError
        moment.utctimetuple()
    except (ValueError, OverflowError):
        raise bad_cursor() from None
    return moment
