"""News that later news has undone: while "Internet 100 is disconnected" waited for the morning, it was connected again.

What waits is asked when it is released. Undone is the change of a service by a later change of the same service (its `code`) the other way round, and the
change of a tariff by any later one. Later is what happened later by the billing's clock (`time`), in whatever order the events came in. A message that tells
several events tells those that are left; where none is, it is cancelled as `resolved`. The later news goes its own way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.core.db import Executor
from app.core.ids import first_id_at

UNDONE_BY = {"service.connected": "service.disconnected", "service.disconnected": "service.connected", "tariff.changed": "tariff.changed"}
LOOKED_BACK = timedelta(days=30)  # no message waits for as long as that

# The ids of events are in the order in which they came in.
LOOK = sa.text("""
WITH told AS (
    SELECT m.id AS message_id, m.event_id FROM message m WHERE m.id = ANY(CAST(:messages AS uuid[]))
    UNION ALL SELECT n.message_id, n.event_id FROM notification_event n WHERE n.message_id = ANY(CAST(:messages AS uuid[]))
)
SELECT t.message_id, t.event_id, EXISTS (
    SELECT FROM event n JOIN unnest(CAST(:types AS text[]), CAST(:undone_by AS text[])) AS u(type, undone_by) ON u.undone_by = n.type
    WHERE n.account_id = e.account_id AND n.test = e.test AND n.id >= :since AND u.type = e.type AND (n.time, n.id) > (e.time, e.id)
      AND (e.type = 'tariff.changed' OR n.data #>> '{service,code}' = e.data #>> '{service,code}')
) AS is_undone
FROM told t JOIN event e ON e.id = t.event_id
""")


@dataclass(frozen=True, slots=True)
class Undone:
    """Events that are not to be told any more, and the messages that had nothing else to tell."""

    events: frozenset[UUID] = frozenset()
    messages: frozenset[UUID] = frozenset()


async def undone(session: Executor, rows: Sequence[Any], moment: datetime) -> Undone:
    """Of messages (id, type, data: of the event that made it). One query where any of them is of a type that can be undone."""
    asked = [row.id for row in rows if row.type in UNDONE_BY and row.data is not None]
    if not asked:
        return Undone()
    values = {"messages": asked, "since": first_id_at(moment - LOOKED_BACK), "types": list(UNDONE_BY), "undone_by": list(UNDONE_BY.values())}
    told = (await session.execute(LOOK, values)).all()
    left = {row.message_id for row in told if not row.is_undone}
    return Undone(frozenset(row.event_id for row in told if row.is_undone), frozenset(row.message_id for row in told) - left)
