"""In which words: templates and their immutable versions."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from app.core.clock import now
from app.core.db import json_field, long_text, moment, one_of
from app.core.ids import new_id


class Template(SQLModel, table=True):
    """The words for one type, channel and locale. `published_version` is the one that is sent; none: nothing is sent in this locale."""

    __tablename__ = "template"
    __table_args__ = (sa.UniqueConstraint("type", "channel", "locale"), one_of("channel", "sms", "email"))

    id: UUID = Field(default_factory=new_id, primary_key=True)
    name: str = Field(max_length=200)
    type: str = Field(max_length=100, foreign_key="notification_type.code")
    channel: str = Field(max_length=16)
    locale: str = Field(max_length=16)
    published_version: int | None = None
    archived_at: datetime | None = moment(default=None)
    archived_version: int | None = None  # what was published when it was put away
    used_at: datetime | None = moment(default=None)  # first published, or sent as a test: from then on it is kept for ever
    revision: int = 1
    created_at: datetime = moment(default_factory=now)
    updated_at: datetime = moment(default_factory=now)


class TemplateVersion(SQLModel, table=True):
    """A version, never changed: what was sent with it can be read for ever."""

    __tablename__ = "template_version"

    template_id: UUID = Field(primary_key=True, foreign_key="template.id")
    version: int = Field(primary_key=True)
    subject: str | None = long_text(default=None)
    text: str | None = long_text(default=None)  # of a letter: made from the HTML when left out
    html: str | None = long_text(default=None)
    mjml: str | None = long_text(default=None)
    layout: str | None = Field(default=None, max_length=64)
    options: dict[str, Any] = json_field(default_factory=dict, sa_column_kwargs={"server_default": "{}"})
    attachments: list[Any] = json_field(default_factory=list, sa_column_kwargs={"server_default": "[]"})
    created_at: datetime = moment(default_factory=now)
    created_by: str = Field(max_length=120)


class EmailLayout(SQLModel, table=True):
    """What stands around the words of letters: header, footer, colours. MJML, or HTML."""

    __tablename__ = "email_layout"

    name: str = Field(primary_key=True, max_length=64)
    mjml: str | None = long_text(default=None)
    html: str | None = long_text(default=None)
    revision: int = 1
    updated_at: datetime = moment(default_factory=now)
    updated_by: str = Field(max_length=120)


class Brand(SQLModel, table=True):
    """As whom an account is written to: sender, layout, colours, logo, links, payee. Chosen by an attribute of the account."""

    __tablename__ = "brand"

    name: str = Field(primary_key=True, max_length=64)
    settings: dict[str, Any] = json_field(default_factory=dict)
    revision: int = 1
    updated_at: datetime = moment(default_factory=now)
    updated_by: str = Field(max_length=120)
