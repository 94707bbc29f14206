"""SMS from subscribers: stored before they are acknowledged, joined from their parts over all binds of a receipt group, and done as STOP and START say.

    read -> one at a time a sender (advisory lock) -> seen before? -> joined, or waiting for its other parts -> stored -> stop | start | kept

All of it in one transaction: whoever dies has stored nothing, and the far side sends it again. It may also send again what was stored, because our
acknowledgement was lost: the same octets between the same two addresses within REPEATED are one message. Only of a STOP that is the rule just as long as
nothing else came in between: STOP, START, STOP ends with a stop.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from app.accounts import suppressions
from app.accounts.consents import Said, record_consents
from app.core import metrics
from app.core.db import BulkInsert, Executor
from app.core.ids import new_id
from app.notifications.withdraw import withdraw
from app.sending.settle import Policy
from app.sending.smpp.inbound import Action, Inbound, InboundReader, text_of
from app.sending.smpp.receipts import Receipt

REPEATED = timedelta(seconds=45)  # longer than a bind takes to come back, shorter than a person takes to send the same once more and mean it
JOINED_FOR = timedelta(minutes=10)  # a part says by its reference what it belongs to: it is known for longer
INCOMPLETE_AFTER = timedelta(hours=24)
BATCH = 500
GAP = "[…]"

# Senders in their order, so that two flushes do not wait for each other in a circle.
LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('inbound:' || source, 0)) FROM unnest(CAST(:sources AS text[])) AS given(source)")
RECENT = sa.text("""
SELECT source, destination, encoding, raw FROM inbound_message WHERE source = ANY(CAST(:sources AS text[])) AND at > :since ORDER BY at, id
""")
PARTS = sa.text("""
SELECT source, destination, reference, total, number, encoding, payload, at, joined FROM inbound_part
WHERE receipt_group = :receipt_group AND source = ANY(CAST(:sources AS text[])) AND reference = ANY(CAST(:references AS int[]))
""")
_THESE = """receipt_group = :receipt_group AND (source, destination, reference, total) IN (
    SELECT * FROM unnest(CAST(:sources AS text[]), CAST(:destinations AS text[]), CAST(:references AS int[]), CAST(:totals AS smallint[])))"""
# A joined one is forgotten; with the others of its message it is taken when the first of them has waited long enough.
OLD = sa.text("SELECT DISTINCT receipt_group, source FROM inbound_part WHERE at < :before AND NOT joined LIMIT :batch")
WAITED = sa.text("""
DELETE FROM inbound_part WHERE receipt_group = :receipt_group AND NOT joined AND (source, destination, reference, total) IN (
    SELECT source, destination, reference, total FROM inbound_part
    WHERE receipt_group = :receipt_group AND source = ANY(CAST(:sources AS text[])) AND at < :before AND NOT joined)
RETURNING source, destination, reference, total, number, encoding, payload, at, gateway
""")
FORGET = sa.text("DELETE FROM inbound_part WHERE joined AND at < :before")
DROP_PARTS = sa.text(f"DELETE FROM inbound_part WHERE {_THESE}")
MARK_JOINED = sa.text(f"UPDATE inbound_part SET joined = true, at = :at WHERE {_THESE}")
PUT_PARTS = BulkInsert(
    "inbound_part",
    receipt_group="text",
    source="text",
    destination="text",
    reference="integer",
    total="smallint",
    number="smallint",
    gateway="text",
    at="timestamptz",
    encoding="text",
    payload="bytea",
    joined="boolean",
)
PUT_MESSAGES = BulkInsert(
    "inbound_message",
    id="uuid",
    at="timestamptz",
    gateway="text",
    source="text",
    destination="text",
    text="text",
    encoding="text",
    parts="smallint",
    is_complete="boolean",
    action="text",
    raw="bytea",
)

Key = tuple[str, str, int, int]  # source, destination, reference, total


@dataclass(frozen=True, slots=True)
class Part:
    """The octets of one part, and when they came."""

    encoding: str
    payload: bytes
    at: datetime


@dataclass(slots=True)
class Box:
    """The parts of one message, by their numbers. `fresh` are not in the database yet; `is_dropped`: what is there under this key is another message's."""

    parts: dict[int, Part] = field(default_factory=dict)
    fresh: dict[int, Part] = field(default_factory=dict)
    is_joined: bool = False
    was_joined: bool = False
    is_dropped: bool = False


