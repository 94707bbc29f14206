"""Messages: what was sent to whom, with what result and why; cancel and resend."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Query, Request
from pydantic import AwareDatetime, BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import audit
from app.core.auth import MayReadMessages, MayWriteMessages
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import Conflict, NotFound
from app.core.http import Guarded
from app.core.ids import first_id_at
from app.core.page import Page, Paging, encode_cursor
from app.notifications.cancel import NotCancelled, cancel_waiting
from app.notifications.chains import lock_chain
from app.notifications.history import HistoryLine, history_of
from app.notifications.one_time import readable
from app.notifications.resend import NotResent, Resending
from app.notifications.rows import Rows
from app.notifications.states import State

router = APIRouter(prefix="/messages", tags=["messages"], route_class=Guarded)

# While a message has a line in the outbox, that line knows its state.
SHOWN = f"""
SELECT m.id, a.number AS account, m.type, m.channel, m.address, coalesce(o.gateway, m.gateway) AS gateway, m.route, m.sender, coalesce(o.state, m.state) AS state,
       CASE WHEN o.message_id IS NULL THEN m.reason ELSE o.reason END AS reason, {readable("m.subject")} AS subject, {readable("m.text")} AS text, m.parts AS segments,
       coalesce(o.not_before, m.not_before) AS not_before, coalesce(o.expires_at, m.expires_at) AS expires_at, m.updated_at, m.resend_of, m.event_id, m.urgent,
       o.after_message AS after, m.test, m.content_deleted_at
