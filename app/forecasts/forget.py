"""Old scans and hits. How the slices of a scan did, and whom a dry run would have told, is of use for weeks; the runs (they are the ledger) and the hits
(they say why somebody was told) are kept as long as records are."""

import time
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from app.core.clock import now
from app.core.db import Database
from app.core.ids import first_id_at

KEPT = timedelta(days=60)
EVERY = 86_400.0  # seconds
BATCH = 5_000

SAMPLES = sa.text("UPDATE scan_run SET sample = '[]' WHERE id < :before AND sample <> '[]'")
# A run that waits for a confirmation needs its slices, however old it is, and so does one that is at work.
SLICES = sa.text("""
DELETE FROM scan_slice WHERE ctid = ANY(ARRAY(
    SELECT s.ctid FROM scan_run r JOIN scan_slice s ON s.run_id = r.id WHERE r.id < :before AND r.state IN ('done', 'failed') LIMIT :batch
))
""")
# By their ids, which are in order of time. A spell that goes on keeps its number without its hits: nobody is told twice for it.
RUNS = sa.text("DELETE FROM scan_run WHERE id = ANY(ARRAY(SELECT id FROM scan_run WHERE id < :before ORDER BY id LIMIT :batch))")
HITS = sa.text("DELETE FROM forecast_hit WHERE id = ANY(ARRAY(SELECT id FROM forecast_hit WHERE id < :before ORDER BY id LIMIT :batch))")


class OldScans:
    """A step of the sweep. `records_kept` is for how long records are."""

    def __init__(self, database: Database, records_kept: timedelta) -> None:
        self._database, self._records_kept = database, records_kept
        self._next = 0.0

    async def forget(self) -> int:
        """One batch of each kind of old rows, the size of the largest; nothing most of the day. Who dies in the middle leaves the rest to the next time."""
        if time.monotonic() < self._next:
            return 0
        long_ago = now() - KEPT
        very_long_ago = min(now() - self._records_kept, long_ago)  # a hit keeps a charge that is still to come from being announced twice
        async with self._database.transaction() as session:
            await session.execute(SAMPLES, {"before": first_id_at(long_ago)})
            batches: list[Any] = [
                await session.execute(statement, {"before": first_id_at(before), "batch": BATCH})
                for statement, before in ((SLICES, long_ago), (RUNS, very_long_ago), (HITS, very_long_ago))
            ]
        gone: int = max(batch.rowcount for batch in batches)
        if gone < BATCH:
            self._next = time.monotonic() + EVERY
        return gone
