"""Whom we know: accounts, their contacts, their planned charges.

Contacts and charges have no foreign key to their account: it would cost an import a third of the server's time. It is not missed. An account's row is never
deleted; whoever writes a contact or a charge has made the account in the same transaction, or has locked it; and an erasure locks it FOR UPDATE.
"""

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from app.core.clock import now
from app.core.db import MONEY, json_field, moment, one_of
from app.core.ids import new_id

# The words of a name, as the search of accounts asks for them. Punctuation is taken out first: a server with the C locale counts every sign beyond
# ASCII as a letter (so that the first word of «Ромашка» begins with its quotation mark), and the parser reads the end of "Ромашка-2" as minus two.
PUNCTUATION = "!\"#$%&''()*+,-./:;<=>?@[\\]^_`{|}~«»„“”‘’‚‹›—–−…·•№§\u00a0\u2009\u202f"
NAME_WORDS = f"to_tsvector('simple', translate(name, '{PUNCTUATION}', '{' ' * (len(PUNCTUATION) - 1)}'))"  # '' is one quote


CALENDAR_KEY = """CASE kind WHEN 'daily' THEN 0 WHEN 'weekly' THEN 10 + slot WHEN 'monthly' THEN 100 + slot WHEN 'yearly' THEN 10000 + slot
    ELSE 1000000 + (on_date - DATE '2000-01-01') END"""


