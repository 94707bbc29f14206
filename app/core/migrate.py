"""The schema to its newest form, by whoever comes first; the others wait and find it done."""

from pathlib import Path

import asyncpg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from app.core.db import Database, sync_dsn

ROOT = Path(__file__).resolve().parents[2]
# Rather fail and be tried again than stand in the way of everything that waits behind our lock.
LOCK_TIMEOUT = "10s"
LOCK = 0x7665_7374  # "vest": one migration at a time over the whole cluster


def alembic_config() -> Config:
    config = Config(str(ROOT / "alembic.ini"))
    config.set_main_option("script_location", str(ROOT / "migrations"))
    return config


def head() -> str:
    """The revision that this code needs."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head() or ""


def _upgrade(connection: Connection) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def migrate(url: str) -> None:
    """Bring the schema up to head. Idempotent; safe from several processes at once.

    The lock stands on a connection of its own, so that a migration that commits in between does not lose it."""
    keeper = await asyncpg.connect(**sync_dsn(url))
    database = Database(url, patience=None)
    try:
        await keeper.execute("SELECT pg_advisory_lock($1)", LOCK)
        async with database.engine.connect() as connection:
            # Rather fail and be tried again than stand in the way of everything that waits behind our lock.
            await connection.execute(sa.text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
            await connection.commit()
            await connection.run_sync(_upgrade)  # each migration is a transaction of its own
    finally:
        await keeper.close()
        await database.close()


def known_revisions() -> frozenset[str]:
    """Every revision that this code knows."""
    return frozenset(script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions())


async def is_migrated(database: Database, wanted: str, known: frozenset[str]) -> bool:
    """The schema is that of this code, or a newer one: while a fleet is upgraded, the processes of the old version serve on."""
    async with database.engine.connect() as connection:
        found = await connection.run_sync(lambda c: MigrationContext.configure(c).get_current_revision())
    return found == wanted or (found is not None and found not in known)
