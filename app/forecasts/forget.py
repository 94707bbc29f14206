"""Old scans: how their slices did, and whom a dry run would have told, is of use for weeks and not for years. The runs themselves stay: they are the ledger."""

import time
from datetime import timedelta

import sqlalchemy as sa

from app.core.clock import now
from app.core.db import Database
from app.core.ids import first_id_at

KEPT = timedelta(days=60)
EVERY = 86_400.0  # seconds
BATCH = 5_000

# A run that waits for a confirmation needs its slices, however old it is.
SLICES = sa.text("""
DELETE FROM scan_slice WHERE ctid = ANY(ARRAY(
    SELECT s.ctid FROM scan_run r JOIN scan_slice s ON s.run_id = r.id WHERE r.id < :before AND r.state IN ('done', 'failed') LIMIT :batch
))
""")
SAMPLES = sa.text("UPDATE scan_run SET sample = '[]' WHERE id < :before AND sample <> '[]'")


class OldScans:
    """A step of the sweep."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._next = 0.0

    async def forget(self) -> int:
        """One batch of the old ones; nothing most of the day."""
        if time.monotonic() < self._next:
            return 0
        before = first_id_at(now() - KEPT)
        async with self._database.transaction() as session:
            await session.execute(SAMPLES, {"before": before})
            gone: int = (await session.execute(SLICES, {"before": before, "batch": BATCH})).rowcount  # type: ignore[attr-defined]
        if gone < BATCH:
            self._next = time.monotonic() + EVERY
        return gone
