"""Settle: what came of a claim is written, guarded by "still ours", in a few statements for hundreds of messages.

Running it twice changes nothing the second time. An outcome that comes after the lease has ended (the sweeper has already said `unknown`)
is the late truth and clears that up.

Silence is `unknown`, and not another try, unless the policy says so: then the message goes into the queue once more, marked as `resent`. What comes of
that second try says nothing about the first: only an acceptance makes it better than `unknown`.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, assert_never
from uuid import UUID

import sqlalchemy as sa

from app.core.db import BulkInsert, Executor, column_of
from app.core.ids import new_id
from app.gateways.profile import Profile
from app.notifications.states import State, before
from app.sending.budgets import give_back
from app.sending.claim import Claimed
from app.sending.outcome import Accepted, Deferred, Outcome, Refused, Unknown
from app.sending.smpp.inbound import InboundReader

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
    destination="bigint",
    outcome="text",
    reason="text",
    code="text",
    detail="text",
    claimed_at="timestamptz",
    at="timestamptz",
)

# The ids stand beside what was found of them: they are known when the statement is planned, and name the month (docs/retention.md).
# Guards are parameters: a literal would let the planner walk the whole partial index for every row.
MOVE = sa.text("""
WITH gone AS (
    DELETE FROM outbox WHERE message_id = ANY(CAST(:ids AS uuid[])) AND claimed_by = :owner AND state = ANY(CAST(:sending AS text[])) RETURNING message_id
)
UPDATE message SET state = :state, reason = :reason, gateway = :gateway, updated_at = :now
WHERE id = ANY(ARRAY(SELECT message_id FROM gone)) AND id = ANY(CAST(:ids AS uuid[])) RETURNING id, address = '' AS erased
""")
# The usual flush, nothing but taken messages: their parts and their state in one round trip.
TAKEN = sa.text("""
WITH parts AS (
    INSERT INTO submission (message_id, n, part, parts, gateway, receipt_group, gateway_message_id, destination, outcome, claimed_at, at)
    SELECT message_id, n, part, parts, :gateway, :receipt_group, gateway_message_id, destination, 'accepted', claimed_at, :now
    FROM unnest(CAST(:ids AS uuid[]), CAST(:ns AS smallint[]), CAST(:parts AS smallint[]), CAST(:counts AS smallint[]), CAST(:gateway_message_ids AS text[]),
                CAST(:destinations AS bigint[]), CAST(:claimed_ats AS timestamptz[]))
        AS given(message_id, n, part, parts, gateway_message_id, destination, claimed_at) ON CONFLICT DO NOTHING
), gone AS (
    DELETE FROM outbox WHERE message_id = ANY(CAST(:ids AS uuid[])) AND claimed_by = :owner AND state = ANY(CAST(:sending AS text[])) RETURNING message_id
)
UPDATE message SET state = :state, reason = :reason, gateway = :gateway, updated_at = :now
WHERE id = ANY(ARRAY(SELECT message_id FROM gone)) AND id = ANY(CAST(:ids AS uuid[])) RETURNING id, address = '' AS erased
""")
LATE = sa.text("""
UPDATE message SET state = :state, reason = :reason, updated_at = :now
WHERE id = ANY(CAST(:ids AS uuid[])) AND state = ANY(CAST(:unknown AS text[])) RETURNING id, address = '' AS erased
""")
# Only the try that it speaks of: when the answer to the first commit was lost, the same owner may have the message on the wire again by now.
# A message that is put off every second would get past a smallint in nine hours.
PUT_BACK = sa.text("""
UPDATE outbox o SET state = 'queued', claimed_by = NULL, lease_until = NULL, not_before = v.not_before, attempts = v.attempts,
       tries = CASE WHEN o.tries < 32766 THEN o.tries + 1 ELSE 32766 END
FROM unnest(CAST(:ids AS uuid[]), CAST(:tries AS smallint[]), CAST(:not_befores AS timestamptz[]), CAST(:attempts AS smallint[]))
    AS v(id, tries, not_before, attempts)
