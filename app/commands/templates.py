"""`vestnik template pull` and `push`: the words in a folder of files, and back."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from app.commands import template_folder as folder
from app.commands.ground import BadInput, Failed, accepted, connected_settings, database, own_api, run
from app.commands.template_folder import Fault, Filed, Place

if TYPE_CHECKING:
    import httpx
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.core.config import Settings
    from app.core.errors import FieldError

group = typer.Typer(help="Templates: take them out into a folder of files, e.g. for git, and bring them back.")

Dir = Annotated[Path, typer.Argument(metavar="DIR", help="the folder: <type>/<channel>.<locale>/ with subject.txt, text.txt, body.html, template.toml")]


@group.command(epilog="Example: vestnik template pull words")
def pull(directory: Dir) -> None:
    """Write every template into a folder: of each the version that is sent, or the newest where none is. Archived ones are left out.

    Safe to repeat: what is so already is left alone."""

    async def work() -> tuple[int, int, list[Path]]:
        changed, places = 0, set()
        async with own_api(connected_settings(), "vestnik template pull") as api:
            async for template in every_template(api):
                if (version := await told_by(api, template)) is not None:
                    places.add(folder.folder_of(directory, place_of(template)))
                    changed += folder.write(directory, place_of(template), template["name"], version)
        return len(places), changed, [one.folder for one in folder.read(directory).templates if one.folder not in places]

    try:
        number, changed, others = run(work())
    except OSError as error:
        raise Failed(f"{error.filename or directory}: {error.strerror}") from None
    for path in others:
        typer.echo(f"{path}: there is no such template: delete the folder, or push makes one of it", err=True)
    typer.echo(f"templates {number} files changed {changed}")


@group.command(epilog="Example: vestnik template push words --publish")
def push(
    directory: Dir,
    *,
    publish: Annotated[bool, typer.Option("--publish", help="send with these words from now on")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be done, and do nothing")] = False,
) -> None:
    """Make the templates of a folder so: a new version where the words are others than those that are sent, a new template where there is none.

    Everything is checked first; with one mistake in one file nothing is changed. Safe to repeat. Templates that the folder has not stay as they are."""
    given = folder.read(directory)

    async def work() -> list[Fault]:
        settings = connected_settings()
        if faults := given.faults or await checked(settings, given.templates, publish=publish):
            return faults
        async with own_api(settings, "vestnik template push") as api:
            there = {place_of(template): template async for template in every_template(api)}
            unchanged = 0
            for filed in given.templates:
                steps = await steps_for(api, filed, there.get(filed.place), publish=publish)
                if not dry_run:
                    await perform(api, filed, steps)
                if (told := steps.told(would=dry_run)) is None:
                    unchanged += 1
                else:
                    typer.echo(f"{'/'.join(filed.folder.parts[-2:])}: {told}")
            typer.echo(f"templates {len(given.templates)} unchanged {unchanged}")
        return []

    if faults := run(work()):
        for fault in faults:
            typer.echo(str(fault), err=True)
        raise BadInput(f"{directory}: {len(faults)} mistake{'s' if len(faults) > 1 else ''}, nothing was changed")


@dataclass(frozen=True, slots=True)
class Steps:
    """What has to be done to make one template as its folder has it. `version` is the one that says so: it is there already, or is to be added."""

    template: dict[str, Any] | None  # none: to be made
    rename: bool
    add: bool
    publish: bool
    version: int
    draft: bool = False  # the folder says `published = false`
    wanted: bool = False  # to publish was asked for

    def told(self, *, would: bool) -> str | None:
        """In words; nothing where all is as the folder has it."""
        made = {
            "create": self.template is None,
            "rename": self.rename,
            f"add version {self.version}": self.add,
            f"publish version {self.version}": self.publish,
        }
        steps = ", ".join(step for step, needed in made.items() if needed)
        if not steps:
            return None if self.draft or (self.template and self.template["published_version"] == self.version) else self._unpublished()
        said = ("would " if would else "done: ") + steps
        return f"{said}; not published: the folder says `published = false`" if self.draft and self.wanted else said

    def _unpublished(self) -> str:
        return f"unchanged; version {self.version} is not published"


async def steps_for(api: "httpx.AsyncClient", filed: Filed, template: dict[str, Any] | None, *, publish: bool) -> Steps:
    """Compared with what is sent, and then with the newest: what was pushed and not yet published is not added again. A draft is not published."""
    said, publish = {"draft": filed.draft, "wanted": publish}, publish and not filed.draft
    if template is None:
        return Steps(None, rename=False, add=True, publish=publish, version=1, **said)
    rename = filed.name is not None and filed.name != template["name"]
    told, newest = await told_by(api, template), await newest_of(api, template)
    for version in (told, newest):
        if version is not None and folder.same(version, filed.version):
            return Steps(template, rename=rename, add=False, publish=publish and not version["published"], version=version["version"], **said)
    return Steps(template, rename=rename, add=True, publish=publish, version=newest["version"] + 1 if newest else 1, **said)


async def perform(api: "httpx.AsyncClient", filed: Filed, steps: Steps) -> None:
    """Each step says which state it has seen: whoever changes the template meanwhile makes it fail (412), and nothing of theirs is lost."""
    about, template = str(filed.folder), steps.template
    if template is None:
        kind, channel, locale = filed.place
        body = {"type": kind, "channel": channel, "locale": locale} | ({"name": filed.name} if filed.name else {})
        template = accepted(await api.post("/templates", json=body), about)
    path, tag = f"/templates/{template['id']}", etag(template["revision"])
    if steps.rename:
        renamed = await api.patch(path, json={"name": filed.name}, headers={"If-Match": tag})
        accepted(renamed, about)
        tag = renamed.headers["ETag"]
    if steps.add:
        added = await api.post(f"{path}/versions", json=filed.version, headers={"If-Match": tag})
        accepted(added, about)
        tag = added.headers["ETag"]
    if steps.publish:
        accepted(await api.post(f"{path}/versions/{steps.version}/publish", headers={"If-Match": tag}), about)


async def checked(settings: "Settings", given: list[Filed], *, publish: bool) -> list[Fault]:
    """What the service would refuse, by the service's own checks, before anything is changed."""
    async with database(settings) as db, db.transaction() as session:
        return [fault for filed in given for fault in await _faults_of(session, filed, publish=publish)]


