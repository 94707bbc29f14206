"""A scan is asked for: a run, and the slices that workers take. What was counted is told next, or, where it is alarming, when somebody has confirmed it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import now as clock
from app.core.ids import new_id
from app.forecasts.models import ScanSlice

SLICE = 50_000  # accounts
BEGINNING, END = UUID(int=0), UUID(int=2**128 - 1)

# From border to border along the index: a tenth of what numbering all rows takes.
BORDERS = {
    zoned: sa.text(f"""
WITH RECURSIVE b AS (
    (SELECT a.id FROM account a WHERE {which} ORDER BY a.id LIMIT 1)
    UNION ALL SELECT (SELECT a.id FROM account a WHERE a.id > b.id AND {which} ORDER BY a.id OFFSET :size - 1 LIMIT 1) FROM b WHERE b.id IS NOT NULL
)
SELECT id FROM b WHERE id IS NOT NULL
""")
    for zoned, which in ((False, "true"), (True, "a.timezone = ANY(CAST(:zones AS text[]))"))
}
ASK = sa.text("""
INSERT INTO scan_run (id, kind, origin, zone, as_of, dry_run, state, phase, requested_by, found, sample, created_at)
VALUES (:id, :kind, :origin, :zone, :as_of, :dry_run, 'queued', 'count', :by, CAST(:found AS jsonb), '[]', :now) ON CONFLICT DO NOTHING RETURNING id
""")
# The second look is at those alone whom the first has found; after a confirmation that may have taken its time, at everybody.
TELLING = sa.text("""
INSERT INTO scan_slice (run_id, phase, n, zones, as_of, first, last, state, attempts, found, candidates, created_at)
SELECT run_id, 'tell', n, zones, as_of, first, last, 'waiting', 0, found - 'told' - 'covered', CASE WHEN :found THEN candidates END, :now
FROM scan_slice WHERE run_id = :id AND phase = 'count' ON CONFLICT DO NOTHING
""")
CONFIRM = sa.text("""
UPDATE scan_run SET state = 'running', phase = 'tell', confirmed_by = :by WHERE id = :id AND state = 'needs_confirmation' RETURNING id
""")
REFUSE = sa.text("""
UPDATE scan_run SET state = 'failed', error = 'refused by ' || CAST(:by AS text), finished_at = now() WHERE id = :id AND state = 'needs_confirmation' RETURNING id
""")


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
    by_day: dict[date, list[str]] = defaultdict(list)
    for name, day in days.items():
        by_day[day].append(name)
    # Without a zone of its own, and with one day for all zones, a slice need not ask where its accounts live.
    groups = [(day, None if zone is None and len(by_day) == 1 and not skipped else names) for day, names in by_day.items()]
    rows: list[dict[str, Any]] = []
    for day, names in groups:
        borders = list((await session.execute(BORDERS[names is not None], {"size": SLICE, "zones": names} if names else {"size": SLICE})).scalars())
        borders[:1] = [BEGINNING] * bool(borders)  # an account that comes into the zone meanwhile may be older than all of them
        rows += [
            {
                "run_id": run_id,
                "phase": "count",
                "n": len(rows) + n,
                "zones": names,
                "as_of": day,
                "first": first,
                "last": last,
                "state": "waiting",
                "found": {},
                "created_at": moment,
            }
            for n, (first, last) in enumerate(zip(borders, [*borders[1:], END], strict=True))
        ]
    if rows:
        await session.execute(sa.insert(ScanSlice), rows)
    return run_id


async def go_on(session: AsyncSession, run_id: UUID, *, found: bool) -> None:
    """The slices of the telling: of those alone who were `found`, or of everybody."""
    await session.execute(TELLING, {"id": run_id, "found": found, "now": clock()})


async def confirm(session: AsyncSession, run_id: UUID, by: str) -> bool:
    """Go on to the telling; false when the run does not wait for it."""
    if (await session.execute(CONFIRM, {"id": run_id, "by": by})).first() is None:
        return False
    await go_on(session, run_id, found=False)
    return True


async def refuse(session: AsyncSession, run_id: UUID, by: str) -> bool:
    """End it, nobody told; false when the run does not wait for that."""
    return (await session.execute(REFUSE, {"id": run_id, "by": by})).first() is not None
