"""Exports over HTTP: ask for a file, see how far it is, fetch it, cancel it."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import audit
from app.core.auth import Caller, MayReadReports
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import Conflict, Forbidden, NotFound, TooMany
from app.core.http import Guarded
from app.core.ids import new_id
from app.core.page import Page, Paging, encode_cursor
from app.core.wakeups import REPORTS
from app.tracking.reports.api import SHUT, file_name, own_locale
from app.tracking.reports.dimensions import BILLED, GROUPS, LONGEST_EXPORT, Period, Wanted, groups_of
from app.tracking.reports.exports import NO_PARTS, pieces
from app.tracking.reports.models import ReportExport
from app.tracking.reports.shapes import ReportExportIn, ReportExportOut
from app.tracking.reports.sheets import MEDIA, Format
from app.tracking.reports.write import stored_form, wanted_of

router = APIRouter(prefix="/reports/exports", tags=["reports"], route_class=Guarded)

MOST_OPEN = 20
SHOWN = f"SELECT {', '.join(ReportExportOut.model_fields)} FROM report_export"
OPEN = sa.text("SELECT count(*) FROM report_export WHERE state IN ('queued', 'running')")
ONE = sa.text(f"{SHOWN} WHERE id = :id")
LIST = sa.text(f"{SHOWN} WHERE CAST(:after AS uuid) IS NULL OR id < :after ORDER BY id DESC LIMIT :limit")
CANCEL = sa.text("UPDATE report_export SET state = 'cancelled', finished_at = :now, expires_at = NULL, size = NULL WHERE id = :id")
FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": {kind.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA.values()}}
}
GROUPS_OF = {"messages": tuple(GROUPS), "undelivered": (), "invoice": BILLED}


@router.post("", operation_id="create_report_export", summary="Write a report into a file", status_code=202)
async def create_report_export(given: ReportExportIn, request: Request, session: SessionDep, caller: MayReadReports) -> ReportExportOut:
    """A worker writes it; the file is there for 24 hours. The list of the undelivered takes the scope messages:read as well."""
    may_have(caller, given.kind)
    settings = request.app.state.settings
    period = Period.checked(given.from_, given.to, settings.timezone, LONGEST_EXPORT)
    groups = groups_of(",".join(given.group_by), GROUPS_OF[given.kind])
    if (await session.scalar(OPEN) or 0) >= MOST_OPEN:
        raise TooMany(f"{MOST_OPEN} exports wait or are being written: try again when some are done.", code="too_many_exports", headers={"Retry-After": "60"})
    wanted = Wanted(period, groups, given.filters.given())
    row = ReportExport(
        id=new_id(),
        kind=given.kind,
        format=given.format,
        query=stored_form(wanted, given.locale or own_locale(settings)),
        state="queued",
        created_at=now(),
        created_by=caller.name,
    )
    session.add(row)
    await session.flush()
    await audit.record(session, caller, "report.export", f"report_export:{row.id}", {"kind": row.kind, "format": row.format, "query": row.query})
    request.state.after_commit = [REPORTS]
    return ReportExportOut.of(row)


@router.get("", operation_id="list_report_exports", summary="Exports, newest first")
async def list_report_exports(session: SessionDep, caller: MayReadReports, page: Paging) -> Page[ReportExportOut]:
    key = page.key(UUID)
    rows = (await session.execute(LIST, {"after": key[0] if key else None, "limit": page.limit + 1})).all()
    shown = rows[: page.limit]
    return Page(items=[ReportExportOut.of(row) for row in shown], next_cursor=encode_cursor(shown[-1].id) if len(rows) > page.limit else None)


@router.get("/{export_id}", operation_id="read_report_export", summary="How far an export is")
async def read_report_export(export_id: UUID, session: SessionDep, caller: MayReadReports) -> ReportExportOut:
    return ReportExportOut.of(await found(session, export_id))


@router.get("/{export_id}/file", operation_id="read_report_export_file", summary="The file of an export", response_class=StreamingResponse, responses=FILE)
async def read_report_export_file(export_id: UUID, request: Request, caller: MayReadReports) -> Response:
    """There from `done` until `expires_at`."""
    database = request.app.state.database
    async with database.transaction() as session:
        row = await found(session, export_id)
    may_have(caller, row.kind)
    if row.state != "done" or row.expires_at <= now():
        raise Conflict(f"There is no file: the export is {'expired' if row.state == 'done' else row.state}.", code="no_file")
    form: Format = row.format
    wanted = wanted_of(row.query, request.app.state.settings.timezone)
    name = file_name(row.kind, wanted.period, form)
    headers = SHUT | {"Content-Length": str(row.size), "Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(pieces(database, row.id), headers=headers, media_type=MEDIA[form])


@router.delete("/{export_id}", operation_id="cancel_report_export", summary="Cancel an export, or delete its file", status_code=204)
async def cancel_report_export(export_id: UUID, session: SessionDep, caller: MayReadReports) -> None:
    """A worker that is at it notices within seconds. Doing it twice changes nothing."""
    row = await found(session, export_id, " FOR UPDATE")
    if row.state in ("cancelled", "failed", "expired"):
        return
    await session.execute(CANCEL, {"id": export_id, "now": now()})
    await session.execute(NO_PARTS, {"id": export_id})
    await audit.record(session, caller, "report.cancel_export", f"report_export:{export_id}", {"state": [row.state, "cancelled"]})


def may_have(caller: Caller, kind: str) -> None:
    """Addresses of subscribers are messages', whoever writes them down."""
    if kind == "undelivered" and "messages:read" not in caller.scopes:
        raise Forbidden("This needs the scope messages:read.", code="missing_scope")


async def found(session: AsyncSession, export_id: UUID, locked: str = "") -> Any:
    row = (await session.execute(sa.text(f"{ONE.text}{locked}"), {"id": export_id})).first()
    if row is None:
        raise NotFound("There is no such export.", code="export_not_found")
    return row
