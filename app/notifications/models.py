"""Who is told, how and when: the decision, the message, the outbox, and the moves worth remembering."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from app.core.clock import now
from app.core.db import json_field, long_text, moment, one_of
from app.core.ids import new_id
from app.notifications.states import IN_OUTBOX, State


class Notification(SQLModel, table=True):
    """What was decided about one event: who is told and through what, who is not and why."""

    __tablename__ = "notification"
    __table_args__ = ({"postgresql_partition_by": "RANGE (event_id)"},)

    event_id: UUID = Field(primary_key=True)
    account_id: UUID
    type: str = Field(max_length=100)
    decisions: list[dict[str, Any]] = json_field()
    at: datetime = moment()


class Message(SQLModel, table=True):
    """One message to one address. While it has a row in the outbox, the outbox knows its state; `state` here is what came after.

    No index names a column that changes, so that the two updates of its life stay in its page (HOT; the fillfactor of its partitions: app/tracking/partitions)."""

    __tablename__ = "message"
    __table_args__ = (
        sa.Index("ix_message_account_id_id", "account_id", "id"),
        sa.Index("ix_message_address", "address"),
        # Who waits for a receipt in vain: a summary by page, next to free.
        sa.Index("ix_message_expires_at", "expires_at", postgresql_using="brin", postgresql_with={"pages_per_range": "32", "autosummarize": "on"}),
        one_of("channel", "sms", "email"),
        one_of("state", *State),
        {"postgresql_partition_by": "RANGE (id)"},
    )

    id: UUID = Field(primary_key=True)
    event_id: UUID | None = None
    account_id: UUID
    type: str = Field(max_length=100)
    channel: str = Field(max_length=8)
    contact_id: UUID | None = None
    address: str = Field(max_length=320)
    locale: str = Field(max_length=16)
    template_id: UUID | None = None
    template_version: int | None = None
    gateway: str | None = Field(default=None, max_length=64)
    route: str | None = Field(default=None, max_length=64)
    sender: str | None = Field(default=None, max_length=20)
    price: Decimal | None = Field(default=None, sa_type=sa.Numeric(12, 4))  # of a part, when the gateway was chosen
    state: str = Field(max_length=16)
    reason: str | None = Field(default=None, max_length=64)
    urgent: bool = False
    not_before: datetime = moment()
    expires_at: datetime = moment()
    subject: str | None = long_text(default=None)
    text: str = long_text()
    html: str | None = long_text(default=None)
    encoding: str | None = Field(default=None, max_length=8)
    parts: int = Field(default=1, sa_type=sa.SmallInteger)
    resend_of: UUID | None = None
    leads: bool | None = None  # others may wait for what becomes of it; nothing: nobody does
    brand: str | None = Field(default=None, max_length=64)
    attachments: list[Any] | None = json_field(default=None)  # what is added to a letter when it is sent
    operator: str | None = Field(default=None, max_length=200)  # whose number it was when the message was made, where the ranges say
    test: bool = Field(default=False, sa_column_kwargs={"server_default": "false"})  # made by an operator for himself: in no report
    updated_at: datetime = moment()
    content_deleted_at: datetime | None = moment(default=None)  # subject, text, html and attachments are gone: retention, or the account's erasure


class Outbox(SQLModel, table=True):
    """Messages that are still ours to send: narrow, short-lived, claimed by gateway, priority and age."""

    __tablename__ = "outbox"
    __table_args__ = (
        sa.Index("ix_outbox_claim", "gateway", "priority", "not_before", "message_id", postgresql_where=sa.text("state = 'queued'")),
        sa.Index("ix_outbox_held", "priority", "not_before", postgresql_where=sa.text("state = 'held' AND stopped_at IS NULL")),
        sa.Index("ix_outbox_stopped", "stopped_at", postgresql_where=sa.text("stopped_at IS NOT NULL")),
        sa.Index("ix_outbox_coalesce_key", "coalesce_key", unique=True, postgresql_where=sa.text("coalesce_key IS NOT NULL AND state = 'held'")),
        sa.Index("ix_outbox_after_message", "after_message", postgresql_where=sa.text("after_message IS NOT NULL")),
        sa.Index("ix_outbox_lease", "lease_until", postgresql_where=sa.text("state = 'sending'")),
        one_of("state", *sorted(IN_OUTBOX)),
        {
            "postgresql_with": {
                "fillfactor": "70",
                "autovacuum_vacuum_scale_factor": "0.02",
                "autovacuum_vacuum_threshold": "2000",
                "autovacuum_vacuum_cost_delay": "0",
            }
        },
    )

    message_id: UUID = Field(primary_key=True)
    state: str = Field(max_length=8)
    reason: str | None = Field(default=None, max_length=64)
    channel: str = Field(max_length=8)
    gateway: str | None = Field(default=None, max_length=64)
    priority: int = Field(sa_type=sa.SmallInteger)
    parts: int = Field(sa_type=sa.SmallInteger)
    not_before: datetime = moment()
    send_until: datetime | None = moment(default=None)
    expires_at: datetime = moment()
    tries: int = Field(default=0, sa_type=sa.SmallInteger)
    attempts: int = Field(default=0, sa_type=sa.SmallInteger)
    claimed_by: UUID | None = None
    claimed_at: datetime | None = moment(default=None)
    lease_until: datetime | None = moment(default=None)
    resent: bool = Field(default=False, sa_column_kwargs={"server_default": sa.false()})  # its one second try after silence is spent
    stopped_at: datetime | None = moment(default=None)  # held by a stop since
    coalesce_key: str | None = Field(default=None, max_length=160)  # later events of the same join it while it is held
    after_message: UUID | None = None  # it waits for what becomes of that one


class NotificationEvent(SQLModel, table=True):
    """An event that is told by the message of an earlier one: five services connected together are one SMS. By message, for an event may join what waits
    for one contact and come too late for another's."""

    __tablename__ = "notification_event"

    event_id: UUID = Field(primary_key=True)
    message_id: UUID = Field(primary_key=True, index=True)


