"""The cabinet: what was sent to a subscriber, what came of it, and what is still to go. Addresses are masked, our gateways are not his concern."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.preferences import read
from app.accounts.search import AccountNotFound
from app.accounts.shapes import Channel
from app.catalogue.registry import STAMP as TYPES_STAMP
from app.catalogue.registry import Catalogue, TypeRules
from app.catalogue.types import VERIFICATION
from app.core.auth import Caller, Subscriber
from app.core.db import SessionDep
from app.core.errors import NotFound
from app.core.http import Guarded
from app.core.ids import first_id_at
from app.core.masks import masked
from app.core.page import Page, Paging, encode_cursor
from app.gateways.words import Locale, preferred
from app.notifications.api import made_at
from app.notifications.one_time import readable
from app.notifications.states import State
from app.notifications.words import state_for_subscriber

router = APIRouter(prefix="/me", tags=["cabinet"], route_class=Guarded)

# By the index of (account, id), newest first; each of the few that a page has is then looked up in the outbox. OFFSET 0 keeps it in this order.
# What became of a code is for whoever has proved its address: that it was cancelled would tell a stranger that its holder wants no messages.
SHOWN = f"""
SELECT m.id, m.type, m.channel, m.contact_id, m.address, m.subject, m.text, coalesce(o.state, m.state) AS state,
       CASE WHEN o.message_id IS NULL THEN m.reason ELSE o.reason END AS reason, coalesce(o.not_before, m.not_before) AS not_before,
       o.message_id IS NOT NULL AS waits, o.expires_at, m.updated_at, o.after_message
