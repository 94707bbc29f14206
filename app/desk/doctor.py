"""The doctor: looks at everything that an installation stands on, and says what is wrong, what that means and what to do.

Each look stands alone. Where PostgreSQL or Redis does not answer, that is a finding, and the others go on; a look that itself breaks is a finding too. It
changes nothing, sends nothing, and no secret is among what it says.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import Settings
from app.core.db import Database
from app.desk.doctor_database import look_at_schema, look_at_server
from app.desk.doctor_redis import look_at_redis
from app.desk.doctor_running import look_at_processes, look_at_queues, look_at_scans, look_at_upkeep
from app.desk.doctor_sending import look_at_gateways, look_at_routes, look_at_words
from app.desk.doctor_settings import look_at_settings
from app.desk.findings import Finding

ANSWERS_WITHIN = 5.0  # seconds for a connection
LOOKS_FOR = 20.0  # seconds: a table that is being rewritten must not hold the doctor up

Look = Callable[[AsyncSession, Settings], Awaitable[list[Finding]]]
# What needs the tables, by area.
LOOKS: tuple[tuple[str, Look], ...] = (
    ("gateways", look_at_gateways),
    ("gateways", look_at_routes),
    ("words", look_at_words),
    ("processes", look_at_processes),
    ("queues", look_at_queues),
    ("queues", look_at_scans),
    ("queues", look_at_upkeep),
)


async def examine(settings: Settings) -> list[Finding]:
    """All findings, in the order of what stands on what."""
    return [*look_at_settings(settings), *await _of_database(settings), *await _guarded("redis", look_at_redis(settings))]


async def _of_database(settings: Settings) -> list[Finding]:
    if not settings.database_url:
        return [Finding("database", "database_not_configured")]
    database = Database.of(settings, name="vestnik-doctor", pool_size=1)
    try:
        try:
            async with asyncio.timeout(ANSWERS_WITHIN), database.engine.connect():
                pass
        except Exception as error:
            return [Finding("database", "database_unreachable", {"error": type(error).__name__})]
        found, fits = await _schema(database, settings)
        if fits:
            for area, look in LOOKS:
                found += await _guarded(area, _looked(database, settings, look))
        return found
    finally:
        await database.close()


async def _schema(database: Database, settings: Settings) -> tuple[list[Finding], bool]:
    found = await _guarded("database", _looked(database, settings, look_at_server))
    schema = await _guarded("database", look_at_schema(database))
    return found + schema, any(finding.code in ("schema_ok", "schema_newer") for finding in schema)


async def _looked(database: Database, settings: Settings, look: Look) -> list[Finding]:
    async with _reading(database) as session:
        return await look(session, settings)


@asynccontextmanager
async def _reading(database: Database) -> AsyncIterator[AsyncSession]:
    async with database.transaction() as session:
        await session.execute(sa.text("SET TRANSACTION READ ONLY"))
        await session.execute(sa.text("SET LOCAL statement_timeout = '15s'"))
        yield session


async def _guarded(area: str, work: Awaitable[list[Finding]]) -> list[Finding]:
    """What a look found; that it could not look, when it could not."""
    try:
        async with asyncio.timeout(LOOKS_FOR):
            return await work
    except Exception as error:
        # The class alone: a driver's sentence may have an address or a password in it.
        return [Finding(area, "look_failed", {"area": area, "error": type(error).__name__})]
