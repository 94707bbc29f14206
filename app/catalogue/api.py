"""GET and PUT /notification-types: the operator's hand on the catalogue."""

from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
import sqlalchemy as sa
from fastapi import APIRouter, Path, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, ValidationError
from sqlalchemy.dialects.postgresql import insert

from app.catalogue import schemas
from app.catalogue.models import NotificationType
from app.catalogue.options import SendingOptions, known
from app.catalogue.types import EVENT_TYPES
from app.catalogue.variables import Kind, Variable, variables_for
from app.core import audit
from app.core.auth import MayReadTemplates, MayWriteTemplates
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import Conflict, FieldError, Invalid, NotFound, StaleVersion, field_invalid
from app.core.http import Guarded
from app.core.money import NonNegativeMoney
from app.core.page import Page, Paging, encode_cursor
from app.core.preconditions import IfMatch, etag, require_match
from app.core.problems import as_field_error

router = APIRouter(prefix="/notification-types", tags=["notification types"], route_class=Guarded)

CODE = r"^[A-Za-z][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$"
LARGEST_SETTINGS = 4096  # octets
Days = Annotated[StrictInt, Field(ge=1, le=366)]


def _unique(values: list[Any]) -> list[Any]:
    if len(set(values)) != len(values):
        raise ValueError("Name each one once.")
    return values


class ExhaustingSettings(SendingOptions):
    """On how many days before the money ends the subscriber is told."""

    days_before: Annotated[list[Days], Field(min_length=1, max_length=10), AfterValidator(_unique)]
    stale_after_days: Days | None = Field(default=None, description="Balances older than this are not spoken of; null: any age")
    alarm_multiple: Annotated[StrictFloat, Field(gt=1, le=1000)] = Field(
        default=3.0, description="A scan that finds so many times the usual waits for a confirmation"
    )
    alarm_least: Annotated[StrictInt, Field(ge=0)] = Field(default=100, description="and more than this")
    own_days_most: Annotated[StrictInt, Field(ge=0, le=366)] = Field(
        default=30, description="How early a subscriber may want to be warned; 0: he cannot choose"
    )
    own_days_count: Annotated[StrictInt, Field(ge=1, le=10)] = Field(default=5, description="and how often")


class UpcomingSettings(SendingOptions):
    days_before: Days
    daily: StrictBool = Field(default=False, description="Announce daily charges, too")
    own_days_most: Annotated[StrictInt, Field(ge=0, le=366)] = Field(default=30, description="How early a subscriber may want to be told; 0: he cannot choose")


class ThresholdSettings(SendingOptions):
    at_once_share: Annotated[StrictFloat, Field(gt=0, le=1)] = Field(
        default=0.1, description="The share of all accounts that may be told at the event itself in a day (1,000 at least); the others wait for the next scan"
    )
    own_threshold_most: NonNegativeMoney | None = Field(default=None, description="The highest threshold that a subscriber may choose; null: any")


SETTINGS: dict[str, type[SendingOptions]] = {
    "balance.threshold_reached": ThresholdSettings,
    "balance.exhausting": ExhaustingSettings,
    "charges.upcoming": UpcomingSettings,
}


class TypeIn(BaseModel):
    """A notification type. What is left out takes its default, also where something else stood before."""

    model_config = ConfigDict(extra="forbid")

    titles: dict[Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*$")], Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        min_length=1, max_length=30, description="By locale", examples=[{"ru": "Платёж получен", "en": "Payment received"}]
    )
    enabled: StrictBool = True
    mandatory: StrictBool = Field(default=False, description="Subscribers cannot turn it off")
    urgent: StrictBool = Field(default=False, description="Goes ahead of what is not")
    passes_window: StrictBool | None = Field(default=None, description="Goes outside the subscriber's own hours, too. null: when urgent or mandatory")
    passes_quiet_hours: StrictBool | None = Field(default=None, description="Goes in the operator's quiet hours, too. null: when urgent")
    coalesce_seconds: Annotated[StrictInt, Field(ge=0, le=86400)] = Field(
        default=0, description="Events of this type within so many seconds become one message"
    )
    channels: Annotated[list[Literal["sms", "email"]], Field(min_length=1, max_length=2), AfterValidator(_unique)]
    ttl_seconds: Annotated[StrictInt, Field(ge=60, le=31_536_000)] = Field(default=86400, description="After so long the message is of no use and is not sent")
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description='`{"days_before": [7, 3, 1]}` of balance.exhausting, `{"days_before": 3}` of charges.upcoming; of any type `flash`,'
        " `on_response_timeout` (keep or resend_once), `daily_parts`, `daily_cost`",
    )
    data_schema: dict[str, Any] | None = Field(default=None, description="JSON Schema (Draft 2020-12) of the events' data; for types that an operator added")


class TypeOut(TypeIn):
    code: str
    builtin: bool
    revision: int
    updated_at: datetime


class DescriptionOut(BaseModel):
    ru: str
    en: str


