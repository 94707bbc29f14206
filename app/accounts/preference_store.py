"""Preferences as they are stored: the document, what scans ask for beside the balance, and the consents, in one go.

    stored           what these accounts have chosen
    write            other choices: the document, the account's own threshold and days, a consent for each switch that was changed
    switch           one choice alone (a link, an operator)
    forget_contact   the choices for a contact that is gone

Whoever writes has locked the account (FOR NO KEY UPDATE), so two changes come one after the other, and none between a planner's look and its commit. What
waits for the account has then to be decided again: `notifications.replan` in the same transaction, or `ask_replan` for many, which the sweep follows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.consents import ADD, Act, Switch, switch_row
from app.accounts.preference_checks import EXHAUSTING, UPCOMING, KnownContact
from app.accounts.preference_shapes import Leaves, differing, document_of, leaves_of, threshold_of, without_contact
from app.accounts.save import MOVED
from app.catalogue.registry import Catalogue, TypeRules
from app.core.clock import now as clock
from app.core.db import BulkInsert, Executor

STORED = sa.text(
    "SELECT account_id, revision, CAST(document AS text) AS document, imported FROM account_preference WHERE account_id = ANY(CAST(:ids AS uuid[]))"
)
CONTACTS = sa.text("SELECT id, account_id, channel, address FROM contact WHERE account_id = ANY(CAST(:ids AS uuid[])) ORDER BY id")
LOCK = sa.text("SELECT id FROM account WHERE id = :id AND status <> 'erased' FOR NO KEY UPDATE")
PUT = BulkInsert(
    "account_preference",
    conflict="""ON CONFLICT (account_id) DO UPDATE SET revision = account_preference.revision + 1, document = excluded.document,
        updated_at = excluded.updated_at, updated_by = excluded.updated_by, imported = coalesce(excluded.imported, account_preference.imported)""",
    account_id="uuid",
    revision="int",
    document="jsonb",
    updated_at="timestamptz",
    updated_by="text",
    imported="bigint",
)
# An array of arrays would be a matrix: the days of each account go as a text.
BESIDE = sa.text("""
UPDATE account a SET own_threshold = v.threshold, warning_days = CAST(v.warning AS smallint[]), upcoming_days = v.upcoming
FROM unnest(CAST(:ids AS uuid[]), CAST(:thresholds AS numeric[]), CAST(:warnings AS text[]), CAST(:upcomings AS smallint[])) AS v(id, threshold, warning, upcoming)
WHERE a.id = v.id
""")
# The caller has locked the accounts, so a sweep that has such a line in hand waits for him, and sees what he has changed.
ASK_REPLAN = sa.text("INSERT INTO replan_waiting (account_id) SELECT unnest(CAST(:ids AS uuid[])) ON CONFLICT DO NOTHING")
# Quiet hours hold SMS alone; the zone '' is every one that has no hours of its own. Nobody has locked these accounts: a line that a sweep has in hand is
# waited for, and put there again, lest it be answered with the hours of before. In the order of ids, as everybody puts them there.
ASK_REPLAN_OF_ZONE = sa.text("""
INSERT INTO replan_waiting (account_id)
SELECT DISTINCT m.account_id FROM outbox o JOIN message m ON m.id = o.message_id JOIN account a ON a.id = m.account_id
WHERE o.channel = 'sms' AND o.state = ANY(CAST(:states AS text[]))
  AND (a.timezone = :zone OR (CAST(:zone AS text) = '' AND NOT EXISTS (SELECT FROM quiet_hours q WHERE q.zone = a.timezone)))
