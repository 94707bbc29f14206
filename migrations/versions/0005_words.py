"""Words: layouts and brands of letters, attachments, options of a version, bounces, and contacts of a key for test messages."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(astext_type=sa.Text())


def upgrade() -> None:
    op.create_table(
        "email_layout",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("mjml", sa.Text(), nullable=True),
        sa.Column("html", sa.Text(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(length=120), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_email_layout")),
    )
    op.create_table(
        "brand",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("settings", JSON, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(length=120), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_brand")),
    )
    op.create_table(
        "attachment",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("content_type", sa.String(length=100), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=120), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attachment")),
        sa.UniqueConstraint("sha256", name=op.f("uq_attachment_sha256")),
    )
    op.create_table(
        "attachment_part",
        sa.Column("attachment_id", sa.Uuid(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["attachment_id"], ["attachment.id"], name=op.f("fk_attachment_part_attachment_id_attachment"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("attachment_id", "n", name=op.f("pk_attachment_part")),
    )
    op.create_table(
        "bounce",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source", sa.String(length=4), nullable=False),
        sa.Column("kind", sa.String(length=9), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=True),
        sa.Column("recipient", sa.String(length=320), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=True),
        sa.Column("diagnostic", sa.String(length=500), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("source IN ('dsn', 'arf', 'none')", name=op.f("ck_bounce_source")),
        sa.CheckConstraint("kind IN ('hard', 'soft', 'complaint', 'delayed', 'delivered', 'unknown')", name=op.f("ck_bounce_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bounce")),
        sa.UniqueConstraint("digest", name=op.f("uq_bounce_digest")),
    )
    op.create_index("ix_bounce_message_id", "bounce", ["message_id"], postgresql_where=sa.text("message_id IS NOT NULL"))
    op.create_index("ix_bounce_recipient_id", "bounce", ["recipient", "id"], postgresql_where=sa.text("recipient IS NOT NULL"))
    op.add_column("template", sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("template", sa.Column("archived_version", sa.Integer(), nullable=True))
    op.add_column("template", sa.Column("used_at", sa.DateTime(timezone=True), nullable=True))
    # Until now nothing took a publication back: what was ever sent with is still published.
    op.execute("UPDATE template SET used_at = updated_at WHERE published_version IS NOT NULL")
    op.alter_column("template_version", "text", nullable=True)
    op.add_column("template_version", sa.Column("mjml", sa.Text(), nullable=True))
    op.add_column("template_version", sa.Column("layout", sa.String(length=64), nullable=True))
    op.add_column("template_version", sa.Column("options", JSON, server_default="{}", nullable=False))
    op.add_column("template_version", sa.Column("attachments", JSON, server_default="[]", nullable=False))
    op.add_column("message", sa.Column("brand", sa.String(length=64), nullable=True))
    op.add_column("message", sa.Column("attachments", JSON, nullable=True))
    op.add_column("message", sa.Column("test", sa.Boolean(), server_default="false", nullable=False))
    op.add_column("api_key", sa.Column("contacts", JSON, server_default="[]", nullable=False))


def downgrade() -> None:
    op.drop_column("api_key", "contacts")
    for column in ("test", "attachments", "brand"):
        op.drop_column("message", column)
    for column in ("attachments", "options", "layout", "mjml"):
        op.drop_column("template_version", column)
    op.execute("UPDATE template_version SET text = '' WHERE text IS NULL")
    op.alter_column("template_version", "text", nullable=False)
    for column in ("used_at", "archived_version", "archived_at"):
        op.drop_column("template", column)
    for table in ("bounce", "attachment_part", "attachment", "brand", "email_layout"):
        op.drop_table(table)
