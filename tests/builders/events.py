"""Events: as the billing sends them, and as intake has stored them."""

import itertools
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.accounts.models import Account
from app.core.clock import now
from app.core.db import Database
from app.core.ids import new_id
from app.events.models import Event, EventKey, EventWaiting

numbers = itertools.count(1)


def a_payment(account: str = "100500", *, source: str = "/billing/payments", amount: str = "500.00", **more: Any) -> dict[str, Any]:
    """A payment as a structured CloudEvent; `balance` and `method` go into its data, anything else into the envelope; a value of ... leaves the field out."""
    data = {"amount": amount} | {name: more.pop(name) for name in ("balance", "method") if name in more}
    event = {"specversion": "1.0", "id": f"pay-{next(numbers)}", "source": source, "type": "payment.received", "subject": account, "data": data}
    return {name: value for name, value in (event | more).items() if value is not ...}


async def a_waiting_event(
    database: Database, account: Account, kind: str = "service.connected", *, data: dict[str, Any] | None = None, time: datetime | None = None
) -> UUID:
    """An event that was taken in and that nobody has planned yet. Its id."""
    event_id = new_id()
    said = {"service": {"code": "tv", "name": "TV"}} if data is None else data
    async with database.transaction() as session:
        session.add(EventKey(source="/test", external_id=str(event_id), event_id=event_id))
        session.add(
            Event(
                id=event_id,
                source="/test",
                external_id=str(event_id),
                type=kind,
                account_id=account.id,
                time=time or now() - timedelta(seconds=1),
                data=said,
            )
        )
        session.add(EventWaiting(event_id=event_id, account_id=account.id))
    return event_id
