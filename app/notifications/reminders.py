"""Reminders are true when they are planned, when they are released, and as long as they wait: what a payment has made untrue dies.

still_true       the data of now for reminders that are about to be planned or released, or that they are not true any more
balances_moved   what the balances of some accounts change: a threshold crossed, a spell ended, the reminders of it cancelled
recheck          what waits of some accounts, when something else about them has changed: charges, a threshold, their status
supersede        what waits and would say the same as a newer reminder, or less

Time makes reminders untrue as well: "3 days left" is wrong the next day. None goes out after the midnight that follows its words (`until_midnight`): it is
held then, and released anew.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.preferences import is_wanted, read
from app.accounts.window import day_ends
from app.catalogue.registry import Catalogue
from app.core.clock import now as clock
from app.core.config import Settings
from app.core.db import Database
from app.core.ids import first_id_at, new_id
from app.core.wakeups import PLAN, Wakeups
from app.forecasts.find import TYPES, Wanted, wanted_from
from app.forecasts.schedule import today_in
from app.forecasts.tell import SOURCE
from app.forecasts.truth import REMINDERS, RESTORED, Claim, as_of_now
from app.forecasts.watch import EPISODES_OF, Seen, Watched, concerns, in_spell, watch
from app.notifications.ending import close
from app.notifications.restored import tell_restored
from app.notifications.rows import CHANGES
from app.notifications.states import State

BATCH = 500
# A reminder that waits longer than this has expired by any sensible time to live.
WAITS_AT_MOST = timedelta(days=30)
# What a new reminder leaves nothing to say to.
SUPERSEDES = {
    TYPES["exhaustion"]: frozenset({TYPES["exhaustion"], TYPES["threshold"], RESTORED}),
    TYPES["threshold"]: frozenset({TYPES["threshold"], RESTORED}),
}

WAITING = sa.text("""
SELECT m.id, m.account_id, m.type FROM message m JOIN outbox o ON o.message_id = m.id
WHERE m.account_id = ANY(CAST(:accounts AS uuid[])) AND m.id >= :oldest AND m.type = ANY(CAST(:types AS text[])) AND m.resend_of IS NULL AND NOT m.test
""")
# Our own alone: what the billing says of itself is believed. `rewritten`: its words are not those of the event's data. What is just being released is
# waited for: it may go out with the figures of before.
OURS_WAITING = sa.text("""
SELECT m.id, m.account_id, m.type, o.state, o.resent, CAST(e.data AS text) AS data,
       EXISTS (SELECT FROM message_change c WHERE c.message_id = m.id AND c.state = 'queued') AS rewritten
FROM message m JOIN outbox o ON o.message_id = m.id JOIN event e ON e.id = m.event_id
WHERE m.account_id = ANY(CAST(:accounts AS uuid[])) AND m.id >= :oldest AND m.type = ANY(CAST(:types AS text[])) AND m.resend_of IS NULL
  AND e.source = :source AND o.state = ANY(CAST(:states AS text[])) ORDER BY m.id FOR UPDATE OF o
""")
# Release writes it anew.
WRITE_ANEW = sa.text("""
UPDATE outbox SET state = 'held', reason = 'outdated', not_before = greatest(not_before, :now)
WHERE message_id = ANY(CAST(:ids AS uuid[])) AND state = 'queued' RETURNING message_id
""")
# On the wire. It may be put back into the queue, and must not go again then.
LAST_TRY = sa.text("UPDATE outbox SET expires_at = LEAST(expires_at, :now) WHERE message_id = ANY(CAST(:ids AS uuid[])) AND state = 'sending'")
# Accounts that changed otherwise than by an event (PATCH, PUT, import), where that may matter. The account first, as whoever writes both does, and without
# waiting for it; what is read of it is read when it is ours, by another statement: this one may have seen what somebody was just about to change.
TAKE_MOVED = sa.text("""
SELECT a.id FROM (SELECT account_id FROM balance_moved) m
CROSS JOIN LATERAL (SELECT id FROM account WHERE id = m.account_id FOR NO KEY UPDATE SKIP LOCKED) a LIMIT :batch
""")
MOVED = sa.text(f"""
WITH moved AS (DELETE FROM balance_moved WHERE account_id = ANY(CAST(:ids AS uuid[])) RETURNING account_id, highest, highest_as_of)
SELECT a.id, a.status, a.balance, a.balance_as_of, a.credit_limit, a.warned_at AS threshold, a.warning_days, a.upcoming_days, a.timezone, {EPISODES_OF} AS episodes, m.highest, m.highest_as_of,
    (SELECT CAST(p.document AS text) FROM account_preference p WHERE p.account_id = a.id) AS chosen_json
