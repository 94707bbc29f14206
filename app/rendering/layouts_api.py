"""/layouts: what stands around the words of letters. The one that is called `default` is there from the start; another one may be put in its place."""

import asyncio
import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Self

import sqlalchemy as sa
from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import audit
from app.core.auth import MayReadTemplates, MayWriteTemplates
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import Conflict, FieldError, Invalid, NotFound
from app.core.http import Guarded
from app.core.page import Page, Paging, encode_cursor
from app.core.preconditions import IfMatch, etag, require_match
from app.rendering.brands import BUILT_IN, Name
from app.rendering.engine import RenderFailed, compile_part, parse, places_of
from app.rendering.formats import style_of
from app.rendering.letters import DEFAULT, Body, Layout, Undressed, built_in, dressed
from app.rendering.looks import ALONE, layouts_of
from app.rendering.models import EmailLayout
from app.rendering.proof import PlacedError, placed, sample_around
from app.rendering.syntax import unknown_names

router = APIRouter(prefix="/layouts", tags=["layouts"], route_class=Guarded)

USED = sa.text("SELECT EXISTS (SELECT FROM template_version WHERE layout = :name) OR EXISTS (SELECT FROM brand WHERE settings ->> 'layout' = :name)")
# Letters that are sent and that may stand in this layout: those that name it, and where it may be a brand's, those that name none.
SENT = sa.text("""
SELECT t.name, v.html, v.mjml FROM template t JOIN template_version v ON v.template_id = t.id AND v.version = t.published_version
WHERE (v.html IS NOT NULL OR v.mjml IS NOT NULL) AND (v.layout = :name OR (v.layout IS NULL OR v.layout = 'default') AND
      (:name = 'default' OR EXISTS (SELECT FROM brand WHERE settings ->> 'layout' = :name)))
ORDER BY t.id
""")
# Those that a brand which names this layout would put into it.
UNDRESSED = sa.text("""
SELECT t.name, v.html, v.mjml FROM template t JOIN template_version v ON v.template_id = t.id AND v.version = t.published_version
WHERE (v.html IS NOT NULL OR v.mjml IS NOT NULL) AND (v.layout IS NULL OR v.layout = 'default') ORDER BY t.id
""")
THERE = sa.text("SELECT name FROM email_layout WHERE name = :name FOR KEY SHARE")
WORDS = {"html": "<p>{{ account.number }}</p>", "mjml": "<mj-section><mj-column><mj-text>{{ account.number }}</mj-text></mj-column></mj-section>"}
NamePath = Annotated[Name, Path(description="The layout")]


class LayoutIn(BaseModel):
    """A whole document, with `{{ content }}` where the words go. It may name `subject`, `locale`, `brand`, `links`, `account`, `contact`, `event` and `now`."""

    model_config = ConfigDict(extra="forbid")

    html: Annotated[str, Field(min_length=1, max_length=131_072)] | None = None
    mjml: Annotated[str, Field(min_length=1, max_length=131_072)] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.html is None) == (self.mjml is None):
            raise ValueError("Give `html` or `mjml`, and one of them alone.")
        return self


class LayoutOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    html: str | None
    mjml: str | None
    built_in: bool = Field(description="As it came with the service")
    revision: int = Field(description="0: nobody has changed it")
    updated_at: datetime | None
    updated_by: str | None


@router.get("", operation_id="list_layouts", summary="Layouts, by name")
async def list_layouts(session: SessionDep, page: Paging, caller: MayReadTemplates) -> Page[LayoutOut]:
    query = sa.select(EmailLayout).order_by(sa.column("name")).limit(page.limit + 1)
    key = page.key(str)
    if key is not None:
        query = query.where(sa.column("name") > key[0])
    rows = list((await session.execute(query)).scalars().all())
    items = [shown(row) for row in rows]
    if await session.get(EmailLayout, DEFAULT) is None and (key is None or key[0] < DEFAULT):
        items = sorted([*items, came_with_us()], key=lambda item: item.name)
    return Page(items=items[: page.limit], next_cursor=encode_cursor(items[page.limit - 1].name) if len(items) > page.limit else None)


@router.get("/{name}", operation_id="get_layout", summary="One layout")
async def get_layout(name: NamePath, session: SessionDep, response: Response, caller: MayReadTemplates) -> LayoutOut:
    row = await session.get(EmailLayout, name)
    if row is None and name != DEFAULT:
        raise NotFound(f"There is no layout {name}.", code="layout_not_found")
    out = shown(row) if row is not None else came_with_us()
    response.headers["ETag"] = etag(out.revision)
    return out


