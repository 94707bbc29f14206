"""Reminders are true when they are planned, when they are released, and as long as they wait: what a payment has made untrue dies.

still_true       the data of now for reminders that are about to be planned or released, or that they are not true any more
balances_moved   what the balances of some accounts change: a threshold crossed, an episode ended, the reminders of it cancelled
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalogue.registry import Catalogue
from app.core.clock import now as clock
from app.core.config import Settings
from app.core.db import Database
from app.core.ids import first_id_at
from app.core.wakeups import PLAN, Wakeups
from app.forecasts.find import Wanted, wanted_from
from app.forecasts.schedule import today_in
from app.forecasts.tell import SOURCE
from app.forecasts.truth import REMINDERS, Claim, as_of_now
from app.forecasts.watch import EPISODES_OF, Seen, Watched, concerns, watch
from app.notifications.ending import close
from app.notifications.states import State

BATCH = 500
# A reminder that waits longer than this has expired by any sensible time to live.
WAITS_AT_MOST = timedelta(days=30)

WAITING = sa.text("""
SELECT m.id, m.account_id, m.type FROM message m JOIN outbox o ON o.message_id = m.id
WHERE m.account_id = ANY(CAST(:accounts AS uuid[])) AND m.id >= :oldest AND m.type = ANY(CAST(:types AS text[])) AND m.resend_of IS NULL
""")
# Balances that changed otherwise than by an event (PATCH, PUT, import), where that may matter.
MOVED = sa.text(f"""
WITH moved AS (
    DELETE FROM balance_moved WHERE account_id = ANY(ARRAY(SELECT account_id FROM balance_moved LIMIT :batch FOR UPDATE SKIP LOCKED)) RETURNING account_id
)
SELECT a.id, a.status, a.balance, a.balance_as_of, a.credit_limit, a.threshold, a.timezone, {EPISODES_OF} AS episodes
FROM account a WHERE a.id = ANY(ARRAY(SELECT account_id FROM moved)) ORDER BY a.id FOR NO KEY UPDATE OF a
""")


def wanted_of(catalogue: Catalogue) -> Wanted:
    return wanted_from({code: rules.settings for code, rules in catalogue.types.items()})


def is_ours(code: str, source: str | None) -> bool:
    """Whether an event is a reminder of our own: the billing's own ones are believed."""
    return code in REMINDERS and source == SOURCE


async def still_true(
    session: AsyncSession, reminders: Sequence[tuple[str, dict[str, Any], Any]], zone: str, catalogue: Catalogue
) -> list[dict[str, Any] | None]:
    """For each (type, data, account) its data with the figures of now; nothing where it is not true any more."""
    moment = clock()
    claims = [Claim(code, data, account, today_of(account, zone, moment)) for code, data, account in reminders]
    return await as_of_now(session, claims, wanted_of(catalogue))


def today_of(account: Any, zone: str, moment: datetime) -> date:
    return today_in(account.timezone, zone, moment).date()


async def balances_moved(session: AsyncSession, told: Sequence[tuple[Any, list[Decimal]]], zone: str, catalogue: Catalogue) -> Seen:
    """For locked accounts (with their `episodes`) and the balances that were told of them, oldest first."""
    moment = clock()
    watched = [
        Watched(account, [*balances, account.balance], account.episodes, today_of(account, zone, moment))
        for account, balances in told
        if concerns(account, account.episodes)
    ]
    if not watched:
        return Seen()
    seen = await watch(session, watched, wanted_of(catalogue), moment)
    await cancel_resolved(session, seen.resolved, moment)
    return seen


async def cancel_resolved(session: AsyncSession, resolved: dict[UUID, list[str]], moment: datetime) -> int:
    """End what is held or queued for these accounts and types."""
    if not resolved:
        return 0
    values = {
        "accounts": list(resolved),
        "types": sorted({code for codes in resolved.values() for code in codes}),
        "oldest": first_id_at(moment - WAITS_AT_MOST),
    }
    rows = (await session.execute(WAITING, values)).all()
    ids = [row.id for row in rows if row.type in resolved[row.account_id]]
    return len(await close(session, ids, State.CANCELLED, "resolved", moment)) if ids else 0


class Reminders:
    """The step of the sweeper that follows balances which no event has told."""

    def __init__(self, database: Database, settings: Settings, wakeups: Wakeups) -> None:
        self._database, self._settings, self._wakeups = database, settings, wakeups
        self._catalogue = Catalogue()

    async def follow(self) -> int:
        """Take up to 500 accounts. How many there were; twice over changes nothing."""

        async def work(session: AsyncSession) -> tuple[int, int]:
            rows = (await session.execute(MOVED, {"batch": BATCH})).all()
            if not rows:
                return 0, 0
            await self._catalogue.refresh(session)
            seen = await balances_moved(session, [(row, []) for row in rows], self._settings.timezone, self._catalogue)
            return len(rows), seen.told

        taken, told = await self._database.again(work)
        if told:
            self._wakeups.wake(PLAN)
        return taken
