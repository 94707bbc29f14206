"""On the wire: one row for each part of each attempt, written when its outcome is known."""

from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from app.core.db import moment, one_of


class Submission(SQLModel, table=True):
    """One part of one attempt. `gateway_message_id` is the far side's id, by which its receipt is found."""

    __tablename__ = "submission"
    __table_args__ = (
        # The selective column first: an SMSC that restarts uses its ids again, and the newest submission wins.
        sa.Index("ix_submission_gateway_message_id", "gateway_message_id", "receipt_group"),
        one_of("outcome", "accepted", "refused", "deferred", "unknown"),
        {"postgresql_partition_by": "RANGE (message_id)"},
    )

    message_id: UUID = Field(primary_key=True)
    n: int = Field(primary_key=True, sa_type=sa.SmallInteger)
    part: int = Field(primary_key=True, sa_type=sa.SmallInteger)
    parts: int = Field(sa_type=sa.SmallInteger)
    gateway: str = Field(max_length=64)
    receipt_group: str = Field(max_length=64)
    gateway_message_id: str | None = Field(default=None, max_length=200)
    destination: int | None = Field(default=None, sa_type=sa.BigInteger)  # digits of E.164: an id that was given twice belongs to the receipt's address
    outcome: str = Field(max_length=8)
    reason: str | None = Field(default=None, max_length=64)
    code: str | None = Field(default=None, max_length=32)
    detail: str | None = Field(default=None, max_length=500)
    claimed_at: datetime = moment()
    at: datetime = moment()


class JointReference(SQLModel, table=True):
    """The last number that tied the parts of a long message to this address: the next one never collides with it."""

    __tablename__ = "joint_reference"

    address: str = Field(primary_key=True, max_length=32)
    last: int
    at: datetime = moment()


class SimulatedReceipt(SQLModel, table=True):
    """What the simulated gateway has still to say about a message that it took."""

    __tablename__ = "simulated_receipt"

    message_id: UUID
    gateway_message_id: str = Field(primary_key=True, max_length=64)
    due_at: datetime = moment(index=True)
    says: str = Field(max_length=16)


class Usage(SQLModel, table=True):
    """What a budget has spent on one day: parts claimed and not given back, and what they cost."""

    __tablename__ = "usage"
    __table_args__ = (one_of("scope", "type", "gateway"),)

    day: date = Field(primary_key=True)
    scope: str = Field(primary_key=True, max_length=8)
    name: str = Field(primary_key=True, max_length=100)
    parts: int = Field(sa_type=sa.BigInteger)
    cost: Decimal = Field(sa_type=sa.Numeric(18, 4))
    alerted: bool = False