class FollowUp(SQLModel, table=True):
    """A message that others wait for has come to an end. A trigger writes it, whoever ended it."""

    __tablename__ = "follow_up"

    message_id: UUID = Field(primary_key=True)


class Cap(SQLModel, table=True):
    """How many notifications of a kind an account gets at most in a day, a week and a month; nothing: any number."""

    __tablename__ = "cap"

    kind: str = Field(primary_key=True, max_length=16)
    per_day: int | None = None
    per_week: int | None = None
    per_month: int | None = None
    updated_at: datetime = moment()
    updated_by: str = Field(max_length=100)


class ToldOnce(SQLModel, table=True):
    """A notification that counts towards the caps of its account: by the account's own day."""

    __tablename__ = "told"
    __table_args__ = (sa.Index("ix_told_account_id_day", "account_id", "day"),)

    event_id: UUID = Field(primary_key=True)
    account_id: UUID
    kind: str = Field(max_length=16)
    type: str = Field(max_length=100)
    day: date
    at: datetime = moment()


class MessageChange(SQLModel, table=True):
    """A rare move: held, released, put off, cancelled, expired. The ordinary road is told by submissions and receipts."""

    __tablename__ = "message_change"

    id: UUID = Field(primary_key=True)
    message_id: UUID = Field(index=True)
    at: datetime = moment()
    state: str = Field(max_length=16)
    reason: str | None = Field(default=None, max_length=64)
    detail: str | None = Field(default=None, max_length=500)


class MessageBulk(SQLModel, table=True):
    """One operator's cancelling, or sending again, of many messages. The sweep goes on from `position`, batch by batch, up to `end_id`."""

    __tablename__ = "message_bulk"
    __table_args__ = (
        sa.Index("ix_message_bulk_running", "worked_at", "id", postgresql_where=sa.text("state = 'running'")),
        one_of("action", "cancel", "resend"),
        one_of("state", "running", "done", "cancelled", "failed"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    action: str = Field(max_length=8)
    filter: dict[str, Any] = json_field()
    again: bool = False
    dry_run: bool = True
    note: str = Field(default="", max_length=300)
    most: int
    state: str = Field(default="running", max_length=10)
    error: str | None = Field(default=None, max_length=100)
    attempts: int = Field(default=0, sa_type=sa.SmallInteger)  # of the present batch, that failed
    position: UUID  # the messages up to this one are done
    end_id: UUID  # of the first that is not looked at: whatever is made later, copies of the job's own among it
    looked_at: int = Field(default=0, sa_type=sa.BigInteger)
    done: int = Field(default=0, sa_type=sa.BigInteger)
    outcomes: dict[str, int] = json_field(default_factory=dict)
    left_out: dict[str, int] = json_field(default_factory=dict)
    parts: int = Field(default=0, sa_type=sa.BigInteger)
    cost: Decimal = Field(default=Decimal(0), sa_type=sa.Numeric(18, 4))
    is_limited: bool = False
    requested_by: str = Field(max_length=100)
    created_at: datetime = moment(default_factory=now)
    worked_at: datetime = moment(default_factory=now)  # whoever has waited longest is next
    finished_at: datetime | None = moment(default=None)


class MessageBulkMark(SQLModel, table=True):
    """A job has sent this message again, or one that it is a copy of: never twice in one job. Of no use when the job has ended (`forget`)."""

    __tablename__ = "message_bulk_mark"

    bulk_id: UUID = Field(primary_key=True)
    root_id: UUID = Field(primary_key=True)  # the message that all the copies are copies of


class Stop(SQLModel, table=True):
    """The stop switch: while it stands, everything, one type, or one gateway is held. Nothing is dropped."""

    __tablename__ = "stop"
    __table_args__ = (sa.UniqueConstraint("scope", "name"), one_of("scope", "all", "type", "gateway"))

    id: UUID = Field(primary_key=True)
    scope: str = Field(max_length=8)
    name: str = Field(default="", max_length=100)
    reason: str = Field(default="", max_length=300)
    by: str = Field(max_length=100)
    at: datetime = moment()
