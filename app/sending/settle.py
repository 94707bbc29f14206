"""Settle: what came of a claim is written, guarded by "still ours", in a few statements for hundreds of messages.

Running it twice changes nothing the second time. An outcome that comes after the lease has ended (the sweeper has already said `unknown`)
is the late truth and clears that up.
"""

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, assert_never
from uuid import UUID

import sqlalchemy as sa

from app.core.db import BulkInsert, Executor
from app.notifications.states import State, before
from app.sending.claim import Claimed
from app.sending.outcome import Accepted, Deferred, Outcome, Refused, Unknown

SUBMISSIONS = BulkInsert(
    "submission",
    conflict="ON CONFLICT DO NOTHING",
    message_id="uuid",
    n="smallint",
    part="smallint",
    parts="smallint",
    gateway="text",
    receipt_group="text",
    gateway_message_id="text",
    outcome="text",
    reason="text",
    code="text",
    detail="text",
    claimed_at="timestamptz",
    at="timestamptz",
)

# Guards are parameters: a literal would let the planner walk the whole partial index for every row.
MOVE = sa.text("""
WITH gone AS (
    DELETE FROM outbox WHERE message_id = ANY(CAST(:ids AS uuid[])) AND claimed_by = :owner AND state = ANY(CAST(:sending AS text[])) RETURNING message_id
)
UPDATE message SET state = :state, reason = :reason, gateway = :gateway, updated_at = :now
WHERE id = ANY(ARRAY(SELECT message_id FROM gone)) RETURNING id
""")
# The usual flush, nothing but taken messages: their parts and their state in one round trip.
TAKEN = sa.text(f"""
WITH parts AS ({SUBMISSIONS.sql}), gone AS (
    DELETE FROM outbox WHERE message_id = ANY(CAST(:ids AS uuid[])) AND claimed_by = :owner AND state = ANY(CAST(:sending AS text[])) RETURNING message_id
)
UPDATE message SET state = :state, reason = :reason, gateway = :gateway, updated_at = :now
WHERE id = ANY(ARRAY(SELECT message_id FROM gone)) RETURNING id
""")
LATE = sa.text("""
UPDATE message SET state = :state, reason = :reason, updated_at = :now
WHERE id = ANY(CAST(:ids AS uuid[])) AND state = ANY(CAST(:unknown AS text[])) RETURNING id
""")
# Only the try that it speaks of: when the answer to the first commit was lost, the same owner may have the message on the wire again by now.
# A message that is put off every second would get past a smallint in nine hours.
PUT_BACK = sa.text("""
UPDATE outbox o SET state = 'queued', claimed_by = NULL, lease_until = NULL, not_before = v.not_before, attempts = v.attempts,
       tries = CASE WHEN o.tries < 32766 THEN o.tries + 1 ELSE 32766 END
FROM unnest(CAST(:ids AS uuid[]), CAST(:tries AS smallint[]), CAST(:not_befores AS timestamptz[]), CAST(:attempts AS smallint[]))
    AS v(id, tries, not_before, attempts)
WHERE o.message_id = v.id AND o.tries = v.tries AND o.claimed_by = :owner AND o.state = ANY(CAST(:sending AS text[]))
""")

ID_LENGTH = 200  # longer than any gateway's (SMPP 3.4, 5.2.23: 65 octets); what is longer still is cut alike here and in receipts


@dataclass(frozen=True, slots=True)
class Policy:
    """How one gateway is tried again."""

    gateway: str
    receipt_group: str
    backoff_min: timedelta
    backoff_max: timedelta
    attempts: int


@dataclass(slots=True)
class Settled:
    """For metrics, and for the receipts that may be waiting for these ids."""

    moved: Counter[tuple[str, ...]] = field(default_factory=Counter)
    gateway_message_ids: list[str] = field(default_factory=list)


