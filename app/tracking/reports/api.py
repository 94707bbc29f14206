"""Reports over HTTP: what became of the messages, who was not reached, what an SMSC will bill."""

import datetime as dt
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response, StreamingResponse
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.auth import MayReadMessages, MayReadReports
from app.core.config import Settings
from app.core.db import SessionDep
from app.core.errors import BadRequest, Invalid, TooLarge, WrongMediaType, field_invalid
from app.core.http import Guarded
from app.tracking.reports.ask import Counts, is_complete, report
from app.tracking.reports.dimensions import BILLED, GROUPS, MOST_HOURS, TIMES, Period, Wanted, groups_of
from app.tracking.reports.invoice import LARGEST, differences, read_figures
from app.tracking.reports.shapes import (
    InvoiceComparisonOut,
    InvoiceDifferenceOut,
    InvoiceReportOut,
    MessagesReportOut,
    ReportComparedLineOut,
    ReportComparisonOut,
    ReportFilters,
    UndeliveredReportOut,
    change_of,
    filters,
)
from app.tracking.reports.sheets import MEDIA, Format, Locale, money, pieces_of
from app.tracking.reports.write import write

router = APIRouter(prefix="/reports", tags=["reports"], route_class=Guarded)

Filters = Annotated[ReportFilters, Depends(filters)]
From = Annotated[dt.date, Query(alias="from", description="The first day, on the clock of VESTNIK_TIMEZONE")]
To = Annotated[dt.date, Query(alias="to", description="The last day, which is counted too")]
Groups = Annotated[str, Query(max_length=200, description=f"Any of {', '.join(GROUPS)}, with commas between them")]
FormatQuery = Annotated[Format, Query(alias="format")]
LocaleQuery = Annotated[Locale | None, Query(description="Of a file: headings, reasons, dates and numbers; the service's own when left out")]
SHUT = {"Content-Security-Policy": "default-src 'none'; sandbox", "Cache-Control": "private, no-store"}
MOST_GROUPS = 10_000
CSV = "text/csv"
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The SMSC's own figures, with a heading",
        "content": {CSV: {"schema": {"type": "string", "examples": ["day;operator;parts;cost\n23.11.2026;МТС;1200;1800,00\n"]}}},
    }
}


def file_of(model: type) -> dict[int | str, dict[str, Any]]:
    """A report as an answer: JSON of this shape, or a file."""
    others = {MEDIA[form]: {"schema": {"type": "string", "format": "binary"}} for form in ("csv", "xlsx")}
    return {200: {"model": model, "description": "The report", "content": others}}


@router.get(
    "/messages", operation_id="report_messages", summary="How many messages, what became of them, how fast, at what cost", responses=file_of(MessagesReportOut)
)
async def report_messages(
    *,
    request: Request,
    caller: MayReadReports,
    first: From,
    last: To,
    given: Filters,
    group_by: Groups = "day",
    form: FormatQuery = "json",
    locale: LocaleQuery = None,
) -> Response:
    """By the day of a message's creation. Exact at every moment, also after contents were deleted; test messages are in no report.

    By the hour at most 31 days at once, else 92; POST /reports/exports takes longer periods."""
    wanted = Wanted(Period.checked(first, last, request.app.state.settings.timezone), groups_of(group_by), given.given())
    check_hours(wanted)
    return await answered(request, "messages", wanted, form, locale)


@router.get(
    "/undelivered",
    operation_id="report_undelivered",
    summary="Who was not reached, and why: the list for the call centre",
    responses=file_of(UndeliveredReportOut),
)
async def report_undelivered(
    *,
    request: Request,
    caller: MayReadMessages,
    first: From,
    last: To,
    given: Filters,
    form: FormatQuery = "json",
    locale: LocaleQuery = None,
) -> Response:
    """Messages that are undelivered, expired, failed or unknown, made in these days, in the order of their creation. At most 31 days at once."""
    wanted = Wanted(Period.checked(first, last, request.app.state.settings.timezone, 31), (), given.given())
    return await answered(request, "undelivered", wanted, form, locale)


@router.get(
    "/invoice", operation_id="report_invoice", summary="Parts that SMSCs have taken, as their invoices should say it", responses=file_of(InvoiceReportOut)
)
async def report_invoice(
    *,
    request: Request,
    caller: MayReadReports,
    first: From,
    last: To,
    gateway: Annotated[list[str], Query(max_length=100)] = [],  # noqa: B006 - FastAPI copies it
    group_by: Annotated[str, Query(max_length=100, description=f"Any of {', '.join(BILLED)}")] = "gateway,day",
    form: FormatQuery = "json",
    locale: LocaleQuery = None,
) -> Response:
    """By the day of the submission. Every try that was accepted counts, and test messages too: they are billed."""
    return await answered(request, "invoice", billed_of(request, first, last, gateway, groups_of(group_by, BILLED)), form, locale)


