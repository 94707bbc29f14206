"""The audit as a chain: whoever changes, removes, inserts or reorders records behind our back breaks it where he did.

Each record gets a number, in the order in which the seal finds it committed, and the hash SHA-256(hash of the one before + the record). The seal is one
background job: of two at once the second leaves it to the first. Whoever can write to the tables as their owner can also compute a whole new chain from
where he began; so the head belongs somewhere else as well (`vestnik audit verify` prints it, and `--expect` compares).
"""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import metrics
from app.core.db import Database
from app.core.peppers import peppers

BATCH = 1_000
STEP = 10_000  # records that are verified at a time
BEGINNING = bytes(32)

OUR_TURN = sa.text("SELECT pg_try_advisory_xact_lock(hashtext('vestnik audit seal'))")
HEAD = sa.text("SELECT seq, hash FROM audit_seal ORDER BY seq DESC LIMIT 1")
# jsonb has one text for one value: keys in its own order, numbers as they were given.
RECORD = "r.id, r.at, r.actor, r.action, r.object, CAST(r.changes AS text) AS changes, r.request_id, r.account_id"
# What was removed before it was sealed stays in the queue, as the proof that it was there.
TAKE = sa.text(f"""
WITH taken AS (
    DELETE FROM audit_unsealed WHERE record_id = ANY(ARRAY(
        SELECT u.record_id FROM audit_unsealed u JOIN audit_record r ON r.id = u.record_id ORDER BY u.record_id LIMIT :batch
    )) RETURNING record_id
)
SELECT {RECORD} FROM taken JOIN audit_record r ON r.id = taken.record_id WHERE NOT EXISTS (SELECT FROM audit_seal s WHERE s.record_id = r.id) ORDER BY r.id
""")
SEAL = sa.text("""
INSERT INTO audit_seal (seq, record_id, hash) SELECT * FROM unnest(CAST(:seqs AS bigint[]), CAST(:ids AS uuid[]), CAST(:hashes AS bytea[]))
""")
WALK = sa.text(f"""
SELECT s.seq, s.record_id, s.hash, {RECORD} FROM audit_seal s LEFT JOIN audit_record r ON r.id = s.record_id
WHERE s.seq > :after ORDER BY s.seq LIMIT :step
""")
OUTSIDE = sa.text("""
SELECT r.id FROM audit_record r LEFT JOIN audit_seal s ON s.record_id = r.id LEFT JOIN audit_unsealed u ON u.record_id = r.id
WHERE s.record_id IS NULL AND u.record_id IS NULL ORDER BY r.id LIMIT 1
""")
MISSING = sa.text("SELECT u.record_id FROM audit_unsealed u LEFT JOIN audit_record r ON r.id = u.record_id WHERE r.id IS NULL ORDER BY u.record_id LIMIT 1")
WAITING = sa.text("SELECT count(*) FROM audit_unsealed")
WAITING_SHOWN = sa.text("SELECT count(*) FROM (SELECT FROM audit_unsealed LIMIT :most) AS bounded")
MOST_SHOWN = 100_000  # records that are counted for the metric


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain: what it says, everything before it stands for. 0 is before the first record."""

    seq: int = 0
    hash: bytes = BEGINNING

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash.hex()}"


@dataclass(frozen=True, slots=True)
class Break:
    """The first record that is not as it was sealed. `seq` is None for one that is in no place of the chain."""

    what: str  # changed_or_reordered, deleted, seal_missing, not_sealed, head_not_found
    seq: int | None
    record_id: UUID | None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """What a walk through the chain found; `broken` is None when all is as it was."""

    head: Head
    waiting: int  # records too new to be sealed
    broken: Break | None = None


class Seal:
    """The background job."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> int:
        """Seal a batch of what has been committed. How many that were; 0 when there is nothing, or another process is at it."""
        async with self._database.transaction() as session:
            if not (await session.execute(OUR_TURN)).scalar():
                return 0
            await peppers(session)  # after a rotation of the secret keys this seals them anew, long before the old key is taken away
            rows = (await session.execute(TAKE, {"batch": BATCH})).all()
            if not rows:
                return 0
            head = await head_of(session)
            links: list[tuple[int, UUID, bytes]] = []
            for row in rows:
                head = Head(head.seq + 1, link(head, row))
                links.append((head.seq, row.id, head.hash))
            seqs, ids, hashes = zip(*links, strict=True)
            await session.execute(SEAL, {"seqs": list(seqs), "ids": list(ids), "hashes": list(hashes)})
            return len(rows)

    async def look(self) -> None:
        """Show how many records wait, up to 100,000: also when it is somebody else who seals them, and above all when nobody can."""
        async with self._database.transaction() as session:
            metrics.AUDIT_UNSEALED.set((await session.execute(WAITING_SHOWN, {"most": MOST_SHOWN})).scalar_one())


async def head_of(session: AsyncSession) -> Head:
    found = (await session.execute(HEAD)).first()
    return Head(found.seq, bytes(found.hash)) if found is not None else Head()


def link(before: Head, row: Any) -> bytes:
    """The hash of a record in its place: SHA-256 of the hash before it, and of its number and fields as one JSON array."""
    fields = [
        before.seq + 1,
        str(row.id),
        stamp(row.at),
        row.actor,
        row.action,
        row.object,
        row.changes,
        row.request_id,
        row.account_id and str(row.account_id),
    ]
    return hashlib.sha256(before.hash + orjson.dumps(fields)).digest()


def stamp(at: datetime) -> str:
    """One form for one moment, to the microsecond."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


async def verify(database: Database, expected: Head | None = None) -> Verified:
    """Walk the chain from its beginning, as it is at one moment. `expected` is a head that was written down elsewhere: it has to be in the chain.

    10,000 records at a time; the memory that it takes does not grow."""
    async with database.transaction(isolation="REPEATABLE READ") as session:
        head, witnessed = Head(), expected is None or expected.seq == 0
        async for row in _links(session):
            if row.seq != head.seq + 1:
                return Verified(head, 0, Break("seal_missing", head.seq + 1, None))
            if row.id is None:
                return Verified(head, 0, Break("deleted", row.seq, row.record_id))
            if link(head, row) != bytes(row.hash):
                return Verified(head, 0, Break("changed_or_reordered", row.seq, row.record_id, row.at))
            head = Head(row.seq, bytes(row.hash))
            witnessed = witnessed or head == expected
        waiting = int((await session.execute(WAITING)).scalar_one())
        for question, what in ((OUTSIDE, "not_sealed"), (MISSING, "deleted")):
            if (stray := (await session.execute(question)).scalar()) is not None:
                return Verified(head, waiting, Break(what, None, stray))
        if not witnessed and expected is not None:
            return Verified(head, waiting, Break("head_not_found", expected.seq, None))
        return Verified(head, waiting)


async def _links(session: AsyncSession) -> AsyncIterator[Any]:
    after = 0
    while rows := (await session.execute(WALK, {"after": after, "step": STEP})).all():
        for row in rows:
            yield row
        after = rows[-1].seq
