"""What became of it: receipts, matched, waiting for their submission, or unreadable."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from app.core.db import moment, one_of


class Receipt(SQLModel, table=True):
    """A delivery receipt as the SMSC gave it. The same (message, part, stat) is kept once, however often it comes."""

    __tablename__ = "receipt"
    __table_args__ = (
        sa.UniqueConstraint("message_id", "part", "stat"),
        sa.Index("ix_receipt_parked", "gateway_message_id", "receipt_group", "stat", unique=True, postgresql_where=sa.text("status = 'parked'")),
        one_of("status", "matched", "parked", "unmatched", "quarantined"),
    )

    id: UUID = Field(primary_key=True)
    at: datetime = moment()
    gateway: str = Field(max_length=64)
    receipt_group: str = Field(max_length=64)
    gateway_message_id: str | None = Field(default=None, max_length=200)
    message_id: UUID | None = None
    part: int | None = Field(default=None, sa_type=sa.SmallInteger)
    status: str = Field(max_length=12)
    stat: str = Field(max_length=32)
    state: str | None = Field(default=None, max_length=16)  # the message state that it stands for; none: on the way
    reason: str | None = Field(default=None, max_length=64)
    raw: bytes
