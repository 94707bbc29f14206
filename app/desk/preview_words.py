"""What is rendered: a stored version or a draft, as `preview_child` is told of it; and its answer as words again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalogue.models import NotificationType
from app.core.errors import NotFound
from app.core.ids import NOBODY
from app.desk.preview import TOO_LARGE, TOO_SLOW, Killed
from app.rendering.brands import BUILT_IN
from app.rendering.compose import Composed
from app.rendering.letters import DEFAULT
from app.rendering.looks import brands_of, layouts_of
from app.rendering.models import Template, TemplateVersion
from app.rendering.version_shapes import FIELDS

AUTHORS_FAULT = "The template cannot be rendered."
KILLED = {
    TOO_SLOW: (
        "Rendering this takes more than a second: make it shorter, or let its loops do less.",
        "Это пишется дольше секунды: сократите шаблон или его циклы.",
    ),
    TOO_LARGE: (
        "Rendering this takes more memory than a template may have: make it shorter.",
        "На это уходит больше памяти, чем положено шаблону: сократите его.",
    ),
}
NEWEST = sa.text("SELECT max(version) FROM template_version WHERE template_id = :id")


@dataclass(frozen=True, slots=True)
class Stored:
    """A version of a template, and the type that it is of."""

    template_id: UUID
    number: int
    channel: Any  # sms or email
    locale: str
    kind: NotificationType
    fields: Mapping[str, Any]

    @property
    def job(self) -> dict[str, Any]:
        return job_of(self.channel, self.kind, self.locale, self.fields, self.template_id, self.number)


async def stored(session: AsyncSession, template_id: UUID, version: int | None) -> Stored:
    """This version, or the newest one; NotFound where there is none."""
    template = await session.get(Template, template_id)
    if template is None:
        raise NotFound("There is no such template.")
    number = version or (await session.execute(NEWEST, {"id": template_id})).scalar()
    row = await session.get(TemplateVersion, (template_id, number)) if number is not None else None
    if row is None:
        raise NotFound("This template has no such version." if version else "This template has no version yet.")
    kind = await session.get_one(NotificationType, template.type)
    return Stored(template_id, row.version, template.channel, template.locale, kind, {name: getattr(row, name) for name in FIELDS})


def job_of(channel: str, kind: NotificationType | None, locale: str, fields: Mapping[str, Any], template_id: UUID = NOBODY, number: int = 1) -> dict[str, Any]:
    """Its part of what `preview_child` is asked."""
    schema = kind.data_schema if kind is not None else None
    return {
        "channel": channel,
        "type": kind.code if kind is not None else "",
        "has_type": kind is not None,
        "schema": schema,
        "properties": tuple((schema or {}).get("properties", ())),
        "locale": locale,
        "template_id": str(template_id),
        "number": number,
        "version": dict(fields),
    }


async def look_of(session: AsyncSession, fields: Mapping[str, Any], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The brand of an account with these attributes, and the layouts that the version may be set into by any brand, as `preview_child` is told of them."""
    brands = await brands_of(session)
    brand = brands.of(attributes)
    wanted = {DEFAULT, fields["layout"], *brands.layouts}
    layouts = {name: {"html": layout.html, "mjml": layout.mjml} for name, layout in (await layouts_of(session)).items() if name in wanted}
    settings = brand.settings.model_dump(mode="json")
    return {"layouts": layouts, "of_brands": brands.layouts, "brand": None if brand is BUILT_IN else {"name": brand.name, "settings": settings}}


def words_of(said: Mapping[str, Any]) -> Composed:
    """The words that a child has written."""
    return Composed(**{**said, "template_id": UUID(said["template_id"])})


def with_killed(killed: Killed) -> dict[str, Any]:
    """The answer of a child that has given none."""
    detail, detail_ru = KILLED[killed.code]
    problem = {"pointer": "", "code": killed.code, "detail": detail, "detail_ru": detail_ru, "line": None, "column": None}
    return {"words": None, "problems": [problem], "warnings": []}