async def settle(session: Executor, owner: UUID, policy: Policy, outcomes: list[tuple[Claimed, Outcome]], now: datetime) -> Settled:
    """Write these outcomes. When all are Accepted it is one statement (and one more for those whose lease had ended)."""
    settled, submissions, back = Settled(), [], []
    ends: dict[tuple[State, str | None], list[Claimed]] = defaultdict(list)
    for claimed, said in outcomes:
        outcome = last_word(claimed, said, policy)
        submissions += submission_rows(claimed, outcome, policy, now)
        match outcome:
            case Accepted(ids):
                ends[State.ACCEPTED, None].append(claimed)
                settled.gateway_message_ids += [clean(i, ID_LENGTH) for i in ids if i]
            case Refused(reason=reason, ids=ids):
                ends[State.FAILED, clean(reason, 64)].append(claimed)
                settled.gateway_message_ids += [clean(i, ID_LENGTH) for i in ids if i]
            case Unknown(reason=reason, ids=ids):
                ends[State.UNKNOWN, clean(reason, 64)].append(claimed)
                settled.gateway_message_ids += [clean(i, ID_LENGTH) for i in ids if i]
            case Deferred():
                back.append((claimed.id, claimed.tries, now + wait(claimed, outcome, policy), claimed.attempts + outcome.spends_attempt))
                settled.moved[claimed.channel, policy.gateway, claimed.type, State.QUEUED] += 1
            case _:
                assert_never(outcome)
    only_taken = list(ends) == [(State.ACCEPTED, None)] and not back
    if not only_taken:
        await SUBMISSIONS.run(session, submissions)
    for (state, why), group in ends.items():
        await _end(session, owner, policy.gateway, state, why, group, now, settled, SUBMISSIONS.arrays(submissions) if only_taken else None)
    if back:
        columns = dict(zip(("ids", "tries", "not_befores", "attempts"), map(list, zip(*back, strict=True)), strict=True))
        await session.execute(PUT_BACK, columns | {"owner": owner, "sending": [State.SENDING.value]})
    return settled


async def _end(
    session: Executor,
    owner: UUID,
    gateway: str,
    state: State,
    reason: str | None,
    group: list[Claimed],
    now: datetime,
    settled: Settled,
    parts: dict[str, list[Any]] | None,
) -> None:
    values: dict[str, Any] = {"ids": [c.id for c in group], "owner": owner, "state": state.value, "reason": reason, "gateway": gateway, "now": now}
    values |= {"sending": [State.SENDING.value]} | (parts or {})
    moved = set((await session.execute(MOVE if parts is None else TAKEN, values)).scalars())
    late = [claimed.id for claimed in group if claimed.id not in moved]
    if late and state is State.ACCEPTED:
        guard = {"ids": late, "state": state.value, "reason": reason, "now": now, "unknown": before(State.ACCEPTED)}
        moved |= set((await session.execute(LATE, guard)).scalars())
    for claimed in group:
        if claimed.id in moved:
            settled.moved[claimed.channel, gateway, claimed.type, state] += 1


def last_word(claimed: Claimed, outcome: Outcome, policy: Policy) -> Outcome:
    """A refusal for now that has used up the attempts is one for good."""
    if isinstance(outcome, Deferred) and outcome.spends_attempt and claimed.attempts + 1 >= (outcome.attempts or policy.attempts):
        return Refused(outcome.reason, outcome.code, outcome.detail)
    return outcome


def clean(text: str, longest: int) -> str:
    """Of the far side's words what PostgreSQL can hold."""
    return text.replace("\0", "")[:longest]


def wait(claimed: Claimed, outcome: Deferred, policy: Policy) -> timedelta:
    """How long until the next attempt: what the wire asked for; after a counted refusal doubled each time, with a fifth of jitter."""
    if not outcome.spends_attempt:
        return outcome.retry_in
    doubled = min(policy.backoff_min * 2 ** min(claimed.attempts, 16), policy.backoff_max)
    longest: timedelta = max(doubled, outcome.retry_in)
    return longest * random.uniform(0.9, 1.1)


def submission_rows(claimed: Claimed, outcome: Outcome, policy: Policy, now: datetime) -> list[tuple[Any, ...]]:
    """One row for each part that met an answer or silence; none for what never went out."""
    ids: tuple[str, ...] = ()
    name, reason, code, detail = "accepted", "", "", ""
    if isinstance(outcome, Accepted):
        ids = outcome.ids
    elif isinstance(outcome, Deferred):
        if not outcome.code and not outcome.spends_attempt:
            return []
        name, reason, code, detail = "deferred", outcome.reason, outcome.code, outcome.detail
    elif isinstance(outcome, Refused):
        ids, name, reason, code, detail = outcome.ids, "refused", outcome.reason, outcome.code, outcome.detail
    else:
        ids, name, reason, detail = outcome.ids, "unknown", outcome.reason, outcome.detail
    count = max(len(ids), 1 if name == "deferred" else claimed.parts)
    rows: list[tuple[Any, ...]] = []
    for part in range(count):
        found = clean(ids[part], ID_LENGTH) if part < len(ids) else ""
        taken = bool(found) or name == "accepted"
        rows.append(
            (
                claimed.id,
                claimed.tries + 1,
                part + 1,
                count,
                policy.gateway,
                policy.receipt_group,
                found or None,
                "accepted" if taken else name,
                None if taken else clean(reason, 64) or None,
                None if taken else clean(code, 32) or None,
                None if taken else clean(detail, 500) or None,
                claimed.claimed_at,
                now,
            )
        )
    return rows
