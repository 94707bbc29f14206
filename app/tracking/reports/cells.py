"""The folding job: deltas are added to the cells of their hours and of their days, and deleted, in one transaction, by one process at a time.

A reader adds cells and deltas in one statement, so a report is exact whether or not, and however far, anything was folded. A process that dies in the middle
has folded nothing. Deltas of one message mostly undo each other (waiting, accepted, delivered) and meet here before they touch a cell.
"""

from typing import Any

import sqlalchemy as sa

from app.core import metrics
from app.core.clock import now
from app.core.db import Database
from app.tracking.reports.days import sum_further

BATCH = 10_000
MOST_SHOWN = 100_000  # deltas that are counted for the metric

DIMENSIONS = "type, channel, gateway, route, sender, operator, template_id, template_version, state, reason"
# 128 bits of SHA-256 name a combination: a unique index over eleven columns that may be null would be wider than its table, and cells would repeat them.
KEY = f"CAST(left(encode(sha256(convert_to(CAST(ROW(kind, {DIMENSIONS}) AS text), 'UTF8')), 'hex'), 32) AS uuid)"
ONE_AT_A_TIME = sa.text("SELECT pg_try_advisory_xact_lock(7470007)")
ALONE = sa.text("SELECT pg_advisory_xact_lock(7470007)")
FOLD = sa.text(f"""
WITH taken AS (
    DELETE FROM report_delta WHERE id = ANY(ARRAY(SELECT id FROM report_delta ORDER BY id LIMIT :batch)) RETURNING *
), summed AS MATERIALIZED (
    SELECT date_trunc('hour', slot, :zone) AS slot, {KEY} AS key, kind, {DIMENSIONS}, bucket,
           CAST(sum(messages) AS bigint) AS messages, CAST(sum(parts) AS bigint) AS parts, sum(cost) AS cost
    FROM taken GROUP BY 1, kind, {DIMENSIONS}, bucket HAVING sum(messages) <> 0 OR sum(parts) <> 0 OR sum(cost) <> 0
), named AS (
    INSERT INTO report_key (key, kind, {DIMENSIONS}) SELECT DISTINCT ON (key) key, kind, {DIMENSIONS} FROM summed ON CONFLICT DO NOTHING
), cells AS (
    INSERT INTO report_cell (slot, key, bucket, messages, parts, cost) SELECT slot, key, bucket, messages, parts, cost FROM summed
    ON CONFLICT (slot, key, bucket) DO UPDATE SET messages = report_cell.messages + excluded.messages, parts = report_cell.parts + excluded.parts,
        cost = report_cell.cost + excluded.cost
    RETURNING slot, key, bucket, messages, parts, cost
), days AS (
    INSERT INTO report_day (day, key, bucket, messages, parts, cost)
    SELECT CAST(slot AT TIME ZONE :zone AS date), key, bucket, sum(messages), sum(parts), sum(cost) FROM summed GROUP BY 1, 2, 3
    ON CONFLICT (day, key, bucket) DO UPDATE SET messages = report_day.messages + excluded.messages, parts = report_day.parts + excluded.parts,
        cost = report_day.cost + excluded.cost
    RETURNING day, key, bucket, messages, parts, cost
), empty AS (
    SELECT slot, CAST(NULL AS date) AS day, key, bucket FROM cells WHERE messages = 0 AND parts = 0 AND cost = 0
    UNION ALL SELECT NULL, day, key, bucket FROM days WHERE messages = 0 AND parts = 0 AND cost = 0
)
SELECT t.number, e.slot, e.day, e.key, e.bucket FROM (SELECT count(*) AS number FROM taken) t LEFT JOIN empty e ON true
""")
EMPTY = sa.text("""
DELETE FROM report_cell c USING unnest(CAST(:slots AS timestamptz[]), CAST(:keys AS uuid[]), CAST(:buckets AS smallint[])) AS v(slot, key, bucket)
WHERE c.slot = v.slot AND c.key = v.key AND c.bucket = v.bucket
""")
EMPTY_DAYS = sa.text("""
DELETE FROM report_day c USING unnest(CAST(:days AS date[]), CAST(:keys AS uuid[]), CAST(:buckets AS smallint[])) AS v(day, key, bucket)
WHERE c.day = v.day AND c.key = v.key AND c.bucket = v.bucket
""")
WAITING = sa.text("SELECT count(*) FROM (SELECT FROM report_delta LIMIT :most) AS bounded")


class Folding:
    """A step of the sweeps: may run anywhere, any number of times."""

    def __init__(self, database: Database, zone: str) -> None:
        self._database, self._zone = database, zone

    async def fold(self) -> int:
        """One batch, and a step of summing up days where they are not of this clock. How many deltas it took; 500 at least while there are more days to sum."""
        async with self._database.transaction() as session:
            if not await session.scalar(ONE_AT_A_TIME):
                return 0  # somebody else is at it
            are_whole = await sum_further(session, self._zone)
            rows: Any = (await session.execute(FOLD, {"batch": BATCH, "zone": self._zone})).all()
            for column, statement in (("slot", EMPTY), ("day", EMPTY_DAYS)):
                empty = [row for row in rows if getattr(row, column) is not None]
                if empty:
                    values = {f"{column}s": [getattr(row, column) for row in empty]}
                    await session.execute(statement, values | {"keys": [row.key for row in empty], "buckets": [row.bucket for row in empty]})
        metrics.REPORT_FOLD_SUCCESS.set(now().timestamp())
        return int(rows[0].number) if are_whole else max(int(rows[0].number), 500)

    async def look(self) -> None:
        """Show how many deltas wait, up to 100,000: also when it is somebody else who folds them, and above all when nobody can."""
        async with self._database.transaction() as session:
            metrics.REPORT_DELTAS_WAITING.set(await session.scalar(WAITING, {"most": MOST_SHOWN}) or 0)
