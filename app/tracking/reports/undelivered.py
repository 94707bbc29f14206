"""Who was not reached, and why: the list for the call centre. Read from the messages themselves, in batches by key, so that no transaction stays open."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.core.db import Database
from app.core.ids import first_id_at
from app.notifications.words import reason_in_words, states
from app.tracking.reports.dimensions import Wanted, conditions
from app.tracking.reports.sheets import Locale

COLUMNS = ("account", "channel", "address", "type", "created_at", "ended_at", "state", "state_words", "reason", "reason_words", "gateway", "message_id")
# Not those that were cancelled: nobody was to be told any more. Nor those whose end is still open.
STATES = ("undelivered", "expired", "failed", "unknown")
BATCH = 2000

# An erased account has no address any more: there is nobody to call.
LIST = """
SELECT m.id, a.number AS account, m.channel, m.address, m.type, m.updated_at, m.state, m.reason, m.gateway
FROM message m LEFT JOIN account a ON a.id = m.account_id
WHERE m.id > :after AND m.id < :end_id AND m.state = ANY(CAST(:states AS text[])) AND NOT m.test AND m.address <> ''{more}
ORDER BY m.id LIMIT :batch
"""


async def undelivered(database: Database, wanted: Wanted, locale: Locale) -> AsyncGenerator[tuple[list[Any], float], None]:
    """Messages that were made in the period, in the order of their creation, each with the share of the period that it reaches."""
    period = wanted.period
    filters = dict(wanted.filters)
    of_states = [state for state in filters.pop("state", STATES) if state in STATES]
    more, values = conditions(filters, "m")
    query = sa.text(LIST.format(more=more))
    first, end = first_id_at(period.begins), first_id_at(period.ends)
    values |= {"after": first, "end_id": end, "states": of_states, "batch": BATCH}
    while True:
        async with database.transaction() as session:
            rows = (await session.execute(query, values)).all()
        for row in rows:
            share = (row.id.int - first.int) / (end.int - first.int)
            yield line_of(row, locale), share
        if len(rows) < BATCH:
            return
        values["after"] = rows[-1].id


def made_at(message_id: UUID) -> datetime:
    """When a message was made: its id says so (RFC 9562, 5.7)."""
    return datetime.fromtimestamp((message_id.int >> 80) / 1000, UTC)


def line_of(row: Any, locale: Locale) -> list[Any]:
    state = states()[row.state].operator.in_(locale)
    made = made_at(row.id)
    return [
        row.account, row.channel, row.address, row.type, made, row.updated_at, row.state, state, row.reason, reason_in_words(row.reason, locale), row.gateway, row.id
    ]  # fmt: skip
