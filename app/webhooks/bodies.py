"""What is written in a webhook: `{"type", "timestamp", "data"}`, and `replay` where it is told again."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field

from app.core.clock import now
from app.core.db import as_utc
from app.webhooks.claim import Claimed
from app.webhooks.models import PING

FinalState = Literal["delivered", "undelivered", "expired", "failed", "cancelled", "unknown"]


class MessageToldData(BaseModel):
    """A message has come to an end. What stands in it is how it is when it is told; after an erasure, or when it is no longer kept, the rest is null."""

    model_config = ConfigDict(extra="forbid")

    message_id: UUID
    state: FinalState = Field(description="The state that it entered. After undelivered, expired and unknown there may be another one: late truth")
    reason: str | None
    event_id: UUID | None = Field(default=None, description="Of the event that it tells, as POST /events has answered it")
    event_source: str | None = Field(default=None, description="`source` of that event: the billing's own")
    event_key: str | None = Field(default=None, description="`id` of that event: the billing's own")
    account: str | None = Field(default=None, description="The account's number")
    type: str | None = Field(default=None, description="The notification type")
    channel: Literal["sms", "email"] | None = None
    address: str | None = None
    gateway: str | None = None
    parts: int | None = Field(default=None, description="Parts that are billed; 1 for an e-mail")
    resend_of: UUID | None = Field(default=None, description="The message that an operator sent again")
    test: bool | None = Field(default=None, description="An operator wrote it for himself")
    subject: str | None = Field(default=None, description="For endpoints with `with_text` alone")
    text: str | None = Field(default=None, description="For endpoints with `with_text` alone")


class InboundToldData(BaseModel):
    """A subscriber has sent an SMS."""

    model_config = ConfigDict(extra="forbid")

    inbound_message_id: UUID
    action: str | None = Field(description="`stop` or `start`: what it did; null: it was kept, and nothing else")
    gateway: str | None = None
    source: str | None = Field(default=None, description="The subscriber's number, E.164 with +")
    destination: str | None = None
    parts: int | None = None
    is_complete: bool | None = None
    accounts: list[str] | None = Field(default=None, description="The accounts that have this number as a contact, the first hundred")
    text: str | None = Field(default=None, description="For endpoints with `with_text` alone")


class PingData(BaseModel):
    """A test, asked for over the API."""

    model_config = ConfigDict(extra="forbid")

    webhook_id: UUID


class Told(BaseModel):
    """What all have in common."""

    model_config = ConfigDict(extra="forbid")

    timestamp: datetime = Field(description="When it happened; `webhook-timestamp` says when this attempt was made")
    replay: UUID | None = Field(default=None, description="Only where it is told again: the replay that asked for it. `webhook-id` is that of the first time")


class MessageTold(Told):
    type: Literal["message.delivered", "message.undelivered", "message.expired", "message.failed", "message.cancelled", "message.unknown"]
    data: MessageToldData


class InboundTold(Told):
    type: Literal["inbound.received"]
    data: InboundToldData


class PingTold(Told):
    type: Literal["webhook.ping"]
    data: PingData


def webhook_id(claimed: Claimed) -> str:
    """The same on every attempt, and on a replay, so that the receiver can know what he has had: made of what happened, not of when it was told."""
    return f"msg_{claimed.subject_id.hex}_{claimed.type.partition('.')[2]}"


def body_of(claimed: Claimed) -> bytes:
    """The octets that are signed and sent."""
    subject, said = dict(claimed.subject or {}), claimed.type.partition(".")[2]
    subject.pop("id", None)
    data: dict[str, Any]
    if claimed.type.startswith("message."):
        data = {"message_id": claimed.subject_id, "state": said, "reason": claimed.reason} | subject
    else:
        data = {"inbound_message_id": claimed.subject_id, "action": claimed.reason} | subject
    told: dict[str, Any] = {"type": claimed.type, "timestamp": as_utc(claimed.at), "data": data}
    return orjson.dumps(told | ({"replay": claimed.replay_id} if claimed.replay_id is not None else {}), default=str)


def ping_of(endpoint: UUID) -> bytes:
    return orjson.dumps({"type": PING, "timestamp": as_utc(now()), "data": {"webhook_id": endpoint}}, default=str)
