"""Words of a test's own."""

import sqlalchemy as sa

from app.core.db import Database
from app.rendering.models import Template, TemplateVersion


async def publish(database: Database, kind: str, text: str, *, channel: str = "sms", locale: str = "ru", subject: str | None = None) -> int:
    """Publish these words for a type that has a template; the number of the new version."""
    async with database.transaction() as session:
        found = sa.select(Template).where(sa.text("type = :type AND channel = :channel AND locale = :locale"))
        template = (await session.execute(found, {"type": kind, "channel": channel, "locale": locale})).scalar_one()
        version = (template.published_version or 1) + 1
        session.add(TemplateVersion(template_id=template.id, version=version, subject=subject, text=text, created_by="test"))
        template.published_version, template.revision = version, template.revision + 1
    return version
