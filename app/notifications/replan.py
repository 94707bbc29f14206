"""What waits is decided again when what decides about it has changed: preferences, contacts, quiet hours.

    refused by what holds now        cancelled, with the reason that planning would have given
    queued, and closed now           held until its hours open
    held for the hours               the hours of now; where they are open already, the sweep releases it
    queued, and open still           until when it may go

What waits for something else (a stop, a budget, a chain of channels, others to join it) waits on: its release asks for preferences and hours anyway.
Nobody is told more than was planned: what was turned on counts for the events to come.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.preference_checks import NOT_CHOSEN
from app.accounts.preferences import read
from app.accounts.quiet import QuietHoursNow
from app.accounts.suppressions import barred
from app.accounts.window import next_open, open_until
from app.catalogue.registry import Catalogue, TypeRules
from app.core.clock import now as clock
from app.core.config import Settings
from app.core.db import Database
from app.core.ids import first_id_at, new_id
from app.notifications.audience import Around, Reached, contact_refusal, why_closed
from app.notifications.delivery import spread_over
from app.notifications.ending import close
from app.notifications.plan import CHOSEN, zone_of
from app.notifications.reminders import WAITS_AT_MOST, is_ours, until_midnight
from app.notifications.rows import CHANGES
from app.notifications.states import State

BATCH = 500
FOR_HOURS = frozenset({"quiet_hours", "own_hours"})  # what a message is held for that these decide

_THEIRS = f"""
WITH waiting AS MATERIALIZED (
    SELECT m.id, m.account_id, m.event_id, m.type, m.channel, m.contact_id, m.address, o.state, o.reason, o.not_before, o.send_until
    FROM message m JOIN outbox o ON o.message_id = m.id
    WHERE m.account_id = ANY(CAST(:accounts AS uuid[])) AND m.id >= :oldest AND NOT m.test AND o.state = ANY(CAST(:states AS text[])) ORDER BY m.id «lock»
), barred AS MATERIALIZED ({barred("SELECT address FROM waiting")})
SELECT w.*, a.timezone, a.status, {CHOSEN} AS chosen_json, c.id IS NULL AS contact_gone, c.origin = 'billing' OR c.verified_at IS NOT NULL AS verified,
       b.address IS NOT NULL AS suppressed, coalesce(b.dead, false) AS dead, (SELECT source FROM event WHERE id = w.event_id) AS source