WHERE o.message_id = v.id AND o.tries = v.tries AND o.claimed_by = :owner AND o.state = ANY(CAST(:sending AS text[])) RETURNING o.message_id
""")
# The same guard: only the try that was met with silence goes once more, and only once.
ONCE_MORE = sa.text("""
WITH again AS (
    UPDATE outbox o SET state = 'queued', resent = true, claimed_by = NULL, lease_until = NULL, not_before = :now,
           tries = CASE WHEN o.tries < 32766 THEN o.tries + 1 ELSE 32766 END
    FROM unnest(CAST(:ids AS uuid[]), CAST(:tries AS smallint[]), CAST(:changes AS uuid[])) AS v(id, tries, change)
    WHERE o.message_id = v.id AND o.tries = v.tries AND o.claimed_by = :owner AND o.state = ANY(CAST(:sending AS text[])) AND NOT o.resent
    RETURNING o.message_id, v.change
)
INSERT INTO message_change (id, message_id, at, state, reason, detail)
SELECT change, message_id, CAST(:now AS timestamptz) + interval '1 millisecond', 'queued', 'no_answer', :detail FROM again RETURNING message_id
""")
ONCE_MORE_DETAIL = "sent once more, as on_response_timeout says; the first may have arrived, too"
# The gateway may cut a text otherwise than it was planned; what is billed is what went out.
RECOUNT = sa.text("""
UPDATE message m SET parts = v.parts FROM unnest(CAST(:ids AS uuid[]), CAST(:parts AS smallint[])) AS v(id, parts) WHERE m.id = v.id
""")
# The account was erased while its message was on the wire. Destination 0: nobody's, and its receipts keep nothing of their text.
FORGET = sa.text("UPDATE submission SET destination = 0, detail = NULL WHERE message_id = ANY(CAST(:ids AS uuid[]))")

ID_LENGTH = 200  # longer than any gateway's (SMPP 3.4, 5.2.23: 65 octets); what is longer still is cut alike here and in receipts


@dataclass(frozen=True, slots=True)
class Policy:
    """How one gateway is tried again, and how its receipts find their messages.

    `resends`: whether silence on a message of this type is answered with one more try. `in_one`: however long, a message is one submit_sm.
    `one_receipt`: a receipt for any part speaks for the whole message. `address`: what the number in a receipt is to its match.
    `inbound` reads what subscribers send.
    """

    gateway: str
    receipt_group: str
    backoff_min: timedelta
    backoff_max: timedelta
    attempts: int
    resends: Callable[[str], bool] = lambda _: False
    in_one: bool = False
    one_receipt: bool = False
    address: Literal["prefer", "require", "ignore"] = "prefer"
    inbound: InboundReader = field(default_factory=lambda: InboundReader(Profile()))


@dataclass(slots=True)
class Settled:
    """For metrics, and for the receipts that may be waiting for these ids. `resent` have had their second try, or may have one that waits: what is known
    of the first counts as well."""

    moved: Counter[tuple[str, ...]] = field(default_factory=Counter)
    gateway_message_ids: list[str] = field(default_factory=list)
    resent: list[UUID] = field(default_factory=list)


async def settle(session: Executor, owner: UUID, policy: Policy, outcomes: list[tuple[Claimed, Outcome]], now: datetime) -> Settled:
    """Write these outcomes. When all are Accepted it is one statement (and one more for those whose lease had ended)."""
    settled, submissions, back = Settled(), [], []
    again: list[Claimed] = []
    ends: dict[tuple[State, str | None], list[Claimed]] = defaultdict(list)
    for claimed, said in outcomes:
        outcome = last_word(claimed, said, policy)
        submissions += submission_rows(claimed, outcome, policy, now)
        if isinstance(outcome, Deferred):
            back.append((claimed.id, claimed.tries, now + wait(claimed, outcome, policy), claimed.attempts + outcome.spends_attempt))
            settled.moved[claimed.channel, policy.gateway, claimed.type, State.QUEUED] += 1
            continue
        settled.gateway_message_ids += [clean(i, ID_LENGTH) for i in outcome.ids if i]
        if claimed.resent:
            settled.resent.append(claimed.id)
        if goes_again(claimed, outcome, policy, now):
            again.append(claimed)
        else:
            ends[end_of(claimed, outcome)].append(claimed)
    only_taken = list(ends) == [(State.ACCEPTED, None)] and not back and not again
    if not only_taken:
        await SUBMISSIONS.run(session, submissions)
    moved = set[UUID]()
    for (state, why), group in ends.items():
        moved |= await _end(session, owner, policy.gateway, state, why, group, now, settled, taken_parts(submissions) if only_taken else None)
    if back:
        columns = dict(zip(("ids", "tries", "not_befores", "attempts"), map(list, zip(*back, strict=True)), strict=True))
        put_back = set((await session.execute(PUT_BACK, columns | {"owner": owner, "sending": [State.SENDING.value]})).scalars())
        # While the second try was out there may have been news of the first.
        settled.resent += [claimed.id for claimed, _ in outcomes if claimed.resent and claimed.id in put_back]
        moved |= put_back
    if again:
        await _once_more(session, owner, policy.gateway, again, now, settled)
    if recount := [(claimed.id, claimed.room) for group in ends.values() for claimed in group if is_cut_otherwise(claimed)]:
        await session.execute(RECOUNT, dict(zip(("ids", "parts"), map(list, zip(*recount, strict=True)), strict=True)))
    # After the rows themselves: so do claims, and nobody waits for a row while he keeps a budget.
    await give_back(session, [claimed.reserved for claimed, said in outcomes if claimed.reserved is not None and claimed.id in moved and is_unsent(said)])
    return settled


def is_unsent(outcome: Outcome) -> bool:
    """Whether nothing of it can have cost anything: the far side would not have it now, or we ourselves would not send it. A refusal for good by the
    far side may be on its bill."""
    return isinstance(outcome, Deferred) or (isinstance(outcome, Refused) and not outcome.code and not any(outcome.ids))


def end_of(claimed: Claimed, outcome: Accepted | Refused | Unknown) -> tuple[State, str | None]:
    """The state, and its reason, in which a message leaves the outbox."""
    match outcome:
        case Accepted():
            return State.ACCEPTED, None
        case Refused(reason=reason):
            # After a silence a refusal is no failure: the first try may have arrived, and be the very reason why the second is refused.
            return (State.UNKNOWN, "no_answer") if claimed.resent else (State.FAILED, clean(reason, 64))
        case Unknown(reason=reason):
            return State.UNKNOWN, clean(reason, 64)
        case _:
            assert_never(outcome)


def goes_again(claimed: Claimed, outcome: Outcome, policy: Policy, now: datetime) -> bool:
    """Whether this silence is answered with the one second try. Never when a part is known to have been taken: it would surely come twice."""
    is_silence = isinstance(outcome, Unknown) and not any(outcome.ids)
    return is_silence and not claimed.resent and claimed.channel == "sms" and claimed.expires_at > now and policy.resends(claimed.type)


def is_cut_otherwise(claimed: Claimed) -> bool:
    """Whether the wire made other parts of it than it was planned with."""
    return claimed.room not in (0, claimed.parts) and claimed.channel == "sms"


async def _end(
    session: Executor,
    owner: UUID,
    gateway: str,
    state: State,
    reason: str | None,
    group: list[Claimed],
    now: datetime,
    settled: Settled,
    parts: dict[str, Any] | None,
) -> set[UUID]:
    """Which of them were still ours to end."""
    values: dict[str, Any] = {"ids": [c.id for c in group], "owner": owner, "state": state.value, "reason": reason, "gateway": gateway, "now": now}
    values |= {"sending": [State.SENDING.value]} | (parts or {})
    moved = dict(tuple(row) for row in (await session.execute(MOVE if parts is None else TAKEN, values)).all())
    ours = set(moved)
    late = [claimed.id for claimed in group if claimed.id not in moved]
    if late and state is State.ACCEPTED:
        guard = {"ids": late, "state": state.value, "reason": reason, "now": now, "unknown": before(State.ACCEPTED)}
        moved |= dict(tuple(row) for row in (await session.execute(LATE, guard)).all())
    # Their lease had ended, and they may be in the queue again.
    settled.resent += [message_id for message_id in late if message_id not in moved]
    if erased := [message_id for message_id, is_erased in moved.items() if is_erased]:
        await session.execute(FORGET, {"ids": erased})
    for claimed in group:
        if claimed.id in moved:
            settled.moved[claimed.channel, gateway, claimed.type, state] += 1
    return ours


async def _once_more(session: Executor, owner: UUID, gateway: str, again: list[Claimed], now: datetime, settled: Settled) -> None:
    values: dict[str, Any] = {"ids": [c.id for c in again], "tries": [c.tries for c in again], "changes": [new_id() for _ in again]}
    values |= {"owner": owner, "sending": [State.SENDING.value], "now": now, "detail": ONCE_MORE_DETAIL}
    moved = set((await session.execute(ONCE_MORE, values)).scalars())
    for claimed in again:
        if claimed.id in moved:
            claimed.put_back = True
            settled.moved[claimed.channel, gateway, claimed.type, State.QUEUED] += 1


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


def taken_parts(rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    """What differs between parts that were taken, and their group: the other parameters of TAKEN stand in `_end`."""
    ids, ns, parts, counts, _, groups, gateway_message_ids, destinations, _, _, _, _, claimed_ats, _ = zip(*rows, strict=True)
    columns = {"ids": ids, "ns": ns, "parts": parts, "counts": counts, "gateway_message_ids": gateway_message_ids, "destinations": destinations}
    return {name: column_of(values) for name, values in (columns | {"claimed_ats": claimed_ats}).items()} | {"receipt_group": groups[0]}


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
    count = len(ids) or (1 if name == "deferred" or policy.in_one else claimed.room or claimed.parts)
    destination = digits_of(claimed)
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
                destination,
                "accepted" if taken else name,
                None if taken else clean(reason, 64) or None,
                None if taken else clean(code, 32) or None,
                None if taken else clean(detail, 500) or None,
                claimed.claimed_at,
                now,
            )
        )
    return rows


def digits_of(claimed: Claimed) -> int | None:
    """Whom it was for, as receipts name him: an id that was given twice belongs to the receipt's number."""
    digits = claimed.address[1:]
    return int(digits) if claimed.channel == "sms" and len(digits) <= 18 and digits.isascii() and digits.isdecimal() else None
