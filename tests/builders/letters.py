"""Letters of a test's own: layouts and brands as rows, and words that are published."""

from typing import Any

import sqlalchemy as sa

from app.core.db import Database
from app.rendering.models import Brand, EmailLayout, Template, TemplateVersion

PAGE = "<html><head><title>{{ subject }}</title></head><body>{{ content }}</body></html>"


async def a_layout(database: Database, name: str, *, html: str | None = None, mjml: str | None = None) -> None:
    async with database.transaction() as session:
        session.add(EmailLayout(name=name, html=PAGE if html is None and mjml is None else html, mjml=mjml, updated_by="test"))


async def a_brand(database: Database, name: str, **settings: Any) -> None:
    """As `PUT /brands/{name}` would have stored it."""
    async with database.transaction() as session:
        session.add(Brand(name=name, settings=settings, updated_by="test"))


async def a_letter(database: Database, kind: str = "service.connected", *, locale: str = "ru", **version: Any) -> None:
    """Publish these words (subject, text, html, mjml, layout, attachments) as the letter of a type that has one."""
    async with database.transaction() as session:
        found = sa.select(Template).where(sa.text("type = :type AND channel = 'email' AND locale = :locale"))
        template = (await session.execute(found, {"type": kind, "locale": locale})).scalar_one()
        number = (template.published_version or 0) + 100
        session.add(TemplateVersion(template_id=template.id, version=number, created_by="test", **({"subject": "S"} | version)))
        template.published_version, template.revision = number, template.revision + 1
