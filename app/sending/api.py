"""How a gateway does: its binds, its queue, a check on demand, and a trace of its PDUs."""

from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StrictInt

from app.core import audit
from app.core.auth import MayReadGateways, MayWriteGateways
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import Conflict
from app.core.http import Guarded
from app.core.page import Paging, encode_cursor
from app.gateways.api import Name, existing
from app.gateways.hosts import endpoints_of, shown
from app.gateways.models import Gateway
from app.sending.check import CheckOut, try_out

router = APIRouter(prefix="/gateways", tags=["gateways"], route_class=Guarded)

BINDS = sa.text("SELECT slot, CAST(status AS text) AS status, until > now() AS alive FROM bind_slot WHERE gateway = :name ORDER BY slot")
TRACE = sa.text("""
SELECT id, at, slot, line FROM gateway_trace WHERE gateway = :gateway AND (CAST(:before AS uuid) IS NULL OR id < CAST(:before AS uuid)) ORDER BY id DESC LIMIT :limit
""")
TRACE_WHOLE = sa.text("SELECT at, slot, line FROM gateway_trace WHERE gateway = :gateway ORDER BY id")
QUEUE = sa.text("SELECT state, count(*) FROM outbox WHERE gateway = :name GROUP BY state")


class ErrorOut(BaseModel):
    at: datetime
    where: str
    command_status: str
    name: str
    detail: str


class HealthOut(BaseModel):
    """`share`: of the accounts that this bind's gateway serves while it fails and on its way back; 1 when it does well. Answers: those of failing_window."""

    share: float
    failing_since: datetime | None
    down_since: datetime | None
    throttled_since: datetime | None
    answers: int
    errors: int


class BindOut(BaseModel):
    slot: int
    state: str
    host: str
    since: datetime | None
    last_error: ErrorOut | None
    window_in_use: int
    rate_now: float | None = Field(description="Written in the last second; null of a mail gateway, where it is not counted")
    connections: int | None = Field(default=None, description="Of a mail gateway: those that are open now")
    last_activity_at: datetime | None
    health: HealthOut | None = None


class QueueOut(BaseModel):
    held: int = 0
    queued: int = 0
    sending: int = 0


class StatusOut(BaseModel):
    name: str
    kind: str
    enabled: bool
    paused: bool
    binds: list[BindOut]
    queue: QueueOut


class TraceIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    minutes: StrictInt = Field(ge=1, le=60, description="How long to write down every PDU, from now")


class TraceOut(BaseModel):
    until: datetime


class TraceLineOut(BaseModel):
    at: datetime
    slot: int
    line: str


class TracePage(BaseModel):
    """Newest first. `until` is when the trace ends that is running; null when none is."""

    items: list[TraceLineOut]
    next_cursor: str | None
    until: datetime | None


@router.get(
    "/{name}/status", operation_id="read_gateway_status", summary="Each bind, or each mail station's connections: state, window, last error; and the queue"
)
async def status(name: Name, caller: MayReadGateways, session: SessionDep) -> StatusOut:
    gateway = await existing(session, name)
    queue = {row.state: row.count for row in (await session.execute(QUEUE, {"name": name})).all()}
    return StatusOut(name=name, kind=gateway.kind, enabled=gateway.enabled, paused=gateway.paused, binds=await binds(session, gateway), queue=QueueOut(**queue))


