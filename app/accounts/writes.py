"""What is written of accounts, by statement."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel

from app.accounts.models import Contact, PlannedCharge
from app.accounts.snapshots import FIELDS, Charge
from app.core.clock import now
from app.core.db import BulkInsert
from app.core.ids import new_id

BREATH = 500  # accounts in one go: the loop has other requests to serve
WRITTEN = ("id", *FIELDS, "balance", "balance_as_of", "imported", "imported_lists")

ZERO = Decimal("0.00")

_contact, _charge = (SQLModel.metadata.tables[table.__tablename__] for table in (Contact, PlannedCharge))

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
    imported="bigint",
    imported_lists="bigint",
    created_at="timestamptz",
    updated_at="timestamptz",
)
UPDATE_ACCOUNTS = sa.text("""
UPDATE account a SET name = v.name, status = v.status, credit_limit = v.credit_limit, currency = v.currency, locale = v.locale, timezone = v.timezone,
    tariff = v.tariff, threshold = v.threshold, attributes = CAST(v.attributes AS jsonb), balance = v.balance, balance_as_of = v.balance_as_of,
    imported = v.imported, imported_lists = v.imported_lists, updated_at = :moment
FROM unnest(CAST(:id AS uuid[]), CAST(:name AS text[]), CAST(:status AS text[]), CAST(:credit_limit AS numeric[]), CAST(:currency AS text[]),
    CAST(:locale AS text[]), CAST(:timezone AS text[]), CAST(:tariff AS text[]), CAST(:threshold AS numeric[]), CAST(:attributes AS text[]),
    CAST(:balance AS numeric[]), CAST(:balance_as_of AS timestamptz[]), CAST(:imported AS bigint[]), CAST(:imported_lists AS bigint[]))
  AS v(id, name, status, credit_limit, currency, locale, timezone, tariff, threshold, attributes, balance, balance_as_of, imported, imported_lists)
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
LEARN = sa.text("""
UPDATE account a SET imported = v.imported, imported_lists = v.imported_lists
FROM unnest(CAST(:ids AS uuid[]), CAST(:lines AS bigint[]), CAST(:lists AS bigint[])) AS v(id, imported, imported_lists) WHERE a.id = v.id
""")


@dataclass(slots=True)
class Writes:
    """Everything that differs."""

    accounts: list[dict[str, Any]] = field(default_factory=list)
    learnt: list[tuple[UUID, int | None, int | None]] = field(default_factory=list)  # nothing differs, but the digests of the line that says so
    contacts_gone: list[UUID] = field(default_factory=list)
    contacts_put: list[tuple[Any, ...]] = field(default_factory=list)
    contacts_vouched: list[UUID] = field(default_factory=list)
    charges_gone: list[UUID] = field(default_factory=list)
    charges_put: list[tuple[Any, ...]] = field(default_factory=list)


def charge_row(account_id: UUID, charge: Charge) -> tuple[Any, ...]:
    """In the order of the table's columns."""
    return (new_id(), account_id, *charge)


def any_of(values: Sequence[Any], kind: Any) -> Any:
    """`= ANY(array)`: one parameter, however many values."""
    return sa.any_(sa.cast(sa.literal(list(values), sa.ARRAY(kind)), sa.ARRAY(kind)))


async def write(session: AsyncSession, writes: Writes) -> None:
    """In the session's transaction, which has the accounts locked."""
    moment = now()
    if writes.accounts:
        arrays: dict[str, Any] = {name: [row[name] for row in writes.accounts] for name in WRITTEN}
        arrays["attributes"] = [orjson.dumps(attributes).decode() for attributes in arrays["attributes"]]
        await session.execute(UPDATE_ACCOUNTS, arrays | {"moment": moment})
    if writes.learnt:
        ids, lines, lists = zip(*writes.learnt, strict=True)
        await session.execute(LEARN, {"ids": list(ids), "lines": list(lines), "lists": list(lists)})
    if writes.contacts_gone:
        await session.execute(sa.delete(_contact).where(_contact.c.id == any_of(writes.contacts_gone, sa.Uuid)))
    if writes.contacts_vouched:
        await session.execute(sa.update(_contact).where(_contact.c.id == any_of(writes.contacts_vouched, sa.Uuid)).values(verified_at=moment))
    await PUT_CONTACTS.run(session, [(*row, "billing", moment) for row in writes.contacts_put])
    if writes.charges_gone:
        await session.execute(sa.delete(_charge).where(_charge.c.id == any_of(writes.charges_gone, sa.Uuid)))
    await PUT_CHARGES.run(session, writes.charges_put)
