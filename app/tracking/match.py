"""Receipts find their messages: by the gateway's id, within the group of gateways that share receipts.

Where one id was given to several messages, the one to the receipt's number is meant, of several such the newest that is not final yet.

What finds none is parked (it may be quicker than the answer to its submit) and tried again when that answer is settled, and by the sweeper.
The same (message, part, stat) changes nothing the second time.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.core import metrics
from app.core.clock import now as clock
from app.core.db import Executor, column_of
from app.core.ids import NOBODY, first_id_at, new_id
from app.notifications.states import NEXT, State, before
from app.sending.settle import ID_LENGTH, Policy, clean
from app.sending.smpp.receipts import Receipt as WireReceipt
from app.tracking.inbound import take_in
from app.tracking.moves import Home, News, move, revisit

# Older submissions are not looked at: an SMSC that restarts uses its ids again. How old the message is says nothing: it may have been held for weeks.
RECEIPT_DAYS = 7
# What has just come is looked for among the messages of these days alone, in two or three months of the tables instead of all. What finds nobody there is
# parked, and two seconds later the sweep looks everywhere: a message may have been held for months.
RECENT, AHEAD = timedelta(days=35), timedelta(days=1)
ANY_TIME = {"floor": NOBODY, "ceiling": UUID(int=(1 << 128) - 1)}

# Everything that tells several submissions of one id apart is asked for only when there are several: the usual receipt pays for nothing but a count.
# A repeated receipt belongs to the newest one, although that is final by now. A destination of 0 is one that was erased, and anybody's.
# Parts that were all given the same id, and those of which one receipt speaks for all (`one_receipt`), count as one.
HOME = """
SELECT s.message_id, s.part, s.at, s.destination = 0 AS erased,
       CASE WHEN s.parts = 1 OR :one_receipt THEN 1
            WHEN count(*) OVER () > 1 AND s.parts = (
                SELECT count(*) FROM submission x WHERE x.message_id = s.message_id AND x.message_id >= :floor AND x.message_id < :ceiling AND x.n = s.n AND x.gateway_message_id = s.gateway_message_id
            ) THEN 1 ELSE s.parts END AS parts
FROM submission s
WHERE {readable} s.gateway_message_id = g.gateway_message_id AND s.receipt_group = :receipt_group AND s.at >= :oldest
  AND s.message_id >= :floor AND s.message_id < :ceiling
  AND (CAST(:address AS text) <> 'require' OR s.destination = 0 OR s.destination = g.destination)
ORDER BY CASE WHEN count(*) OVER () > 1 THEN ROW (
    CAST(:address AS text) <> 'ignore' AND coalesce(s.destination = g.destination, false),
    (s.at = max(s.at) OVER () AND EXISTS (SELECT FROM receipt r WHERE r.message_id = s.message_id AND r.part = s.part AND r.stat = g.stat))
        OR EXISTS (SELECT FROM message m WHERE m.id = s.message_id AND m.id >= :floor AND m.id < :ceiling AND m.state <> ALL(CAST(:final AS text[])))
) END DESC NULLS LAST, s.at DESC, s.message_id DESC, s.n DESC, s.part LIMIT 1
"""
# One round trip: each receipt finds its submission, all are stored, and what is plainly delivered (one part, the usual case) moves.
# The last lines are those that were parked for ids which have just got their submissions.
RECEIVE = sa.text(f"""
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:gateway_message_ids AS text[]), CAST(:readable AS bool[]), CAST(:stats AS text[]),
                         CAST(:states AS text[]), CAST(:reasons AS text[]), CAST(:errors AS text[]), CAST(:destinations AS bigint[]),
                         CAST(:references AS int[]), CAST(:raws AS bytea[]))
        AS g(id, gateway_message_id, readable, stat, state, reason, error, destination, reference, raw)
), homes AS MATERIALIZED (
    SELECT g.*, s.message_id, s.part, s.at AS sent_at, s.parts, s.erased FROM given g LEFT JOIN LATERAL ({HOME.format(readable="g.readable AND")}) s ON true
), stored AS (
    INSERT INTO receipt (id, at, gateway, receipt_group, gateway_message_id, destination, reference, message_id, part, status, stat, state, reason, error, raw)
    SELECT id, :now, :gateway, :receipt_group, gateway_message_id, CASE WHEN erased THEN NULL ELSE destination END, reference, message_id, part,
           CASE WHEN NOT readable THEN 'quarantined' WHEN message_id IS NULL THEN 'parked' ELSE 'matched' END, stat, state, reason, error,
           CASE WHEN erased THEN CAST('' AS bytea) ELSE raw END
    FROM homes ON CONFLICT DO NOTHING RETURNING id, status
), delivered AS (
    UPDATE message SET state = :delivered, reason = NULL, updated_at = :now
    WHERE id = ANY(ARRAY(SELECT message_id FROM homes WHERE parts = 1 AND state = :delivered)) AND state = ANY(CAST(:before AS text[]))
      AND id >= :floor AND id < :ceiling
    RETURNING id, channel, coalesce(gateway, 'none') AS gateway, type
)
SELECT h.message_id, h.part, h.parts, h.state, h.reason, CAST(NULL AS uuid) AS parked,
       h.sent_at, coalesce(s.status, 'duplicate') AS result, d.channel, d.gateway, d.type
