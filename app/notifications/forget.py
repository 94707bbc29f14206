"""Old jobs on many messages. Their marks are of use while they run; that there was one, and what came of it, is kept as long as records are."""

import time
from datetime import timedelta

import sqlalchemy as sa

from app.core.clock import now
from app.core.db import Database
from app.core.ids import first_id_at

EVERY = 3_600.0  # seconds
BATCH = 5_000

# One look into the key for each job that has ended. A job may have left millions.
MARKS = sa.text("""
DELETE FROM message_bulk_mark WHERE ctid = ANY(ARRAY(
    SELECT k.place FROM message_bulk b CROSS JOIN LATERAL (
        SELECT m.ctid AS place FROM message_bulk_mark m WHERE m.bulk_id = b.id LIMIT :batch
    ) k WHERE b.action = 'resend' AND b.state <> 'running' LIMIT :batch
))
""")
BULKS = sa.text("""
DELETE FROM message_bulk WHERE id = ANY(ARRAY(
    SELECT b.id FROM message_bulk b
    WHERE b.id < :before AND b.state <> 'running' AND NOT EXISTS (SELECT FROM message_bulk_mark m WHERE m.bulk_id = b.id) ORDER BY b.id LIMIT :batch
))
""")


class OldBulks:
    """A step of the sweep. `records_kept` is for how long records are."""

    def __init__(self, database: Database, records_kept: timedelta) -> None:
        self._database, self._records_kept = database, records_kept
        self._next = 0.0

    async def forget(self) -> int:
        """One batch of marks and one of jobs, the size of the larger; nothing most of the hour. Who dies in the middle leaves the rest to the next time."""
        if time.monotonic() < self._next:
            return 0
        async with self._database.transaction() as session:
            marks = await session.execute(MARKS, {"batch": BATCH})
            jobs = await session.execute(BULKS, {"before": first_id_at(now() - self._records_kept), "batch": BATCH})
        gone: int = max(marks.rowcount, jobs.rowcount)  # type: ignore[attr-defined]
        if gone < BATCH:
            self._next = time.monotonic() + EVERY
        return gone
