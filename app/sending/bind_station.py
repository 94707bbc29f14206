"""A bind station: what a worker runs for `smpp:<gateway>:<slot>`.

It takes over a changed gateway by itself: the old bind is drained and settled, then the new one claims.
"""

import asyncio
import contextlib
import dataclasses
import time
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import structlog

from app.catalogue.registry import Catalogue
from app.core import metrics
from app.core.clock import now
from app.core.db import Database, as_utc
from app.core.secrets import SecretBox
from app.gateways.health import Health
from app.gateways.models import Gateway
from app.gateways.settings import smpp_settings
from app.sending.bind_lane import open_bind_lane
from app.sending.claim import push_on
from app.sending.flush import Record
from app.sending.lane import GRACE, WATCH, Lane, pause
from app.sending.outcome import Outcome, is_gateways_fault
from app.sending.slots import RENEW, Slot, take_slot
from app.sending.smpp.status import BindStatus
from app.sending.trace_lines import TraceLines

log = structlog.get_logger()

UTC = ZoneInfo("UTC")


class BindStation:
    """One slot of one SMPP gateway. `run()` ends when the gateway is gone, is disabled, or has no such slot any more."""

    def __init__(self, database: Database, secrets: SecretBox, gateway: str, slot: int, record: Record[Any], zone: ZoneInfo = UTC) -> None:
        """`zone` is the operator's: days of budgets and hours without a bind are told by its clock."""
        self._database, self._secrets, self._gateway, self._number, self._record, self._zone = database, secrets, gateway, slot, record, zone
        self._catalogue = Catalogue()
        self._trace = TraceLines(database, gateway, slot)
        self._traced_until: datetime | None = None
        self._lane: Lane | None = None
        self._slot: Slot | None = None
        self._health: Health | None = None
        self._revision = 0
        self._paused = False
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()

    def poke(self) -> None:
        if self._lane is not None:
            self._lane.delivery.poke()

    def stop(self) -> None:
        self._stopping.set()

    def health(self) -> dict[str, Any]:
        """The state of the bind, and for how many seconds the slot is surely ours; `spare` while another process has it."""
        if self._lane is None or self._slot is None:
            return {"state": "spare"}
        return {"state": str(self._lane.wire.status.state), "lease_seconds": round(max(0.0, self._slot.until - time.monotonic()), 1)}

    async def run(self) -> None:
        while not self._stopping.is_set():
            try:
                gateway = await self._look()
                if not is_wanted(gateway, self._number):
                    return
                assert gateway is not None
                self._slot = await take_slot(self._database, self._gateway, self._number)
                if self._slot is not None:
                    await self._serve(gateway, self._slot)
            except Exception as error:
                log.error("bind_station", gateway=self._gateway, slot=self._number, exc_info=error)
            await pause(self._stopping, WATCH)

    async def _serve(self, gateway: Gateway, slot: Slot) -> None:
        """Bind and send until the gateway changes, the slot is lost, or the end is asked for."""
        self._paused = gateway.paused
        metrics.start_gateway(self._gateway, "smpp", self._catalogue.types, wire=True)
        lane = self._lane = self._open(gateway, slot)
        self._traced_until = None
        self._trace_as_wanted(gateway, lane)
        lane.start()
        try:
            await self._watch(gateway.revision, slot, lane)
        finally:
            await self._drain(slot, lane)
            self._lane = None
            await self._trace.close()
            metrics.BIND_UP.labels(self._gateway, str(self._number)).set(0)
            metrics.BIND_BLACKOUT.labels(self._gateway, str(self._number)).set(0)
            with contextlib.suppress(Exception):
                await slot.give_up(self._database, self._said(lane))

    def _open(self, gateway: Gateway, slot: Slot) -> Lane:
        settings = smpp_settings(gateway, self._secrets)
        if gateway.revision != self._revision:  # other settings, other answers: only how long it is down goes on
            self._health, self._revision = Health(settings.profile, down_since=self._health.down_since if self._health else None), gateway.revision
        return open_bind_lane(
            self._database,
            settings,
            slot,
            self._catalogue,
            self._zone,
            self._record,
            on_change=self._note,
            on_answer=self._answered,
            on_trace=self._trace.add,
            may_claim=lambda: slot.is_sure and not self._paused and not self._stopping.is_set(),
        )

    async def _drain(self, slot: Slot, lane: Lane) -> None:
        """End the lane. Until the last answer is in, the slot stays ours: a drain may take longer than the hold."""
        keeper = asyncio.create_task(self._keep(slot, lane))
        try:
            await lane.stop(GRACE)
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _keep(self, slot: Slot, lane: Lane) -> None:
        while await self._renew(slot, lane):
            await asyncio.sleep(RENEW)

    async def _renew(self, slot: Slot, lane: Lane) -> bool:
        """Push on our hold of the slot, and the leases of what the wire has for long: as long as we live, nobody else says `unknown` or sends it once more."""
        if not await slot.renew(self._database, self._said(lane)):
            return False
        if ids := lane.delivery.long_at_work:
            async with self._database.transaction() as session:
                await push_on(session, [slot.fence], ids, lane.delivery.lease)
        return True

    async def _look(self) -> Gateway | None:
        """The gateway as it stands, and the types up to date with it."""
        async with self._database.transaction() as session:
            await self._catalogue.refresh(session)
            return await session.get(Gateway, self._gateway)

    def _trace_as_wanted(self, gateway: Gateway, lane: Lane) -> None:
        """Begin or end writing PDUs down, when that was asked for since the last look."""
        if gateway.trace_until != self._traced_until:
            self._traced_until = gateway.trace_until
            left = (gateway.trace_until - now()).total_seconds() if gateway.trace_until is not None else 0.0
            lane.wire.trace_until = time.monotonic() + left if left > 0 else 0.0  # type: ignore[union-attr]  # the wire of this lane is a Bind

    def _said(self, lane: Lane) -> dict[str, Any]:
        """What the slot's row says of this bind."""
        said = status_json(lane.wire.status)  # type: ignore[arg-type]  # the wire of this lane is a Bind
        return said | {"health": self._health.as_json() if self._health else None}

    def _answered(self, outcome: Outcome) -> None:
        """Count it; and tell at once when it makes the gateway one that others should stand in for."""
        fault = is_gateways_fault(outcome)
        if self._health is not None and fault is not None and self._health.answered(well=not fault):
            log.warning("gateway_failing", gateway=self._gateway, slot=self._number)
            self._changed.set()

    def _note(self, status: BindStatus) -> None:
        if self._health is not None:
            self._health.moved(status.state)
        metrics.BIND_UP.labels(self._gateway, str(self._number)).set(status.state in ("bound", "throttled"))
        metrics.BIND_BLACKOUT.labels(self._gateway, str(self._number)).set(is_blackout(status))
        if status.state == "throttled":
            metrics.THROTTLED.labels(self._gateway).inc()
        self._changed.set()
        self.poke()

    async def _watch(self, revision: int, slot: Slot, lane: Lane) -> None:
        """Renew the slot and look at the gateway. Returns when serving must end."""
        renewed = 0.0
        while not self._stopping.is_set():
            metrics.WINDOW_IN_USE.labels(self._gateway, str(self._number)).set(lane.wire.in_use)
            try:
                if self._changed.is_set() or time.monotonic() - renewed > RENEW:
                    self._changed.clear()
                    # A database that does not answer at all must not keep us bound beyond the end of our hold.
                    async with asyncio.timeout(max(0.1, slot.until - time.monotonic())):
                        kept = await self._renew(slot, lane)
                    if not kept:
                        log.warning("slot_lost", gateway=self._gateway, slot=self._number)
                        return
                    renewed = time.monotonic()
                async with asyncio.timeout(max(0.1, slot.until - time.monotonic())):
                    gateway = await self._look()
            except Exception as error:
                log.warning("slot_not_renewed", gateway=self._gateway, error=type(error).__name__)
                if time.monotonic() > slot.until:
                    return
                await pause(self._stopping, WATCH)
                continue
            if not is_wanted(gateway, self._number) or gateway is None or gateway.revision != revision or lane.is_broken:
                return
            if gateway.paused != self._paused:
                self._paused = gateway.paused
                self.poke()
            self._trace_as_wanted(gateway, lane)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._trace.flush(), WATCH)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(first_of(self._stopping, self._changed), WATCH)


def is_wanted(gateway: Gateway | None, slot: int) -> bool:
    return gateway is not None and gateway.enabled and gateway.kind == "smpp" and slot < int(gateway.settings.get("binds", 1))


def is_blackout(status: BindStatus) -> bool:
    """Whether it is down because its profile says so for these hours."""
    return status.state == "stopped" and status.last_error is not None and status.last_error.detail.startswith("blackout until ")


def status_json(status: BindStatus) -> dict[str, Any]:
    """A bind's state as `GET /gateways/{name}/status` shows it."""
    shown = dataclasses.asdict(status)
    for name in ("since", "last_activity_at"):
        shown[name] = as_utc(shown[name])
    if shown["last_error"]:
        shown["last_error"]["at"] = as_utc(shown["last_error"]["at"])
    return shown


async def first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
