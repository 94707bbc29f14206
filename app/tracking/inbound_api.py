"""What subscribers have sent: found and read."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.accounts.contacts import AddressError, normalise_phone
from app.core.auth import MayReadMessages
from app.core.db import SessionDep
from app.core.errors import NotFound
from app.core.http import Guarded
from app.core.ids import first_id_at
from app.core.page import Page, Paging, encode_cursor

router = APIRouter(prefix="/inbound-messages", tags=["messages"], route_class=Guarded)

MOST_ACCOUNTS = 100
SHOWN = f"""
SELECT i.id, i.at, i.gateway, i.source, i.destination, i.text, i.encoding, i.parts, i.is_complete, i.action, encode(i.raw, 'hex') AS octets, ARRAY(
    SELECT DISTINCT a.number FROM contact c JOIN account a ON a.id = c.account_id
    WHERE c.address = i.source AND c.channel = 'sms' ORDER BY a.number LIMIT {MOST_ACCOUNTS}
) AS accounts
FROM inbound_message i
"""


class InboundMessageOut(BaseModel):
    """An SMS from a subscriber."""

    model_config = ConfigDict(extra="forbid")

    id: UUID
    at: datetime
    gateway: str
    source: str = Field(description="E.164 with + where it is a number, else as the SMSC wrote it; empty after an erasure")
    destination: str = Field(description="The number or the name that it was sent to")
    text: str = Field(description="Empty for binary data; […] where a part is missing")
    encoding: str = Field(description="GSM7, UCS2, LATIN1, ASCII, BINARY, unknown, or the codec of the gateway's default alphabet")
    parts: int = Field(description="How many came")
    is_complete: bool = Field(description="false: a day has passed and a part of it has not come")
    action: Literal["stop", "start"] | None = Field(description="What it did; null: it was kept, and nothing else")
    octets: str = Field(description="The text as it came, in hexadecimal digits, without headers; one septet an octet for GSM7")
    accounts: list[str] = Field(description="The accounts that have the source as a contact now, the first hundred")

    @classmethod
    def of(cls, row: Any) -> Self:
        return cls.model_validate(dict(row._mapping))  # noqa: SLF001 - SQLAlchemy's own name for the public mapping


@router.get("", operation_id="list_inbound_messages", summary="SMS from subscribers, newest first")
async def list_inbound_messages(
    *,
    request: Request,
    session: SessionDep,
    caller: MayReadMessages,
    page: Paging,
    source: Annotated[str | None, Query(max_length=40, description="The sender's number in any form")] = None,
    gateway: Annotated[str | None, Query(max_length=64)] = None,
    from_: Annotated[AwareDatetime | None, Query(alias="from")] = None,
    to: Annotated[AwareDatetime | None, Query()] = None,
) -> Page[InboundMessageOut]:
    """Each filter narrows; times are those of arrival."""
    wanted: list[tuple[str, str, Any]] = []
    if source is not None:
        wanted.append(("i.source = :source", "source", stored_form(source, request.app.state.settings.phone_region)))
    if gateway is not None:
        wanted.append(("i.gateway = :gateway", "gateway", gateway.replace("\0", "")))
    if from_ is not None:
        wanted.append(("i.id >= :from_id", "from_id", first_id_at(from_)))
    if to is not None:
        wanted.append(("i.id < :to_id", "to_id", first_id_at(to)))
    if key := page.key(UUID):
        wanted.append(("i.id < :after", "after", key[0]))
    where = f"WHERE {' AND '.join(condition for condition, _, _ in wanted)}" if wanted else ""
    values = {name: value for _, name, value in wanted} | {"limit": page.limit + 1}
    found = (await session.execute(sa.text(f"{SHOWN} {where} ORDER BY i.id DESC LIMIT :limit"), values)).all()
    shown = found[: page.limit]
    return Page(items=[InboundMessageOut.of(row) for row in shown], next_cursor=encode_cursor(shown[-1].id) if len(found) > page.limit else None)


@router.get("/{message_id}", operation_id="read_inbound_message", summary="One SMS from a subscriber")
async def read_inbound_message(message_id: UUID, session: SessionDep, caller: MayReadMessages) -> InboundMessageOut:
    row = (await session.execute(sa.text(f"{SHOWN} WHERE i.id = :id"), {"id": message_id})).first()
    if row is None:
        raise NotFound("There is no such inbound message.", code="inbound_message_not_found")
    return InboundMessageOut.of(row)


def stored_form(source: str, region: str) -> str:
    """A number as it is stored; anything else (a short code, a name) as it stands."""
    try:
        # A + that came unescaped in a query is a space by now.
        return normalise_phone(f"+{source.strip()}" if source.startswith(" ") else source, region)
    except AddressError:
        return source.strip().replace("\0", "")