FROM homes h LEFT JOIN stored s ON s.id = h.id LEFT JOIN delivered d ON d.id = h.message_id
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, p.id, NULL, 'parked', NULL, NULL, NULL FROM receipt p
WHERE p.status = 'parked' AND p.receipt_group = :receipt_group AND p.gateway_message_id = ANY(CAST(:settled AS text[]))
""")
MATCH = sa.text(f"""
SELECT g.id, g.state, g.reason, s.message_id, s.part, s.parts, coalesce(s.erased, false) AS erased FROM receipt g
CROSS JOIN LATERAL ({HOME.format(readable="")}) s WHERE g.id = ANY(CAST(:ids AS uuid[])) AND g.status = 'parked' ORDER BY g.id
""")
# What says the same as a receipt that has found its home before, or with it (both tries of a message were parked), is no longer needed.
UNPARK = sa.text("""
WITH given AS MATERIALIZED (
    SELECT v.*, EXISTS (SELECT FROM receipt d WHERE d.message_id = v.message_id AND d.part = v.part AND d.stat = r.stat)
           OR row_number() OVER (PARTITION BY v.message_id, v.part, r.stat ORDER BY v.id) > 1 AS is_repeated
    FROM unnest(CAST(:ids AS uuid[]), CAST(:messages AS uuid[]), CAST(:parts AS smallint[]), CAST(:erased AS bool[])) AS v(id, message_id, part, erased)
    JOIN receipt r ON r.id = v.id
), repeated AS (
    DELETE FROM receipt WHERE id = ANY(ARRAY(SELECT id FROM given WHERE is_repeated)) AND status = 'parked'
)
UPDATE receipt r SET status = 'matched', message_id = g.message_id, part = g.part, raw = CASE WHEN g.erased THEN CAST('' AS bytea) ELSE r.raw END,
       destination = CASE WHEN g.erased THEN NULL ELSE r.destination END