@dataclass(frozen=True, slots=True)
class Whole:
    """A message as it is kept. Without `action` it did nothing but come."""

    source: str
    destination: str
    encoding: str
    payload: bytes
    text: str
    parts: int = 1
    is_complete: bool = True
    action: Action | None = None


async def take_in(session: Executor, policy: Policy, receipts: Sequence[Receipt], moment: datetime) -> None:
    """Store these SMS, and do what they ask for. In a transaction, and as often as they come."""
    given = [policy.inbound.read(receipt) for receipt in receipts]
    sources = sorted({one.source for one in given})
    await session.execute(LOCK, {"sources": sources})
    seen = await recent(session, sources, moment)
    boxes = await boxes_of(session, policy.receipt_group, given)
    whole: list[Whole] = []
    repeated = 0
    for one in given:
        found = join(boxes, one, policy.inbound, moment) if one.joint else single(seen, one, policy.inbound)
        repeated += found is None
        for message in found or ():
            seen.setdefault((message.source, message.destination), []).append((message.encoding, message.payload))
            whole.append(message)
    await put_away(session, policy, boxes, moment)
    await keep(session, policy.gateway, whole, moment)
    metrics.INBOUND.labels(policy.gateway, "repeated").inc(repeated)


async def recent(session: Executor, sources: list[str], moment: datetime) -> dict[tuple[str, str], list[tuple[str, bytes]]]:
    """What came from these senders a moment ago, oldest first, by source and destination."""
    seen: dict[tuple[str, str], list[tuple[str, bytes]]] = {}
    for row in (await session.execute(RECENT, {"sources": sources, "since": moment - REPEATED})).all():
        seen.setdefault((row.source, row.destination), []).append((row.encoding, row.raw))
    return seen


def single(seen: dict[tuple[str, str], list[tuple[str, bytes]]], one: Inbound, reader: InboundReader) -> list[Whole] | None:
    """An SMS of one part; None when it has come already."""
    before, mark = seen.get((one.source, one.destination), []), (one.encoding, one.payload)
    text = text_of(one.encoding, one.payload)
    action = reader.action_of(text)
    if mark in (before[-1:] if action == "stop" else before):
        return None
    return [Whole(one.source, one.destination, one.encoding, one.payload, text, action=action)]


async def boxes_of(session: Executor, group: str, given: Sequence[Inbound]) -> dict[Key, Box]:
    """A box for each message that some part of these belongs to, with the parts that have come before."""
    boxes = {key_of(one): Box() for one in given if one.joint}
    if not boxes:
        return boxes
    values = {"receipt_group": group, "sources": [key[0] for key in boxes], "references": [key[2] for key in boxes]}
    for row in (await session.execute(PARTS, values)).all():
        box = boxes.get((row.source, row.destination, row.reference, row.total))
        if box is not None:
            box.parts[row.number] = Part(row.encoding, row.payload, row.at)
            box.is_joined = box.was_joined = row.joined
    return boxes


def join(boxes: dict[Key, Box], one: Inbound, reader: InboundReader, moment: datetime) -> list[Whole] | None:
    """Put a part into its box: the messages that became whole by that, None when the part was there already.

    A reference comes round, and some senders have one alone: another text under a number that is taken begins another message, and what is left of the old
    one is kept as it is.
    """
    assert one.joint is not None
    key, number = key_of(one), one.joint.number
    box, part, ended = boxes[key], Part(one.encoding, one.payload, moment), list[Whole]()
    there = box.parts.get(number)
    is_same = there is not None and (there.encoding, there.payload) == (part.encoding, part.payload)
    if there is not None and is_same and (not box.is_joined or there.at > moment - JOINED_FOR):
        return None
    if box.is_joined or there is not None:
        if not box.is_joined:
            ended.append(joined(key, box.parts, reader))
        box = boxes[key] = Box(is_dropped=True)
    box.parts[number] = box.fresh[number] = part
    if len(box.parts) == one.joint.total:
        ended.append(joined(key, box.parts, reader))
        box.is_joined = True
    return ended


def key_of(one: Inbound) -> Key:
    assert one.joint is not None
    return one.source, one.destination, one.joint.reference, one.joint.total


