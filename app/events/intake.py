"""Events taken in: checked, once per (source, id), committed before anybody hears yes.

    read_event -> check_data -> [one statement] keys, events, waiting rows, balances -> wake `plan`

Single events share transactions: while one commit runs, the next ones gather (group commit, no timer).
"""

import asyncio
import hashlib
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

from app.catalogue.registry import Catalogue
from app.catalogue.types import EVENT_TYPES, VERIFICATION, check_data
from app.core import metrics
from app.core.clock import now
from app.core.db import Database, Executor, is_away
from app.core.errors import FieldError
from app.core.ids import new_id
from app.core.wakeups import PLAN, Wakeups
from app.events.cloudevents import EventIn, read_event

AHEAD = timedelta(minutes=10)
REFRESH = 1.0  # seconds for which the catalogue is taken as unchanged
OURS = "/vestnik/forecasts"  # the source of our own reminders
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
    test: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """What is taken once: the source and the id. Those of tests are apart, behind a character that no source may have: a test never stands in the way
        of the real event, nor the other way round."""
        return (key_source(self.event.source) if self.test else self.event.source, self.event.id)


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

    async def take_one(self, raw: Any, *, test: bool = False) -> Answer:
        checked = await self._check([raw], test=test)
        if isinstance(checked[0], Rejected):
            count(checked, [checked[0]])
            return checked[0]
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._gathered.append((checked[0], future))
        self._work.set()
        answer = await future
        count(checked, [answer])
        return answer

    async def take_batch(self, raws: Sequence[Any], *, test: bool = False) -> list[Answer]:
        """An answer for each, in order. All that is taken is taken in one transaction."""
        checked = await self._check(raws, test=test)
        ready = [item for item in checked if isinstance(item, Ready)]
        answers = iter(await self._commit(ready)) if ready else iter(())
        done = [item if isinstance(item, Rejected) else next(answers) for item in checked]
        count(checked, done)
        return done

    async def _check(self, raws: Sequence[Any], *, test: bool) -> list[Ready | Rejected]:
        types = self._catalogue.types
        strange = any(isinstance(raw, dict) and (kind := raw.get("type")).__class__ is str and kind not in EVENT_TYPES and kind not in types for raw in raws)
        if strange or time.monotonic() - self._refreshed > REFRESH:  # perhaps an operator has just added it
            async with self._database.transaction() as session:
                await self._catalogue.refresh(session)
            self._refreshed = time.monotonic()
        moment = now()
        return [self._check_one(raw, moment, test=test) for raw in raws]

    def _check_one(self, raw: Any, moment: datetime, *, test: bool) -> Ready | Rejected:
        event = read_event(raw, moment + AHEAD)
        if isinstance(event, list):
            return Rejected(event[0].code, event)
        if event.type == VERIFICATION:
            return Rejected("made_here", [FieldError("/type", "made_here", "Codes are made and sent here alone: add a contact, and its code goes out.")])
        if test and event.source == OURS:
            return Rejected("made_here", [FieldError("/source", "made_here", "Reminders of this source are told here alone: give a test a source of its own.")])
        rules = self._catalogue.types.get(event.type)
        if rules is None and event.type not in EVENT_TYPES:
            return Rejected("unknown_type", [FieldError("/type", "unknown_type", "The catalogue has no such type.")])
        checked = check_data(event.type, event.data, rules.data_schema if rules else None)
        if isinstance(checked, list):
            return Rejected(checked[0].code, checked)
        return Ready(event, event.type, checked.data, checked.balance, new_id(), event.time or moment, test)

    async def _commit(self, ready: list[Ready]) -> list[Answer]:
        answers = await self._database.again_atomic(lambda connection: store(connection, ready))
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


