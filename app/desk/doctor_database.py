"""The doctor looks at PostgreSQL: what the server is, what it is set to, and whether the schema is that of this version."""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import now
from app.core.config import Settings
from app.core.db import Database
from app.core.migrate import head, known_revisions
from app.desk.findings import Finding

AREA = "database"
LEAST_VERSION = 160_000
A_PROCESS = 20  # connections that a process opens under load: app/core/db.py, pool and overflow
FREE_LOW, FREE_OUT = 0.10, 0.03  # of the disk
SKEW_WARN, SKEW_FAIL = 2.0, 30.0  # seconds
LONG = timedelta(minutes=10)  # a transaction that old holds vacuum back

SERVER = sa.text("""
SELECT current_setting('server_version') AS version, CAST(current_setting('server_version_num') AS int) AS number,
       pg_encoding_to_char(d.encoding) AS encoding, current_setting('TimeZone') AS timezone,
       CAST(current_setting('max_connections') AS int) - CAST(current_setting('superuser_reserved_connections') AS int) AS connections,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connected,
       current_setting('autovacuum') AS autovacuum, current_setting('track_counts') AS track_counts, current_setting('fsync') AS fsync,
       current_setting('full_page_writes') AS full_page_writes, current_setting('synchronous_commit') AS synchronous_commit,
       pg_size_pretty(pg_database_size(d.oid)) AS size, clock_timestamp() AS clock
FROM pg_database d WHERE d.datname = current_database()
""")
OLD_TRANSACTIONS = sa.text("""
SELECT pid, application_name, CAST(extract(epoch FROM now() - xact_start) / 60 AS int) AS minutes FROM pg_stat_activity
WHERE datname = current_database() AND xact_start < now() - CAST(:long AS interval) AND backend_type = 'client backend' ORDER BY xact_start LIMIT 5
""")
HALF_MADE = sa.text("SELECT CAST(indexrelid AS regclass) AS name FROM pg_index WHERE NOT indisvalid AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index)")
PROCESSES = sa.text("SELECT count(*) FROM worker_process WHERE seen_at > now() - interval '1 minute'")
THERE = sa.text("SELECT to_regclass('worker_process') IS NOT NULL")
MAY_READ = sa.text("SELECT pg_has_role(current_user, 'pg_read_all_settings', 'USAGE')")
DATA = sa.text("SELECT current_setting('data_directory')")


async def look_at_server(session: AsyncSession, settings: Settings) -> list[Finding]:
    asked = now()
    row: Any = (await session.execute(SERVER)).one()
    middle = asked + (now() - asked) / 2
    found = [Finding(AREA, "database_ok", {"version": row.version, "size": row.size, "timezone": row.timezone})]
    if row.number < LEAST_VERSION:
        found.append(Finding(AREA, "database_old", {"version": row.version}))
    if row.encoding != "UTF8":
        found.append(Finding(AREA, "database_encoding", {"encoding": row.encoding}))
    if row.autovacuum != "on" or row.track_counts != "on":
        found.append(Finding(AREA, "autovacuum_off"))
    if off := [name for name in ("fsync", "full_page_writes", "synchronous_commit") if getattr(row, name) == "off"]:
        found.append(Finding(AREA, "not_durable", {"settings": ", ".join(off)}))
    found += clock_skew(AREA, (row.clock - middle).total_seconds())
    found += await _connections(session, row)
    found += [
        Finding(AREA, "long_transaction", {"pid": old.pid, "who": old.application_name or "?", "minutes": old.minutes})
        for old in (await session.execute(OLD_TRANSACTIONS, {"long": LONG})).all()
    ]
    found += [Finding(AREA, "index_half_made", {"name": row.name}) for row in (await session.execute(HALF_MADE)).all()]
    return found + await _disk(session)


def clock_skew(where: str, seconds: float) -> list[Finding]:
    """Whose clock is ahead of this machine's (`seconds` > 0), or behind."""
    if abs(seconds) < SKEW_WARN:
        return []
    return [Finding(where, "clock_far_off" if abs(seconds) >= SKEW_FAIL else "clock_off", {"where": where, "seconds": f"{seconds:+.1f}"})]


async def _connections(session: AsyncSession, row: Any) -> list[Finding]:
    processes = (await session.scalar(PROCESSES) or 0) if await session.scalar(THERE) else 0
    values = {"connections": row.connections, "connected": row.connected, "needed": A_PROCESS * (processes + 1), "processes": processes + 1}
    if row.connected > 0.9 * row.connections:
        return [Finding(AREA, "connections_used_up", values)]
    return [Finding(AREA, "connections_short", values)] if values["needed"] > row.connections else []


async def _disk(session: AsyncSession) -> list[Finding]:
    """Where the data directory may be asked for, and is on this machine."""
    if not await session.scalar(MAY_READ):
        return []
    path = Path(str(await session.scalar(DATA)))
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return []
    share, values = usage.free / usage.total, {"free": f"{usage.free / 1e9:.1f}", "share": f"{usage.free / usage.total:.0%}"}
    return [Finding(AREA, "disk_full" if share < FREE_OUT else "disk_low", values)] if share < FREE_LOW else []


async def look_at_schema(database: Database) -> list[Finding]:
    async with database.engine.connect() as connection:
        found = await connection.run_sync(lambda c: MigrationContext.configure(c).get_current_revision())
    values = {"found": found or "-", "wanted": head()}
    if found is None:
        return [Finding(AREA, "schema_missing", values)]
    if found == head():
        return [Finding(AREA, "schema_ok", values)]
    return [Finding(AREA, "schema_old" if found in known_revisions() else "schema_newer", values)]