FROM message m LEFT JOIN outbox o ON o.message_id = m.id LEFT JOIN account a ON a.id = m.account_id
"""
WHY_NOT = {
    NotResent.NOT_SENT_YET: "It has not been sent yet.",
    NotResent.ERASED: "Its contents were erased.",
    NotResent.CONTENT_DELETED: "Its words were deleted after VESTNIK_RETENTION_DAYS_CONTENT days: there is nothing to send again.",
    NotResent.TEST: "It was a test: send another one with POST /templates/{id}/test-send.",
    NotResent.CODE: "Its code is known to nobody any more: the subscriber asks for another one in his cabinet.",
    NotResent.CONTACT_REMOVED: "The account does not have this contact any more.",
    NotResent.SUPPRESSED: "Its address is suppressed: see GET /suppressions, and lift it there first if it may be written to again.",
    NotResent.NO_OPEN_HOURS: "The quiet hours and the subscriber's own leave no moment at which it could go.",
}


class MessageOut(BaseModel):
    """`account` is null after its erasure. `segments` are the parts that are billed; null for e-mail. `route` and `sender`: of the route that was taken.

    `test`: an operator has sent it to himself; it counts in no report and is not in the cabinet.
    `content_deleted_at`: since then there is no subject and no text any more (retention, or the erasure of the account); the rest stays.
    While it waits, `not_before` is when it will go; `after`: it waits for what becomes of that message, too, and will not go at all when that one arrives."""

    id: UUID
    account: str | None
    type: str
    channel: str
    address: str
    gateway: str | None
    route: str | None
    sender: str | None
    state: State
    reason: str | None
    subject: str | None
    text: str
    segments: int | None
    not_before: datetime
    expires_at: datetime
    created_at: datetime
    updated_at: datetime
    event_id: UUID | None
    resend_of: UUID | None
    after: UUID | None
    test: bool
    content_deleted_at: datetime | None


class MessageWithHistory(MessageOut):
    history: list[HistoryLine]


class MessageFilter:
    """The filters of the list. Each narrows; times are those of creation."""

    def __init__(
        self,
        account: Annotated[str | None, Query(max_length=64)] = None,
        address: Annotated[str | None, Query(max_length=320)] = None,
        type: Annotated[str | None, Query(max_length=100)] = None,  # noqa: A002 - the contract's word
        channel: Annotated[Literal["sms", "email"] | None, Query()] = None,
        state: Annotated[State | None, Query()] = None,
        gateway: Annotated[str | None, Query(max_length=64)] = None,
        from_: Annotated[AwareDatetime | None, Query(alias="from")] = None,
        to: Annotated[AwareDatetime | None, Query()] = None,
    ) -> None:
        self.conditions: list[str] = []
        self.values: dict[str, Any] = {}
        if account is not None:
            self._add("m.account_id = (SELECT id FROM account WHERE number = :account)", account=account)
        if address is not None:
            self._add("m.address = :address", address=address)
        if type is not None:
            self._add("m.type = :type", type=type)
        if channel is not None:
            self._add("m.channel = :channel", channel=channel)
        if state is not None:
            self._add("coalesce(o.state, m.state) = :state", state=state.value)
        if gateway is not None:
            self._add("coalesce(o.gateway, m.gateway) = :gateway", gateway=gateway)
        if from_ is not None:
            self._add("m.id >= :from_id", from_id=first_id_at(from_))
        if to is not None:
            self._add("m.id < :to_id", to_id=first_id_at(to))

    def _add(self, condition: str, **values: Any) -> None:
        self.conditions.append(condition)
        self.values |= values


def out(row: Any) -> dict[str, Any]:
    shown = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's own name for the public mapping
    account = shown["account"]
    shown["account"] = None if account is None or account.startswith("erased:") else account
    shown["segments"] = shown["segments"] if shown["channel"] == "sms" else None
    return shown | {"created_at": made_at(shown["id"])}


def made_at(message_id: UUID) -> datetime:
    """RFC 9562, 5.7: the first 48 bits are Unix milliseconds."""
    return datetime.fromtimestamp((message_id.int >> 80) / 1000, tz=now().tzinfo)


@router.get("", operation_id="list_messages", summary="Messages, newest first")
async def list_messages(caller: MayReadMessages, session: SessionDep, paging: Paging, wanted: Annotated[MessageFilter, Depends()]) -> Page[MessageOut]:
    conditions, values = list(wanted.conditions), dict(wanted.values)
    if (after := paging.key(UUID)) is not None:
        conditions.append("m.id < :after")
        values["after"] = after[0]
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = (await session.execute(sa.text(f"{SHOWN} {where} ORDER BY m.id DESC LIMIT :limit"), values | {"limit": paging.limit + 1})).all()
    more = encode_cursor(rows[paging.limit - 1].id) if len(rows) > paging.limit else None
    return Page(items=[MessageOut.model_validate(out(row)) for row in rows[: paging.limit]], next_cursor=more)


@router.get("/{message_id}", operation_id="read_message", summary="One message with its history")
async def read_message(message_id: UUID, caller: MayReadMessages, session: SessionDep) -> MessageWithHistory:
    """Every state, attempt and receipt, with time and reason."""
    row = await existing(session, message_id)
    return MessageWithHistory.model_validate(out(row) | {"history": await history_of(session, message_id, made_at(message_id))})


async def existing(session: AsyncSession, message_id: UUID) -> Any:
    row = (await session.execute(sa.text(f"{SHOWN} WHERE m.id = :id"), {"id": message_id})).first()
    if row is None:
        raise NotFound("There is no such message.", code="message_not_found")
    return row


@router.post("/{message_id}/cancel", operation_id="cancel_message", summary="Cancel a message that is held or queued")
async def cancel_message(message_id: UUID, caller: MayWriteMessages, session: SessionDep) -> MessageOut:
    row = await existing(session, message_id)
    stays = (await cancel_waiting(session, [message_id], now(), caller.name)).get(message_id)
    if stays is NotCancelled.IN_FLIGHT:
        raise Conflict("It is on the wire just now.", code=stays.value)
    if stays is not None:
        row = await existing(session, message_id)
        raise Conflict(f"It is {row.state}: only a held or queued message can be cancelled.", code=stays.value)
    account = (await session.execute(sa.text("SELECT account_id FROM message WHERE id = :id"), {"id": message_id})).scalar_one()
    changes = {"account": str(account), "state": [row.state, State.CANCELLED.value]}
    await audit.record(session, caller, "message.cancel", f"message:{message_id}", changes)
    return MessageOut.model_validate(out(await existing(session, message_id)))


@router.post("/{message_id}/resend", operation_id="resend_message", summary="Send its words once more, as a new message", status_code=201)
async def resend_message(message_id: UUID, caller: MayWriteMessages, session: SessionDep, request: Request) -> MessageOut:
    """A new message to the same address with the same words; it points to the old one. Quiet hours hold it as any other, and a suppression forbids it."""
    await existing(session, message_id)
    await lock_chain(session, [message_id])
    moment = now()
    fate = (await Resending(request.app.state.settings).weigh(session, [message_id], moment, simulated=caller.test))[message_id]
    if isinstance(fate, NotResent):
        raise Conflict(WHY_NOT[fate], code=fate.value)
    rows = Rows()
    made = fate.add(rows, moment)
    await rows.write(session)
    await audit.record(session, caller, "message.resend", f"message:{message_id}", {"account": str(fate.old.account_id), "message": str(made)})
    if fate.road:
        request.state.after_commit = fate.road.queues
    return MessageOut.model_validate(out(await existing(session, made)))
