"""Tables of the ground: keys, the audit, and the processes that are alive."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlmodel import Field, SQLModel

from app.core.clock import now
from app.core.db import json_field, moment, one_of
from app.core.ids import new_id


class ApiKey(SQLModel, table=True):
    """A key of an operator, a billing or a dashboard. The secret itself is nowhere: only its SHA-256."""

    __tablename__ = "api_key"
    __table_args__ = (one_of("role", "billing", "operator", "viewer", "admin"),)

    id: str = Field(primary_key=True, max_length=8)
    digest: bytes
    name: str = Field(max_length=100)
    role: str = Field(max_length=16)
    contacts: list[Any] = json_field(default_factory=list, sa_column_kwargs={"server_default": "[]"})  # where its test messages may go
    created_at: datetime = moment(default_factory=now)
    last_used_at: datetime | None = moment(default=None)
    expires_at: datetime | None = moment(default=None)
    revoked_at: datetime | None = moment(default=None)


class AuditRecord(SQLModel, table=True):
    """Who changed what. A trigger refuses UPDATE and DELETE; personal values stand as keyed hashes."""

    __tablename__ = "audit_record"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    at: datetime = moment(default_factory=now)
    actor: str = Field(max_length=120)
    action: str = Field(max_length=60)
    object: str = Field(max_length=300)
    changes: dict[str, Any] = json_field(default_factory=dict)
    request_id: str | None = Field(default=None, max_length=64)


class WorkerProcess(SQLModel, table=True):
    """A process that serves metrics, for `GET /metrics/targets`. It says that it lives every few seconds."""

    __tablename__ = "worker_process"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    queues: str = Field(max_length=1000)
    host: str = Field(max_length=255)
    metrics_port: int | None = None
    started_at: datetime = moment(default_factory=now)
    seen_at: datetime = moment(default_factory=now, index=True)
