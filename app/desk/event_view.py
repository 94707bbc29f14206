"""What was decided about an event: who was told, through what, and who was not and why. And planning it once more."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
import sqlalchemy as sa
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import audit
from app.core.auth import MayReadMessages, MayWriteMessages
from app.core.db import SessionDep
from app.core.errors import Conflict, NotFound
from app.core.http import Guarded
from app.core.page import Page, Paging, encode_cursor
from app.core.wakeups import PLAN
from app.events.intake import key_source
from app.forecasts.tell import SOURCE

router = APIRouter(prefix="/events", tags=["events"], route_class=Guarded)

SHOWN = """
SELECT e.id AS event_id, e.account_id, e.source, e.external_id AS id, e.type, a.number AS account, e.time, CAST(e.data AS text) AS data, e.content_deleted_at,
       CASE WHEN w.event_id IS NULL THEN 'planned' ELSE 'pending' END AS state, CAST(n.decisions AS text) AS decisions
FROM event e LEFT JOIN event_waiting w ON w.event_id = e.id LEFT JOIN notification n ON n.event_id = e.id LEFT JOIN account a ON a.id = e.account_id
"""
ADDRESSES = sa.text("""
SELECT id, address FROM message WHERE id = ANY(CAST(:messages AS uuid[])) UNION ALL SELECT id, address FROM contact WHERE id = ANY(CAST(:contacts AS uuid[]))
""")
AGAIN = sa.text("INSERT INTO event_waiting (event_id, account_id) SELECT id, account_id FROM event WHERE id = :id ON CONFLICT DO NOTHING")

# By the account: a few dozen rows of an index.
BEHIND = sa.text("SELECT inputs FROM forecast_hit WHERE account_id = :account AND event_id = :event")

LOCK = sa.text("SELECT id FROM account WHERE id = (SELECT account_id FROM event WHERE id = :id) FOR NO KEY UPDATE")

# What planning itself could not do; anything else was a decision, and planning it again would tell somebody twice.
REPLANNABLE = frozenset({"render_failed", "planning_failed", "no_template"})


class DecisionOut(BaseModel):
    """`planned` has the message and when it goes; `skipped` has a reason."""

    type: str
    channel: str | None
    contact_id: UUID | None
    address: str | None
    outcome: Literal["planned", "skipped"]
    reason: str | None
    detail: str | None = Field(default=None, description="`capped`: which of day, week and month is full; `too_soon`: until when")
    message_id: UUID | None = None
    not_before: datetime | None = None
    template_id: UUID | None = None
    template_version: int | None = None
    gateway: str | None = None
    route: str | None = None
    after: UUID | None = Field(default=None, description="Of a chain of channels: the message that this one waits for")


class EventOut(BaseModel):
    event_id: UUID
    source: str
    id: str
    type: str
    account: str | None
    time: datetime
    state: Literal["pending", "planned"]
    data: dict[str, Any]
    content_deleted_at: datetime | None = Field(description="Since then `data` is empty: retention, or the erasure of the account")


class EventWithDecisions(EventOut):
    decisions: list[DecisionOut]
    forecast: dict[str, Any] | None = Field(default=None, description="What a forecast was made from, for events that it made")


def out(row: Any) -> dict[str, Any]:
    account = None if row.account is None or row.account.startswith("erased:") else row.account
    return {
        "event_id": row.event_id,
        "source": row.source,
        "id": row.id,
        "type": row.type,
        "account": account,
        "time": row.time,
        "state": row.state,
        "data": orjson.loads(row.data),
        "content_deleted_at": row.content_deleted_at,
    }


@router.get("", operation_id="list_events", summary="Events, newest first")
async def list_events(
    caller: MayReadMessages,
    session: SessionDep,
    paging: Paging,
    account: Annotated[str | None, Query(max_length=64)] = None,
    type: Annotated[str | None, Query(max_length=100)] = None,  # noqa: A002 - the contract's word
    source: Annotated[str | None, Query(max_length=300)] = None,
    id: Annotated[str | None, Query(max_length=300)] = None,  # noqa: A002 - the contract's word
) -> Page[EventOut]:
    conditions, values = [], dict[str, Any]()
    if account is not None:
        conditions.append("e.account_id = (SELECT id FROM account WHERE number = :account)")
        values["account"] = account
    if type is not None:
        conditions.append("e.type = :type")
        values["type"] = type
    if source is not None and id is not None:
        conditions.append("e.id IN (SELECT event_id FROM event_key WHERE source = ANY(CAST(:sources AS text[])) AND external_id = :external_id)")
        values |= {"sources": [source, key_source(source)], "external_id": id}
    elif source is not None or id is not None:
        column = "source" if source is not None else "external_id"
        conditions.append(f"e.id IN (SELECT event_id FROM event_key WHERE {column} = ANY(CAST(:keys AS text[])))")
        values["keys"] = [source, key_source(source)] if source is not None else [id]
    if (after := paging.key(UUID)) is not None:
        conditions.append("e.id < :after")
        values["after"] = after[0]
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = (await session.execute(sa.text(f"{SHOWN} {where} ORDER BY e.id DESC LIMIT :limit"), values | {"limit": paging.limit + 1})).all()
    more = encode_cursor(rows[paging.limit - 1].event_id) if len(rows) > paging.limit else None
    return Page(items=[EventOut.model_validate(out(row)) for row in rows[: paging.limit]], next_cursor=more)


@router.get("/{event_id}", operation_id="read_event", summary="One event with its decisions")
async def read_event(event_id: UUID, caller: MayReadMessages, session: SessionDep) -> EventWithDecisions:
    row = await existing(session, event_id)
    return EventWithDecisions.model_validate(out(row) | {"decisions": await decisions_of(session, row), "forecast": await forecast_behind(session, row)})


async def forecast_behind(session: AsyncSession, row: Any) -> dict[str, Any] | None:
    """The inputs of the forecast that made this event; nothing for events from outside."""
    if row.source != SOURCE:
        return None
    inputs: dict[str, Any] | None = await session.scalar(BEHIND, {"event": row.event_id, "account": row.account_id})
    return inputs


async def existing(session: AsyncSession, event_id: UUID) -> Any:
    row = (await session.execute(sa.text(f"{SHOWN} WHERE e.id = :id"), {"id": event_id})).first()
    if row is None:
        raise NotFound("There is no such event.", code="event_not_found")
    return row


async def decisions_of(session: AsyncSession, row: Any) -> list[dict[str, Any]]:
    """The decisions with the addresses that they speak of: those stand in messages and contacts alone, where an erasure finds them."""
    decisions: list[dict[str, Any]] = orjson.loads(row.decisions) if row.decisions else []
    messages = [decision["message_id"] for decision in decisions if decision.get("message_id")]
    contacts = [decision["contact_id"] for decision in decisions if decision.get("contact_id")]
    found = await session.execute(ADDRESSES, {"messages": [UUID(i) for i in messages], "contacts": [UUID(i) for i in contacts]})
    addresses = {str(key): address for key, address in found}
    return [
        decision | {"address": addresses.get(decision.get("message_id") or "") or addresses.get(decision.get("contact_id") or "")} for decision in decisions
    ]


@router.post("/{event_id}/replan", operation_id="replan_event", summary="Plan an event again that could not be planned", status_code=202)
async def replan_event(event_id: UUID, caller: MayWriteMessages, session: SessionDep, request: Request) -> EventOut:
    """For an event whose words could not be made (a template was broken): once that is mended, it is planned again."""
    # Whoever plans it has locked the account: what is read after this line is what he has decided.
    await session.execute(LOCK, {"id": event_id})
    row = await existing(session, event_id)
    decisions = orjson.loads(row.decisions) if row.decisions else []
    if any(decision["outcome"] == "planned" for decision in decisions):
        raise Conflict("Somebody was told of it already: resend the message instead.", code="already_told")
    if row.state == "planned" and not any(decision["reason"] in REPLANNABLE for decision in decisions):
        raise Conflict("It was planned, and nobody was to be told.", code="nothing_to_replan")
    if row.content_deleted_at is not None:
        raise Conflict("Its data was deleted after VESTNIK_RETENTION_DAYS_CONTENT days: there is nothing to tell.", code="content_deleted")
    await session.execute(AGAIN, {"id": event_id})
    reasons = sorted({decision["reason"] for decision in decisions if decision["reason"]})
    await audit.record(session, caller, "event.replan", f"event:{event_id}", {"state": [row.state, "pending"], "reasons": [reasons, []]})
    request.state.after_commit = [PLAN]
    return EventOut.model_validate(out(await existing(session, event_id)))
