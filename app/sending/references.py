"""The numbers that tie the parts of long messages together are counted for each address (see `claim`); addresses that got none for long are forgotten."""

import time
from datetime import timedelta

import sqlalchemy as sa

from app.core.clock import now
from app.core.db import Database

# Longer than an SMSC keeps trying: nothing of an older message can still be on its way.
KEPT = timedelta(days=14)
EVERY = 3600.0  # seconds: the table has no index by age, and one look through it an hour is cheaper than keeping one
BATCH = 10_000

FORGET = sa.text("DELETE FROM joint_reference WHERE ctid = ANY(ARRAY(SELECT ctid FROM joint_reference WHERE at < :before LIMIT :batch)) AND at < :before")


class References:
    """A step of the sweep."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._next = 0.0

    async def forget(self) -> int:
        """One batch of the old ones; nothing most of the time."""
        if time.monotonic() < self._next:
            return 0
        async with self._database.transaction() as session:
            gone: int = (await session.execute(FORGET, {"before": now() - KEPT, "batch": BATCH})).rowcount  # type: ignore[attr-defined]
        if gone < BATCH:
            self._next = time.monotonic() + EVERY
        return gone
