"""The layouts and brands that there are, read whole: both are few."""

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from app.rendering.brands import Brands
from app.rendering.letters import Layout, built_in

LAYOUTS = sa.text("SELECT name, html, mjml FROM email_layout ORDER BY name")
BRANDS = sa.text("SELECT name, settings FROM brand ORDER BY name").columns(settings=JSONB)
# What is proved with all brands, layouts and sent letters stays proved: who changes a brand or a layout is alone, who publishes a letter waits for him and
# makes him wait. Whoever only reads never waits.
ALONE = sa.text("LOCK TABLE brand IN SHARE ROW EXCLUSIVE MODE")
STILL = sa.text("LOCK TABLE brand IN SHARE MODE")
# A number that is another one after every change, also where one is deleted and another one made: for the stamp of what templates are made of.
STAMP = " + ".join(
    f"(SELECT coalesce(sum(hashtextextended(concat_ws(' ', name, revision, extract(epoch FROM updated_at)), {seed})), 0) FROM {table})"
    for seed, table in enumerate(("email_layout", "brand"))
)


async def layouts_of(session: AsyncSession) -> Mapping[str, Layout]:
    """By name, with the built-in one where nobody has put another in its place."""
    return {**built_in(), **{row.name: Layout(row.name, row.html, row.mjml) for row in (await session.execute(LAYOUTS)).all()}}


async def brands_of(session: AsyncSession) -> Brands:
    return Brands.read((row.name, row.settings) for row in (await session.execute(BRANDS)).all())
