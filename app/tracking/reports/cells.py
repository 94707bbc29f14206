"""The folding job: deltas are added to the cells and deleted, in one transaction, by one process at a time.

A reader adds cells and deltas in one statement, so a report is exact whether or not, and however far, anything was folded. A process that dies in the middle
has folded nothing. Deltas of one message mostly undo each other (waiting, accepted, delivered) and meet here before they touch a cell.
"""

from typing import Any

import sqlalchemy as sa

from app.core.db import Database

BATCH = 10_000

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
)
SELECT t.number, c.slot, c.key, c.bucket FROM (SELECT count(*) AS number FROM taken) t
LEFT JOIN cells c ON c.messages = 0 AND c.parts = 0 AND c.cost = 0
""")
EMPTY = sa.text("""
DELETE FROM report_cell c USING unnest(CAST(:slots AS timestamptz[]), CAST(:keys AS uuid[]), CAST(:buckets AS smallint[])) AS v(slot, key, bucket)
WHERE c.slot = v.slot AND c.key = v.key AND c.bucket = v.bucket
""")


class Folding:
    """A step of the sweeps: may run anywhere, any number of times."""

    def __init__(self, database: Database, zone: str) -> None:
        self._database, self._zone = database, zone

    async def fold(self) -> int:
        """One batch. How many deltas it took."""
        async with self._database.transaction() as session:
            if not await session.scalar(ONE_AT_A_TIME):
                return 0  # somebody else is at it
            rows: Any = (await session.execute(FOLD, {"batch": BATCH, "zone": self._zone})).all()
            empty = [row for row in rows if row.key is not None]
            if empty:
                await session.execute(
                    EMPTY, {"slots": [row.slot for row in empty], "keys": [row.key for row in empty], "buckets": [row.bucket for row in empty]}
                )
            return int(rows[0].number)
