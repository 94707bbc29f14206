"""Accounts as the billing sends them, brought into the database: one by PUT, thousands by import, on the same road.

What is stored is read and compared first; only what differs is locked, read again and written. A nightly import of accounts that have not changed
writes nothing and stands in nobody's way.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel

from app.accounts.models import Account, Contact, PlannedCharge
from app.accounts.shapes import ChargeIn
from app.accounts.snapshots import FIELDS, Address, Snapshot
from app.core.clock import now
from app.core.config import Settings
from app.core.db import BulkInsert
from app.core.ids import new_id

BREATH = 500  # accounts compared in one go: the loop has other requests to serve
COLUMNS = ("id", "number", *FIELDS, "balance", "balance_as_of")

ZERO = Decimal("0.00")

Outcome = Literal["created", "updated", "unchanged"]

_account, _contact, _charge = (SQLModel.metadata.tables[table.__tablename__] for table in (Account, Contact, PlannedCharge))


INSERT_ACCOUNTS = BulkInsert(
    "account",
    conflict="ON CONFLICT (number) DO NOTHING",
    returning="RETURNING id, number",
    id="uuid",
    number="text",
    name="text",
    status="text",
    credit_limit="numeric",
    currency="text",
    locale="text",
    timezone="text",
    tariff="text",
    threshold="numeric",
    attributes="jsonb",
    balance="numeric",
    balance_as_of="timestamptz",
    created_at="timestamptz",
    updated_at="timestamptz",
)
UPDATE_ACCOUNTS = sa.text("""
UPDATE account a SET name = v.name, status = v.status, credit_limit = v.credit_limit, currency = v.currency, locale = v.locale, timezone = v.timezone,
    tariff = v.tariff, threshold = v.threshold, attributes = CAST(v.attributes AS jsonb), balance = v.balance, balance_as_of = v.balance_as_of,
    updated_at = :moment
FROM unnest(CAST(:id AS uuid[]), CAST(:name AS text[]), CAST(:status AS text[]), CAST(:credit_limit AS numeric[]), CAST(:currency AS text[]),
    CAST(:locale AS text[]), CAST(:timezone AS text[]), CAST(:tariff AS text[]), CAST(:threshold AS numeric[]), CAST(:attributes AS text[]),
    CAST(:balance AS numeric[]), CAST(:balance_as_of AS timestamptz[]))
  AS v(id, name, status, credit_limit, currency, locale, timezone, tariff, threshold, attributes, balance, balance_as_of)
WHERE a.id = v.id""")
# A conflict: the subscriber has added the very same address a moment ago. His stays his.
PUT_CONTACTS = BulkInsert(
    "contact",
    conflict="ON CONFLICT (account_id, channel, address) DO UPDATE SET label = excluded.label WHERE contact.origin = 'billing'",
    id="uuid",
    account_id="uuid",
    channel="text",
    address="text",
    label="text",
    origin="text",
    created_at="timestamptz",
)
PUT_CHARGES = BulkInsert(
    "planned_charge",
    conflict="""ON CONFLICT (account_id, external_id) DO UPDATE SET title = excluded.title, amount = excluded.amount, kind = excluded.kind, slot = excluded.slot,
        on_date = excluded.on_date, start_on = excluded.start_on, end_on = excluded.end_on, posted_through = excluded.posted_through, announce = excluded.announce""",
    id="uuid",
    account_id="uuid",
    external_id="text",
    title="text",
    amount="numeric",
    kind="text",
    slot="smallint",
    on_date="date",
    start_on="date",
    end_on="date",
    posted_through="date",
    announce="boolean",
)


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


@dataclass(slots=True)
class _Writes:
    """Everything that differs, by statement."""

    accounts: list[dict[str, Any]] = field(default_factory=list)
    contacts_gone: list[UUID] = field(default_factory=list)
    contacts_put: list[tuple[Any, ...]] = field(default_factory=list)
    contacts_vouched: list[UUID] = field(default_factory=list)
    charges_gone: list[UUID] = field(default_factory=list)
    charges_put: list[tuple[Any, ...]] = field(default_factory=list)


async def save(session: AsyncSession, given: Iterable[Snapshot], settings: Settings) -> dict[str, Saved]:
    """Bring these accounts (each number once) up to date; by number, what became of each.

    Locks the accounts that change. Repeating it changes nothing; two at once of a new number make one account.
    """
    wanted = {one.number: one for one in sorted(given, key=lambda one: one.number)}
    stored = await _read(session, list(wanted.values()))
    saved = {number: Saved(known.values["id"], "unchanged") for number, known in stored.items()}
    saved |= await _create(session, [one for number, one in wanted.items() if number not in stored], settings)
    again = [one for number, one in wanted.items() if number not in saved]
    for turn, (number, known) in enumerate(stored.items(), 1):
        if _compare(known, wanted[number], _Writes()):
            again.append(wanted[number])
        if turn % BREATH == 0:
            await asyncio.sleep(0)
    if not again:
        return saved
    stored = await _read(session, again, lock=True)
    writes = _Writes()
    for turn, (number, known) in enumerate(stored.items(), 1):
        changes = _compare(known, wanted[number], writes)
        saved[number] = Saved(known.values["id"], "updated" if changes else "unchanged", changes)
        if turn % BREATH == 0:
            await asyncio.sleep(0)
    await _write(session, writes)
    # An account that was erased between the two readings left its number free.
    erased = [one for one in again if one.number not in stored]
    return saved | await save(session, erased, settings) if erased else saved


async def _read(session: AsyncSession, given: Sequence[Snapshot], *, lock: bool = False) -> dict[str, _Stored]:
    """What is stored under these numbers, with as much beside the accounts as is to be compared."""
    query = sa.select(*(_account.c[name] for name in COLUMNS)).where(_account.c.number == _any([one.number for one in given], sa.Text))
    if lock:
        # FOR NO KEY UPDATE in the order of ids: as intake and planning do, so that nobody waits in a circle.
        query = query.order_by(_account.c.id).with_for_update(key_share=True)
    found = {row.number: _Stored(dict(row._mapping)) for row in await session.execute(query)}  # noqa: SLF001 - SQLAlchemy's documented name
    by_id = {known.values["id"]: known for known in found.values()}
    for table, wants in ((_contact, "contacts"), (_charge, "charges")):
        ids = [found[one.number].values["id"] for one in given if getattr(one, wants) is not None and one.number in found]
        if not ids:
            continue
        for row in await session.execute(sa.select(*table.c).where(table.c.account_id == _any(ids, sa.Uuid))):
            known = by_id[row.account_id]
            if table is _contact:
                known.contacts[row.channel, row.address] = row
            else:
                known.charges[row.external_id] = row
    return found


def _any(values: Sequence[Any], kind: Any) -> Any:
    return sa.any_(sa.cast(sa.literal(list(values), sa.ARRAY(kind)), sa.ARRAY(kind)))


def _compare(stored: _Stored, given: Snapshot, writes: _Writes) -> dict[str, Any]:
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
    if changes:
        writes.accounts.append(before | {name: after for name, (_, after) in changes.items() if name in before})
    return changes


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


def _compare_contacts(stored: _Stored, given: list[Address], writes: _Writes) -> bool:
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


def _compare_charges(stored: _Stored, given: list[ChargeIn], writes: _Writes) -> bool:
    account_id, differs = stored.values["id"], False
    for charge in given:
        known = stored.charges.get(charge.id)
        row = _charge_row(account_id, charge)
        if known is None or row[3:] != tuple(known)[3:]:
            writes.charges_put.append(row)
            differs = True
    listed = {charge.id for charge in given}
    gone = [known.id for key, known in stored.charges.items() if key not in listed]
    writes.charges_gone += gone
    return differs or bool(gone)


def _charge_row(account_id: UUID, charge: ChargeIn) -> tuple[Any, ...]:
    """In the order of the table's columns."""
    until = (charge.on, charge.start_on, charge.end_on, charge.posted_through)
    return (new_id(), account_id, charge.id, charge.title, charge.amount, charge.kind, charge.slot, *until, charge.announce)


