"""Receipts find their messages: by the gateway's id, the newest submission first, within the group of gateways that share receipts.

What finds none is parked (it may be quicker than the answer to its submit) and tried again when that answer is settled, and by the sweeper.
The same (message, part, stat) changes nothing the second time.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.core import metrics
from app.core.clock import now as clock
from app.core.db import Executor
from app.core.ids import first_id_at, new_id
from app.notifications.states import State, before
from app.sending.settle import ID_LENGTH, Policy, clean
from app.sending.smpp.receipts import Receipt as WireReceipt

# Older submissions are not looked at: an SMSC that restarts uses its ids again.
RECEIPT_DAYS = 7

# One round trip: each receipt finds its submission, all are stored, and what is plainly delivered (one part, the usual case) moves.
# The last lines are those that were parked for ids which have just got their submissions.
RECEIVE = sa.text("""
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:gateway_message_ids AS text[]), CAST(:readable AS bool[]), CAST(:stats AS text[]),
                         CAST(:states AS text[]), CAST(:reasons AS text[]), CAST(:raws AS bytea[]))
        AS g(id, gateway_message_id, readable, stat, state, reason, raw)
), homes AS MATERIALIZED (
    SELECT g.*, s.message_id, s.part, s.parts FROM given g LEFT JOIN LATERAL (
        SELECT message_id, part, parts FROM submission
        WHERE g.readable AND gateway_message_id = g.gateway_message_id AND receipt_group = :receipt_group AND message_id >= :oldest
        ORDER BY at DESC, message_id DESC, n DESC LIMIT 1
    ) s ON true
), stored AS (
    INSERT INTO receipt (id, at, gateway, receipt_group, gateway_message_id, message_id, part, status, stat, state, reason, raw)
    SELECT id, :now, :gateway, :receipt_group, gateway_message_id, message_id, part,
           CASE WHEN NOT readable THEN 'quarantined' WHEN message_id IS NULL THEN 'parked' ELSE 'matched' END, stat, state, reason, raw
    FROM homes ON CONFLICT DO NOTHING RETURNING id, status
), delivered AS (
    UPDATE message SET state = :delivered, reason = NULL, updated_at = :now
    WHERE id = ANY(ARRAY(SELECT message_id FROM homes WHERE parts = 1 AND state = :delivered)) AND state = ANY(CAST(:before AS text[]))
    RETURNING id, channel, coalesce(gateway, 'none') AS gateway, type
)
SELECT h.message_id, h.part, h.parts, h.state, h.reason, h.gateway_message_id, CAST(NULL AS uuid) AS parked,
       coalesce(s.status, 'duplicate') AS result, d.channel, d.gateway, d.type
