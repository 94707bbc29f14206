"""Claim: what one wire can take now becomes `sending`, in a transaction that is durable before the first octet goes out.

A claim is never larger than the room on the wire: after a crash at most a window of messages is in doubt, and everything else simply goes on.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.core.db import Executor

# By priority, then age. Each priority is a range of its own in the index, so that messages put off for later are not walked over.
# The first message always fits: a long one may have more parts than the window.
CLAIM = sa.text("""
WITH due AS MATERIALIZED (
    SELECT o.* FROM unnest(CAST(:priorities AS smallint[])) AS p(priority) CROSS JOIN LATERAL (
        SELECT message_id, parts, priority, not_before FROM outbox
        WHERE gateway = :gateway AND priority = p.priority AND state = 'queued' AND not_before <= :now
          AND expires_at > :now AND (send_until IS NULL OR send_until > :now)
        ORDER BY not_before, message_id LIMIT :room FOR UPDATE SKIP LOCKED
    ) o
), fitting AS (
    SELECT message_id, parts, sum(parts) OVER (ORDER BY priority, not_before, message_id) AS upto FROM due
), mine AS (
    UPDATE outbox SET state = 'sending', claimed_by = :owner, claimed_at = :now, lease_until = :lease
    WHERE message_id = ANY(ARRAY(SELECT message_id FROM fitting WHERE upto <= :room OR upto = parts))
    RETURNING message_id, parts, priority, not_before, tries, attempts, expires_at
)
SELECT m.id, m.type, m.channel, m.address, m.subject, m.text, m.html, mine.parts, m.urgent, mine.tries, mine.attempts, mine.expires_at,
       (SELECT count(*) FROM due) AS due
FROM mine JOIN message m ON m.id = mine.message_id ORDER BY mine.priority, mine.not_before, mine.message_id
""")
UNCLAIM = sa.text("""
UPDATE outbox SET state = 'queued', claimed_by = NULL, lease_until = NULL
WHERE claimed_by = :owner AND state = 'sending' AND message_id <> ALL(CAST(:in_hand AS uuid[]))
""")

PRIORITIES = [0, 1, 2]


@dataclass(slots=True)
class Claimed:
    """A message that is ours to send until the lease ends."""

    id: UUID
    type: str
    channel: str
    address: str
    subject: str | None
    text: str
    html: str | None
    parts: int
    urgent: bool
    tries: int
    attempts: int
    expires_at: datetime
    claimed_at: datetime
    began: float = 0.0  # monotonic, for the histogram
    room: int = 0  # what the wire counted for it
    due: int = 0  # how many were due when it was claimed, itself included
    put_back: bool = False  # its outcome makes it due again


async def claim_due(session: Executor, gateway: str, owner: UUID, room: int, now: datetime, lease: timedelta) -> list[Claimed]:
    """At most `room` parts of what is due on this gateway, the urgent first, then the oldest."""
    values: dict[str, Any] = {"priorities": PRIORITIES, "gateway": gateway, "now": now, "room": room, "owner": owner, "lease": now + lease}
    rows: list[Any] = list((await session.execute(CLAIM, values)).all())
    return [Claimed(**row._mapping, claimed_at=now) for row in rows]  # noqa: SLF001 - SQLAlchemy's name for a row as a mapping


async def unclaim(session: Executor, owner: UUID, in_hand: list[UUID]) -> None:
    """Give back what was claimed without our knowing (the answer to a commit was lost): none of it was written to the wire."""
    await session.execute(UNCLAIM, {"owner": owner, "in_hand": in_hand})