# One statement, one round trip, one commit. Keys go in one order everywhere: of two that bring the same key at once, the second waits here for the
# first one's commit, holding nothing that it needs. Accounts are locked in order and NO KEY: two batches cannot deadlock, and whoever only refers to
# an account is not in the way. A balance moves its account when it is the newest of its batch and newer than the account's own; that of a test moves nothing.
STORE = sa.text("""
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:sources AS text[]), CAST(:external_ids AS text[]), CAST(:ids AS uuid[]), CAST(:types AS text[]), CAST(:numbers AS text[]),
                         CAST(:times AS timestamptz[]), CAST(:datas AS text[]), CAST(:balances AS numeric[]), CAST(:keys AS text[]), CAST(:tests AS bool[]))
        AS g(source, external_id, id, type, number, time, data, balance, key, test)
), known AS MATERIALIZED (
    SELECT g.*, a.id AS account_id FROM given g JOIN account a ON a.number = g.number AND a.status <> 'erased'
), fresh AS (
    INSERT INTO event_key (source, external_id, event_id) SELECT key, external_id, id FROM known ORDER BY key, external_id
    ON CONFLICT DO NOTHING RETURNING event_id
), kept AS (
    INSERT INTO event (id, source, external_id, type, account_id, time, data, test)
    SELECT k.id, k.source, k.external_id, k.type, k.account_id, k.time, CAST(k.data AS jsonb), k.test FROM known k JOIN fresh ON fresh.event_id = k.id
), waits AS (
    INSERT INTO event_waiting (event_id, account_id) SELECT k.id, k.account_id FROM known k JOIN fresh ON fresh.event_id = k.id
), newest AS MATERIALIZED (
    SELECT DISTINCT ON (k.account_id) k.account_id, k.balance, k.time FROM known k JOIN fresh ON fresh.event_id = k.id
    WHERE k.balance IS NOT NULL AND NOT k.test ORDER BY k.account_id, k.time DESC, k.id DESC
), locked AS MATERIALIZED (
    SELECT id FROM account WHERE id = ANY(ARRAY(SELECT account_id FROM newest)) ORDER BY id FOR NO KEY UPDATE
), moved AS (
    UPDATE account a SET balance = n.balance, balance_as_of = n.time, updated_at = now() FROM newest n JOIN locked l ON l.id = n.account_id
    WHERE a.id = n.account_id AND (a.balance_as_of IS NULL OR a.balance_as_of < n.time)
)
SELECT k.id, fresh.event_id IS NOT NULL AS is_fresh FROM known k LEFT JOIN fresh ON fresh.event_id = k.id
""")
KNOWN = sa.text("""
SELECT k.source, k.external_id, k.event_id FROM event_key k
JOIN unnest(CAST(:sources AS text[]), CAST(:external_ids AS text[])) AS g(source, external_id) ON k.source = g.source AND k.external_id = g.external_id
""")


async def store(session: Executor, ready: list[Ready]) -> list[Answer]:
    """An answer for each, in order; what is new is committed by this one statement (or with the session's transaction)."""
    first: dict[tuple[str, str], Ready] = {}
    for item in ready:
        first.setdefault(item.key, item)
    found: dict[UUID, bool] = dict((await session.execute(STORE, arrays(list(first.values())))).all())
    known = await _known(session, [key for key, item in first.items() if not found.get(item.event_id, True)])
    answers: list[Answer] = []
    for item in ready:
        leader = first[item.key]
        if leader.event_id not in found:
            answers.append(Rejected("unknown_account", [FieldError("/subject", "unknown_account", "There is no account of this number.")]))
            continue
        event_id = leader.event_id if found[leader.event_id] else known[item.key]
        answers.append(Taken(event_id, duplicate=event_id != item.event_id))
    return answers


def key_source(source: str) -> str:
    """What stands for the source in the key of a test event: no source begins like this, and it is never too long."""
    return "\x01" + hashlib.sha256(source.encode()).hexdigest()


def arrays(rows: list[Ready]) -> dict[str, list[Any]]:
    """The parameters of STORE."""
    return {
        "sources": [row.event.source for row in rows],
        "external_ids": [row.event.id for row in rows],
        "ids": [row.event_id for row in rows],
        "types": [row.event.type for row in rows],
        "numbers": [row.event.account for row in rows],
        "times": [row.at for row in rows],
        "datas": [orjson.dumps(row.data).decode() for row in rows],
        "balances": [row.balance for row in rows],
        "keys": [row.key[0] for row in rows],
        "tests": [row.test for row in rows],
    }


async def _known(session: Executor, keys: list[tuple[str, str]]) -> dict[tuple[str, str], UUID]:
    """The event ids of keys that were taken before."""
    if not keys:
        return {}
    rows = await session.execute(KNOWN, {"sources": [key[0] for key in keys], "external_ids": [key[1] for key in keys]})
    return {(source, external_id): event_id for source, external_id, event_id in rows}
