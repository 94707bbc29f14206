"""A scan: all accounts in slices that any worker can take. First everybody is counted, then, unless the count is alarming, told.

    ask_for -> slices (count) -> appraise -> slices (tell) -> done
                                     `-> needs_confirmation -> confirm -> slices (tell)

A slice is one short REPEATABLE READ transaction, marked done in it: a worker that dies leaves its slice to the next one, and what it had told is told.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import metrics
from app.core.clock import now as clock
from app.core.db import Database, is_away
from app.forecasts.ask import go_on
from app.forecasts.find import Hit, Wanted, count, find, hits_found
from app.forecasts.rules import Span, These, members, whose
from app.forecasts.schedule import today_in, zones
from app.forecasts.tell import close, tell

log = structlog.get_logger()

LEASE = timedelta(minutes=2)
FRESH = timedelta(minutes=10)  # so long a count may be told from
TRIES = 5
LAST_ZONE = "Etc/GMT+12"  # where a day ends last: for zones that this machine does not know
ENOUGH_HISTORY = 3  # earlier scans without which nothing is called unusual
REMEMBERED = timedelta(days=33)

# Dry runs come last and have longer: they render all that they find, and nobody waits for what they tell.
TAKE = sa.text("""
WITH t AS (
    SELECT q.run_id, q.phase, q.n, q.state AS was, r.kind, r.dry_run, r.created_at AS asked_at FROM scan_slice q JOIN scan_run r ON r.id = q.run_id AND r.state IN ('queued', 'running') AND r.phase = q.phase
    WHERE q.state = 'waiting' OR (q.state = 'running' AND q.lease_until < now() AND q.attempts < :tries)
    ORDER BY r.dry_run, q.run_id, q.n LIMIT 1 FOR UPDATE OF q SKIP LOCKED
), begun AS (
    UPDATE scan_run SET state = 'running', started_at = coalesce(started_at, now()) WHERE id = (SELECT run_id FROM t) AND state = 'queued'
)
UPDATE scan_slice s SET state = 'running', attempts = attempts + 1, lease_until = now() + CAST(:lease AS interval) * CASE WHEN t.dry_run THEN 5 ELSE 1 END
FROM t WHERE s.run_id = t.run_id AND s.phase = t.phase AND s.n = t.n
RETURNING s.run_id, t.kind, t.dry_run, s.phase, s.n, s.zones, s.as_of, s.first, s.last, s.attempts, s.candidates, s.created_at, t.asked_at,
    t.was = 'running' AS was_lost, set_config('synchronous_commit', 'off', true)
""")
# A slice that kills whoever takes it (its worker never comes to say so) is not handed on for ever.
WORN_OUT = sa.text("""
UPDATE scan_slice SET state = 'failed', lease_until = NULL, error = 'its worker was lost ' || attempts || ' times'
WHERE state = 'running' AND lease_until < now() AND attempts >= :tries
""")
DONE = sa.text("""
UPDATE scan_slice SET state = 'done', found = found || CAST(:found AS jsonb), candidates = :candidates, lease_until = NULL, error = NULL
WHERE run_id = :run_id AND phase = :phase AND n = :n AND state = 'running' AND attempts = :attempts
RETURNING NOT EXISTS (
    SELECT FROM scan_slice o WHERE o.run_id = :run_id AND o.phase = :phase AND o.n <> :n AND o.state IN ('waiting', 'running')
) AS is_last
""")
STUMBLED = sa.text("""
UPDATE scan_slice SET state = CASE WHEN attempts >= :tries THEN 'failed' ELSE 'waiting' END, lease_until = NULL, error = :error
WHERE run_id = :run_id AND phase = :phase AND n = :n AND state = 'running' AND attempts = :attempts
""")
IN_SPELL = whose("SELECT e.account_id FROM forecast_episode e WHERE «e.account_id» AND e.kind = 'exhaustion' AND e.is_open")
# No waiting for the disk at the commit: a slice that a crash of the server takes back is taken up again, and what was planned from it has gone with it.
LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0)), set_config('synchronous_commit', 'off', true)")
RUN = sa.text("SELECT id, kind, origin, zone, as_of, dry_run, state, phase, created_at FROM scan_run WHERE id = :id FOR UPDATE")
SUM = sa.text("""
SELECT count(*) FILTER (WHERE state IN ('waiting', 'running')) AS open, count(*) FILTER (WHERE state = 'failed') AS failed, max(error) AS error,
       coalesce(CAST(json_agg(found) AS text), '[]') AS found
