"""Routes over the API: all of them in their order, read and written as one."""

from typing import Any

import orjson
import sqlalchemy as sa
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import audit
from app.core.auth import Caller, MayReadGateways, MayWriteGateways
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import FieldError, pointer
from app.core.http import Guarded, strict_json
from app.core.preconditions import IfMatch, etag, require_match
from app.gateways.fit import sender_fault
from app.gateways.models import Routing
from app.gateways.roads import profile_of
from app.gateways.router import KINDS
from app.gateways.routes import RouteIn, RoutesIn, read_routes, refused, stored

router = APIRouter(prefix="/routes", tags=["routes"], route_class=Guarded)

TYPES = sa.text("SELECT code FROM notification_type")
# Locked until the commit: nobody deletes a gateway that these routes are about to name, or makes another kind of it.
GATEWAYS = sa.text("SELECT name, kind, CAST(settings AS text) AS settings FROM gateway WHERE name = ANY(CAST(:names AS text[])) ORDER BY name FOR SHARE")
KEPT = sa.select(Routing).with_for_update()


class RoutesOut(BaseModel):
    """The first route that fits serves, those with a longer prefix before the others."""

    model_config = ConfigDict(extra="forbid")

    items: list[RouteIn]


def _schema() -> dict[str, Any]:
    """What PUT takes, in one piece: the names of its parts are not the contract's."""
    whole = RoutesIn.model_json_schema()
    parts = whole.pop("$defs", {})

    def joined(value: Any) -> Any:
        if isinstance(value, dict):
            reference = value.get("$ref")
            return joined(parts[reference.rpartition("/")[2]]) if reference else {key: joined(one) for key, one in value.items()}
        return [joined(one) for one in value] if isinstance(value, list) else value

    body: dict[str, Any] = joined(whole)
    return body


BODY = {
    "requestBody": {
        "required": True,
        "description": 'The routes in their order. `{"routes": [...]}` and the array alone are taken, too',
        "content": {"application/json": {"schema": _schema()}},
    }
}


@router.get("", operation_id="read_routes", summary="All routes, in their order")
async def read(caller: MayReadGateways, session: SessionDep, response: Response) -> RoutesOut:
    kept = (await session.execute(sa.select(Routing))).scalar_one_or_none()
    response.headers["ETag"] = etag(kept.revision if kept is not None else 0)
    return RoutesOut.model_validate({"items": kept.routes if kept is not None else []})


@router.put("", operation_id="put_routes", summary="Replace all routes", openapi_extra=BODY)
async def put(caller: MayWriteGateways, request: Request, session: SessionDep, response: Response, if_match: IfMatch = None) -> RoutesOut:
    """They hold for what is planned from now on, and for what is queued on a gateway that cannot send. If-Match is needed once there are some."""
    routes, root = read_routes(await strict_json(request))
    if faults := await faults_of(session, routes, root):
        raise refused(faults)
    kept = await _write(session, caller, stored(routes), if_match)
    response.headers["ETag"] = etag(kept.revision)
    return RoutesOut.model_validate({"items": kept.routes})


async def _write(session: AsyncSession, caller: Caller, wanted: list[dict[str, Any]], if_match: str | None) -> Routing:
    fresh: Any = insert(Routing).values(id=1, routes=wanted, revision=1, updated_at=now()).on_conflict_do_nothing().returning(sa.column("id"))
    made: Any = (await session.execute(fresh)).first() if if_match in (None, "*", etag(0)) else None
    kept = (await session.execute(KEPT)).scalar_one_or_none()
    if made is None or kept is None:
        require_match(if_match, kept.revision if kept is not None else 0)
    if kept is None:  # unreachable: the row is never deleted, and If-Match of another version has been refused
        raise LookupError("routing")
    if made is not None:
        await audit.record(session, caller, "routes.create", "routes", {"routes": wanted})
    elif kept.routes != wanted:
        await audit.record(session, caller, "routes.update", "routes", {"routes": [kept.routes, wanted]})
        kept.routes, kept.revision, kept.updated_at = wanted, kept.revision + 1, now()
        await session.flush()
    return kept


async def faults_of(session: AsyncSession, routes: list[RouteIn], root: tuple[str, ...]) -> list[FieldError]:
    """What the database knows better: gateways, types, and senders that a gateway does not take."""
    names = list({gateway.name for route in routes for gateway in route.gateways})
    rows: Any = (await session.execute(GATEWAYS, {"names": names})).all() if names else []
    gateways = {row.name: row for row in rows}
    profiles = {row.name: profile_of(orjson.loads(row.settings)) for row in rows if row.kind == "smpp"}
    types = set((await session.execute(TYPES)).scalars()) if any(route.type for route in routes) else set[str]()
    faults: list[FieldError] = []

    def fault(code: str, detail: str, *steps: str | int) -> None:
        faults.append(FieldError(pointer(*root, *steps), code, detail))

    for place, route in enumerate(routes):
        for number, gateway in enumerate(route.gateways):
            there = gateways.get(gateway.name)
            if there is None:
                fault("unknown_gateway", f"There is no gateway {gateway.name}: create it first.", place, "gateways", number)
            elif there.kind != KINDS[route.channel]:
                fault("wrong_gateway", f"{gateway.name} is a gateway of kind {there.kind}: it does not carry {route.channel}.", place, "gateways", number)
            elif there.kind == "smpp" and profiles[gateway.name].bind_mode == "rx":
                fault("wrong_gateway", f"{gateway.name} only receives (bind_mode rx): name a gateway that sends.", place, "gateways", number)
            elif route.sender and (why := sender_fault(route.sender, profiles[gateway.name])):
                fault("sender_refused", f"{gateway.name} could not send as {route.sender!r}: {why}.", place, "sender")
        for number, code in enumerate(route.type):
            if code not in types:
                fault("unknown_type", f"There is no notification type {code}.", place, "type", number)
    return faults
