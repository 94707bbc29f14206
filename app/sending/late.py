"""Late answers: a submit_sm_resp that came after its time was up clears up what silence had left in doubt.

It names the part, not the try: of several silent tries the oldest learns the id. A second try that still waits in the queue is not needed any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from app.core.db import Executor
from app.core.ids import new_id
from app.notifications.states import SECOND_TRY, State, before
from app.sending.settle import ID_LENGTH, Policy, Settled, clean

LEARN = sa.text("""
UPDATE submission s SET outcome = 'accepted', gateway_message_id = nullif(g.identity, ''), reason = 'late_answer', code = NULL, detail = NULL
FROM (
    SELECT DISTINCT ON (message_id, part) * FROM unnest(CAST(:ids AS uuid[]), CAST(:parts AS smallint[]), CAST(:identities AS text[])) AS v(message_id, part, identity)
) g
WHERE s.message_id = g.message_id AND s.part = g.part AND s.gateway = :gateway AND s.outcome = 'unknown'
  AND s.n = (SELECT min(x.n) FROM submission x WHERE x.message_id = s.message_id AND x.part = s.part AND x.gateway = :gateway AND x.outcome = 'unknown')
RETURNING s.message_id
""")
# A message is taken when all parts of one of its tries are.
TAKEN = sa.text("""
WITH whole AS (
    SELECT DISTINCT message_id FROM (
        SELECT message_id FROM submission WHERE message_id = ANY(CAST(:ids AS uuid[]))
        GROUP BY message_id, n HAVING bool_and(outcome = 'accepted') AND count(*) = max(parts)
    ) tries
), unneeded AS (
    DELETE FROM outbox WHERE message_id = ANY(ARRAY(SELECT message_id FROM whole)) AND resent AND state = ANY(CAST(:waiting AS text[])) RETURNING message_id
)
UPDATE message SET state = :accepted, reason = NULL, gateway = :gateway, updated_at = :now
WHERE id = ANY(ARRAY(SELECT message_id FROM whole)) AND (state = ANY(CAST(:unknown AS text[])) OR id = ANY(ARRAY(SELECT message_id FROM unneeded)))
RETURNING id, channel, type
""")
# The second try is not needed any more. What is known of the first comes next, and moves it on from here.
UNNEEDED = sa.text("""
WITH gone AS (
    DELETE FROM outbox WHERE message_id = ANY(CAST(:ids AS uuid[])) AND resent AND state IN ('queued', 'held') RETURNING message_id
)
UPDATE message SET state = 'unknown', reason = :reason, updated_at = :now WHERE id = ANY(ARRAY(SELECT message_id FROM gone))
""")
TOLD = sa.text("""
INSERT INTO message_change (id, message_id, at, state, reason, detail)
SELECT c.id, c.message_id, :now, :accepted, 'late_answer', 'the answer came after its time was up'
FROM unnest(CAST(:changes AS uuid[]), CAST(:ids AS uuid[])) AS c(id, message_id)
""")


@dataclass(frozen=True, slots=True)
class Late:
    """The far side has taken this part after all. Parts are counted from one."""

    message_id: UUID
    part: int
    gateway_message_id: str


async def settle_late(session: Executor, policy: Policy, answers: Sequence[Late], now: datetime, settled: Settled) -> None:
    """Write these answers; what they moved, and the ids that receipts may wait for, go into `settled`. Running it twice changes nothing the second time."""
    identities = [clean(answer.gateway_message_id, ID_LENGTH) for answer in answers]
    given = {"ids": [answer.message_id for answer in answers], "parts": [answer.part for answer in answers], "identities": identities}
    learned = list((await session.execute(LEARN, given | {"gateway": policy.gateway})).scalars())
    settled.gateway_message_ids += [identity for identity in identities if identity]
    if not learned:
        return
    values = {"ids": learned, "waiting": [state.value for state in SECOND_TRY], "unknown": before(State.ACCEPTED), "accepted": State.ACCEPTED.value}
    moved = (await session.execute(TAKEN, values | {"gateway": policy.gateway, "now": now})).all()
    settled.resent += set(learned).difference(row.id for row in moved)  # of some a part is known now: no second try is made of them
    if moved:
        told = {"changes": [new_id() for _ in moved], "ids": [row.id for row in moved], "now": now, "accepted": State.ACCEPTED.value}
        await session.execute(TOLD, told)
    for row in moved:
        settled.moved[row.channel, policy.gateway, row.type, State.ACCEPTED] += 1
