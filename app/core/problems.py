"""Every refusal leaves as a problem (RFC 9457), whoever raised it and wherever."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from app.core import errors
from app.core.errors import AppError, FieldError, Invalid

log = structlog.get_logger()

_BY_STATUS: dict[int, type[AppError]] = {
    kind.status: kind
    for kind in (
        errors.BadRequest,
        errors.Unauthorized,
        errors.Forbidden,
        errors.NotFound,
        errors.Conflict,
        errors.TooLarge,
        errors.WrongMediaType,
        errors.Invalid,
        errors.TooMany,
    )
}


def problem(error: AppError, request_id: str) -> Response:
    """`application/problem+json`, with nothing of the inside in it."""
    body: dict[str, Any] = {
        "type": f"urn:vestnik:problem:{error.problem_code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.problem_code,
        "errors": [fault.as_json() for fault in error.errors],
        "request_id": request_id,
    }
    return Response(orjson.dumps(body), error.status, media_type="application/problem+json", headers=error.headers)


def install(app: FastAPI) -> None:
    """The handlers of what goes wrong: the same in production and in tests."""

    def handled(convert: Callable[[Any], AppError]) -> Callable[[Request, Exception], Awaitable[Response]]:
        async def handler(request: Request, error: Exception) -> Response:
            return problem(convert(error), request.scope.get("request_id", ""))

        return handler

    app.add_exception_handler(AppError, handled(lambda error: error))
    app.add_exception_handler(HTTPException, handled(_from_http))
    app.add_exception_handler(RequestValidationError, handled(lambda error: invalid_from(error.errors(), error.body)))
    for kind in (DBAPIError, InterfaceError, PoolTimeoutError, ConnectionError, TimeoutError):
        app.add_exception_handler(kind, handled(_from_database))
    app.add_exception_handler(Exception, handled(lambda _: InternalError()))


def refusal_of(error: Exception) -> AppError:
    """As `install` has it, for what does not walk through the framework."""
    if isinstance(error, AppError):
        return error
    if isinstance(error, HTTPException):
        return _from_http(error)
    if isinstance(error, DBAPIError | InterfaceError | PoolTimeoutError | ConnectionError | TimeoutError):
        return _from_database(error)
    log.error("unexpected", exc_info=error)
    return InternalError()


class InternalError(AppError):
    code, status, title = "internal", 500, "Something went wrong on our side: the log has it under this request id"


def _from_http(error: HTTPException) -> AppError:
    kind = _BY_STATUS.get(error.status_code)
    if kind is None:
        made = AppError(str(error.detail), code="method_not_allowed" if error.status_code == 405 else "http_error")
        made.status, made.title = error.status_code, str(error.detail)  # type: ignore[misc]
    else:
        made = kind(str(error.detail))
    made.headers |= dict(error.headers or {})
    return made


def _from_database(error: Exception) -> AppError:
    sqlstate = str(getattr(getattr(error, "orig", None), "sqlstate", "") or "")
    if sqlstate.startswith("22"):  # data exception: a value that the database cannot hold
        return Invalid("A value in the request cannot be stored.", code="not_storable")
    log.error("database", error=type(error).__name__, sqlstate=sqlstate, exc_info=error)
    unavailable = not sqlstate or sqlstate[:2] in {"08", "53", "57", "40"}
    return errors.Unavailable("The database is not reachable just now: send it again.", headers={"Retry-After": "2"}) if unavailable else InternalError()


def invalid_from(faults: Any, body: Any = None) -> Invalid:
    """Pydantic's findings as ours: pointers into the body instead of locations, and nothing of the input echoed."""
    found = [as_field_error(fault, body=body) for fault in faults]
    first = found[0]
    return Invalid(f"{first.pointer or 'The body'}: {first.detail}" + (f" (and {len(found) - 1} more)" if len(found) > 1 else ""), errors=found[:50])


def as_field_error(fault: dict[str, Any], root: tuple[str, ...] = (), body: Any = None) -> FieldError:
    steps = fault["loc"]
    steps = steps_of_sender(steps[1:], body) if steps[:1] == ("body",) else steps
    return FieldError(errors.pointer(*root, *steps), fault["type"], fault["msg"].removeprefix("Value error, "))


def steps_of_sender(steps: Sequence[str | int], body: Any) -> list[str | int]:
    """The location without the names of a union's members: those are pydantic's, and no key on the way through what was sent."""
    kept: list[str | int] = []
    for number, step in enumerate(steps, 1):
        if isinstance(body, dict) and step not in body and number < len(steps):
            continue
        kept.append(step)
        in_list = isinstance(body, list) and isinstance(step, int) and step < len(body)
        body = body[step] if in_list else body.get(step) if isinstance(body, dict) else None
    return kept