class Account(SQLModel, table=True):
    """A subscriber's account as the billing told it. An erased one keeps its id alone: its number is freed and its contents are gone."""

    __tablename__ = "account"
    __table_args__ = (
        one_of("status", "active", "suspended", "closed", "erased"),
        sa.Index("ix_account_timezone_id", "timezone", "id"),
        sa.Index("ix_account_number_prefix", "number", postgresql_ops={"number": "text_pattern_ops"}),
        sa.Index("ix_account_name_words", sa.text(NAME_WORDS), postgresql_using="gin"),
        # Few choose days of their own: a scan that finds nobody here goes on as if there were no such thing.
        sa.Index("ix_account_own_days", "id", postgresql_where=sa.text("warning_days IS NOT NULL OR upcoming_days IS NOT NULL")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    number: str = Field(max_length=64, unique=True)
    name: str = Field(default="", max_length=300)
    status: str = Field(default="active", max_length=16)
    balance: Decimal = Field(default=Decimal("0.00"), sa_type=MONEY)
    balance_as_of: datetime | None = moment(default=None)
    credit_limit: Decimal = Field(default=Decimal("0.00"), sa_type=MONEY)
    currency: str = Field(max_length=3)
    locale: str = Field(max_length=16)
    timezone: str = Field(max_length=64)
    tariff: str = Field(default="", max_length=300)
    # What the billing says; what the subscriber chose, if he did; and at which of the two he is warned.
    threshold: Decimal | None = Field(default=None, sa_type=MONEY)
    own_threshold: Decimal | None = Field(default=None, sa_type=MONEY)
    warned_at: Decimal | None = Field(default=None, sa_column=sa.Column(MONEY, sa.Computed("coalesce(own_threshold, threshold)", persisted=True)))
    # The subscriber's own days of warning; none: the operator's.
    warning_days: list[int] | None = Field(default=None, sa_type=ARRAY(sa.SmallInteger()))
    upcoming_days: int | None = Field(default=None, sa_type=sa.SmallInteger)
    attributes: dict[str, Any] = json_field(default_factory=dict)
    created_at: datetime = moment(default_factory=now)
    updated_at: datetime = moment(default_factory=now)
    # The digest of the import line that would change nothing if it came again; none when there is no such line.
    imported: int | None = Field(default=None, sa_type=sa.BigInteger)
    # The digest of what an import line said of contacts and charges, which would change nothing of them if it came again.
    imported_lists: int | None = Field(default=None, sa_type=sa.BigInteger)


class Contact(SQLModel, table=True):
    """Where an account is reached: a phone in E.164 with +, or an e-mail address."""

    __tablename__ = "contact"
    __table_args__ = (
        sa.UniqueConstraint("account_id", "channel", "address"),
        sa.Index("ix_contact_address", "address", postgresql_ops={"address": "text_pattern_ops"}),
        one_of("channel", "sms", "email"),
        one_of("origin", "billing", "subscriber"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    account_id: UUID
    channel: str = Field(max_length=16)
    address: str = Field(max_length=320)
    label: str = Field(default="", max_length=100)
    origin: str = Field(default="billing", max_length=16)
    verified_at: datetime | None = moment(default=None)
    created_at: datetime = moment(default_factory=now)


class PlannedCharge(SQLModel, table=True):
    """What the account will be charged. `slot`: 0 daily and once, ISO weekday, day of month, month*100 + day."""

    __tablename__ = "planned_charge"
    __table_args__ = (
        sa.UniqueConstraint("account_id", "external_id"),
        one_of("kind", "once", "daily", "weekly", "monthly", "yearly"),
        sa.CheckConstraint("amount >= 0", name="amount"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    account_id: UUID
    external_id: str = Field(max_length=100)
    title: str = Field(max_length=300)
    amount: Decimal = Field(sa_type=MONEY)
    kind: str = Field(max_length=8)
    slot: int = Field(default=0, sa_type=sa.SmallInteger)
    # One number for kind and slot (or day): what the calendar of forecasts is joined on.
    calendar_key: int | None = Field(default=None, sa_column=sa.Column(sa.Integer, sa.Computed(CALENDAR_KEY, persisted=True)))
    on_date: date | None = None
    start_on: date | None = None
    end_on: date | None = None
    posted_through: date | None = None
    announce: bool = True


class BalanceMoved(SQLModel, table=True):
    """Accounts whose money has changed otherwise than by an event: what they were told of it is looked at again."""

    __tablename__ = "balance_moved"

    account_id: UUID = Field(primary_key=True)
    highest: Decimal = Field(sa_type=MONEY)  # since somebody looked
    highest_as_of: datetime | None = moment(default=None)


class Preference(SQLModel, table=True):
    """What the subscriber of an account has chosen, as one document (see `preferences`)."""

    __tablename__ = "account_preference"

    account_id: UUID = Field(primary_key=True)
    revision: int = 1
    document: dict[str, Any] = json_field()
    updated_at: datetime = moment(default_factory=now)
    updated_by: str = Field(max_length=100)
    # The digest of what an import said last: saying it again does not undo what was chosen since.
    imported: int | None = Field(default=None, sa_type=sa.BigInteger)


class ReplanWaiting(SQLModel, table=True):
    """An account of which something has changed that decides about what waits for it: preferences in bulk, quiet hours of its zone. The sweep decides again."""

    __tablename__ = "replan_waiting"

    account_id: UUID = Field(primary_key=True)


class PreferenceBulk(SQLModel, table=True):
    """One operator's change of many accounts' preferences. The sweep goes on from `position`, batch by batch."""

    __tablename__ = "preference_bulk"
    __table_args__ = (one_of("state", "running", "done"),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    filter: dict[str, Any] = json_field()
    change: dict[str, Any] = json_field()
    keep_chosen: bool = False
    dry_run: bool = False
    state: str = Field(default="running", max_length=8)
    position: UUID = Field(default=UUID(int=0))  # the accounts up to this one are done
    looked_at: int = 0
    changed: int = 0
    changes: dict[str, Any] = json_field(default_factory=dict)
    requested_by: str = Field(max_length=100)
    created_at: datetime = moment(default_factory=now)
    finished_at: datetime | None = moment(default=None)


class ContactCode(SQLModel, table=True):
    """The one-time code that proves a contact: its keyed digest, never itself."""

    __tablename__ = "contact_code"

    contact_id: UUID = Field(primary_key=True)
    digest: bytes
    expires_at: datetime = moment()
    attempts: int = Field(default=0, sa_type=sa.SmallInteger)


class CodeMessage(SQLModel, table=True):
    """A message that carries a code, for a day: so many may be sent, and its text is forgotten when it has gone.

    It outlives its contact: whoever removes one and adds it again has not got more of them. The address is a keyed digest."""

    __tablename__ = "code_message"

    message_id: UUID = Field(primary_key=True)
    account_id: UUID = Field(index=True)
    address: bytes = Field(index=True)
    at: datetime = moment()
    is_blank: bool = False  # the message's text names the code no more


class QuietHours(SQLModel, table=True):
    """The operator's quiet hours in one zone ("22:00-08:00"), on workdays and at weekends; the zone '' is every other one."""

    __tablename__ = "quiet_hours"

    zone: str = Field(primary_key=True, max_length=64)
    workdays: str = Field(max_length=11)
    weekends: str = Field(max_length=11)
    updated_at: datetime = moment(default_factory=now)
    updated_by: str = Field(max_length=100)


class Suppression(SQLModel, table=True):
    """An address that is not written to, whoever's contact it is: a STOP by SMS, a complaint, an operator's decision.

    Each reason stands by itself: when the operator takes his own back, the subscriber's STOP goes on.
    """

    __tablename__ = "suppression"
    __table_args__ = (sa.Index("ix_suppression_at", "at"), one_of("channel", "sms", "email"))

    address: str = Field(primary_key=True, max_length=320)
    channel: str = Field(primary_key=True, max_length=8)
    reason: str = Field(primary_key=True, max_length=64)
    detail: str = Field(default="", max_length=500)
    by: str = Field(max_length=100)
    at: datetime = moment(default_factory=now)
    until: datetime | None = moment(default=None)


class Consent(SQLModel, table=True):
    """An act by which somebody allowed or refused to be written to: who, when and how. Only ever added.

    A trigger refuses any change but the one of an erasure, that puts a keyed hash in the place of the address.
    """

    __tablename__ = "consent"
    __table_args__ = (sa.Index("ix_consent_address", "address"), one_of("channel", "sms", "email"))

    id: UUID = Field(default_factory=new_id, primary_key=True)
    account_id: UUID | None = Field(default=None, index=True)
    type: str | None = Field(default=None, max_length=100)  # none: all of them
    channel: str | None = Field(default=None, max_length=8)
    address: str | None = Field(default=None, max_length=320)
    act: str = Field(max_length=16)
    via: str = Field(max_length=32)
    by: str = Field(max_length=100)
    text_version: str | None = Field(default=None, max_length=64)
    detail: str = Field(default="", max_length=500)
    at: datetime = moment(default_factory=now)
