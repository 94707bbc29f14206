"""After a restore: the database has forgotten what was sent since the dump. Whatever may have gone is put in doubt, so that nothing goes twice.

    caught up   events that waited are planned and scans that were due are run, as the lost hours did: histories are whole, spells are known as told
    in doubt    everything on the wire, everything due before the end, everything that was made while catching up, and what waits for any of these

A message in doubt is `unknown`, with the reason `database_restored`: it is not sent, it is counted and listed, a receipt that still comes ends it, and an
operator may resend it. What was held for a later hour than the end stays as it is and goes then. Only while no worker runs; may be run again at any time.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from app.core import audit
from app.core.clock import now
from app.core.config import Settings
from app.core.db import Database
from app.core.errors import Conflict
from app.core.ids import first_id_at, new_id
from app.core.wakeups import Wakeups
from app.desk.appraise import Appraiser
from app.forecasts.station import ScanStation
from app.notifications.bulk import finish
from app.notifications.plan import Planner
from app.notifications.rows import CHANGES
from app.notifications.states import State

REASON = "database_restored"
BATCH = 1_000
AUTHOR = "vestnik restored"

# By their connections, which no dump carries; behind a pooler these have no names, and the rows of those who say that they live have to do.
WORKERS = sa.text("""
SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'vestnik-worker')
     + (SELECT count(*) FROM worker_process WHERE :pooled AND seen_at > now() - interval '1 minute')
""")
IN_DOUBT = sa.text("""
SELECT o.message_id FROM outbox o
WHERE o.state = 'sending' OR o.not_before <= :until OR o.message_id >= :made_since
   OR (o.after_message IS NOT NULL AND EXISTS (SELECT FROM message m WHERE m.id = o.after_message AND m.reason = :reason))
ORDER BY o.message_id LIMIT :batch FOR UPDATE OF o
""")
COUNT = sa.text("SELECT count(*) FROM outbox o WHERE o.state = 'sending' OR o.not_before <= :until")
DOUBT = sa.text("""
WITH gone AS (DELETE FROM outbox WHERE message_id = ANY(CAST(:ids AS uuid[])) RETURNING message_id, gateway)
UPDATE message m SET state = 'unknown', reason = :reason, gateway = coalesce(gone.gateway, m.gateway), updated_at = :now
FROM gone WHERE m.id = gone.message_id AND m.id = ANY(CAST(:ids AS uuid[])) RETURNING m.channel
""")
EVENTS = sa.text("SELECT count(*) FROM event_waiting")
# What a job has sent again since the dump is forgotten: it would go once more.
STOPPED = sa.text("UPDATE message_bulk SET state = 'failed', error = 'database_restored', finished_at = now() WHERE state = 'running' RETURNING id")
REFUSED = sa.text("""
UPDATE scan_run SET state = 'failed', error = 'refused by vestnik restored', finished_at = now() WHERE state = 'needs_confirmation' AND NOT dry_run
""")
# What the dump says of processes is of those that are gone.
GONE = (sa.text("UPDATE bind_slot SET until = now() WHERE until > now()"), sa.text("DELETE FROM worker_process"))


@dataclass(slots=True)
class Restored:
    """What was done: events planned, and messages put in doubt by channel."""

    events: int = 0
    doubtful: dict[str, int] = field(default_factory=dict)


async def what_is_due(database: Database, until: datetime) -> tuple[int, int]:
    """Events that wait and messages that would be put in doubt, before anything is planned."""
    async with database.transaction() as session:
        return int(await session.scalar(EVENTS) or 0), int(await session.scalar(COUNT, {"until": until}) or 0)


async def settle_the_lost_time(database: Database, settings: Settings, until: datetime) -> Restored:
    """Put in doubt whatever may have been sent up to `until`, when the lost service stopped. Conflict while a worker is connected.

    Each batch is a transaction of its own: whoever is killed here runs it again, and only then starts the workers."""
    await refuse_beside_workers(database, settings)
    made_since, done = first_id_at(now()), Restored()
    done.events = await _catch_up(database, settings, until)
    values = {"until": until, "made_since": made_since, "reason": REASON, "batch": BATCH}
    while True:
        async with database.transaction() as session:
            ids = list((await session.execute(IN_DOUBT, values)).scalars())
            if not ids:
                break
            moment = now()
            channels = (await session.execute(DOUBT, {"ids": ids, "reason": REASON, "now": moment})).scalars()
            for channel in channels:
                done.doubtful[channel] = done.doubtful.get(channel, 0) + 1
            detail = f"may have been sent before {until:%Y-%m-%d %H:%M:%S %Z}"
            rows: list[tuple[Any, ...]] = [(new_id(), one, moment, State.UNKNOWN.value, REASON, detail) for one in ids]
            await CHANGES.run(session, rows)
    async with database.transaction() as session:
        for statement in GONE:
            await session.execute(statement)
        for bulk_id in (await session.execute(STOPPED)).scalars().all():
            await finish(session, bulk_id)
        changes = {"until": until.isoformat(), "events": done.events, "doubtful": done.doubtful}
        await audit.record(session, AUTHOR, "database.restored", "database", changes)
    return done


async def refuse_beside_workers(database: Database, settings: Settings) -> None:
    async with database.transaction() as session:
        if number := await session.scalar(WORKERS, {"pooled": settings.database_pooler == "transaction"}):
            raise Conflict(f"{number} connections of workers: stop every worker first, and run this again", code="workers_are_running")


async def _catch_up(database: Database, settings: Settings, until: datetime) -> int:
    """Plan what waits and run the scans that were due, without waking anybody. How many events were planned."""
    quiet = Wakeups(settings.redis_url, direct=lambda _: True)
    planner, events = Planner(database, settings, quiet), 0
    scans = ScanStation(database, settings, quiet, Appraiser(settings))
    while planned := await planner.plan():
        events += planned
    await scans.catch_up(until)
    async with database.transaction() as session:
        await session.execute(REFUSED)  # confirmed later it would tell everybody again
    while planned := await planner.plan():
        events += planned
    await quiet.close()
    return events
