"""Routes that know their scope before the body is read, and read JSON strictly."""

import re
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute

from app.core.auth import RequiresScope
from app.core.errors import BadRequest, Forbidden, Invalid, WrongMediaType
from app.core.limits import admit_write

API = "/api/v1"
READS = frozenset({"GET", "HEAD", "OPTIONS"})
CONTRACT = f"{API}/openapi.json"


# What a test key may do beside reading: what makes messages that are simulated, and what changes nothing.
TESTS_MAY = frozenset({"post_events", "resend_message", "test_send_template", "preview_template", "count_template_audience"})


class Guarded(APIRoute):
    """A route that knows its scope before the body is read, lets a subscriber write so often and no more, and reads JSON strictly: no NaN, no NUL, no lone surrogates, no abyss of brackets."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **more: Any) -> None:
        super().__init__(path, endpoint, **more)
        self.required = required_scope(self)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        guard, takes_json = required_scope(self), self.body_field is not None

        async def guarded(request: Request) -> Response:
            if guard is not None:
                caller = guard.check(request.scope["caller"])
                if caller.account is not None and request.method not in READS:
                    await admit_write(request, caller)
                if caller.test and request.method not in READS and self.operation_id not in TESTS_MAY:
                    raise Forbidden("This is a test key: it reads, tells events, resends and sends tests, and changes nothing else.", code="test_key")
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
