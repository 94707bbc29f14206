"""Through what: gateways, and the slots of their binds."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlmodel import Field, SQLModel

from app.core.clock import now
from app.core.db import json_field, moment, one_of


class Gateway(SQLModel, table=True):
    """A road to subscribers. `settings` is SmppSettings or SmtpSettings less the password, which stands encrypted in `secret`."""

    __tablename__ = "gateway"
    __table_args__ = (one_of("kind", "smpp", "smtp"),)

    name: str = Field(primary_key=True, max_length=64)
    kind: str = Field(max_length=8)
    settings: dict[str, Any] = json_field()
    secret: bytes | None = None
    enabled: bool = True
    paused: bool = False
    revision: int = 1
    created_at: datetime = moment(default_factory=now)
    updated_at: datetime = moment(default_factory=now)


class BindSlot(SQLModel, table=True):
    """Who owns one bind of a gateway, until when, and how it does. `fence` is new with every owner: a late settle is seen by it."""

    __tablename__ = "bind_slot"

    gateway: str = Field(primary_key=True, max_length=64)
    slot: int = Field(primary_key=True)
    owner: str = Field(max_length=300)
    fence: UUID
    until: datetime = moment()
    status: dict[str, Any] = json_field(default_factory=dict)
