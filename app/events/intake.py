"""Events taken in: checked, once per (source, id), committed before anybody hears yes.

    read_event -> check_data -> [one transaction] keys, events, waiting rows, balances -> wake `plan`

Single events share transactions: while one commit runs, the next ones gather (group commit, no timer).
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalogue.registry import Catalogue
from app.catalogue.types import EVENT_TYPES, check_data
from app.core import metrics
from app.core.clock import now
from app.core.db import Database, is_away
from app.core.errors import FieldError
from app.core.ids import new_id
from app.core.wakeups import PLAN, Wakeups
from app.events.cloudevents import EventIn, read_event

AHEAD = timedelta(minutes=10)
REFRESH = 1.0  # seconds for which the catalogue is taken as unchanged
GATHER = 500  # single events in one commit at the most


@dataclass(frozen=True, slots=True)
class Taken:
    """Committed, now or before."""

    event_id: UUID
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Rejected:
    """Nothing of it is stored."""

    code: str
    errors: list[FieldError]


@dataclass(slots=True)
class Ready:
    """An event with nothing wrong but perhaps its account."""

    event: EventIn
    type_label: str
    data: dict[str, Any]
    balance: Decimal | None
    event_id: UUID
    at: datetime
    account_id: UUID | None = None


Answer = Taken | Rejected


class Intake:
    """One for a process. `take_batch` commits a request of its own, `take_one` joins the next common commit."""

    def __init__(self, database: Database, catalogue: Catalogue, wakeups: Wakeups) -> None:
        self._database, self._catalogue, self._wakeups = database, catalogue, wakeups
        self._gathered: list[tuple[Ready, asyncio.Future[Answer]]] = []
        self._work = asyncio.Event()
        self._committing = False
        self._committer: asyncio.Task[None] | None = None
        self._refreshed = -REFRESH

    def start(self) -> None:
        self._work = asyncio.Event()
        self._committer = asyncio.get_running_loop().create_task(self._commit_for_ever())

    async def stop(self) -> None:
        """What was promised an answer gets it; then the committer ends."""
        while self._gathered or self._committing:
            self._work.set()
            await asyncio.sleep(0.01)
        if self._committer is not None:
            self._committer.cancel()
            await asyncio.gather(self._committer, return_exceptions=True)

    async def take_one(self, raw: Any) -> Answer:
        checked = await self._check([raw])
        if isinstance(checked[0], Rejected):
            count(checked, [checked[0]])
            return checked[0]
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._gathered.append((checked[0], future))
        self._work.set()
        answer = await future
        count(checked, [answer])
        return answer

    async def take_batch(self, raws: Sequence[Any]) -> list[Answer]:
        """An answer for each, in order. All that is taken is taken in one transaction."""
        checked = await self._check(raws)
        ready = [item for item in checked if isinstance(item, Ready)]
        answers = iter(await self._commit(ready)) if ready else iter(())
        done = [item if isinstance(item, Rejected) else next(answers) for item in checked]
        count(checked, done)
        return done

    async def _check(self, raws: Sequence[Any]) -> list[Ready | Rejected]:
        types = self._catalogue.types
        strange = any(isinstance(raw, dict) and (kind := raw.get("type")).__class__ is str and kind not in EVENT_TYPES and kind not in types for raw in raws)
        if strange or time.monotonic() - self._refreshed > REFRESH:  # perhaps an operator has just added it
            async with self._database.transaction() as session:
                await self._catalogue.refresh(session)
            self._refreshed = time.monotonic()
        moment = now()
        return [self._check_one(raw, moment) for raw in raws]

    def _check_one(self, raw: Any, moment: datetime) -> Ready | Rejected:
        event = read_event(raw, moment + AHEAD)
        if isinstance(event, list):
            return Rejected(event[0].code, event)
        rules = self._catalogue.types.get(event.type)
        if rules is None and event.type not in EVENT_TYPES:
            return Rejected("unknown_type", [FieldError("/type", "unknown_type", "The catalogue has no such type.")])
        checked = check_data(event.type, event.data, rules.data_schema if rules else None)
        if isinstance(checked, list):
            return Rejected(checked[0].code, checked)
        return Ready(event, event.type, checked.data, checked.balance, new_id(), event.time or moment)

    async def _commit(self, ready: list[Ready]) -> list[Answer]:
        answers = await self._database.again(lambda session: store(session, ready))
        if any(isinstance(answer, Taken) and not answer.duplicate for answer in answers):
            self._wakeups.wake(PLAN)
        return answers

    async def _commit_for_ever(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._gathered:
                group, self._gathered = self._gathered[:GATHER], self._gathered[GATHER:]
                self._committing = True
                try:
                    await self._commit_group(group)
                finally:
                    self._committing = False

    async def _commit_group(self, group: list[tuple[Ready, asyncio.Future[Answer]]]) -> None:
        """One commit for all; when that fails, one for each, so that a single event cannot take its neighbours with it."""
        try:
            answers = await self._commit([ready for ready, _ in group])
        except Exception as error:
            if len(group) == 1 or is_away(error):  # one by one would only make the last of them wait the longest
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)
                return
            for member in group:
                await self._commit_group([member])
            return
        for (_, future), answer in zip(group, answers, strict=True):
            if not future.done():
                future.set_result(answer)


def count(checked: Sequence[Ready | Rejected], answers: Sequence[Answer]) -> None:
    tally: Counter[tuple[str, str]] = Counter()
    for item, answer in zip(checked, answers, strict=True):
        label = item.type_label if isinstance(item, Ready) else "unknown"
        tally[label, "rejected" if isinstance(answer, Rejected) else "duplicate" if answer.duplicate else "accepted"] += 1
    for labels, number in tally.items():
        metrics.EVENTS.labels(*labels).inc(number)


ACCOUNTS = sa.text("SELECT number, id FROM account WHERE number = ANY(CAST(:numbers AS text[])) AND status <> 'erased'")

# Keys first, in one order everywhere: of two that bring the same key at once, the second waits here for the first one's commit, holding nothing that it needs.
STORE = sa.text("""
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:sources AS text[]), CAST(:external_ids AS text[]), CAST(:ids AS uuid[]), CAST(:types AS text[]),
                         CAST(:account_ids AS uuid[]), CAST(:times AS timestamptz[]), CAST(:datas AS text[]))
        AS g(source, external_id, id, type, account_id, time, data)
), fresh AS (
    INSERT INTO event_key (source, external_id, event_id) SELECT source, external_id, id FROM given
    ON CONFLICT DO NOTHING RETURNING event_id
), kept AS (
    INSERT INTO event (id, source, external_id, type, account_id, time, data)
    SELECT g.id, g.source, g.external_id, g.type, g.account_id, g.time, CAST(g.data AS jsonb) FROM given g JOIN fresh ON fresh.event_id = g.id
), waits AS (
    INSERT INTO event_waiting (event_id, account_id) SELECT g.id, g.account_id FROM given g JOIN fresh ON fresh.event_id = g.id
)
SELECT event_id FROM fresh
""")

KNOWN = sa.text("""
SELECT k.source, k.external_id, k.event_id FROM event_key k
JOIN unnest(CAST(:sources AS text[]), CAST(:external_ids AS text[])) AS g(source, external_id) ON k.source = g.source AND k.external_id = g.external_id
""")

# In account order and NO KEY: two batches cannot deadlock here, and whoever only refers to the account is not in the way.
LOCK = sa.text("SELECT id FROM account WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE")
BALANCES = sa.text("""
UPDATE account a SET balance = v.balance, balance_as_of = v.at, updated_at = now()
FROM unnest(CAST(:ids AS uuid[]), CAST(:balances AS numeric[]), CAST(:times AS timestamptz[])) AS v(id, balance, at)
WHERE a.id = v.id AND (a.balance_as_of IS NULL OR a.balance_as_of < v.at)
""")


async def store(session: AsyncSession, ready: list[Ready]) -> list[Answer]:
    """All of them in this transaction: an answer for each, in order."""
    numbers = list({item.event.account for item in ready})
    accounts: dict[str, UUID] = dict((await session.execute(ACCOUNTS, {"numbers": numbers})).tuples().all())
    first: dict[tuple[str, str], Ready] = {}
    for item in ready:
        item.account_id = accounts.get(item.event.account)
        if item.account_id is not None:
            first.setdefault((item.event.source, item.event.id), item)
    fresh = await _insert(session, first) if first else set()
    known = await _known(session, [key for key, item in first.items() if item.event_id not in fresh])
    await _move_balances(session, [item for item in first.values() if item.event_id in fresh and item.balance is not None])
    answers: list[Answer] = []
    for item in ready:
        if item.account_id is None:
            answers.append(Rejected("unknown_account", [FieldError("/subject", "unknown_account", "There is no account of this number.")]))
            continue
        key = (item.event.source, item.event.id)
        event_id = first[key].event_id if first[key].event_id in fresh else known[key]
        answers.append(Taken(event_id, duplicate=event_id != item.event_id))
    return answers


async def _insert(session: AsyncSession, first: dict[tuple[str, str], Ready]) -> set[UUID]:
    """Store those whose key is new. Their ids."""
    rows = [first[key] for key in sorted(first)]
    result = await session.execute(
        STORE,
        {
            "sources": [row.event.source for row in rows],
            "external_ids": [row.event.id for row in rows],
            "ids": [row.event_id for row in rows],
            "types": [row.event.type for row in rows],
            "account_ids": [row.account_id for row in rows],
            "times": [row.at for row in rows],
            "datas": [orjson.dumps(row.data).decode() for row in rows],
        },
    )
    return set(result.scalars())


async def _known(session: AsyncSession, keys: list[tuple[str, str]]) -> dict[tuple[str, str], UUID]:
    if not keys:
        return {}
    rows = await session.execute(KNOWN, {"sources": [key[0] for key in keys], "external_ids": [key[1] for key in keys]})
    return {(source, external_id): event_id for source, external_id, event_id in rows.tuples()}


async def _move_balances(session: AsyncSession, rows: list[Ready]) -> None:
    """The newest balance of each account, unless the account's own is newer."""
    newest: dict[UUID, Ready] = {}
    for row in rows:
        assert row.account_id is not None
        if row.account_id not in newest or row.at >= newest[row.account_id].at:
            newest[row.account_id] = row
    if not newest:
        return
    ids = sorted(newest)
    await session.execute(LOCK, {"ids": ids})
    await session.execute(BALANCES, {"ids": ids, "balances": [newest[i].balance for i in ids], "times": [newest[i].at for i in ids]})
