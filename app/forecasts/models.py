"""What will happen: the scans that looked, what they found, and how far each account has been told."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from app.core.db import json_field, moment, one_of

KINDS = ("exhaustion", "threshold", "upcoming")


class ForecastEpisode(SQLModel, table=True):
    """One spell of a low balance: it opens with the first notice and closes when there is nothing to tell any more. `stage` is the lowest one told."""

    __tablename__ = "forecast_episode"
    __table_args__ = (one_of("kind", "exhaustion", "threshold"),)

    account_id: UUID = Field(primary_key=True)  # no foreign key: scans write many at once, and accounts are never deleted
    kind: str = Field(primary_key=True, max_length=12)
    number: int
    is_open: bool
    stage: int | None = Field(default=None, sa_type=sa.SmallInteger)
    changed_at: datetime = moment()


class ForecastHit(SQLModel, table=True):
    """Somebody was to be told: once for each account, kind, episode and mark (a stage, or a due day). `inputs` is what the decision was made from."""

    __tablename__ = "forecast_hit"
    __table_args__ = (
        sa.UniqueConstraint("account_id", "kind", "episode", "mark"),
        sa.Index("ix_forecast_hit_at_once", "at", postgresql_where=sa.text("run_id IS NULL")),
        one_of("kind", *KINDS),
        one_of("outcome", "told", "covered"),
    )

    id: UUID = Field(primary_key=True)
    account_id: UUID
    kind: str = Field(max_length=12)
    episode: int
    mark: str = Field(max_length=16)
    as_of: date
    outcome: str = Field(max_length=8)
    run_id: UUID | None = None  # none: seen at a change of the balance
    event_id: UUID | None = None
    inputs: dict[str, Any] = json_field()
    at: datetime = moment()


class ScanRun(SQLModel, table=True):
    """One scan. Those that the clock started are one for each kind, zone and day; those by hand are as many as are asked for."""

    __tablename__ = "scan_run"
    __table_args__ = (
        sa.Index("ix_scan_run_ledger", "kind", "zone", "as_of", unique=True, postgresql_where=sa.text("origin = 'clock'")),
        one_of("kind", *KINDS),
        one_of("origin", "clock", "hand"),
        one_of("state", "queued", "running", "done", "failed", "needs_confirmation"),
    )

    id: UUID = Field(primary_key=True)
    kind: str = Field(max_length=12)
    origin: str = Field(max_length=8)
    zone: str | None = Field(default=None, max_length=64)  # none: all of them
    as_of: date | None = None  # none: each zone's own day
    dry_run: bool = False
    state: str = Field(max_length=20)
    phase: str = Field(default="count", max_length=8)
    requested_by: str = Field(max_length=100)
    confirmed_by: str | None = Field(default=None, max_length=100)
    usual: int | None = None
    found: dict[str, Any] = json_field(default_factory=dict)
    sample: list[dict[str, Any]] = json_field(default_factory=list)
    error: str | None = Field(default=None, max_length=500)
    created_at: datetime = moment()
    started_at: datetime | None = moment(default=None)
    finished_at: datetime | None = moment(default=None)


class ScanSlice(SQLModel, table=True):
    """A part of a run that any worker can take: the accounts between two ids (the last one excluded), of some zones or of all.

    `candidates` are those whom the count has found, for the telling to look at again."""

    __tablename__ = "scan_slice"
    __table_args__ = (
        sa.Index("ix_scan_slice_open", "run_id", "n", postgresql_where=sa.text("state IN ('waiting', 'running')")),
        one_of("state", "waiting", "running", "done", "failed"),
    )

    run_id: UUID = Field(sa_column=sa.Column(sa.Uuid, sa.ForeignKey("scan_run.id", ondelete="CASCADE"), primary_key=True))
    phase: str = Field(primary_key=True, max_length=8)
    n: int = Field(primary_key=True)
    zones: list[str] | None = Field(default=None, sa_type=ARRAY(sa.Text()))
    as_of: date
    first: UUID
    last: UUID
    state: str = Field(max_length=8)
    attempts: int = Field(default=0, sa_type=sa.SmallInteger)
    lease_until: datetime | None = moment(default=None)
    found: dict[str, Any] = json_field(default_factory=dict)
    candidates: list[UUID] | None = Field(default=None, sa_type=ARRAY(sa.Uuid()))
    error: str | None = Field(default=None, max_length=500)
    created_at: datetime = moment()
