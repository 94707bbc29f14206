"""What reports are read from: deltas that triggers append, cells that they are added up in, and files that were asked for."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from app.core.db import json_field, moment, one_of


class ReportDelta(SQLModel, table=True):
    """What one statement has changed in the counts: triggers on `message` and `submission` append it in the statement's own transaction, grouped, signed.

    `slot` is the quarter of an hour of the message's creation; of a part (`kind`) that of its submission. Nothing is ever updated here: no hot rows."""

    __tablename__ = "report_delta"
    __table_args__ = (
        one_of("kind", "message", "part"),
        {"postgresql_with": {"autovacuum_vacuum_scale_factor": "0.02", "autovacuum_vacuum_threshold": "5000", "autovacuum_vacuum_cost_delay": "0"}},
    )

    id: int | None = Field(default=None, sa_column=sa.Column(sa.BigInteger, sa.Identity(always=True), primary_key=True))
    kind: str = Field(max_length=8)
    slot: datetime = moment()
    type: str | None = Field(default=None, max_length=100)
    channel: str | None = Field(default=None, max_length=8)
    gateway: str | None = Field(default=None, max_length=64)
    route: str | None = Field(default=None, max_length=64)
    sender: str | None = Field(default=None, max_length=20)
    operator: str | None = Field(default=None, max_length=200)
    template_id: UUID | None = None
    template_version: int | None = None
    state: str | None = Field(default=None, max_length=16)
    reason: str | None = Field(default=None, max_length=64)
    bucket: int = Field(sa_type=sa.SmallInteger)  # of the time to deliver (times.py); -1: not delivered
    messages: int = Field(sa_type=sa.BigInteger)
    parts: int = Field(sa_type=sa.BigInteger)
    cost: Decimal = Field(sa_type=sa.Numeric(18, 4))


class ReportKey(SQLModel, table=True):
    """One combination of everything but time: some thousands of rows, that cells name by a digest. No account is among it, so that an erasure changes no count."""

    __tablename__ = "report_key"
    __table_args__ = (one_of("kind", "message", "part"),)

    key: UUID = Field(primary_key=True)
    kind: str = Field(max_length=8)
    type: str | None = Field(default=None, max_length=100)
    channel: str | None = Field(default=None, max_length=8)
    gateway: str | None = Field(default=None, max_length=64)
    route: str | None = Field(default=None, max_length=64)
    sender: str | None = Field(default=None, max_length=20)
    operator: str | None = Field(default=None, max_length=200)
    template_id: UUID | None = None
    template_version: int | None = None
    state: str | None = Field(default=None, max_length=16)
    reason: str | None = Field(default=None, max_length=64)


class ReportCell(SQLModel, table=True):
    """The counts of one hour and one key: deltas that were folded. `slot` is the beginning of the hour on the clock of VESTNIK_TIMEZONE. None of nothing."""

    __tablename__ = "report_cell"
    __table_args__ = ({"postgresql_with": {"fillfactor": "90", "autovacuum_vacuum_scale_factor": "0.02"}},)

    slot: datetime = moment(primary_key=True)
    key: UUID = Field(primary_key=True)
    bucket: int = Field(primary_key=True, sa_type=sa.SmallInteger)
    messages: int = Field(sa_type=sa.BigInteger)
    parts: int = Field(sa_type=sa.BigInteger)
    cost: Decimal = Field(sa_type=sa.Numeric(18, 4))


class ReportDay(SQLModel, table=True):
    """The same counts by the day: at every moment the sums of the cells of its hours. Whoever does not ask for hours reads a twentieth as many rows."""

    __tablename__ = "report_day"
    __table_args__ = ({"postgresql_with": {"fillfactor": "90", "autovacuum_vacuum_scale_factor": "0.02"}},)

    day: date = Field(primary_key=True)
    key: UUID = Field(primary_key=True)
    bucket: int = Field(primary_key=True, sa_type=sa.SmallInteger)
    messages: int = Field(sa_type=sa.BigInteger)
    parts: int = Field(sa_type=sa.BigInteger)
    cost: Decimal = Field(sa_type=sa.Numeric(18, 4))


class ReportDayZone(SQLModel, table=True):
    """On whose clock the days of `report_day` begin, and how far they are summed up (days.py)."""

    __tablename__ = "report_day_zone"
    __table_args__ = (sa.CheckConstraint("id = 1", name="one_row"),)

    id: int = Field(default=1, primary_key=True, sa_type=sa.SmallInteger)
    zone: str = Field(max_length=64)
    next_day: date | None = None  # this one and later ones are not summed yet; none: all are


class ReportBackfill(SQLModel, table=True):
    """How far the messages that were there before the triggers have been counted. No row: all of them."""

    __tablename__ = "report_backfill"
    __table_args__ = (sa.CheckConstraint("id = 1", name="one_row"),)

    id: int = Field(default=1, primary_key=True, sa_type=sa.SmallInteger)
    at: datetime = moment()  # what is older has been counted
    until: datetime = moment()


class ReportExport(SQLModel, table=True):
    """A report that a worker writes into a file. `query` is what was asked for, as the API has checked it."""

    __tablename__ = "report_export"
    __table_args__ = (
        sa.Index("ix_report_export_open", "id", postgresql_where=sa.text("state IN ('queued', 'running')")),
        one_of("kind", "messages", "undelivered", "invoice"),
        one_of("format", "json", "csv", "xlsx"),
        one_of("state", "queued", "running", "done", "failed", "cancelled", "expired"),
    )

    id: UUID = Field(primary_key=True)
    kind: str = Field(max_length=12)
    format: str = Field(max_length=4)
    query: dict[str, Any] = json_field()
    state: str = Field(max_length=10)
    progress: float = Field(default=0.0)  # 0..1
    rows: int = Field(default=0, sa_type=sa.BigInteger)
    size: int | None = Field(default=None, sa_type=sa.BigInteger)  # octets of the file
    attempts: int = Field(default=0, sa_type=sa.SmallInteger)
    claimed_by: UUID | None = None
    lease_until: datetime | None = moment(default=None)
    error: str | None = Field(default=None, max_length=500)
    created_at: datetime = moment()
    created_by: str = Field(max_length=120)
    finished_at: datetime | None = moment(default=None)
    expires_at: datetime | None = moment(default=None)


class ReportExportPart(SQLModel, table=True):
    """A piece of an export's file. It belongs to the claim that wrote it: what a worker that died has left is never mixed with what the next one writes."""

    __tablename__ = "report_export_part"

    export_id: UUID = Field(primary_key=True, foreign_key="report_export.id", ondelete="CASCADE")
    n: int = Field(primary_key=True)
    data: bytes
