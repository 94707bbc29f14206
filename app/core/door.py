"""The door: who asks and how much he sends is checked before a body is read."""

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog
from fastapi import FastAPI, Response
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import metrics
from app.core.auth import CABINET, Caller, RequiresScope
from app.core.errors import AppError, Forbidden, Invalid, TooLarge, TooMany, Unauthorized
from app.core.http import API, CONTRACT
from app.core.ids import new_id
from app.core.key_limits import RateHeaders
from app.core.problems import problem, refusal_of

BODY_LIMIT = 1 << 20
BATCH_LIMIT = 32 << 20
UPLOAD_LIMIT = (5 << 20) + (64 << 10)  # a file, and the form round it
BATCH_TYPES = ("application/cloudevents-batch+json", "application/json")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
FAILURES_A_MINUTE = 200
Express = Callable[[Caller, Mapping[str, str], bytes], Awaitable[Response]]


class Service(FastAPI):
    """FastAPI behind the door, so that what the door answers itself has not walked through the framework.

    Before the door stands CORS alone, where origins are configured: a browser asks first, with no token, whether it may ask at all; and the page at its
    other end has to be able to read why it was refused."""

    def build_middleware_stack(self) -> ASGIApp:
        door = Door(super().build_middleware_stack(), self.state.express)
        return CORSMiddleware(door, **self.state.cors) if self.state.cors is not None else door


class Door:
    """Pure ASGI: request id, measure, identity, size. What is refused here has had none of its body read.

    `express` answers one busy operation, (method, path, scope) -> (caller, headers, body) -> response, without routing and dependencies:
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
        rates: RateHeaders = {}
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    *rates.items(),
                ]
            await send(message)

        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            refusal = await self._refuse(scope, headers, rates)
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
            return await answer(scope["caller"], {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}, body)
        except Exception as error:
            return problem(refusal_of(error), scope["request_id"])

    async def _refuse(self, scope: Scope, headers: dict[bytes, bytes], rates: RateHeaders) -> AppError | None:
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
            if caller.allowance is not None:
                await scope["app"].state.key_limits.admit(caller.allowance, rates)
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
            return await scope["app"].state.gatekeeper.identify(authorization.decode("latin-1") if authorization else None, peer)  # type: ignore[no-any-return]
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


STREAMED = frozenset({f"{API}/accounts/import", f"{API}/number-ranges/import"})


def body_limit(scope: Scope, headers: dict[bytes, bytes]) -> int:
    path = scope["path"]
    if path in STREAMED:
        return 1 << 62  # streamed: each line has a limit of its own
    if path == f"{API}/attachments":
        return UPLOAD_LIMIT
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
    return BATCH_LIMIT if path == f"{API}/events" and kind in BATCH_TYPES else BODY_LIMIT
