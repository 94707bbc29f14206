"""The rows behind the webhooks: taken with a lease, and settled by the batch."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa

from app.core import metrics
from app.core.db import Executor
from app.webhooks.models import Webhook
from app.webhooks.pace import GIVE_UP_AFTER, Health, Tried, after, next_attempt

LEASE = timedelta(seconds=60)  # an attempt takes fifteen at the most
REMEMBERED = 20  # attempts that a delivery tells of

# What is past its two days is not sent any more: `over` says so, and it is settled as it is.
CLAIM = sa.text("""
UPDATE webhook_delivery SET state = 'sending', due_at = :lease_until, claimed_by = :owner
WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM webhook_delivery WHERE endpoint_id = :endpoint AND state = CAST(:waiting AS text) AND due_at <= :now
    ORDER BY due_at LIMIT :room FOR UPDATE SKIP LOCKED))
RETURNING subject_id, type, reason, at, attempts, queued_at, replay_id
""")
# Only what is still ours: when a lease has ended, somebody else may have it in hand.
SETTLE = sa.text(f"""
UPDATE webhook_delivery d SET state = v.state, due_at = v.due_at, attempts = v.attempts, claimed_by = NULL,
    history = CASE WHEN v.attempt IS NULL THEN d.history
              ELSE CASE WHEN jsonb_array_length(d.history) >= {REMEMBERED} THEN d.history - 0 ELSE d.history END || v.attempt END
FROM unnest(CAST(:subjects AS uuid[]), CAST(:types AS text[]), CAST(:states AS text[]), CAST(:dues AS timestamptz[]), CAST(:attempts AS smallint[]),
            CAST(CAST(:tried AS text[]) AS jsonb[])) AS v(subject_id, type, state, due_at, attempts, attempt)
WHERE d.endpoint_id = :endpoint AND d.subject_id = v.subject_id AND d.type = v.type AND d.claimed_by = :owner AND d.state = 'sending'
""")
# For `with_text` and everything else that is personal, at the moment of sending: after an erasure there is nothing left to be told.
MESSAGES = sa.text("""
SELECT m.id, m.event_id, e.source AS event_source, e.external_id AS event_key, a.number AS account, m.type, m.channel, m.address, m.gateway, m.parts, m.test,
    m.resend_of, CASE WHEN CAST(:with_text AS boolean) THEN m.subject END AS subject, CASE WHEN CAST(:with_text AS boolean) THEN m.text END AS text
FROM message m LEFT JOIN account a ON a.id = m.account_id LEFT JOIN event e ON e.id = m.event_id WHERE m.id = ANY(CAST(:ids AS uuid[]))
""")
INBOUND = sa.text("""
SELECT i.id, i.gateway, i.source, i.destination, i.parts, i.is_complete, i.action, CASE WHEN CAST(:with_text AS boolean) THEN i.text END AS text, ARRAY(
    SELECT DISTINCT a.number FROM contact c JOIN account a ON a.id = c.account_id
    WHERE c.address = i.source AND c.channel = 'sms' ORDER BY a.number LIMIT 100
) AS accounts
FROM inbound_message i WHERE i.id = ANY(CAST(:ids AS uuid[]))
""")


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery in hand. `subject` has what is told of the message or the inbound SMS; nothing when it is no longer there."""

    subject_id: UUID
    type: str
    reason: str | None
    at: datetime
    attempts: int
    queued_at: datetime
    replay_id: UUID | None
    subject: dict[str, Any] | None

    def is_over(self, moment: datetime) -> bool:
        return moment > self.queued_at + GIVE_UP_AFTER


async def claim(session: Executor, webhook: Webhook, owner: UUID, room: int, moment: datetime) -> list[Claimed]:
    """At most `room` deliveries of this endpoint that are due, the longest due first. They are ours until the lease ends."""
    values = {"endpoint": webhook.id, "waiting": "waiting", "now": moment, "room": room, "lease_until": moment + LEASE, "owner": owner}
    rows = (await session.execute(CLAIM, values)).all()
    messages = [row.subject_id for row in rows if row.type.startswith("message.")]
    inbound = [row.subject_id for row in rows if not row.type.startswith("message.")]
    known: dict[UUID, dict[str, Any]] = {}
    for ids, query in ((messages, MESSAGES), (inbound, INBOUND)):
        if ids:
            found = await session.execute(query, {"ids": ids, "with_text": webhook.with_text})
            known |= {row.id: dict(row._mapping) for row in found}  # noqa: SLF001 - SQLAlchemy's own name for the public mapping
    return [Claimed(**dict(row._mapping), subject=known.get(row.subject_id)) for row in rows]  # noqa: SLF001 - as above


async def settle(session: Executor, endpoint: UUID, owner: UUID, outcomes: list[tuple[Claimed, Tried | None]], kept: timedelta, moment: datetime) -> None:
    """Write what came of these, in one statement; None: it was over before it was tried. `kept`: for how long what is over is remembered."""
    columns: dict[str, list[Any]] = {"subjects": [], "types": [], "states": [], "dues": [], "attempts": [], "tried": []}
    for claimed, tried in outcomes:
        attempts = claimed.attempts + (tried is not None)
        again = next_attempt(attempts, claimed.queued_at, tried) if tried is not None and tried.verdict in ("failed", "refused") else None
        state = "delivered" if tried is not None and tried.verdict == "delivered" else "waiting" if again is not None else "failed"
        told = orjson.dumps(tried.as_json()).decode() if tried is not None else None
        for name, value in zip(columns, (claimed.subject_id, claimed.type, state, again or moment + kept, min(attempts, 32_000), told), strict=True):
            columns[name].append(value)
    await session.execute(SETTLE, columns | {"endpoint": endpoint, "owner": owner})
    metrics.WEBHOOKS_GIVEN_UP.inc(sum(tried is not None and state == "failed" for (_, tried), state in zip(outcomes, columns["states"], strict=True)))


async def record_health(session: Executor, endpoint: UUID, tries: list[Tried]) -> tuple[Health, Health] | None:
    """The endpoint's health before and after these attempts, given in the order in which they ended. It stays locked; None: it was deleted or disabled."""
    found = (await session.execute(LOCK, {"id": endpoint})).one_or_none()
    if found is None:
        return None
    before = health = Health(*found)
    for tried in tries:
        health = after(health, tried)
    if health != before:
        await session.execute(HEALTH, {"id": endpoint, **{name: getattr(health, name) for name in Health.__slots__}})
    return before, health


LOCK = sa.text("SELECT failures, failing_since, rests_until, last_error FROM webhook WHERE id = :id AND enabled FOR NO KEY UPDATE")
HEALTH = sa.text("""
UPDATE webhook SET failures = :failures, failing_since = :failing_since, rests_until = :rests_until, last_error = :last_error WHERE id = :id
""")
DISABLE = sa.text("""
UPDATE webhook SET enabled = false, disabled_because = :because, revision = revision + 1, updated_at = :now WHERE id = :id AND enabled RETURNING id
""")
