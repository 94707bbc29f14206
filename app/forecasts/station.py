"""A scan station: what a worker runs for the queue `scan`. It asks for the scans that are due, and works through slices, its own or others'."""

import asyncio
import contextlib
import datetime as dt
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalogue.registry import Catalogue
from app.core import metrics
from app.core.clock import now
from app.core.config import Settings
from app.core.db import Database
from app.core.wakeups import PLAN, SCAN, Wakeups
from app.forecasts.find import TYPES, Wanted, wanted_from
from app.forecasts.scan import LEAST, MULTIPLE, Alarm, Appraise, Scanner
from app.forecasts.schedule import ask_for_due

log = structlog.get_logger()

LOOK = 15.0  # seconds between two looks at the clock
IDLE = 5.0  # and at the slices, when nobody pokes

AT_WORK = sa.text("""
SELECT r.kind, s.state, count(*) AS slices FROM scan_run r JOIN scan_slice s ON s.run_id = r.id AND s.phase = r.phase
WHERE r.state IN ('queued', 'running') GROUP BY r.kind, s.state
""")
STATES = ("waiting", "running", "done", "failed")
FINISHED = sa.text("""
SELECT kind, extract(epoch FROM max(finished_at)) AS at FROM scan_run WHERE state = 'done' AND NOT dry_run GROUP BY kind
""")


class ScanStation:
    """`run()` ends when it is asked to; a slice that has begun is finished."""

    def __init__(self, database: Database, settings: Settings, wakeups: Wakeups, appraise: Appraise) -> None:
        self._database, self._settings, self._wakeups = database, settings, wakeups
        self._catalogue = Catalogue()
        self._scanner = Scanner(database, self.wanted, appraise, lambda: wakeups.wake(PLAN))
        self._poked, self._stopping = asyncio.Event(), False
        self._looked = -LOOK

    def poke(self) -> None:
        self._poked.set()

    def stop(self) -> None:
        self._stopping = True
        self._poked.set()

    async def run(self) -> None:
        while not self._stopping:
            try:
                await self._ask()
                while not self._stopping and await asyncio.shield(asyncio.ensure_future(self._scanner.step())):
                    await self._ask()
            except Exception as error:
                log.error("scan_station", error=type(error).__name__, detail=str(error)[:300])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poked.wait(), IDLE)
            self._poked.clear()

    async def catch_up(self, moment: datetime) -> None:
        """Ask for what was due at this moment and work it off, here and now: for whoever runs it instead of a station."""
        await self._ask(moment)
        while await self._scanner.step():
            pass

    async def wanted(self, session: AsyncSession) -> tuple[Wanted, Alarm]:
        """The operator's settings of now."""
        await self._catalogue.refresh(session)
        settings = self._settings_of_types()
        exhausting = settings.get(TYPES["exhaustion"], {})
        return wanted_from(settings), Alarm(exhausting.get("alarm_multiple", MULTIPLE), exhausting.get("alarm_least", LEAST))

    def _settings_of_types(self) -> dict[str, Mapping[str, Any]]:
        return {code: rules.settings for code, rules in self._catalogue.types.items()}

    async def _ask(self, moment: datetime | None = None) -> list[UUID]:
        """Is it the scan hour somewhere?"""
        if time.monotonic() - self._looked < LOOK:
            return []
        self._looked = time.monotonic()
        async with self._database.transaction() as session:
            await self._catalogue.refresh(session)
            kinds = [kind for kind, code in TYPES.items() if (rules := self._catalogue.types.get(code)) is not None and rules.enabled]
            hour, upcoming_days = dt.time.fromisoformat(self._settings.scan_hour), wanted_from(self._settings_of_types()).upcoming_days
            asked = await ask_for_due(session, kinds, hour, self._settings.timezone, moment or now(), upcoming_days)
            for row in (await session.execute(FINISHED)).all():
                if row.kind in kinds:  # a type that is switched off is not scanned for, and not missed
                    metrics.SCAN_SUCCESS.labels(row.kind).set(float(row.at))
                else:
                    with contextlib.suppress(KeyError):
                        metrics.SCAN_SUCCESS.remove(row.kind)
            slices = {(row.kind, row.state): row.slices for row in (await session.execute(AT_WORK)).all()}
        for kind in TYPES:
            for state in STATES:
                metrics.SCAN_SLICES.labels(kind, state).set(slices.get((kind, state), 0))
        if asked:
            log.info("scans_asked_for", runs=len(asked))
            self._wakeups.wake(SCAN)
        return asked
