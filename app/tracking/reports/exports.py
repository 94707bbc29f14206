"""Files that take too long for a request: asked for, written by a worker, kept in PostgreSQL for a day, so that any host can serve them.

queued -> running -> done -> expired
   |         |-> failed      three workers have died of it, or it cannot be written
   |         `-> queued      the worker was stopped, or its lease has ended: begun again
   `---------`-> cancelled
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, BinaryIO, cast
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import now
from app.core.db import Database
from app.core.ids import first_id_at, new_id
from app.tracking.reports.models import ReportExportPart
from app.tracking.reports.sheets import PIECE, Format
from app.tracking.reports.write import wanted_of, write

log = structlog.get_logger()

KEPT = timedelta(hours=24)
REMEMBERED = timedelta(days=30)
LEASE = timedelta(minutes=2)
PULSE = 1.0  # seconds between two signs of life, and two looks at whether it is still wanted
TRIES = 3
LARGEST = 512 << 20  # octets

CLAIM = sa.text("""
UPDATE report_export SET state = 'running', claimed_by = :me, lease_until = :until, attempts = attempts + 1, progress = 0, rows = 0
WHERE id = (
    SELECT id FROM report_export WHERE state = 'queued' OR state = 'running' AND lease_until < :now ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING id, kind, format, query, attempts
""")
ALIVE = sa.text("""
UPDATE report_export SET lease_until = :until, progress = :progress, rows = :rows WHERE id = :id AND claimed_by = :me AND state = 'running' RETURNING id
""")
BACK = sa.text("""
UPDATE report_export SET state = 'queued', claimed_by = NULL, lease_until = NULL, attempts = attempts - 1 WHERE id = :id AND claimed_by = :me AND state = 'running'
""")
FAILED = sa.text("""
UPDATE report_export SET state = 'failed', error = :error, finished_at = :now, expires_at = :expires_at WHERE id = :id AND claimed_by = :me AND state = 'running'
""")
DONE = sa.text("""
UPDATE report_export SET state = 'done', progress = 1, rows = :rows, size = :size, finished_at = :now, expires_at = :expires_at, lease_until = NULL
WHERE id = :id AND claimed_by = :me AND state = 'running' RETURNING id
""")
NO_PARTS = sa.text("DELETE FROM report_export_part WHERE export_id = :id")
PART = sa.text("SELECT data FROM report_export_part WHERE export_id = :id AND n = :n")
OVER = sa.text("UPDATE report_export SET state = 'expired' WHERE state = 'done' AND expires_at < :now RETURNING id")
PARTS_OF = sa.text("DELETE FROM report_export_part WHERE export_id = ANY(CAST(:ids AS uuid[]))")
OLD = sa.text("DELETE FROM report_export WHERE id < :before AND state NOT IN ('queued', 'running')")


class NoLongerWanted(Exception):
    """It was cancelled, or its lease has ended and another worker has it."""


class TooLargeAFile(Exception):
    """More than PostgreSQL should keep for a day."""


@dataclass(slots=True)
class Stage:
    """How far the writer is."""

    rows: int = 0
    share: float = 0.0

    async def told(self, rows: int, share: float) -> None:
        self.rows, self.share = rows, min(max(share, 0.0), 1.0)


class Exporter:
    """Writes one file after the other. `stopping` puts the one in hand back."""

    def __init__(self, database: Database, zone: str) -> None:
        self._database, self._zone, self._me = database, zone, new_id()
        self.stopping = asyncio.Event()

    async def step(self) -> bool:
        """The next file that waits, if there is one."""
        async with self._database.transaction() as session:
            claim = (await session.execute(CLAIM, {"me": self._me, "until": now() + LEASE, "now": now()})).first()
        if claim is None:
            return False
        if claim.attempts > TRIES:
            await self._fail(claim.id, "Every worker that has tried it died of it: ask for a shorter period, or for fewer groups.")
            return True
        try:
            await self._export(claim)
        except NoLongerWanted:
            log.info("export_dropped", export=str(claim.id))
        except TooLargeAFile:
            await self._fail(claim.id, f"The file has more than {LARGEST >> 20} MiB: ask for a shorter period, or for fewer groups.")
        except Exception as error:
            log.error("export_failed", export=str(claim.id), error=type(error).__name__, detail=str(error)[:300])
            await self._fail(claim.id, f"It could not be written ({type(error).__name__}): the worker's log says more.")
        return True

    async def _export(self, claim: Any) -> None:
        """Write beside a pulse that keeps the lease. Whatever happens, nothing of half a file is seen."""
        stage = Stage()
        wanted, form = wanted_of(claim.query, self._zone), cast("Format", claim.format)
        writing = asyncio.create_task(write(self._database, claim.kind, wanted, form, claim.query["locale"], stage.told))
        stop = asyncio.create_task(self.stopping.wait())
        try:
            while not writing.done():
                await asyncio.wait({writing, stop}, timeout=PULSE, return_when=asyncio.FIRST_COMPLETED)
                if stop.done() and not writing.done():
                    await self._write(BACK, {"id": claim.id, "me": self._me})
                    raise NoLongerWanted
                await self._pulse(claim.id, stage)
            with writing.result() as file:
                await self._keep(claim.id, file, stage)
        finally:
            stop.cancel()
            if not writing.done():
                writing.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                (await writing).close()

    async def _pulse(self, export_id: UUID, stage: Stage) -> None:
        values = {"id": export_id, "me": self._me, "until": now() + LEASE, "progress": stage.share, "rows": stage.rows}
        async with self._database.transaction() as session:
            if await session.scalar(ALIVE, values) is None:
                raise NoLongerWanted

    async def _keep(self, export_id: UUID, file: BinaryIO, stage: Stage) -> None:
        """The whole file and the word that it is done, in one transaction."""
        size = file.seek(0, 2)
        if size > LARGEST:
            raise TooLargeAFile
        file.seek(0)
        async with self._database.transaction() as session:
            await session.execute(NO_PARTS, {"id": export_id})
            n = 0
            while piece := file.read(PIECE):
                await session.execute(sa.insert(ReportExportPart), {"export_id": export_id, "n": n, "data": piece})
                n += 1
            moment = now()
            values = {"id": export_id, "me": self._me, "rows": stage.rows, "size": size, "now": moment, "expires_at": moment + KEPT}
            if await session.scalar(DONE, values) is None:
                raise NoLongerWanted  # and what was written is rolled back

    async def _fail(self, export_id: UUID, error: str) -> None:
        await self._write(FAILED, {"id": export_id, "me": self._me, "error": error, "now": now(), "expires_at": now() + KEPT})

    async def _write(self, statement: sa.TextClause, values: dict[str, Any]) -> None:
        async with self._database.transaction() as session:
            await session.execute(statement, values)


async def expire(session: AsyncSession, moment: datetime) -> int:
    """Forget files whose day is over, and exports of a month ago. How many files."""
    ids = list((await session.execute(OVER, {"now": moment})).scalars())
    await session.execute(PARTS_OF, {"ids": ids})
    await session.execute(OLD, {"before": first_id_at(moment - REMEMBERED)})
    return len(ids)


async def pieces(database: Database, export_id: UUID) -> AsyncIterator[bytes]:
    """The file, a piece at a time, with a connection for no longer than that: whoever downloads may be slow."""
    n = 0
    while True:
        async with database.atomic() as connection:
            piece: bytes | None = await connection.scalar(PART, {"id": export_id, "n": n})
        if piece is None:
            return
        yield piece
        n += 1
