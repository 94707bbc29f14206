"""Clearing up what silence left in doubt: a receipt with an id that nobody knows may still say whose it is.

By the reference that we sent (user_message_reference, SMPP 3.4, 5.3.2.17) and that some SMSCs echo, together with the number; or, where the profile
allows, by number and time alone. Only where exactly one message fits: a wrong guess would be a lie, and a parked receipt loses nothing.
The message's submission learns the id, and from then on the receipt is one like all others.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.core.db import Executor
from app.sending.late import UNNEEDED
from app.sending.settle import SUBMISSIONS
from app.tracking.match import RECEIPT_DAYS
from app.tracking.rules import GatewayRules

# In doubt: unknown, or unknown after the first try while the second one still waits in the queue.
DOUBTFUL = """
SELECT w.id, w.gateway_message_id, w.gateway, w.receipt_group, w.at, m.id AS message_id, m.parts FROM receipt w
JOIN message m ON m.address = '+' || CAST(w.destination AS text) AND m.channel = 'sms' AND m.updated_at >= :oldest AND (
    m.state = 'unknown' OR EXISTS (SELECT FROM outbox o WHERE o.message_id = m.id AND o.resent AND o.state IN ('queued', 'held'))
) AND (
    EXISTS (SELECT FROM submission s WHERE s.message_id = m.id AND s.receipt_group = w.receipt_group)
    OR (m.gateway = ANY(CAST(:gateways AS text[])) AND NOT EXISTS (SELECT FROM submission s WHERE s.message_id = m.id))
)
WHERE w.id = ANY(CAST(:ids AS uuid[])) AND w.status = 'parked' AND w.destination IS NOT NULL AND w.gateway_message_id IS NOT NULL AND {fits}
ORDER BY w.id
"""
# The reference is the last sixteen bits of the message's id.
BY_REFERENCE = sa.text(DOUBTFUL.format(fits="w.reference IS NOT NULL AND w.reference = CAST(CAST('x' || right(CAST(m.id AS text), 4) AS bit(16)) AS int)"))
BY_TIME = sa.text(
    DOUBTFUL.format(
        fits="w.at < :patient AND w.reference IS NULL"
        " AND coalesce((SELECT max(s.claimed_at) FROM submission s WHERE s.message_id = m.id), m.updated_at) BETWEEN w.at - CAST(:window AS interval) AND w.at"
    )
)
SLOTS = sa.text("""
SELECT message_id, n, part, parts, outcome, gateway_message_id FROM submission WHERE message_id = ANY(CAST(:ids AS uuid[])) ORDER BY message_id, n DESC, part
""")
LEARN = sa.text("""
UPDATE submission s SET outcome = 'accepted', gateway_message_id = v.identity, reason = 'known_by_receipt', code = NULL, detail = NULL
FROM unnest(CAST(:ids AS uuid[]), CAST(:tries AS smallint[]), CAST(:parts AS smallint[]), CAST(:identities AS text[])) AS v(id, n, part, identity)
WHERE s.message_id = v.id AND s.n = v.n AND s.part = v.part AND s.outcome = 'unknown' AND s.gateway_message_id IS NULL
""")


@dataclass(frozen=True, slots=True)
class Guess:
    """A parked receipt, and the one message that it can be about."""

    receipt: UUID
    identity: str
    message_id: UUID
    parts: int
    gateway: str
    receipt_group: str
    at: datetime


async def clear_up(session: Executor, rules: GatewayRules, receipt_group: str, parked: Sequence[UUID], moment: datetime) -> list[UUID]:
    """Let the submissions of doubtful messages learn the ids of these receipts. The receipts that can be taken home now."""
    values: dict[str, Any] = {"ids": list(parked), "gateways": rules.in_group(receipt_group), "oldest": moment - timedelta(days=RECEIPT_DAYS)}
    rows = list((await session.execute(BY_REFERENCE, values)).all())
    for window, patience in {(rule.match_unknown, rule.patience) for name in rules.in_group(receipt_group) if (rule := rules.of(name)).match_unknown}:
        rows += (await session.execute(BY_TIME, values | {"window": window, "patient": moment - patience})).all()
    guesses = only_candidates(rows)
    return await learn(session, guesses, moment) if guesses else []


def only_candidates(rows: Sequence[Any]) -> list[Guess]:
    """Receipts that fit one message and no other."""
    candidates: dict[UUID, dict[UUID, Any]] = defaultdict(dict)
    for row in rows:
        candidates[row.id][row.message_id] = row
    found = [next(iter(fits.values())) for fits in candidates.values() if len(fits) == 1]
    return [Guess(row.id, row.gateway_message_id, row.message_id, row.parts, row.gateway, row.receipt_group, row.at) for row in found]


async def learn(session: Executor, guesses: Sequence[Guess], moment: datetime) -> list[UUID]:
    """Each id takes a part of its message that has none. With more ids than such parts it is unclear whose they are, and nothing is learnt."""
    slots: dict[UUID, list[Any]] = defaultdict(list)
    for row in (await session.execute(SLOTS, {"ids": list({guess.message_id for guess in guesses})})).all():
        slots[row.message_id].append(row)
    told: dict[UUID, dict[str, Guess]] = defaultdict(dict)
    for guess in guesses:
        told[guess.message_id].setdefault(guess.identity, guess)
    learnt, made, homes = [], [], set[UUID]()
    for message_id, by_identity in told.items():
        rows, identities = slots[message_id], sorted(by_identity, key=lambda identity: (len(identity), identity))
        free = [(row.n, row.part) for row in rows if row.n == rows[0].n and row.outcome == "unknown" and not row.gateway_message_id]
        if not rows:  # its worker died before it could write any
            first = next(iter(by_identity.values()))
            free = [(1, part) for part in range(1, first.parts + 1)]
        if len(identities) > len(free):
            continue
        homes.add(message_id)
        for identity, (n, part) in zip(identities, free, strict=False):
            if rows:
                learnt.append((message_id, n, part, identity))
            else:
                made.append(submission(by_identity[identity], n, part))
    if learnt:
        await session.execute(LEARN, dict(zip(("ids", "tries", "parts", "identities"), map(list, zip(*learnt, strict=True)), strict=True)))
    await SUBMISSIONS.run(session, made)
    if homes:
        await session.execute(UNNEEDED, {"ids": list(homes), "reason": "no_answer", "now": moment})
    return [guess.receipt for guess in guesses if guess.message_id in homes]


def submission(guess: Guess, n: int, part: int) -> tuple[Any, ...]:
    """The row that nobody lived to write."""
    known = (guess.message_id, n, part, guess.parts, guess.gateway, guess.receipt_group, guess.identity, None)
    return (*known, "accepted", "known_by_receipt", None, None, guess.at, guess.at)
