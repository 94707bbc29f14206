"""The simulated gateway: what test keys send is claimed, answered and settled as on any wire, but there is no wire.

    claim -> answer (`sending/simulated`) -> settle, and what is to be heard later into `simulated_receipt`      one transaction
    what is due of that -> receipts and bounces                                                                  one transaction

So whoever dies has done whole batches, and nothing hangs on a process. Any number of them may run (SKIP LOCKED).
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import metrics
from app.core.clock import now
from app.core.db import BulkInsert, Database
from app.gateways.router import SIMULATED
from app.sending.claim import Claimed, claim_due
from app.sending.outcome import Accepted, Outcome
from app.sending.settle import settle
from app.sending.simulated import POLICY, answer, heard_of
from app.sending.smpp.receipts import STATES, Receipt
from app.tracking import bounces
from app.tracking.match import record

log = structlog.get_logger()

ROOM = 500  # parts in one transaction
LEASE = timedelta(seconds=60)
LATER = timedelta(seconds=1)  # from the submission to what is heard of it
IDLE = 1.0  # seconds between two looks round

HEAR = BulkInsert("simulated_receipt", message_id="uuid", gateway_message_id="text", due_at="timestamptz", says="text", conflict="ON CONFLICT DO NOTHING")
DUE = sa.text("""
WITH due AS (
    DELETE FROM simulated_receipt WHERE gateway_message_id = ANY(ARRAY(
        SELECT gateway_message_id FROM simulated_receipt WHERE due_at <= :now ORDER BY due_at LIMIT :room FOR UPDATE SKIP LOCKED
    )) RETURNING message_id, gateway_message_id, says
)
SELECT due.*, m.channel, m.address FROM due JOIN message m ON m.id = due.message_id WHERE m.gateway = :gateway ORDER BY gateway_message_id
""")

# SMPP 3.4, appendix B: the words of receipts, and errors as an SMSC has them.
WORDS = {
    "delivered": ("DELIVRD", "000"),
    "undelivered": ("UNDELIV", "001"),
    "expired": ("EXPIRED", "027"),
    "rejected": ("REJECTD", "088"),
    "deleted": ("DELETED", "002"),
}


class SimulatedGateway:
    """One turn of each step; how many messages it moved."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def send(self) -> int:
        """What is due is answered, and settled with its answer."""
        return await self._database.again(self._send)

    async def hear(self) -> int:
        """What is to be heard by now is heard."""
        return await self._database.again(self._hear)

    async def _send(self, session: AsyncSession) -> int:
        owner, moment = uuid4(), now()
        batch = await claim_due(session, SIMULATED, owner, ROOM, moment, LEASE)
        if not batch:
            return 0
        outcomes: list[tuple[Claimed, Outcome]] = [(claimed, answer(claimed)) for claimed in batch]
        settled = await settle(session, owner, POLICY, outcomes, moment)
        await HEAR.run(session, [line for claimed, said in outcomes if isinstance(said, Accepted) for line in to_hear(claimed, said.ids, moment)])
        for labels, number in settled.moved.items():
            metrics.MESSAGES.labels(*labels).inc(number)
        return len(batch)

    async def _hear(self, session: AsyncSession) -> int:
        moment = now()
        rows = (await session.execute(DUE, {"now": moment, "room": ROOM, "gateway": SIMULATED})).all()
        if receipts := [receipt_of(row) for row in rows if row.says in WORDS]:
            await record(session, POLICY, receipts, [])
        for row in rows:
            if row.says not in WORDS:
                await bounce(session, row.message_id, row.says, moment)
        return len(rows)


def to_hear(claimed: Claimed, ids: Sequence[str], moment: datetime) -> list[tuple[Any, ...]]:
    says = heard_of(claimed)
    return [] if says == "nothing" else [(claimed.id, one, moment + LATER, says) for one in ids]


def receipt_of(row: Any) -> Receipt:
    """As a bind would have read it."""
    stat, error = WORDS[row.says]
    state, reason = STATES[stat]
    delivered = int(stat == "DELIVRD")
    written = f"id:{row.gateway_message_id} sub:001 dlvrd:{delivered:03} stat:{stat} err:{error} text:simulated"
    receipt = Receipt(0, 0, written.encode(), lambda *_: None, 0)
    receipt.kind, receipt.gateway_message_id, receipt.stat, receipt.state = "receipt", row.gateway_message_id, stat, state
    receipt.reason, receipt.error, receipt.is_known_word = reason, error, True
    receipt.address = int(row.address[1:]) if row.address[1:].isdecimal() else None
    return receipt


async def bounce(session: AsyncSession, message_id: UUID, says: str, moment: datetime) -> None:
    """A letter that came back. Its address is suppressed by no simulation: the same test can be made again."""
    if says == "hard_bounce":
        await bounces.move(session, message_id, "hard", "mailbox_unavailable", "bounce 5.1.1 simulated", moment)
    else:
        await bounces.move(session, message_id, "soft", "mailbox_full", "bounce 4.2.2 simulated", moment)


class SimulatedStation:
    """What a worker runs for `simulated`."""

    def __init__(self, database: Database) -> None:
        self._gateway = SimulatedGateway(database)
        self._poked, self._stopping = asyncio.Event(), False

    def poke(self) -> None:
        self._poked.set()

    def stop(self) -> None:
        self._stopping = True
        self._poked.set()

    async def run(self) -> None:
        while not self._stopping:
            self._poked.clear()
            try:
                began = time.monotonic()
                while not self._stopping and await asyncio.shield(asyncio.create_task(self._turn())):
                    await asyncio.sleep(time.monotonic() - began)  # others have their turn at the database
                    began = time.monotonic()
            except Exception as error:
                log.error("simulated_station", exc_info=error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poked.wait(), IDLE)

    async def _turn(self) -> bool:
        """Whether there was anything to do."""
        return bool(await self._gateway.send() + await self._gateway.hear())
