"""Deliver: one claiming loop for one wire (a bind, or a pool of mail connections). Jobs only poke it.

room on the wire -> claim (durable) -> ship -> outcome -> flush -> room again
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

import structlog

from app.core.clock import now
from app.core.db import Database
from app.sending.budgets import Budgets
from app.sending.claim import Claimed, claim_due, unclaim
from app.sending.flush import Flusher
from app.sending.outcome import Deferred, Outcome
from app.sending.settle import Policy

log = structlog.get_logger()

PACE = 0.005  # seconds between the beginnings of two claims: room comes back by the piece, and a claim costs the same for one as for twenty
IDLE = 2.0  # seconds between two looks round when nobody pokes: the guarantee that needs no Redis
STILL_OUT = timedelta(seconds=30)
BROKEN = 1.0  # seconds of rest after a claim that failed


class Wire(Protocol):
    """What a claiming loop needs of a bind or a pool."""

    def allowance(self) -> int: ...
    def next_chance(self) -> float: ...
    async def run(self) -> None: ...
    async def stop(self, grace: float) -> None: ...


class Delivery:
    """Claims for one wire and hands over; `ship` puts one message on the wire and says how much room it takes, `release` gives that back."""

    def __init__(
        self,
        database: Database,
        wire: Wire,
        owner: UUID,
        policy: Policy,
        flusher: Flusher,
        *,
        ship: Callable[[Claimed], int],
        lease: timedelta,
        may_claim: Callable[[], bool] = lambda: True,
        budgets: Budgets | None = None,
    ) -> None:
        self._database, self._wire, self._owner, self._policy, self._flusher = database, wire, owner, policy, flusher
        self._ship, self._lease, self._may_claim, self._budgets = ship, lease, may_claim, budgets
        self._poked = asyncio.Event()  # there may be work
        self._roomy = asyncio.Event()  # the wire may take more
        self._in_hand: dict[UUID, Claimed] = {}
        self._unwritten: set[UUID] = set()
        self._doubt = False  # a claim's commit was not answered: what did it take?
        self._stopping = False

    def poke(self) -> None:
        """There may be work, or the wire can take some again."""
        self._poked.set()
        self._roomy.set()

    @property
    def at_work(self) -> list[UUID]:
        """The messages that an outcome may still be written for: their leases may be pushed on."""
        return [message_id for message_id in self._in_hand if message_id not in self._unwritten]

    @property
    def long_at_work(self) -> list[UUID]:
        """Those of them of whose lease half is over: long messages in a small window, or one that a pause of the far side keeps back."""
        since = time.monotonic() - self._lease.total_seconds() / 2
        return [claimed.id for claimed in self._in_hand.values() if claimed.began < since and claimed.id not in self._unwritten]

    @property
    def lease(self) -> timedelta:
        return self._lease

    def came(self, key: UUID, outcome: Outcome) -> None:
        """The wire says what came of a message."""
        claimed = self._in_hand.get(key)
        if claimed is not None:
            claimed.told, claimed.put_back = True, isinstance(outcome, Deferred)
            self._flusher.outcome(claimed, outcome)

    def done(self, claimed: Claimed, *, written: bool) -> int:
        """Its flush is over. The room that it took. What could not be written stays in our hands: it may have been sent, so nobody may put it back."""
        if not written:
            self._unwritten.add(claimed.id)
        elif self._in_hand.get(claimed.id) is claimed:  # and not its next try, which may be out already when the answer to the first commit was lost
            del self._in_hand[claimed.id]
        self._roomy.set()
        if claimed.put_back:
            self._poked.set()
        return claimed.room

    async def run(self) -> None:
        """Claim and ship until `stop()`."""
        while not self._stopping:
            room = self._wire.allowance() if self._may_claim() else 0
            if room <= 0:
                await rest(self._roomy, max(0.001, self._wire.next_chance()))
                continue
            self._poked.clear()
            began = time.monotonic()
            dry = await self._claim(room)
            took = time.monotonic() - began
            if dry:  # room alone is no reason to look again
                await rest(self._poked, IDLE)
            await asyncio.sleep(max(PACE, took) - (time.monotonic() - began))

    def stop(self) -> None:
        self._stopping = True
        self.poke()

    async def _claim(self, room: int) -> bool:
        """Claim and ship; whether that was all that is due."""
        moment = now()
        try:
            # Shielded: a claim that is committed is shipped, or given back by the wire's stop; it does not hang in the air.
            return await asyncio.shield(self._claim_and_ship(room, moment))
        except Exception as error:
            self._doubt = True
            log.warning("claim_failed", gateway=self._policy.gateway, error=type(error).__name__, detail=str(error)[:200])
            await asyncio.sleep(BROKEN)
            return False

    async def _claim_and_ship(self, room: int, moment: datetime) -> bool:
        batch, dry = await self._take(room, moment)
        self._doubt = False
        began = time.monotonic()
        for claimed in batch:
            claimed.began = began
            earlier = self._in_hand.get(claimed.id)
            if earlier is not None and not earlier.told:
                # Its lease has ended while it was on the wire, and somebody queued it again. Twice on one wire, its outcomes could not be told apart.
                self._flusher.outcome(claimed, Deferred("still_on_the_wire", STILL_OUT, spends_attempt=False))
                continue
            self._in_hand[claimed.id] = claimed
            try:
                claimed.room = self._ship(claimed)
            except Exception as error:  # a mistake of ours; the message gets another attempt, and its neighbours theirs
                log.error("ship_failed", gateway=self._policy.gateway, message_id=str(claimed.id), exc_info=error)
                self._flusher.outcome(claimed, Deferred("internal_error", timedelta(seconds=30)))
        return dry

    async def _take(self, room: int, moment: datetime) -> tuple[list[Claimed], bool]:
        """The claim itself, and whether it was all that is due."""
        in_hand = list(self._in_hand) if self._doubt else None
        if self._budgets is not None and self._budgets.stand:
            return await self._budgets.claim(self._owner, room, moment, self._lease, in_hand)
        async with self._database.atomic() as connection:
            if in_hand is not None:
                await unclaim(connection, self._owner, in_hand)
            batch = await claim_due(connection, self._policy.gateway, self._owner, room, moment, self._lease)
        return batch, not batch or batch[0].due == len(batch) < room


async def rest(until: asyncio.Event, seconds: float) -> None:
    """Until the event, or so many seconds; the event is taken."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(until.wait(), seconds)
    until.clear()
