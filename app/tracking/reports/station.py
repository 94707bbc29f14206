"""A report station: what a worker runs for the queue `reports`. It writes the files that were asked for, and forgets those whose day is over."""

import asyncio
import contextlib
import time

import structlog

from app.core.clock import now
from app.core.db import Database
from app.tracking.reports.exports import Exporter, expire

log = structlog.get_logger()

IDLE = 5.0  # seconds between two looks round
SWEEP = 60.0  # seconds between two looks at old files


class ReportStation:
    """`run()` ends when it is asked to; the file in hand is put back, and begun again by the next one."""

    def __init__(self, database: Database, zone: str) -> None:
        self._database, self._exporter = database, Exporter(database, zone)
        self._poked, self._stopping = asyncio.Event(), False
        self._swept = -SWEEP

    def poke(self) -> None:
        self._poked.set()

    def stop(self) -> None:
        self._stopping = True
        self._exporter.stopping.set()
        self._poked.set()

    async def run(self) -> None:
        while not self._stopping:
            try:
                await self._sweep()
                while not self._stopping and await self._exporter.step():
                    pass
            except Exception as error:
                log.error("report_station", error=type(error).__name__, detail=str(error)[:300])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poked.wait(), IDLE)
            self._poked.clear()

    async def _sweep(self) -> None:
        if time.monotonic() - self._swept < SWEEP:
            return
        self._swept = time.monotonic()
        async with self._database.transaction() as session:
            await expire(session, now())
