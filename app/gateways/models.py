"""Through what: gateways, the slots of their binds, and the routes to them."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from app.core.clock import now
from app.core.db import json_field, long_text, moment, one_of


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
    trace_until: datetime | None = moment(default=None)
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


class GatewayTrace(SQLModel, table=True):
    """One PDU as support reads it: addresses masked, passwords never. Kept for a few days."""

    __tablename__ = "gateway_trace"
    __table_args__ = (sa.Index("ix_gateway_trace_gateway_id", "gateway", "id"),)

    id: UUID = Field(primary_key=True)
    gateway: str = Field(max_length=64)
    slot: int = Field(sa_type=sa.SmallInteger)
    at: datetime = moment()
    line: str = long_text()


class Routing(SQLModel, table=True):
    """All routes, in their order, as one document: one row."""

    __tablename__ = "routing"
    __table_args__ = (sa.CheckConstraint("id = 1", name="one_row"),)

    id: int = Field(default=1, primary_key=True, sa_type=sa.SmallInteger)
    routes: list[dict[str, Any]] = json_field(default_factory=list)
    revision: int = 1
    updated_at: datetime = moment(default_factory=now)


class NumberRange(SQLModel, table=True):
    """Whose numbers these are: a span of the numbering plan, or one ported number, which is the more exact. Digits of E.164 as an integer."""

    __tablename__ = "number_range"
    __table_args__ = (one_of("kind", "range", "ported"), sa.CheckConstraint("first <= last", name="first_last"))

    kind: str = Field(primary_key=True, max_length=8)
    first: int = Field(primary_key=True, sa_type=sa.BigInteger)
    last: int = Field(sa_type=sa.BigInteger)
    operator: str = Field(max_length=200)
    region: str | None = Field(default=None, max_length=200)


class NumberRangeImport(SQLModel, table=True):
    """Lines of an import that is coming in. What is lost of them in a crash was of no use any more."""

    __tablename__ = "number_range_import"
    __table_args__ = ({"prefixes": ["UNLOGGED"]},)

    import_id: UUID = Field(primary_key=True)
    line: int = Field(primary_key=True)
    first: int = Field(sa_type=sa.BigInteger)
    last: int = Field(sa_type=sa.BigInteger)
    operator: str = Field(max_length=200)
    region: str | None = Field(default=None, max_length=200)
