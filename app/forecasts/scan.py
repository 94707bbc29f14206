"""A scan: all accounts in slices that any worker can take. First everybody is counted, then, unless the count is alarming, told.

    ask_for -> slices (count) -> appraise -> slices (tell) -> done
                                     `-> needs_confirmation -> confirm -> slices (tell)

A slice is one short REPEATABLE READ transaction, marked done in it: a worker that dies leaves its slice to the next one, and what it had told is told.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import metrics
from app.core.clock import now as clock
from app.core.db import BulkInsert, Database, is_away
from app.core.ids import new_id
from app.forecasts.find import COUNT, Hit, Wanted, look
from app.forecasts.rules import Span
from app.forecasts.tell import close, tell

log = structlog.get_logger()

SLICE = 50_000  # accounts
LEASE = timedelta(minutes=2)
TRIES = 5
END = UUID(int=2**128 - 1)

BORDERS = sa.text("""
SELECT timezone AS zone, CAST(min(CAST(id AS text)) AS uuid) AS first FROM (
    SELECT timezone, id, (row_number() OVER (PARTITION BY timezone ORDER BY id) - 1) / :size AS n FROM account
    WHERE status <> 'erased' AND (CAST(:zone AS text) IS NULL OR timezone = :zone)
) s GROUP BY timezone, n ORDER BY timezone, first
""")
SLICES = BulkInsert(
    "scan_slice",
    conflict="ON CONFLICT DO NOTHING",
    run_id="uuid",
    phase="text",
    n="int",
    zone="text",
    as_of="date",
    first="uuid",
    last="uuid",
    state="text",
    attempts="smallint",
    accounts="int",
    found="jsonb",
)
TAKE = sa.text("""
UPDATE scan_slice s SET state = 'running', attempts = attempts + 1, lease_until = now() + :lease
FROM (
    SELECT q.run_id, q.phase, q.n FROM scan_slice q JOIN scan_run r ON r.id = q.run_id AND r.state IN ('queued', 'running') AND r.phase = q.phase
    WHERE q.state = 'waiting' OR (q.state = 'running' AND q.lease_until < now()) ORDER BY q.run_id, q.n LIMIT 1 FOR UPDATE OF q SKIP LOCKED
) t WHERE s.run_id = t.run_id AND s.phase = t.phase AND s.n = t.n
RETURNING s.run_id, s.phase, s.n, s.zone, s.as_of, s.first, s.last, s.attempts
""")
ASK = sa.text("""
INSERT INTO scan_run (id, kind, origin, zone, as_of, dry_run, state, phase, requested_by, found, sample, created_at)
VALUES (:id, :kind, :origin, :zone, :as_of, :dry_run, 'queued', 'count', :by, CAST(:found AS jsonb), '[]', :now) ON CONFLICT DO NOTHING RETURNING id
""")
READ = sa.text("SELECT kind, dry_run FROM scan_run WHERE id = :id")
DONE = sa.text("""
UPDATE scan_slice SET state = 'done', accounts = :accounts, found = CAST(:found AS jsonb), lease_until = NULL, error = NULL
WHERE run_id = :run_id AND phase = :phase AND n = :n AND state = 'running' AND attempts = :attempts RETURNING n
""")
STUMBLED = sa.text("""
UPDATE scan_slice SET state = CASE WHEN attempts >= :tries THEN 'failed' ELSE 'waiting' END, lease_until = NULL, error = :error
WHERE run_id = :run_id AND phase = :phase AND n = :n AND state = 'running' AND attempts = :attempts
""")
LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))")
RUN = sa.text("SELECT id, kind, origin, zone, as_of, dry_run, state, phase, created_at FROM scan_run WHERE id = :id FOR UPDATE")
SUM = sa.text("""
SELECT count(*) FILTER (WHERE state IN ('waiting', 'running')) AS open, count(*) FILTER (WHERE state = 'failed') AS failed, max(error) AS error,
       coalesce(CAST(json_agg(found) AS text), '[]') AS found
FROM scan_slice WHERE run_id = :id AND phase = :phase
""")
TELLING = sa.text("""
INSERT INTO scan_slice (run_id, phase, n, zone, as_of, first, last, state, attempts, accounts, found)
SELECT run_id, 'tell', n, zone, as_of, first, last, 'waiting', 0, 0, '{}' FROM scan_slice WHERE run_id = :id AND phase = 'count' ON CONFLICT DO NOTHING
""")
USUAL = sa.text("""
SELECT CAST(found ->> 'told' AS int) AS told FROM scan_run
WHERE kind = :kind AND state = 'done' AND NOT dry_run AND origin = :origin AND zone IS NOT DISTINCT FROM :zone ORDER BY created_at DESC LIMIT 7
""")
SET = sa.text("""
UPDATE scan_run SET state = CAST(:state AS text), phase = :phase, found = jsonb_strip_nulls(jsonb_build_object('skipped_zones', found -> 'skipped_zones')) || CAST(:found AS jsonb), sample = CAST(:sample AS jsonb), usual = coalesce(:usual, usual), error = :error,
       finished_at = CASE WHEN CAST(:state AS text) IN ('done', 'failed') THEN now() END WHERE id = :id
