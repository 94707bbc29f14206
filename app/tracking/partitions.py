"""The large tables by month. Partitions are made months ahead, and dropped when all that is in them is older than records are kept.

    MINVALUE ... message_first ... | message_2026_12 | message_2027_01 | message_2027_02 | message_tail ... MAXVALUE

An insert never fails for want of a partition: what is above all months goes to the tail. There is no DEFAULT partition on purpose: with one, PostgreSQL
neither detaches CONCURRENTLY nor reads a list in order of ids from the newest month on (it would have to merge all of them).

Nothing here holds a lock that the pipeline waits for. A new month is made as a table of its own and attached (SHARE UPDATE EXCLUSIVE); an old one is
detached CONCURRENTLY. The one exception is a tail that has rows, after months without this job: it becomes a month of its own under a lock that is waited
for a tenth of a second at a time. Every step can be interrupted, and the next run goes on from what it finds.
"""

import asyncio
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core import metrics
from app.core.ids import NOBODY, first_id_at

log = structlog.get_logger()

# Each with the column that it is partitioned by. A notification has its event's id and a submission its message's: a month of one is a month of the other.
PARTITIONED = {"event": "id", "notification": "event_id", "message": "id", "submission": "message_id"}
# A partitioned table has no storage settings of its own: its partitions have them.
STORAGE = {"message": " WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05)"}
# As intake writes it: (source, id) of test events are none of the billing's.
KEY_SOURCE = "CASE WHEN test THEN chr(1) || encode(sha256(convert_to(source, 'UTF8')), 'hex') ELSE source END"
OURS = re.compile(rf"({'|'.join(PARTITIONED)})_(first|tail|to_\d{{4}}_\d{{2}}|\d{{4}}_\d{{2}})")
AHEAD = 3  # whole months after this one
SOON = timedelta(days=1)  # no clock is that fast
BATCH = 5_000
PAUSE = 0.05  # seconds between batches
TRIES = 50
TOP = UUID(int=(1 << 128) - 1)
BUSY = ("55P03", "40P01")  # lock not available, deadlock

FOUND = sa.text("""
SELECT c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bound, i.inhdetachpending AS pending
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass(:table)
""")
# Tables that were partitions: somebody died between the detaching and the dropping.
LOOSE = sa.text("""
SELECT c.relname FROM pg_class c JOIN pg_class p ON p.oid = to_regclass(:table) AND p.relnamespace = c.relnamespace
WHERE c.relkind = 'r' AND NOT c.relispartition AND starts_with(c.relname, CAST(:prefix AS text)) ORDER BY c.relname
""")
BOUND = re.compile(r"FROM \((?:'([0-9a-f-]+)'|MINVALUE)\) TO \((?:'([0-9a-f-]+)'|MAXVALUE)\)")
# What still waits was made in a month that cannot go yet. Both are looked up by their primary keys.
AWAITED = sa.text("SELECT EXISTS (SELECT FROM outbox WHERE message_id < :end) OR EXISTS (SELECT FROM event_waiting WHERE event_id < :end)")
NO_STATISTICS = sa.text("SELECT NOT EXISTS (SELECT FROM pg_stats WHERE tablename = :table AND inherited)")


@dataclass(frozen=True, slots=True)
class Partition:
    """Ids from `begin` on and below `end`. `pending`: somebody died while he detached it."""

    name: str
    begin: UUID
    end: UUID
    pending: bool


async def partitions_of(connection: AsyncConnection, table: str) -> list[Partition]:
    """The partitions of a table, the oldest first."""
    rows = await connection.execute(FOUND, {"table": table})
    found = [
        Partition(row.name, UUID(bound[1] or str(NOBODY)), UUID(bound[2] or str(TOP)), row.pending)
        for row in rows
        if (bound := BOUND.fullmatch(row.bound.removeprefix("FOR VALUES ")))
    ]
    return sorted(found, key=lambda one: one.begin)


def months_ahead(partitions: list[Partition], moment: datetime) -> int:
    """How many whole months after this one have partitions of their own. -1: what is written now goes to the tail."""
    covered = max((one.end for one in partitions if one.end != TOP), default=NOBODY)
    months, begin = -1, next_month(moment)
    while first_id_at(begin) <= covered:
        months, begin = months + 1, next_month(begin)
    return months


