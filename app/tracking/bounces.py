"""What came back for a letter: stored, and what follows from it, in one transaction.

    read -> whose letter? (envelope sender with its proof, else Message-ID) -> what does it say? -> stored once (SHA-256) -> message, address, history

Whom it concerns is the message's own address, never the one that a report names: whoever writes a report can at most make us stop writing to
somebody who had the letter. A report may come before the answer to the letter itself has been written down; `Bounces.follow` makes that good.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts import suppressions
from app.accounts.consents import Said, record_consents
from app.accounts.contacts import AddressError, normalise_email
from app.core import audit, metrics
from app.core.auth import Caller
from app.core.clock import now
from app.core.db import Database
from app.core.ids import first_id_at, new_id, parse_id
from app.notifications.states import State, before
from app.notifications.withdraw import withdraw
from app.sending.smtp.verp import Verp
from app.tracking.bounce_kinds import Kind, Verdict, judge, reason_of
from app.tracking.dsn import Report, Source, read

MOST_OCTETS = 1 << 20
HARD_FOR = timedelta(days=180)
BATCH = 500
# How long a report may have been earlier than what it reports on: a lease that ends, a database that was away.
EARLY = timedelta(hours=1)

LETTER = sa.text("""
SELECT m.id, m.address, coalesce(o.state, m.state) AS state FROM message m LEFT JOIN outbox o ON o.message_id = m.id WHERE m.id = :id AND m.channel = 'email'
""")
KEEP = sa.text("""
INSERT INTO bounce (id, at, source, kind, message_id, recipient, status, diagnostic, digest)
VALUES (:id, :at, :source, :kind, :message_id, :recipient, :status, :diagnostic, :digest) ON CONFLICT (digest) DO NOTHING RETURNING id
""")
KNOWN = sa.text("SELECT id, at, source, kind, message_id, recipient, status, diagnostic FROM bounce WHERE digest = :digest")
MOVE = sa.text("""
UPDATE message SET state = :state, reason = :reason, updated_at = :now
WHERE id = :id AND state = ANY(CAST(:before AS text[])) AND NOT EXISTS (SELECT FROM outbox WHERE message_id = :id)
RETURNING channel, coalesce(gateway, 'none') AS gateway, type
""")
NOTE = sa.text("INSERT INTO message_change (id, message_id, at, state, reason, detail) VALUES (:change, :id, :now, :state, :reason, :detail)")
# By the time in the id, from its index: what came in the last hour is little.
EARLIER = sa.text("""
SELECT b.message_id, b.kind, coalesce(b.status, '') AS status, coalesce(b.diagnostic, '') AS diagnostic
FROM bounce b JOIN message m ON m.id = b.message_id
WHERE b.id >= :since AND b.kind = ANY(CAST(:kinds AS text[])) AND m.state = ANY(CAST(:open AS text[]))
  AND NOT EXISTS (SELECT FROM outbox o WHERE o.message_id = m.id) ORDER BY b.id LIMIT :batch
""")

# What the state of a message becomes.
TARGETS: dict[Kind, State] = {"hard": State.UNDELIVERED, "soft": State.UNDELIVERED, "delivered": State.DELIVERED}


@dataclass(frozen=True, slots=True)
class Bounce:
    """As it is stored. `is_new` is false for a mail that came again."""

    id: UUID
    at: datetime
    source: Source
    kind: Kind
    message_id: UUID | None
    recipient: str | None
    status: str | None
    diagnostic: str | None
    is_new: bool


@dataclass(frozen=True, slots=True)
class Letter:
    """A message by e-mail of ours. The address is empty when its account was erased."""

    id: UUID
    address: str
    state: State


async def take(database: Database, verp: Verp, raw: bytes, envelope: Sequence[str] = (), *, by: Caller | str) -> Bounce:
    """Store a mail that came back, and do what follows. When this returns, it is committed. The same octets again change nothing.

    `envelope`: whom it was addressed to on the wire. Octets that make no sense are kept as `unknown`."""
    report = await asyncio.to_thread(read, raw)
    digest = hashlib.sha256(raw.replace(b"\r\n", b"\n")).digest()  # by whichever road it comes
    return await database.again(lambda session: keep(session, verp, report, digest, envelope, by))


async def keep(session: AsyncSession, verp: Verp, report: Report, digest: bytes, envelope: Sequence[str], by: Caller | str) -> Bounce:
    moment, letter = now(), await letter_of(session, verp, report, envelope)
    verdict = judge(report, letter.address if letter is not None else "")
    if letter is None:
        verdict = replace(verdict, kind="unknown")  # kept to be looked at; of whom we do not know we believe nothing
    bounce = bounce_of(report, verdict, letter, moment)
    if (await session.execute(KEEP, asdict(bounce) | {"digest": digest})).first() is None:
        metrics.BOUNCES.labels("repeated").inc()
        known: Any = (await session.execute(KNOWN, {"digest": digest})).one()
        return Bounce(**known._mapping, is_new=False)  # noqa: SLF001 - SQLAlchemy's own name for the public mapping
    metrics.BOUNCES.labels(verdict.kind).inc()
    if letter is not None:
        await follow_from(session, letter, verdict, by, moment)
    return bounce


def bounce_of(report: Report, verdict: Verdict, letter: Letter | None, moment: datetime) -> Bounce:
    """Of an erased account's letter it keeps nothing that is personal."""
    is_erased = letter is not None and not letter.address
    recipient = letter.address if letter is not None else verdict.recipient or next(iter(report.complainers), "")
    return Bounce(
        id=new_id(),
        at=moment,
        source=report.source,
        kind=verdict.kind,
        message_id=letter.id if letter is not None else None,
        recipient=stored_form(recipient) or None,
        status=verdict.status[:16] or None,
        diagnostic=None if is_erased else verdict.diagnostic[:500] or None,
        is_new=True,
    )