FROM (
    SELECT id, type, channel, contact_id, address, {readable("subject", "message")} AS subject, {readable("text", "message")} AS text, state, reason, not_before, updated_at
    FROM message WHERE account_id = :account AND id < :before AND id >= :since {{narrow}} AND NOT test AND (type <> '{VERIFICATION}' OR contact_id IS NULL OR EXISTS (
        SELECT FROM contact c WHERE c.id = message.contact_id AND (c.origin = 'billing' OR c.verified_at IS NOT NULL)
    )) ORDER BY id DESC {{limit}} OFFSET 0
) m LEFT JOIN outbox o ON o.message_id = m.id {{where}} ORDER BY m.id DESC LIMIT :limit
"""
# Whose they are, in which language, and whether the catalogue has changed: one round trip.
LOOK = sa.text(f"""
SELECT a.id, a.locale, (SELECT CAST(p.document AS text) FROM account_preference p WHERE p.account_id = a.id) AS chosen, t.number AS types, t.revisions
FROM account a CROSS JOIN ({TYPES_STAMP.text}) AS t(number, revisions) WHERE a.number = :number AND a.status <> 'erased'
""")
LAST, FIRST = UUID(int=2**128 - 1), UUID(int=0)

Tongue = Annotated[Locale | None, Query(description="The language of titles and words; left out: that of Accept-Language, else the account's")]
AcceptLanguage = Annotated[str, Header()]


class OwnMessageOut(BaseModel):
    """One message. `text` is as it was sent, one-time codes starred out; `next_send_at` is there as long as it waits."""

    model_config = ConfigDict(extra="forbid")

    id: UUID
    type: str
    title: str = Field(description="The type in words")
    channel: Channel
    contact_id: UUID | None = Field(description="As in /me/contacts; it may have been removed since")
    address: str = Field(description="Masked")
    subject: str | None
    text: str
    state: State
    reason: str | None = Field(description="A code, where the reason concerns the subscriber")
    result: str = Field(description="The state in words")
    result_reason: str | None = Field(description="The reason in words")
    created_at: datetime
    next_send_at: datetime | None
    after: UUID | None = Field(description="The message that it waits for: it goes when that one does not arrive")
    expires_at: datetime | None = Field(description="When it will not be sent any more")
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class OwnMessageFilter:
    """Each narrows; times are those of creation."""

    type: str | None
    channel: Channel | None
    state: State | None
    since: datetime | None
    upto: datetime | None

    def statement(self, account: UUID, after: UUID | None, limit: int) -> tuple[str, dict[str, Any]]:
        values: dict[str, Any] = {"account": account, "limit": limit}
        values["before"] = min(after or LAST, first_id_at(self.upto) if self.upto else LAST)
        values["since"] = first_id_at(self.since) if self.since else FIRST
        narrow = "".join(f" AND {name} = :{name}" for name in ("type", "channel") if getattr(self, name) is not None)
        values |= {name: value for name in ("type", "channel") if (value := getattr(self, name)) is not None}
        if self.state is None:
            return SHOWN.format(narrow=narrow, limit="LIMIT :limit", where=""), values
        where = "WHERE coalesce(o.state, m.state) = :state"
        return SHOWN.format(narrow=narrow, limit="", where=where), values | {"state": self.state.value}


async def wanted_messages(
    type: Annotated[str | None, Query(max_length=100)] = None,  # noqa: A002 - the contract's word
    channel: Annotated[Channel | None, Query()] = None,
    state: Annotated[State | None, Query()] = None,
    from_: Annotated[AwareDatetime | None, Query(alias="from")] = None,
    to: Annotated[AwareDatetime | None, Query()] = None,
) -> OwnMessageFilter:
    return OwnMessageFilter(type, channel, state, from_, to)


@router.get("/messages", operation_id="list_own_messages", summary="What was sent to me, newest first")
async def list_own_messages(
    request: Request,
    session: SessionDep,
    caller: Subscriber,
    page: Paging,
    wanted: Annotated[OwnMessageFilter, Depends(wanted_messages)],
    locale: Tongue = None,
    accept_language: AcceptLanguage = "",
) -> Page[OwnMessageOut]:
    reader = await look(session, request, caller, locale or preferred(accept_language))
    key = page.key(UUID)
    statement, values = wanted.statement(reader.account_id, key[0] if key else None, page.limit + 1)
    rows = (await session.execute(sa.text(statement), values)).all()
    shown = [out(row, reader) for row in rows[: page.limit]]
    return Page(items=shown, next_cursor=encode_cursor(shown[-1].id) if len(rows) > page.limit else None)


@router.get("/messages/{message_id}", operation_id="read_own_message", summary="One of them")
async def read_own_message(
    message_id: UUID, request: Request, session: SessionDep, caller: Subscriber, locale: Tongue = None, accept_language: AcceptLanguage = ""
) -> OwnMessageOut:
    reader = await look(session, request, caller, locale or preferred(accept_language))
    values = {"account": reader.account_id, "before": LAST, "since": message_id, "id": message_id, "limit": 1}
    row = (await session.execute(sa.text(SHOWN.format(narrow="AND id = :id", limit="", where="")), values)).first()
    if row is None:
        raise NotFound("You have no such message.", code="message_not_found")
    return out(row, reader)


@dataclass(frozen=True, slots=True)
class Reader:
    """Whose messages, in which language, and what the types are called."""

    account_id: UUID
    locale: Locale
    types: Mapping[str, TypeRules]

    def title(self, code: str) -> str:
        rules = self.types.get(code)
        return (rules.titles.get(self.locale) or rules.titles.get("ru") if rules is not None else None) or code


async def look(session: AsyncSession, request: Request, caller: Caller, locale: Locale | None) -> Reader:
    """The account that the token names, or AccountNotFound."""
    row = (await session.execute(LOOK, {"number": caller.account or ""})).first()
    if row is None:
        raise AccountNotFound
    catalogue: Catalogue = request.app.state.catalogue
    await catalogue.refresh(session, (row.types, int(row.revisions)))
    if locale is None:
        locale = "ru" if (read(row.chosen).locale or row.locale).lower().startswith("ru") else "en"
    return Reader(row.id, locale, catalogue.types)


def out(row: Any, reader: Reader) -> OwnMessageOut:
    result, why = state_for_subscriber(row.state, row.reason, reader.locale)
    going = row.waits and row.state != State.SENDING
    return OwnMessageOut(
        id=row.id,
        type=row.type,
        title=reader.title(row.type),
        channel=row.channel,
        contact_id=row.contact_id,
        address=masked(row.address),
        subject=row.subject,
        text=row.text,
        state=row.state,
        reason=row.reason if why is not None else None,
        result=result,
        result_reason=why,
        created_at=made_at(row.id),
        next_send_at=row.not_before if going else None,
        after=row.after_message if going else None,
        expires_at=row.expires_at,
        updated_at=row.updated_at,
    )