FROM account a JOIN moved m ON m.account_id = a.id WHERE a.id = ANY(CAST(:ids AS uuid[])) ORDER BY a.id
""")
# The spells of locked accounts as they are now, and of when the newest balance is that somebody was told of in one of them that is open.
SPELLS = sa.text(f"""
SELECT a.id, {EPISODES_OF} AS episodes, (
    SELECT max(CAST(h.inputs ->> 'balance_as_of' AS timestamptz)) FROM forecast_episode e
    JOIN forecast_hit h ON h.account_id = e.account_id AND h.kind = e.kind AND h.episode = e.number WHERE e.account_id = a.id AND e.is_open
) AS told_of
FROM unnest(CAST(:ids AS uuid[])) AS a(id)
""")


@dataclass(slots=True)
class Moved:
    """A locked account (with its `episodes`), the balances that were told of it and of when they are, oldest first, and the last payment among them."""

    account: Any
    balances: list[tuple[datetime, Decimal]] = field(default_factory=list)
    paid: Decimal | None = None


def wanted_of(catalogue: Catalogue) -> Wanted:
    return wanted_from({code: rules.settings for code, rules in catalogue.types.items()})


def is_told(catalogue: Catalogue, code: str) -> bool:
    rules = catalogue.types.get(code)
    return rules is not None and rules.enabled


def is_warned(catalogue: Catalogue, account: Any) -> bool:
    """Whether this account is told when its money ends, as far as the operator and its own choices (`chosen_json`) go."""
    rules = catalogue.types.get(TYPES["exhaustion"])
    return rules is not None and rules.enabled and is_wanted(rules, read(account.chosen_json))


def is_ours(code: str, source: str | None) -> bool:
    """Whether an event is a reminder of our own: the billing's own ones are believed."""
    return code in REMINDERS and source == SOURCE


def may_wait(account: Any, catalogue: Catalogue) -> bool:
    """Whether this locked account may have a reminder waiting that depends on its balance, in a spell or after one."""
    return account.status == "active" and (in_spell(account.episodes) or (bool(account.episodes) and is_told(catalogue, RESTORED)))


def until_midnight(send_until: datetime | None, not_before: datetime, zone: ZoneInfo) -> datetime:
    """Until when a reminder's words hold that are written for the day of `not_before`."""
    ends = day_ends(not_before, zone)
    return ends if send_until is None else min(send_until, ends)


async def still_true(
    session: AsyncSession, reminders: Sequence[tuple[str, dict[str, Any], Any]], zone: str, catalogue: Catalogue
) -> list[dict[str, Any] | None]:
    """For each (type, data, account) its data with the figures of now; nothing where it is not true any more."""
    moment = clock()
    claims = [Claim(code, data, account, today_of(account, zone, moment)) for code, data, account in reminders]
    return await as_of_now(session, claims, wanted_of(catalogue))


def today_of(account: Any, zone: str, moment: datetime) -> date:
    return today_in(account.timezone, zone, moment).date()


async def balances_moved(session: AsyncSession, told: Collection[Moved], zone: str, catalogue: Catalogue) -> Seen:
    """Thresholds that were crossed are told; spells that have ended are closed, and their reminders cancelled; other figures are corrected."""
    moment, wanted = clock(), wanted_of(catalogue)
    moved = {item.account.id: item for item in told if concerns(item.account, item.account.episodes)}
    fresh = [item for item in moved.values() if item.account.balance_as_of is None or item.account.balance_as_of >= wanted.fresh(moment)]
    watched = await _watched(session, fresh, zone, moment)
    seen = await watch(session, watched, wanted, moment, warns=lambda account: is_warned(catalogue, account)) if watched else Seen()
    await cancel_resolved(session, seen.resolved, moment)
    if seen.ended and is_told(catalogue, RESTORED):
        lifted = [(moved[account_id].account, ended, moved[account_id].paid) for account_id, ended in seen.ended.items()]
        seen.told += await tell_restored(session, lifted, moment)
    await recheck(session, [item.account for item in told if may_wait(item.account, catalogue)], zone, catalogue, moment)
    return seen


async def _watched(session: AsyncSession, moved: Sequence[Moved], zone: str, moment: datetime) -> list[Watched]:
    """With their spells as they are, and without the balances that came late: what lifted an account before a fall that was told has ended no spell."""
    ids = [item.account.id for item in moved if in_spell(item.account.episodes)]
    spells = {row.id: row for row in (await session.execute(SPELLS, {"ids": ids})).all()} if ids else {}
    watched = []
    for item in moved:
        account, known = item.account, spells.get(item.account.id)
        told_of, episodes = (known.told_of, known.episodes) if known is not None else (None, account.episodes)
        balances = [balance for at, balance in item.balances if told_of is None or at >= told_of]
        watched.append(Watched(account, [*balances, account.balance], episodes, today_of(account, zone, moment)))
    return watched