class Partitions:
    """The job of one process at a time: whoever runs it holds a lock (app/tracking/retention). On a connection where each statement commits."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def extend(self, moment: datetime) -> None:
        """Partitions for the months to come, and a tail above them, for each table."""
        for table in PARTITIONED:
            await self._finish(table)
            found = await partitions_of(self._connection, table)
            tails = [one for one in found if one.end == TOP]
            if not tails or months_ahead(found, moment) < AHEAD:
                await self._extend(table, found, tails[0] if tails else None, moment)
                found = await partitions_of(self._connection, table)
                log.info("partitions_made", table=table, months_ahead=months_ahead(found, moment))
            metrics.PARTITIONS_AHEAD.labels(table).set(months_ahead(found, moment))
            if await self._connection.scalar(NO_STATISTICS, {"table": table}):
                await self._run(f"ANALYZE {table}")  # autovacuum looks at partitions and never at the whole

    async def drop(self, before: datetime) -> int:
        """Partitions of which everything is older than this, and the keys of their events. How many went."""
        gone, border = 0, first_id_at(before)
        for table in reversed(PARTITIONED):
            await self._finish(table)
            for one in await partitions_of(self._connection, table):
                if one.end > border:
                    continue
                if await self._connection.scalar(AWAITED, {"end": one.end}):
                    log.warning("partition_awaited", partition=one.name)
                    continue
                await self._run(f"ALTER TABLE {table} DETACH PARTITION {one.name} CONCURRENTLY")
            gone += await self._drop_loose(table)
        return gone

    async def _extend(self, table: str, found: list[Partition], tail: Partition | None, moment: datetime) -> None:
        name, key = f"{table}_tail", PARTITIONED[table]
        covered = max((one.end for one in found if one.end != TOP), default=NOBODY)
        if tail is not None and covered > first_id_at(moment + SOON) and not await self._has_rows(name):
            await self._run(f"ALTER TABLE {table} DETACH PARTITION {name} CONCURRENTLY")
            tail = None
        steps: list[str] = []
        begin = time_of(covered)
        if tail is not None or await self._exists(name):
            end = next_month(moment) if covered < first_id_at(next_month(moment)) else next_month(begin)
            if await self._has_rows(name):  # the job has not run for months, or a clock is fast: the rows stay where they are, in a partition with an end
                newest = await self._connection.scalar(sa.text(f"SELECT {key} FROM {name} ORDER BY {key} DESC LIMIT 1"))
                end = max(end, next_month(time_of(newest)))
                check = f"ck_{name}_bounds"
                await self._alone(f"ALTER TABLE {name} DROP CONSTRAINT IF EXISTS {check}")
                await self._alone(
                    f"ALTER TABLE {name} ADD CONSTRAINT {check} CHECK ({key} IS NOT NULL AND {key} >= '{covered}' AND {key} < '{first_id_at(end)}') NOT VALID"
                )
                await self._run(f"ALTER TABLE {name} VALIDATE CONSTRAINT {check}")
                to = f"{table}_to_{end:%Y_%m}"
                steps += [f"ALTER TABLE {table} DETACH PARTITION {name}"] if tail is not None else []
                steps += [
                    f"ALTER TABLE {name} RENAME TO {to}",
                    attach(table, to, f"'{covered}'", f"'{first_id_at(end)}'"),
                    f"ALTER TABLE {to} DROP CONSTRAINT {check}",
                ]
                begin = end
            else:
                steps += [f"DROP TABLE {name}"]
        wanted = moment
        for _ in range(AHEAD + 1):
            wanted = next_month(wanted)
        while begin < wanted:
            steps += made(table, f"{table}_{begin:%Y_%m}", f"'{first_id_at(begin)}'", f"'{first_id_at(next_month(begin))}'")
            begin = next_month(begin)
        steps += made(table, name, f"'{first_id_at(begin)}'", "MAXVALUE")
        await self._alone(*steps)

    async def _finish(self, table: str) -> None:
        """What a process that died, or a time-out, has left half detached."""
        for one in await partitions_of(self._connection, table):
            if one.pending:
                await self._alone(f"ALTER TABLE {table} DETACH PARTITION {one.name} FINALIZE")

    async def _drop_loose(self, table: str) -> int:
        names = (await self._connection.execute(LOOSE, {"table": table, "prefix": f"{table}_"})).scalars().all()
        gone = [name for name in names if OURS.fullmatch(name) and not name.endswith("_tail")]
        for name in gone:
            if table == "event":
                await self._forget_keys(name)
            await self._alone(f"DROP TABLE {name}")
            log.info("partition_dropped", partition=name)
        return len(gone)

    async def _forget_keys(self, name: str) -> None:
        """(source, id) is unique for as long as its event is kept. In order of ids, in batches; begun again from the start when it was interrupted."""
        batch = sa.text(f"""
        WITH batch AS MATERIALIZED (SELECT id, {KEY_SOURCE} AS source, external_id FROM {name} WHERE id > :after ORDER BY id LIMIT {BATCH}),
             gone AS (DELETE FROM event_key k USING batch b WHERE k.source = b.source AND k.external_id = b.external_id AND k.event_id = b.id)
        SELECT id FROM batch ORDER BY id DESC LIMIT 1
        """)
        after: UUID | None = NOBODY
        while after is not None:
            after = await self._connection.scalar(batch, {"after": after})
            await asyncio.sleep(PAUSE)

    async def _exists(self, name: str) -> bool:
        return bool(await self._connection.scalar(sa.text("SELECT to_regclass(:name) IS NOT NULL"), {"name": name}))

    async def _has_rows(self, name: str) -> bool:
        return bool(await self._connection.scalar(sa.text(f"SELECT EXISTS (SELECT FROM {name})")))

    async def _run(self, statement: str) -> None:
        await self._connection.execute(sa.text(statement))

    async def _alone(self, *steps: str) -> None:
        """All of it or nothing, waiting for a lock a tenth of a second at a time: whoever stands behind us goes first, and we come again."""
        body = " ".join(f"EXECUTE $step${step}$step$;" for step in steps)
        for left in range(TRIES - 1, -1, -1):
            try:
                await self._run(f"DO $do$ BEGIN PERFORM set_config('lock_timeout', '100ms', true); {body} END $do$")
            except DBAPIError as error:
                if left == 0 or getattr(error.orig, "sqlstate", None) not in BUSY:
                    raise
                await asyncio.sleep(0.3)
            else:
                return


def made(table: str, name: str, begin: str, end: str) -> list[str]:
    """A table of its own first, with its indexes: ATTACH then asks for no lock that anybody waits for, as CREATE ... PARTITION OF would."""
    return [f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL){STORAGE.get(table, '')}", attach(table, name, begin, end)]


def attach(table: str, name: str, begin: str, end: str) -> str:
    return f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({begin}) TO ({end})"


def time_of(identity: UUID) -> datetime:
    """When an id of ours was made."""
    return datetime.fromtimestamp((identity.int >> 80) / 1000, UTC)


def next_month(moment: datetime) -> datetime:
    """The first moment of the month after this one, by UTC."""
    return (moment.astimezone(UTC).replace(day=1) + timedelta(days=32)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