async def _faults_of(session: "AsyncSession", filed: Filed, *, publish: bool) -> list[Fault]:
    import sqlalchemy as sa
    from pydantic import ValidationError

    from app.catalogue.models import NotificationType
    from app.core.problems import as_field_error
    from app.rendering.models import Template, TemplateVersion
    from app.rendering.publication import proved_now
    from app.rendering.version_shapes import VersionIn, objections

    code, channel, locale = filed.place
    kind = await session.get(NotificationType, code)
    if kind is None:
        return [Fault(filed.folder.parent, "the catalogue has no such notification type")]
    found = sa.select(Template).where(sa.text("type = :type AND channel = :channel AND locale = :locale"))
    row = (await session.execute(found, {"type": code, "channel": channel, "locale": locale})).scalar_one_or_none()
    if row is not None and row.archived_at is not None:
        return [Fault(filed.folder, "this template is archived: restore it, or delete the folder")]
    try:
        version = VersionIn.model_validate_json(json.dumps(filed.version))
    except ValidationError as error:
        return [_placed(filed, as_field_error(dict(fault))) for fault in error.errors(include_url=False, include_input=False)]
    faults = await objections(session, channel, version)
    if publish and not filed.draft and not faults:
        words = TemplateVersion(template_id=UUID(int=0), version=1, created_by="", **version.stored())
        faults = (await proved_now(session, kind, channel, locale, words)).faults
    return [_placed(filed, fault) for fault in faults]


def _placed(filed: Filed, fault: "FieldError") -> Fault:
    line, column = getattr(fault, "line", None), getattr(fault, "column", None)
    detail = fault.detail.partition(": ")[2] if line is not None and fault.detail.startswith("line ") else fault.detail
    if filed.file_of(fault.pointer).name == folder.SETTINGS:
        detail = f"{fault.pointer.removeprefix('/')}: {detail}"
    return Fault(filed.file_of(fault.pointer), detail, line, column)


async def every_template(api: "httpx.AsyncClient") -> AsyncIterator[dict[str, Any]]:
    """All that are not archived."""
    cursor = None
    while True:
        page = accepted(await api.get("/templates", params={"limit": 500} | ({"cursor": cursor} if cursor else {})), "templates")
        for template in page["items"]:
            yield template
        cursor = page["next_cursor"]
        if cursor is None:
            return


async def told_by(api: "httpx.AsyncClient", template: dict[str, Any]) -> dict[str, Any] | None:
    """The version that is sent; the newest where none is; nothing where there is none at all."""
    if template["published_version"] is None:
        return await newest_of(api, template)
    path = f"/templates/{template['id']}/versions/{template['published_version']}"
    version: dict[str, Any] = accepted(await api.get(path), template["name"])
    return version


async def newest_of(api: "httpx.AsyncClient", template: dict[str, Any]) -> dict[str, Any] | None:
    page = accepted(await api.get(f"/templates/{template['id']}/versions", params={"limit": 1}), template["name"])
    return next(iter(page["items"]), None)


def place_of(template: dict[str, Any]) -> Place:
    return template["type"], template["channel"], template["locale"]


def etag(revision: int) -> str:
    return f'"{revision}"'
