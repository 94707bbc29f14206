"""Suppressions for operators: who is not written to, put and lifted. What waits for a suppressed address is withdrawn with it."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from app.accounts import suppressions
from app.accounts.contacts import AddressError, normalise
from app.accounts.shapes import Channel
from app.core import audit
from app.core.auth import MayReadMessages, MayWriteMessages
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import NotFound, field_invalid
from app.core.http import Guarded
from app.core.page import Page, Paging, encode_cursor
from app.notifications.withdraw import withdraw

router = APIRouter(prefix="/suppressions", tags=["suppressions"], route_class=Guarded)

REASON = r"^[a-z][a-z0-9_]{0,63}$"


class SuppressionNotFound(NotFound):
    """Nothing is suppressed there."""

    code, title = "suppression_not_found", "This address is not suppressed"


def _to_come(moment: datetime) -> datetime:
    if moment <= now():
        raise PydanticCustomError("until_past", "A suppression ends at a time to come; leave `until` out for one that stays until it is lifted.")
    return moment.astimezone(UTC)


Address = Annotated[str, StringConstraints(min_length=1, max_length=320)]
Reason = Annotated[str, StringConstraints(pattern=REASON)]


class SuppressionIn(BaseModel):
    """An address that is not to be written to. `hard_bounce` and `invalid_address` stop everything; any other reason lets mandatory types through."""

    model_config = ConfigDict(extra="forbid")

    channel: Channel
    address: Address = Field(description="In any form that a contact may have")
    reason: Reason = "operator"
    detail: Annotated[str, StringConstraints(max_length=500, strip_whitespace=True)] = ""
    until: Annotated[AwareDatetime, AfterValidator(_to_come)] | None = None


class SuppressionOut(BaseModel):
    """A suppression in force. An address has one for each reason."""

    model_config = ConfigDict(extra="forbid")

    channel: Channel
    address: str
    reason: str = Field(description="`stop_word`: the subscriber's own STOP, which his START lifts")
    detail: str
    by: str
    at: datetime
    until: datetime | None

    @classmethod
    def of(cls, row: Any) -> Self:
        return cls.model_validate({name: getattr(row, name) for name in cls.model_fields})


@router.get("", operation_id="list_suppressions", summary="Addresses that are not written to")
async def list_suppressions(
    *,
    request: Request,
    session: SessionDep,
    caller: MayReadMessages,
    page: Paging,
    channel: Annotated[Channel | None, Query()] = None,
    address: Annotated[str | None, Query(max_length=320)] = None,
) -> Page[SuppressionOut]:
    """Those in force, in the order of addresses."""
    key = page.key(str, str, str)
    wanted = address_sought(channel, address, request.app.state.settings.phone_region) if address is not None else None
    found = await suppressions.in_force(session, page.limit + 1, (key[0], key[1], key[2]) if key else None, channel, wanted)
    shown = found[: page.limit]
    more = encode_cursor(shown[-1].address, shown[-1].channel, shown[-1].reason) if len(found) > page.limit else None
    return Page(items=[SuppressionOut.of(row) for row in shown], next_cursor=more)


@router.post(
    "",
    operation_id="put_suppression",
    summary="Write to an address no more",
    status_code=201,
    responses={200: {"model": SuppressionOut, "description": "It was suppressed for this reason already"}},
)
async def put_suppression(request: Request, body: SuppressionIn, session: SessionDep, caller: MayWriteMessages, response: Response) -> SuppressionOut:
    """What is held or queued for it is cancelled. The same reason again takes over `detail` and `until`."""
    try:
        address = normalise(body.channel, body.address, request.app.state.settings.phone_region)
    except AddressError as error:
        raise field_invalid(("address",), error.code, error.detail) from None
    row, is_new = await suppressions.put(session, body.model_dump() | {"address": address, "by": caller.name, "at": now()})
    if not is_new:
        response.status_code = 200
    cancelled = await withdraw(session, [address])
    changes = {"address": address, "reason": body.reason, "until": body.until.isoformat() if body.until else None, "cancelled": cancelled}
    await audit.record(session, caller, "suppression.create" if is_new else "suppression.update", f"suppression:{body.channel}", changes)
    return SuppressionOut.of(row)


@router.delete("", operation_id="lift_suppression", summary="Write to an address again", status_code=204)
async def lift_suppression(
    *,
    request: Request,
    session: SessionDep,
    caller: MayWriteMessages,
    channel: Annotated[Channel, Query()],
    address: Annotated[str, Query(min_length=1, max_length=320)],
    reason: Annotated[str | None, Query(pattern=REASON)] = None,
) -> None:
    """For one reason, or for all. What was cancelled meanwhile stays cancelled. Lifting a `stop_word` goes against the subscriber's own word: have his consent."""
    wanted = address_sought(channel, address, request.app.state.settings.phone_region)
    lifted = await suppressions.lift(session, channel, wanted, reason)
    if not lifted:
        raise SuppressionNotFound
    await audit.record(session, caller, "suppression.delete", f"suppression:{channel}", {"address": wanted, "reasons": sorted(lifted)})


def address_sought(channel: Channel | None, address: str, region: str) -> str:
    """The form in which it is stored. What is no address at all is simply not found."""
    kind = channel or ("email" if "@" in address else "sms")
    try:
        # A + that came unescaped in a query is a space by now.
        return normalise(kind, f"+{address.strip()}" if kind == "sms" and address.startswith(" ") else address, region)
    except AddressError:
        return address.replace("\0", "")
