"""Files that go with letters, kept once however often they are uploaded."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from app.core.clock import now
from app.core.db import moment
from app.core.ids import new_id


class Attachment(SQLModel, table=True):
    """An uploaded file. Its bytes stand in `attachment_part`, in pieces of one size."""

    __tablename__ = "attachment"
    __table_args__ = (sa.UniqueConstraint("sha256"),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    sha256: bytes
    name: str = Field(max_length=255)
    content_type: str = Field(max_length=100)  # by its content, not by what the uploader said
    size: int = Field(sa_type=sa.BigInteger)  # bytes
    created_at: datetime = moment(default_factory=now)
    created_by: str = Field(max_length=120)


class AttachmentPart(SQLModel, table=True):
    __tablename__ = "attachment_part"

    attachment_id: UUID = Field(primary_key=True, foreign_key="attachment.id", ondelete="CASCADE")
    n: int = Field(primary_key=True)
    data: bytes
