"""A message and its copies: what was sent again points to what it is a copy of, and that may be a copy itself."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.notifications.follow import bounds
from app.notifications.states import IN_OUTBOX, State

# Up as far as there is something: months are dropped.
ROOTS = sa.text("""
WITH RECURSIVE up AS (
    SELECT v.id, v.id AS at, (SELECT m.resend_of FROM message m WHERE m.id = v.id) AS before, 0 AS steps FROM unnest(CAST(:ids AS uuid[])) AS v(id)
    UNION ALL SELECT up.id, b.id, b.resend_of, up.steps + 1
    FROM up CROSS JOIN LATERAL (SELECT m.id, m.resend_of FROM message m WHERE m.id = up.before OFFSET 0) b
)
SELECT DISTINCT ON (id) id, at AS root FROM up ORDER BY id, steps DESC
""")
# By keys: a join could become a walk through the whole table. Whoever sends any message of a chain again locks the first one of it.
LOCK = sa.text("SELECT id FROM message WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE")
# Whoever erases an account waits for us, and sees what we have made; or we for him, and what we would send has no address any more. Nobody else waits.
ACCOUNTS = sa.text("""
SELECT id FROM account WHERE id = ANY(ARRAY(SELECT DISTINCT account_id FROM message WHERE id = ANY(CAST(:ids AS uuid[])))) ORDER BY id FOR KEY SHARE
""")
# By the accounts' own messages, each account's once, and only from the first one of its chains on. LATERAL .. OFFSET 0: as in `follow`.
COPIES = sa.text("""
SELECT c.id, c.resend_of, c.state FROM (
    SELECT r.account_id, CAST(min(CAST(v.since AS text)) AS uuid) AS since FROM unnest(CAST(:roots AS uuid[]), CAST(:since AS uuid[])) AS v(id, since)
    CROSS JOIN LATERAL (SELECT m.account_id FROM message m WHERE m.id = v.id OFFSET 0) r GROUP BY 1
) a CROSS JOIN LATERAL (
    SELECT m.id, m.resend_of, coalesce((SELECT o.state FROM outbox o WHERE o.message_id = m.id), m.state) AS state
    FROM message m WHERE m.account_id = a.account_id AND m.id > a.since AND m.resend_of IS NOT NULL AND NOT m.test OFFSET 0
) c
""")
ROOT_STATES = sa.text("""
SELECT m.id, coalesce((SELECT o.state FROM outbox o WHERE o.message_id = m.id), m.state) AS state FROM message m WHERE m.id = ANY(CAST(:roots AS uuid[]))
""")
HAS_GONE = frozenset({*IN_OUTBOX, State.ACCEPTED, State.DELIVERED})


@dataclass(frozen=True, slots=True)
class Chain:
    """What is known of the chain of one message."""

    root: UUID
    has_copy: bool  # it was sent again itself
    has_gone: bool  # another one of its chain is under way, or has arrived
    in_doubt: bool  # another one may have arrived


async def roots_of(session: AsyncSession, ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """Of each message the one that it is a copy of in the end: itself, for nearly all."""
    return {row.id: row.root for row in (await session.execute(ROOTS, {"ids": list(ids)})).all()}


async def lock_chain(session: AsyncSession, ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """Nobody else sends these, or copies of the same, again before our transaction ends; what others have sent is seen by the statements that follow.
    Nor does their state change, or their account go. Their roots."""
    await session.execute(ACCOUNTS, {"ids": list(ids)})
    roots = await roots_of(session, ids)
    await session.execute(LOCK, {"ids": sorted({*ids, *roots.values()})})
    return roots


async def chains_of(session: AsyncSession, roots: dict[UUID, UUID]) -> dict[UUID, Chain]:
    """By message. Two queries, however many."""
    firsts = sorted(set(roots.values()))
    values = {"roots": firsts, "since": bounds(firsts)}
    states = {row.id: row.state for row in (await session.execute(ROOT_STATES, {"roots": firsts})).all()}
    before: dict[UUID, UUID] = {}
    for row in (await session.execute(COPIES, values)).all():
        before[row.id], states[row.id] = row.resend_of, row.state
    members: dict[UUID, set[UUID]] = defaultdict(set)
    for one in {*states, *roots}:
        members[_root(one, before)].add(one)
    copied = set(before.values())
    others = {one: {states.get(other) for other in members[_root(one, before)] if other != one} for one in roots}
    return {one: Chain(root, one in copied, not HAS_GONE.isdisjoint(others[one]), State.UNKNOWN in others[one]) for one, root in roots.items()}


def _root(one: UUID, before: dict[UUID, UUID]) -> UUID:
    while one in before:
        one = before[one]
    return one