FROM scan_slice WHERE run_id = :id AND phase = :phase
""")
# What is usual: the median of the last scans; and on a day of the month on which charges fall on nearly everybody, what was found a month ago. A scan by
# hand of all zones is measured by the days of the clock's as well.
USUAL = sa.text(f"""
WITH known AS MATERIALIZED (
    SELECT CAST(found ->> 'told' AS int) AS told, coalesce(as_of, CAST(created_at AS date)) AS day, created_at, origin, zone
    FROM scan_run WHERE kind = :kind AND state = 'done' AND NOT dry_run AND created_at > :since
), earlier AS MATERIALIZED (
    SELECT told, day, row_number() OVER (ORDER BY created_at DESC) AS back FROM (
        SELECT told, day, created_at FROM known WHERE origin = :origin AND zone IS NOT DISTINCT FROM :zone
        UNION ALL SELECT sum(told), day, max(created_at) FROM known WHERE CAST(:origin AS text) = 'hand' AND origin = 'clock' GROUP BY day
    ) k
)
SELECT CASE WHEN (SELECT count(*) FROM earlier) >= {ENOUGH_HISTORY} THEN greatest(
    (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY told) FROM earlier WHERE back <= 7),
    (SELECT max(told) FROM earlier WHERE day BETWEEN CAST(CAST(:day AS date) - interval '1 month' AS date) - 1 AND CAST(CAST(:day AS date) - interval '1 month' AS date) + 1)
) END
""")
SET = sa.text("""
UPDATE scan_run SET state = CAST(:state AS text), phase = :phase, found = jsonb_strip_nulls(jsonb_build_object('skipped_zones', found -> 'skipped_zones')) || CAST(:found AS jsonb), sample = CAST(:sample AS jsonb), usual = coalesce(:usual, usual), error = :error,
       finished_at = CASE WHEN CAST(:state AS text) IN ('done', 'failed') THEN now() END WHERE id = :id
""")
# The sample has names and sums of people: it stands in one place alone, where an erasure finds it.
STRIP = sa.text("UPDATE scan_slice SET found = found - 'sample' WHERE run_id = :id AND found ? 'sample'")
LEFT_OPEN = sa.text("""
SELECT r.id FROM scan_run r WHERE r.state IN ('queued', 'running') AND NOT EXISTS (
    SELECT FROM scan_slice s WHERE s.run_id = r.id AND s.phase = r.phase AND s.state IN ('waiting', 'running')
)
""")

SAMPLES = 20
TOGETHER = 500  # that a dry run appraises

Appraise = Callable[[AsyncSession, Sequence[Hit]], Awaitable[tuple[dict[str, Any], list[dict[str, Any]]]]]


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice in hand."""

    run_id: UUID
    kind: str
    dry_run: bool
    phase: str
    n: int
    zones: Sequence[str] | None
    as_of: date
    first: UUID
    last: UUID
    attempts: int
    candidates: Sequence[UUID] | None
    created_at: datetime
    asked_at: datetime

    async def them(self, session: AsyncSession) -> Span | These:
        """All accounts of this slice."""
        span = Span(self.first, self.last)
        return span if self.zones is None else await members(session, span, self.zones)

    async def candidates_among(self, session: AsyncSession, them: Span | These, moment: datetime) -> Sequence[UUID] | None:
        """Those whom the count has found, unless that is too long ago. A spell that has begun since the count is looked at as well, or it would be ended as
        if the money lasted."""
        if self.candidates is None or moment - self.created_at > FRESH:
            return None
        if self.kind != "exhaustion":
            return self.candidates
        begun = (await session.execute(IN_SPELL[them.way], them.values)).scalars()
        return list({*self.candidates, *begun})

    async def day(self, session: AsyncSession, moment: datetime) -> date:
        """The day to take as today. A scan that waited over midnight, for a worker or for a confirmation, looks at the day that it is by now: what was due
        meanwhile is history. Upcoming charges belong to the day on which they are told, and a dry run to the one it was asked for."""
        if self.kind == "upcoming" or self.dry_run or moment - self.asked_at < timedelta(0):
            return self.as_of
        names = self.zones if self.zones is not None else await zones(session)
        return self.as_of + min(
            (today_in(name, LAST_ZONE, moment).date() - today_in(name, LAST_ZONE, self.asked_at).date() for name in names), default=timedelta(0)
        )


MULTIPLE, LEAST = 3.0, 100


