"""What every test stands on: real PostgreSQL and Redis, one server of each a test process, a fresh database a test."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio
import structlog

from app.core.auth import Role, cabinet_token, create_key
from app.core.config import Settings
from app.core.db import Database, sync_dsn
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.redis import EmbeddedRedis
from app.schema import prepare

TEMPLATE = "vestnik_template"
MEMORY, ROOM = Path("/dev/shm"), 3 << 30  # octets that two servers never need


def pytest_configure() -> None:
    for name in [name for name in os.environ if name.startswith("VESTNIK_")]:
        del os.environ[name]  # a developer's own settings are no part of a test
    # Without this an exception is drawn with the values of all variables, which takes seconds and holds the event loop up.
    structlog.configure(processors=[structlog.processors.add_log_level, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)])


@pytest.fixture(scope="session")
def servers() -> Iterator[tuple[str, str]]:
    """URLs of PostgreSQL and Redis. In memory where there is room: a database is hundreds of files, and each test has one of its own."""
    is_roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM
    with tempfile.TemporaryDirectory(prefix="vestnik-tests-", dir=MEMORY if is_roomy else None, ignore_cleanup_errors=True) as home:
        Path(home).chmod(0o755)
        postgres, redis = EmbeddedPostgres(Path(home), durable=False), EmbeddedRedis(Path(home))
        try:
            yield postgres.start(), redis.start()
        finally:
            redis.stop()
            postgres.stop()


def at(url: str, database: str) -> str:
    """The same server, another database."""
    head, _, query = url.partition("?")
    return f"{head.rpartition('/')[0]}/{database}?{query}"


async def run_sql(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(**sync_dsn(url))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest_asyncio.fixture(scope="session")
async def template(servers: tuple[str, str]) -> str:
    """A migrated and seeded database that every test's own is copied from."""
    await run_sql(servers[0], f"CREATE DATABASE {TEMPLATE}")
    await prepare(at(servers[0], TEMPLATE))
    return TEMPLATE


@pytest_asyncio.fixture
async def settings(servers: tuple[str, str], template: str, tmp_path: Path) -> AsyncIterator[Settings]:
    name = f"t{uuid4().hex}"
    await run_sql(servers[0], f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    yield Settings(
        _env_file=None,
        database_url=at(servers[0], name),
        redis_url=servers[1],
        data_dir=tmp_path,
        log_level="warning",
        quiet_hours="00:00-00:00",
        jwt_hs256_secret="s" * 40,
    )
    await run_sql(servers[0], f"DROP DATABASE {name} WITH (FORCE)")


@pytest_asyncio.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database.of(settings)
    yield database
    await database.close()


@pytest_asyncio.fixture
async def as_role(settings: Settings, database: Database) -> AsyncIterator[Callable]:
    """`await as_role("viewer")` is a client with a key of that role; `await as_role(None)` one without."""
    from app.main import create_app

    async with AsyncExitStack() as stack:
        app = create_app(settings)
        await stack.enter_async_context(app.router.lifespan_context(app))

        async def client(role: Role | None, *, token: str = "") -> httpx.AsyncClient:
            if role is not None:
                async with database.transaction() as session:
                    token, _ = await create_key(session, f"test {role}", role)
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            made = httpx.AsyncClient(transport=transport, base_url="http://vestnik/api/v1", headers=headers)
            made.app = app
            return await stack.enter_async_context(made)

        yield client


@pytest_asyncio.fixture
async def api(as_role: Callable) -> httpx.AsyncClient:
    return await as_role("admin")


@pytest.fixture
def as_subscriber(as_role: Callable, settings: Settings) -> Callable:
    async def client(number: str) -> httpx.AsyncClient:
        return await as_role(None, token=cabinet_token(settings, number))

    return client
