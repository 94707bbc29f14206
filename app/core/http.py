"""HTTP: who asks and how much he sends is checked before a body is read; every refusal leaves as a problem (RFC 9457)."""

import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import errors, metrics
from app.core.auth import CABINET, Caller, RequiresScope
from app.core.errors import AppError, BadRequest, FieldError, Forbidden, Invalid, TooLarge, TooMany, Unauthorized, WrongMediaType
from app.core.ids import new_id

log = structlog.get_logger()

API = "/api/v1"
CONTRACT = f"{API}/openapi.json"
BODY_LIMIT = 1 << 20
BATCH_LIMIT = 32 << 20
BATCH_TYPES = ("application/cloudevents-batch+json", "application/json")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
FAILURES_A_MINUTE = 200

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


Express = Callable[[Mapping[str, str], bytes], Awaitable[Response]]


class Service(FastAPI):
    """FastAPI behind the door: the door is outermost, so that what it answers itself has not walked through the framework."""

    def build_middleware_stack(self) -> ASGIApp:
        return Door(super().build_middleware_stack(), self.state.express)


class Door:
    """Pure ASGI: request id, measure, identity, size. What is refused here has had none of its body read.

    `express` answers one busy operation, (method, path, scope) -> (headers, body) -> response, without routing and dependencies:
    those cost three times what the work itself does. It is the same function that the documented route calls."""

    def __init__(self, app: ASGIApp, express: Mapping[tuple[str, str], tuple[RequiresScope, Express]]) -> None:
        self.app, self._express = app, express
        self._failures: dict[str, tuple[float, int]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if REQUEST_ID.fullmatch(given) else new_id().hex
        scope["request_id"], scope["caller"] = request_id, None
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
            await send(message)

        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            refusal = await self._refuse(scope, headers)
            express = self._express.get((scope["method"], scope["path"]))
            if refusal is not None:
                await problem(refusal, request_id)(scope, receive, answer)
            elif express is not None:
                await (await self._answer_express(*express, scope, headers, receive))(scope, receive, answer)
            else:
                await self.app(scope, self._bounded(scope, headers, receive), answer)
        finally:
            route = getattr(scope.get("route"), "path", None) or "none"
            metrics.HTTP_REQUESTS.labels(scope["method"] if scope["method"] in METHODS else "OTHER", route, f"{status // 100}xx").inc()
            metrics.HTTP_SECONDS.labels(route).observe(time.perf_counter() - began)

    async def _answer_express(self, guard: RequiresScope, answer: Express, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> Response:
        scope["route"] = _Named(scope["path"].removeprefix(API))
        try:
            guard.check(scope["caller"])
            body = await read_body(self._bounded(scope, headers, receive))
            return await answer({name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}, body)
        except Exception as error:
            return problem(refusal_of(error), scope["request_id"])

    async def _refuse(self, scope: Scope, headers: dict[bytes, bytes]) -> AppError | None:
        path: str = scope["path"]
        if "\0" in path or b"%00" in scope["query_string"]:
            return Invalid("A NUL character has no place in a path or a query.", code="nul_character")
        if not path.startswith(f"{API}/") or path == CONTRACT:
            return None
        try:
            scope["caller"] = caller = await self._identify(scope, headers)
            cabinet = path == f"{API}/me" or path.startswith(f"{API}/me/")
            if cabinet != (CABINET in caller.scopes):
                return Forbidden("A cabinet token reaches /me and nothing else; a key reaches the rest.", code="wrong_kind_of_caller")
        except Exception as error:  # a database that is away answers 503 here too: who asks is not known without it
            return refusal_of(error)
        length = headers.get(b"content-length")
        if length is not None and length.isdigit() and int(length) > body_limit(scope, headers):
            return TooLarge(f"The body may have at most {body_limit(scope, headers)} octets.")
        return None

    async def _identify(self, scope: Scope, headers: dict[bytes, bytes]) -> Caller:
        peer = scope["client"][0] if scope.get("client") else ""
        minute, failures = self._failures.get(peer, (0.0, 0))
        if failures >= FAILURES_A_MINUTE and time.monotonic() - minute < 60:
            raise TooMany("Too many failed attempts from this address: wait a minute.", headers={"Retry-After": "60"})
        authorization = headers.get(b"authorization")
        try:
            return await scope["app"].state.gatekeeper.identify(authorization.decode("latin-1") if authorization else None)  # type: ignore[no-any-return]
        except Unauthorized:
            if authorization:
                fresh = time.monotonic() - minute >= 60
                if len(self._failures) > 10_000:
                    self._failures.clear()
                self._failures[peer] = (time.monotonic(), 1) if fresh else (minute, failures + 1)
            raise

    def _bounded(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """A body without a length, or longer than it said, ends at the limit."""
        limit, seen = body_limit(scope, headers), 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > limit:
                    raise HTTPException(413, f"The body may have at most {limit} octets.")
            return message

        return counted


@dataclass(frozen=True, slots=True)
class _Named:
    """What a route is to the measure: its path."""

    path: str


async def read_body(receive: Receive) -> bytes:
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


METHODS = frozenset({"GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS"})


def body_limit(scope: Scope, headers: dict[bytes, bytes]) -> int:
    path = scope["path"]
    if path == f"{API}/accounts/import":
        return 1 << 62  # streamed: each line has a limit of its own
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
    return BATCH_LIMIT if path == f"{API}/events" and kind in BATCH_TYPES else BODY_LIMIT


class Guarded(APIRoute):
    """A route that knows its scope before the body is read, and reads JSON strictly: no NaN, no NUL, no lone surrogates, no abyss of brackets."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **more: Any) -> None:
        super().__init__(path, endpoint, **more)
        self.required = required_scope(self)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        guard, takes_json = required_scope(self), self.body_field is not None

        async def guarded(request: Request) -> Response:
            if guard is not None:
                guard.check(request.scope["caller"])
            if takes_json:
                request._json = await strict_json(request)  # noqa: SLF001 - where Request.json() keeps what it has parsed
            return await handle(request)

        return guarded


def required_scope(route: APIRoute) -> RequiresScope | None:
    found = [dependency.call for dependency in route.dependant.dependencies if isinstance(dependency.call, RequiresScope)]
    return found[0] if found else None


async def strict_json(request: Request) -> Any:
    """The body as JSON that PostgreSQL can store; BadRequest, Invalid or WrongMediaType otherwise."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise WrongMediaType(f"{kind} is not taken here: send application/json.")
    return parse_json(await request.body())


SUSPECT = re.compile(rb"\\u0000|\x00")


def parse_json(body: bytes) -> Any:
    """Strict JSON of UTF-8 octets: no NaN, no lone surrogate, no NUL inside a string, no deep nesting."""
    if not body:
        raise BadRequest("The body is empty: JSON was expected.", code="empty_body")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is no valid JSON (UTF-8): {error.msg} at octet {error.pos}.", code="malformed_json") from None
    if SUSPECT.search(body) and has_nul(value):
        raise Invalid("A NUL character has no place in a text.", code="nul_character")
    return value


def has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, list):
        return any(has_nul(item) for item in value)
    return isinstance(value, dict) and any("\0" in key or has_nul(item) for key, item in value.items())


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
