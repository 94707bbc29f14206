"""Alembic's entry: the connection comes from `vestnik migrate`, or from VESTNIK_DATABASE_URL when alembic is called by hand."""

import asyncio
import re

from alembic import context
from sqlalchemy import Connection
from sqlmodel import SQLModel

import app.tables  # noqa: F401 - fills the metadata
from app.core.config import load_settings
from app.core.db import Database

# Partitions are made by a job, and are no tables of the models.
PARTITION = re.compile(r"(event|notification|message|submission)_(first|tail|to_\d{4}_\d{2}|\d{4}_\d{2})")


def is_ours(name: str | None, kind: str, _: object) -> bool:
    return kind != "table" or PARTITION.fullmatch(name or "") is None


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        transaction_per_migration=True,
        compare_type=True,
        compare_server_default=False,
        include_name=is_ours,
    )
    with context.begin_transaction():
        context.run_migrations()


async def by_hand() -> None:
    database = Database.of(load_settings())
    async with database.engine.begin() as connection:
        await connection.run_sync(run)
    await database.close()


given = context.config.attributes.get("connection")
if given is None:
    asyncio.run(by_hand())
else:
    run(given)
