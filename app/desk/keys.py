"""Keys for billings, operators and dashboards: made, listed, revoked; and the contacts to which the test messages of a key may go."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, Self

import sqlalchemy as sa
from fastapi import APIRouter, Path, Request
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.contacts import AddressError, normalise
from app.core import audit
from app.core.auth import SCOPES, Admin, Caller, Role, create_key
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import FieldError, Invalid, NotFound, pointer
from app.core.http import Guarded
from app.core.models import ApiKey
from app.core.page import Page, Paging, bad_cursor, encode_cursor

router = APIRouter(prefix="/keys", tags=["keys"], route_class=Guarded)

MOST_CONTACTS = 10
KeyId = Annotated[str, Path(min_length=1, max_length=8)]


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


class KeyContact(BaseModel):
    """Where a test message may go."""

    model_config = ConfigDict(extra="forbid")

    channel: Literal["sms", "email"]
    address: Annotated[str, Field(min_length=1, max_length=320)] = Field(examples=["+79161234567"])


class KeyContactsIn(BaseModel):
    """All of them: what is left out is taken away."""

    model_config = ConfigDict(extra="forbid")

    contacts: Annotated[list[KeyContact], Field(max_length=MOST_CONTACTS)]


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
    contacts: list[KeyContact] = Field(description="Where its test messages may go")

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
async def revoke_key(request: Request, key_id: KeyId, caller: Admin) -> None:
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


@router.put("/{key_id}/contacts", operation_id="set_key_contacts", summary="Say where the test messages of a key may go")
async def put_contacts(request: Request, key_id: KeyId, body: KeyContactsIn, session: SessionDep, caller: Admin) -> KeyOut:
    """An administrator alone says so: else a key that may write templates could write to anybody. Each address is kept in its one form, and once."""
    return KeyOut.of(await set_contacts(session, caller, key_id, body.contacts, request.app.state.settings.phone_region))


async def set_contacts(session: AsyncSession, caller: Caller | str, key_id: str, given: Sequence[KeyContact], region: str) -> ApiKey:
    """The key with these contacts and no others; KeyNotFound, or Invalid with a pointer to each bad address. Again it changes nothing."""
    row = await session.get(ApiKey, key_id, with_for_update=True)
    if row is None:
        raise KeyNotFound
    contacts: list[dict[str, str]] = []
    faults: list[FieldError] = []
    for n, contact in enumerate(given):
        try:
            one = {"channel": contact.channel, "address": normalise(contact.channel, contact.address, region)}
        except AddressError as bad:
            faults.append(FieldError(pointer("contacts", n, "address"), bad.code, bad.detail))
        else:
            contacts += [one] if one not in contacts else []
    if faults:
        raise Invalid(f"{faults[0].pointer}: {faults[0].detail}", errors=faults)
    if row.contacts != contacts:
        row.contacts = contacts
        await audit.record(session, caller, "key.contacts", f"key:{key_id}", {"contacts": contacts, "count": len(contacts)})
    return row


async def contacts_of(session: AsyncSession, caller: Caller, channel: str) -> list[str]:
    """The addresses on this channel to which the test messages of the calling key may go, as they are now."""
    row = await session.get(ApiKey, caller.key_id)
    return [contact["address"] for contact in row.contacts if contact["channel"] == channel] if row is not None else []
