"""Mail that came back, over the API: handed over by whatever receives it, and looked at."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.core import audit
from app.core.auth import MayReadMessages, MayWriteMessages
from app.core.db import SessionDep
from app.core.errors import BadRequest, NotFound, WrongMediaType
from app.core.http import Guarded
from app.core.ids import first_id_at
from app.core.page import Page, Paging, encode_cursor
from app.tracking.bounces import Bounce, stored_form, take

router = APIRouter(prefix="/bounces", tags=["messages"], route_class=Guarded)

MAIL = "message/rfc822"
Kind = Literal["hard", "soft", "complaint", "delayed", "delivered", "unknown"]
BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {MAIL: {"schema": {"type": "string", "format": "binary"}}}}}
SHOWN = "SELECT id, at, source, kind, message_id, recipient, status, diagnostic FROM bounce"


class BounceOut(BaseModel):
    """What came back for a letter."""

    model_config = ConfigDict(extra="forbid")

    id: UUID
    at: datetime
    source: Literal["dsn", "arf", "none"] = Field(description="dsn: a delivery status notification; arf: a complaint; none: neither could be found in it")
    kind: Kind = Field(
        description="hard: the address does not work; soft: this letter was given up; delayed: the server still tries; unknown: it says nothing, or of no letter of ours"
    )
    message_id: UUID | None = Field(description="The message that it is about; null where it is about none of ours")
    recipient: str | None = Field(description="The message's address, else the one that the report names; null after an erasure")
    status: str | None = Field(description="Enhanced status code (RFC 3463)")
    diagnostic: str | None = Field(description="The mail server's own words, or the kind of complaint")

    @classmethod
    def of(cls, row: Any) -> Self:
        return cls.model_validate({name: getattr(row, name) for name in cls.model_fields})


class TakenBounceOut(BounceOut):
    """`duplicate`: the same mail was here before, and nothing has changed."""

    duplicate: bool

    @classmethod
    def of(cls, row: Bounce) -> Self:
        return cls(**{name: getattr(row, name) for name in BounceOut.model_fields}, duplicate=not row.is_new)


@router.post(
    "",
    operation_id="take_bounce",
    summary="Hand over a mail that came back",
    status_code=201,
    openapi_extra=BODY,
    responses={200: {"model": TakenBounceOut, "description": "The same mail was here before"}},
)
async def take_bounce(
    request: Request,
    caller: MayWriteMessages,
    response: Response,
    recipient: Annotated[str | None, Query(max_length=320, description="Whom it was addressed to on the wire, where that is known")] = None,
) -> TakenBounceOut:
    """The raw mail, up to 1 MiB: a delivery status notification (RFC 3464) or a complaint (RFC 5965). What is neither is kept as `unknown`.

    When it answers, the message is `undelivered` and the address suppressed, as far as the mail says so."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != MAIL:
        raise WrongMediaType(f"Send the mail as it came, as {MAIL}.")
    raw = await request.body()
    if not raw:
        raise BadRequest("The body is empty: the whole mail was expected.", code="empty_body")
    # A + that came unescaped in a query is a space by now; no address of ours has one.
    envelope = [recipient.strip().replace(" ", "+")] if recipient else []
    bounce = await take(request.app.state.database, request.app.state.verp, raw, envelope, by=caller)
    if not bounce.is_new:
        response.status_code = 200
    else:
        async with request.app.state.database.transaction() as session:
            message = str(bounce.message_id) if bounce.message_id is not None else None
            await audit.record(session, caller, "bounce.report", f"bounce:{bounce.id}", {"kind": bounce.kind, "message": message})
    return TakenBounceOut.of(bounce)


@router.get("", operation_id="list_bounces", summary="Mail that came back, newest first")
async def list_bounces(
    *,
    session: SessionDep,
    caller: MayReadMessages,
    page: Paging,
    address: Annotated[str | None, Query(max_length=320)] = None,
    kind: Annotated[Kind | None, Query()] = None,
    message_id: Annotated[UUID | None, Query()] = None,
    from_: Annotated[AwareDatetime | None, Query(alias="from")] = None,
    to: Annotated[AwareDatetime | None, Query()] = None,
) -> Page[BounceOut]:
    """Each filter narrows; times are those of arrival."""
    wanted: list[tuple[str, str, Any]] = []
    if address is not None:
        wanted.append(("recipient = :address", "address", stored_form(address.replace(" ", "+"))))
    if kind is not None:
        wanted.append(("kind = :kind", "kind", kind))
    if message_id is not None:
        wanted.append(("message_id = :message_id", "message_id", message_id))
    if from_ is not None:
        wanted.append(("id >= :from_id", "from_id", first_id_at(from_)))
    if to is not None:
        wanted.append(("id < :to_id", "to_id", first_id_at(to)))
    if key := page.key(UUID):
        wanted.append(("id < :after", "after", key[0]))
    where = f"WHERE {' AND '.join(condition for condition, _, _ in wanted)}" if wanted else ""
    values = {name: value for _, name, value in wanted} | {"limit": page.limit + 1}
    found = (await session.execute(sa.text(f"{SHOWN} {where} ORDER BY id DESC LIMIT :limit"), values)).all()
    shown = found[: page.limit]
    return Page(items=[BounceOut.of(row) for row in shown], next_cursor=encode_cursor(shown[-1].id) if len(found) > page.limit else None)


@router.get("/{bounce_id}", operation_id="read_bounce", summary="One mail that came back")
async def read_bounce(bounce_id: UUID, session: SessionDep, caller: MayReadMessages) -> BounceOut:
    row = (await session.execute(sa.text(f"{SHOWN} WHERE id = :id"), {"id": bounce_id})).first()
    if row is None:
        raise NotFound("There is no such bounce.", code="bounce_not_found")
    return BounceOut.of(row)
