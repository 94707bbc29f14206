"""POST /templates/preview: what a draft or a stored version would say, to whom it could be said and what it would cost. Nothing is sent, nothing is stored."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy.ext.asyncio import AsyncSession

from app.attachments.files import File
from app.attachments.write import AttachmentMissing, files_of
from app.catalogue.models import NotificationType
from app.core.auth import MayReadTemplates
from app.core.clock import now
from app.core.config import Settings
from app.core.errors import NotFound, field_invalid
from app.core.http import Guarded
from app.core.ids import NOBODY
from app.core.money import price_string
from app.desk.preview import Killed
from app.desk.preview_case import Case, case_of
from app.desk.preview_words import job_of, look_of, stored, with_killed, words_of
from app.gateways.operators import operators_of
from app.gateways.roads import Roads
from app.gateways.router import NO_ATTRIBUTES, Road
from app.notifications.rows import cut
from app.rendering.api import Channel, Tag
from app.rendering.enclosures import opened
from app.rendering.looks import brands_of
from app.rendering.payees import PAYMENT_QR, no_payee
from app.rendering.proof import stated
from app.rendering.sms_words import analyse, cost_of
from app.rendering.version_shapes import TemplateProblemOut, VersionIn, misfits, shown_problem, strangers
from app.sms.segment import Encoding

router = APIRouter(prefix="/templates", tags=["templates"], route_class=Guarded)

MOST = 50  # problems that are told at once
SHOWN_BYTES = 1 << 20  # of a file: a larger one is named and not shown


class PreviewIn(VersionIn):
    """A draft (`channel` and its words) or a stored version (`template_id`). The data are an example of the type's unless `sample` gives them; the account is
    made up unless `account` names one."""

    template_id: UUID | None = None
    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(default=None, description="The newest when left out")
    channel: Channel | None = None
    type: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="Of a draft; without it names are not checked against any"
    )
    locale: Tag | None = Field(default=None, description="Of a draft; the account's when left out")
    account: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(default=None, description="An account's number")
    sample: dict[str, Any] | None = Field(default=None, description="The data of an event of the type", examples=[{"amount": "500.00"}])

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        drafted = self.model_fields_set - {"template_id", "version", "account", "sample"}
        if self.template_id is not None and drafted:
            raise ValueError(f"Leave out {', '.join(sorted(drafted))}: `template_id` names a version that is stored.")
        if self.template_id is None and self.channel is None:
            raise ValueError("Give `template_id`, or `channel` and the words of a draft.")
        if self.template_id is None and self.version is not None:
            raise ValueError("Leave out `version`: it is of a stored template, which `template_id` names.")
        return self


class ForeignCharacterOut(BaseModel):
    """A character that the alphabet of the gateway lacks."""

    model_config = ConfigDict(extra="forbid")

    character: str
    position: int = Field(description="In characters, from 0")
    name: str = Field(description="Unicode's")
    instead: str | None = Field(description='What to type there: `""` nothing; null: it has no likeness')


class WithoutForeignOut(BaseModel):
    """The text with each `instead` in its place, and without those that have none."""

    model_config = ConfigDict(extra="forbid")

    encoding: Encoding
    segments: int


class SmsSavingOut(BaseModel):
    """`saved` is below zero where it would take more."""

    model_config = ConfigDict(extra="forbid")

    segments: int
    saved: int


class PreviewSmsOut(BaseModel):
    """How the text is counted by the gateway that it would go by now; without one as most of them count."""

    model_config = ConfigDict(extra="forbid")

    encoding: Encoding
    units: int = Field(description="Septets, or UTF-16 units, of the whole")
    segments: int = Field(description="The parts that are billed")
    units_left: int = Field(description="That fit into the last part")
    forced_ucs2_by: list[ForeignCharacterOut] = Field(description="At most 100")
    without_them: WithoutForeignOut
    typography: SmsSavingOut
    translit: SmsSavingOut


class WorstCaseOut(BaseModel):
    """With the longest values that are plausible."""

    model_config = ConfigDict(extra="forbid")

    segments: int


class PreviewPriceOut(BaseModel):
    """What it costs on the way that it would go now."""

    model_config = ConfigDict(extra="forbid")

    gateway: str
    route: str | None
    per_part: str
    total: str


class PreviewFileOut(BaseModel):
    """A file of a letter. Inline ones stand in the HTML as `cid:<name>`."""

    model_config = ConfigDict(extra="forbid")

    name: str
    content_type: str
    size: int = Field(description="Bytes")
    inline: bool
    content: str | None = Field(description="Base64; null above 1 MiB")


class PreviewOut(BaseModel):
    """`subject`, `text` and `html` are null where they cannot be had: `problems` says why. A version with problems cannot be published."""

    model_config = ConfigDict(extra="forbid")

    template_id: UUID | None
    version: int | None
    type: str | None
    channel: Literal["sms", "email"]
    locale: str
    subject: str | None = None
    text: str | None = None
    html: str | None = Field(default=None, description="To be shown in a sandboxed frame")
    sms: PreviewSmsOut | None = None
    worst_case: WorstCaseOut | None = Field(default=None, description="Of an SMS; null where no type says which values there may be")
    price: PreviewPriceOut | None = Field(default=None, description="Of an SMS; null where no gateway or no price is known")
    attachments: list[PreviewFileOut] = Field(default_factory=list)
    problems: list[TemplateProblemOut] = Field(default_factory=list)
    warnings: list[TemplateProblemOut] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be rendered, for whom; and the answer as far as it is known before."""

    kind: NotificationType | None
    case: Case
    job: dict[str, Any]
    out: PreviewOut


