"""What became of it: receipts, matched, waiting for their submission, or unreadable."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from app.core.db import long_text, moment, one_of


class Receipt(SQLModel, table=True):
    """A delivery receipt as the SMSC gave it. The same (message, part, stat) is kept once, however often it comes."""

    __tablename__ = "receipt"
    __table_args__ = (
        sa.UniqueConstraint("message_id", "part", "stat"),
        sa.Index("ix_receipt_parked", "gateway_message_id", "receipt_group", "stat", unique=True, postgresql_where=sa.text("status = 'parked'")),
        # What waits, and what somebody may want to look at: few rows, so that the usual receipt never touches it.
        sa.Index("ix_receipt_set_aside", "status", "id", postgresql_where=sa.text("status IN ('parked', 'quarantined', 'unmatched')")),
        one_of("status", "matched", "parked", "unmatched", "quarantined"),
    )

    id: UUID = Field(primary_key=True)
    at: datetime = moment()
    gateway: str = Field(max_length=64)
    receipt_group: str = Field(max_length=64)
    gateway_message_id: str | None = Field(default=None, max_length=200)
    destination: int | None = Field(default=None, sa_type=sa.BigInteger)  # digits of the subscriber's number, as on submission
    reference: int | None = None  # the user_message_reference that it echoes
    message_id: UUID | None = None
    part: int | None = Field(default=None, sa_type=sa.SmallInteger)
    status: str = Field(max_length=12)
    stat: str = Field(max_length=32)
    state: str | None = Field(default=None, max_length=16)  # the message state that it stands for; none: on the way
    reason: str | None = Field(default=None, max_length=64)
    error: str | None = Field(default=None, max_length=32)  # err or network_error_code as it came
    raw: bytes


class InboundMessage(SQLModel, table=True):
    """An SMS from a subscriber, joined from its parts. `action` says what it did: `stop`, `start`, or nothing.

    `raw` has the octets of its text as they came, without headers."""

    __tablename__ = "inbound_message"
    __table_args__ = (sa.Index("ix_inbound_message_source_at", "source", "at"),)

    id: UUID = Field(primary_key=True)
    at: datetime = moment()
    gateway: str = Field(max_length=64)
    source: str = Field(max_length=32)
    destination: str = Field(max_length=32)
    text: str = long_text()
    encoding: str = Field(max_length=32)
    parts: int = Field(sa_type=sa.SmallInteger)
    is_complete: bool = True
    action: str | None = Field(default=None, max_length=16)
    raw: bytes


class InboundPart(SQLModel, table=True):
    """A part of an SMS that waits for the others. A `joined` one is kept a while, so that it is known when it comes again."""

    __tablename__ = "inbound_part"

    receipt_group: str = Field(primary_key=True, max_length=64)
    source: str = Field(primary_key=True, max_length=32)
    destination: str = Field(primary_key=True, max_length=32)
    reference: int = Field(primary_key=True)
    total: int = Field(primary_key=True, sa_type=sa.SmallInteger)
    number: int = Field(primary_key=True, sa_type=sa.SmallInteger)
    gateway: str = Field(max_length=64)
    at: datetime = moment(index=True)
    encoding: str = Field(max_length=32)
    payload: bytes
    joined: bool = False


class SweepMark(SQLModel, table=True):
    """How far a sweep that goes through time has come."""

    __tablename__ = "sweep_mark"

    name: str = Field(primary_key=True, max_length=100)
    upto: datetime = moment()


class RetentionMark(SQLModel, table=True):
    """How far a part of retention has come: everything below this id is done."""

    __tablename__ = "retention_mark"

    name: str = Field(primary_key=True, max_length=100)
    upto: UUID
    at: datetime = moment()


class ContentLeft(SQLModel, table=True):
    """A message or an event whose content was due to be deleted while it was still needed, or locked: it is looked at again."""

    __tablename__ = "content_left"

    id: UUID = Field(primary_key=True)


class Bounce(SQLModel, table=True):
    """What came back for a letter: a delivery status notification (RFC 3464) or a complaint (RFC 5965). The same mail is kept once."""

    __tablename__ = "bounce"
    __table_args__ = (
        sa.Index("ix_bounce_message_id", "message_id", postgresql_where=sa.text("message_id IS NOT NULL")),
        sa.Index("ix_bounce_recipient_id", "recipient", "id", postgresql_where=sa.text("recipient IS NOT NULL")),
        one_of("source", "dsn", "arf", "none"),
        one_of("kind", "hard", "soft", "complaint", "delayed", "delivered", "unknown"),
    )

    id: UUID = Field(primary_key=True)
    at: datetime = moment()
    source: str = Field(max_length=4)
    kind: str = Field(max_length=9)
    message_id: UUID | None = None
    recipient: str | None = Field(default=None, max_length=320)
    status: str | None = Field(default=None, max_length=16)  # enhanced, as RFC 3463 has it
    diagnostic: str | None = Field(default=None, max_length=500)
    digest: bytes = Field(unique=True)  # SHA-256 of the mail
