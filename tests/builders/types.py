"""Notification types as an operator would have set them."""

import orjson
import sqlalchemy as sa

from app.core.db import Database

SET = """
UPDATE notification_type SET {columns} settings = settings || CAST(:settings AS jsonb), revision = revision + 1 WHERE code = :code
"""


async def set_type(database: Database, code: str, *, settings: dict[str, object] | None = None, **columns: object) -> None:
    """Columns, and keys of the settings, that are to be others."""
    named = "".join(f"{name} = :{name}, " for name in columns)
    async with database.transaction() as session:
        await session.execute(sa.text(SET.format(columns=named)), columns | {"code": code, "settings": orjson.dumps(settings or {}).decode()})
