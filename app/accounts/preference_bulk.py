"""One change of many accounts' preferences, by an operator: the sweep goes through the accounts in the order of their ids, batch by batch.

Each batch is one transaction, with the place that it has come to: if the process dies, the next sweep goes on from there, and no account is changed twice. A
dry run goes the same way and writes nothing but its counts. What waits for the changed accounts is decided again by `notifications.replan`.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, StrictBool
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.preference_shapes import Leaves, TypeChoiceIn, TypeCode, differing, of_type
from app.accounts.preference_store import Change, Stored, ask_replan, stored, write
from app.accounts.shapes import Attributes, Line, Number, Zone
from app.catalogue.registry import Catalogue
from app.core import audit
from app.core.clock import now
from app.core.db import Database

BATCH = 500
MOST_NUMBERS = 10_000

NEXT = sa.text("SELECT * FROM preference_bulk WHERE state = 'running' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED")
ACCOUNTS = "SELECT id FROM account WHERE id > :position AND status <> 'erased' {wanted} ORDER BY id LIMIT :batch {lock}"
# Once it is done, of the numbers only how many they were is kept: they would outlive an erasure.
DONE = sa.text("""
UPDATE preference_bulk SET position = :position, looked_at = looked_at + :looked_at, changed = changed + :changed, changes = CAST(:changes AS jsonb),
    state = CASE WHEN :is_last THEN 'done' ELSE state END,
    filter = CASE WHEN :is_last AND filter ? 'numbers' THEN filter || jsonb_build_object('numbers', jsonb_array_length(filter -> 'numbers')) ELSE filter END,
    finished_at = CASE WHEN :is_last THEN CAST(:now AS timestamptz) END
WHERE id = :id
""")


class BulkFilter(BaseModel):
    """Whose preferences: every condition holds. Without any: everybody's."""

    model_config = ConfigDict(extra="forbid")

    tariff: Line | None = None
    attributes: Attributes | None = Field(default=None, description="Those that have all of these")
    zone: Zone | None = None
    numbers: Annotated[list[Number], Field(min_length=1, max_length=MOST_NUMBERS)] | None = None

    @property
    def sql(self) -> tuple[str, dict[str, Any]]:
        """Conditions on an account, and their values."""
        conditions: dict[str, tuple[str, Any]] = {
            "tariff": ("tariff = :tariff", self.tariff),
            "attributes": ("attributes @> CAST(:attributes AS jsonb)", None if self.attributes is None else orjson.dumps(self.attributes).decode()),
            "zone": ("timezone = :zone", self.zone),
            "numbers": ("number = ANY(CAST(:numbers AS text[]))", self.numbers),
        }
        given = {name: said for name, said in conditions.items() if said[1] is not None}
        return "".join(f" AND {condition}" for condition, _ in given.values()), {name: value for name, (_, value) in given.items()}


class BulkChange(BaseModel):
    """The choices that are made; null takes one back. What is left out stays as each has it."""

    model_config = ConfigDict(extra="forbid")

    types: Annotated[dict[TypeCode, TypeChoiceIn], Field(min_length=1)]

    @property
    def leaves(self) -> Leaves:
        """Place -> value, nulls among them, of what was said alone."""
        found: Leaves = {}
        for code, kind in self.types.items():
            said = {name for name in kind.model_fields_set if name != "channels" or kind.channels}
            found |= {place: value for place, value in of_type(code, kind).items() if place[2] in said}
        return found


class BulkIn(BaseModel):
    """One change for many accounts."""

    model_config = ConfigDict(extra="forbid")

    filter: BulkFilter
    change: BulkChange
    keep_chosen: StrictBool = Field(default=False, description="Leave alone what somebody has chosen already, the subscriber or an operator for him")
    dry_run: StrictBool = Field(default=False, description="Count how many would change, and how; change nothing")


class Bulk:
    """The step of the sweeper. Any number may run: each bulk change is in one hand at a time."""

    def __init__(self, database: Database) -> None:
        self._database, self._catalogue = database, Catalogue()

    async def follow(self) -> int:
        """The next batch of the oldest bulk change that is not done. How many accounts it looked at."""
        return await self._database.again(self._work)

    async def _work(self, session: AsyncSession) -> int:
        run = (await session.execute(NEXT)).first()
        if run is None:
            return 0
        await self._catalogue.refresh(session)
        wanted, values = BulkFilter.model_validate(run.filter).sql
        query = sa.text(ACCOUNTS.format(wanted=wanted, lock="" if run.dry_run else "FOR NO KEY UPDATE"))
        ids = list((await session.execute(query, values | {"position": run.position, "batch": BATCH})).scalars())
        said, before = BulkChange.model_validate(run.change).leaves, await stored(session, ids)
        changes = [Change(account_id, has.leaves, applied(has.leaves, said, keep_chosen=run.keep_chosen)) for account_id, has in _all(ids, before)]
        changes = [change for change in changes if change.differs]
        moment = now()
        if not run.dry_run:
            await write(session, changes, self._catalogue.types, by=run.requested_by, via="operator", moment=moment)
            await ask_replan(session, [change.account_id for change in changes])
        is_last, counted = len(ids) < BATCH, added(run.changes, changes)
        done = {
            "id": run.id,
            "position": ids[-1] if ids else run.position,
            "looked_at": len(ids),
            "changed": len(changes),
            "changes": orjson.dumps(counted).decode(),
            "is_last": is_last,
            "now": moment,
        }
        await session.execute(DONE, done)
        if is_last and not run.dry_run:
            await audit.record(
                session, run.requested_by, "preferences.bulk.done", f"preferences-bulk:{run.id}", {"changed": run.changed + len(changes)} | counted
            )
        return len(ids)


def _all(ids: list[UUID], before: Mapping[UUID, Stored]) -> list[tuple[UUID, Stored]]:
    return [(account_id, before.get(account_id, Stored())) for account_id in ids]


def applied(before: Leaves, said: Leaves, *, keep_chosen: bool) -> Leaves:
    """The choices of one account after the change."""
    fresh = {place: value for place, value in said.items() if not (keep_chosen and place in before)}
    return {place: value for place, value in before.items() if place not in fresh} | {place: value for place, value in fresh.items() if value is not None}


def added(counted: Mapping[str, Mapping[str, int]], changes: list[Change]) -> dict[str, dict[str, int]]:
    """For each choice, how many had which one before: {"types.payment.received.enabled": {"null": 812, "true": 3}}."""
    total = {place: Counter(said) for place, said in counted.items()}
    for change in changes:
        for place, (had, _) in differing(change.before, change.after).items():
            total.setdefault(".".join(place), Counter())[orjson.dumps(had).decode()] += 1
    return {place: dict(said) for place, said in total.items()}