ORDER BY m.account_id
ON CONFLICT (account_id) DO UPDATE SET account_id = excluded.account_id
""")
WAITING = ["held", "queued"]


@dataclass(frozen=True, slots=True)
class Stored:
    """What an account has chosen; revision 0: nothing yet."""

    revision: int = 0
    leaves: Leaves = field(default_factory=dict)
    imported: int | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """The choices of a locked account before and after."""

    account_id: UUID
    before: Leaves
    after: Leaves
    contacts: Sequence[KnownContact] = ()
    imported: int | None = None

    @property
    def differs(self) -> bool:
        return self.before != self.after


async def stored(session: Executor, ids: Sequence[UUID]) -> dict[UUID, Stored]:
    """By account; none for those that have chosen nothing."""
    rows = (await session.execute(STORED, {"ids": list(ids)})).all()
    return {row.account_id: Stored(row.revision, leaves_of(orjson.loads(row.document)), row.imported) for row in rows}


async def contacts_of(session: Executor, ids: Sequence[UUID]) -> dict[UUID, list[KnownContact]]:
    found: dict[UUID, list[KnownContact]] = {account_id: [] for account_id in ids}
    for row in (await session.execute(CONTACTS, {"ids": list(ids)})).all():
        found[row.account_id].append(KnownContact(row.id, row.channel, row.address))
    return found


async def write(session: Executor, changes: Sequence[Change], types: Mapping[str, TypeRules], *, by: str, via: str, moment: datetime) -> int:
    """Store those that differ, or that an import has said. How many differed. Five statements at most, however many."""
    written = [change for change in changes if change.differs or change.imported is not None]
    await PUT.run(session, [(change.account_id, 1, orjson.dumps(document_of(change.after)).decode(), moment, by, change.imported) for change in written])
    if beside := [change for change in written if _beside(change.before) != _beside(change.after)]:
        ids = [change.account_id for change in beside]
        thresholds, warnings, upcomings = (list(column) for column in zip(*(_beside(change.after) for change in beside), strict=True))
        await session.execute(BESIDE, {"ids": ids, "thresholds": thresholds, "warnings": warnings, "upcomings": upcomings})
        await session.execute(MOVED, {"ids": ids})
    await ADD.run(session, [switch_row(change.account_id, one, via=via, by=by, moment=moment) for change in written for one in switches(change, types)])
    return sum(change.differs for change in written)


def _beside(leaves: Leaves) -> tuple[Any, str | None, int | None]:
    days = leaves.get(("types", EXHAUSTING, "days_before"))
    return threshold_of(leaves), "{" + ",".join(map(str, days)) + "}" if days else None, leaves.get(("types", UPCOMING, "days_before"))


def switches(change: Change, types: Mapping[str, TypeRules]) -> list[Switch]:
    """What was allowed and refused by a change. A choice taken back counts as what it leaves: the operator's default."""
    contacts = {str(contact.id): contact for contact in change.contacts}
    found = [_switch(place, value, types, contacts) for place, (_, value) in differing(change.before, change.after).items()]
    return [one for one in found if one is not None]


def _switch(place: tuple[str, ...], value: Any, types: Mapping[str, TypeRules], contacts: Mapping[str, KnownContact]) -> Switch | None:
    """The consent that a choice is; nothing for one that says how and when."""
    match place:
        case ("types", code, "enabled"):
            return Switch(_act(value, default=not _is_opt_in(types, code)), code, detail=_detail(value))
        case ("types", code, "channels", channel):
            return Switch(_act(value, default=_is_default(types, code, channel)), code, channel, detail=_detail(value))
        case ("contacts", key, "enabled") if key in contacts:
            return Switch(_act(value, default=True), None, contacts[key].channel, contacts[key].address, _detail(value))
        case ("contacts", key, "types", code) if key in contacts:
            contact = contacts[key]
            default = _is_default(types, code, contact.channel) and not _is_opt_in(types, code)
            return Switch(_act(value, default=default), code, contact.channel, contact.address, _detail(value))
    return None


def _act(value: Any, *, default: bool) -> Act:
    return "allowed" if (default if value is None else value) else "refused"


def _detail(value: Any) -> str:
    return "left to the operator's default" if value is None else ""


def _is_opt_in(types: Mapping[str, TypeRules], code: str) -> bool:
    return code in types and types[code].options.opt_in


def _is_default(types: Mapping[str, TypeRules], code: str, channel: str) -> bool:
    return code not in types or channel in types[code].default_channels


async def switch(
    session: AsyncSession,
    account_id: UUID,
    place: tuple[str, ...],
    value: bool | None,
    *,
    by: str,
    via: str,
    moment: datetime | None = None,
) -> bool:
    """One choice of an account, e.g. ("contacts", "<id>", "types", "payment.received") to False. Whether that changed anything.

    Locks the account. Nothing is checked: whoever calls knows that the type is not mandatory, and that the contact is the account's."""
    if (await session.execute(LOCK, {"id": account_id})).first() is None:
        return False
    before = (await stored(session, [account_id])).get(account_id, Stored()).leaves
    after = {other: said for other, said in before.items() if other != place} | ({} if value is None else {place: value})
    contacts, catalogue = await contacts_of(session, [account_id]), Catalogue()
    await catalogue.refresh(session)
    change = Change(account_id, before, after, contacts[account_id])
    return bool(await write(session, [change], catalogue.types, by=by, via=via, moment=moment or clock()))


async def forget_contact(session: Executor, account_id: UUID, contact_id: UUID, *, by: str, moment: datetime | None = None) -> bool:
    """The account's choices without those for this contact, which is going: that is no consent and no refusal. The caller has locked the account."""
    before = (await stored(session, [account_id])).get(account_id, Stored()).leaves
    change = Change(account_id, before, without_contact(before, contact_id))
    return bool(await write(session, [change], {}, by=by, via="", moment=moment or clock()))


async def ask_replan(session: Executor, ids: Sequence[UUID]) -> None:
    """What waits for these locked accounts is to be decided again, by the sweep."""
    if ids:
        await session.execute(ASK_REPLAN, {"ids": sorted(ids)})


async def ask_replan_of_zone(session: Executor, zone: str) -> None:
    """The same for all accounts of a zone for which SMS wait; '': of every zone that has no quiet hours of its own."""
    await session.execute(ASK_REPLAN_OF_ZONE, {"zone": zone, "states": WAITING})