FROM homes h LEFT JOIN stored s ON s.id = h.id LEFT JOIN delivered d ON d.id = h.message_id
UNION ALL
SELECT NULL, NULL, NULL, p.state, p.reason, p.gateway_message_id, p.id, 'parked', NULL, NULL, NULL FROM receipt p
WHERE p.status = 'parked' AND p.receipt_group = :receipt_group AND p.gateway_message_id = ANY(CAST(:settled AS text[]))
""")
MATCH = sa.text("""
SELECT r.id, s.message_id, s.part, s.parts FROM (SELECT DISTINCT unnest(CAST(:ids AS text[])) AS id) r
CROSS JOIN LATERAL (
    SELECT message_id, part, parts FROM submission
    WHERE gateway_message_id = r.id AND receipt_group = :receipt_group AND message_id >= :oldest
    ORDER BY at DESC, message_id DESC, n DESC LIMIT 1
) s
""")
MOVE = sa.text("""
UPDATE message SET state = :state, reason = :reason, updated_at = :now
WHERE id = ANY(CAST(:ids AS uuid[])) AND state = ANY(CAST(:before AS text[])) RETURNING channel, coalesce(gateway, 'none'), type
""")
PARTS = sa.text("""
SELECT message_id, part, array_agg(state ORDER BY at) AS states, array_agg(reason ORDER BY at) AS reasons FROM receipt
WHERE message_id = ANY(CAST(:ids AS uuid[])) AND status = 'matched' AND state IS NOT NULL GROUP BY message_id, part
""")
PARKED = sa.text("""
SELECT id, gateway_message_id, state, reason, stat FROM receipt
WHERE status = 'parked' AND receipt_group = :receipt_group AND gateway_message_id = ANY(CAST(:ids AS text[]))
""")
UNPARK = sa.text("""
UPDATE receipt r SET status = 'matched', message_id = v.message_id, part = v.part
FROM unnest(CAST(:ids AS uuid[]), CAST(:messages AS uuid[]), CAST(:parts AS smallint[])) AS v(id, message_id, part)
WHERE r.id = v.id AND NOT EXISTS (SELECT FROM receipt d WHERE d.message_id = v.message_id AND d.part = v.part AND d.stat = r.stat)
""")


@dataclass(frozen=True, slots=True)
class Home:
    """The submission that a receipt speaks of."""

    message_id: UUID
    part: int
    parts: int


@dataclass(frozen=True, slots=True)
class News:
    """A state reported for one part of a message; no state: still on its way."""

    home: Home
    state: str | None
    reason: str | None


async def record(session: Executor, policy: Policy, receipts: Sequence[WireReceipt], settled_ids: Sequence[str]) -> None:
    """Store these receipts and move their messages; `settled_ids` have just got their submissions, and parked receipts may wait for them.

    May be repeated: whatever a process had not finished when it died comes again from the far side, and is moved then."""
    moment = clock()
    rows = (await session.execute(RECEIVE, received(policy, receipts, settled_ids, moment))).all()
    count(policy.gateway, rows)
    parked = [row for row in rows if row.parked is not None]
    matched = [row for row in rows if row.message_id is not None]
    news = [News(Home(row.message_id, row.part, row.parts), row.state, row.reason) for row in matched if row.parts > 1 or row.state != State.DELIVERED]
    await move(session, news, moment)
    if parked:
        await take_home(session, policy.receipt_group, [(row.parked, row.gateway_message_id, row.state, row.reason) for row in parked], moment)


def received(policy: Policy, receipts: Sequence[WireReceipt], settled_ids: Sequence[str], moment: datetime) -> dict[str, Any]:
    """The parameters of RECEIVE."""
    identities = [clean(r.gateway_message_id, ID_LENGTH) or None for r in receipts]
    return {
        "ids": [new_id() for _ in receipts],
        "gateway_message_ids": identities,
        "readable": [r.kind == "receipt" and identity is not None for r, identity in zip(receipts, identities, strict=True)],
        "stats": [clean(r.stat, 32) for r in receipts],
        "states": [r.state for r in receipts],
        "reasons": [clean(r.reason, 64) or None for r in receipts],
        "raws": [r.raw for r in receipts],
        "receipt_group": policy.receipt_group,
        "gateway": policy.gateway,
        "oldest": first_id_at(moment - timedelta(days=RECEIPT_DAYS)),
        "now": moment,
        "delivered": State.DELIVERED.value,
        "before": before(State.DELIVERED),
        "settled": list(settled_ids),
    }


def count(gateway: str, rows: Sequence[Any]) -> None:
    for result, number in Counter(row.result for row in rows if row.parked is None).items():
        metrics.RECEIPTS.labels(gateway, result).inc(number)
    for labels, number in Counter((row.channel, row.gateway, row.type) for row in rows if row.channel is not None).items():
        metrics.MESSAGES.labels(*labels, State.DELIVERED.value).inc(number)


async def find(session: Executor, group: str, ids: Sequence[str], moment: datetime) -> dict[str, Home]:
    if not ids:
        return {}
    values = {"ids": list(ids), "receipt_group": group, "oldest": first_id_at(moment - timedelta(days=RECEIPT_DAYS))}
    return {row.id: Home(row.message_id, row.part, row.parts) for row in (await session.execute(MATCH, values)).all()}


async def unpark(session: Executor, group: str, ids: Sequence[str], moment: datetime) -> int:
    """Parked receipts of these ids that have a submission by now move their messages. How many there were."""
    parked = (await session.execute(PARKED, {"receipt_group": group, "ids": list(ids)})).all() if ids else []
    return await take_home(session, group, [(row.id, row.gateway_message_id, row.state, row.reason) for row in parked], moment)


async def take_home(session: Executor, group: str, parked: Sequence[tuple[UUID, str, str | None, str | None]], moment: datetime) -> int:
    """Give parked receipts (row, gateway's id, state, reason) to the submissions that have these ids by now. How many found theirs.

    First the messages move, then the receipts are no longer parked: whoever dies in between leaves them to the sweeper."""
    homes = await find(session, group, [gateway_id for _, gateway_id, _, _ in parked], moment)
    found = [(row_id, homes[gateway_id], state, reason) for row_id, gateway_id, state, reason in parked if gateway_id in homes]
    if found:
        await move(session, [News(home, state, reason) for _, home, state, reason in found], moment)
        columns = {
            "ids": [row_id for row_id, *_ in found],
            "messages": [home.message_id for _, home, *_ in found],
            "parts": [home.part for _, home, *_ in found],
        }
        await session.execute(UNPARK, columns)
    return len(found)


async def move(session: Executor, news: Sequence[News], moment: datetime) -> None:
    """Move the messages that the news is about; of a long message only when all its parts are known."""
    targets: dict[tuple[str, str | None], list[UUID]] = defaultdict(list)
    several: list[News] = []
    for item in news:
        if item.state is None:
            targets[State.ACCEPTED, None].append(item.home.message_id)  # a sign of life of what was in doubt; no other state allows it
        elif item.home.parts == 1:
            targets[item.state, None if item.state == State.DELIVERED else item.reason].append(item.home.message_id)
        else:
            several.append(item)
    if several:
        for message_id, (state, reason) in (await _whole(session, several)).items():
            targets[state, reason].append(message_id)
    # Bad news first: when both came in one flush, the delivery is the later truth and may overwrite it.
    for (state, reason), ids in sorted(targets.items(), key=lambda target: (target[0][0] == State.DELIVERED, str(target[0]))):
        values = {"state": state, "reason": reason, "ids": ids, "before": before(State(state)), "now": moment}
        moved = Counter(await session.execute(MOVE, values))
        for (channel, gateway, kind), number in moved.items():
            metrics.MESSAGES.labels(channel, gateway, kind, state).inc(number)


async def _whole(session: Executor, news: Sequence[News]) -> dict[UUID, tuple[str, str | None]]:
    """The state of messages of several parts: delivered when all are; the first bad part's state once every part is final."""
    count = {item.home.message_id: item.home.parts for item in news}
    known: dict[UUID, dict[int, list[tuple[str, str | None]]]] = defaultdict(lambda: defaultdict(list))
    for row in (await session.execute(PARTS, {"ids": list(count)})).all():
        known[row.message_id][row.part] += zip(row.states, row.reasons, strict=True)
    for item in news:  # what was parked is not among the matched ones yet
        assert item.state is not None
        known[item.home.message_id][item.home.part].append((item.state, item.reason))
    whole: dict[UUID, tuple[str, str | None]] = {}
    for message_id, parts in known.items():
        if len(parts) == count[message_id]:
            bad = [told[-1] for _, told in sorted(parts.items()) if State.DELIVERED not in dict(told)]
            whole[message_id] = bad[0] if bad else (State.DELIVERED, None)
    return whole