@dataclass(frozen=True, slots=True)
class Alarm:
    """A count above so many times the usual one, and above `least`, has to be confirmed by somebody."""

    multiple: float = MULTIPLE
    least: int = LEAST


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
            row = (await session.execute(TAKE, {"lease": LEASE, "tries": TRIES})).first()
        if row is None:
            return await self._tidy()
        if row.was_lost:
            metrics.SWEEPER_FOUND.labels("scan").inc()
        piece, is_last = Slice(*row[:-2]), True
        try:
            is_last = await self._work(piece)
        except Exception as error:
            log.warning("slice_failed", run=str(piece.run_id), n=piece.n, attempts=piece.attempts, error=type(error).__name__, detail=str(error)[:300])
            if is_away(error):
                raise
            values = {"tries": TRIES, "error": f"{type(error).__name__}: {str(error)[:300]}", **key_of(piece)}
            async with self._database.transaction() as session:
                await session.execute(STUMBLED, values)
        if piece.phase == "tell":
            self._on_told()
        if is_last:  # where two slices end at once neither may know it: whoever finds nothing to do looks again
            await self._advance(piece.run_id)
        return True

    async def _work(self, piece: Slice) -> bool:
        return await self._database.again(lambda session: self._slice(session, piece), isolation="REPEATABLE READ")

    async def _slice(self, session: AsyncSession, piece: Slice) -> bool:
        """Look, and in the second phase tell; whether no other slice is open. One snapshot: a payment that comes meanwhile is seen when the event is planned."""
        moment = clock()
        if not piece.dry_run:  # which writes nothing and may take its time
            await session.execute(LOCK, {"key": f"{piece.kind}:{piece.first}:{piece.zones}"})
        wanted, _ = await self._wanted(session)
        as_of = await piece.day(session, moment)
        them = await piece.them(session)
        candidates = None
        if piece.phase == "tell":
            among = await piece.candidates_among(session, them, moment)
            if among is None:
                among = (await count(session, piece.kind, them, as_of, wanted, moment)).candidates
            await find(session, piece.kind, among, as_of, wanted, moment)
            await close(session, piece.kind, them, wanted.fresh(moment), moment)
            told = await tell(session, piece.run_id, moment)
            found: dict[str, Any] = {"told": told.told, "covered": told.covered}
        else:
            counted = await count(session, piece.kind, them, as_of, wanted, moment)
            found = {"told": counted.told, "covered": counted.covered, "accounts": counted.accounts, "frozen": counted.frozen, "stale": counted.stale}
            if piece.dry_run:
                await find(session, piece.kind, counted.candidates, as_of, wanted, moment)
                found |= await self._appraised(session)
            else:
                candidates = counted.candidates
        done = (await session.execute(DONE, {"candidates": candidates, "found": orjson.dumps(found).decode(), **key_of(piece)})).first()
        if done is None:
            raise SliceLost  # its lease ended and another has it: what we did is undone with this transaction
        return bool(done.is_last)

    async def _appraised(self, session: AsyncSession) -> dict[str, Any]:
        """Some at a time: neither is all of a slice kept in mind, nor does the process stand still for it."""
        total: dict[str, Any] = {}
        sample: list[dict[str, Any]] = []
        after, hits = 0, await hits_found(session, 0, TOGETHER)
        while hits or not after:  # of nobody, too, there are counts
            more, some = await self._appraise(session, [hit for hit in hits if not hit.covered])
            _add(total, more)
            sample = (sample + some)[:SAMPLES]
            after += TOGETHER
            hits = await hits_found(session, after, TOGETHER)
        return total | {"sample": sample}

    async def _tidy(self) -> bool:
        """Whoever marked the last slice of a phase may have died before he could say so."""
        async with self._database.transaction() as session:
            await session.execute(WORN_OUT, {"tries": TRIES})
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
                await session.execute(STRIP, {"id": run_id})
            elif run.phase == "tell" or run.dry_run:
                await session.execute(SET, values | {"state": "done", "phase": run.phase})
                await session.execute(STRIP, {"id": run_id})
                if not run.dry_run:
                    metrics.SCAN_HITS.labels(run.kind).inc(found["told"])
                    metrics.SCAN_SUCCESS.labels(run.kind).set(clock().timestamp())
                    metrics.SCAN_SECONDS.labels(run.kind).observe((clock() - run.created_at).total_seconds())
            else:
                _, alarm = await self._wanted(session)
                usual = await _usual(session, run)
                alarming = usual is not None and found["told"] > max(alarm.least, alarm.multiple * usual)
                await session.execute(
                    SET, values | {"state": "needs_confirmation" if alarming else "running", "phase": "count" if alarming else "tell", "usual": usual}
                )
                if not alarming:
                    await go_on(session, run_id, found=True)


async def _usual(session: AsyncSession, run: Any) -> int | None:
    values = {"kind": run.kind, "origin": run.origin, "zone": run.zone, "day": run.as_of or run.created_at.date(), "since": run.created_at - REMEMBERED}
    return (await session.execute(USUAL, values)).scalar_one()  # type: ignore[no-any-return]


class SliceLost(Exception):
    """Another worker has this slice by now."""


def key_of(piece: Slice) -> dict[str, Any]:
    return {"run_id": piece.run_id, "phase": piece.phase, "n": piece.n, "attempts": piece.attempts}


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
