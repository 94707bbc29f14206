"""What the reports' API takes and answers."""

import datetime as dt
from decimal import Decimal
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from app.tracking.reports.ask import Counts
from app.tracking.reports.dimensions import LONGEST_EXPORT
from app.tracking.reports.sheets import Format, Locale, money

FilterText = Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")]
Values = Annotated[list[FilterText], Query(max_length=100)]
FILTERED = "Only these; repeat it for several. An empty value stands for none."
StateName = Literal["waiting", "accepted", "delivered", "undelivered", "expired", "failed", "unknown", "cancelled"]


class ReportFilters(BaseModel):
    """Each narrows; several values of one are alternatives."""

    model_config = ConfigDict(extra="forbid")

    type: list[FilterText] = Field(default_factory=list, max_length=100)
    channel: list[Literal["sms", "email"]] = Field(default_factory=list, max_length=2)
    gateway: list[FilterText] = Field(default_factory=list, max_length=100)
    route: list[FilterText] = Field(default_factory=list, max_length=100)
    sender: list[FilterText] = Field(default_factory=list, max_length=100)
    operator: list[FilterText] = Field(default_factory=list, max_length=100)
    template_id: list[UUID] = Field(default_factory=list, max_length=100)
    template_version: list[Annotated[int, Field(ge=1, le=2**31 - 1)]] = Field(default_factory=list, max_length=100)
    state: list[StateName] = Field(default_factory=list, max_length=8)
    reason: list[FilterText] = Field(default_factory=list, max_length=100)

    def given(self) -> dict[str, list[str]]:
        """Those that were given, as texts."""
        return {name: [str(value) for value in values] for name, values in self if values}


async def filters(
    *,
    type_: Annotated[list[FilterText], Query(alias="type", max_length=100, description=FILTERED)] = [],  # noqa: B006 - FastAPI copies it
    channel: Annotated[list[Literal["sms", "email"]], Query(max_length=2)] = [],  # noqa: B006
    gateway: Annotated[list[FilterText], Query(max_length=100)] = [],  # noqa: B006
    route: Annotated[list[FilterText], Query(max_length=100)] = [],  # noqa: B006
    sender: Annotated[list[FilterText], Query(max_length=100)] = [],  # noqa: B006
    operator: Annotated[list[FilterText], Query(max_length=100, description="The mobile operator as the number ranges name it")] = [],  # noqa: B006
    template_id: Annotated[list[UUID], Query(max_length=100)] = [],  # noqa: B006
    template_version: Annotated[list[Annotated[int, Field(ge=1, le=2**31 - 1)]], Query(max_length=100)] = [],  # noqa: B006
    state: Annotated[list[StateName], Query(max_length=8, description="waiting: held, queued or being sent")] = [],  # noqa: B006
    reason: Annotated[list[FilterText], Query(max_length=100)] = [],  # noqa: B006
) -> ReportFilters:
    return ReportFilters(
        type=type_, channel=channel, gateway=gateway, route=route, sender=sender, operator=operator,
        template_id=template_id, template_version=template_version, state=state, reason=reason,
    )  # fmt: skip


class ReportMeasures(BaseModel):
    """What is counted. `parts` and `cost` are of messages that went out; an SMSC's bill is GET /reports/invoice."""

    model_config = ConfigDict(extra="forbid")

    messages: int
    parts: int = Field(description="SMS parts of the messages that went out, or may have (unknown)")
    cost: str = Field(description="Parts times the price of a part when the gateway was chosen")
    delivered: int
    known: int = Field(description="Messages whose end is known: delivered, undelivered, expired, failed")
    delivery_share: float | None = Field(description="delivered / known; null where nothing is known")
    p50_seconds: float | None = Field(description="Half of the delivered ones took no longer, from when they were due; at most 19 % off")
    p95_seconds: float | None = None

    @classmethod
    def of(cls, counts: Counts) -> Self:
        return cls.model_validate(counts.measures() | {"cost": money(counts.cost)})


class ReportKeyOut(BaseModel):
    """What a line is of: the groups that were asked for; the others are not there."""

    model_config = ConfigDict(extra="forbid")

    day: dt.date | None = None
    hour: dt.datetime | None = None
    type: str | None = None
    channel: str | None = None
    gateway: str | None = None
    route: str | None = None
    sender: str | None = None
    operator: str | None = None
    template_id: UUID | None = None
    template_version: int | None = None
    state: str | None = None
    reason: str | None = None


