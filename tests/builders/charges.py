"""Planned charges, as the billing told them."""

from decimal import Decimal
from typing import Any

from app.accounts.models import Account, PlannedCharge
from app.core.db import Database


async def a_charge(database: Database, account: Account, amount: str, *, name: str = "c1", title: str = "Home 100", kind: str = "once", **fields: Any) -> None:
    """A charge of an account: `on_date` of one that comes once, `slot` of the others as ChargeIn.slot has it."""
    async with database.transaction() as session:
        session.add(PlannedCharge(account_id=account.id, external_id=name, title=title, amount=Decimal(amount), kind=kind, **fields))
