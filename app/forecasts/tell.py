"""What was found becomes events: once for each (account, kind, episode, mark), in one statement with the state of the episodes.

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
from app.forecasts.find import OF_THEM, TYPES, Hit
from app.forecasts.rules import Span, These, whose

SOURCE = "/vestnik/forecasts"

_TELL = """
WITH given AS MATERIALIZED ({found}), hit AS (
    INSERT INTO forecast_hit (id, account_id, kind, episode, mark, as_of, outcome, run_id, event_id, inputs, at)
    SELECT (CAST(:hits AS uuid[]))[n], account_id, kind, episode, mark, as_of, CASE WHEN covered THEN 'covered' ELSE 'told' END, CAST(:run_id AS uuid),
        CASE WHEN NOT covered THEN (CAST(:events AS uuid[]))[n] END, inputs, :now
    FROM given ON CONFLICT (account_id, kind, episode, mark) DO NOTHING RETURNING id, account_id, kind, event_id
), fresh AS MATERIALIZED (
    SELECT h.id, h.event_id, g.* FROM hit h JOIN given g ON g.account_id = h.account_id AND g.kind = h.kind
), keyed AS (
    INSERT INTO event_key (source, external_id, event_id) SELECT :source, CAST(id AS text), event_id FROM fresh WHERE NOT covered
), made AS (
    INSERT INTO event (id, source, external_id, type, account_id, time, data)
    SELECT event_id, :source, CAST(id AS text), type, account_id, :now, data FROM fresh WHERE NOT covered
), waiting AS (
    INSERT INTO event_waiting (event_id, account_id) SELECT event_id, account_id FROM fresh WHERE NOT covered
), episodes AS (
    INSERT INTO forecast_episode (account_id, kind, number, is_open, stage, changed_at)
    SELECT account_id, kind, episode, true, stage, :now FROM fresh WHERE kind <> 'upcoming'
    ON CONFLICT (account_id, kind) DO UPDATE SET number = excluded.number, is_open = excluded.is_open, stage = excluded.stage, changed_at = excluded.changed_at
    WHERE forecast_episode.number <= excluded.number
)
SELECT count(*) FILTER (WHERE NOT covered) AS told, count(*) FILTER (WHERE covered) AS covered FROM fresh
"""
TELL_FOUND = sa.text(_TELL.format(found="SELECT * FROM found"))
TELL_HITS = sa.text(
    _TELL.format(
        found="""SELECT n, account_id, kind, type, as_of, episode, mark, stage, covered, CAST(data AS jsonb) AS data, CAST(inputs AS jsonb) AS inputs FROM unnest(
    CAST(:accounts AS uuid[]), CAST(:kinds AS text[]), CAST(:types AS text[]), CAST(:days AS date[]), CAST(:episodes AS int[]), CAST(:marks AS text[]),
    CAST(:stages AS smallint[]), CAST(:covered AS bool[]), CAST(:data AS text[]), CAST(:inputs AS text[])
) WITH ORDINALITY AS g(account_id, kind, type, as_of, episode, mark, stage, covered, data, inputs, n)"""
    )
)
MANY = sa.text("SELECT count(*) FROM found")
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
# A balance that is still to be looked at by itself (the planner and the sweep do that) ends its spells there: with the notice that all is well again.
LOOKED_AT = f"""NOT EXISTS (SELECT FROM balance_moved b WHERE b.account_id = a.id) AND NOT EXISTS (
    SELECT FROM event_waiting w JOIN event n ON n.id = w.event_id WHERE w.account_id = a.id AND n.source <> '{SOURCE}' AND NOT n.test AND n.data ? 'balance'
)"""
CLOSE_EXHAUSTION = whose(f"""
UPDATE forecast_episode e SET is_open = false, changed_at = :now FROM account a
WHERE «e.account_id» AND e.kind = 'exhaustion' AND e.is_open AND a.id = e.account_id AND {OF_THEM} AND NOT EXISTS (SELECT FROM running_out r WHERE r.id = e.account_id)
  AND {LOOKED_AT}
""")
CLOSE_THRESHOLD = whose(f"""
UPDATE forecast_episode e SET is_open = false, changed_at = :now FROM account a
WHERE «e.account_id» AND e.kind = 'threshold' AND e.is_open AND a.id = e.account_id AND {OF_THEM} AND (a.warned_at IS NULL OR a.balance > a.warned_at)
  AND {LOOKED_AT}
""")


@dataclass(frozen=True, slots=True)
class Told:
    """How many were told, and how many had no need of it."""

    told: int = 0
    covered: int = 0


async def tell(session: Executor, run_id: UUID, moment: datetime) -> Told:
    """Store the hits in the table `found` that are new, and make an event of each that is not covered by a more serious one."""
    many = (await session.execute(MANY)).scalar_one()
    return await _tell(session, TELL_FOUND, many, {"run_id": run_id, "now": moment}) if many else Told()


async def tell_hits(session: Executor, hits: Sequence[Hit], moment: datetime) -> Told:
    """The same of given ones, seen at a change of the balance."""
    if not hits:
        return Told()
    columns = {
        "accounts": [hit.account_id for hit in hits],
        "kinds": [hit.kind for hit in hits],
        "types": [TYPES[hit.kind] for hit in hits],
        "days": [hit.as_of for hit in hits],
        "episodes": [hit.episode for hit in hits],
        "marks": [hit.mark for hit in hits],
        "stages": [hit.stage for hit in hits],
        "covered": [hit.covered for hit in hits],
        "data": [orjson.dumps(hit.data).decode() for hit in hits],
        "inputs": [orjson.dumps(hit.inputs).decode() for hit in hits],
    }
    return await _tell(session, TELL_HITS, len(hits), columns | {"run_id": None, "now": moment})


async def _tell(session: Executor, statement: sa.TextClause, many: int, values: dict[str, Any]) -> Told:
    ids = {"hits": [new_id() for _ in range(many)], "events": [new_id() for _ in range(many)], "source": SOURCE}
    return Told(*(await session.execute(statement, values | ids)).one())


async def close(session: Executor, kind: str, them: Span | These, fresh: datetime, moment: datetime) -> None:
    """End the episodes of a slice that have nothing to tell any more, before others are told. Of exhaustion those that are not in `running_out`.
    Frozen accounts and stale balances are left as they are."""
    if kind != "upcoming":
        statement = CLOSE_EXHAUSTION if kind == "exhaustion" else CLOSE_THRESHOLD
        await session.execute(statement[them.way], them.values | {"fresh": fresh, "now": moment})
