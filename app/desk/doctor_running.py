"""The doctor looks at what runs: processes that say they live, work that nobody takes, scans that were missed, upkeep that was not done."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import now
from app.core.config import Settings
from app.core.ids import first_id_at
from app.core.wakeups import QUEUES
from app.desk.findings import Finding
from app.forecasts.find import TYPES

LAGS, STANDS = timedelta(minutes=2), timedelta(minutes=15)  # work that has waited that long is late; and nobody does it
SCANNED_WITHIN = timedelta(hours=26)  # a scan is asked for once a day in every zone

ALIVE = sa.text("SELECT queues, host FROM worker_process WHERE seen_at > now() - interval '1 minute'")
WAITING = sa.text("SELECT count(*) FILTER (WHERE event_id < :late) AS late, count(*) FILTER (WHERE event_id < :stuck) AS stuck FROM event_waiting")
DUE = sa.text("""
SELECT o.gateway, count(*) AS messages, CAST(extract(epoch FROM now() - min(o.not_before)) / 60 AS int) AS minutes
FROM outbox o LEFT JOIN gateway g ON g.name = o.gateway
WHERE o.state = 'queued' AND o.not_before < now() - CAST(:late AS interval) AND o.expires_at > now() AND g.paused IS NOT TRUE
GROUP BY o.gateway ORDER BY o.gateway
""")
LEASES = sa.text("SELECT count(*) FROM outbox WHERE state = 'sending' AND lease_until < now() - CAST(:late AS interval)")
STOPS = sa.text("SELECT scope, name, reason FROM stop ORDER BY scope, name")
ANYBODY = sa.text("SELECT EXISTS (SELECT FROM account)")
SCANNED = sa.text("SELECT max(finished_at) FROM scan_run WHERE kind = :kind AND state = 'done' AND NOT dry_run")
UNFINISHED = sa.text("""
SELECT DISTINCT ON (kind, zone) kind, zone, state FROM scan_run WHERE origin = 'clock' AND as_of > CURRENT_DATE - 2 ORDER BY kind, zone, as_of DESC
""")
IS_TOLD = sa.text("SELECT enabled FROM notification_type WHERE code = :code")
HAS_WEBHOOKS = sa.text("SELECT to_regclass('webhook_delivery') IS NOT NULL")
WEBHOOKS = sa.text("""
SELECT url, title, enabled, disabled_because, last_error, CAST(extract(epoch FROM now() - failing_since) / 60 AS int) AS minutes
FROM webhook WHERE disabled_because IN ('gone', 'failing') OR (enabled AND failing_since IS NOT NULL) ORDER BY url
""")
BACKLOG = sa.text("""
SELECT count(*) FROM webhook w JOIN webhook_delivery d ON d.endpoint_id = w.id AND d.state = 'waiting'
WHERE w.enabled AND w.failing_since IS NULL AND d.due_at < now() - CAST(:late AS interval)
""")
BOUNDS = sa.text("""
SELECT p.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_partitioned_table t JOIN pg_class p ON p.oid = t.partrelid
JOIN pg_inherits i ON i.inhparent = p.oid JOIN pg_class c ON c.oid = i.inhrelid WHERE p.relnamespace = CAST(current_schema() AS regnamespace)
""")
UPPER = re.compile(r"TO \('([0-9a-f-]{36})'\)")
AHEAD_WARN, AHEAD_FAIL = timedelta(days=31), timedelta(days=3)  # the job makes three months ahead


async def look_at_processes(session: AsyncSession, settings: Settings) -> list[Finding]:
    """A process for each queue. The binds say for themselves whether somebody holds them."""
    alive: Sequence[Any] = (await session.execute(ALIVE)).all()
    held = {queue for row in alive for queue in row.queues.split(",")}
    needed = (*QUEUES, *(("bounces",) if settings.bounce_endpoint is not None else ()))
    found = [Finding("processes", "processes_ok", {"number": len(alive), "hosts": len({row.host for row in alive})})] if alive else []
    if "all" in held:
        return found
    return found + [Finding("processes", "queue_without_worker", {"queue": queue}) for queue in needed if queue not in held]


async def look_at_queues(session: AsyncSession, settings: Settings) -> list[Finding]:
    moment, found = now(), list[Finding]()
    waiting = (await session.execute(WAITING, {"late": first_id_at(moment - LAGS), "stuck": first_id_at(moment - STANDS)})).one()
    if waiting.late:
        found.append(Finding("queues", "planning_stands" if waiting.stuck else "planning_lags", {"events": waiting.late}))
    for row in (await session.execute(DUE, {"late": LAGS})).all():
        values = {"gateway": row.gateway or "-", "messages": row.messages, "minutes": row.minutes}
        found.append(Finding("queues", "sending_stands" if timedelta(minutes=row.minutes) >= STANDS else "sending_lags", values))
    if stuck := await session.scalar(LEASES, {"late": LAGS}):
        found.append(Finding("queues", "leases_stand", {"messages": stuck}))
    for stop in (await session.execute(STOPS)).all():
        found.append(Finding("queues", "stop_stands", {"scope": stop.scope, "name": stop.name or "-", "reason": stop.reason or "-"}))
    return found or [Finding("queues", "queues_ok")]


async def look_at_scans(session: AsyncSession, settings: Settings) -> list[Finding]:
    """Each kind of scan whose type is told, once a day. An installation without accounts has nothing to scan."""
    found = list[Finding]()
    if not await session.scalar(ANYBODY):
        return found
    for row in (await session.execute(UNFINISHED)).all():
        if row.state in ("failed", "needs_confirmation"):
            code = "scan_failed" if row.state == "failed" else "scan_waits"
            found.append(Finding("queues", code, {"kind": row.kind, "zone": row.zone or "-"}))
    for kind, code in TYPES.items():
        if not await session.scalar(IS_TOLD, {"code": code}):
            continue
        last = await session.scalar(SCANNED, {"kind": kind})
        if last is None or now() - last > SCANNED_WITHIN:
            values = {"kind": kind, "last": f"{last.astimezone(settings.zone):%Y-%m-%d %H:%M}" if last else "-", "hour": settings.scan_hour}
            found.append(Finding("queues", "scan_missed", values))
    return found


async def look_at_upkeep(session: AsyncSession, settings: Settings) -> list[Finding]:
    """Months to come have their partitions, and whoever is to be told by webhooks hears."""
    return [*await _partitions(session), *(await _webhooks(session) if await session.scalar(HAS_WEBHOOKS) else [])]


async def _partitions(session: AsyncSession) -> list[Finding]:
    """Tables that are partitioned by UUIDv7: until when there is a partition for what comes."""
    ends: dict[str, UUID] = {}
    for row in (await session.execute(BOUNDS)).all():
        if upper := UPPER.search(row.bound or ""):
            ends[row.name] = max(UUID(upper[1]), ends.get(row.name, UUID(int=0)))
    found = []
    for name, end in sorted(ends.items()):
        # RFC 9562, 5.7: the first 48 bits are the milliseconds.
        until = datetime.fromtimestamp(min(end.int >> 80, 253_402_300_799_000) / 1000, UTC)
        if until - now() < AHEAD_WARN:
            code = "partitions_end" if until - now() < AHEAD_FAIL else "partitions_few"
            found.append(Finding("queues", code, {"table": name, "until": f"{until:%Y-%m-%d}"}))
    return found


async def _webhooks(session: AsyncSession) -> list[Finding]:
    found = list[Finding]()
    for row in (await session.execute(WEBHOOKS)).all():
        # The host alone: a path may carry a token.
        values = {"webhook": row.title or urlsplit(row.url).hostname or "?", "error": row.last_error or "-", "minutes": row.minutes or 0}
        if row.disabled_because:
            found.append(Finding("queues", "webhook_off", {**values, "because": row.disabled_because}))
        else:
            found.append(Finding("queues", "webhook_fails", values))
    if late := await session.scalar(BACKLOG, {"late": STANDS}):
        found.append(Finding("queues", "webhooks_lag", {"deliveries": late}))
    return found
