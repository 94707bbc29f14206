"""The flusher: as soon as its last commit is done it writes all that has gathered meanwhile. No timer, no task a message.

Outcomes first, then answers that came too late to be outcomes, then receipts; when both are committed the receipts are acknowledged to the far side, and the room on the wire is given back.
A process that dies between the two has lost nothing: what was not acknowledged comes again, and storing it twice changes nothing.
A flush that fails is tried again while the database is away, and halved down to the poison row when it is not. A poison receipt is refused, for the far
side may send it in a better hour; the third time it is set aside as its mere octets and acknowledged, or else it would come for ever.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import metrics
from app.core.clock import now
from app.core.db import Database, Executor, is_away, is_datas_fault
from app.sending.claim import Claimed
from app.sending.late import Late, settle_late
from app.sending.outcome import Accepted, Outcome, Refused
from app.sending.settle import Policy, Settled, settle

log = structlog.get_logger()

MOST = 500
REFUSALS = 3  # of the same receipt, before it is kept as octets alone
REMEMBERED = 1000  # refused receipts


class ReceiptLike(Protocol):
    """What the far side reports, and how it is answered. `is_poison`: only its octets can be kept."""

    raw: bytes
    is_poison: bool

    @property
    def kind(self) -> str: ...
    def ack(self) -> None: ...
    def nack(self) -> None: ...


R = TypeVar("R", bound=ReceiptLike)
Item = tuple[Claimed, Outcome]
Record = Callable[[Executor, Policy, Sequence[R], Sequence[str], Sequence[UUID]], Awaitable[object]]
Follow = Callable[[AsyncSession, Sequence[tuple[Claimed, Refused]]], Awaitable[object]]


@dataclass(slots=True)
class Batch:
    """What one commit writes."""

    outcomes: list[Item]
    late: list[Late]
    receipts: list[tuple[ReceiptLike, float]]

    def __len__(self) -> int:
        return len(self.outcomes) + len(self.late) + len(self.receipts)

    def divided(self) -> tuple["Batch", "Batch"]:
        """By kind while there are outcomes and something else, then in two halves."""
        if self.outcomes and (self.late or self.receipts):
            return Batch(self.outcomes, [], []), Batch([], self.late, self.receipts)
        if self.late and self.receipts:
            return Batch([], self.late, []), Batch([], [], self.receipts)
        o, n, r = (len(part) // 2 for part in (self.outcomes, self.late, self.receipts))
        return Batch(self.outcomes[:o], self.late[:n], self.receipts[:r]), Batch(self.outcomes[o:], self.late[n:], self.receipts[r:])

    @property
    def is_plain(self) -> bool:
        """Nothing but taken messages: one statement settles them, and storing receipts may be repeated. No transaction round them is needed.

        What is known of the first try belongs to the outcome of the second. An SMS from a subscriber is several steps that belong together: stored, joined, done as it says."""
        if self.late or any(receipt.kind == "message" for receipt, _ in self.receipts):
            return False
        return all(isinstance(outcome, Accepted) and not claimed.resent for claimed, outcome in self.outcomes)


class Flusher:
    """One a wire. `record` stores receipts; it is told the gateway's ids and the messages of second tries that were settled in the same transaction.
    `follow` is told, in that transaction, too, what the far side has refused for good."""

    def __init__(
        self,
        database: Database,
        owner: UUID,
        policy: Policy,
        *,
        release: Callable[[Claimed, bool], None],
        record: "Record[ReceiptLike] | None" = None,
        follow: Follow | None = None,
    ) -> None:
        self._database, self._owner, self.policy, self._release = database, owner, policy, release
        self._record, self._follow = record, follow
        self._gathered = Batch([], [], [])
        self._refused: OrderedDict[bytes, int] = OrderedDict()
        self._work = asyncio.Event()
        self._busy = False

    def outcome(self, claimed: Claimed, outcome: Outcome) -> None:
        self._gathered.outcomes.append((claimed, outcome))
        self._work.set()

    def late(self, answer: Late) -> None:
        """An answer to a part whose outcome was told as Unknown."""
        self._gathered.late.append(answer)
        self._work.set()

    def receipt(self, receipt: ReceiptLike) -> None:
        self._gathered.receipts.append((receipt, time.monotonic()))
        self._work.set()

    @property
    def is_idle(self) -> bool:
        return not (self._gathered or self._busy)

    async def run(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._gathered:
                self._busy = True
                try:
                    # Shielded: what the far side has answered is written even when this process is asked to end.
                    await asyncio.shield(self._flush(self._take()))
                finally:
                    self._busy = False

    async def drained(self, seconds: float) -> bool:
        """Wait until all is written; false when the time is up."""
        until = time.monotonic() + seconds
        while not self.is_idle and time.monotonic() < until:
            await asyncio.sleep(0.01)
        return self.is_idle

    def _take(self) -> Batch:
        """The next ones of each kind; the rest stays. No late answer overtakes the outcome that it corrects."""
        old, late = self._gathered, MOST if len(self._gathered.outcomes) <= MOST else 0
        self._gathered = Batch(old.outcomes[MOST:], old.late[late:], old.receipts[MOST:])
        return Batch(old.outcomes[:MOST], old.late[:late], old.receipts[:MOST])

    async def _flush(self, batch: Batch) -> None:
        try:
            settled = await self._commit(batch)
        except Exception as error:
            if len(batch) > 1:
                for part in batch.divided():
                    await self._flush(part)
                return
            log.error("flush_failed", gateway=self.policy.gateway, exc_info=error)
            await self._cannot_be_written(batch, error)
            return
        self._tell(settled, batch)
        for claimed, _ in batch.outcomes:
            self._release(claimed, True)

    async def _cannot_be_written(self, batch: Batch, error: Exception) -> None:
        """It is alone. An outcome's lease ends as `unknown`; a receipt is refused, and the far side keeps it."""
        for receipt, _ in batch.receipts:
            if not is_datas_fault(error) or not self._is_refused_too_often(receipt.raw):
                receipt.nack()
            elif receipt.is_poison:
                log.error("receipt_thrown_away", gateway=self.policy.gateway, octets=len(receipt.raw), sha256=hashlib.sha256(receipt.raw).hexdigest())
                receipt.ack()
            else:
                receipt.is_poison = True
                await self._flush(batch)
        for claimed, _ in batch.outcomes:
            self._release(claimed, False)

    def _is_refused_too_often(self, raw: bytes) -> bool:
        """Counts the refusals of these octets; a redelivered receipt is another object."""
        digest = hashlib.sha256(raw).digest()
        refusals = self._refused.pop(digest, 0) + 1
        self._refused[digest] = refusals
        if len(self._refused) > REMEMBERED:
            self._refused.popitem(last=False)
        return refusals >= REFUSALS

    async def _commit(self, batch: Batch) -> Settled:
        """Try for as long as the database is away: what we know is known to nobody else."""
        pause = 0.1
        while True:
            try:
                if batch.is_plain:
                    return await self._database.again_atomic(lambda connection: self._write(connection, batch))
                return await self._database.again(lambda session: self._write_whole(session, batch))
            except Exception as error:
                if not is_away(error):
                    raise
                log.warning(
                    "database_away", gateway=self.policy.gateway, error=type(error).__name__, outcomes=len(batch.outcomes), receipts=len(batch.receipts)
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    async def _write_whole(self, session: AsyncSession, batch: Batch) -> Settled:
        """With what follows from refusals."""
        settled = await self._write(session, batch)
        refused = [(claimed, outcome) for claimed, outcome in batch.outcomes if isinstance(outcome, Refused) and outcome.code]
        if self._follow is not None and refused:
            await self._follow(session, refused)
        return settled

    async def _write(self, session: Executor, batch: Batch) -> Settled:
        moment = now()
        settled = await settle(session, self._owner, self.policy, batch.outcomes, moment) if batch.outcomes else Settled()
        if batch.late:
            await settle_late(session, self.policy, batch.late, moment, settled)
        if self._record is not None and (batch.receipts or settled.gateway_message_ids or settled.resent):
            receipts = [receipt for receipt, _ in batch.receipts]
            await self._record(session, self.policy, receipts, settled.gateway_message_ids, settled.resent)
        return settled

    def _tell(self, settled: Settled, batch: Batch) -> None:
        at, gateway = time.monotonic(), self.policy.gateway
        for receipt, came in batch.receipts:
            receipt.ack()
            metrics.RECEIPT_SECONDS.labels(gateway).observe(at - came)
        for claimed, _ in batch.outcomes:
            metrics.SEND_SECONDS.labels(gateway).observe(at - claimed.began)
        for labels, number in settled.moved.items():
            metrics.MESSAGES.labels(*labels).inc(number)
