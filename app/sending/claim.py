"""Claim: what one wire can take now becomes `sending`, in a transaction that is durable before the first octet goes out.

A claim is never larger than the room on the wire: after a crash at most a window of messages is in doubt, and everything else simply goes on.
The same statement allots the numbers that tie the parts of long messages together, one after the other for each address.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.core.db import Executor
from app.notifications.stops import UNSTOPPED

# What may go now, by priority, then age. Each priority is a range of its own in the index, so that messages put off for later are not walked over.
DUE = f"""
SELECT d.* FROM unnest(CAST(:priorities AS smallint[])) AS p(priority) CROSS JOIN LATERAL (
    SELECT message_id, parts, priority, not_before FROM outbox o
    WHERE gateway = :gateway AND priority = p.priority AND state = 'queued' AND not_before <= :now
      AND expires_at > :now AND (send_until IS NULL OR send_until > :now) AND {UNSTOPPED}
    ORDER BY not_before, message_id LIMIT :room FOR UPDATE SKIP LOCKED
) d
"""
TAKE = """
UPDATE outbox SET state = 'sending', claimed_by = :owner, claimed_at = :now, lease_until = :lease
WHERE message_id = ANY({ids})
RETURNING message_id, parts, priority, not_before, tries, attempts, expires_at, resent
"""
# A long message gets a number by a function of the database, called for it alone: as a part of the statement it would cost every claim its planning.
# In the order of addresses, so that two claims never wait for each other; OFFSET 0 keeps the steps apart.
# The last of three guards: what was made for the simulated gateway is handed over to nobody else, whatever the line in the outbox says by now.
HAND_OVER = """
SELECT id, type, channel, address, subject, text, html, brand, attachments, sender, price, parts, urgent, tries, attempts, expires_at, resent, due, reference FROM (
    SELECT m.*, CASE WHEN parts > 1 AND channel = 'sms' THEN next_joint_reference(address, :now) END AS reference FROM (
        SELECT m.id, m.type, m.channel, m.address, m.subject, m.text, m.html, m.brand, CAST(m.attachments AS text) AS attachments, m.sender, m.price, m.urgent, {due} AS due, mine.*
        FROM mine JOIN message m ON m.id = mine.message_id WHERE (m.gateway IS NOT DISTINCT FROM '@simulated') = (:gateway = '@simulated') ORDER BY m.address COLLATE "C" OFFSET 0
    ) m OFFSET 0
) m ORDER BY priority, not_before, message_id
"""
# The first message always fits: a long one may have more parts than the window.
CLAIM = sa.text(f"""
WITH due AS MATERIALIZED ({DUE}), fitting AS (
    SELECT message_id, parts, sum(parts) OVER (ORDER BY priority, not_before, message_id) AS upto FROM due
), mine AS ({TAKE.format(ids="ARRAY(SELECT message_id FROM fitting WHERE upto <= :room OR upto = parts)")})
{HAND_OVER.format(due="(SELECT count(*) FROM due)")}
""")
PUSH_ON = sa.text("""
UPDATE outbox SET lease_until = now() + :lease
WHERE message_id = ANY(CAST(:ids AS uuid[])) AND claimed_by = ANY(CAST(:owners AS uuid[])) AND state = 'sending'
""")
UNCLAIM = sa.text("""
UPDATE outbox SET state = 'queued', claimed_by = NULL, lease_until = NULL
WHERE claimed_by = :owner AND state = 'sending' AND message_id <> ALL(CAST(:in_hand AS uuid[])) RETURNING message_id
""")

PRIORITIES = [0, 1, 2]


@dataclass(frozen=True, slots=True)
class Reserved:
    """What budgets have set aside for a message: given back when it comes back unsent."""

    day: date
    budgets: tuple[tuple[str, str], ...]  # scope and name
    parts: int
    cost: Decimal


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
    brand: str | None = None  # none: the built-in one
    attachments: str | None = None  # of a letter: the list of what goes with it, as JSON
    sender: str | None = None
    price: Decimal | None = None  # of a part, as the route had it
    resent: bool = False  # this is its one second try after silence
    reference: int | None = None  # ties its parts together; None: it was planned as one part
    began: float = 0.0  # monotonic, for the histogram
    room: int = 0  # what the wire counted for it
    due: int = 0  # how many were due when it was claimed, itself included
    told: bool = False  # the wire has said what came of it
    put_back: bool = False  # its outcome makes it due again
    reserved: Reserved | None = None


async def claim_due(session: Executor, gateway: str, owner: UUID, room: int, now: datetime, lease: timedelta) -> list[Claimed]:
    """At most `room` parts of what is due on this gateway, the urgent first, then the oldest."""
    values: dict[str, Any] = {"priorities": PRIORITIES, "gateway": gateway, "now": now, "room": room, "owner": owner, "lease": now + lease}
    rows: list[Any] = list((await session.execute(CLAIM, values)).all())
    return [Claimed(**row._mapping, claimed_at=now) for row in rows]  # noqa: SLF001 - SQLAlchemy's name for a row as a mapping


async def unclaim(session: Executor, owner: UUID, in_hand: list[UUID]) -> list[UUID]:
    """Give back what was claimed without our knowing (the answer to a commit was lost): none of it was written to the wire. Which ones."""
    return list((await session.execute(UNCLAIM, {"owner": owner, "in_hand": in_hand})).scalars())


async def push_on(session: Executor, owners: list[UUID], ids: list[UUID], lease: timedelta) -> None:
    """Begin the leases of these anew: whoever has them on the wire lives. Those that are somebody else's by now stay as they are."""
    await session.execute(PUSH_ON, {"owners": owners, "ids": ids, "lease": lease})