FROM waiting w JOIN account a ON a.id = w.account_id LEFT JOIN contact c ON c.id = w.contact_id LEFT JOIN barred b ON b.channel = w.channel AND b.address = w.address
ORDER BY w.id
"""
# Locked in one order.
WAITING = sa.text(_THEIRS.replace("«lock»", "FOR UPDATE OF o"))
# What is claimed at this very moment is on its way; put back into the queue it keeps to what holds now.
ON_THE_WIRE = sa.text(_THEIRS.replace("«lock»", ""))
KEEP_TO = sa.text("""
UPDATE outbox o SET expires_at = CASE WHEN v.refused THEN LEAST(o.expires_at, CAST(:now AS timestamptz)) ELSE o.expires_at END, send_until = LEAST(o.send_until, v.until)
FROM unnest(CAST(:ids AS uuid[]), CAST(:refused AS bool[]), CAST(:untils AS timestamptz[])) AS v(id, refused, until)
WHERE o.message_id = v.id AND o.message_id = ANY(CAST(:ids AS uuid[]))
""")
HOLD = sa.text("""
WITH moved AS (
    UPDATE outbox o SET state = 'held', reason = v.reason, not_before = v.not_before, send_until = v.send_until, expires_at = v.expires_at
    FROM unnest(CAST(:ids AS uuid[]), CAST(:reasons AS text[]), CAST(:begins AS timestamptz[]), CAST(:untils AS timestamptz[]), CAST(:expires AS timestamptz[]))
        AS v(id, reason, not_before, send_until, expires_at)
    WHERE o.message_id = v.id AND o.state = ANY(CAST(:states AS text[])) RETURNING o.message_id, o.expires_at
)
UPDATE message m SET expires_at = moved.expires_at FROM moved WHERE m.id = moved.message_id AND m.id = ANY(CAST(:ids AS uuid[])) AND m.expires_at <> moved.expires_at
""")
UNTIL = sa.text("""
UPDATE outbox o SET send_until = v.send_until FROM unnest(CAST(:ids AS uuid[]), CAST(:untils AS timestamptz[])) AS v(id, send_until)
WHERE o.message_id = v.id AND o.state = 'queued'
""")
# Taken here, deleted last: whoever changes an account has locked it first, and does not wait for a line that stands there already.
ASKED = sa.text("SELECT account_id FROM replan_waiting ORDER BY account_id LIMIT :batch FOR UPDATE SKIP LOCKED")
LOCK = sa.text("SELECT id FROM account WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE")
ANSWERED = sa.text("DELETE FROM replan_waiting WHERE account_id = ANY(CAST(:ids AS uuid[]))")
STATES = [State.HELD.value, State.QUEUED.value]
ALL_STATES = [*STATES, State.SENDING.value]


async def replan(
    session: AsyncSession, account_ids: Sequence[UUID], settings: Settings, *, catalogue: Catalogue | None = None, quiet: QuietHoursNow | None = None
) -> int:
    """Decide again what is held or queued for these accounts, which the caller has locked. How many messages were cancelled or moved; again it changes nothing.

    In the transaction of the change, behind it: what is read here is what holds from the commit on."""
    moment = clock()
    values = {"accounts": list(account_ids), "oldest": first_id_at(moment - WAITS_AT_MOST), "states": STATES}
    rows = (await session.execute(WAITING, values)).all()
    seen = {row.id for row in rows}
    going = [row for row in (await session.execute(ON_THE_WIRE, values | {"states": ALL_STATES})).all() if row.id not in seen]
    if not rows and not going:
        return 0
    catalogue, quiet = catalogue or Catalogue(), quiet or QuietHoursNow(settings.quiet)
    await catalogue.refresh(session)
    await quiet.refresh(session)
    cancelled: dict[str, list[UUID]] = {}
    held: list[tuple[Any, ...]] = []
    until: list[tuple[Any, ...]] = []
    for row in rows:
        rules, zone = catalogue.types.get(row.type), zone_of(row.timezone, settings.timezone)
        around = Around(moment, zone, quiet.of(row.timezone), read(row.chosen_json))
        reason = _refusal(rules, row, around)
        if reason is not None or rules is None:
            cancelled.setdefault(reason or "type_disabled", []).append(row.id)
        elif row.state == State.QUEUED.value or row.reason in FOR_HOURS:
            _hours(row, rules, around, settings.release_spread_seconds, held, until, cancelled)
    if going:
        await _keep_to(session, going, catalogue, quiet, settings)
    for reason, ids in cancelled.items():
        await close(session, ids, State.CANCELLED, reason, moment)
    if held:
        ids, reasons, begins, untils, expires = (list(column) for column in zip(*held, strict=True))
        await session.execute(HOLD, {"ids": ids, "reasons": reasons, "begins": begins, "untils": untils, "expires": expires, "states": STATES})
        await CHANGES.run(session, [(new_id(), row[0], moment, State.HELD.value, row[1], None) for row in held])
    if until:
        ids, untils = (list(column) for column in zip(*until, strict=True))
        await session.execute(UNTIL, {"ids": ids, "untils": untils})
    return sum(len(ids) for ids in cancelled.values()) + len(held) + len(until)


def _refusal(rules: TypeRules | None, row: Any, around: Around) -> str | None:
    """As planning has it, of a message that is made already: that it came too late is for its expiry to say."""
    if row.contact_gone:
        return "contact_removed"
    if row.type in NOT_CHOSEN:
        return None
    if rules is None or not rules.enabled:
        return "type_disabled"
    if row.status == "closed" and not rules.mandatory:
        return "account_closed"
    contact = Reached(row.contact_id, row.channel, row.address, "", suppressed=row.suppressed, dead=row.dead, verified=row.verified)
    return contact_refusal(rules, contact, around.chosen)


async def _keep_to(session: AsyncSession, rows: Sequence[Any], catalogue: Catalogue, quiet: QuietHoursNow, settings: Settings) -> None:
    """What is on the wire is on its last try where it is refused now, and goes no more today where its hours are over."""
    moment, ends = clock(), list[tuple[UUID, bool, datetime | None]]()
    for row in rows:
        rules = catalogue.types.get(row.type)
        around = Around(moment, zone_of(row.timezone, settings.timezone), quiet.of(row.timezone), read(row.chosen_json))
        refused = rules is None or _refusal(rules, row, around) is not None
        ends.append((row.id, refused, open_until(moment, around.opening(rules, row.channel, row.contact_id)) if rules is not None else None))
    ids, refusals, untils = (list(column) for column in zip(*ends, strict=True))
    await session.execute(KEEP_TO, {"ids": ids, "refused": refusals, "untils": untils, "now": moment})


def _hours(
    row: Any, rules: TypeRules, around: Around, spread: int, held: list[tuple[Any, ...]], until: list[tuple[Any, ...]], cancelled: dict[str, list[UUID]]
) -> None:
    """Where a message goes that is not refused: into `held` (with what it waits for, from when, until when, and its expiry), `until`, or `cancelled`."""
    opening = around.opening(rules, row.channel, row.contact_id)
    begins = next_open(around.now, opening)
    if begins is None:
        cancelled.setdefault("no_open_hours", []).append(row.id)
        return
    ends = open_until(begins, opening)
    if is_ours(row.type, row.source):
        ends = until_midnight(ends, begins, around.zone)
    if begins > around.now:
        waits = why_closed(around.now, opening)
        if not rules.urgent:
            begins += spread_over(row.id, begins, ends, timedelta(seconds=spread))
        if (row.state, row.reason, row.not_before, row.send_until) != (State.HELD.value, waits, begins, ends):
            held.append((row.id, waits, begins, ends, begins + rules.ttl))
    elif row.state == State.HELD.value:
        if row.not_before > around.now:  # open now: the next sweep lets it go
            held.append((row.id, row.reason, around.now, ends, around.now + rules.ttl))
    elif row.send_until != ends and (row.send_until is None or row.not_before <= around.now or (ends is not None and ends < row.send_until)):
        until.append((row.id, ends))


class Replanning:
    """The step of the sweeper for many accounts: those that a bulk change, an import, or the quiet hours of a zone have asked for."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings
        self._catalogue, self._quiet = Catalogue(), QuietHoursNow(settings.quiet)

    async def follow(self) -> int:
        """Take up to 500 accounts. How many there were; if the process dies, they were not taken."""

        async def work(session: AsyncSession) -> int:
            asked = list((await session.execute(ASKED, {"batch": BATCH})).scalars())
            if asked:
                await session.execute(LOCK, {"ids": asked})
                await replan(session, asked, self._settings, catalogue=self._catalogue, quiet=self._quiet)
                await session.execute(ANSWERED, {"ids": asked})
            return len(asked)

        return await self._database.again(work)
