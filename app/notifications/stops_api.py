"""The stop switch over the API: set, shown, lifted."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import audit
from app.core.auth import MayReadMessages, MayWriteMessages
from app.core.db import SessionDep
from app.core.errors import NotFound, field_invalid
from app.core.http import Guarded
from app.core.ids import new_id
from app.core.page import Page, Paging, encode_cursor
from app.notifications.stops import Switch

router = APIRouter(prefix="/stops", tags=["stops"], route_class=Guarded)

AT_ONCE = 5.0  # seconds that a request moves rows; the sweep goes on with what is left, and none of it is sent meanwhile

SET = sa.text("""
INSERT INTO stop (id, scope, name, reason, by, at) VALUES (:id, :scope, :name, :reason, :by, clock_timestamp()) ON CONFLICT (scope, name) DO NOTHING RETURNING id
""")
LIFT = sa.text("DELETE FROM stop WHERE id = :id RETURNING scope, name, reason, by, at")
THERE = {
    "type": sa.text("SELECT EXISTS (SELECT FROM notification_type WHERE code = :name)"),
    "gateway": sa.text("SELECT EXISTS (SELECT FROM gateway WHERE name = :name)"),
}
SHOWN = """
SELECT s.id, s.scope, nullif(s.name, '') AS name, s.reason, s.by, s.at, CASE s.scope
           WHEN 'all' THEN (SELECT count(*) FROM outbox WHERE stopped_at IS NOT NULL)
           WHEN 'gateway' THEN (SELECT count(*) FROM outbox WHERE stopped_at IS NOT NULL AND gateway = s.name)
           ELSE (SELECT count(*) FROM outbox o JOIN message m ON m.id = o.message_id WHERE o.stopped_at IS NOT NULL AND m.type = s.name)
       END AS held
FROM stop s
"""


class StopIn(BaseModel):
    """What is to stand still: everything, the messages of one type, or those of one gateway."""

    model_config = ConfigDict(extra="forbid")

    scope: Literal["all", "type", "gateway"]
    name: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(default=None, description="The code of the type or the name of the gateway")
    reason: str = Field(default="", max_length=300, description="For whoever finds it standing")


class StopOut(BaseModel):
    """`held`: the messages that it holds now, one by one; a message that two stops hold counts for both."""

    id: UUID
    scope: Literal["all", "type", "gateway"]
    name: str | None
    reason: str
    by: str
    at: datetime
    held: int


@router.post("", operation_id="set_stop", summary="Stop sending", status_code=201, responses={200: {"model": StopOut, "description": "It stood already"}})
async def set_stop(given: StopIn, caller: MayWriteMessages, request: Request, response: Response) -> StopOut:
    """Nothing more is claimed from now on; what is on the wire already is finished. Everything else is held, keeps its time to live, and goes on when
    the stop is lifted. Mandatory and urgent types are no exception."""
    database = request.app.state.database
    async with database.transaction() as session:
        await check(session, given)
        values = {"id": new_id(), "scope": given.scope, "name": given.name or "", "reason": given.reason, "by": caller.name}
        made = (await session.execute(SET, values)).first()
        if made is not None:
            await audit.record(session, caller, "stop.set", target(given.scope, given.name or ""), {"reason": given.reason} if given.reason else None)
    # Only now does everybody see it. If we die here, the sweep moves the rows.
    await Switch(database).hold(AT_ONCE)
    response.status_code = 200 if made is None else 201
    async with database.transaction() as session:
        found = (await session.execute(sa.text(f"{SHOWN} WHERE s.scope = :scope AND s.name = :name"), {"scope": given.scope, "name": given.name or ""})).first()
    if found is None:
        raise NotFound("Somebody has just lifted it.", code="stop_not_found")
    return shown(found)


@router.get("", operation_id="list_stops", summary="The stops that stand, and how many messages each holds")
async def list_stops(caller: MayReadMessages, session: SessionDep, paging: Paging) -> Page[StopOut]:
    after = paging.key(UUID)
    where = "WHERE s.id > :after" if after is not None else ""
    values: dict[str, Any] = {"limit": paging.limit + 1} | ({"after": after[0]} if after is not None else {})
    rows = (await session.execute(sa.text(f"{SHOWN} {where} ORDER BY s.id LIMIT :limit"), values)).all()
    more = encode_cursor(rows[paging.limit - 1].id) if len(rows) > paging.limit else None
    return Page(items=[shown(row) for row in rows[: paging.limit]], next_cursor=more)


@router.delete("/{stop_id}", operation_id="lift_stop", summary="Go on sending", status_code=204)
async def lift_stop(stop_id: UUID, caller: MayWriteMessages, request: Request) -> None:
    """What no other stop holds is looked at anew and goes out; its time to live is longer by the time that it stood still."""
    database = request.app.state.database
    async with database.transaction() as session:
        lifted = (await session.execute(LIFT, {"id": stop_id})).first()
        if lifted is None:
            raise NotFound("There is no such stop: it may have been lifted already.", code="stop_not_found")
        stood = {"reason": [lifted.reason, None], "by": [lifted.by, None], "at": [lifted.at.isoformat(), None]}
        await audit.record(session, caller, "stop.lift", target(lifted.scope, lifted.name), stood)
    await Switch(database).free(AT_ONCE)


async def check(session: AsyncSession, given: StopIn) -> None:
    """Invalid, when there is nothing that it could stop."""
    if given.scope == "all":
        if given.name is not None:
            raise field_invalid(("name",), "no_name", "A stop of everything has no name: leave it out.")
        return
    if given.name is None:
        raise field_invalid(("name",), "missing", f"Name the {given.scope} that is to stop.")
    if not (await session.execute(THERE[given.scope], {"name": given.name})).scalar():
        raise field_invalid(("name",), f"unknown_{given.scope}", f"There is no {'notification type' if given.scope == 'type' else 'gateway'} of this name.")


def target(scope: str, name: str) -> str:
    return f"stop:{scope}:{name}" if name else f"stop:{scope}"


def shown(row: Any) -> StopOut:
    return StopOut.model_validate(row, from_attributes=True)
