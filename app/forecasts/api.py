"""Forecasts for the billing and the operators: one account's days to come, and scans by hand."""

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, StrictBool
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.api import AccountNumber
from app.accounts.search import account_of
from app.accounts.shapes import Day
from app.catalogue.registry import Catalogue
from app.core import audit
from app.core.auth import MayReadForecasts, MayRunForecasts
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import Conflict, NotFound, field_invalid
from app.core.http import Guarded
from app.core.page import Page, Paging, encode_cursor
from app.core.wakeups import SCAN
from app.forecasts.ask import ask_for, confirm, refuse
from app.forecasts.find import Wanted, wanted_from
from app.forecasts.schedule import days_of, today_in, zones
from app.forecasts.timeline import forecast
from app.forecasts.views import ForecastOut, HitOut, ScanOut

router = APIRouter(tags=["forecasts"], route_class=Guarded)

Kind = Literal["threshold", "exhaustion", "upcoming"]
Days = Annotated[int, Query(ge=1, le=366, description="How far to look")]
AsOf = Annotated[Day | None, Query(description="The day to take as today; left out: today in the account's zone")]

RUNS = """
SELECT r.id, r.kind, r.origin, r.zone, r.as_of, r.dry_run, r.state, r.phase, r.usual, r.found, r.sample, r.requested_by, r.confirmed_by, r.error,
       r.created_at, r.started_at, r.finished_at, (
    SELECT coalesce(avg(CASE WHEN s.state = 'done' THEN 1.0 ELSE 0.0 END), 1.0) FROM scan_slice s WHERE s.run_id = r.id AND s.phase = r.phase
) AS done_share
FROM scan_run r
"""

HITS = sa.text("""
SELECT id, kind, episode, mark, as_of, outcome, inputs, event_id, run_id, at FROM forecast_hit
WHERE account_id = :account AND (CAST(:before AS uuid) IS NULL OR id < :before) ORDER BY id DESC LIMIT :limit
""")


