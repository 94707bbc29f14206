"""The database made ready: the schema at its newest, the catalogue and the default templates in place."""

from app.catalogue.defaults import seed as seed_types
from app.core.db import Database
from app.core.migrate import migrate
from app.rendering.defaults import seed as seed_templates


async def prepare(url: str) -> None:
    """Migrate, then add the notification types and templates that are not there yet. Idempotent; what an operator changed stays."""
    await migrate(url)
    database = Database(url)
    try:
        async with database.transaction() as session:
            await seed_types(session)
            await seed_templates(session)
    finally:
        await database.close()
