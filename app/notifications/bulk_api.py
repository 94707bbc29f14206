"""Many messages cancelled, or sent again, by a filter: asked for here, done by the sweep, and looked at here."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import audit
from app.core.auth import MayReadMessages, MayWriteMessages
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import Conflict, NotFound
from app.core.http import Guarded
from app.core.ids import first_id_at
from app.core.page import Page, Paging, encode_cursor
from app.notifications.bulk import counted, finish, impersonal
from app.notifications.bulk_shapes import PERSONAL, Action, MessageBulkIn
from app.notifications.models import MessageBulk

router = APIRouter(prefix="/messages/bulk", tags=["messages"], route_class=Guarded)

CONFIRMED = timedelta(hours=24)  # so long a dry run is believed

ACCOUNT = sa.text("SELECT id FROM account WHERE number = :number")


class MessageBulkNotFound(NotFound):
    """There is none of this id."""

    code, title = "message_bulk_not_found", "There is no such job"


class MessageBulkOut(BaseModel):
    """How far it has come. In a dry run `done`, `outcomes`, `parts` and `cost` are what would come of it."""

    model_config = ConfigDict(extra="forbid")

    id: UUID
    action: Action
    filter: dict[str, Any] = Field(description="`account` and `address` are * when it has ended")
    again: bool
    dry_run: bool
    note: str
    most: int
    state: Literal["running", "done", "cancelled", "failed"]
    error: str | None = Field(description="What went wrong last; it is tried again, and given up after some time (failed)")
    progress: float = Field(description="0 to 1: how much of the period is done")
    looked_at: int = Field(description="Messages that the filter let through, up to now")
    done: int = Field(description="of them those that were cancelled, or sent again")
    outcomes: dict[str, int] = Field(description="What became of these. resend: the state of the new message", examples=[{"queued": 812, "held": 40}])
    left_out: dict[str, int] = Field(description="The others, by reason", examples=[{"not_failed": 9100, "suppressed": 3}])
    parts: int = Field(description="SMS parts that sending them again takes")
    cost: str = Field(description="Parts times the price of the road that each takes now")
    limited: bool = Field(description="It ended at `most`, and there were more")
    requested_by: str
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, row: MessageBulk) -> Self:
        same = {name: getattr(row, name) for name in cls.model_fields if name not in {"filter", "progress", "cost", "limited"}}
        shown = {name: "*" if name in PERSONAL and row.state != "running" else value for name, value in row.filter.items()}
        return cls.model_validate(same | {"filter": shown, "progress": progress(row), "cost": f"{row.cost:.2f}", "limited": row.is_limited})


def progress(row: MessageBulk) -> float:
    """By the ids, which are times: the share of the period."""
    if row.state == "done":
        return 1.0
    first = first_id_at(datetime.fromisoformat(row.filter["from"])).int >> 80
    at, end = row.position.int >> 80, row.end_id.int >> 80
    return round(min(1.0, max(0.0, (at - first) / (end - first))), 4) if end > first else 0.0


@router.post("", operation_id="change_messages_in_bulk", summary="Cancel, or send again, many messages", status_code=202)
async def change_messages_in_bulk(request: Request, body: MessageBulkIn, session: SessionDep, caller: MayWriteMessages, response: Response) -> MessageBulkOut:
    """The workers go through them in batches. Without `dry_run: false` it is only counted what would be done, and what not and why.

    Cancel ends what is held or queued. Resend makes new messages of those that are undelivered, expired, failed, or (where `filter.state` names it) unknown."""
    body.check()
    moment = now()
    if body.confirm is not None and not body.dry_run:
        await confirmed(session, body, moment)
    row = MessageBulk(
        action=body.action,
        filter=body.filter.stored(),
        again=body.again,
        dry_run=body.dry_run,
        note=body.note,
        most=min(body.most, body.confirm or body.most),
        position=body.filter.first,
        end_id=body.filter.end(moment),
        requested_by=caller.name,
        created_at=moment,
        worked_at=moment,
    )
    session.add(row)
    await session.flush()
    await audit.record(session, caller, "message.bulk", f"message-bulk:{row.id}", await said(session, row))
    response.headers["Location"] = f"{request.url.path}/{row.id}"
    return MessageBulkOut.of(row)


async def confirmed(session: AsyncSession, body: MessageBulkIn, moment: datetime) -> None:
    """Conflict, unless a dry run of the same has lately said this number."""
    query = (
        sa.select(MessageBulk)
        .where(sa.column("dry_run"), sa.column("state") == "done", sa.column("action") == body.action, sa.column("finished_at") > moment - CONFIRMED)
        .order_by(sa.column("id").desc())
        .limit(500)
    )
    wanted = await impersonal(session, body.filter.stored())
    if not any(row.filter == wanted and row.again == body.again and row.done == body.confirm for row in await session.scalars(query)):
        raise Conflict("No dry run of the same filter has said this number within the last 24 hours.", code="not_confirmed")


async def said(session: AsyncSession, row: MessageBulk) -> dict[str, Any]:
    """For the audit, which keeps no address: the account by its id, the address as a hash."""
    shown: dict[str, Any] = {"action": row.action, "filter": {name: value for name, value in row.filter.items() if name not in PERSONAL}}
    shown |= {"dry_run": row.dry_run, "again": row.again, "most": row.most, "note": row.note}
    if "account" in row.filter:
        account = (await session.execute(ACCOUNT, {"number": row.filter["account"]})).scalar()
        shown["account"] = str(account) if account is not None else None
    return shown | ({"address": row.filter["address"]} if "address" in row.filter else {})


@router.get("", operation_id="list_message_bulks", summary="Jobs on many messages, newest first")
async def list_message_bulks(session: SessionDep, caller: MayReadMessages, page: Paging) -> Page[MessageBulkOut]:
    query = sa.select(MessageBulk).order_by(sa.column("id").desc()).limit(page.limit + 1)
    if key := page.key(UUID):
        query = query.where(sa.column("id") < key[0])
    found = (await session.scalars(query)).all()
    shown = found[: page.limit]
    return Page(items=[MessageBulkOut.of(row) for row in shown], next_cursor=encode_cursor(shown[-1].id) if len(found) > page.limit else None)


@router.get("/{bulk_id}", operation_id="read_message_bulk", summary="How far one has come")
async def read_message_bulk(bulk_id: Annotated[UUID, Path()], session: SessionDep, caller: MayReadMessages) -> MessageBulkOut:
    row = await session.get(MessageBulk, bulk_id)
    if row is None:
        raise MessageBulkNotFound
    return MessageBulkOut.of(row)


@router.post("/{bulk_id}/cancel", operation_id="cancel_message_bulk", summary="Stop a job where it is")
async def cancel_message_bulk(bulk_id: Annotated[UUID, Path()], session: SessionDep, caller: MayWriteMessages) -> MessageBulkOut:
    """What it has done stays done. From the answer on it does nothing more."""
    row = await session.get(MessageBulk, bulk_id, with_for_update=True)
    if row is None:
        raise MessageBulkNotFound
    if row.state != "running":
        raise Conflict(f"It is {row.state}: only a running job can be cancelled.", code="not_running")
    row.state, row.finished_at = "cancelled", now()
    await session.flush()
    await finish(session, bulk_id)
    await audit.record(session, caller, "message.bulk.cancel", f"message-bulk:{bulk_id}", counted(row))
    return MessageBulkOut.of(row)
