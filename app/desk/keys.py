"""Keys for billings, operators and dashboards: made, listed, changed, rotated, revoked; and the contacts to which the test messages of a key may go."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self

import sqlalchemy as sa
from fastapi import APIRouter, Path, Request
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StrictBool, StrictInt, StringConstraints, model_validator
from pydantic_core import PydanticCustomError
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.contacts import AddressError, normalise
from app.core import audit
from app.core.auth import SCOPES, Admin, Caller, Role, create_key, digest, new_secret
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import Conflict, FieldError, Invalid, NotFound, pointer
from app.core.http import Guarded
from app.core.models import ApiKey
from app.core.page import Page, Paging, bad_cursor, encode_cursor

router = APIRouter(prefix="/keys", tags=["keys"], route_class=Guarded)

MOST_CONTACTS, MOST_NETWORKS = 10, 50
KeyId = Annotated[str, Path(min_length=1, max_length=8)]


class KeyNotFound(NotFound):
    """There is no key of this id."""

    code, title = "key_not_found", "There is no key of this id"


def _to_come(moment: datetime) -> datetime:
    if not now() < moment < now() + timedelta(days=3660):
        raise PydanticCustomError("expires_at", "A key expires at a time to come, within ten years; leave it out for one that does not expire.")
    return moment.astimezone(UTC)


def _network(written: str) -> str:
    try:
        return str(ip_network(written.strip()))
    except ValueError:
        raise PydanticCustomError(
            "network", "A network is written as 10.1.0.0/16 or 2001:db8::/32 with no bits behind its mask, a single address as itself."
        ) from None


KeyName = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True, pattern=r"^[^\x00-\x1f\x7f]*$")]
Networks = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=50), AfterValidator(_network)]],
    Field(max_length=MOST_NETWORKS, description="Where it may be used, IPv4 or IPv6; empty: anywhere", examples=[["10.1.0.0/16", "2001:db8::7"]]),
]
PerSecond = Annotated[float, Field(ge=0.01, le=100_000, allow_inf_nan=False, description="Requests a second in the long run; null: as many as it likes")]
Burst = Annotated[StrictInt, Field(ge=1, le=1_000_000, description="Requests at once; a second's worth when left out")]
Quota = Annotated[
    StrictInt, Field(ge=1, le=10**12, description="A day, by VESTNIK_TIMEZONE: each event counts one, and so does any other request; null: any number")
]


class KeyLimitsIn(BaseModel):
    """From where a key may ask, and how much."""

    model_config = ConfigDict(extra="forbid")

    allowed_networks: Networks = Field(default_factory=list)
    rate_per_second: PerSecond | None = None
    burst: Burst | None = None
    daily_quota: Quota | None = None

    @model_validator(mode="after")
    def _burst_of_a_rate(self) -> Self:
        if self.burst is not None and self.rate_per_second is None:
            raise PydanticCustomError("burst", "A burst is of a rate: give rate_per_second, too.")
        return self


class KeyIn(KeyLimitsIn):
    """A key to be made."""

    name: KeyName
    role: Role
    expires_at: Annotated[AwareDatetime, AfterValidator(_to_come)] | None = None
    test: StrictBool = Field(default=False, description="What it sends goes to the simulated gateway, and never out")

    @model_validator(mode="after")
    def _no_test_of_an_administrator(self) -> Self:
        if self.test and self.role == "admin":
            raise PydanticCustomError("test_role", "A test key changes nothing but tests: its role is billing, operator or viewer.")
        return self


class RotationIn(BaseModel):
    """A new secret."""

    model_config = ConfigDict(extra="forbid")

    overlap_hours: Annotated[StrictInt, Field(ge=0, le=720, description="For how long the secret before is still taken; 0: not any more")] = 24


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
    allowed_networks: list[str]
    rate_per_second: float | None
    burst: int | None
    daily_quota: int | None
    test: bool = Field(description="What it sends goes to the simulated gateway")
    rotated_at: datetime | None
    old_until: datetime | None = Field(description="Until when the secret before is still taken")

    @classmethod
    def of(cls, row: ApiKey) -> Self:
        return cls.model_validate(row.model_dump(exclude={"digest", "old_digest"}) | {"scopes": sorted(SCOPES[row.role])})


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
    key, row = await make(session, caller, body)
    return NewKeyOut.model_validate(KeyOut.of(row).model_dump() | {"key": key})


async def make(session: AsyncSession, caller: Caller | str, wanted: KeyIn) -> tuple[str, ApiKey]:
    """The key itself, and its row."""
    key, row = await create_key(session, wanted.name, wanted.role, wanted.expires_at, test=wanted.test, **limits_of(wanted))
    given = {name: value for name, value in wanted.model_dump(mode="json", exclude={"name"}).items() if value}
    await audit.record(session, caller, "key.create", f"key:{row.id}", given)
    return key, row


def limits_of(wanted: KeyLimitsIn) -> dict[str, Any]:
    """The columns of a key that limit it."""
    return wanted.model_dump(include=set(KeyLimitsIn.model_fields))


@router.put("/{key_id}/limits", operation_id="set_key_limits", summary="Say from where a key may be used, and how much it may ask")
async def put_limits(request: Request, key_id: KeyId, body: KeyLimitsIn, caller: Admin) -> KeyOut:
    """All of them: what is left out is no limit. At once in this process, within two seconds in the others."""
    async with request.app.state.database.transaction() as session:
        row = await existing(session, key_id)
        wanted = limits_of(body)
        if changes := {name: [before, value] for name, value in wanted.items() if (before := getattr(row, name)) != value}:
            for name, value in wanted.items():
                setattr(row, name, value)
            await audit.record(session, caller, "key.limits", f"key:{key_id}", changes)
        shown = KeyOut.of(row)
    request.app.state.gatekeeper.forget(key_id)
    return shown


@router.post("/{key_id}/rotate", operation_id="rotate_key", summary="Give a key a new secret")
async def rotate_key(request: Request, key_id: KeyId, body: RotationIn, caller: Admin) -> NewKeyOut:
    """The key stays what it is, with its id, its contacts and its limits; the answer shows its new secret this once. The one before is taken for
    `overlap_hours` more; of an earlier rotation nothing is taken any more."""
    async with request.app.state.database.transaction() as session:
        key, row = await rotate(session, caller, key_id, body.overlap_hours)
        shown = NewKeyOut.model_validate(KeyOut.of(row).model_dump() | {"key": key})
    request.app.state.gatekeeper.forget(key_id)
    return shown


async def rotate(session: AsyncSession, caller: Caller | str, key_id: str, overlap_hours: int) -> tuple[str, ApiKey]:
    """The key with its new secret, and its row. KeyNotFound; Conflict for one that is revoked or has expired."""
    row, moment = await existing(session, key_id), now()
    if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= moment):
        raise Conflict("It is not valid any more: make a new key.", code="key_not_valid")
    key = new_secret(key_id)
    row.old_digest, row.old_until = (row.digest, moment + timedelta(hours=overlap_hours)) if overlap_hours else (None, None)
    row.digest, row.rotated_at = digest(key), moment
    until = row.old_until.isoformat() if row.old_until else None
    await audit.record(session, caller, "key.rotate", f"key:{key_id}", {"overlap_hours": overlap_hours, "old_until": until})
    return key, row


async def existing(session: AsyncSession, key_id: str) -> ApiKey:
    """The key, locked; or KeyNotFound."""
    row = await session.get(ApiKey, key_id, with_for_update=True)
    if row is None:
        raise KeyNotFound
    return row


@router.delete("/{key_id}", operation_id="revoke_key", summary="Revoke a key", status_code=204)
async def revoke_key(request: Request, key_id: KeyId, caller: Admin) -> None:
    """At once in this process, within two seconds in the others. It stays listed; revoking it again changes nothing."""
    async with request.app.state.database.transaction() as session:
        await revoke(session, caller, key_id)
    # After the commit: a request in between would have remembered the key as it was.
    request.app.state.gatekeeper.forget(key_id)


async def revoke(session: AsyncSession, caller: Caller | str, key_id: str) -> None:
    """KeyNotFound when there is none; of one that is revoked nothing changes."""
    row = await existing(session, key_id)
    if row.revoked_at is None:
        row.revoked_at = now()
        await audit.record(session, caller, "key.revoke", f"key:{key_id}", {"revoked_at": [None, row.revoked_at.isoformat()]})


@router.put("/{key_id}/contacts", operation_id="set_key_contacts", summary="Say where the test messages of a key may go")
async def put_contacts(request: Request, key_id: KeyId, body: KeyContactsIn, session: SessionDep, caller: Admin) -> KeyOut:
    """An administrator alone says so: else a key that may write templates could write to anybody. Each address is kept in its one form, and once."""
    return KeyOut.of(await set_contacts(session, caller, key_id, body.contacts, request.app.state.settings.phone_region))


async def set_contacts(session: AsyncSession, caller: Caller | str, key_id: str, given: Sequence[KeyContact], region: str) -> ApiKey:
    """The key with these contacts and no others; KeyNotFound, or Invalid with a pointer to each bad address. Again it changes nothing."""
    row = await existing(session, key_id)
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
        await audit.record(
            session, caller, "key.contacts", f"key:{key_id}", {"contacts": [row.contacts, contacts], "count": [len(row.contacts), len(contacts)]}
        )
        row.contacts = contacts
    return row


async def contacts_of(session: AsyncSession, caller: Caller, channel: str) -> list[str]:
    """The addresses on this channel to which the test messages of the calling key may go, as they are now."""
    row = await session.get(ApiKey, caller.key_id)
    return [contact["address"] for contact in row.contacts if contact["channel"] == channel] if row is not None else []
