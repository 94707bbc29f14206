"""The operator's quiet hours over the API: by zone, on workdays and at weekends."""

from datetime import datetime, time
from typing import Annotated, Self

import sqlalchemy as sa
from fastapi import APIRouter, Path, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.models import QuietHours
from app.accounts.preference_store import ask_replan_of_zone
from app.accounts.quiet import EVERYWHERE
from app.accounts.shapes import known_zones
from app.core import audit
from app.core.auth import MayReadMessages, MayWriteMessages
from app.core.clock import now
from app.core.config import parse_hours
from app.core.db import SessionDep
from app.core.errors import NotFound, field_invalid
from app.core.http import Guarded
from app.core.page import Page

router = APIRouter(prefix="/quiet-hours", tags=["quiet hours"], route_class=Guarded)

DEFAULT = "default"
ALL = sa.select(QuietHours).order_by(sa.column("zone"))
# Two who set the same zone come one after the other; the audit says what each of them found.
LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('quiet:' || CAST(:zone AS text), 0))")


class QuietHoursNotFound(NotFound):
    """Nobody has set any there."""

    code, title = "quiet_hours_not_found", "This zone has no quiet hours of its own"


def _hours(value: str) -> str:
    try:
        begin, end = parse_hours(value)
    except ValueError as error:
        raise PydanticCustomError("hours", "{said}", {"said": str(error)}) from None
    return written((begin, end))


def written(hours: tuple[time, time]) -> str:
    """`22:00-08:00`"""
    return "-".join(clock.strftime("%H:%M") for clock in hours)


Hours = Annotated[str, StringConstraints(max_length=11, pattern=r"^[0-9]{2}:[0-9]{2}-[0-9]{2}:[0-9]{2}$"), AfterValidator(_hours)]
Zone = Annotated[str, Path(min_length=1, max_length=64, description="An IANA zone, e.g. Asia/Yekaterinburg; or `default`: every zone without hours of its own")]


class QuietHoursIn(BaseModel):
    """From when to when nobody is written to by SMS, on the subscriber's clock. They may cross midnight; equal ends: none."""

    model_config = ConfigDict(extra="forbid")

    workdays: Hours = Field(examples=["22:00-08:00"], description="Each calendar day for itself: its morning and its evening")
    weekends: Hours = Field(examples=["23:00-10:00"], description="Of Saturday and Sunday")


class QuietHoursOut(BaseModel):
    """`updated_at` and `updated_by` are null while the settings' VESTNIK_QUIET_HOURS hold."""

    model_config = ConfigDict(extra="forbid")

    zone: str
    workdays: str
    weekends: str
    updated_at: datetime | None = None
    updated_by: str | None = None

    @classmethod
    def of(cls, row: QuietHours) -> Self:
        return cls.model_validate(row.model_dump() | {"zone": row.zone or DEFAULT})


@router.get("", operation_id="list_quiet_hours", summary="The operator's quiet hours")
async def list_quiet_hours(request: Request, session: SessionDep, caller: MayReadMessages) -> Page[QuietHoursOut]:
    """The default first, then the zones that have hours of their own."""
    rows = (await session.scalars(ALL)).all()
    shown = [QuietHoursOut.of(row) for row in rows]
    if not any(row.zone == EVERYWHERE for row in rows):
        hours = written(request.app.state.settings.quiet)
        shown.insert(0, QuietHoursOut(zone=DEFAULT, workdays=hours, weekends=hours))
    return Page(items=shown)


@router.put(
    "/{zone:path}",
    operation_id="put_quiet_hours",
    summary="Set the quiet hours of a zone",
    responses={201: {"model": QuietHoursOut, "description": "It had none of its own"}},
)
async def put_quiet_hours(zone: Zone, body: QuietHoursIn, session: SessionDep, caller: MayWriteMessages, response: Response) -> QuietHoursOut:
    """They hold for what is planned from now on, and what waits already is decided again."""
    key = await _locked(session, zone)
    row = await session.get(QuietHours, key)
    before = [row.workdays, row.weekends] if row is not None else None
    if row is None:
        response.status_code = 201
        row = QuietHours(zone=key, **body.model_dump(), updated_at=now(), updated_by=caller.name)
        session.add(row)
    elif before != [body.workdays, body.weekends]:
        row.workdays, row.weekends, row.updated_at, row.updated_by = body.workdays, body.weekends, now(), caller.name
    else:
        return QuietHoursOut.of(row)
    await session.flush()
    await ask_replan_of_zone(session, key)
    await audit.record(session, caller, "quiet_hours.update", f"quiet_hours:{zone}", {"hours": [before, [row.workdays, row.weekends]]})
    return QuietHoursOut.of(row)


@router.delete("/{zone:path}", operation_id="delete_quiet_hours", summary="Let the default hold in a zone again", status_code=204)
async def delete_quiet_hours(zone: Zone, session: SessionDep, caller: MayWriteMessages) -> None:
    """Of `default`: let the settings' VESTNIK_QUIET_HOURS hold again."""
    key = await _locked(session, zone)
    row = await session.get(QuietHours, key)
    if row is None:
        raise QuietHoursNotFound
    await session.delete(row)
    await session.flush()
    await ask_replan_of_zone(session, key)
    await audit.record(session, caller, "quiet_hours.delete", f"quiet_hours:{zone}", {"hours": [[row.workdays, row.weekends], None]})


async def _locked(session: AsyncSession, zone: str) -> str:
    """The key under which a zone is stored, locked until the end of the transaction."""
    if zone != DEFAULT and zone not in known_zones():
        raise field_invalid(("path", "zone"), "timezone", "This is no IANA time zone: write e.g. Asia/Yekaterinburg, or default.")
    key = EVERYWHERE if zone == DEFAULT else zone
    await session.execute(LOCK, {"zone": key})
    return key
