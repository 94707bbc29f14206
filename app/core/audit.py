"""Who changed what, written in the transaction of the change itself."""

from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.auth import Caller
from app.core.ids import parse_id
from app.core.models import AuditRecord
from app.core.peppers import hashed

# Fields whose values are somebody's: the audit keeps that they changed, and a keyed hash by which a known value can be recognised.
PERSONAL = frozenset({"number", "name", "address", "contacts", "label", "attributes", "text", "html", "subject"})


async def record(session: AsyncSession, caller: Caller | str, action: str, target: str, changes: dict[str, Any] | None = None) -> None:
    """Add one record, e.g. `record(session, caller, "gateway.update", "gateway:main", {"port": [2775, 2776]})`.

    A field that changed is a pair, before and after. The account that it is about is found in the target, or in `changes["account"]`: its id."""
    actor = caller if isinstance(caller, str) else caller.name
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    given = changes or {}
    shown = {field: await hashed(session, value) if field in PERSONAL else value for field, value in given.items()}
    account = account_of(target, given)
    session.add(AuditRecord(actor=actor[:120], action=action, object=target[:300], changes=shown, request_id=request_id, account_id=account))
    await session.flush()


def account_of(target: str, changes: dict[str, Any]) -> UUID | None:
    """The account that a record is about, if it is about one."""
    kind, _, name = target.partition(":")
    named = name if kind == "account" else changes.get("account")
    return parse_id(named) if isinstance(named, str) else None
