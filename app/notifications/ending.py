"""Messages that are not sent any more: cancelled, expired, or in doubt for ever."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from app.core import metrics
from app.core.db import Executor
from app.core.ids import new_id
from app.notifications.caps import give_back
from app.notifications.rows import CHANGES
from app.notifications.states import State

# What waited for its second try after a silence is in doubt, whatever ends its waiting: the first one may have arrived. By keys and not by a join alone:
# without statistics that would read the whole table.
CLOSE = sa.text("""
WITH gone AS (DELETE FROM outbox WHERE message_id = ANY(CAST(:ids AS uuid[])) AND state = ANY(CAST(:states AS text[])) RETURNING message_id, resent)
UPDATE message m SET state = CASE WHEN gone.resent THEN :doubt ELSE :state END, reason = CASE WHEN gone.resent THEN 'no_answer' ELSE :reason END,
       updated_at = :now
FROM gone WHERE m.id = gone.message_id AND m.id = ANY(ARRAY(SELECT message_id FROM gone))
RETURNING m.id, m.event_id, m.channel, m.gateway, m.type, m.state, m.reason, gone.resent
""")


async def close(session: Executor, ids: Sequence[UUID], state: State, reason: str, moment: datetime, detail: str | None = None) -> list[UUID]:
    """End messages that are still held or queued: cancelled or expired; `unknown` when they were sent once and met silence.

    Which ones; those that are on the wire stay."""
    values = {"ids": list(ids), "states": [State.HELD.value, State.QUEUED.value], "state": state.value, "reason": reason, "doubt": State.UNKNOWN.value}
    rows = (await session.execute(CLOSE, values | {"now": moment})).all()
    await CHANGES.run(session, [(new_id(), row.id, moment, row.state, row.reason, (detail or reason) if row.resent else detail) for row in rows])
    await give_back(session, [row.event_id for row in rows if row.event_id is not None and not row.resent])
    for row in rows:
        metrics.MESSAGES.labels(row.channel, row.gateway or "none", row.type, row.state).inc()
    return [row.id for row in rows]