@router.post("/invoice", operation_id="compare_invoice", summary="Compare with the SMSC's own figures", openapi_extra=BODY)
async def compare_invoice(
    *,
    request: Request,
    caller: MayReadReports,
    session: SessionDep,
    first: From,
    last: To,
    gateway: Annotated[list[str], Query(max_length=100, description="Whose invoice it is, where its lines do not say")] = [],  # noqa: B006
) -> InvoiceComparisonOut:
    """A CSV with `parts` and, as far as the invoice is split, `day`, `gateway`, `sender`, `operator`; `cost` where it says one. Nothing is stored."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != CSV:
        raise WrongMediaType(f"Send the figures as {CSV}.")
    octets = await request.body()
    if not octets.strip():
        raise BadRequest("The body is empty: the SMSC's figures were expected.", code="empty_body")
    if len(octets) > LARGEST:
        raise TooLarge(f"Send at most {LARGEST >> 20} MiB: split the period.")
    theirs = read_figures(octets)
    wanted = billed_of(request, first, last, gateway, theirs.groups)
    found = await differences(session, wanted, theirs)
    differing = [line for line in found if line.parts or line.cost]
    items = [
        InvoiceDifferenceOut(
            **dict(zip(wanted.columns, line.key, strict=True)),
            our_parts=line.ours[0],
            their_parts=line.theirs[0],
            difference_parts=line.parts,
            our_cost=money(line.ours[1]),
            their_cost=None if line.theirs[1] is None else money(line.theirs[1]),
            difference_cost=None if line.cost is None else money(line.cost),
        )
        for line in differing[:MOST_GROUPS]
    ]
    head = await head_of(session, wanted.period)
    return InvoiceComparisonOut(**head, group_by=list(wanted.groups), equal=len(found) - len(differing), items=items)


@router.get("/compare", operation_id="compare_reports", summary="Two periods beside each other", response_model_exclude_unset=True)
async def compare_reports(
    *,
    request: Request,
    caller: MayReadReports,
    session: SessionDep,
    first: From,
    last: To,
    with_from: Annotated[dt.date, Query(description="The first day of the period to compare with")],
    with_to: Annotated[dt.date, Query(description="Its last day")],
    given: Filters,
    group_by: Annotated[str, Query(max_length=200, description=f"Any of {', '.join(group for group in GROUPS if group not in TIMES)}")] = "type",
) -> ReportComparisonOut:
    """The periods may be of different lengths; shares and times can be compared all the same."""
    zone = request.app.state.settings.timezone
    groups = groups_of(group_by, [group for group in GROUPS if group not in TIMES])
    periods = (Period.checked(first, last, zone), Period.checked(with_from, with_to, zone, where=("with_from", "with_to")))
    sides = [await lines_of(session, Wanted(period, groups, given.given())) for period in periods]
    keys = sorted({*sides[0], *sides[1]}, key=lambda key: [("" if value is None else str(value)) for _, value in key])
    items = [ReportComparedLineOut(**dict(key), **change_of(sides[0].get(key), sides[1].get(key))) for key in keys]
    totals = [Counts(), Counts()]
    for total, side in zip(totals, sides, strict=True):
        for counts in side.values():
            total.add(counts)
    head = await head_of(session, periods[0])
    head["complete"] = head["complete"] and await is_complete(session, periods[1])
    return ReportComparisonOut(
        **head, with_from=with_from, with_to=with_to, group_by=list(groups), items=items, total=ReportComparedLineOut(**change_of(*totals))
    )


async def answered(request: Request, kind: str, wanted: Wanted, form: Format, locale: Locale | None) -> Response:
    """The report as a file that is complete before its first octet goes out."""
    settings: Settings = request.app.state.settings
    file = await write(request.app.state.database, kind, wanted, form, locale or own_locale(settings))
    headers = SHUT | {"Content-Length": str(file.seek(0, 2))}
    if form != "json":
        headers["Content-Disposition"] = f'attachment; filename="{file_name(kind, wanted.period, form)}"'
    return StreamingResponse(pieces_of(file), headers=headers, media_type=MEDIA[form])


def own_locale(settings: Settings) -> Locale:
    return "ru" if settings.locale.startswith("ru") else "en"


def file_name(kind: str, period: Period, form: str) -> str:
    return f"{kind}-{period.first:%Y%m%d}-{period.last:%Y%m%d}.{form}"


def check_hours(wanted: Wanted) -> None:
    if "hour" in wanted.groups and (wanted.period.last - wanted.period.first).days >= MOST_HOURS:
        raise field_invalid(("query", "to"), "period_too_long", f"By the hour ask for at most {MOST_HOURS} days at once.")


def billed_of(request: Request, first: dt.date, last: dt.date, gateways: list[str], groups: tuple[str, ...]) -> Wanted:
    if any("\0" in name or len(name) > 64 for name in gateways):
        raise field_invalid(("query", "gateway"), "bad_name", "A gateway's name has at most 64 characters, none of them NUL.")
    return Wanted(Period.checked(first, last, request.app.state.settings.timezone), groups, {"gateway": gateways} if gateways else {})


async def head_of(session: AsyncSession, period: Period) -> dict[str, Any]:
    return {"from": period.first, "to": period.last, "timezone": period.zone, "complete": await is_complete(session, period)}


async def lines_of(session: AsyncSession, wanted: Wanted) -> dict[tuple[tuple[str, str | int | UUID | None], ...], Counts]:
    """The groups of one side; Invalid when there are more than anybody can read."""
    found: dict[tuple[tuple[str, Any], ...], Counts] = {}
    async for line in report(session, wanted):
        if line.rows > MOST_GROUPS:
            raise Invalid(f"That makes {line.rows:,} groups, and at most {MOST_GROUPS:,} are compared: group by less, or filter.", code="too_many_groups")
        found[tuple(line.key.items())] = line.counts
    return found
