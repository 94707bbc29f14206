"""New accounts: a few by INSERT, thousands by COPY."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.snapshots import FIELDS, Charge, Snapshot
from app.accounts.writes import BREATH, INSERT_ACCOUNTS, PUT_CHARGES, PUT_CONTACTS, ZERO, charge_row
from app.core.clock import now
from app.core.config import Settings
from app.core.db import NULL, copy_rows, copy_text
from app.core.ids import new_id, new_id_text

MANY = 100  # accounts for which COPY pays

ACCOUNT = ("id", "number", *FIELDS, "balance", "balance_as_of", "imported", "created_at", "updated_at")
CONTACT = ("id", "account_id", "channel", "address", "label", "origin", "created_at")
CHARGE = ("id", "account_id", "external_id", "title", "amount", "kind", "slot", "on_date", "start_on", "end_on", "posted_through", "announce")


async def create(session: AsyncSession, given: Sequence[Snapshot], settings: Settings) -> dict[str, UUID]:
    """Make these accounts; number -> id. One that somebody else makes at the same time is left out of the answer."""
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
    if len(given) >= MANY:
        try:
            async with session.begin_nested():
                return await _copy(session, given, defaults, now())
        except IntegrityError:
            pass  # one of these numbers has been taken this very moment: INSERT passes over it
    return await _insert(session, given, defaults, now())


async def _insert(session: AsyncSession, given: Sequence[Snapshot], defaults: dict[str, Any], moment: datetime) -> dict[str, UUID]:
    rows = []
    for one in given:
        fields = defaults | one.fields
        fields["attributes"] = orjson.dumps(fields["attributes"]).decode()
        as_of = None if one.balance is None else one.balance_as_of or moment
        rows.append((new_id(), one.number, *(fields[name] for name in FIELDS), one.balance or ZERO, as_of, one.digest, moment, moment))
    made = await INSERT_ACCOUNTS.run(session, rows)
    assert made is not None
    ids = {row.number: row.id for row in made}
    fresh = [(ids[one.number], one) for one in given if one.number in ids]
    await PUT_CONTACTS.run(session, [(new_id(), id_, *contact, "billing", moment) for id_, one in fresh for contact in one.contacts or ()])
    await PUT_CHARGES.run(session, [charge_row(id_, charge) for id_, one in fresh for charge in one.charges or ()])
    return ids


async def _copy(session: AsyncSession, given: Sequence[Snapshot], defaults: dict[str, Any], moment: datetime) -> dict[str, UUID]:
    ids = {one.number: new_id() for one in given}
    at = moment.isoformat()
    owned = [(str(id_), one) for id_, one in zip(ids.values(), given, strict=True)]
    await copy_rows(session, "account", ACCOUNT, _pieces(owned, lambda id_, one: [_account_line(id_, one, defaults, at)]))
    # Nobody else sees the accounts yet, so nobody else has given them anything: no row can conflict.
    if any(one.contacts for one in given):
        await copy_rows(session, "contact", CONTACT, _pieces(owned, lambda id_, one: [_contact_line(id_, *contact, at) for contact in one.contacts or ()]))
    if any(one.charges for one in given):
        await copy_rows(session, "planned_charge", CHARGE, _pieces(owned, lambda id_, one: [_charge_line(id_, charge) for charge in one.charges or ()]))
    return ids


async def _pieces(owned: Sequence[tuple[str, Snapshot]], lines: Callable[[str, Snapshot], Iterable[str]]) -> AsyncIterator[bytes]:
    for begin in range(0, len(owned), BREATH):
        yield "".join([line for id_, one in owned[begin : begin + BREATH] for line in lines(id_, one)]).encode()
        await asyncio.sleep(0)  # the loop has other requests to serve


def _account_line(id_: str, one: Snapshot, defaults: dict[str, Any], at: str) -> str:
    said = defaults | one.fields
    threshold, attributes = said["threshold"], said["attributes"]
    as_of = NULL if one.balance is None else one.balance_as_of.isoformat() if one.balance_as_of else at
    return (
        f"{id_}\t{copy_text(one.number)}\t{copy_text(said['name'])}\t{said['status']}\t{said['credit_limit']}\t{said['currency']}\t{said['locale']}\t"
        f"{said['timezone']}\t{copy_text(said['tariff'])}\t{NULL if threshold is None else threshold}\t"
        f"{copy_text(orjson.dumps(attributes).decode()) if attributes else '{}'}\t{one.balance or ZERO}\t{as_of}\t"
        f"{NULL if one.digest is None else one.digest}\t{at}\t{at}\n"
    )


def _contact_line(account_id: str, channel: str, address: str, label: str, at: str) -> str:
    return f"{new_id_text()}\t{account_id}\t{channel}\t{copy_text(address)}\t{copy_text(label)}\tbilling\t{at}\n"


def _charge_line(account_id: str, charge: Charge) -> str:
    id_, title, amount, kind, slot, on, start_on, end_on, posted_through, announce = charge
    return (
        f"{new_id_text()}\t{account_id}\t{copy_text(id_)}\t{copy_text(title)}\t{amount}\t{kind}\t{slot}\t{on or NULL}\t{start_on or NULL}\t{end_on or NULL}\t"
        f"{posted_through or NULL}\t{announce}\n"
    )
