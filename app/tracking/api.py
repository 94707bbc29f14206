"""Receipts as they came: for looking at what could not be read, or belongs to nobody."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.core.auth import MayReadMessages
from app.core.db import SessionDep
from app.core.errors import NotFound
from app.core.http import Guarded
from app.core.ids import first_id_at
from app.core.page import Page, Paging, encode_cursor
from app.notifications.states import State

router = APIRouter(prefix="/receipts", tags=["messages"], route_class=Guarded)

Status = Literal["matched", "parked", "unmatched", "quarantined"]

LISTED_OCTETS = 512  # a receipt has fewer; what is longer is garbage, and shown whole when it is asked for by itself
SHOWN = """
SELECT id, at, gateway, receipt_group, status, gateway_message_id, message_id, part, stat, state, reason, error, reference,
       '+' || CAST(destination AS text) AS address, encode({raw}, 'hex') AS raw, length(raw) AS octets
FROM receipt
"""
ONE = sa.text(f"{SHOWN.format(raw='raw')} WHERE id = :id")
MANY = SHOWN.format(raw=f"substring(raw FROM 1 FOR {LISTED_OCTETS})")


class ReceiptOut(BaseModel):
    """What the SMSC has said of one part of a message."""

    model_config = ConfigDict(extra="forbid")

    id: UUID
    at: datetime
    gateway: str = Field(description="The gateway that it came over")
    receipt_group: str = Field(description="The gateways among whose messages it was looked for")
    status: Status = Field(
        description="parked: its message is not known yet; unmatched: nor was it after ten minutes; quarantined: it could not be read, or not be stored as it is"
    )
    gateway_message_id: str | None
    message_id: UUID | None
    part: int | None
    stat: str = Field(description="The word of the SMSC; empty where there was none")
    state: State | None = Field(description="The state of a message that it stands for; null: on its way, or an unknown word")
    reason: str | None
    error: str | None = Field(description="err or network_error_code as it came; null where it said nothing of an error")
    reference: int | None = Field(description="The user_message_reference that it repeats")
    address: str | None = Field(description="The subscriber's number; null where there was none, and after an erasure")
    raw: str = Field(description=f"The body of the PDU in hexadecimal digits; of the list's the first {LISTED_OCTETS} octets. Empty after an erasure")
    octets: int = Field(description="Octets of the body")

    @classmethod
    def of(cls, row: Any) -> Self:
        return cls.model_validate(dict(row._mapping))  # noqa: SLF001 - SQLAlchemy's own name for the public mapping


@router.get("", operation_id="list_receipts", summary="Receipts, newest first")
async def list_receipts(
    *,
    session: SessionDep,
    caller: MayReadMessages,
    page: Paging,
    status: Annotated[Status | None, Query()] = None,
    gateway: Annotated[str | None, Query(max_length=64)] = None,
    message_id: Annotated[UUID | None, Query()] = None,
    from_: Annotated[AwareDatetime | None, Query(alias="from")] = None,
    to: Annotated[AwareDatetime | None, Query()] = None,
) -> Page[ReceiptOut]:
    """Each filter narrows; times are those of arrival."""
    conditions: list[str] = []
    values: dict[str, Any] = {"limit": page.limit + 1}
    if status is not None:
        conditions.append(f"status = '{status}'")  # one of four words, and as a literal it lets the index of the rare ones serve
    if gateway is not None:
        conditions.append("gateway = :gateway")
        values["gateway"] = gateway.replace("\0", "")
    if message_id is not None:
        conditions.append("message_id = :message_id")
        values["message_id"] = message_id
    if from_ is not None:
        conditions.append("id >= :from_id")
        values["from_id"] = first_id_at(from_)
    if to is not None:
        conditions.append("id < :to_id")
        values["to_id"] = first_id_at(to)
    if key := page.key(UUID):
        conditions.append("id < :after")
        values["after"] = key[0]
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    found = (await session.execute(sa.text(f"{MANY} {where} ORDER BY id DESC LIMIT :limit"), values)).all()
    shown = found[: page.limit]
    return Page(items=[ReceiptOut.of(row) for row in shown], next_cursor=encode_cursor(shown[-1].id) if len(found) > page.limit else None)


@router.get("/{receipt_id}", operation_id="read_receipt", summary="One receipt with all its octets")
async def read_receipt(receipt_id: UUID, session: SessionDep, caller: MayReadMessages) -> ReceiptOut:
    row = (await session.execute(ONE, {"id": receipt_id})).first()
    if row is None:
        raise NotFound("There is no such receipt.", code="receipt_not_found")
    return ReceiptOut.of(row)