def joined(key: Key, parts: dict[int, Part], reader: InboundReader | None) -> Whole:
    """The message of these parts in their order; a gap stands where one is missing. Words mean something in a whole message alone."""
    runs: list[tuple[str, bytes]] = []  # in one alphabet and without a gap: a character may lie across two parts
    last = 0
    for number, part in sorted(parts.items()):
        if last and number == last + 1 and runs[-1][0] == part.encoding:
            runs[-1] = part.encoding, runs[-1][1] + part.payload
        else:
            if number != last + 1:
                runs.append(("", b""))
            runs.append((part.encoding, part.payload))
        last = number
    text = "".join(text_of(encoding, payload) if encoding else GAP for encoding, payload in runs)
    source, destination, _, total = key
    is_complete = len(parts) == total
    first = min(parts)
    return Whole(
        source,
        destination,
        parts[first].encoding,
        b"".join(payload for _, payload in runs),
        text if last == total else text + GAP,
        len(parts),
        is_complete,
        reader.action_of(text) if reader and is_complete else None,
    )


async def put_away(session: Executor, policy: Policy, boxes: dict[Key, Box], moment: datetime) -> None:
    """Write what has changed in the boxes: one statement for each kind of change, however many there are."""
    group = policy.receipt_group
    await by_key(session, DROP_PARTS, group, [key for key, box in boxes.items() if box.is_dropped])
    rows = [
        (group, *key, number, policy.gateway, moment, part.encoding, part.payload, box.is_joined)
        for key, box in boxes.items()
        for number, part in box.fresh.items()
    ]
    await PUT_PARTS.run(session, rows)
    done = [key for key, box in boxes.items() if box.is_joined and not box.was_joined and len(box.fresh) < len(box.parts)]
    await by_key(session, MARK_JOINED, group, done, at=moment)


async def by_key(session: Executor, statement: sa.TextClause, group: str, keys: Sequence[Key], **more: Any) -> None:
    if keys:
        sources, destinations, references, totals = map(list, zip(*keys, strict=True))
        values = {"receipt_group": group, "sources": sources, "destinations": destinations, "references": references, "totals": totals}
        await session.execute(statement, values | more)


async def keep(session: Executor, gateway: str, messages: Sequence[Whole], moment: datetime) -> None:
    """Store these messages in their order, and do what they ask for."""
    if not messages:
        return
    rows = [
        (new_id(), moment, gateway, one.source, one.destination, one.text, one.encoding, one.parts, one.is_complete, one.action, one.payload)
        for one in messages
    ]
    await PUT_MESSAGES.run(session, rows)
    asked = [one for one in messages if one.action and one.source.startswith("+")]
    if asked:
        await obey(session, asked, moment)
    for action, number in Counter(one.action or ("kept" if one.is_complete else "incomplete") for one in messages).items():
        metrics.INBOUND.labels(gateway, action).inc(number)


async def obey(session: Executor, asked: Sequence[Whole], moment: datetime) -> None:
    """Suppress and restore the senders' numbers, as the last word of each says; each word is a consent given or refused."""
    last = {one.source: one for one in asked}
    await suppressions.stop(session, {number: one.text.strip() for number, one in last.items() if one.action == "stop"}, moment)
    await suppressions.start(session, [number for number, one in last.items() if one.action == "start"])
    said = [Said(one.source, "refused" if one.action == "stop" else "allowed", one.text.strip()) for one in asked]
    await record_consents(session, "sms", said, via="sms", by="subscriber", moment=moment)
    await withdraw(session, [number for number, one in last.items() if one.action == "stop"])


async def give_up_parts(session: Executor, moment: datetime) -> int:
    """What has waited a day for its other parts is kept as it is; what was joined a while ago is forgotten. How many messages it made."""
    await session.execute(FORGET, {"before": moment - JOINED_FOR})
    before, made = moment - INCOMPLETE_AFTER, 0
    groups: dict[str, list[str]] = {}
    for row in (await session.execute(OLD, {"before": before, "batch": BATCH})).all():
        groups.setdefault(row.receipt_group, []).append(row.source)
    if groups:
        await session.execute(LOCK, {"sources": sorted({source for sources in groups.values() for source in sources})})
    for group, sources in groups.items():
        boxes: dict[Key, dict[int, Part]] = {}
        gateways: dict[Key, str] = {}
        for row in (await session.execute(WAITED, {"receipt_group": group, "sources": sources, "before": before})).all():
            key = (row.source, row.destination, row.reference, row.total)
            boxes.setdefault(key, {})[row.number] = Part(row.encoding, row.payload, row.at)
            gateways[key] = row.gateway
        for gateway in sorted(set(gateways.values())):
            await keep(session, gateway, [joined(key, parts, None) for key, parts in sorted(boxes.items()) if gateways[key] == gateway], moment)
        made += len(boxes)
    return made
