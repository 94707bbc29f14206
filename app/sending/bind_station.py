"""A bind station: what a worker runs for `smpp:<gateway>:<slot>`.

It takes over a changed gateway by itself: the old bind is drained and settled, then the new one claims.
"""

import asyncio
import contextlib
import dataclasses
import time
from datetime import timedelta
from typing import Any

import structlog

from app.core import metrics
from app.core.clock import now
from app.core.db import Database, as_utc
from app.core.secrets import SecretBox
from app.gateways.models import Gateway
from app.gateways.settings import smpp_settings
from app.sending.claim import Claimed
from app.sending.deliver import Delivery
from app.sending.flush import Flusher, Record
from app.sending.lane import GRACE, WATCH, Lane, pause
from app.sending.outcome import Accepted, Outcome, Unknown
from app.sending.settle import Policy
from app.sending.slots import RENEW, Slot, take_slot
from app.sending.smpp.bind import Bind
from app.sending.smpp.compose import Shipment
from app.sending.smpp.status import BindStatus

log = structlog.get_logger()

LEASE_SPARE = timedelta(seconds=30)


class BindStation:
    """One slot of one SMPP gateway. `run()` ends when the gateway is gone, is disabled, or has no such slot any more."""

    def __init__(self, database: Database, secrets: SecretBox, gateway: str, slot: int, record: Record[Any]) -> None:
        self._database, self._secrets, self._gateway, self._number, self._record = database, secrets, gateway, slot, record
        self._lane: Lane | None = None
        self._slot: Slot | None = None
        self._paused = False
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()

    def poke(self) -> None:
        if self._lane is not None:
            self._lane.delivery.poke()

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        while not self._stopping.is_set():
            try:
                gateway = await find_gateway(self._database, self._gateway)
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
        lane = self._lane = self._open(gateway, slot)
        lane.start()
        try:
            await self._watch(gateway.revision, slot, lane)
        finally:
            await self._drain(slot, lane)
            self._lane = None
            metrics.BIND_UP.labels(self._gateway, str(self._number)).set(0)
            with contextlib.suppress(Exception):
                await slot.give_up(self._database, status_json(lane.wire.status))  # type: ignore[arg-type]

    def _open(self, gateway: Gateway, slot: Slot) -> Lane:
        settings = smpp_settings(gateway, self._secrets)
        profile = settings.profile
        policy = Policy(
            gateway=gateway.name,
            receipt_group=profile.receipt_group or gateway.name,
            backoff_min=timedelta(seconds=profile.retry_backoff_min),
            backoff_max=timedelta(seconds=profile.retry_backoff_max),
            attempts=profile.temp_attempts,
        )

        def came(shipment: Shipment, outcome: Outcome) -> None:
            count_status(gateway.name, outcome)
            delivery.came(shipment.key, outcome)

        def ship(claimed: Claimed) -> int:
            left = claimed.expires_at - now()
            reference = claimed.id.int & 0xFFFF
            return bind.ship(
                Shipment(claimed.id, claimed.address, claimed.text, None, max(left, timedelta(minutes=1)), claimed.urgent, reference, claimed.attempts + 1)
            )

        bind = Bind(settings, on_outcome=came, on_receipt=lambda receipt: flusher.receipt(receipt), on_change=self._note, slot=self._number)  # noqa: PLW0108 - the flusher comes next
        flusher = Flusher(
            self._database, slot.fence, policy, release=lambda claimed, written: bind.release(delivery.done(claimed, written=written)), record=self._record
        )
        # Writing takes its time, too: a window of parts, and the ten of one long message, at the agreed rate.
        writing = (settings.window + profile.max_parts) / rate if (rate := settings.rate_of_bind) else 0.0
        lease = timedelta(seconds=profile.response_timeout + writing) + LEASE_SPARE
        delivery = Delivery(
            self._database,
            bind,
            slot.fence,
            policy,
            flusher,
            ship=ship,
            lease=lease,
            may_claim=lambda: slot.is_sure and not self._paused and not self._stopping.is_set(),
        )
        return Lane(bind, delivery, flusher)

    async def _drain(self, slot: Slot, lane: Lane) -> None:
        """End the lane. Until the last answer is in, the slot stays ours: a drain may take longer than the hold."""
        keeper = asyncio.create_task(self._keep(slot, lane))
        try:
            await lane.stop(GRACE)
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _keep(self, slot: Slot, lane: Lane) -> None:
        while await slot.renew(self._database, status_json(lane.wire.status)):  # type: ignore[arg-type]
            await asyncio.sleep(RENEW)

    def _note(self, status: BindStatus) -> None:
        metrics.BIND_UP.labels(self._gateway, str(self._number)).set(status.state in ("bound", "throttled"))
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
                        kept = await slot.renew(self._database, status_json(lane.wire.status))  # type: ignore[arg-type]
                    if not kept:
                        log.warning("slot_lost", gateway=self._gateway, slot=self._number)
                        return
                    renewed = time.monotonic()
                async with asyncio.timeout(max(0.1, slot.until - time.monotonic())):
                    gateway = await find_gateway(self._database, self._gateway)
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
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(first_of(self._stopping, self._changed), WATCH)


def is_wanted(gateway: Gateway | None, slot: int) -> bool:
    return gateway is not None and gateway.enabled and gateway.kind == "smpp" and slot < int(gateway.settings.get("binds", 1))


def status_json(status: BindStatus) -> dict[str, Any]:
    """A bind's state as `GET /gateways/{name}/status` shows it."""
    shown = dataclasses.asdict(status)
    for name in ("since", "last_activity_at"):
        shown[name] = as_utc(shown[name])
    if shown["last_error"]:
        shown["last_error"]["at"] = as_utc(shown["last_error"]["at"])
    return shown


def count_status(gateway: str, outcome: Outcome) -> None:
    """Every answer by its number; `none` where there was no answer."""
    code = "0x00000000" if isinstance(outcome, Accepted) else "none" if isinstance(outcome, Unknown) else outcome.code or "none"
    metrics.STATUS.labels(gateway, code).inc()


async def find_gateway(database: Database, name: str) -> Gateway | None:
    async with database.transaction() as session:
        return await session.get(Gateway, name)


async def first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
