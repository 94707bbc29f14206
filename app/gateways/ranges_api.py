"""Number ranges over the API: whose number is it, by the numbering plan and by the list of ported numbers."""

from typing import Annotated, Any

import phonenumbers
import sqlalchemy as sa
import structlog
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from app.accounts.imports import split_lines
from app.core import audit
from app.core.auth import MayReadGateways, MayWriteGateways
from app.core.db import SessionDep
from app.core.errors import BadRequest, WrongMediaType, field_invalid
from app.core.http import Guarded
from app.core.page import Page, Paging, encode_cursor
from app.gateways.operators import number_of
from app.gateways.range_lines import Kind, LineReader
from app.gateways.ranges import import_ranges

log = structlog.get_logger()
router = APIRouter(prefix="/number-ranges", tags=["routes"], route_class=Guarded)

NDJSON, CSV = "application/x-ndjson", "text/csv"

LIST = sa.text("""
SELECT kind, first, last, operator, region FROM number_range
WHERE (CAST(:kind AS text) IS NULL OR kind = :kind) AND (kind, first) > (CAST(:after_kind AS text), CAST(:after_first AS bigint))
ORDER BY kind, first LIMIT :limit
""")
# The ported number, and the span of the plan that it was taken from: the first of them counts.
FIND = sa.text("""
(SELECT kind, first, last, operator, region FROM number_range WHERE kind = 'ported' AND first = :number)
UNION ALL
(SELECT * FROM (SELECT kind, first, last, operator, region FROM number_range WHERE kind = 'range' AND first <= :number ORDER BY first DESC LIMIT 1) r WHERE last >= :number)
""")
DELETE = sa.text("DELETE FROM number_range WHERE kind = :kind")


class NumberRangeOut(BaseModel):
    """A span of numbers in international form; a ported number is a span of one."""

    kind: Kind
    first: str
    last: str
    operator: str
    region: str | None


class NumberRangeLine(BaseModel):
    """`first` and `last`, or `code`, `from` and `to` as the register of the numbering plan has them, or one `number`."""

    model_config = ConfigDict(extra="forbid")

    first: str | None = None
    last: str | None = None
    code: str | None = None
    from_: str | None = Field(None, alias="from")
    to: str | None = None
    number: str | None = None
    operator: str = Field(min_length=1, max_length=200)
    region: str | None = None


class RejectedRangeOut(BaseModel):
    line: int
    code: str
    detail: str


class RangesImportOut(BaseModel):
    """`imported` lines have taken the place of all earlier ones of this kind. `rejected` lists the first 1,000."""

    kind: Kind
    received: int
    imported: int
    rejected: list[RejectedRangeOut]
    rejected_total: int


BODY = {
    "requestBody": {
        "required": True,
        "description": "One range, or one ported number, a line",
        "content": {
            NDJSON: {"schema": NumberRangeLine.model_json_schema()},
            CSV: {"schema": {"type": "string", "examples": ["first,last,operator,region\n+79160000000,+79169999999,MTS,Moscow\n"]}},
        },
    }
}
KindQuery = Annotated[Kind, Query(description="range: spans of the numbering plan; ported: single numbers, which go before spans")]


@router.get("", operation_id="list_number_ranges", summary="Number ranges, or those that one number is in, the most exact first")
async def list_number_ranges(
    caller: MayReadGateways,
    session: SessionDep,
    paging: Paging,
    number: Annotated[str | None, Query(max_length=20, description="as +79161234567: the first item tells its operator")] = None,
    kind: Annotated[Kind | None, Query()] = None,
) -> Page[NumberRangeOut]:
    if number is not None:
        wanted = number_of(number.strip())
        if wanted is None:
            raise field_invalid(("query", "number"), "not_a_number", "Write the number in international form, as +79161234567.")
        found = (await session.execute(FIND, {"number": wanted})).all()
        return Page(items=[out(row) for row in found if kind in (None, row.kind)])
    after = paging.key(str, int) or ["", 0]
    if abs(after[1]) >= 1 << 63:
        raise field_invalid(("query", "cursor"), "bad_cursor", "The cursor is not one of ours: start again without it.")
    values = {"kind": kind, "after_kind": after[0], "after_first": after[1], "limit": paging.limit + 1}
    rows = (await session.execute(LIST, values)).all()
    more = encode_cursor(rows[paging.limit - 1].kind, rows[paging.limit - 1].first) if len(rows) > paging.limit else None
    return Page(items=[out(row) for row in rows[: paging.limit]], next_cursor=more)


def out(row: Any) -> NumberRangeOut:
    return NumberRangeOut(kind=row.kind, first=f"+{row.first}", last=f"+{row.last}", operator=row.operator, region=row.region)


@router.post("/import", operation_id="import_number_ranges", summary="Replace all ranges of one kind", openapi_extra=BODY)
async def import_many(request: Request, caller: MayWriteGateways, kind: KindQuery = "range") -> RangesImportOut:
    """JSON lines, or CSV with commas or semicolons, in UTF-8 or Windows-1251, of any number. A broken or overlapping line is rejected with its number.

    The rest takes the place of all earlier ranges of this kind at once. A body that ends in the middle, or of which no line can be taken, changes nothing.
    """
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent not in (NDJSON, CSV):
        raise WrongMediaType(f"Send the ranges as {NDJSON} or {CSV}.")
    state = request.app.state
    code = phonenumbers.country_code_for_region(state.settings.phone_region) or 7
    reader = LineReader(kind, is_csv=sent == CSV, country_code=str(code))
    try:
        report = await import_ranges(state.database, split_lines(request.stream()), reader, kind)
    except ClientDisconnect:
        log.warning("import_abandoned")
        raise BadRequest("The body ended before its end: nothing was changed.", code="body_unfinished") from None
    async with state.database.transaction() as session:
        counts = {name: getattr(report, name) for name in ("received", "imported", "rejected_total")}
        await audit.record(session, caller, "number_range.import", f"number_ranges:{kind}", counts)
    return RangesImportOut.model_validate(report, from_attributes=True)


@router.delete("", operation_id="delete_number_ranges", summary="Forget all ranges of one kind", status_code=204)
async def delete_number_ranges(caller: MayWriteGateways, session: SessionDep, kind: KindQuery) -> None:
    gone: Any = await session.execute(DELETE, {"kind": kind})
    await audit.record(session, caller, "number_range.delete", f"number_ranges:{kind}", {"deleted": gone.rowcount})
