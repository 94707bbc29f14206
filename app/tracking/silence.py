"""Receipts that never came: an SMS was taken, its validity is over, and so is the time that a receipt may take.

It stays `accepted`, with the reason `no_receipt`; a receipt that comes after all still counts. A long message of which a part is known to be lost ends
with that part's state. What is `unknown` stays so. Messages are gone through once, slice by slice of time; a mark for each gateway says how far.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import metrics
from app.core.clock import now as clock
from app.core.db import Database
from app.core.ids import first_id_at, new_id
from app.notifications.rows import CHANGES
from app.notifications.states import State
from app.tracking.moves import bad_parts, by_state, known_parts, move_to, states_of
from app.tracking.rules import GatewayRules

BATCH = 2000
SPELL = 2.0  # seconds after which a step begins no second slice of a gateway: the other sweeps wait for it
EVERY = 15.0  # seconds between two looks, when the last one had come to its end
# Times to live from minutes to days lie side by side in the table: a look may have to read what was made in all that time. It rests so many times as long as
# it took, or else it would be read all day for news that is a day old.
RESTS = 50.0
SHORTEST, FIRST, LONGEST = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
LOOK_BACK = timedelta(days=7)  # where a gateway without a mark begins

MADE = sa.text("INSERT INTO sweep_mark (name, upto) VALUES (:name, :upto) ON CONFLICT DO NOTHING")
# A mark that another sweeper has in hand is left to it.
TAKEN = sa.text("SELECT upto FROM sweep_mark WHERE name = :name FOR UPDATE SKIP LOCKED")
MOVED_ON = sa.text("UPDATE sweep_mark SET upto = :upto WHERE name = :name")
OPEN = "m.state = 'accepted' AND m.reason IS DISTINCT FROM 'no_receipt' AND m.channel = 'sms' AND m.gateway = :gateway"
# By when they expire: sooner or later this one finds them all.
EXPIRED = sa.text(f"SELECT id, parts FROM message m WHERE m.expires_at >= :begin AND m.expires_at < :end AND {OPEN} LIMIT :batch")
# By when they were made: the SMSC's validity may be shorter than the life of the message, and then it has given up long before.
GIVEN_UP = sa.text(f"SELECT id, parts FROM message m WHERE m.id >= :first AND m.id < :last AND m.updated_at < :sent_before AND {OPEN} LIMIT :batch")
NO_RECEIPT = sa.text("UPDATE message SET reason = 'no_receipt', updated_at = :now WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'accepted' RETURNING id")
LONGEST_LIFE = sa.text("SELECT coalesce(max(ttl_seconds), 0) FROM notification_type")


@dataclass(frozen=True, slots=True)
class Passage:
    """One way through the messages of a gateway, up to a limit that moves with the clock."""

    mark: str
    gateway: str
    limit: datetime
    select: sa.TextClause

    def values(self, begin: datetime, end: datetime) -> dict[str, Any]:
        if self.select is EXPIRED:
            return {"begin": begin, "end": end, "gateway": self.gateway, "batch": BATCH}
        return {"first": first_id_at(begin), "last": first_id_at(end), "sent_before": self.limit, "gateway": self.gateway, "batch": BATCH}


class Silence:
    """A step of the sweeper. May run anywhere, any number of times, at the same time."""

    def __init__(self, database: Database, rules: GatewayRules) -> None:
        self._database, self._rules = database, rules
        self._slices: dict[str, timedelta] = defaultdict(lambda: FIRST)
        self._next = 0.0

    async def end(self) -> int:
        """End what has waited for its receipt in vain. How many were looked at."""
        if time.monotonic() < self._next:
            return 0
        async with self._database.transaction() as session:
            await self._rules.refresh(session)
            longest_life = timedelta(seconds=int((await session.execute(LONGEST_LIFE)).scalar_one()))
        seen, is_done, began = 0, True, time.monotonic()
        for passage in self._passages(clock(), longest_life):
            number, done = await self._go(passage, began + SPELL)
            seen, is_done = seen + number, is_done and done
        if is_done:
            self._next = time.monotonic() + max(EVERY, RESTS * (time.monotonic() - began))
        return seen

    def _passages(self, moment: datetime, longest_life: timedelta) -> list[Passage]:
        passages = []
        for name, rules in self._rules.all.items():
            if not rules.expects_receipts:
                continue
            passages.append(Passage(f"no_receipt:{name}", name, moment - rules.receipt_timeout, EXPIRED))
            if longest_life > rules.longest_validity:
                passages.append(Passage(f"given_up:{name}", name, moment - rules.receipt_timeout - rules.longest_validity, GIVEN_UP))
        return passages

    async def _go(self, passage: Passage, until: float) -> tuple[int, bool]:
        """Go on from the mark, by one slice at least. How many messages there were, and whether the limit was reached."""
        seen = 0
        while True:
            number, done = await self._database.again(lambda session: self._slice(session, passage))
            seen += number
            if done or number == BATCH or time.monotonic() > until:
                return seen, done

    async def _slice(self, session: AsyncSession, passage: Passage) -> tuple[int, bool]:
        await session.execute(MADE, {"name": passage.mark, "upto": passage.limit - LOOK_BACK})
        begin = (await session.execute(TAKEN, {"name": passage.mark})).scalar()
        if begin is None or begin >= passage.limit:
            return 0, True
        width = self._slices[passage.mark]
        end = min(begin + width, passage.limit)
        rows = (await session.execute(passage.select, passage.values(begin, end))).all()
        await self._end(session, passage.gateway, rows)
        if len(rows) == BATCH:  # there may be more of them in this slice
            self._slices[passage.mark] = max(width / 2, SHORTEST)
            return BATCH, False
        await session.execute(MOVED_ON, {"name": passage.mark, "upto": end})
        if 10 * len(rows) < BATCH:
            self._slices[passage.mark] = min(width * 2, LONGEST)
        return len(rows), end == passage.limit

    async def _end(self, session: AsyncSession, gateway: str, rows: Sequence[Any]) -> None:
        if not rows:
            return
        moment = clock()
        known = await known_parts(session, [row.id for row in rows])
        told = states_of(known, {row.id: row.parts for row in rows})
        told |= {message_id: bad[0] for message_id, parts in known.items() if (bad := bad_parts(parts))}
        await move_to(session, by_state(told), moment)
        silent = [row.id for row in rows if row.id not in told]
        ended = list((await session.execute(NO_RECEIPT, {"ids": silent, "now": moment})).scalars())
        detail = "no receipt within receipt_timeout after its validity"
        await CHANGES.run(session, [(new_id(), message_id, moment, State.ACCEPTED.value, "no_receipt", detail) for message_id in ended])
        metrics.RECEIPTS.labels(gateway, "no_receipt").inc(len(ended))