async def _create(session: AsyncSession, given: list[Snapshot], settings: Settings) -> dict[str, Saved]:
    """New accounts. One that somebody else made meanwhile is left out of the answer."""
    if not given:
        return {}
    defaults = {
        "name": "",
        "status": "active",
        "credit_limit": ZERO,
        "currency": settings.currency,
        "locale": settings.locale,
        "timezone": settings.timezone,
        "tariff": "",
        "threshold": None,
        "attributes": {},
    }
    moment, rows = now(), []
    for one in given:
        fields = defaults | one.fields
        fields["attributes"] = orjson.dumps(fields["attributes"]).decode()
        as_of = None if one.balance is None else one.balance_as_of or moment
        rows.append((new_id(), one.number, *(fields[name] for name in FIELDS), one.balance or ZERO, as_of, moment, moment))
    made = await INSERT_ACCOUNTS.run(session, rows)
    assert made is not None
    created = {row.number: Saved(row.id, "created") for row in made}
    writes = _Writes()
    for one in given:
        if one.number in created:
            fresh = _Stored({"id": created[one.number].id})
            _compare_contacts(fresh, one.contacts or [], writes)
            _compare_charges(fresh, one.charges or [], writes)
            created[one.number].changes = {name: [None, value] for name, value in one.fields.items()} | (
                {"contacts": [None, one.contacts]} if one.contacts else {}
            )
    await _write(session, writes)
    return created


async def _write(session: AsyncSession, writes: _Writes) -> None:
    moment = now()
    if writes.accounts:
        arrays: dict[str, Any] = {name: [row[name] for row in writes.accounts] for name in COLUMNS if name != "number"}
        arrays["attributes"] = [orjson.dumps(attributes).decode() for attributes in arrays["attributes"]]
        await session.execute(UPDATE_ACCOUNTS, arrays | {"moment": moment})
    if writes.contacts_gone:
        await session.execute(sa.delete(_contact).where(_contact.c.id == _any(writes.contacts_gone, sa.Uuid)))
    if writes.contacts_vouched:
        await session.execute(sa.update(_contact).where(_contact.c.id == _any(writes.contacts_vouched, sa.Uuid)).values(verified_at=moment))
    await PUT_CONTACTS.run(session, [(*row, "billing", moment) for row in writes.contacts_put])
    if writes.charges_gone:
        await session.execute(sa.delete(_charge).where(_charge.c.id == _any(writes.charges_gone, sa.Uuid)))
    await PUT_CHARGES.run(session, writes.charges_put)
