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
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import metrics
from app.core.clock import now as clock
from app.core.db import BulkInsert
from app.core.ids import first_id_at, new_id
from app.notifications.states import State, before
from app.sending.settle import Policy
from app.sending.smpp.receipts import Receipt as WireReceipt

# Older submissions are not looked at: an SMSC that restarts uses its ids again.
RECEIPT_DAYS = 7

RECEIPTS = BulkInsert(
    "receipt",
    conflict="ON CONFLICT DO NOTHING",
    returning="RETURNING id",
    id="uuid",
    at="timestamptz",
    gateway="text",
    receipt_group="text",
    gateway_message_id="text",
    message_id="uuid",
    part="smallint",
    status="text",
    stat="text",
    state="text",
    reason="text",
    raw="bytea",
)
MATCH = sa.text("""
SELECT r.id, s.message_id, s.part, s.parts FROM (SELECT DISTINCT unnest(CAST(:ids AS text[])) AS id) r
CROSS JOIN LATERAL (
    SELECT message_id, part, parts FROM submission
    WHERE gateway_message_id = r.id AND receipt_group = :receipt_group AND message_id >= :oldest
    ORDER BY message_id DESC, n DESC LIMIT 1
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


async def record(session: AsyncSession, policy: Policy, receipts: Sequence[WireReceipt], settled_ids: Sequence[str]) -> None:
    """Store these receipts and move their messages; `settled_ids` have just got their submissions, and parked receipts may wait for them."""
    moment = clock()
    homes = await find(session, policy.receipt_group, [r.gateway_message_id for r in receipts if r.kind == "receipt" and r.gateway_message_id], moment)
    news = await _store(session, policy, receipts, homes, moment)
    news += await unpark(session, policy.receipt_group, settled_ids, moment)
    await move(session, news, moment)


async def find(session: AsyncSession, group: str, ids: Sequence[str], moment: datetime) -> dict[str, Home]:
    if not ids:
        return {}
    values = {"ids": list(ids), "receipt_group": group, "oldest": first_id_at(moment - timedelta(days=RECEIPT_DAYS))}
    return {row.id: Home(row.message_id, row.part, row.parts) for row in (await session.execute(MATCH, values)).all()}


async def _store(session: AsyncSession, policy: Policy, receipts: Sequence[WireReceipt], homes: dict[str, Home], moment: datetime) -> list[News]:
    rows: list[tuple[Any, ...]] = []
    news: dict[UUID, News] = {}
    results: dict[UUID, str] = {}
    for receipt in receipts:
        home = homes.get(receipt.gateway_message_id or "")
        status = "quarantined" if receipt.kind != "receipt" or not receipt.gateway_message_id else "matched" if home else "parked"
        row_id = new_id()
        results[row_id] = status
        if status == "matched" and home is not None:
            news[row_id] = News(home, receipt.state, receipt.reason)
        rows.append(
            (
                row_id,
                moment,
                policy.gateway,
                policy.receipt_group,
                clean(receipt.gateway_message_id, 200) or None,
                home.message_id if status == "matched" and home else None,
                home.part if status == "matched" and home else None,
                status,
                clean(receipt.stat, 32),
                receipt.state,
                clean(receipt.reason, 64) or None,
                receipt.raw,
            )
        )
    stored = await RECEIPTS.run(session, rows)
    kept = set(stored.scalars()) if stored is not None else set()
    for result, number in Counter(status if row_id in kept else "duplicate" for row_id, status in results.items()).items():
        metrics.RECEIPTS.labels(policy.gateway, result).inc(number)
    return [item for row_id, item in news.items() if row_id in kept]


def clean(text: str, longest: int) -> str:
    """Of the far side's words what PostgreSQL can hold; `raw` has them all."""
    return text.replace("\0", "")[:longest]


async def unpark(session: AsyncSession, group: str, ids: Sequence[str], moment: datetime) -> list[News]:
    """Parked receipts of these ids that have a submission by now."""
    if not ids:
        return []
    parked = (await session.execute(PARKED, {"receipt_group": group, "ids": list(ids)})).all()
    if not parked:
        return []
    homes = await find(session, group, [row.gateway_message_id for row in parked], moment)
    found = [(row, homes[row.gateway_message_id]) for row in parked if row.gateway_message_id in homes]
    if found:
        columns = {"ids": [row.id for row, _ in found], "messages": [home.message_id for _, home in found], "parts": [home.part for _, home in found]}
        await session.execute(UNPARK, columns)
    return [News(home, row.state, row.reason) for row, home in found]


async def move(session: AsyncSession, news: Sequence[News], moment: datetime) -> None:
    """Move the messages that the news is about; of a long message only when all its parts are known."""
    targets: dict[tuple[str, str | None], list[UUID]] = defaultdict(list)
    several: set[UUID] = set()
    parts: dict[UUID, int] = {}
    for item in news:
        if item.state is None:
            targets[State.ACCEPTED, None].append(item.home.message_id)  # a sign of life of what was in doubt; no other state allows it
        elif item.home.parts == 1:
            targets[item.state, None if item.state == State.DELIVERED else item.reason].append(item.home.message_id)
        else:
            several.add(item.home.message_id)
            parts[item.home.message_id] = item.home.parts
    if several:
        for message_id, (state, reason) in (await _whole(session, several, parts)).items():
            targets[state, reason].append(message_id)
    # Bad news first: when both came in one flush, the delivery is the later truth and may overwrite it.
    for (state, reason), ids in sorted(targets.items(), key=lambda target: (target[0][0] == State.DELIVERED, str(target[0]))):
        values = {"state": state, "reason": reason, "ids": ids, "before": before(State(state)), "now": moment}
        moved = Counter((await session.execute(MOVE, values)).tuples())
        for (channel, gateway, kind), number in moved.items():
            metrics.MESSAGES.labels(channel, gateway, kind, state).inc(number)


async def _whole(session: AsyncSession, ids: set[UUID], parts: dict[UUID, int]) -> dict[UUID, tuple[str, str | None]]:
    """The state of messages of several parts: delivered when all are; the first bad part's state once every part is final."""
    finals: dict[UUID, list[tuple[str, str | None]]] = defaultdict(list)
    for row in (await session.execute(PARTS, {"ids": list(ids)})).all():
        good = State.DELIVERED in row.states
        finals[row.message_id].append((State.DELIVERED, None) if good else (row.states[-1], row.reasons[-1]))
    whole: dict[UUID, tuple[str, str | None]] = {}
    for message_id, states in finals.items():
        if len(states) == parts[message_id]:
            bad = [state for state in states if state[0] != State.DELIVERED]
            whole[message_id] = bad[0] if bad else (State.DELIVERED, None)
    return whole
