"""What happened: events as they were taken in, and the narrow queue of those that nobody has planned yet."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from app.core.db import json_field, moment


class EventKey(SQLModel, table=True):
    """Uniqueness of (source, id), apart from the events, which are partitioned by time: a unique index of theirs would have to name it."""

    __tablename__ = "event_key"

    source: str = Field(primary_key=True, max_length=300)
    external_id: str = Field(primary_key=True, max_length=300)
    event_id: UUID


class Event(SQLModel, table=True):
    """One event, never changed but for its data, which is deleted in the end. No foreign keys: rows come by the batch and from one place."""

    __tablename__ = "event"
    __table_args__ = (sa.Index("ix_event_account_id_id", "account_id", "id"), {"postgresql_partition_by": "RANGE (id)"})

    id: UUID = Field(primary_key=True)
    source: str = Field(max_length=300)
    external_id: str = Field(max_length=300)
    type: str = Field(max_length=100)
    account_id: UUID
    time: datetime = moment()
    data: dict[str, Any] = json_field()
    test: bool = Field(default=False, sa_column_kwargs={"server_default": "false"})  # told by a test key: its messages are simulated
    content_deleted_at: datetime | None = moment(default=None)  # `data` is gone: retention, or the account's erasure


class EventWaiting(SQLModel, table=True):
    """Events that are not planned yet: a row here is the promise made with the 202."""

    __tablename__ = "event_waiting"
    __table_args__ = (
        sa.Index("ix_event_waiting_account_id", "account_id"),
        {"postgresql_with": {"autovacuum_vacuum_scale_factor": "0.02", "autovacuum_vacuum_threshold": "2000", "autovacuum_vacuum_cost_delay": "0"}},
    )

    event_id: UUID = Field(primary_key=True)
    account_id: UUID
