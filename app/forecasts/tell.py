"""What was found becomes events: once for each (account, kind, episode, mark), in one transaction with the state of the episodes.

If the process dies, nothing of it was. If it runs twice, or two do at once, the second finds the hits there and tells nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa

from app.core.db import BulkInsert, Executor, TogetherInsert
from app.core.ids import new_id
from app.forecasts.find import OF_SPAN, TYPES, Hit, Looked
from app.forecasts.rules import Span

SOURCE = "/vestnik/forecasts"

HITS = BulkInsert(
    "forecast_hit",
    conflict="ON CONFLICT (account_id, kind, episode, mark) DO NOTHING",
    returning="RETURNING id",
    id="uuid",
    account_id="uuid",
    kind="text",
    episode="int",
    mark="text",
    as_of="date",
    outcome="text",
    run_id="uuid",
    event_id="uuid",
    inputs="jsonb",
    at="timestamptz",
)
EVENTS = TogetherInsert(
    BulkInsert("event_key", source="text", external_id="text", event_id="uuid"),
    BulkInsert("event", id="uuid", source="text", external_id="text", type="text", account_id="uuid", time="timestamptz", data="jsonb"),
    BulkInsert("event_waiting", event_id="uuid", account_id="uuid"),
)
EPISODES = BulkInsert(
    "forecast_episode",
    conflict="""ON CONFLICT (account_id, kind) DO UPDATE SET number = excluded.number, is_open = excluded.is_open, stage = excluded.stage,
        changed_at = excluded.changed_at WHERE forecast_episode.number <= excluded.number""",
    account_id="uuid",
    kind="text",
    number="int",
    is_open="bool",
    stage="smallint",
    changed_at="timestamptz",
)
CLOSE_EXHAUSTION = sa.text(f"""
UPDATE forecast_episode e SET is_open = false, changed_at = :now FROM account a
WHERE a.id = e.account_id AND e.kind = 'exhaustion' AND e.is_open AND {OF_SPAN} AND e.account_id <> ALL(CAST(:still AS uuid[]))
""")
CLOSE_THRESHOLD = sa.text(f"""
UPDATE forecast_episode e SET is_open = false, changed_at = :now FROM account a
WHERE a.id = e.account_id AND e.kind = 'threshold' AND e.is_open AND {OF_SPAN} AND (a.threshold IS NULL OR a.balance > a.threshold)
""")


@dataclass(frozen=True, slots=True)
class Told:
    """How many were told, and how many had no need of it."""

    told: int = 0
    covered: int = 0


async def tell(session: Executor, hits: Sequence[Hit], run_id: UUID | None, moment: datetime) -> Told:
    """Store the hits that are new, and make an event of each that is not covered by a more serious one."""
    if not hits:
        return Told()
    ids: dict[UUID, Hit] = {new_id(): hit for hit in hits}
    events = {hit_id: None if hit.covered else new_id() for hit_id, hit in ids.items()}
    rows = [
        (
            hit_id,
            hit.account_id,
            hit.kind,
            hit.episode,
            hit.mark,
            hit.as_of,
            "covered" if hit.covered else "told",
            run_id,
            events[hit_id],
            orjson.dumps(hit.inputs).decode(),
            moment,
        )
        for hit_id, hit in ids.items()
    ]
    stored = await HITS.run(session, rows)
    assert stored is not None
    fresh = {hit_id: ids[hit_id] for hit_id in stored.scalars()}
    keys: list[tuple[Any, ...]] = []
    made: list[tuple[Any, ...]] = []
    waiting: list[tuple[Any, ...]] = []
    for hit_id, hit in fresh.items():
        event_id = events[hit_id]
        if event_id is not None:
            keys.append((SOURCE, str(hit_id), event_id))
            made.append((event_id, SOURCE, str(hit_id), TYPES[hit.kind], hit.account_id, moment, orjson.dumps(hit.data).decode()))
            waiting.append((event_id, hit.account_id))
    await EVENTS.run(session, keys, made, waiting)
    await EPISODES.run(session, [(hit.account_id, hit.kind, hit.episode, True, hit.stage, moment) for hit in fresh.values() if hit.kind != "upcoming"])
    return Told(len(waiting), len(fresh) - len(waiting))


async def close(session: Executor, kind: str, span: Span, looked: Looked, fresh: datetime, moment: datetime) -> None:
    """End the episodes of a slice that have nothing to tell any more. Frozen accounts and stale balances are left as they are."""
    values: dict[str, Any] = {"zone": span.zone, "first": span.first, "last": span.last, "fresh": fresh, "now": moment}
    if kind == "exhaustion":
        await session.execute(CLOSE_EXHAUSTION, values | {"still": looked.still})
    elif kind == "threshold":
        await session.execute(CLOSE_THRESHOLD, values)
