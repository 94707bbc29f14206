"""The catalogue: which notifications exist and how each behaves."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from app.core.clock import now
from app.core.db import json_field, moment


class NotificationType(SQLModel, table=True):
    """One kind of notification. `code` is also the type of the event that causes it."""

    __tablename__ = "notification_type"
    __table_args__ = (
        sa.CheckConstraint("ttl_seconds BETWEEN 60 AND 31536000", name="ttl_seconds"),
        sa.CheckConstraint("coalesce_seconds BETWEEN 0 AND 86400", name="coalesce_seconds"),
    )

    code: str = Field(primary_key=True, max_length=100)
    titles: dict[str, str] = json_field()
    enabled: bool = True
    mandatory: bool = False
    urgent: bool = False
    passes_window: bool | None = None  # None: urgent or mandatory
    passes_quiet_hours: bool | None = None  # None: urgent
    coalesce_seconds: int = 0
    channels: list[str] = Field(sa_type=ARRAY(sa.Text()))
    ttl_seconds: int = 86400
    settings: dict[str, Any] = json_field(default_factory=dict)
    data_schema: dict[str, Any] | None = json_field(default=None)
    builtin: bool = False
    revision: int = 1
    updated_at: datetime = moment(default_factory=now)
