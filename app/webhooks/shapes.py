"""Webhooks as they come in and go out over the API."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self, get_args
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictBool, StrictInt, StringConstraints, field_validator

from app.core.clock import now
from app.webhooks.bodies import webhook_id
from app.webhooks.claim import Claimed
from app.webhooks.models import TYPES, Webhook, WebhookReplay
from app.webhooks.pace import TRIPS_AT

Type = Literal[
    "message.delivered",
    "message.undelivered",
    "message.expired",
    "message.failed",
    "message.cancelled",
    "message.unknown",
    "inbound.received",
]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2000, strip_whitespace=True)]
Title = Annotated[str, StringConstraints(max_length=200, strip_whitespace=True, pattern=r"^[^\x00-\x1f\x7f]*$")]
Types = Annotated[list[Type], Field(min_length=1, max_length=len(TYPES), description="What it is told; all of them by default")]


class WebhookIn(BaseModel):
    """An endpoint to be made."""

    model_config = ConfigDict(extra="forbid")

    url: Url = Field(examples=["https://billing.example/vestnik"])
    title: Title = ""
    types: Types = Field(default_factory=lambda: list(get_args(Type)))
    with_text: StrictBool = Field(default=False, description="Tell subject and text, too")
    with_tests: StrictBool = Field(default=False, description="Tell of operators' test messages, too")


class WebhookChangeIn(BaseModel):
    """What is left out stays."""

    model_config = ConfigDict(extra="forbid")

    url: Url | None = None
    title: Title | None = None
    types: Types | None = None
    with_text: StrictBool | None = None
    with_tests: StrictBool | None = None
    enabled: Literal[False] | None = Field(default=None, description="false: nothing more is told; POST .../enable takes it back")


class SecretChangeIn(BaseModel):
    """How long the secret before stays good beside the new one."""

    model_config = ConfigDict(extra="forbid")

    hours: Annotated[StrictInt, Field(ge=0, le=24 * 30)] = 24


class ReplayIn(BaseModel):
    """The period is that in which it happened: `from` inclusive, `to` exclusive."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    from_at: AwareDatetime = Field(alias="from")
    to_at: AwareDatetime = Field(alias="to")
    types: Annotated[list[Type], Field(min_length=1, max_length=len(TYPES))] | None = Field(
        default=None, description="By default all that the endpoint is told"
    )

    @field_validator("from_at", "to_at")
    @classmethod
    def _is_a_date(cls, value: datetime) -> datetime:
        if not now() - timedelta(days=3660) < value < now() + timedelta(days=1):
            raise ValueError("lies in the past, and not more than ten years ago")
        return value


class WebhookOut(BaseModel):
    """An endpoint as it can be shown: its secret is nowhere."""

    model_config = ConfigDict(extra="forbid")

    id: UUID
    url: str
    title: str
    types: list[Type]
    with_text: bool
    with_tests: bool
    enabled: bool
    state: Literal["healthy", "failing", "disabled"] = Field(description=f"failing: {TRIPS_AT} attempts and more have failed in a row; it is tried seldom")
    disabled_because: Literal["operator", "gone", "failing"] | None = Field(
        description="gone: it has answered 410; failing: nothing was taken for five days; what happens meanwhile is not queued: replay it"
    )
    failures: int = Field(description="Attempts that have failed in a row")
    failing_since: datetime | None
    rests_until: datetime | None = Field(description="Nothing is sent to it until then")
    last_error: str | None
    old_secret_until: datetime | None = Field(description="Until then there are two signatures")
    revision: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: Webhook) -> Self:
        hidden = {"secret", "old_secret"}
        state = "disabled" if not row.enabled else "failing" if row.failures >= TRIPS_AT else "healthy"
        return cls.model_validate(row.model_dump(exclude=hidden) | {"state": state})


class NewWebhookOut(WebhookOut):
    """One of the two answers that have the secret."""

    secret: str = Field(description="whsec_ and 32 octets in base64, shown this once")

    @classmethod
    def with_secret(cls, row: Webhook, secret: str) -> Self:
        return cls.model_validate(WebhookOut.of(row).model_dump() | {"secret": secret})


class WebhookTestOut(BaseModel):
    """What the endpoint said to a `webhook.ping`, just now. It is neither repeated nor remembered."""

    model_config = ConfigDict(extra="forbid")

    delivered: bool
    status: int | None = Field(description="Of the HTTP answer; null when there was none")
    milliseconds: int
    error: str | None
    answer: str | None = Field(description="The beginning of the answer's body, as far as it is text")


class WebhookAttemptOut(BaseModel):
    """One attempt."""

    model_config = ConfigDict(extra="forbid")

    at: datetime
    status: int | None = Field(description="Of the HTTP answer; null when there was none")
    milliseconds: int
    error: str | None = Field(
        description="status_<n>, redirect, timeout, not_connected, connection_lost, no_http, name_not_found, certificate, tls, address_refused, ..."
    )


class WebhookDeliveryOut(BaseModel):
    """What one endpoint is told of one thing that happened."""

    model_config = ConfigDict(extra="forbid")

    webhook_id: str = Field(description="The header of this name: the same on every attempt")
    type: Type
    subject_id: UUID = Field(description="The message, or the inbound message")
    at: datetime = Field(description="When it happened")
    state: Literal["waiting", "sending", "delivered", "failed"] = Field(description="failed: two days are over, or the endpoint has answered 410")
    attempts: int
    next_attempt_at: datetime | None
    replay_id: UUID | None
    history: list[WebhookAttemptOut] = Field(description="The last twenty attempts")

    @classmethod
    def of(cls, row: Any) -> Self:
        claimed = Claimed(row.subject_id, row.type, row.reason, row.at, row.attempts, row.queued_at, row.replay_id, None)
        return cls(
            webhook_id=webhook_id(claimed),
            type=row.type,
            subject_id=row.subject_id,
            at=row.at,
            state=row.state,
            attempts=row.attempts,
            next_attempt_at=row.due_at if row.state == "waiting" else None,
            replay_id=row.replay_id,
            history=[WebhookAttemptOut.model_validate(one) for one in row.history],
        )


class WebhookReplayOut(BaseModel):
    """How far a replay has come."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    id: UUID
    from_at: datetime = Field(alias="from")
    to_at: datetime = Field(alias="to")
    types: list[Type]
    state: Literal["running", "done"] = Field(description="done: all that was found is queued; GET .../deliveries says what came of it")
    looked_at: int = Field(description="Messages and inbound SMS that were looked at")
    queued: int = Field(description="Webhooks that are told again, or for the first time")
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, row: WebhookReplay) -> Self:
        return cls.model_validate(row.model_dump(include=set(cls.model_fields)), by_name=True)
