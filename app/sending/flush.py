"""The flusher: as soon as its last commit is done it writes all that has gathered meanwhile. No timer, no task a message.

Outcomes first, then receipts; when both are committed the receipts are acknowledged to the far side, and the room on the wire is given back.
A process that dies between the two has lost nothing: what was not acknowledged comes again, and storing it twice changes nothing.
A flush that fails is tried again while the database is away, and halved down to the poison row when it is not.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar
from uuid import UUID

import structlog

from app.core import metrics
from app.core.clock import now
from app.core.db import Database, Executor, is_away
from app.sending.claim import Claimed
from app.sending.outcome import Accepted, Outcome
from app.sending.settle import Policy, Settled, settle

log = structlog.get_logger()

MOST = 500


class ReceiptLike(Protocol):
    """What the far side reports, and how it is answered."""

    def ack(self) -> None: ...
    def nack(self) -> None: ...


R = TypeVar("R", bound=ReceiptLike)
Item = tuple[Claimed, Outcome]
Record = Callable[[Executor, Policy, Sequence[R], Sequence[str]], Awaitable[object]]


class Flusher:
    """One a wire. `record` stores receipts (with the gateway's message ids that were settled in the same transaction)."""

    def __init__(
        self, database: Database, owner: UUID, policy: Policy, *, release: Callable[[Claimed, bool], None], record: "Record[ReceiptLike] | None" = None
    ) -> None:
        self._database, self._owner, self.policy, self._release, self._record = database, owner, policy, release, record
        self._outcomes: list[Item] = []
        self._receipts: list[tuple[ReceiptLike, float]] = []
        self._work = asyncio.Event()
        self._busy = False

    def outcome(self, claimed: Claimed, outcome: Outcome) -> None:
        self._outcomes.append((claimed, outcome))
        self._work.set()

    def receipt(self, receipt: ReceiptLike) -> None:
        self._receipts.append((receipt, time.monotonic()))
        self._work.set()

    @property
    def is_idle(self) -> bool:
        return not (self._outcomes or self._receipts or self._busy)

    async def run(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._outcomes or self._receipts:
                self._busy = True
                outcomes, self._outcomes = self._outcomes[:MOST], self._outcomes[MOST:]
                receipts, self._receipts = self._receipts[:MOST], self._receipts[MOST:]
                try:
                    # Shielded: what the far side has answered is written even when this process is asked to end.
                    await asyncio.shield(self._flush(outcomes, receipts))
                finally:
                    self._busy = False

    async def drained(self, seconds: float) -> bool:
        """Wait until all is written; false when the time is up."""
        until = time.monotonic() + seconds
        while not self.is_idle and time.monotonic() < until:
            await asyncio.sleep(0.01)
        return self.is_idle

    async def _flush(self, outcomes: list[Item], receipts: list[tuple[ReceiptLike, float]]) -> None:
        try:
            settled = await self._commit(outcomes, receipts)
        except Exception as error:
            if outcomes and receipts:
                await self._flush(outcomes, [])
                await self._flush([], receipts)
                return
            if len(outcomes) + len(receipts) > 1:
                await self._flush(outcomes[: len(outcomes) // 2], receipts[: len(receipts) // 2])
                await self._flush(outcomes[len(outcomes) // 2 :], receipts[len(receipts) // 2 :])
                return
            # Alone, and it cannot be written: its lease ends as `unknown`; a receipt is refused, and the far side keeps it.
            log.error("flush_failed", gateway=self.policy.gateway, exc_info=error)
            for receipt, _ in receipts:
                receipt.nack()
            for claimed, _ in outcomes:
                self._release(claimed, False)
            return
        self._tell(settled, outcomes, receipts)
        for claimed, _ in outcomes:
            self._release(claimed, True)

    async def _commit(self, outcomes: list[Item], receipts: list[tuple[ReceiptLike, float]]) -> Settled:
        """Try for as long as the database is away: what we know is known to nobody else."""
        pause = 0.1
        while True:
            try:
                if is_plain(outcomes):
                    return await self._database.again_atomic(lambda connection: self._write(connection, outcomes, receipts))
                return await self._database.again(lambda session: self._write(session, outcomes, receipts))
            except Exception as error:
                if not is_away(error):
                    raise
                log.warning("database_away", gateway=self.policy.gateway, error=type(error).__name__, outcomes=len(outcomes), receipts=len(receipts))
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    async def _write(self, session: Executor, outcomes: list[Item], receipts: list[tuple[ReceiptLike, float]]) -> Settled:
        settled = await settle(session, self._owner, self.policy, outcomes, now()) if outcomes else Settled()
        if self._record is not None and (receipts or settled.gateway_message_ids):
            await self._record(session, self.policy, [receipt for receipt, _ in receipts], settled.gateway_message_ids)
        return settled

    def _tell(self, settled: Settled, outcomes: list[Item], receipts: list[tuple[ReceiptLike, float]]) -> None:
        at, gateway = time.monotonic(), self.policy.gateway
        for receipt, came in receipts:
            receipt.ack()
            metrics.RECEIPT_SECONDS.labels(gateway).observe(at - came)
        for claimed, _ in outcomes:
            metrics.SEND_SECONDS.labels(gateway).observe(at - claimed.began)
        for labels, number in settled.moved.items():
            metrics.MESSAGES.labels(*labels).inc(number)


def is_plain(outcomes: list[Item]) -> bool:
    """Nothing but taken messages: one statement settles them, and storing receipts may be repeated. No transaction round them is needed."""
    return all(isinstance(outcome, Accepted) for _, outcome in outcomes)
