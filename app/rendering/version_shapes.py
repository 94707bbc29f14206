"""A version of a template as it comes in, and what is checked of it before it is kept."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app.attachments.keep import unusable
from app.attachments.shapes import Attachments
from app.core.errors import FieldError
from app.rendering.letters import DEFAULT, Layout
from app.rendering.looks import layouts_of
from app.rendering.problem_words import russian
from app.rendering.proof import PlacedError, undressable, unparsable
from app.sms.options import SmsOptions

# Of a version, what an operator writes: the order in which it is shown and compared.
FIELDS = ("subject", "text", "html", "mjml", "layout", "options", "attachments")

LAYOUT = sa.text("SELECT name FROM email_layout WHERE name = :name FOR KEY SHARE")


class VersionIn(BaseModel):
    """Jinja sources. An SMS has a text, and may have options; a letter has a subject, and a text, HTML or MJML."""

    model_config = ConfigDict(extra="forbid")

    subject: Annotated[str, Field(min_length=1, max_length=2_000)] | None = None
    text: Annotated[str, Field(min_length=1, max_length=65_536)] | None = Field(default=None, description="Of a letter: made from the HTML when left out")
    html: Annotated[str, Field(min_length=1, max_length=131_072)] | None = None
    mjml: Annotated[str, Field(min_length=1, max_length=131_072)] | None = Field(default=None, description="Instead of `html`")
    layout: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="Stands around `html` or `mjml`; null: that of the brand"
    )
    options: SmsOptions = Field(default_factory=SmsOptions, description="Of an SMS")
    attachments: Attachments = Field(default_factory=list, description="Of a letter")

    def stored(self) -> dict[str, Any]:
        """The columns of a version: options without what changes nothing, so that equal versions are equal."""
        sources = self.model_dump(include={"subject", "text", "html", "mjml", "layout"})
        attachments = [attachment.model_dump(mode="json", exclude_defaults=True) for attachment in self.attachments]
        return sources | {"options": self.options.model_dump(mode="json", exclude_defaults=True), "attachments": attachments}


class TemplateProblemOut(BaseModel):
    """Something to look at: where, a code for programs, and a sentence in English and Russian."""

    model_config = ConfigDict(extra="forbid")

    pointer: str
    code: str
    detail: str
    detail_ru: str
    line: int | None = None
    column: int | None = None


def shown_problem(fault: FieldError) -> TemplateProblemOut:
    found = {"detail_ru": russian(fault.detail)} | fault.as_json()
    return TemplateProblemOut.model_validate(found)


async def objections(session: AsyncSession, channel: str, given: VersionIn) -> list[FieldError]:
    """Everything that keeps this from becoming a version: fields that do not go with the channel, things it names and that are not there, sources that do not parse."""
    if faults := misfits(channel, given) or await strangers(session, given):
        return faults
    layouts = await layouts_of(session) if given.html is not None or given.mjml is not None else {}
    return await asyncio.to_thread(_unreadable, channel, given, layouts)


def _unreadable(channel: str, given: VersionIn, layouts: Mapping[str, Layout]) -> list[FieldError]:
    """Parsing, MJML and style sheets take a while of a long letter: not where everybody else waits for it."""
    found = unparsable(channel, given.model_dump(include={"subject", "text", "html", "mjml"}))
    return found or undressable(given.html, given.mjml, given.layout, layouts)


def misfits(channel: str, given: VersionIn) -> list[FieldError]:
    """Fields that this channel has not, or has to have."""
    return [*(_not_an_sms(given) if channel == "sms" else _not_a_letter(given))]


def _not_an_sms(given: VersionIn) -> list[FieldError]:
    faults = [] if given.text and given.text.strip() else [_missing("text")]
    given_too = [name for name in ("subject", "html", "mjml", "layout") if getattr(given, name) is not None] + ["attachments"] * bool(given.attachments)
    return faults + [PlacedError(f"/{name}", "not_taken", f"Leave out `{name}`: an SMS has a text alone.") for name in given_too]


def _not_a_letter(given: VersionIn) -> list[FieldError]:
    faults = [] if given.subject and given.subject.strip() else [_missing("subject")]
    written = [name for name in ("text", "html", "mjml") if (getattr(given, name) or "").strip()]
    if not written:
        faults.append(PlacedError("/text", "missing", "Add `text`, `html` or `mjml`: a letter needs one of them."))
    if given.html is not None and given.mjml is not None:
        faults.append(PlacedError("/mjml", "not_taken", "Give `html` or `mjml`, not both."))
    if given.layout is not None and given.html is None and given.mjml is None:
        faults.append(PlacedError("/layout", "not_taken", "Leave out `layout`: it stands around `html` or `mjml`, and there is neither."))
    if given.options.model_fields_set:
        faults.append(PlacedError("/options", "not_taken", "Leave out `options`: they are for SMS."))
    return faults


def _missing(name: str) -> FieldError:
    return PlacedError(f"/{name}", "missing", f"Add `{name}`: this channel needs it.")


async def strangers(session: AsyncSession, given: VersionIn) -> list[FieldError]:
    """The layout and the files that it names and that nobody has put in. The rows stay while this transaction lasts: what is named is not deleted meanwhile."""
    faults: list[FieldError] = []
    if given.layout not in (None, DEFAULT) and await session.scalar(LAYOUT, {"name": given.layout}) is None:
        faults.append(PlacedError("/layout", "unknown_layout", "There is no layout of this name."))
    found = await unusable(session, given.attachments, "attachments")
    return [*faults, *(PlacedError(fault.pointer, fault.code, fault.detail) for fault in found)]
