"""In which words: templates and their immutable versions."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from app.core.clock import now
from app.core.db import long_text, moment, one_of
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
    revision: int = 1
    created_at: datetime = moment(default_factory=now)
    updated_at: datetime = moment(default_factory=now)


class TemplateVersion(SQLModel, table=True):
    """A version, never changed: what was sent with it can be read for ever."""

    __tablename__ = "template_version"

    template_id: UUID = Field(primary_key=True, foreign_key="template.id")
    version: int = Field(primary_key=True)
    subject: str | None = long_text(default=None)
    text: str = long_text()
    html: str | None = long_text(default=None)
    created_at: datetime = moment(default_factory=now)
    created_by: str = Field(max_length=120)