def stored_form(address: str) -> str:
    """An address as contacts have it; what is none, as it stands."""
    try:
        return normalise_email(address)
    except AddressError:
        return address.replace("\0", "")[:320]


async def letter_of(session: AsyncSession, verp: Verp, report: Report, envelope: Sequence[str]) -> Letter | None:
    """The letter that it is about. An address that only looks like ours is forged, and then nothing else in the mail is believed."""
    if any(verp.is_forged(address) for address in envelope):
        return None
    named = [found for address in (*envelope, *report.addresses) if (found := verp.read(address)) is not None]
    if not named and not any(verp.is_forged(address) for address in report.addresses):
        # Message-IDs of ours begin with the message's id: 74 random bits that whoever had the letter knows, and nobody else.
        named = [found for text in report.message_ids if (found := parse_id(text[1:].partition("@")[0])) is not None]
    for message_id in dict.fromkeys(named):
        if (row := (await session.execute(LETTER, {"id": message_id})).first()) is not None:
            return Letter(row.id, row.address, State(row.state))
    return None


async def follow_from(session: AsyncSession, letter: Letter, verdict: Verdict, by: Caller | str, moment: datetime) -> None:
    """What a report makes of its letter, and of the address that it was sent to."""
    if verdict.kind in TARGETS:
        await move(session, letter.id, verdict.kind, verdict.reason, told(verdict), moment)
    elif verdict.kind == "delayed":
        await note(session, letter.id, letter.state, "delivery_delayed", told(verdict), moment)
    elif verdict.kind == "complaint":
        await note(session, letter.id, letter.state, "complaint", told(verdict), moment)
    if verdict.kind in {"hard", "complaint"} and letter.address:
        await suppress(session, letter.address, verdict, by, moment)


async def suppress(session: AsyncSession, address: str, verdict: Verdict, by: Caller | str, moment: datetime) -> None:
    """Nothing goes there for a while, or, after a complaint, but for mandatory types; what waits for it is withdrawn."""
    is_complaint = verdict.kind == "complaint"
    reason, until = (suppressions.COMPLAINT, None) if is_complaint else (suppressions.HARD_BOUNCE, moment + HARD_FOR)
    who = "subscriber" if is_complaint else "mail"
    is_new = await suppressions.put_for_mail(session, address, reason, told(verdict), who, moment, until)
    if is_new and is_complaint:
        await record_consents(session, "email", [Said(address, "refused", told(verdict))], via="complaint", by="subscriber", moment=moment)
    cancelled = await withdraw(session, [address])
    if is_new:
        changes = {"address": address, "reason": reason, "until": until.isoformat() if until else None, "cancelled": cancelled}
        await audit.record(session, by, "suppression.create", "suppression:email", changes)


async def move(session: AsyncSession, message_id: UUID, kind: Kind, reason: str, detail: str, moment: datetime) -> bool:
    """Whether the report was news: what is still ours to send, and what has ended otherwise, stays."""
    state = TARGETS[kind]
    final = None if state is State.DELIVERED else reason
    values = {"id": message_id, "state": state.value, "reason": final, "before": before(state), "now": moment}
    row = (await session.execute(MOVE, values)).first()
    if row is None:
        return False
    metrics.MESSAGES.labels(row.channel, row.gateway, row.type, state).inc()
    await note(session, message_id, state, final, detail, moment)
    return True


async def note(session: AsyncSession, message_id: UUID, state: State, reason: str | None, detail: str, moment: datetime) -> None:
    values = {"change": new_id(), "id": message_id, "now": moment, "state": state.value, "reason": reason, "detail": detail or None}
    await session.execute(NOTE, values)


def told(verdict: Verdict) -> str:
    """For people: the code and the server's own words."""
    words = f"{verdict.status} {verdict.diagnostic}".strip()
    return f"{'complaint' if verdict.kind == 'complaint' else 'bounce'} {words}".strip()[:500]


class Bounces:
    """The step of the sweeper. Any number of them may run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def follow(self) -> int:
        """Reports that came before their letters had been settled. How many there were; twice over changes nothing."""
        return await self._database.again(self._follow)

    async def _follow(self, session: AsyncSession) -> int:
        moment = now()
        values = {"since": first_id_at(moment - EARLY), "kinds": list(TARGETS), "open": [State.ACCEPTED.value, State.UNKNOWN.value], "batch": BATCH}
        rows = (await session.execute(EARLIER, values)).all()
        for row in rows:
            verdict = Verdict(row.kind, reason_of(row.kind, row.status, row.diagnostic), row.status, row.diagnostic)
            await move(session, row.message_id, verdict.kind, verdict.reason, told(verdict), moment)
        return len(rows)