""")
# The sample has names and sums of people: it stands in one place alone, where an erasure finds it.
STRIP = sa.text("UPDATE scan_slice SET found = found - 'sample' WHERE run_id = :id AND found ? 'sample'")
BEGUN = sa.text("UPDATE scan_run SET state = 'running', started_at = coalesce(started_at, now()) WHERE id = :id AND state = 'queued'")
CONFIRM = sa.text("""
UPDATE scan_run SET state = 'running', phase = 'tell', confirmed_by = :by WHERE id = :id AND state = 'needs_confirmation' RETURNING id
""")
REFUSE = sa.text("""
UPDATE scan_run SET state = 'failed', error = 'refused by ' || CAST(:by AS text), finished_at = now() WHERE id = :id AND state = 'needs_confirmation' RETURNING id
""")
LEFT_OPEN = sa.text("""
SELECT r.id FROM scan_run r WHERE r.state IN ('queued', 'running') AND NOT EXISTS (
    SELECT FROM scan_slice s WHERE s.run_id = r.id AND s.phase = r.phase AND s.state IN ('waiting', 'running')
)
""")

SAMPLES = 20
ENOUGH_HISTORY = 3  # earlier scans without which nothing is called unusual

Appraise = Callable[[AsyncSession, Sequence[Hit]], Awaitable[tuple[dict[str, Any], list[dict[str, Any]]]]]


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice in hand."""

    run_id: UUID
    phase: str
    n: int
    zone: str
    as_of: date
    first: UUID
    last: UUID
    attempts: int


MULTIPLE, LEAST = 3.0, 100


@dataclass(frozen=True, slots=True)
class Alarm:
    """A count above so many times the usual one, and above `least`, has to be confirmed by somebody."""

    multiple: float = MULTIPLE
    least: int = LEAST


async def ask_for(
    session: AsyncSession,
    kind: str,
    *,
    origin: str,
    by: str,
    days: Mapping[str, date],
    zone: str | None = None,
    as_of: date | None = None,
    dry_run: bool = False,
    skipped: Sequence[str] = (),
) -> UUID | None:
    """A new run over the zones in `days` (zone -> the day to take as today). Nothing when the clock has asked for the same before."""
    run_id, moment = new_id(), clock()
    values = {"id": run_id, "kind": kind, "origin": origin, "zone": zone, "as_of": as_of, "dry_run": dry_run, "by": by, "now": moment}
    values["found"] = orjson.dumps({"skipped_zones": list(skipped)} if skipped else {}).decode()
    if (await session.execute(ASK, values)).first() is None:
        return None
    borders = [row for row in (await session.execute(BORDERS, {"size": SLICE, "zone": zone})).all() if row.zone in days]
    rows = []
    for n, row in enumerate(borders):
        following = borders[n + 1] if n + 1 < len(borders) else None
        last = following.first if following is not None and following.zone == row.zone else END
        rows.append((run_id, "count", n, row.zone, days[row.zone], row.first, last, "waiting", 0, 0, "{}"))
    await SLICES.run(session, rows)
    return run_id


