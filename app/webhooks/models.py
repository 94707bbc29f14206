"""Whom the billing wants told, what they are told, and what came of it."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlmodel import Field, SQLModel

from app.core.db import json_field, moment, one_of

TYPES = (
    "message.delivered",
    "message.undelivered",
    "message.expired",
    "message.failed",
    "message.cancelled",
    "message.unknown",
    "inbound.received",
)
PING = "webhook.ping"  # what a test sends: it is told to nobody by itself
DELIVERY_STATES = ("waiting", "sending", "delivered", "failed")


def _types() -> Any:
    return Field(sa_type=postgresql.ARRAY(sa.String(40)))


class Webhook(SQLModel, table=True):
    """An endpoint of the billing. `revision` counts what operators change; how it does (`failures`, `rests_until`) is the workers' business.

    A trigger on `message` and `inbound_message` asks of it `enabled`, `types` and `with_tests`, and nothing else."""

    __tablename__ = "webhook"
    __table_args__ = (one_of("disabled_because", "operator", "gone", "failing"),)

    id: UUID = Field(primary_key=True)
    url: str = Field(max_length=2000, unique=True)
    title: str = Field(default="", max_length=200)
    types: list[str] = _types()
    with_text: bool = False
    with_tests: bool = False
    enabled: bool = True
    disabled_because: str | None = Field(default=None, max_length=16)
    secret: bytes
    old_secret: bytes | None = None
    old_secret_until: datetime | None = moment(default=None)
    revision: int = 1
    failures: int = 0  # attempts that failed in a row
    failing_since: datetime | None = moment(default=None)
    rests_until: datetime | None = moment(default=None)  # until then nothing is sent to it
    last_error: str | None = Field(default=None, max_length=200)
    created_at: datetime = moment()
    updated_at: datetime = moment()


class WebhookDelivery(SQLModel, table=True):
    """One thing that happened, for one endpoint. No personal value: those are read from the message when it is sent.

    `due_at` says when something is next to be done with it: the attempt while it is `waiting`, the end of the lease while `sending`, afterwards its removal.
    `history`: its attempts, the last twenty."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        sa.Index("ix_webhook_delivery_endpoint_id_state_due_at", "endpoint_id", "state", "due_at"),
        one_of("state", *DELIVERY_STATES),
        {"postgresql_with": {"fillfactor": "80", "autovacuum_vacuum_scale_factor": "0.02", "autovacuum_vacuum_threshold": "2000"}},
    )

    endpoint_id: UUID = Field(primary_key=True)
    subject_id: UUID = Field(primary_key=True)  # of the message, or of the inbound SMS
    type: str = Field(primary_key=True, max_length=40)
    reason: str | None = Field(default=None, max_length=64)
    at: datetime = moment()  # when it happened
    state: str = Field(max_length=10)
    attempts: int = Field(default=0, sa_type=sa.SmallInteger)
    queued_at: datetime = moment()  # the two days of its retries begin here
    due_at: datetime = moment()
    claimed_by: UUID | None = None
    replay_id: UUID | None = None
    history: list[dict[str, Any]] = json_field()


class WebhookReplay(SQLModel, table=True):
    """A period that is told again. `position` is the id up to which `source` has been looked through."""

    __tablename__ = "webhook_replay"
    __table_args__ = (one_of("state", "running", "done"), one_of("source", "message", "inbound_message"))

    id: UUID = Field(primary_key=True)
    endpoint_id: UUID = Field(index=True)
    from_at: datetime = moment()
    to_at: datetime = moment()
    types: list[str] = _types()
    state: str = Field(default="running", max_length=8)
    source: str = Field(default="message", max_length=16)
    position: UUID
    looked_at: int = 0
    queued: int = 0
    requested_by: str = Field(max_length=100)
    created_at: datetime = moment()
    finished_at: datetime | None = moment(default=None)