@router.put("/{name}", operation_id="put_layout", summary="Create or change a layout", responses={201: {"model": LayoutOut, "description": "Created"}})
async def put_layout(
    name: NamePath, given: LayoutIn, session: SessionDep, response: Response, caller: MayWriteTemplates, *, if_match: IfMatch = None
) -> LayoutOut:
    """It is tried with words of each kind, in Russian and English, and with every published letter that stands in it. Letters have it from the next one on."""
    await session.execute(ALONE)
    if faults := await objections(session, Layout(name, given.html, given.mjml), SENT):
        raise Invalid(f"{faults[0].pointer}: {faults[0].detail}", errors=faults[:50])
    values = {"name": name, **given.model_dump(), "revision": 1, "updated_at": now(), "updated_by": caller.name}
    added: Any = insert(EmailLayout).values(values).on_conflict_do_nothing().returning(sa.column("name"))
    is_new = (await session.execute(added)).first() is not None
    row = await session.get_one(EmailLayout, name, with_for_update=True)
    if is_new:
        await audit.record(session, caller, "layout.create", f"layout:{name}", told(given))
    else:
        require_match(if_match, row.revision)
        if (row.html, row.mjml) != (given.html, given.mjml):
            before = told(row)
            row.html, row.mjml, row.revision, row.updated_at, row.updated_by = given.html, given.mjml, row.revision + 1, now(), caller.name
            await audit.record(session, caller, "layout.update", f"layout:{name}", {key: [before[key], value] for key, value in told(given).items()})
    response.status_code = 201 if is_new else 200
    response.headers["ETag"] = etag(row.revision)
    return shown(row)


@router.delete("/{name}", operation_id="delete_layout", summary="Delete a layout that nothing names", status_code=204)
async def delete_layout(name: NamePath, session: SessionDep, caller: MayWriteTemplates) -> None:
    """Of `default` the one that came with the service comes back."""
    await session.execute(ALONE)
    # Whoever is about to name it holds the row: he is waited for, and seen.
    row = await session.get(EmailLayout, name, with_for_update=True)
    if row is None:
        if name == DEFAULT:
            raise Conflict("It came with the service, and cannot be deleted: put another one in its place.", code="layout_built_in")
        raise NotFound(f"There is no layout {name}.", code="layout_not_found")
    if name != DEFAULT and (await session.execute(USED, {"name": name})).scalar():
        raise Conflict("A version of a template or a brand names it.", code="layout_in_use")
    if name == DEFAULT and (faults := await objections(session, built_in()[DEFAULT], SENT)):
        raise Conflict(f"The one that comes back does not fit: {faults[0].detail}", code="layout_in_use")
    await session.delete(row)
    await audit.record(session, caller, "layout.delete", f"layout:{name}", {key: [value, None] for key, value in told(row).items()})


async def objections(session: AsyncSession, layout: Layout, letters: sa.TextClause) -> list[FieldError]:
    """Everything that keeps this layout from standing around letters: of itself, and of those that are sent (`letters`, by its name)."""
    layouts = {**await layouts_of(session), layout.name: layout}
    sent = [tuple(row) for row in (await session.execute(letters, {"name": layout.name})).all()]
    return await asyncio.to_thread(lambda: [*faults_of(layout, layouts, sent)])


def faults_of(layout: Layout, layouts: Mapping[str, Layout], sent: list[tuple[Any, ...]]) -> Iterator[FieldError]:
    """Everything that keeps letters from standing in it."""
    part = "mjml" if layout.mjml is not None else "html"
    tree = parse(layout.source, "html")
    if isinstance(tree, list):
        yield from (placed(part, problem) for problem in tree)
        return
    sample = sample_around()
    known = {**sample, "content": "", "subject": "", "locale": ""}
    if unknown := [placed(part, problem) for problem in unknown_names(tree, places_of(layout.source), known)]:
        yield from unknown
        return
    for locale in ("ru", "en"):
        if (said := _unwritable(layout.source, known | {"locale": locale, "brand": BUILT_IN.values(locale)}, locale)) is not None:
            yield PlacedError(f"/{part}", "render_failed", said.detail, said.line)
            return
    for words, source in WORDS.items():
        made = dressed(source if words == "html" else None, source if words == "mjml" else None, layout)
        if isinstance(made, Undressed):
            yield from (placed(part, problem) for problem in [*made.of_layout, *made.problems])
            return
    for template, html, mjml in sent:
        try:
            Body(html, mjml, layout.name, layouts).dressed(None)
        except RenderFailed as error:
            yield FieldError(f"/{part}", "breaks_template", f"The template {template!r} is sent with it, and could not be any more: {error.detail}")


def _unwritable(source: str, values: dict[str, Any], locale: str) -> RenderFailed | None:
    """What fails when the layout itself is written, with the line of its author."""
    compiled = compile_part(source, "html")
    if isinstance(compiled, list):
        return RenderFailed(compiled[0].detail, compiled[0].line)
    try:
        compiled.render(values, style_of(locale, sms=False))
    except RenderFailed as error:
        return error
    return None


def told(given: LayoutIn | EmailLayout) -> dict[str, Any]:
    """What the audit keeps of it: enough to tell one from another, and to recognise a known one."""
    source = given.mjml if given.mjml is not None else given.html or ""
    digest = hashlib.sha256(source.encode()).hexdigest()
    return {"kind": "mjml" if given.mjml is not None else "html", "characters": len(source), "sha256": digest}


def shown(row: EmailLayout) -> LayoutOut:
    return LayoutOut(built_in=False, **row.model_dump())


def came_with_us() -> LayoutOut:
    layout = built_in()[DEFAULT]
    return LayoutOut(name=DEFAULT, html=layout.html, mjml=layout.mjml, built_in=True, revision=0, updated_at=None, updated_by=None)


async def is_there(session: AsyncSession, name: str) -> bool:
    """Whether there is such a layout; it is not deleted while this transaction lasts."""
    return name == DEFAULT or (await session.execute(THERE, {"name": name})).first() is not None