class Scanner:
    """Works through slices. Any number of them may run, in any process."""

    def __init__(
        self,
        database: Database,
        wanted: Callable[[AsyncSession], Awaitable[tuple[Wanted, Alarm]]],
        appraise: Appraise,
        on_told: Callable[[], None] = lambda: None,
    ) -> None:
        self._database, self._wanted, self._appraise, self._on_told = database, wanted, appraise, on_told

    async def step(self) -> bool:
        """One slice, or the end of a run whose slices are done. False when there is nothing to do."""
        async with self._database.transaction() as session:
            row = (await session.execute(TAKE, {"lease": LEASE})).first()
            if row is not None:
                await session.execute(BEGUN, {"id": row.run_id})
        if row is None:
            return await self._tidy()
        piece = Slice(*row)
        try:
            await self._work(piece)
        except Exception as error:
            log.warning("slice_failed", run=str(piece.run_id), n=piece.n, attempts=piece.attempts, error=type(error).__name__, detail=str(error)[:300])
            if is_away(error):
                raise
            values = {"tries": TRIES, "error": f"{type(error).__name__}: {str(error)[:300]}", **key_of(piece)}
            async with self._database.transaction() as session:
                await session.execute(STUMBLED, values)
        if piece.phase == "tell":
            self._on_told()
        await self._advance(piece.run_id)
        return True

    async def _work(self, piece: Slice) -> None:
        await self._database.again(lambda session: self._slice(session, piece), isolation="REPEATABLE READ")

    async def _slice(self, session: AsyncSession, piece: Slice) -> None:
        """Look, and in the second phase tell. One snapshot: a payment that comes meanwhile is seen when the event is planned."""
        moment = clock()
        run = (await session.execute(READ, {"id": piece.run_id})).one()
        await session.execute(LOCK, {"key": f"{run.kind}:{piece.zone}:{piece.first}"})
        wanted, _ = await self._wanted(session)
        span = Span(piece.zone, piece.first, piece.last)
        looked = await look(session, run.kind, span, piece.as_of, wanted, moment, words=piece.phase == "tell" or run.dry_run)
        counted = (await session.execute(COUNT, {"zone": span.zone, "first": span.first, "last": span.last, "fresh": wanted.fresh(moment)})).one()
        found: dict[str, Any] = {"frozen": counted.frozen, "stale": counted.stale, "accounts": counted.active}
        if piece.phase == "tell":
            told = await tell(session, looked.hits, piece.run_id, moment)
            await close(session, run.kind, span, looked, wanted.fresh(moment), moment)
            found |= {"told": told.told, "covered": told.covered}
        else:
            open_hits = [hit for hit in looked.hits if not hit.covered]
            found |= {"told": len(open_hits), "covered": len(looked.hits) - len(open_hits)}
            if run.dry_run:
                more, sample = await self._appraise(session, open_hits)
                found |= more | {"sample": sample[:SAMPLES]}
        values = {"accounts": counted.active, "found": orjson.dumps(found).decode(), **key_of(piece)}
        if (await session.execute(DONE, values)).first() is None:
            raise SliceLost  # its lease ended and another has it: what we did is undone with this transaction

    async def _tidy(self) -> bool:
        """Whoever marked the last slice of a phase may have died before he could say so."""
        async with self._database.transaction() as session:
            runs = list((await session.execute(LEFT_OPEN)).scalars())
        for run_id in runs:
            await self._advance(run_id)
        return bool(runs)

    async def _advance(self, run_id: UUID) -> None:
        """When all slices of the phase are done: on to the next phase, to somebody's confirmation, or to the end."""
        async with self._database.transaction() as session:
            run = (await session.execute(RUN, {"id": run_id})).one()
            summed = (await session.execute(SUM, {"id": run_id, "phase": run.phase})).one()
            if run.state not in ("queued", "running") or summed.open:
                return
            found, sample = added(orjson.loads(summed.found))
            values: dict[str, Any] = {
                "id": run_id,
                "found": orjson.dumps(found).decode(),
                "sample": orjson.dumps(sample).decode(),
                "usual": None,
                "error": None,
            }
            if summed.failed:
                await session.execute(SET, values | {"state": "failed", "phase": run.phase, "error": summed.error})
            elif run.phase == "tell" or run.dry_run:
                await session.execute(SET, values | {"state": "done", "phase": run.phase})
                await session.execute(STRIP, {"id": run_id})
                if not run.dry_run:
                    metrics.SCAN_HITS.labels(run.kind).inc(found["told"])
                    metrics.SCAN_SECONDS.labels(run.kind).observe((clock() - run.created_at).total_seconds())
            else:
                _, alarm = await self._wanted(session)
                usual = median(list((await session.execute(USUAL, {"kind": run.kind, "origin": run.origin, "zone": run.zone})).scalars()))
                alarming = usual is not None and found["told"] > max(alarm.least, alarm.multiple * usual)
                await session.execute(
                    SET, values | {"state": "needs_confirmation" if alarming else "running", "phase": "count" if alarming else "tell", "usual": usual}
                )
                if not alarming:
                    await session.execute(TELLING, {"id": run_id})


async def confirm(session: AsyncSession, run_id: UUID, by: str) -> bool:
    """Go on to the telling; false when the run does not wait for it."""
    if (await session.execute(CONFIRM, {"id": run_id, "by": by})).first() is None:
        return False
    await session.execute(TELLING, {"id": run_id})
    return True


async def refuse(session: AsyncSession, run_id: UUID, by: str) -> bool:
    """End it, nobody told; false when the run does not wait for that."""
    return (await session.execute(REFUSE, {"id": run_id, "by": by})).first() is not None


class SliceLost(Exception):
    """Another worker has this slice by now."""


def key_of(piece: Slice) -> dict[str, Any]:
    return {"run_id": piece.run_id, "phase": piece.phase, "n": piece.n, "attempts": piece.attempts}


def median(counts: list[int]) -> int | None:
    return sorted(counts)[len(counts) // 2] if len(counts) >= ENOUGH_HISTORY else None


def added(parts: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The sums of the slices' counts, nested ones too, and the first samples."""
    total: dict[str, Any] = {"accounts": 0, "told": 0, "covered": 0, "frozen": 0, "stale": 0}
    sample: list[dict[str, Any]] = []
    for part in parts:
        sample += part.get("sample", [])
        _add(total, {key: value for key, value in part.items() if key != "sample"})
    return total, sample[:SAMPLES]


def _add(total: dict[str, Any], part: Mapping[str, Any]) -> None:
    for key, value in part.items():
        if isinstance(value, Mapping):
            _add(total.setdefault(key, {}), value)
        elif isinstance(value, str):  # money
            total[key] = str(Decimal(total.get(key, "0")) + Decimal(value))
        else:
            total[key] = total.get(key, 0) + value
