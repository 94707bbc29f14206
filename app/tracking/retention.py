"""Retention: what is no longer of use is deleted, in small batches, by one process at a time and behind everybody else's back.

    contents   after VESTNIK_RETENTION_DAYS_CONTENT   texts, events' data, raw receipts, inbound texts, what mail servers said
    records    after VESTNIK_RETENTION_DAYS_RECORD    everything that says who was told what: whole partitions, and rows of the tables without any

Each batch is a transaction of its own that leaves its mark: who dies in the middle has lost nothing and does nothing twice. Rows that somebody else has
locked are left for the next time, and so is a message that is still in the outbox (`content_left`). docs/retention.md has the rule of every table.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core import metrics
from app.core.clock import now as clock
from app.core.config import Settings
from app.core.db import Database, is_away
from app.core.ids import NOBODY, first_id_at
from app.tracking.partitions import PAUSE, Partitions

log = structlog.get_logger()

LOCK = 0x7665_7375  # one process at a time; `vestnik migrate` has the number before
EVERY = 3600.0  # seconds
BATCH = 500  # messages are wide, and their pages may be in somebody's hands
RECORDS_BATCH = 5_000

MARK = sa.text("SELECT upto FROM retention_mark WHERE name = :name")
SET_MARK = sa.text("""
INSERT INTO retention_mark (name, upto, at) VALUES (:name, :upto, :now) ON CONFLICT (name) DO UPDATE SET upto = excluded.upto, at = excluded.at
""")
LEFT = sa.text("SELECT id FROM content_left WHERE id > :after ORDER BY id LIMIT :batch FOR UPDATE SKIP LOCKED")
# Those whose month is gone have nothing to be deleted any more.
LEFT_DONE = sa.text("""
DELETE FROM content_left l WHERE l.id = ANY(CAST(:ids AS uuid[])) AND (
    l.id = ANY(CAST(:done AS uuid[])) OR (NOT EXISTS (SELECT FROM message m WHERE m.id = l.id) AND NOT EXISTS (SELECT FROM event e WHERE e.id = l.id)))
""")
IN_OUTBOX = "EXISTS (SELECT FROM outbox o WHERE o.message_id = t.id)"
# A message that is held is written anew when it is released, from the data of its event.
TO_BE_TOLD = """
(EXISTS (SELECT FROM event_waiting w WHERE w.event_id = t.id) OR EXISTS (
    SELECT FROM notification n CROSS JOIN LATERAL jsonb_array_elements(n.decisions) d JOIN outbox o ON o.message_id = CAST(d ->> 'message_id' AS uuid)
    WHERE n.event_id = t.id))
"""


@dataclass(frozen=True, slots=True)
class Contents:
    """A table whose contents are deleted in order of its ids: `change` is what is set where it `is_due`, unless it is still `needed`."""

    table: str
    change: str
    is_due: str
    needed: str = "false"

    def batch(self) -> sa.TextClause:
        """The next batch between two ids: the last id of it, or nothing. The bounds stand in every part: they are what the planner finds the month by."""
        within = "t.id > :after AND t.id < :before"
        return sa.text(f"""
        WITH batch AS MATERIALIZED (SELECT t.id, {self.is_due} AS is_due FROM {self.table} t WHERE {within} ORDER BY t.id LIMIT :batch),
        free AS MATERIALIZED (
            SELECT t.id FROM {self.table} t WHERE {within} AND t.id = ANY(ARRAY(SELECT id FROM batch WHERE is_due)) AND NOT {self.needed} FOR NO KEY UPDATE SKIP LOCKED
        ), blank AS (
            UPDATE {self.table} t SET {self.change} WHERE {within} AND t.id = ANY(ARRAY(SELECT id FROM free))
        ), later AS (
            INSERT INTO content_left (id) SELECT id FROM batch WHERE is_due AND id <> ALL(ARRAY(SELECT id FROM free)) ON CONFLICT DO NOTHING
        )
        SELECT id FROM batch ORDER BY id DESC LIMIT 1
        """)

    def left(self) -> sa.TextClause:
        """Those of these ids that are of this table, and nobody's any more: their ids."""
        return sa.text(f"""
        WITH free AS MATERIALIZED (SELECT t.id FROM {self.table} t WHERE t.id = ANY(CAST(:ids AS uuid[])) AND NOT {self.needed} FOR NO KEY UPDATE SKIP LOCKED),
        blank AS (UPDATE {self.table} t SET {self.change} WHERE t.id = ANY(ARRAY(SELECT id FROM free)) AND {self.is_due})
        SELECT id FROM free
        """)


