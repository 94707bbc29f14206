"""What waits for an address that has just been suppressed is withdrawn: nobody who has said STOP gets what was written before it."""

from collections.abc import Sequence

import sqlalchemy as sa

from app.accounts.suppressions import barred
from app.catalogue.types import VERIFICATION
from app.core.clock import now
from app.core.db import Executor
from app.notifications.ending import close
from app.notifications.states import State

# By the list of keys that the suppressions gave: the messages of an address are few, those of all addresses are not.
WAITING = sa.text(f"""
WITH barred AS MATERIALIZED ({barred("SELECT unnest(CAST(:addresses AS text[]))")})
SELECT o.message_id FROM message m JOIN outbox o ON o.message_id = m.id JOIN barred b ON b.channel = m.channel AND b.address = m.address
LEFT JOIN notification_type t ON t.code = m.type
WHERE m.address = ANY(ARRAY(SELECT address FROM barred)) AND (b.dead OR NOT coalesce(t.mandatory, false) OR m.type = '{VERIFICATION}') ORDER BY o.message_id
""")
# What is on the wire is settled as it comes out; put back into the queue it must not go again: it has expired.
LAST_TRY = sa.text("UPDATE outbox SET expires_at = LEAST(expires_at, :now) WHERE message_id = ANY(CAST(:ids AS uuid[]))")


async def withdraw(session: Executor, addresses: Sequence[str]) -> int:
    """Cancel what is held or queued for those of these addresses that are suppressed, but for mandatory types. How many there were.

    Again it changes nothing. What is claimed by a bind at this very moment is on its last try."""
    if not addresses:
        return 0
    ids = list((await session.execute(WAITING, {"addresses": list(addresses)})).scalars())
    if not ids:
        return 0
    moment = now()
    cancelled = await close(session, ids, State.CANCELLED, "suppressed", moment)
    if len(cancelled) < len(ids):
        await session.execute(LAST_TRY, {"ids": ids, "now": moment})
    return len(cancelled)