@router.post("/preview", operation_id="preview_template", summary="What a draft or a stored version would say")
async def preview(given: PreviewIn, request: Request, caller: MayReadTemplates) -> PreviewOut:
    """Faults of the words are no faults of the request: the answer is 200, and `problems` has them with line and column. The links in it refuse nothing."""
    state = request.app.state
    with state.previews.seat():  # before the database is asked anything: whom we refuse costs nothing
        async with state.database.transaction() as session:
            asked = await _asked(session, request, given)
        if asked.out.problems:
            return asked.out
        answer = await state.previews.seated(asked.job)
    if isinstance(answer, Killed):
        answer = with_killed(answer)
    out = asked.out.model_copy(update={name: [TemplateProblemOut.model_validate(one) for one in answer[name]] for name in ("problems", "warnings")})
    if answer["words"] is None:
        return out
    words = words_of(answer["words"])
    out.subject, out.text, out.html = words.subject, words.text, words.html
    async with state.database.transaction() as session:
        if out.channel == "sms":
            road = await _road(session, asked.kind, asked.case)
            out.sms = PreviewSmsOut.model_validate(analyse(words.text, road))
            out.price = _price(road, out.sms.segments)
            if answer["worst"] is not None:
                out.worst_case = WorstCaseOut(segments=cut(road, answer["worst"])[1])
        else:
            await _add_files(session, out, asked, words.attachments or ())
    return out


async def _asked(session: AsyncSession, request: Request, given: PreviewIn) -> Asked:
    """Invalid where the request names something that is not there; faults of the words are in the answer."""
    settings: Settings = request.app.state.settings
    if given.template_id is not None:
        try:
            version = await stored(session, given.template_id, given.version)
        except NotFound as error:
            raise field_invalid(("template_id",), "unknown_version", error.detail) from None
        case = await case_of(session, settings, version.channel, version.kind, given.account, given.sample, version.locale)
        out = PreviewOut(template_id=version.template_id, version=version.number, type=version.kind.code, channel=version.channel, locale=version.locale)
        look = await look_of(session, version.fields, case.account["attributes"])
        return Asked(version.kind, case, version.job | look | case.job(settings), out)
    assert given.channel is not None
    kind = await session.get(NotificationType, given.type) if given.type is not None else None
    if kind is None and given.type is not None:
        raise field_invalid(("type",), "unknown_type", "The catalogue has no such notification type.")
    case = await case_of(session, settings, given.channel, kind, given.account, given.sample, given.locale)
    locale, fields = given.locale or case.locale, given.stored()
    faults = misfits(given.channel, given) or await strangers(session, given)
    out = PreviewOut(
        template_id=None, version=None, type=given.type, channel=given.channel, locale=locale, problems=[shown_problem(fault) for fault in faults[:MOST]]
    )
    look = await look_of(session, fields, case.account["attributes"])
    return Asked(kind, case, job_of(given.channel, kind, locale, fields) | look | case.job(settings), out)


async def _road(session: AsyncSession, kind: NotificationType | None, case: Case) -> Road | None:
    """The road that it would take now."""
    router = await Roads().look(session)
    address = case.contact["address"]
    operators = await operators_of(session, [address]) if router.asks_operator else {}
    attributes = case.account["attributes"] if router.asks_attributes else NO_ATTRIBUTES
    return router.choose("sms", kind.code if kind is not None else "", address, case.account_id, attributes, operators.get(address))


def _price(road: Road | None, parts: int) -> PreviewPriceOut | None:
    total = cost_of(parts, road)
    if road is None or road.price is None or total is None:
        return None
    return PreviewPriceOut(gateway=road.name, route=road.route, per_part=price_string(road.price), total=price_string(total))


async def _add_files(session: AsyncSession, out: PreviewOut, asked: Asked, specs: Sequence[Mapping[str, Any]]) -> None:
    """Those of a made-up account are specimens."""
    account_id = None if asked.case.account_id == NOBODY else asked.case.account_id
    brand, (wanted, data) = asked.job["brand"], opened(specs)
    if any(spec["kind"] == PAYMENT_QR for spec in wanted) and (lacking := no_payee(await brands_of(session))) is not None:
        out.problems.append(shown_problem(stated(lacking)))
        if brand is None or brand["settings"]["payee"] is None:  # the letter would not go; the other files can be looked at all the same
            wanted = [spec for spec in wanted if spec["kind"] != PAYMENT_QR]
    try:
        files = await files_of(session, wanted, account_id, brand["settings"] if brand else {}, data, now(), out.locale)
    except AttachmentMissing as error:
        detail, detail_ru = f"A file cannot be had: {error}.", f"Файл получить нельзя: {error}."
        out.problems.append(TemplateProblemOut(pointer="/attachments", code="attachment_missing", detail=detail, detail_ru=detail_ru))
        return
    out.attachments = [_shown(file) for file in files]


def _shown(file: File) -> PreviewFileOut:
    content = base64.b64encode(file.data).decode() if len(file.data) <= SHOWN_BYTES else None
    return PreviewFileOut(name=file.name, content_type=file.content_type, size=len(file.data), inline=file.inline, content=content)