CONTENTS = (
    Contents("message", "subject = NULL, text = '', html = NULL, attachments = NULL, content_deleted_at = :now", "t.content_deleted_at IS NULL", IN_OUTBOX),
    Contents("event", "data = CAST('{}' AS jsonb), content_deleted_at = :now", "t.content_deleted_at IS NULL", TO_BE_TOLD),
    Contents("receipt", "raw = ''", "t.raw <> ''"),
    Contents("inbound_message", "text = '', raw = ''", "(t.text <> '' OR t.raw <> '')"),
    Contents("bounce", "diagnostic = NULL", "t.diagnostic IS NOT NULL"),
)
# Without partitions: their unique indexes cannot name a time. The column is a UUIDv7 and the first of an index.
RECORDS = {"receipt": "id", "message_change": "id", "inbound_message": "id", "bounce": "id", "notification_event": "event_id", "told": "event_id"}


class Retention:
    """Runs beside the sweeps, once an hour, in whichever process comes first."""

    def __init__(self, database: Database, settings: Settings, now: Callable[[], datetime] = clock) -> None:
        self._database, self._now = database, now
        self._contents_kept = timedelta(days=settings.retention_days_content)
        self._records_kept = timedelta(days=max(settings.retention_days_record, settings.retention_days_content))

    async def run(self, stopping: asyncio.Event) -> None:
        """Until it is told to stop; whatever happens to one run, there is a next one."""
        while not stopping.is_set():
            try:
                await self.tend()
            except Exception as error:
                log.error("retention_failed", error=type(error).__name__, detail=str(error)[:300], database_away=is_away(error))
            try:
                await asyncio.wait_for(stopping.wait(), EVERY)
            except TimeoutError:
                continue

    async def tend(self) -> bool:
        """All of it once: the months to come first, then contents, then records. False when another process is at it.

        The lock is a session's: it goes with its connection, however that ends."""
        async with self._database.atomic() as connection:
            if not await connection.scalar(sa.text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK}):
                return False
            try:
                moment = self._now()
                await Partitions(connection).extend(moment)
                metrics.RETENTION_SUCCESS.labels("partitions").set(moment.timestamp())
                await self._forget_contents(first_id_at(moment - self._contents_kept))
                metrics.RETENTION_SUCCESS.labels("contents").set(moment.timestamp())
                gone = await Partitions(connection).drop(moment - self._records_kept)
                await self._forget_records(connection, first_id_at(moment - self._records_kept))
                if gone:
                    await Partitions(connection).extend(moment)
                metrics.RETENTION_SUCCESS.labels("records").set(moment.timestamp())
            finally:
                await connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK})
        return True

    async def _forget_contents(self, before: UUID) -> None:
        await self._forget_left()
        for one in CONTENTS:
            await self._through(one.table, one.batch(), before)

    async def _through(self, name: str, statement: sa.TextClause, before: UUID) -> None:
        """In order of ids from the mark up to the bound. The mark and what it stands for are one transaction."""
        mark = f"content:{name}"
        last: UUID | None = NOBODY
        while last is not None:
            async with self._database.transaction() as session:
                after = await session.scalar(MARK, {"name": mark}) or NOBODY
                values: dict[str, Any] = {"after": after, "before": before, "batch": BATCH, "now": self._now()}
                last = await session.scalar(statement, values)
                if last is not None:
                    await session.execute(SET_MARK, {"name": mark, "upto": last, "now": self._now()})
            await asyncio.sleep(PAUSE)

    async def _forget_left(self) -> None:
        """What was passed over, once it is nobody's any more."""
        ids = [NOBODY]
        while ids:
            async with self._database.transaction() as session:
                ids = list(await session.scalars(LEFT, {"after": ids[-1], "batch": BATCH}))
                done: list[UUID] = []
                for one in CONTENTS:
                    done += await session.scalars(one.left(), {"ids": ids, "now": self._now()})
                await session.execute(LEFT_DONE, {"ids": ids, "done": done})
            await asyncio.sleep(PAUSE)

    async def _forget_records(self, connection: AsyncConnection, before: UUID) -> None:
        """Rows of the tables without partitions. The cursor spares each batch the dead rows of those before it."""
        for table, key in RECORDS.items():
            statement = sa.text(f"""
            WITH batch AS MATERIALIZED (SELECT DISTINCT {key} AS id FROM {table} WHERE {key} > :after AND {key} < :before ORDER BY 1 LIMIT {RECORDS_BATCH}),
                 gone AS (DELETE FROM {table} WHERE {key} > :after AND {key} < :before AND {key} = ANY(ARRAY(SELECT id FROM batch)))
            SELECT id FROM batch ORDER BY id DESC LIMIT 1
            """)
            after: UUID | None = NOBODY
            while after is not None:
                after = await connection.scalar(statement, {"after": after, "before": before})
                await asyncio.sleep(PAUSE)
