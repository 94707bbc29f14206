"""POST /events: an operation of the billing, told as a CloudEvent."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from app.core.auth import Caller, MayWriteEvents, RequiresScope
from app.core.errors import FieldError, Invalid
from app.core.http import Guarded
from app.core.key_limits import KeyLimits
from app.events.cloudevents import BATCHED, PLAIN, STRUCTURED, read_request
from app.events.intake import Intake, Rejected

router = APIRouter(prefix="/events", tags=["events"], route_class=Guarded)


class EventTaken(BaseModel):
    event_id: UUID
    duplicate: bool


class RejectedItem(BaseModel):
    """One event of a batch that was not taken; `errors` says where it is wrong."""

    index: int
    id: str | None
    code: str
    detail: str
    errors: list[dict[str, str]]


class BatchTaken(BaseModel):
    accepted: int
    duplicates: int
    rejected: list[RejectedItem]


EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["specversion", "id", "source", "type", "subject", "data"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1, "maxLength": 300, "description": "Once for each source: the same again is a duplicate"},
        "source": {"type": "string", "minLength": 1, "maxLength": 300, "description": "Who tells it, e.g. /billing/payments"},
        "type": {"type": "string", "minLength": 1, "maxLength": 100, "examples": ["payment.received"]},
        "subject": {"type": "string", "minLength": 1, "maxLength": 64, "description": "The account number"},
        "time": {"type": "string", "format": "date-time", "description": "When it happened, with an offset"},
        "data": {"type": "object", "description": 'The data of the type, e.g. {"amount": "500.00", "balance": "612.30"}'},
    },
}
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            STRUCTURED: {"schema": EVENT},
            BATCHED: {"schema": {"type": "array", "items": EVENT, "maxItems": 10_000}},
            PLAIN: {"schema": {"oneOf": [EVENT, {"type": "array", "items": EVENT, "maxItems": 10_000}]}},
        },
    }
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": EventTaken, "description": "A duplicate: it was taken before"},
    202: {"model": EventTaken | BatchTaken, "description": "Committed"},
}


@router.post(
    "", operation_id="post_events", summary="Tell one event, or up to 10,000", status_code=202, responses=ANSWERS, openapi_extra=BODY, response_model=None
)
async def post_events(request: Request, caller: MayWriteEvents) -> Response:
    """CloudEvents 1.0 in structured, batched or binary mode. The 202 comes after the commit: what it names is not lost any more.

    The same (source, id) again is a duplicate, also when two arrive at once. In a batch each event stands for itself."""
    state = request.app.state
    return await take(state.intake, state.key_limits, caller, request.headers, await request.body())


WRITES_EVENTS = RequiresScope("events:write")


async def take(intake: Intake, limits: KeyLimits, caller: Caller, headers: Mapping[str, str], body: bytes) -> Response:
    """The operation itself, with lower-case header names. The door calls it directly: it is asked a thousand times a second."""
    raws, batch = read_request(headers.get("content-type", ""), headers, body)
    if batch:
        if caller.allowance is not None and len(raws) > 1:  # the request itself has been counted as one
            await limits.charge(caller.allowance, len(raws) - 1)
        return await _batch(intake, raws, test=caller.test)
    answer = await intake.take_one(raws[0], test=caller.test)
    if isinstance(answer, Rejected):
        raise Invalid(answer.errors[0].detail, code=answer.code, errors=answer.errors)
    return _json({"event_id": str(answer.event_id), "duplicate": answer.duplicate}, 200 if answer.duplicate else 202)


async def _batch(intake: Intake, raws: list[Any], *, test: bool) -> Response:
    answers = await intake.take_batch(raws, test=test)
    rejected = [(index, answer) for index, answer in enumerate(answers) if isinstance(answer, Rejected)]
    if rejected and len(rejected) == len(answers):
        faults = [FieldError(f"/{index}{fault.pointer}", fault.code, fault.detail) for index, answer in rejected[:100] for fault in answer.errors[:1]]
        raise Invalid(f"None of the {len(answers)} events was taken; the first: {faults[0].detail}", code="all_rejected", errors=faults)
    duplicates = sum(not isinstance(answer, Rejected) and answer.duplicate for answer in answers)
    listed = [
        {
            "index": index,
            "id": _id_of(raws[index]),
            "code": answer.code,
            "detail": answer.errors[0].detail,
            "errors": [fault.as_json() for fault in answer.errors[:10]],
        }
        for index, answer in rejected
    ]
    return _json({"accepted": len(answers) - duplicates - len(rejected), "duplicates": duplicates, "rejected": listed}, 202)


def _id_of(raw: Any) -> str | None:
    value = raw.get("id") if isinstance(raw, dict) else None
    return value[:300] if isinstance(value, str) else None


def _json(value: Any, status: int) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
