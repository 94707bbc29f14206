"""Why, or why not: the chain of decisions of an event, of a message, and of an account, a type and a day, in words and codes."""

from datetime import date, datetime, time, timedelta
from typing import Annotated, Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.api import AccountNumber
from app.accounts.models import Account
from app.accounts.search import account_of
from app.accounts.shapes import Day
from app.catalogue.registry import Catalogue
from app.core.auth import MayReadMessages
from app.core.clock import now
from app.core.config import Settings
from app.core.db import SessionDep
from app.core.http import Guarded
from app.core.ids import first_id_at
from app.core.money import money_string
from app.desk.event_view import existing as existing_event
from app.desk.explain_event import event_steps
from app.desk.explain_message import message_steps, waiting_steps
from app.desk.explain_now import now_steps
from app.desk.steps import Step, Teller
from app.forecasts.api import wanted_now
from app.forecasts.find import TYPES
from app.forecasts.timeline import forecast
from app.gateways.words import Locale, preferred
from app.notifications.api import existing as existing_message
from app.notifications.plan import zone_of

router = APIRouter(tags=["explain"], route_class=Guarded)

KIND_OF = {code: kind for kind, code in TYPES.items()}
MOST_EVENTS = 20  # of one account, type and day; the newest
SKEW = timedelta(hours=1)  # how far ahead of its arrival an event's own time may be, and more
AHEAD = 60  # days that the forecast looks ahead for an occasion

ZONE_OF = sa.text("SELECT timezone FROM account WHERE id = :id")
# Those whose own time is on that day, however late they came, and those that came on it.
EVENTS = sa.text("""
SELECT id, count(*) OVER () AS number FROM event
WHERE account_id = :account AND id >= :low AND type = :type AND ((time >= :begins AND time < :ends) OR (id >= :first AND id < :last))
ORDER BY id DESC LIMIT :most
""")
COVERED = sa.text("SELECT at, kind, mark FROM forecast_hit WHERE account_id = :account AND kind = :kind AND as_of = :day AND outcome = 'covered' ORDER BY id")
RUNS = sa.text("""
SELECT created_at, state, finished_at FROM scan_run WHERE kind = :kind AND NOT dry_run AND (zone IS NULL OR zone = :zone)
AND (as_of = :day OR (as_of IS NULL AND created_at >= :begins AND created_at < :ends)) ORDER BY id
""")

Tongue = Annotated[Locale | None, Query(description="The language of the words; left out: that of Accept-Language, else the service's own")]
AcceptLanguage = Annotated[str, Header(max_length=1000)]


class Explanation(BaseModel):
    """The steps are in order; those whose `at` is null are about this moment."""

    model_config = ConfigDict(extra="forbid")

    locale: Locale
    account: str | None = Field(description="Null after its erasure")
    type: str
    day: date | None = None
    event_ids: list[UUID]
    message_id: UUID | None = None
    steps: list[Step]


@router.get("/events/{event_id}/explain", operation_id="explain_event", summary="Why an event told whom it told")
async def explain_event(
    event_id: UUID, request: Request, caller: MayReadMessages, session: SessionDep, locale: Tongue = None, accept_language: AcceptLanguage = ""
) -> Explanation:
    row = await existing_event(session, event_id)
    teller = await _teller(session, request, row.account_id, locale, accept_language)
    return Explanation(
        locale=teller.locale, account=_shown(row.account), type=row.type, event_ids=[event_id], steps=await event_steps(session, teller, event_id)
    )


@router.get("/messages/{message_id}/explain", operation_id="explain_message", summary="Why a message was made, and what became of it")
async def explain_message(
    message_id: UUID, request: Request, caller: MayReadMessages, session: SessionDep, locale: Tongue = None, accept_language: AcceptLanguage = ""
) -> Explanation:
    row = await existing_message(session, message_id)
    account = (await session.execute(sa.text("SELECT account_id FROM message WHERE id = :id"), {"id": message_id})).scalar_one()
    teller = await _teller(session, request, account, locale, accept_language)
    if row.event_id is None or row.resend_of is not None:  # no event has decided about this one
        steps = [*await message_steps(session, teller, [message_id], born=True), *await waiting_steps(session, teller, [message_id])]
    else:
        steps = await event_steps(session, teller, row.event_id, only=message_id)
    events = [row.event_id] if row.event_id is not None else []
    return Explanation(locale=teller.locale, account=_shown(row.account), type=row.type, event_ids=events, message_id=message_id, steps=steps)