FROM given g WHERE r.id = g.id AND r.status = 'parked' AND NOT g.is_repeated
""")

# Nothing comes after these but late truth.
FINAL = [state.value for state in State if not NEXT[state] - {State.DELIVERED}]


@dataclass(frozen=True, slots=True)
class Finding:
    """How the receipts of one gateway find their messages."""

    receipt_group: str
    one_receipt: bool
    address: str

    @classmethod
    def by(cls, policy: Policy) -> "Finding":
        return cls(policy.receipt_group, policy.one_receipt, policy.address)

    def values(self, moment: datetime) -> dict[str, Any]:
        """The parameters of HOME, among recent messages."""
        oldest = moment - timedelta(days=RECEIPT_DAYS)
        between = {"floor": first_id_at(moment - RECENT), "ceiling": first_id_at(moment + AHEAD)}
        return {"receipt_group": self.receipt_group, "one_receipt": self.one_receipt, "address": self.address, "oldest": oldest, "final": FINAL} | between


async def record(session: Executor, policy: Policy, receipts: Sequence[WireReceipt], settled_ids: Sequence[str], resent: Sequence[UUID] = ()) -> None:
    """Store these receipts and move their messages; `settled_ids` have just got their submissions, and parked receipts may wait for them.
    `resent` messages have just had their second try: what receipts have said of the first one meanwhile is true of them.

    May be repeated: whatever a process had not finished when it died comes again from the far side, and is moved then."""
    moment = clock()
    if inbound := [receipt for receipt in receipts if is_inbound(receipt)]:
        await take_in(session, policy, inbound, moment)
        receipts = [receipt for receipt in receipts if not is_inbound(receipt)]
    rows = (await session.execute(RECEIVE, received(policy, receipts, settled_ids, moment))).all()
    count(policy.gateway, receipts, rows, moment)
    parked = [row.parked for row in rows if row.parked is not None]
    matched = [row for row in rows if row.message_id is not None]
    news = [News(Home(row.message_id, row.part, row.parts), row.state, row.reason) for row in matched if row.parts > 1 or row.state != State.DELIVERED]
    await move(session, news, moment)
    if parked:
        await take_home(session, Finding.by(policy), parked, moment)
    if resent:
        await revisit(session, resent, moment)


def is_inbound(receipt: WireReceipt) -> bool:
    """Whether it is no receipt but an SMS from a subscriber, and one that can be stored as that."""
    return receipt.kind == "message" and not receipt.is_poison


def received(policy: Policy, receipts: Sequence[WireReceipt], settled_ids: Sequence[str], moment: datetime) -> dict[str, Any]:
    """The parameters of RECEIVE."""
    identities = [clean(r.gateway_message_id, ID_LENGTH) or None if is_readable(r) else None for r in receipts]
    readable = [identity is not None for identity in identities]
    return Finding.by(policy).values(moment) | {
        "ids": [new_id() for _ in receipts],
        "gateway_message_ids": identities,
        "readable": readable,
        "stats": [clean(r.stat, 32) if good else "" for r, good in zip(receipts, readable, strict=True)],
        "states": [r.state if good else None for r, good in zip(receipts, readable, strict=True)],
        "reasons": column_of([clean(r.reason, 64) or None if good else None for r, good in zip(receipts, readable, strict=True)] or [None]),
        "errors": column_of([clean(r.error, 32) or None if good else None for r, good in zip(receipts, readable, strict=True)] or [None]),
        "destinations": [r.address if not r.is_poison else None for r in receipts],
        "references": column_of([r.user_message_reference if good else None for r, good in zip(receipts, readable, strict=True)] or [None]),
        "raws": [r.raw for r in receipts],
        "gateway": policy.gateway,
        "now": moment,
        "delivered": State.DELIVERED.value,
        "before": before(State.DELIVERED),
        "settled": list(settled_ids),
    }


def is_readable(receipt: WireReceipt) -> bool:
    return receipt.kind == "receipt" and not receipt.is_poison


def count(gateway: str, receipts: Sequence[WireReceipt], rows: Sequence[Any], moment: datetime) -> None:
    for result, number in Counter(row.result for row in rows if row.parked is None).items():
        metrics.RECEIPTS.labels(gateway, result).inc(number)
    for labels, number in Counter((row.channel, row.gateway, row.type) for row in rows if row.channel is not None).items():
        metrics.MESSAGES.labels(*labels, State.DELIVERED.value).inc(number)
    for row in rows:
        if row.channel is not None:  # this receipt has made it delivered
            metrics.DELIVERY_SECONDS.labels(row.gateway).observe(max(0.0, (moment - row.sent_at).total_seconds()))
    if strange := sum(not receipt.is_known_word for receipt in receipts):
        metrics.RECEIPTS.labels(gateway, "unknown_word").inc(strange)


async def take_home(session: Executor, finding: Finding, parked: Sequence[UUID], moment: datetime) -> list[UUID]:
    """Give these parked receipts to the submissions that have their ids by now. Which ones found theirs.

    First the messages move, then the receipts are no longer parked: whoever dies in between leaves them to the sweeper."""
    found = (await session.execute(MATCH, finding.values(moment) | ANY_TIME | {"ids": list(parked)})).all()
    if found:
        news = [News(Home(row.message_id, row.part, row.parts), row.state, row.reason) for row in found]
        await move(session, news, moment)
        columns = {
            "ids": [row.id for row in found],
            "messages": [row.message_id for row in found],
            "parts": [row.part for row in found],
            "erased": [row.erased for row in found],
        }
        await session.execute(UNPARK, columns)
        # Who took another part home meanwhile has not seen this one, nor have we seen his: the later of us looks once more.
        await move(session, [item for item in news if item.home.parts > 1], moment)
    return [row.id for row in found]
