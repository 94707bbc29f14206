"""The words that are there from the start: `wording/<locale>/<type>.toml`, each e-mail set into `wording/layout.html`."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalogue.defaults import BUILTIN
from app.core.clock import now
from app.core.ids import new_id
from app.rendering.models import Template, TemplateVersion

WORDING = Path(__file__).resolve().parent / "wording"
LOCALES = ("ru", "en")


def templates() -> Iterator[dict[str, Any]]:
    """Each default as `{type, channel, locale, name, subject, text, html}`."""
    layout = (WORDING / "layout.html").read_text("utf-8")
    for locale in LOCALES:
        around = _read(locale, "layout")
        for kind in BUILTIN:
            words = _read(locale, kind["code"])
            shared = {"type": kind["code"], "locale": locale, "name": kind["titles"][locale]}
            yield shared | {"channel": "sms", "subject": None, "text": words["sms"], "html": None}
            places = {"LOCALE": locale, "TITLE": words["title"], "BODY": words["html"].strip()} | {
                name.upper(): around[name] for name in ("cabinet", "footer", "unsubscribe")
            }
            html = layout
            for name, value in places.items():
                html = html.replace(f"@{name}@", value)
            yield shared | {"channel": "email", "subject": words["subject"], "text": words["text"].strip() + "\n" + around["text"].strip("\n"), "html": html}


def _read(locale: str, name: str) -> dict[str, str]:
    return tomllib.loads((WORDING / locale / f"{name}.toml").read_text("utf-8"))


async def seed(session: AsyncSession) -> None:
    """Add the templates that are missing, with version 1 published. One that is there stays as the operator left it."""
    rows = [{"id": new_id(), "published_version": 1, "revision": 1, "created_at": now(), "updated_at": now(), **words} for words in templates()]
    columns = Template.model_fields.keys()
    added = insert(Template).values([{name: row[name] for name in columns} for row in rows])
    fresh: set[Any] = set((await session.execute(added.on_conflict_do_nothing().returning(sa.column("id")))).scalars())
    versions = [
        {"template_id": row["id"], "version": 1, "created_at": now(), "created_by": "vestnik", **{p: row[p] for p in ("subject", "text", "html")}}
        for row in rows
    ]
    if missing := [version for version in versions if version["template_id"] in fresh]:
        await session.execute(insert(TemplateVersion).values(missing))