@router.get("/accounts/{number}/explain", operation_id="explain_account", summary="Why an account was told something on a day, or was not")
async def explain_account(
    *,
    number: AccountNumber,
    request: Request,
    caller: MayReadMessages,
    session: SessionDep,
    type: Annotated[str, Query(min_length=1, max_length=100, description="A notification type")],  # noqa: A002 - the contract's word
    day: Annotated[Day | None, Query(description="On the account's own calendar; left out: today")] = None,
    locale: Tongue = None,
    accept_language: AcceptLanguage = "",
) -> Explanation:
    """Each event of that type on that day. Where there was none, that is said, and what would happen if one came now."""
    account = await account_of(session, number)
    teller = await _teller(session, request, account.id, locale, accept_language)
    settings, catalogue = request.app.state.settings, request.app.state.catalogue
    on = day or now().astimezone(teller.zone).date()
    events, steps = await _of_day(session, teller, account, type, on)
    await catalogue.refresh(session)
    if type not in catalogue.types:
        steps.append(teller.step("unknown_type", None, type=type))
    elif not events:
        steps += await _without_event(session, teller, account, type, on, catalogue, settings)
    return Explanation(locale=teller.locale, account=number, type=type, day=on, event_ids=events, steps=steps)


async def _of_day(session: AsyncSession, teller: Teller, account: Account, code: str, on: date) -> tuple[list[UUID], list[Step]]:
    begins, ends = _bounds(on, teller.zone)
    ids = {"low": first_id_at(begins - SKEW), "first": first_id_at(begins), "last": first_id_at(ends)}
    values = {"account": account.id, "type": code, "begins": begins, "ends": ends} | ids
    rows = (await session.execute(EVENTS, values | {"most": MOST_EVENTS})).all()
    if not rows:
        return [], [teller.step("no_event", None, day=on, zone=account.timezone, type=code)]
    steps = [teller.step("events_found", None, day=on, number=rows[0].number)]
    found = [row.id for row in reversed(rows)]
    for event_id in found:
        steps += await event_steps(session, teller, event_id)
    return found, steps


async def _without_event(session: AsyncSession, teller: Teller, account: Account, code: str, on: date, catalogue: Catalogue, settings: Settings) -> list[Step]:
    steps = await _of_forecast(session, teller, account, code, on, catalogue) if code in KIND_OF else []
    return [*steps, *await now_steps(session, teller, account.id, code, catalogue, settings)]


async def _of_forecast(session: AsyncSession, teller: Teller, account: Account, code: str, on: date, catalogue: Catalogue) -> list[Step]:
    """Of our own reminders: whether anybody looked on that day, what was found, and when there will be an occasion."""
    kind, (begins, ends) = KIND_OF[code], _bounds(on, teller.zone)
    named = teller.piece(f"kind_{kind}")
    covered = (await session.execute(COVERED, {"account": account.id, "kind": kind, "day": on})).all()
    steps = [teller.step("covered", row.at, kind=named, mark=row.mark) for row in covered]
    runs = (await session.execute(RUNS, {"kind": kind, "zone": account.timezone, "day": on, "begins": begins, "ends": ends})).all()
    for run in runs:
        outcome = teller.piece(f"scan_{run.state}")
        steps.append(teller.step("scan_ran", run.created_at, kind=named, as_of=on, outcome=outcome, finished=run.finished_at))
    if not runs:
        steps.append(teller.step("no_scan", None, kind=named, day=on))
    if kind == "threshold":
        threshold = account.warned_at
        if threshold is None:
            return [*steps, teller.step("no_threshold", None)]
        steps.append(teller.step("threshold", None, threshold=money_string(threshold), balance=money_string(account.balance)))
    today = now().astimezone(teller.zone).date()
    seen = await forecast(session, account, today, AHEAD, await wanted_now(session, catalogue), now())
    coming = next((notice for notice in seen.notices if notice.type == code), None)
    return [*steps, teller.step("next_notice", None, date=coming.on) if coming is not None else teller.step("no_notice", None, days=AHEAD)]


async def _teller(session: AsyncSession, request: Request, account_id: UUID | None, locale: Locale | None, accept_language: str) -> Teller:
    settings: Settings = request.app.state.settings
    name = (await session.execute(ZONE_OF, {"id": account_id})).scalar() if account_id is not None else None
    spoken: Locale = locale or preferred(accept_language) or ("ru" if settings.locale.startswith("ru") else "en")
    return Teller(spoken, zone_of(name or settings.timezone, settings.timezone))


def _bounds(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The day on the clocks of a zone, also where it has 23 hours, or 25."""
    return datetime.combine(day, time(), zone), datetime.combine(day + timedelta(days=1), time(), zone)


def _shown(number: Any) -> str | None:
    return None if number is None or number.startswith("erased:") else str(number)