async def cancel_resolved(session: AsyncSession, resolved: dict[UUID, list[str]], moment: datetime) -> int:
    """End what is held or queued for these accounts and types."""
    if not resolved:
        return 0
    types = sorted({code for codes in resolved.values() for code in codes})
    rows = (await session.execute(WAITING, {"accounts": list(resolved), "types": types, "oldest": first_id_at(moment - WAITS_AT_MOST)})).all()
    ids = [row.id for row in rows if row.type in resolved[row.account_id]]
    cancelled = len(await close(session, ids, State.CANCELLED, "resolved", moment)) if ids else 0
    if cancelled < len(ids):
        await session.execute(LAST_TRY, {"ids": ids, "now": moment})
    return cancelled


async def recheck(session: AsyncSession, accounts: Sequence[Any], zone: str, catalogue: Catalogue, moment: datetime) -> None:
    """What waits of these locked accounts is cancelled where it is not true any more, and written anew where its figures are others. Held ones are
    written anew when they are released, in any case. A second try after a silence goes in the same words, or not at all."""
    rows = await _waiting(session, [account.id for account in accounts], REMINDERS, moment)
    if not rows:
        return
    by_id = {account.id: account for account in accounts}
    said = [orjson.loads(row.data) for row in rows]
    now_true = await still_true(session, [(row.type, data, by_id[row.account_id]) for row, data in zip(rows, said, strict=True)], zone, catalogue)
    untrue, others = [], []
    for row, data, fresh in zip(rows, said, now_true, strict=True):
        if fresh is None or (row.resent and fresh != data):
            untrue.append(row.id)
        elif row.state == State.QUEUED.value and not row.resent and (row.rewritten or fresh != data):
            others.append(row.id)
    if untrue:
        await close(session, untrue, State.CANCELLED, "resolved", moment)
    if others:
        held = (await session.execute(WRITE_ANEW, {"ids": others, "now": moment})).scalars().all()
        await CHANGES.run(session, [(new_id(), message_id, moment, State.HELD.value, "outdated", None) for message_id in held])


async def supersede(session: AsyncSession, told: Iterable[tuple[UUID, str]], moment: datetime) -> None:
    """For (account, type) of reminders that are being planned: what waits of the same, or of something less serious, is not needed any more."""
    wanted: dict[UUID, frozenset[str]] = {}
    for account_id, code in told:
        if code in SUPERSEDES:
            wanted[account_id] = wanted.get(account_id, frozenset()) | SUPERSEDES[code]
    rows = await _waiting(session, list(wanted), SUPERSEDES[TYPES["exhaustion"]], moment)
    if ids := [row.id for row in rows if row.type in wanted[row.account_id]]:
        await close(session, ids, State.CANCELLED, "duplicate", moment)


def without_doubles(planned: Sequence[tuple[UUID, UUID, str]]) -> set[UUID]:
    """Of reminders (event, account, type) that are planned together, oldest first, those that a later or a more serious one leaves nothing to say."""
    doubles, spoken, newest_first = set[UUID](), dict[UUID, frozenset[str]](), list(reversed(planned))
    for event_id, account_id, code in sorted(newest_first, key=lambda one: one[2] != TYPES["exhaustion"]):
        if code in spoken.get(account_id, ()):
            doubles.add(event_id)
        elif code in SUPERSEDES:
            spoken[account_id] = spoken.get(account_id, frozenset()) | SUPERSEDES[code]
    return doubles


async def _waiting(session: AsyncSession, accounts: Sequence[UUID], types: Iterable[str], moment: datetime) -> Sequence[Any]:
    if not accounts:
        return []
    values = {
        "accounts": list(accounts),
        "types": sorted(types),
        "oldest": first_id_at(moment - WAITS_AT_MOST),
        "source": SOURCE,
        "states": [State.HELD.value, State.QUEUED.value],
    }
    return (await session.execute(OURS_WAITING, values)).all()


class Reminders:
    """The step of the sweeper that follows accounts which have changed without an event."""

    def __init__(self, database: Database, settings: Settings, wakeups: Wakeups) -> None:
        self._database, self._settings, self._wakeups = database, settings, wakeups
        self._catalogue = Catalogue()

    async def follow(self) -> int:
        """Take up to 500 accounts. How many there were; twice over changes nothing."""

        async def work(session: AsyncSession) -> tuple[int, int]:
            ids = list((await session.execute(TAKE_MOVED, {"batch": BATCH})).scalars())
            if not ids:
                return 0, 0
            rows, moment = (await session.execute(MOVED, {"ids": ids})).all(), clock()
            await self._catalogue.refresh(session)
            seen = await balances_moved(
                session, [Moved(row, [(row.highest_as_of or moment, row.highest)]) for row in rows], self._settings.timezone, self._catalogue
            )
            rest = [row for row in rows if not may_wait(row, self._catalogue)]
            await recheck(session, rest, self._settings.timezone, self._catalogue, moment)
            return len(rows), seen.told

        taken, told = await self._database.again(work)
        if told:
            self._wakeups.wake(PLAN)
        return taken