class ScanIn(BaseModel):
    """A scan of every account, also on a day that was scanned already: nobody is told twice."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    as_of: Day | None = None
    dry_run: StrictBool = False


@router.get("/accounts/{number}/forecast", operation_id="read_forecast", summary="What an account will be charged, and when its money ends")
async def read_forecast(
    number: AccountNumber, request: Request, caller: MayReadForecasts, session: SessionDep, days: Days = 30, as_of: AsOf = None
) -> ForecastOut:
    """For so many days from `as_of`, both ends in; `timeline` has the days with charges alone, `notices` what would be told when,
    if nothing is paid, and without what has been told already."""
    account = await account_of(session, number)
    return await forecast_of(session, request, account, days, as_of)


@router.get("/accounts/{number}/forecast/hits", operation_id="list_forecast_hits", summary="Why an account was reminded, newest first")
async def list_forecast_hits(number: AccountNumber, caller: MayReadForecasts, session: SessionDep, page: Paging) -> Page[HitOut]:
    """Each time that the account was to be told something, with what the decision was made from."""
    account, key = await account_of(session, number), page.key(UUID)
    rows = (await session.execute(HITS, {"account": account.id, "before": key[0] if key else None, "limit": page.limit + 1})).mappings().all()
    more = encode_cursor(rows[page.limit - 1]["id"]) if len(rows) > page.limit else None
    return Page(items=[HitOut.model_validate(dict(row)) for row in rows[: page.limit]], next_cursor=more)


async def forecast_of(session: AsyncSession, request: Request, account: Any, days: int, as_of: date | None) -> ForecastOut:
    moment = now()
    today = today_in(account.timezone, request.app.state.settings.timezone, moment).date()
    return ForecastOut.of(await forecast(session, account, as_of or today, days, await wanted_now(session, request.app.state.catalogue), moment))


async def wanted_now(session: AsyncSession, catalogue: Catalogue) -> Wanted:
    await catalogue.refresh(session)
    return wanted_from({code: rules.settings for code, rules in catalogue.types.items()})


@router.post("/forecasts/scans", operation_id="start_scan", summary="Scan all accounts now", status_code=202)
async def start_scan(given: ScanIn, request: Request, response: Response, caller: MayRunForecasts, session: SessionDep) -> ScanOut:
    """The workers take it up at once. Without `as_of` each zone has its own day; with it, zones that are past it are skipped and counted."""
    settings, moment = request.app.state.settings, now()
    known = await zones(session)
    if given.as_of is not None and not given.dry_run and settings.env != "local":
        ahead = [zone for zone in known if given.as_of > today_in(zone, settings.timezone, moment).date()]
        if ahead:
            raise field_invalid(("as_of",), "as_of_in_future", f"In {ahead[0]} it is not that day yet: leave as_of out, or ask for a dry run.")
    days, past = days_of(known, settings.timezone, moment, given.as_of)
    if past and given.dry_run and given.as_of is not None:
        days, past = dict.fromkeys(known, given.as_of), []
    if known and not days:
        raise Conflict("All zones are past that day: a dry run may still look at it.", code="as_of_past")
    run_id = await ask_for(session, given.kind, origin="hand", by=caller.name, days=days, as_of=given.as_of, dry_run=given.dry_run, skipped=past)
    assert run_id is not None
    await audit.record(session, caller, "scan.start", f"scan:{run_id}", given.model_dump(mode="json"))
    request.state.after_commit = [SCAN]
    response.headers["Location"] = f"{request.url.path}/{run_id}"
    return await shown(session, run_id)


@router.get("/forecasts/scans", operation_id="list_scans", summary="Scans, newest first")
async def list_scans(caller: MayReadForecasts, session: SessionDep, page: Paging) -> Page[ScanOut]:
    key = page.key(UUID)
    query = sa.text(f"{RUNS} WHERE CAST(:before AS uuid) IS NULL OR r.id < :before ORDER BY r.id DESC LIMIT :limit")
    rows = (await session.execute(query, {"before": key[0] if key else None, "limit": page.limit + 1})).all()
    return Page(items=[scan_of(row) for row in rows[: page.limit]], next_cursor=encode_cursor(rows[page.limit - 1].id) if len(rows) > page.limit else None)


ScanId = Annotated[UUID, Path(description="The id of the scan")]


@router.get("/forecasts/scans/{scan_id}", operation_id="read_scan", summary="How a scan does")
async def read_scan(scan_id: ScanId, caller: MayReadForecasts, session: SessionDep) -> ScanOut:
    return await shown(session, scan_id)


@router.post("/forecasts/scans/{scan_id}/confirm", operation_id="confirm_scan", summary="Tell them all the same")
async def confirm_scan(scan_id: ScanId, request: Request, caller: MayRunForecasts, session: SessionDep) -> ScanOut:
    """A scan that found many more than usual waits for this (`needs_confirmation`). Everybody is looked at anew: what is not true any more is not told."""
    await shown(session, scan_id)
    if not await confirm(session, scan_id, caller.name):
        raise Conflict("This scan does not wait for a confirmation.", code="not_waiting")
    await audit.record(session, caller, "scan.confirm", f"scan:{scan_id}", {"state": ["needs_confirmation", "confirmed"]})
    request.state.after_commit = [SCAN]
    return await shown(session, scan_id)


@router.post("/forecasts/scans/{scan_id}/refuse", operation_id="refuse_scan", summary="Tell nobody")
async def refuse_scan(scan_id: ScanId, caller: MayRunForecasts, session: SessionDep) -> ScanOut:
    """Ends a scan that waits for a confirmation: nobody was told, and the next scan looks at everybody again."""
    await shown(session, scan_id)
    if not await refuse(session, scan_id, caller.name):
        raise Conflict("This scan does not wait for a confirmation.", code="not_waiting")
    await audit.record(session, caller, "scan.refuse", f"scan:{scan_id}", {"state": ["needs_confirmation", "refused"]})
    return await shown(session, scan_id)


async def shown(session: AsyncSession, scan_id: UUID) -> ScanOut:
    row = (await session.execute(sa.text(f"{RUNS} WHERE r.id = :id"), {"id": scan_id})).first()
    if row is None:
        raise NotFound("There is no such scan.", code="scan_not_found")
    return scan_of(row)


def scan_of(row: Any) -> ScanOut:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's name for a row as a mapping
    skipped: Sequence[str] = values["found"].pop("skipped_zones", [])
    return ScanOut.model_validate(values | {"skipped_zones": list(skipped), "done_share": float(values["done_share"])})
