"""The webhooks station: what a worker runs for `webhooks`. A lane for each endpoint that has something due; any number of stations may run."""

import asyncio
import contextlib
from uuid import UUID

import sqlalchemy as sa
import structlog

from app.core.config import Settings
from app.core.db import Database
from app.core.errors import ConfigurationError
from app.core.ids import new_id
from app.core.secrets import SecretBox
from app.webhooks.keep import Keeping
from app.webhooks.lane import Lane
from app.webhooks.models import Webhook

log = structlog.get_logger()

LOOK = 1.0  # seconds between two looks: what happens is queued by the database itself, which wakes nobody
KEEP = 5.0  # seconds between two rounds of housekeeping
GRACE = 20.0  # seconds for what is out when the station ends: longer than an attempt

DUE = sa.text("""
SELECT w.id FROM webhook w WHERE w.enabled AND (w.rests_until IS NULL OR w.rests_until <= now())
AND EXISTS (SELECT FROM webhook_delivery d WHERE d.endpoint_id = w.id AND d.state = 'waiting' AND d.due_at <= now())
""")


class WebhookStation:
    def __init__(self, database: Database, settings: Settings, box: SecretBox) -> None:
        self._database, self._settings, self._box = database, settings, box
        self._keeping = Keeping(database, settings)
        self._owner = new_id()
        self._lanes: dict[UUID, Lane] = {}
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._poked, self._stopping = asyncio.Event(), asyncio.Event()

    def poke(self) -> None:
        self._poked.set()

    def stop(self) -> None:
        self._stopping.set()
        self._poked.set()

    async def run(self) -> None:
        keeping = asyncio.create_task(self._keep())
        try:
            while not self._stopping.is_set():
                try:
                    await self.look()
                except Exception as error:
                    log.error("webhook_station", exc_info=error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._poked.wait(), LOOK)
                self._poked.clear()
        finally:
            await self._end(keeping)

    async def look(self) -> None:
        """Set the lanes to work that have something due."""
        async with self._database.transaction() as session:
            due = set((await session.execute(DUE)).scalars())
            found = {row.id: row for row in (await session.scalars(sa.select(Webhook).where(sa.text("enabled")))).all()}
        for endpoint in [endpoint for endpoint, lane in self._lanes.items() if endpoint not in found or found[endpoint].url != lane.webhook.url]:
            await self._drop(endpoint)
        for endpoint, webhook in found.items():
            lane = self._lanes.get(endpoint)
            try:
                if lane is not None:
                    lane.follow(webhook)
                elif endpoint in due and endpoint not in self._tasks:
                    lane = self._lanes[endpoint] = Lane(self._database, self._settings, self._box, self._owner, webhook)
            except ConfigurationError as error:
                log.error("webhook_secret", webhook=str(endpoint), error=str(error))
                continue
            if lane is not None and endpoint in due:
                lane.poke()
                if endpoint not in self._tasks:
                    self._tasks[endpoint] = asyncio.create_task(self._work(endpoint, lane))

    async def _work(self, endpoint: UUID, lane: Lane) -> None:
        try:
            await lane.work()
        except Exception as error:
            log.error("webhook_lane", webhook=str(endpoint), exc_info=error)
        finally:
            self._tasks.pop(endpoint, None)
            if self._lanes.get(endpoint) is not lane:
                await lane.close()

    async def _drop(self, endpoint: UUID) -> None:
        """The endpoint is gone, disabled, or elsewhere by now. What is out is settled; whoever works last closes the lane."""
        lane = self._lanes.pop(endpoint)
        lane.stop()
        if endpoint not in self._tasks:
            await lane.close()

    async def _keep(self) -> None:
        while not self._stopping.is_set():
            try:
                if await self._keeping.round():
                    self.poke()
            except Exception as error:
                log.error("webhook_keeping", error=type(error).__name__, detail=str(error)[:300])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), KEEP)

    async def _end(self, keeping: asyncio.Task[None]) -> None:
        for lane in self._lanes.values():
            lane.stop()
        tasks = list(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=GRACE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        for lane in self._lanes.values():
            await lane.close()