class VariableOut(BaseModel):
    """A name that a template may use."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="As a template writes it; in `items` what stands behind the loop's own name", examples=["service.name"])
    kind: Kind
    example: Any = Field(description="As an event would bring it: money and dates are strings")
    may_be_empty: bool = Field(description="Ask `{% if name is defined %}` first")
    description: DescriptionOut
    items: list["VariableOut"] = Field(description="Of a list: what each item has")


class VariablesOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: str
    items: list[VariableOut]
    further: bool = Field(description="Whether nobody has said which data the events bring: then a template may name any key that they have")


@router.get("", operation_id="list_notification_types", summary="The catalogue")
async def list_notification_types(session: SessionDep, page: Paging, caller: MayReadTemplates) -> Page[TypeOut]:
    query = sa.select(NotificationType).order_by(sa.column("code")).limit(page.limit + 1)
    if key := page.key(str):
        query = query.where(sa.column("code") > key[0])
    rows = (await session.execute(query)).scalars().all()
    return Page(items=[shown(row) for row in rows[: page.limit]], next_cursor=encode_cursor(rows[page.limit - 1].code) if len(rows) > page.limit else None)


@router.get("/{code}", operation_id="get_notification_type", summary="One type")
async def get_notification_type(code: str, session: SessionDep, response: Response, caller: MayReadTemplates) -> TypeOut:
    row = await session.get(NotificationType, code)
    if row is None:
        raise NotFound("There is no notification type of this code.")
    response.headers["ETag"] = etag(row.revision)
    return shown(row)


@router.get("/{code}/variables", operation_id="list_template_variables", summary="What a template of this type may name")
async def list_template_variables(code: str, session: SessionDep, caller: MayReadTemplates) -> VariablesOut:
    """From the one definition that events of the type are checked by: the built-in shape, or the type's JSON Schema.

    Each key of the data stands on its own and as `data.key`."""
    row = await session.get(NotificationType, code)
    if row is None:
        raise NotFound("There is no notification type of this code.")
    found = [shown_variable(variable) for variable in variables_for(code, row.data_schema)]
    return VariablesOut(type=code, items=found, further=code not in EVENT_TYPES and row.data_schema is None)


@router.put(
    "/{code}",
    operation_id="put_notification_type",
    summary="Change a type, or add one",
    responses={201: {"model": TypeOut, "description": "Added"}},
)
async def put_notification_type(
    code: Annotated[str, Path(pattern=CODE, max_length=100, description="Also the type of the events that cause it, e.g. promo.offer")],
    given: TypeIn,
    session: SessionDep,
    response: Response,
    caller: MayWriteTemplates,
    *,
    if_match: IfMatch = None,
) -> TypeOut:
    """An existing type needs If-Match; a new one is the operator's own, and events of that type are taken in from then on."""
    row = await session.get(NotificationType, code, with_for_update=True)
    if row is not None:
        require_match(if_match, row.revision)
    elif if_match is not None:
        raise StaleVersion("There is no notification type of this code to match.")
    check(code, given)
    values = given.model_dump()
    if row is None:
        added = (
            insert(NotificationType)
            .values(code=code, builtin=False, revision=1, updated_at=now(), **values)
            .on_conflict_do_nothing()
            .returning(NotificationType)
        )
        row = (await session.execute(added)).scalar_one_or_none()
        if row is None:
            raise Conflict("Somebody has just added this type: read it, and change it with If-Match.")
        response.status_code = 201
        await audit.record(session, caller, "notification_type.create", f"notification_type:{code}", values)
    elif changes := {name: [old, new] for name, new in values.items() if (old := getattr(row, name)) != new}:
        for name, (_, new) in changes.items():
            setattr(row, name, new)
        row.revision, row.updated_at = row.revision + 1, now()
        await audit.record(session, caller, "notification_type.update", f"notification_type:{code}", changes)
    response.headers["ETag"] = etag(row.revision)
    return shown(row)


def check(code: str, given: TypeIn) -> None:
    """Invalid, when the type cannot be so."""
    builtin = code in EVENT_TYPES
    if code == "balance.changed":
        raise field_invalid(("path", "code"), "tells_nobody", "This event tells nobody by itself: balance.threshold_reached does.")
    if builtin and given.data_schema is not None:
        raise field_invalid(("data_schema",), "builtin_type", "The data of a built-in type have their shape: leave data_schema out.")
    if not builtin and len(orjson.dumps(given.settings)) > LARGEST_SETTINGS:
        raise field_invalid(("settings",), "too_large", "Keep the settings under 4 KiB.")
    try:
        # An operator's own type may keep there what it likes, but what is said about sending has to be right.
        SETTINGS.get(code, SendingOptions).model_validate(given.settings if builtin else known(given.settings))
    except ValidationError as error:
        faults = [as_field_error(dict(fault), ("settings",)) for fault in error.errors()]
        raise Invalid(f"settings: {faults[0].detail}", errors=faults) from None
    if given.data_schema is not None and (wrong := schemas.faults_of(given.data_schema)):
        raise Invalid(f"data_schema: {wrong[0][2]}", errors=[FieldError(f"/data_schema{where}", kind, detail) for where, kind, detail in wrong[:50]])


def shown(row: NotificationType) -> TypeOut:
    return TypeOut.model_validate(row, from_attributes=True)


def shown_variable(variable: Variable) -> VariableOut:
    return VariableOut(
        name=variable.name,
        kind=variable.kind,
        example=variable.example,
        may_be_empty=variable.may_be_empty,
        description=DescriptionOut(**variable.description),
        items=[shown_variable(item) for item in variable.items],
    )
