"""What every command stands on: its settings, its database, and one line when it cannot go on."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import httpx

    from app.core.config import Settings
    from app.core.db import Database

T = TypeVar("T")


class BadInput(Exception):
    """What the user gave cannot be used: one line, exit 2."""


class Failed(Exception):
    """It was understood and did not work: one line, exit 1."""


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def connected_settings() -> "Settings":
    """Settings whose URLs lead somewhere: the configured ones, else those of the servers that `vestnik up` runs in the data directory."""
    from app.core.config import load_settings
    from app.embedded.running import find_running

    settings = load_settings()
    if settings.database_url and settings.redis_url:
        return settings
    database_url, redis_url = find_running(settings.data_dir)
    found = settings.model_copy(update={"database_url": settings.database_url or database_url, "redis_url": settings.redis_url or redis_url})
    if not (found.database_url and found.redis_url):
        missing = "PostgreSQL" if not found.database_url else "Redis"
        raise Failed(
            f"no {missing} is configured and none runs in {settings.data_dir.resolve()}: start `vestnik up`, or set VESTNIK_DATABASE_URL and VESTNIK_REDIS_URL"
        )
    return found


@asynccontextmanager
async def database(settings: "Settings") -> "AsyncIterator[Database]":
    from app.core.db import Database

    opened = Database.of(settings, name="vestnik-command", pool_size=2)
    try:
        yield opened
    finally:
        await opened.close()


@asynccontextmanager
async def own_api(settings: "Settings", purpose: str) -> "AsyncIterator[httpx.AsyncClient]":
    """Our HTTP interface without a socket, for an administrator: a command thereby checks, stores and audits exactly as a request does.

    The key that it uses is named after its purpose, expires by itself, and is revoked at the end.
    """
    import httpx

    from app.core.auth import create_key
    from app.core.clock import now
    from app.main import create_app

    async with database(settings) as db:
        async with db.transaction() as session:
            key, row = await create_key(session, purpose, "admin", expires_at=now() + timedelta(hours=12))
        try:
            transport = httpx.ASGITransport(create_app(settings))
            headers = {"Authorization": f"Bearer {key}"}
            # No timeout: a large import takes as long as it takes.
            async with httpx.AsyncClient(transport=transport, base_url="http://vestnik/api/v1", headers=headers, timeout=None) as client:  # noqa: S113
                yield client
        finally:
            async with db.transaction() as session:
                row.revoked_at = now()
                await session.merge(row)


def accepted(answer: "httpx.Response", about: str) -> Any:
    """The body of a good answer; of a problem, its sentence and each field's, as BadInput or Failed."""
    body = answer.json() if answer.content else None
    if answer.is_success:
        return body
    problem = body if isinstance(body, dict) else {}
    faults = [f"{fault['pointer']}: {fault['detail']}" for fault in problem.get("errors", [])]
    sentence = f"{about}: " + ("; ".join(faults) or problem.get("detail") or f"HTTP {answer.status_code}")
    raise BadInput(sentence) if answer.status_code in (400, 404, 413, 415, 422) else Failed(sentence)
