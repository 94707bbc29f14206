"""Preferences that come with the lines of an import. Few lines have any, and they take their time: the others do not pass here.

What a line says replaces the choices under the keys that it gives. It is taken when it is news: the same, said again every night, does not undo what the
subscriber has chosen since. A line whose preferences cannot be taken is not taken at all.
"""

import asyncio
from collections.abc import Mapping
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.preference_checks import Known, check, with_ids
from app.accounts.preference_shapes import check_size, replaced
from app.accounts.preference_store import Change, Stored, ask_replan, contacts_of, stored, write
from app.accounts.snapshots import Snapshot
from app.accounts.writes import BREATH
from app.catalogue.registry import Catalogue
from app.core.clock import now
from app.core.errors import Invalid

BY, VIA = "billing", "import"

LOCK = sa.text("SELECT id, credit_limit FROM account WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE")


class PreferencesRefused(Exception):
    """Some of these cannot be taken: by the accounts' numbers, why not."""

    def __init__(self, faults: Mapping[str, Invalid]) -> None:
        super().__init__(f"{len(faults)} refused")
        self.faults = faults


async def take_preferences(session: AsyncSession, said: Mapping[UUID, Snapshot], region: str) -> set[UUID]:
    """The preferences of these accounts, which are stored already. Those that differ now; PreferencesRefused for all that cannot be so, and nothing is done."""
    ids, moment = list(said), now()
    accounts = (await session.execute(LOCK, {"ids": ids})).all()
    has, contacts, catalogue = await stored(session, ids), await contacts_of(session, ids), Catalogue()
    await catalogue.refresh(session)
    changes, faults = [], dict[str, Invalid]()
    for turn, account in enumerate(accounts):
        if turn % BREATH == 0:
            await asyncio.sleep(0)  # the loop has other requests to serve
        given, before = said[account.id].preferences, has.get(account.id, Stored())
        if given is None or given.digest == before.imported:
            continue
        after = replaced(before.leaves, with_ids(given.leaves, contacts[account.id], region), given.sections)
        try:
            check_size(after)
            check(before.leaves, after, Known(catalogue.types, moment, contacts[account.id], account.credit_limit), ("preferences",))
        except Invalid as why:
            faults[said[account.id].number] = why
        changes.append(Change(account.id, before.leaves, after, contacts[account.id], given.digest))
    if faults:
        raise PreferencesRefused(faults)
    await write(session, changes, catalogue.types, by=BY, via=VIA, moment=moment)
    changed = {change.account_id for change in changes if change.differs}
    await ask_replan(session, list(changed))
    return changed
