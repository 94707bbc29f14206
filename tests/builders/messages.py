"""Messages and their lines in the outbox, as planning would have written them; and a look at what became of them."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa

from app.accounts.models import Account
from app.core.clock import now
from app.core.db import Database
from app.core.ids import new_id
from app.notifications.models import Message, Outbox
from app.sending.claim import Claimed, claim_due
from app.sending.outcome import Outcome
from app.sending.settle import Policy, Settled, settle

HOUR = timedelta(hours=1)

POLICY = Policy(gateway="main", receipt_group="main", backoff_min=timedelta(seconds=30), backoff_max=timedelta(seconds=900), attempts=3)
OUTBOX_FIELDS = frozenset(Outbox.model_fields)


async def a_message(database: Database, account: Account | None = None, *, ended: str | None = None, **fields: Any) -> UUID:
    """A message that is queued on the gateway `main` and due; `ended`: it has left the outbox in this state. Fields of both tables may be given."""
    moment = now()
    message_id = fields.pop("id", None) or new_id()
    shared = {
        "state": ended or "queued",
        "channel": "sms",
        "gateway": "main",
        "parts": 1,
        "not_before": moment - timedelta(seconds=1),
        "expires_at": moment + HOUR,
        "priority": 1,
        "reason": None,
    } | fields
    written = {
        "account_id": account.id if account else new_id(),
        "type": "service.connected",
        "address": "+79161234567",
        "locale": "ru",
        "text": "Баланс 10,00",
        "updated_at": moment,
        "urgent": shared["priority"] == 0,
    } | shared
    async with database.transaction() as session:
        session.add(Message(id=message_id, **{name: value for name, value in written.items() if name in Message.model_fields}))
        if ended is None:
            session.add(Outbox(message_id=message_id, **{name: value for name, value in shared.items() if name in OUTBOX_FIELDS}))
    return message_id


async def claim(database: Database, *, room: int = 100, owner: UUID | None = None, gateway: str = "main", at: datetime | None = None) -> list[Claimed]:
    async with database.transaction() as session:
        return await claim_due(session, gateway, owner or uuid4(), room, at or now(), timedelta(minutes=1))


async def write(database: Database, owner: UUID, *outcomes: tuple[Claimed, Outcome], policy: Policy = POLICY, at: datetime | None = None) -> Settled:
    async with database.transaction() as session:
        return await settle(session, owner, policy, list(outcomes), at or now())


async def state_of(database: Database, message_id: UUID) -> tuple[str, str | None]:
    """State and reason, wherever they stand."""
    row = await one(
        database,
        "SELECT coalesce(o.state, m.state) AS state, CASE WHEN o.message_id IS NULL THEN m.reason ELSE o.reason END AS reason"
        " FROM message m LEFT JOIN outbox o ON o.message_id = m.id WHERE m.id = :id",
        id=message_id,
    )
    return row.state, row.reason


async def rows(database: Database, query: str, **values: Any) -> list[Any]:
    async with database.transaction() as session:
        return list((await session.execute(sa.text(query), values)).all())


async def one(database: Database, query: str, **values: Any) -> Any:
    (row,) = await rows(database, query, **values)
    return row


async def run(database: Database, statement: str, **values: Any) -> None:
    async with database.transaction() as session:
        await session.execute(sa.text(statement), values)
