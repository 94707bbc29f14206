"""Messages that an operator takes back before they go, one or many."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import sqlalchemy as sa

from app.core.db import Executor
from app.notifications.ending import close
from app.notifications.states import State

STATES = sa.text("""
SELECT v.id, s.state FROM unnest(CAST(:ids AS uuid[])) AS v(id) CROSS JOIN LATERAL (
    SELECT coalesce(o.state, m.state) AS state FROM message m LEFT JOIN outbox o ON o.message_id = m.id WHERE m.id = v.id OFFSET 0
) s
""")


class NotCancelled(StrEnum):
    """Why a message stays as it is; the API says the same as a code."""

    IN_FLIGHT = "in_flight"  # on the wire just now
    NOT_WAITING = "not_waiting"  # past that


async def cancel_waiting(session: Executor, ids: Sequence[UUID], moment: datetime, by: str) -> dict[UUID, NotCancelled]:
    """End those that are held or queued: `cancelled`, reason `operator`; `unknown` where silence met a first try (`close`). Those that stay, and why.

    Again it changes nothing: what was cancelled the first time is not waiting any more."""
    gone = set(await close(session, ids, State.CANCELLED, "operator", moment, detail=by))
    rest = [one for one in ids if one not in gone]
    if not rest:
        return {}
    states = {row.id: row.state for row in (await session.execute(STATES, {"ids": rest})).all()}
    return {one: NotCancelled.IN_FLIGHT if states.get(one) == State.SENDING else NotCancelled.NOT_WAITING for one in rest}
