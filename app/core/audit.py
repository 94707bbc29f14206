"""Who changed what, written in the transaction of the change itself."""

import hashlib
import hmac
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.auth import Caller
from app.core.models import AuditRecord

# Fields whose values are somebody's: the audit keeps that they changed, and a keyed hash by which a known value can be recognised.
PERSONAL = frozenset({"number", "name", "address", "contacts", "label", "attributes", "text", "html", "subject"})


async def record(session: AsyncSession, caller: Caller | str, action: str, target: str, changes: dict[str, Any] | None = None) -> None:
    """Add one record, e.g. `record(session, caller, "gateway.update", "gateway:main", {"port": [2775, 2776]})`."""
    actor = caller if isinstance(caller, str) else caller.name
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    shown = {field: hashed(session, value) if field in PERSONAL else value for field, value in (changes or {}).items()}
    session.add(AuditRecord(actor=actor, action=action, object=target[:300], changes=shown, request_id=request_id))
    await session.flush()


def hashed(session: AsyncSession, value: Any) -> str:
    """What stands for a personal value: keyed, so that a list of all phone numbers does not turn the hashes back into phones."""
    pepper: bytes = session.info["pepper"]
    return "hmac:" + hmac.new(pepper, repr(value).encode(), hashlib.sha256).hexdigest()[:16]
