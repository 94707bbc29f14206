"""How a gateway does: its binds, its queue, and a check on demand."""

import asyncio
from datetime import datetime
from typing import Any

import orjson
import sqlalchemy as sa
from fastapi import APIRouter, Request
from pydantic import BaseModel

from app.core.auth import MayReadGateways, MayWriteGateways
from app.core.db import SessionDep
from app.core.http import Guarded
from app.core.secrets import SecretBox
from app.gateways.api import Name, existing
from app.gateways.models import Gateway
from app.gateways.settings import smpp_settings, smtp_settings
from app.sending.bind_station import status_json
from app.sending.smpp.bind import Bind
from app.sending.smtp.check import check as check_smtp

router = APIRouter(prefix="/gateways", tags=["gateways"], route_class=Guarded)

CHECK_SECONDS = 15.0

BINDS = sa.text("SELECT slot, CAST(status AS text) AS status, until > now() AS alive FROM bind_slot WHERE gateway = :name ORDER BY slot")
QUEUE = sa.text("SELECT state, count(*) FROM outbox WHERE gateway = :name GROUP BY state")


class ErrorOut(BaseModel):
    at: datetime
    where: str
    command_status: str
    name: str
    detail: str


class BindOut(BaseModel):
    slot: int
    state: str
    host: str
    since: datetime | None
    last_error: ErrorOut | None
    window_in_use: int
    rate_now: float
    last_activity_at: datetime | None


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


class CheckOut(BaseModel):
    """`live`: a bind that is up was asked, no other one was opened."""

    ok: bool
    live: bool
    detail: str


@router.get("/{name}/status", operation_id="read_gateway_status", summary="Each bind: state, rate, window, last error; and the queue")
async def status(name: Name, caller: MayReadGateways, session: SessionDep) -> StatusOut:
    gateway = await existing(session, name)
    queue = {row.state: row.count for row in (await session.execute(QUEUE, {"name": name})).all()}
    return StatusOut(name=name, kind=gateway.kind, enabled=gateway.enabled, paused=gateway.paused, binds=await binds(session, gateway), queue=QueueOut(**queue))


async def binds(session: SessionDep, gateway: Gateway) -> list[BindOut]:
    """What the slots' owners said last; a slot without a living owner is down."""
    if gateway.kind != "smpp":
        return []
    found = {row.slot: row for row in (await session.execute(BINDS, {"name": gateway.name})).all()}
    shown = []
    for slot in range(int(gateway.settings["binds"])):
        row = found.get(slot)
        said: dict[str, Any] = orjson.loads(row.status) if row is not None else {}
        state = said.get("state", "connecting") if row is not None and row.alive else "stopped" if not gateway.enabled else "down"
        quiet = {
            "host": f"{gateway.settings['host']}:{gateway.settings['port']}",
            "since": None,
            "last_error": None,
            "window_in_use": 0,
            "rate_now": 0.0,
            "last_activity_at": None,
        }
        shown.append(BindOut(**(quiet | {k: v for k, v in said.items() if k in quiet} | {"slot": slot, "state": state})))
    return shown


@router.post("/{name}/check", operation_id="check_gateway", summary="Bind, or EHLO, and report; nothing is sent")
async def check(name: Name, caller: MayWriteGateways, request: Request) -> CheckOut:
    """While a bind is up it is reported and no other is opened: an SMSC counts them."""
    state = request.app.state
    async with state.database.transaction() as session:
        gateway = await existing(session, name)
        up = [bind for bind in await binds(session, gateway) if bind.state in {"bound", "throttled", "draining"}]
    if up:
        return CheckOut(ok=True, live=True, detail=f"bound to {up[0].host} since {up[0].since:%Y-%m-%d %H:%M:%S}Z")
    return await try_out(gateway, state.secrets)


async def try_out(gateway: Gateway, secrets: SecretBox) -> CheckOut:
    """Open a session, see how far it gets, close it."""
    if gateway.kind == "smtp":
        report = await check_smtp(smtp_settings(gateway, secrets))
        return CheckOut(ok=bool(report["ok"]), live=False, detail=str(report["detail"]))
    bind = Bind(smpp_settings(gateway, secrets), on_outcome=lambda *_: None, on_receipt=lambda receipt: receipt.nack(), slot=-1)
    running = asyncio.create_task(bind.run())
    try:
        for _ in range(int(CHECK_SECONDS / 0.05)):
            await asyncio.sleep(0.05)
            if bind.status.state == "bound":
                return CheckOut(ok=True, live=False, detail=f"bound to {bind.status.host}")
            if bind.status.last_error is not None:
                break
        said = status_json(bind.status)["last_error"]
        detail = f"{said['where']}: {said['detail']} {said['command_status']} {said['name']}".strip() if said else f"no answer within {CHECK_SECONDS:.0f} s"
        return CheckOut(ok=False, live=False, detail=detail)
    finally:
        await bind.stop(1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