class ReportLineOut(ReportKeyOut, ReportMeasures):
    """One group."""


class ReportOf(BaseModel):
    model_config = ConfigDict(extra="forbid")

    from_: dt.date = Field(alias="from")
    to: dt.date = Field(description="The last day, which is counted too")
    timezone: str = Field(description="Whose days these are (VESTNIK_TIMEZONE)")
    complete: bool = Field(description="false: messages from before an upgrade are still being counted")


class MessagesReportOut(ReportOf):
    group_by: list[str]
    items: list[ReportLineOut]
    total: ReportMeasures


class UndeliveredLineOut(BaseModel):
    """A message that did not arrive, or of which that is not known."""

    model_config = ConfigDict(extra="forbid")

    account: str | None
    channel: str
    address: str
    type: str
    created_at: dt.datetime
    ended_at: dt.datetime
    state: str
    state_words: str
    reason: str | None
    reason_words: str
    gateway: str | None
    message_id: UUID


class UndeliveredReportOut(ReportOf):
    items: list[UndeliveredLineOut]


class ReportBilledMeasures(BaseModel):
    model_config = ConfigDict(extra="forbid")

    parts: int
    cost: str


class ReportBilledLineOut(ReportBilledMeasures):
    day: dt.date | None = None
    gateway: str | None = None
    sender: str | None = None
    operator: str | None = None


class InvoiceReportOut(ReportOf):
    group_by: list[str]
    items: list[ReportBilledLineOut]
    total: ReportBilledMeasures


class InvoiceDifferenceOut(BaseModel):
    """`difference` is theirs less ours."""

    model_config = ConfigDict(extra="forbid")

    day: dt.date | None = None
    gateway: str | None = None
    sender: str | None = None
    operator: str | None = None
    our_parts: int
    their_parts: int
    difference_parts: int
    our_cost: str
    their_cost: str | None = Field(description="null where the SMSC says no cost")
    difference_cost: str | None


class InvoiceComparisonOut(ReportOf):
    group_by: list[str]
    equal: int = Field(description="Lines that are the same on both sides; they are not listed")
    items: list[InvoiceDifferenceOut]


class ReportComparedLineOut(ReportKeyOut):
    """`before` is of the period that it is compared with; null: nothing was there."""

    now: ReportMeasures | None
    before: ReportMeasures | None
    messages_change: int
    cost_change: str
    share_change: float | None = Field(description="Of the delivery share, in points of 1; null where one side has none")


class ReportComparisonOut(ReportOf):
    with_from: dt.date
    with_to: dt.date
    group_by: list[str]
    items: list[ReportComparedLineOut]
    total: ReportComparedLineOut


class ReportExportIn(BaseModel):
    """A report to write into a file."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["messages", "undelivered", "invoice"] = "messages"
    format: Format = "xlsx"
    from_: dt.date = Field(alias="from")
    to: dt.date = Field(description=f"The last day, which is counted too; at most {LONGEST_EXPORT} days")
    group_by: list[Annotated[str, Field(max_length=20)]] = Field(default_factory=list, max_length=12, description="Not for undelivered")
    filters: ReportFilters = Field(default_factory=ReportFilters)
    locale: Locale | None = Field(default=None, description="Of headings, reasons, dates and numbers; the service's own when left out")


class ReportExportOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: UUID
    kind: Literal["messages", "undelivered", "invoice"]
    format: Format
    query: dict[str, Any]
    state: Literal["queued", "running", "done", "failed", "cancelled", "expired"]
    progress: float = Field(description="0 to 1")
    rows: int
    size: int | None = Field(description="octets")
    error: str | None
    created_at: dt.datetime
    created_by: str
    finished_at: dt.datetime | None
    expires_at: dt.datetime | None = Field(description="The file is there until then")

    @classmethod
    def of(cls, row: Any) -> Self:
        return cls.model_validate({name: getattr(row, name) for name in cls.model_fields})


def change_of(present: Counts | None, before: Counts | None) -> dict[str, Any]:
    """The lines of a comparison, less their key."""
    a, b = present or Counts(), before or Counts()
    share = round(a.share - b.share, 6) if a.share is not None and b.share is not None else None
    return {
        "now": ReportMeasures.of(present) if present else None,
        "before": ReportMeasures.of(before) if before else None,
        "messages_change": a.messages - b.messages,
        "cost_change": money(Decimal(a.cost - b.cost)),
        "share_change": share,
    }
