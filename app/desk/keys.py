"""Keys for billings, operators and dashboards: made, listed, revoked."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

import sqlalchemy as sa
from fastapi import APIRouter, Path, Request
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from app.core import audit
from app.core.auth import SCOPES, Admin, Role, create_key
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import NotFound
from app.core.http import Guarded
from app.core.models import ApiKey
from app.core.page import Page, Paging, bad_cursor, encode_cursor

router = APIRouter(prefix="/keys", tags=["keys"], route_class=Guarded)


class KeyNotFound(NotFound):
    """There is no key of this id."""

    code, title = "key_not_found", "There is no key of this id"


def _to_come(moment: datetime) -> datetime:
    if not now() < moment < now() + timedelta(days=3660):
        raise PydanticCustomError("expires_at", "A key expires at a time to come, within ten years; leave it out for one that does not expire.")
    return moment.astimezone(UTC)


class KeyIn(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True, pattern=r"^[^\x00-\x1f\x7f]*$")]
    role: Role
    expires_at: Annotated[AwareDatetime, AfterValidator(_to_come)] | None = None


class KeyOut(BaseModel):
    """A key as it can be shown: its secret is nowhere."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(description="The 8 characters after vst_")
    name: str
    role: Role
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None = Field(description="To the minute")
    expires_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, row: ApiKey) -> Self:
        return cls.model_validate(row.model_dump(exclude={"digest"}) | {"scopes": sorted(SCOPES[row.role])})


class NewKeyOut(KeyOut):
    """The only answer that has the key itself."""

    key: str


@router.get("", operation_id="list_keys", summary="List keys, the newest first")
async def list_keys(session: SessionDep, caller: Admin, page: Paging) -> Page[KeyOut]:
    made: sa.ColumnClause[datetime] = sa.column("created_at")
    key_id: sa.ColumnClause[str] = sa.column("id")
    query = sa.select(ApiKey).order_by(made.desc(), key_id.desc()).limit(page.limit + 1)
    if after := page.key(str, str):
        query = query.where(sa.tuple_(made, key_id) < sa.tuple_(sa.literal(_moment(after[0])), sa.literal(after[1])))
    found = (await session.scalars(query)).all()
    shown = found[: page.limit]
    return Page(
        items=[KeyOut.of(row) for row in shown], next_cursor=encode_cursor(shown[-1].created_at.isoformat(), shown[-1].id) if len(found) > page.limit else None
    )


def _moment(written: str) -> datetime:
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        raise bad_cursor() from None
    if moment.tzinfo is None:
        raise bad_cursor()
    return moment


@router.post("", operation_id="create_key", summary="Make a key", status_code=201)
async def make_key(body: KeyIn, session: SessionDep, caller: Admin) -> NewKeyOut:
    """The answer shows the key this once: nobody can read it afterwards."""
    key, row = await create_key(session, body.name, body.role, body.expires_at)
    expires = body.expires_at.isoformat() if body.expires_at else None
    await audit.record(session, caller, "key.create", f"key:{row.id}", {"role": body.role, "expires_at": expires})
    return NewKeyOut.model_validate(KeyOut.of(row).model_dump() | {"key": key})


@router.delete("/{key_id}", operation_id="revoke_key", summary="Revoke a key", status_code=204)
async def revoke_key(request: Request, key_id: Annotated[str, Path(min_length=1, max_length=8)], caller: Admin) -> None:
    """At once in this process, within two seconds in the others. It stays listed; revoking it again changes nothing."""
    async with request.app.state.database.transaction() as session:
        row = await session.get(ApiKey, key_id, with_for_update=True)
        if row is None:
            raise KeyNotFound
        if row.revoked_at is None:
            row.revoked_at = now()
            await audit.record(session, caller, "key.revoke", f"key:{key_id}")
    # After the commit: a request in between would have remembered the key as it was.
    request.app.state.gatekeeper.forget(key_id)
