"""A period told again: batch by batch, along the ids of what happened in it.

Two things are looked through at once: deliveries that are remembered (`at` lies in the period), and messages whose present state was entered in it, which
find again what happened while the endpoint was disabled or was not there yet. What waits anyway is left as it is.
"""

from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa

from app.core.db import Executor
from app.core.ids import first_id_at, new_id
from app.webhooks.models import TYPES, WebhookReplay

BATCH = 5000
# A message ends after it was made: held to the morning, waiting for a receipt. What was made longer before the period than this is not looked for.
EARLIER = timedelta(days=7)

NEXT = sa.text("SELECT * FROM webhook_replay WHERE state = 'running' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED")
IS_THERE = sa.text("SELECT EXISTS (SELECT FROM webhook WHERE id = :id)")
_NOW, _REPLAY, _ENDPOINT = "CAST(:now AS timestamptz)", "CAST(:replay AS uuid)", "CAST(:endpoint AS uuid)"
AGAIN = f"state = 'waiting', attempts = 0, queued_at = {_NOW}, due_at = {_NOW}, replay_id = {_REPLAY}, claimed_by = NULL"
# What this replay has told already is not told once more, wherever its second look begins.
OVER = f"state IN ('delivered', 'failed') AND {{table}}replay_id IS DISTINCT FROM {_REPLAY}"


def last_of_batch(source: str, size: int = BATCH) -> sa.TextClause:
    """The last of the next batch of ids; nothing when the rest is less than one."""
    return sa.text(f"SELECT id FROM {source} WHERE id > :position AND id < :stop ORDER BY id OFFSET {size - 1} LIMIT 1")


UPTO = {source: last_of_batch(source) for source in ("message", "inbound_message")}
REMEMBERED = sa.text(f"""
UPDATE webhook_delivery SET {AGAIN}
WHERE endpoint_id = {_ENDPOINT} AND subject_id > :position AND subject_id <= :upto AND type = ANY(CAST(:types AS text[]))
AND at >= :from_at AND at < :to_at AND {OVER.format(table="")}
""")
_QUEUE = f"""
INSERT INTO webhook_delivery (endpoint_id, subject_id, type, reason, at, state, attempts, queued_at, due_at, replay_id, history)
SELECT {_ENDPOINT}, found.id, found.type, found.reason, found.at, 'waiting', 0, {_NOW}, {_NOW}, {_REPLAY}, '[]' FROM ({{found}}) AS found
WHERE found.type = ANY(CAST(:types AS text[]))
ON CONFLICT (endpoint_id, subject_id, type) DO UPDATE SET {AGAIN} WHERE webhook_delivery.{OVER.format(table="webhook_delivery.")}
"""
FOUND = {
    "message": sa.text(
        _QUEUE.format(
            found="""
            SELECT m.id, 'message.' || m.state AS type, m.reason, m.updated_at AS at FROM message m JOIN webhook w ON w.id = CAST(:endpoint AS uuid)
            WHERE m.id > :position AND m.id <= :upto AND m.updated_at >= :from_at AND m.updated_at < :to_at AND (w.with_tests OR NOT m.test)
            """
        )
    ),
    "inbound_message": sa.text(
        _QUEUE.format(
            found="""
            SELECT i.id, 'inbound.received' AS type, i.action AS reason, i.at FROM inbound_message i
            WHERE i.id > :position AND i.id <= :upto AND i.at >= :from_at AND i.at < :to_at
            """
        )
    ),
}
LOOKED = {source: sa.text(f"SELECT count(*) FROM {source} WHERE id > :position AND id <= :upto") for source in ("message", "inbound_message")}
MOVE = sa.text("""
UPDATE webhook_replay SET source = :source, position = :position, state = :state, looked_at = looked_at + :looked_at, queued = queued + :queued,
    finished_at = :finished_at
WHERE id = :id
""")


def a_replay(endpoint: UUID, from_at: datetime, to_at: datetime, types: list[str], by: str, moment: datetime) -> WebhookReplay:
    """The row of a replay, for the station to work off."""
    made = WebhookReplay(
        id=new_id(),
        endpoint_id=endpoint,
        from_at=from_at,
        to_at=to_at,
        types=types,
        position=first_id_at(from_at - EARLIER),
        requested_by=by,
        created_at=moment,
    )
    if types == ["inbound.received"]:
        made.source, made.position = "inbound_message", first_id_at(from_at)
    return made


async def go_on(session: Executor, moment: datetime) -> int | None:
    """One batch of the oldest replay, in the caller's transaction: whoever dies has done nothing of it. How many it queued; None: there is none to do."""
    replay = (await session.execute(NEXT)).one_or_none()
    if replay is None:
        return None
    stop = first_id_at(replay.to_at)
    upto = (await session.execute(UPTO[replay.source], {"position": replay.position, "stop": stop})).scalar()
    is_last = upto is None
    values = {
        "endpoint": replay.endpoint_id,
        "replay": replay.id,
        "position": replay.position,
        "upto": upto or stop,
        "types": replay.types,
        "from_at": replay.from_at,
        "to_at": replay.to_at,
        "now": moment,
    }
    queued = looked_at = 0
    if (await session.execute(IS_THERE, {"id": replay.endpoint_id})).scalar():
        for statement in (REMEMBERED, FOUND[replay.source]):
            queued += (await session.execute(statement, values)).rowcount  # type: ignore[attr-defined]
        looked_at = (await session.execute(LOOKED[replay.source], {"position": replay.position, "upto": upto or stop})).scalar() or 0
    source, position, state = replay.source, upto or stop, "running"
    if is_last:
        source, position = "inbound_message", first_id_at(replay.from_at)
        state = "done" if replay.source == "inbound_message" or "inbound.received" not in replay.types else "running"
    await session.execute(
        MOVE,
        {
            "id": replay.id,
            "source": source,
            "position": position,
            "state": state,
            "looked_at": looked_at,
            "queued": queued,
            "finished_at": moment if state == "done" else None,
        },
    )
    return queued


def wanted(types: list[str] | None, of_endpoint: list[str]) -> list[str]:
    """The types to tell again: those asked for, or all that the endpoint is told."""
    return [name for name in TYPES if name in (types if types is not None else of_endpoint)]
