"""The caps over the API: how many notifications of each kind an account gets at most."""

from datetime import datetime
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StrictInt

from app.catalogue.options import KINDS, Kind
from app.core import audit
from app.core.auth import MayReadMessages, MayWriteMessages
from app.core.db import SessionDep
from app.core.http import Guarded

router = APIRouter(prefix="/caps", tags=["caps"], route_class=Guarded)

Number = Annotated[StrictInt, Field(ge=0, le=10_000)] | None

ALL = sa.text("SELECT kind, per_day, per_week, per_month, updated_at, updated_by FROM cap")
LOCKED = sa.text("SELECT per_day, per_week, per_month FROM cap WHERE kind = :kind FOR UPDATE")
PUT = sa.text("""
INSERT INTO cap (kind, per_day, per_week, per_month, updated_at, updated_by) VALUES (:kind, :per_day, :per_week, :per_month, clock_timestamp(), :by)
ON CONFLICT (kind) DO UPDATE SET per_day = excluded.per_day, per_week = excluded.per_week, per_month = excluded.per_month,
    updated_at = excluded.updated_at, updated_by = excluded.updated_by
RETURNING kind, per_day, per_week, per_month, updated_at, updated_by
""")


class CapIn(BaseModel):
    """Null, or left out: any number. 0: none at all."""

    model_config = ConfigDict(extra="forbid")

    per_day: Number = Field(default=None, description="On the account's own day")
    per_week: Number = Field(default=None, description="Within seven days")
    per_month: Number = Field(default=None, description="Within thirty days")


class CapOut(CapIn):
    kind: Kind
    updated_at: datetime | None = Field(default=None, description="Null: nobody has set it")
    updated_by: str | None = None


class CapsOut(BaseModel):
    items: list[CapOut]


@router.get("", operation_id="list_caps", summary="How many notifications of each kind an account gets at most")
async def list_caps(caller: MayReadMessages, session: SessionDep) -> CapsOut:
    there = {row.kind: row for row in (await session.execute(ALL)).all()}
    return CapsOut(items=[shown(there[kind]) if kind in there else CapOut(kind=kind) for kind in KINDS])


@router.put("/{kind}", operation_id="set_cap", summary="Set how many notifications of a kind an account gets at most")
async def set_cap(kind: Kind, given: CapIn, caller: MayWriteMessages, session: SessionDep) -> CapOut:
    """From the next events on. Mandatory types have no caps. What was planned already stays, and counts, if the kind had a cap then."""
    before = (await session.execute(LOCKED, {"kind": kind})).first()
    row = (await session.execute(PUT, given.model_dump() | {"kind": kind, "by": caller.name})).one()
    was = dict(before._mapping) if before is not None else dict.fromkeys(CapIn.model_fields)  # noqa: SLF001 - SQLAlchemy's own name for the public mapping
    if changes := {name: [was[name], number] for name, number in given.model_dump().items() if was[name] != number}:
        await audit.record(session, caller, "cap.set", f"cap:{kind}", changes)
    return shown(row)


def shown(row: Any) -> CapOut:
    return CapOut.model_validate(row, from_attributes=True)
