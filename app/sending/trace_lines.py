"""Lines of a PDU trace on their way from a bind to the table. A trace is for support: it may lose lines, and never anything else."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog

from app.core.clock import now
from app.core.db import Database
from app.core.ids import first_id_at, new_id

log = structlog.get_logger()

IN_MEMORY = 2_000
KEPT = 50_000  # of one gateway
KEPT_FOR = timedelta(days=7)
PATIENCE = 2.0  # seconds
LONGEST = 4_000  # characters of one line

# An insert whose answer got lost is repeated with the ids that it had.
WRITE = sa.text("""
INSERT INTO gateway_trace (id, gateway, slot, at, line)
SELECT v.id, :gateway, :slot, v.at, v.line
FROM unnest(CAST(:ids AS uuid[]), CAST(:moments AS timestamptz[]), CAST(:lines AS text[])) AS v(id, at, line) ON CONFLICT DO NOTHING
""")
CUT = sa.text("""
DELETE FROM gateway_trace WHERE gateway = :gateway
    AND id < (SELECT id FROM gateway_trace WHERE gateway = :gateway ORDER BY id DESC OFFSET :kept LIMIT 1)
""")
FORGET = sa.text("DELETE FROM gateway_trace WHERE id IN (SELECT id FROM gateway_trace WHERE id < :before ORDER BY id LIMIT 5000)")


@dataclass(frozen=True, slots=True)
class TraceLine:
    id: UUID
    at: datetime
    line: str


class TraceLines:
    """What one slot has seen and not yet written. A bind that talks faster than the table takes loses the newest lines, and the trace says how many."""

    def __init__(self, database: Database, gateway: str, slot: int) -> None:
        self._database, self._gateway, self._slot = database, gateway, slot
        self._waiting: deque[TraceLine] = deque()
        self._lost = 0
        self._since_cut = KEPT // 10

    def add(self, line: str) -> None:
        """Called for each PDU from inside the session: only remembers."""
        if len(self._waiting) >= IN_MEMORY:
            self._lost += 1
            return
        self._own_up()
        self._waiting.append(_line(line))

    def _own_up(self) -> None:
        if self._lost and len(self._waiting) < IN_MEMORY:
            lost, self._lost = self._lost, 0
            self._waiting.append(_line(f"({lost} lines were not kept: the traffic was faster than the trace)"))

    async def flush(self) -> int:
        """Write what there is, and keep the trace within its bounds. Returns how many lines; what fails is tried again next time."""
        batch = list(self._waiting)
        if not batch:
            return 0
        try:
            await self._write(batch)
        except Exception as error:
            log.warning("trace_not_written", gateway=self._gateway, lines=len(batch), error=type(error).__name__)
            return 0
        for _ in batch:
            self._waiting.popleft()
        self._own_up()
        return len(batch)

    async def _write(self, batch: Sequence[TraceLine]) -> None:
        values: dict[str, Any] = {"ids": [line.id for line in batch], "moments": [line.at for line in batch], "lines": [line.line for line in batch]}
        async with self._database.transaction() as session:
            await session.execute(WRITE, {"gateway": self._gateway, "slot": self._slot} | values)
            self._since_cut += len(batch)
            # Finding the 50,000th row takes some milliseconds: not for every batch.
            if self._since_cut >= KEPT // 10:
                self._since_cut = 0
                await session.execute(CUT, {"gateway": self._gateway, "kept": KEPT - 1})

    async def close(self) -> None:
        """The last lines, if the table takes them at once."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self.flush()


class Traces:
    """All traces, for the sweep."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def forget(self) -> int:
        """Delete some of what is too old. Returns how many lines that were: a full batch asks to be called again."""
        async with self._database.transaction() as session:
            gone: Any = await session.execute(FORGET, {"before": first_id_at(now() - KEPT_FOR)})
        return int(gone.rowcount)


def _line(text: str) -> TraceLine:
    return TraceLine(new_id(), now(), "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text[:LONGEST]))
