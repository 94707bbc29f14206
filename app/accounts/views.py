"""Accounts as they are shown: what was given, with ids."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any, Self
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.models import Account, Contact, PlannedCharge
from app.accounts.shapes import Channel, Kind, Scalar, Status
from app.core.money import Money


class ContactOut(BaseModel):
    """`verified`: the billing vouches for its own contacts, the subscriber's are proved by a code or by an operator."""

    model_config = ConfigDict(extra="forbid")

    id: UUID
    channel: Channel
    address: str = Field(description="A phone in E.164 with +, or an e-mail address")
    label: str
    origin: str = Field(description="billing: comes and goes with the billing's data; subscriber: stays")
    verified: bool

    @classmethod
    def of(cls, row: Contact) -> Self:
        verified = row.origin == "billing" or row.verified_at is not None
        return cls.model_validate(
            {"id": row.id, "channel": row.channel, "address": row.address, "label": row.label, "origin": row.origin, "verified": verified}
        )


SAME = ("title", "amount", "kind", "start_on", "end_on", "posted_through", "announce")


class ChargeOut(BaseModel):
    """A charge to come, as it was given."""

    model_config = ConfigDict(extra="forbid")

    id: str
    title: str
    amount: Money
    kind: Kind
    on: date | None
    weekday: int | None
    month: int | None
    day: int | None
    start_on: date | None
    end_on: date | None
    posted_through: date | None
    announce: bool

    @classmethod
    def of(cls, row: PlannedCharge) -> Self:
        month, day = divmod(row.slot, 100)
        due = {
            "on": row.on_date,
            "weekday": row.slot if row.kind == "weekly" else None,
            "month": month if row.kind == "yearly" else None,
            "day": day if row.kind in {"monthly", "yearly"} else None,
        }
        return cls.model_validate({"id": row.external_id} | {name: getattr(row, name) for name in SAME} | due)


class OwnAccountOut(BaseModel):
    """An account as its subscriber sees it."""

    model_config = ConfigDict(extra="forbid")

    number: str
    name: str
    status: Status
    balance: Money
    balance_as_of: datetime | None
    credit_limit: Money
    currency: str
    locale: str
    timezone: str
    tariff: str
    threshold: Money | None

    @classmethod
    def of(cls, row: Account) -> Self:
        return cls.model_validate(_own_values(row))


class AccountOut(OwnAccountOut):
    """An account with its contacts and charges."""

    attributes: dict[str, Scalar]
    contacts: list[ContactOut]
    charges: list[ChargeOut]
    created_at: datetime
    updated_at: datetime


def _own_values(row: Account) -> dict[str, Any]:
    return {name: getattr(row, name) for name in OwnAccountOut.model_fields}


async def show(session: AsyncSession, accounts: Sequence[Account]) -> list[AccountOut]:
    """These accounts with all that belongs to them, in two more queries however many there are."""
    ids = [account.id for account in accounts]
    contacts = _by_account(await session.scalars(sa.select(Contact).where(sa.column("account_id").in_(ids)).order_by(sa.column("id"))))
    charges = _by_account(await session.scalars(sa.select(PlannedCharge).where(sa.column("account_id").in_(ids)).order_by(sa.column("external_id"))))
    return [
        AccountOut.model_validate(
            _own_values(account)
            | {
                "attributes": account.attributes,
                "contacts": [ContactOut.of(contact) for contact in contacts[account.id]],
                "charges": [ChargeOut.of(charge) for charge in charges[account.id]],
                "created_at": account.created_at,
                "updated_at": account.updated_at,
            }
        )
        for account in accounts
    ]


def _by_account(rows: Iterable[Any]) -> defaultdict[UUID, list[Any]]:
    found: defaultdict[UUID, list[Any]] = defaultdict(list)
    for row in rows:
        found[row.account_id].append(row)
    return found
