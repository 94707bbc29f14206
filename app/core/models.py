"""Tables of the ground: keys, the audit, and the processes that are alive."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
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
    allowed_networks: list[Any] = json_field(default_factory=list, sa_column_kwargs={"server_default": "[]"})  # none: from anywhere
    rate_per_second: float | None = None  # nothing: as fast as it likes
    burst: int | None = None
    daily_quota: int | None = Field(default=None, sa_type=sa.BigInteger)
    test: bool = Field(default=False, sa_column_kwargs={"server_default": "false"})  # what it sends goes to the simulated gateway
    rotated_at: datetime | None = moment(default=None)
    old_digest: bytes | None = None  # of the secret before this one
    old_until: datetime | None = moment(default=None)  # until when that one is still taken


class KeyUsage(SQLModel, table=True):
    """What a key with a daily quota has used on one day, blocks that processes have in hand included."""

    __tablename__ = "key_usage"

    key_id: str = Field(primary_key=True, max_length=8)
    day: date = Field(primary_key=True)
    used: int = Field(sa_type=sa.BigInteger)


class AuditRecord(SQLModel, table=True):
    """Who changed what. A trigger refuses UPDATE, DELETE and TRUNCATE; personal values stand as keyed hashes. Another trigger puts it into `audit_unsealed`."""

    __tablename__ = "audit_record"
    __table_args__ = (
        sa.Index("ix_audit_record_at_id", "at", "id"),
        sa.Index("ix_audit_record_actor_at_id", "actor", "at", "id"),
        sa.Index("ix_audit_record_action_at_id", "action", "at", "id"),
        sa.Index("ix_audit_record_object_at_id", "object", "at", "id"),
        sa.Index("ix_audit_record_account_id_at_id", "account_id", "at", "id", postgresql_where=sa.text("account_id IS NOT NULL")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    at: datetime = moment(default_factory=now)
    actor: str = Field(max_length=120)
    action: str = Field(max_length=60)
    object: str = Field(max_length=300)
    changes: dict[str, Any] = json_field(default_factory=dict)
    request_id: str | None = Field(default=None, max_length=64)
    account_id: UUID | None = None  # whom it is about; of no account: nobody


class AuditUnsealed(SQLModel, table=True):
    """Records that are not in the chain yet: the seal takes them when their transactions have committed."""

    __tablename__ = "audit_unsealed"

    record_id: UUID = Field(primary_key=True)


class AuditSeal(SQLModel, table=True):
    """The chain: the hash of the one before together with the record. A trigger refuses changes here, too."""

    __tablename__ = "audit_seal"

    seq: int = Field(primary_key=True, sa_type=sa.BigInteger, sa_column_kwargs={"autoincrement": False})
    record_id: UUID = Field(unique=True)
    hash: bytes


class AuditPepper(SQLModel, table=True):
    """A key of the hashes that stand for personal values, sealed with VESTNIK_SECRET_KEYS."""

    __tablename__ = "audit_pepper"

    id: str = Field(primary_key=True, max_length=8)
    sealed: bytes
    created_at: datetime = moment(default_factory=now)


class WorkerProcess(SQLModel, table=True):
    """A process that serves metrics, for `GET /metrics/targets`. It says that it lives every few seconds."""

    __tablename__ = "worker_process"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    queues: str = Field(max_length=1000)
    host: str = Field(max_length=255)
    metrics_port: int | None = None
    started_at: datetime = moment(default_factory=now)
    seen_at: datetime = moment(default_factory=now, index=True)
