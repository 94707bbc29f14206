"""The words that are there from the start: `wording/<locale>/<type>.toml`; its letters name no layout, and so go into
that of the brand, else into the built-in one, `wording/layout.html`.

templates    the words as this version of the service brings them
seed         what is missing is added; newer words take the place of older ones where nobody has changed them
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalogue.defaults import BUILTIN
from app.core import audit
from app.core.clock import now
from app.core.ids import new_id
from app.rendering.models import Template, TemplateVersion

WORDING = Path(__file__).resolve().parent / "wording"
LOCALES = ("ru", "en")
AUTHOR = "vestnik"  # of a version that came with the service; callers of the API are called `key:...`
WORDS = ("subject", "text", "html", "mjml", "layout", "options", "attachments")  # what makes a version the same as another
PLACE = re.compile(r"@([a-z]+)(?: ([^@]*))?@")

TEMPLATES, VERSIONS = (model.metadata.tables[str(model.__tablename__)] for model in (Template, TemplateVersion))


def templates() -> Iterator[dict[str, Any]]:
    """Each default as `{type, channel, locale, name, subject, text, html, mjml, layout, options, attachments}`."""
    for locale in LOCALES:
        around = _read(f"{locale}/layout")
        for kind in BUILTIN:
            words = _read(f"{locale}/{kind['code']}")
            shared = {"type": kind["code"], "locale": locale, "name": kind["titles"][locale], "mjml": None, "options": {}, "attachments": []}
            yield shared | {"channel": "sms", "subject": None, "text": words["sms"], "html": None, "layout": None}
            text = words["text"].strip() + "\n" + around["text"].strip("\n")
            yield shared | {"channel": "email", "subject": words["subject"], "text": text, "html": dressed(words["html"]), "layout": None}


def dressed(html: str) -> str:
    """The HTML of a letter with its looks: `@sum 5@` is what `wording/looks.toml` has for `sum`, around `5`. KeyError for a look that is not there."""
    looks = _looks()
    return PLACE.sub(lambda place: looks[place[1]].replace("$", place[2] or "").strip("\n"), html).strip()


@lru_cache(maxsize=1)
def _looks() -> Mapping[str, str]:
    return _read("looks")


def _read(name: str) -> dict[str, str]:
    return tomllib.loads((WORDING / f"{name}.toml").read_text("utf-8"))


async def seed(session: AsyncSession) -> None:
    """Add the templates that are missing, with version 1 published, and to the others the words that did not come with the service before.

    Newer words are published where an untouched default is: the newest one that there was. Where the operator has published words of his own, has gone
    back to an older default, or has published nothing, they only stand with the versions. What is archived stays as it is. Idempotent; two at once wait
    for each other, and an older service beside a newer one changes nothing back."""
    given = {(words["type"], words["channel"], words["locale"]): words for words in templates()}
    await _add_missing(session, list(given.values()))
    # NO KEY: messages that point to a template are written meanwhile. In the order of ids, as everybody who locks several.
    found = sa.select(TEMPLATES).where(TEMPLATES.c.type.in_({key[0] for key in given})).order_by(TEMPLATES.c.id).with_for_update(key_share=True)
    rows = [row for row in (await session.execute(found)).all() if (row.type, row.channel, row.locale) in given and row.archived_at is None]
    brought, newest = await _versions(session, [row.id for row in rows])
    for row in rows:
        words, before = given[row.type, row.channel, row.locale], brought.get(row.id, [])
        if not any(all(getattr(version, name) == words[name] for name in WORDS) for version in before):
            untouched = bool(before) and row.published_version == before[-1].version
            await _renew(session, row, newest.get(row.id, 0) + 1, words, publish=untouched)


async def _add_missing(session: AsyncSession, given: list[dict[str, Any]]) -> None:
    moment = now()
    rows = [
        {
            "id": new_id(),
            "published_version": 1,
            "archived_at": None,
            "archived_version": None,
            "used_at": moment,
            "revision": 1,
            "created_at": moment,
            "updated_at": moment,
            **words,
        }
        for words in given
    ]
    added = insert(TEMPLATES).values([{column.name: row[column.name] for column in TEMPLATES.c} for row in rows])
    fresh = set((await session.execute(added.on_conflict_do_nothing().returning(TEMPLATES.c.id))).scalars())
    if missing := [_version(row["id"], 1, row) for row in rows if row["id"] in fresh]:
        await session.execute(insert(VERSIONS).values(missing))


async def _versions(session: AsyncSession, ids: list[UUID]) -> tuple[dict[UUID, list[Any]], dict[UUID, int]]:
    """Of each template: the versions that came with the service, the oldest first, and the number of the newest of all."""
    of_these = VERSIONS.c.template_id.in_(ids)
    brought: dict[UUID, list[Any]] = {}
    for version in (await session.execute(sa.select(VERSIONS).where(of_these, VERSIONS.c.created_by == AUTHOR).order_by(VERSIONS.c.version))).all():
        brought.setdefault(version.template_id, []).append(version)
    newest = sa.select(VERSIONS.c.template_id, sa.func.max(VERSIONS.c.version).label("number")).where(of_these).group_by(VERSIONS.c.template_id)
    return brought, {row.template_id: row.number for row in (await session.execute(newest)).all()}


async def _renew(session: AsyncSession, row: Any, number: int, words: dict[str, Any], *, publish: bool) -> None:
    await session.execute(insert(VERSIONS).values(_version(row.id, number, words)))
    changes: dict[str, Any] = {"revision": row.revision + 1, "updated_at": now()} | ({"published_version": number} if publish else {})
    await session.execute(sa.update(TEMPLATES).where(TEMPLATES.c.id == row.id).values(changes))
    await audit.record(session, AUTHOR, "template.add_version", f"template:{row.id}", {"version": number})
    if publish:
        await audit.record(session, AUTHOR, "template.publish", f"template:{row.id}", {"published_version": [row.published_version, number]})


def _version(template_id: UUID, number: int, words: Mapping[str, Any]) -> dict[str, Any]:
    return {"template_id": template_id, "version": number, "created_at": now(), "created_by": AUTHOR, **{name: words[name] for name in WORDS}}
