"""New accounts: a few by INSERT, thousands by COPY."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.snapshots import FIELDS, Address, Charge, Snapshot
from app.accounts.writes import INSERT_ACCOUNTS, PUT_CHARGES, PUT_CONTACTS, ZERO, charge_row
from app.core.clock import now
from app.core.config import Settings
from app.core.db import NULL, copy_rows, copy_text
from app.core.ids import new_id, new_id_text

ACCOUNT = ("id", "number", *FIELDS, "balance", "balance_as_of", "imported", "imported_lists", "created_at", "updated_at")
CONTACT = ("id", "account_id", "channel", "address", "label", "origin", "created_at")
CHARGE = ("id", "account_id", "external_id", "title", "amount", "kind", "slot", "on_date", "start_on", "end_on", "posted_through", "announce")
BEGUN = sa.text("SELECT 1")  # BEGIN goes out with the first statement, and COPY goes past whoever sends it
PIECE_ROWS = 200  # what is handed over at once: enough for the server to be busy with until it is our turn again


def defaults_of(settings: Settings) -> dict[str, Any]:
    """What a new account has of which nothing was said."""
    return {
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


async def create(session: AsyncSession, given: Sequence[Snapshot], settings: Settings) -> dict[str, UUID]:
    """Make these accounts; number -> id. One that somebody else makes at the same time is left out of the answer."""
    if not given:
        return {}
    defaults, moment = defaults_of(settings), now()
    rows = []
    for one in given:
        fields = defaults | one.fields
        fields["attributes"] = orjson.dumps(fields["attributes"]).decode()
        as_of = None if one.balance is None else one.balance_as_of or moment
        rows.append((new_id(), one.number, *(fields[name] for name in FIELDS), one.balance or ZERO, as_of, one.digest, one.lists, moment, moment))
    made = await INSERT_ACCOUNTS.run(session, rows)
    assert made is not None
    ids = {row.number: row.id for row in made}
    fresh = [(ids[one.number], one) for one in given if one.number in ids]
    await PUT_CONTACTS.run(session, [(new_id(), id_, *contact, "billing", moment) for id_, one in fresh for contact in one.contacts or ()])
    await PUT_CHARGES.run(session, [charge_row(id_, charge) for id_, one in fresh for charge in one.charges or ()])
    return ids


@dataclass(slots=True)
class NewAccounts:
    """New accounts as lines of COPY's text format, which the server takes as they are. They are of `moment`."""

    defaults: dict[str, Any]
    moment: datetime
    at: str = field(init=False)
    accounts: list[str] = field(default_factory=list)
    contacts: list[str] = field(default_factory=list)
    charges: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.at = self.moment.isoformat()

    def add(self, one: Snapshot) -> None:
        id_ = new_id_text()
        self.accounts.append(self._account(id_, one))
        if one.contacts:
            self.contacts += [_contact(id_, contact, self.at) for contact in one.contacts]
        if one.charges:
            self.charges += [_charge(id_, charge) for charge in one.charges]

    def _account(self, id_: str, one: Snapshot) -> str:
        said = self.defaults | one.fields
        threshold, attributes = said["threshold"], said["attributes"]
        as_of = NULL if one.balance is None else one.balance_as_of.isoformat() if one.balance_as_of else self.at
        return (
            f"{id_}\t{copy_text(one.number)}\t{copy_text(said['name'])}\t{said['status']}\t{said['credit_limit']!s}\t{said['currency']}\t{said['locale']}\t"
            f"{said['timezone']}\t{copy_text(said['tariff'])}\t{NULL if threshold is None else str(threshold)}\t"
            f"{copy_text(orjson.dumps(attributes).decode()) if attributes else '{}'}\t{one.balance or ZERO!s}\t{as_of}\t"
            f"{NULL if one.digest is None else one.digest}\t{NULL if one.lists is None else one.lists}\t{self.at}\t{self.at}\n"
        )

    async def copy(self, session: AsyncSession) -> None:
        """In the session's transaction. IntegrityError when a single one of these numbers is taken: then the transaction is lost.

        Nobody else sees the accounts yet, so nobody else has given them anything: of contacts and charges no row can conflict.
        """
        await session.execute(BEGUN)
        for table, columns, lines in (("account", ACCOUNT, self.accounts), ("contact", CONTACT, self.contacts), ("planned_charge", CHARGE, self.charges)):
            if lines:
                await copy_rows(session, table, columns, _pieces(lines))


async def _pieces(lines: Sequence[str]) -> AsyncIterator[bytes]:
    for begin in range(0, len(lines), PIECE_ROWS):
        yield "".join(lines[begin : begin + PIECE_ROWS]).encode()


def _contact(account_id: str, contact: Address, at: str) -> str:
    channel, address, label = contact
    return f"{new_id_text()}\t{account_id}\t{channel}\t{copy_text(address)}\t{copy_text(label)}\tbilling\t{at}\n"


def _charge(account_id: str, charge: Charge) -> str:
    id_, title, amount, kind, slot, on, start_on, end_on, posted_through, announce = charge
    return (
        f"{new_id_text()}\t{account_id}\t{copy_text(id_)}\t{copy_text(title)}\t{amount!s}\t{kind}\t{slot}\t{on or NULL}\t{start_on or NULL}\t{end_on or NULL}\t"
        f"{posted_through or NULL}\t{announce}\n"
    )
