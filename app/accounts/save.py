"""Accounts as the billing sends them, brought into the database: one by PUT, thousands by import, on the same road.

What is stored is read and compared first; only what differs is locked, read again and written. An account remembers the digest of the import line that
would change nothing if it came again, so that most lines of a nightly snapshot are neither read nor compared: it writes nothing and stands in nobody's way.
Another digest is of what the line said of contacts and charges: a line with a new balance alone has its other half passed over.
Whoever changes what such a line speaks of takes the digest away. A newer balance alone does not: that the line's own is older is decided once for all.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel

from app.accounts.create import create
from app.accounts.models import Account, Contact, PlannedCharge
from app.accounts.snapshots import Address, Charge, Snapshot
from app.accounts.writes import BREATH, WRITTEN, Writes, charge_row, write
from app.core.clock import now
from app.core.config import Settings
from app.core.ids import new_id

COLUMNS = (*WRITTEN, "number")
# What decides whether somebody has to be reminded, and which day it is for him.
MONEY = frozenset({"balance", "credit_limit", "threshold", "status", "charges", "timezone"})

# What decides whether, where and at which hours what waits already may go.
REACH = frozenset({"contacts", "timezone", "status"})

Outcome = Literal["created", "updated", "unchanged"]

_account, _contact, _charge = (SQLModel.metadata.tables[table.__tablename__] for table in (Account, Contact, PlannedCharge))


def _given(kind: Any) -> Any:
    """`= ANY(array)`: one parameter, however many values."""
    return sa.any_(sa.cast(sa.bindparam("given"), sa.ARRAY(kind)))


ACCOUNTS = sa.select(*(_account.c[name] for name in COLUMNS)).where(_account.c.number == _given(sa.Text))
# FOR NO KEY UPDATE in the order of ids: as intake and planning do, so that nobody waits in a circle.
ACCOUNTS_LOCKED = ACCOUNTS.order_by(_account.c.id).with_for_update(key_share=True)
CONTACTS, CHARGES = (sa.select(*(c for c in table.c if c.computed is None)).where(table.c.account_id == _given(sa.Uuid)) for table in (_contact, _charge))

# Of most accounts nobody has been told anything, and nothing is to be told: as `watch.concerns` has it; or charges to come were announced, and those
# words may be waiting still.
# Of several changes before somebody looks the highest balance is kept: a lift counts also where a fall has followed it.
MOVED = sa.text("""
INSERT INTO balance_moved AS b (account_id, highest, highest_as_of)
SELECT a.id, a.balance, a.balance_as_of FROM account a WHERE a.id = ANY(CAST(:ids AS uuid[])) AND (
    a.balance <= a.warned_at OR EXISTS (SELECT FROM forecast_episode e WHERE e.account_id = a.id AND e.is_open) OR EXISTS (
        SELECT FROM forecast_hit h WHERE h.account_id = a.id AND h.kind = 'upcoming' AND h.episode = 0 AND h.mark >= CAST(current_date - 1 AS text)
    )
) ON CONFLICT (account_id) DO UPDATE SET highest = excluded.highest, highest_as_of = excluded.highest_as_of WHERE excluded.highest > b.highest
""")
# The accounts are locked: see `preference_store.ask_replan`, which is built upon this module.
REPLAN = sa.text("INSERT INTO replan_waiting (account_id) SELECT unnest(CAST(:ids AS uuid[])) ON CONFLICT DO NOTHING")


@dataclass(slots=True)
class Saved:
    """What became of it. `changes` is field -> [before, after], for the audit."""

    id: UUID
    outcome: Outcome
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Stored:
    values: dict[str, Any]
    contacts: dict[tuple[str, str], sa.Row[Any]] = field(default_factory=dict)
    charges: dict[str, sa.Row[Any]] = field(default_factory=dict)


async def save(session: AsyncSession, given: Iterable[Snapshot], settings: Settings) -> dict[str, Saved]:
    """Bring these accounts (each number once) up to date; by number, what became of each.

    Locks the accounts that change. Repeating it changes nothing; two at once of a new number make one account.
    """
    wanted = {one.number: one for one in sorted(given, key=lambda one: one.number)}
    saved = await _unchanged(session, [one for one in wanted.values() if one.digest is None])
    saved |= await change(session, [one for number, one in wanted.items() if number not in saved])
    missing = [one.whole() if one.whole else one for number, one in wanted.items() if number not in saved]
    made = await create(session, missing, settings)
    saved |= {number: Saved(id_, "created", _all_new(wanted[number])) for number, id_ in made.items()}
    # Somebody else has made them this very moment.
    taken = [one for one in missing if one.number not in made]
    return saved | await save(session, taken, settings) if taken else saved


async def change(session: AsyncSession, given: Sequence[Snapshot]) -> dict[str, Saved]:
    """The same for accounts that there are: they are locked, and others left out of the answer."""
    wanted = {one.number: one for one in given}
    stored, writes, saved = await _locked(session, wanted), Writes(), dict[str, Saved]()
    for turn, (number, known) in enumerate(stored.items(), 1):
        changes = _compare(known, wanted[number], writes)
        saved[number] = Saved(known.values["id"], "updated" if changes else "unchanged", changes)
        if turn % BREATH == 0:
            await asyncio.sleep(0)
    await write(session, writes)
    if moved := [one.id for one in saved.values() if not MONEY.isdisjoint(one.changes)]:
        await session.execute(MOVED, {"ids": moved})
    if reached := sorted(one.id for one in saved.values() if not REACH.isdisjoint(one.changes)):
        await session.execute(REPLAN, {"ids": reached})
    return saved


async def _unchanged(session: AsyncSession, given: Sequence[Snapshot]) -> dict[str, Saved]:
    """Those of them that say nothing new. They are not even locked."""
    stored, wanted, found = await _read(session, given), {one.number: one for one in given}, dict[str, Saved]()
    for turn, (number, known) in enumerate(stored.items(), 1):
        one = wanted[number]
        if not _is_outdated(known, one) and not _compare(known, one, Writes()):
            found[number] = Saved(known.values["id"], "unchanged")
        if turn % BREATH == 0:
            await asyncio.sleep(0)
    return found


async def _locked(session: AsyncSession, wanted: dict[str, Snapshot]) -> dict[str, _Stored]:
    """What is stored of them, locked. Where contacts and charges were passed over and are others by now, `wanted` gets the whole snapshot."""
    stored = await _read(session, list(wanted.values()), lock=True)
    outdated = [one.whole() for number, one in wanted.items() if one.whole and number in stored and _is_outdated(stored[number], one)]
    if outdated:
        wanted |= {one.number: one for one in outdated}
        stored |= await _read(session, outdated, lock=True)
    return stored


def _is_outdated(stored: _Stored, given: Snapshot) -> bool:
    """Whether contacts and charges were passed over that are others by now."""
    return given.whole is not None and stored.values["imported_lists"] != given.lists


async def _read(session: AsyncSession, given: Sequence[Snapshot], *, lock: bool = False) -> dict[str, _Stored]:
    """What is stored under these numbers, with as much beside the accounts as is to be compared."""
    if not given:
        return {}
    rows = await session.execute(ACCOUNTS_LOCKED if lock else ACCOUNTS, {"given": [one.number for one in given]})
    found = {row.number: _Stored(dict(row._mapping)) for row in rows}  # noqa: SLF001 - SQLAlchemy's documented name
    by_id = {known.values["id"]: known for known in found.values()}
    for query, wants in ((CONTACTS, "contacts"), (CHARGES, "charges")):
        ids = [found[one.number].values["id"] for one in given if getattr(one, wants) is not None and one.number in found]
        if not ids:
            continue
        for row in await session.execute(query, {"given": ids}):
            known = by_id[row.account_id]
            if wants == "contacts":
                known.contacts[row.channel, row.address] = row
            else:
                known.charges[row.external_id] = row
    return found


def _compare(stored: _Stored, given: Snapshot, writes: Writes) -> dict[str, Any]:
    """Add what differs to the writes. Returns field -> [before, after], empty when nothing does."""
    before, changes = stored.values, {}
    for name, value in given.fields.items():
        if before[name] != value or (name == "attributes" and not _same_kinds(before[name], value)):
            changes[name] = [before[name], value]
    changes |= _compare_balance(before, given)
    if given.contacts is not None and _compare_contacts(stored, given.contacts, writes):
        changes["contacts"] = [list(stored.contacts), given.contacts]
    if given.charges is not None and _compare_charges(stored, given.charges, writes):
        changes["charges"] = [sorted(stored.charges), sorted(charge.id for charge in given.charges)]
    lists = before["imported_lists"]
    if given.lists is not None:
        lists = given.lists
    elif "contacts" in changes or "charges" in changes:
        lists = None
    if changes:
        after = {name: after for name, (_, after) in changes.items() if name in before}
        writes.accounts.append(before | after | {"imported": given.digest, "imported_lists": lists})
    elif given.digest is not None and given.digest != before["imported"]:
        writes.learnt.append((before["id"], given.digest, lists))
    return changes


def _all_new(given: Snapshot) -> dict[str, Any]:
    if given.digest is not None:
        return {}  # a line of an import: it is audited by its counts
    changes: dict[str, Any] = {name: [None, value] for name, value in given.fields.items()}
    return changes | ({"contacts": [None, given.contacts]} if given.contacts else {})


def _same_kinds(a: dict[str, Any], b: dict[str, Any]) -> bool:
    # True == 1 for Python alone.
    return all(isinstance(a[key], bool) == isinstance(b[key], bool) for key in a)


def _compare_balance(before: dict[str, Any], given: Snapshot) -> dict[str, Any]:
    """A balance moves forward in time only: a nightly snapshot, made at midnight and read at three, must not undo a payment of half past two."""
    if given.balance is None:
        return {}
    as_of = given.balance_as_of
    if as_of is None:
        if before["balance"] == given.balance and before["balance_as_of"] is not None:
            return {}  # as it is: the time of its repetition is nothing to be written
        as_of = now()
    if before["balance_as_of"] is not None and before["balance_as_of"] > as_of:
        return {}
    after = {"balance": given.balance, "balance_as_of": as_of}
    return {name: [before[name], value] for name, value in after.items() if before[name] != value}


def _compare_contacts(stored: _Stored, given: list[Address], writes: Writes) -> bool:
    account_id, differs = stored.values["id"], False
    for channel, address, label in given:
        known = stored.contacts.get((channel, address))
        if known is None or (known.origin == "billing" and known.label != label):
            writes.contacts_put.append((new_id(), account_id, channel, address, label))
            differs = True
        elif known.origin == "subscriber" and known.verified_at is None:
            # The subscriber's own stays the subscriber's; but an address that the billing knows as well needs no other proof.
            writes.contacts_vouched.append(known.id)
            differs = True
    listed = {(channel, address) for channel, address, _ in given}
    gone = [known.id for key, known in stored.contacts.items() if known.origin == "billing" and key not in listed]
    writes.contacts_gone += gone
    return differs or bool(gone)


def _compare_charges(stored: _Stored, given: list[Charge], writes: Writes) -> bool:
    account_id, differs = stored.values["id"], False
    for charge in given:
        known = stored.charges.get(charge.id)
        if known is None or charge[1:] != tuple(known)[3:]:
            writes.charges_put.append(charge_row(account_id, charge))
            differs = True
    listed = {charge.id for charge in given}
    gone = [known.id for key, known in stored.charges.items() if key not in listed]
    writes.charges_gone += gone
    return differs or bool(gone)