async def binds(session: SessionDep, gateway: Gateway) -> list[BindOut]:
    """What the slots' owners said last; a slot without a living owner is down. Of a mail gateway: one for each mail station that serves it."""
    found = {row.slot: row for row in (await session.execute(BINDS, {"name": gateway.name})).all()}
    is_mail, seen = gateway.kind == "smtp", []
    slots = [slot for slot, row in found.items() if row.alive] or [0] if is_mail else range(int(gateway.settings["binds"]))
    for slot in slots:
        row = found.get(slot)
        said: dict[str, Any] = orjson.loads(row.status) if row is not None else {}
        state = said.get("state", "connecting") if row is not None and row.alive else "stopped" if not gateway.enabled else "down"
        quiet = {
            "host": shown(endpoints_of(gateway.settings["host"], gateway.settings["port"])[0]),
            "since": None,
            "last_error": None,
            "window_in_use": 0,
            "rate_now": None if is_mail else 0.0,
            "connections": 0 if is_mail else None,
            "last_activity_at": None,
            "health": None,
        }
        seen.append(BindOut(**(quiet | {k: v for k, v in said.items() if k in quiet} | {"slot": slot, "state": state})))
    return seen


@router.post("/{name}/check", operation_id="check_gateway", summary="Bind, or EHLO, and report; nothing is sent")
async def check(name: Name, caller: MayWriteGateways, request: Request) -> CheckOut:
    """While a bind is up it is reported and no other is opened: an SMSC counts them."""
    state = request.app.state
    async with state.database.transaction() as session:
        gateway = await existing(session, name)
        up = [bind for bind in await binds(session, gateway) if gateway.kind == "smpp" and bind.state in {"bound", "throttled", "draining"}]
    if up:
        return CheckOut(ok=True, live=True, detail=f"bound to {up[0].host} since {up[0].since:%Y-%m-%d %H:%M:%S}Z")
    return await try_out(gateway, state.secrets)


@router.post("/{name}/trace", operation_id="start_trace", summary="Write down every PDU for some minutes; addresses are masked, passwords and texts left out")
async def start_trace(name: Name, given: TraceIn, caller: MayWriteGateways, session: SessionDep) -> TraceOut:
    """The binds take it up within a second, without a reconnect. Asked again, it runs from now on anew."""
    gateway = await existing(session, name, lock=True)
    if gateway.kind != "smpp":
        raise Conflict("A mail gateway has no PDUs: its answers stand in the history of each message.", code="nothing_to_trace")
    gateway.trace_until = until = now() + timedelta(minutes=given.minutes)
    await audit.record(session, caller, "gateway.trace", f"gateway:{name}", {"minutes": given.minutes})
    return TraceOut(until=until)


@router.delete("/{name}/trace", operation_id="end_trace", summary="End the trace; what was written down stays for some days", status_code=204)
async def end_trace(name: Name, caller: MayWriteGateways, session: SessionDep) -> None:
    gateway = await existing(session, name, lock=True)
    if gateway.trace_until is not None and gateway.trace_until > now():
        await audit.record(session, caller, "gateway.trace_end", f"gateway:{name}")
    gateway.trace_until = None


@router.get(
    "/{name}/trace",
    operation_id="read_trace",
    summary="The lines of the trace",
    response_model=TracePage,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "A page, newest first; as text/plain all of it, oldest first"}},
)
async def read_trace(
    name: Name, caller: MayReadGateways, session: SessionDep, paging: Paging, accept: Annotated[str, Header(max_length=1000)] = ""
) -> TracePage | Response:
    """With `Accept: text/plain` it is a file to send to whoever runs the SMSC."""
    gateway = await existing(session, name)
    if accept.strip().lower().startswith("text/plain"):
        rows = (await session.execute(TRACE_WHOLE, {"gateway": name})).all()
        return Response("".join(f"{row.at:%Y-%m-%dT%H:%M:%S.%f}Z slot {row.slot} {row.line}\n" for row in rows), media_type="text/plain; charset=utf-8")
    after = paging.key(UUID)
    rows = (await session.execute(TRACE, {"gateway": name, "before": after[0] if after is not None else None, "limit": paging.limit + 1})).all()
    more = encode_cursor(rows[paging.limit - 1].id) if len(rows) > paging.limit else None
    running = gateway.trace_until if gateway.trace_until is not None and gateway.trace_until > now() else None
    return TracePage(items=[TraceLineOut(at=row.at, slot=row.slot, line=row.line) for row in rows[: paging.limit]], next_cursor=more, until=running)
