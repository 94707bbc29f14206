"""The subscriber decides: preferences, hours, contacts proved by a code, caps, coalescing and chains of channels."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# A message that others wait for says so when it comes to an end, whoever ends it. DO UPDATE locks the row that is there already: nobody takes it for done
# before this news is to be seen.
FOLLOW_UP = """
CREATE FUNCTION follow_up_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO follow_up (message_id) VALUES (NEW.id) ON CONFLICT (message_id) DO UPDATE SET message_id = excluded.message_id;
    RETURN NULL;
END $$
"""
TRIGGER = """
CREATE TRIGGER message_leads AFTER UPDATE OF state ON message FOR EACH ROW
WHEN (NEW.leads AND NEW.state IN ('delivered', 'undelivered', 'expired', 'failed', 'cancelled', 'unknown')) EXECUTE FUNCTION follow_up_message()
"""


def upgrade() -> None:
    op.create_table(
        "account_preference",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("document", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(length=100), nullable=False),
        sa.Column("imported", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_account_preference")),
    )
    op.create_table("replan_waiting", sa.Column("account_id", sa.Uuid(), nullable=False), sa.PrimaryKeyConstraint("account_id", name=op.f("pk_replan_waiting")))
    op.create_table(
        "preference_bulk",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("filter", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("change", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("keep_chosen", sa.Boolean(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("position", sa.Uuid(), nullable=False),
        sa.Column("looked_at", sa.Integer(), nullable=False),
        sa.Column("changed", sa.Integer(), nullable=False),
        sa.Column("changes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("requested_by", sa.String(length=100), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('running', 'done')", name=op.f("ck_preference_bulk_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_preference_bulk")),
    )
    # Scans ask for these of a million accounts: they are kept beside the balance. What counts is the subscriber's own threshold, else the billing's.
    op.add_column("account", sa.Column("own_threshold", sa.Numeric(14, 2), nullable=True))
    op.add_column("account", sa.Column("warned_at", sa.Numeric(14, 2), sa.Computed("coalesce(own_threshold, threshold)", persisted=True), nullable=True))
    op.add_column("account", sa.Column("warning_days", postgresql.ARRAY(sa.SmallInteger()), nullable=True))
    op.add_column("account", sa.Column("upcoming_days", sa.SmallInteger(), nullable=True))
    own_days = sa.text("warning_days IS NOT NULL OR upcoming_days IS NOT NULL")
    op.create_index("ix_account_own_days", "account", ["id"], postgresql_where=own_days)
    op.create_table(
        "contact_code",
        sa.Column("contact_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("contact_id", name=op.f("pk_contact_code")),
    )
    op.create_table(
        "code_message",
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("address", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_blank", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("message_id", name=op.f("pk_code_message")),
    )
    op.create_index(op.f("ix_code_message_account_id"), "code_message", ["account_id"])
    op.create_index(op.f("ix_code_message_address"), "code_message", ["address"])
    op.create_table(
        "quiet_hours",
        sa.Column("zone", sa.String(length=64), nullable=False),
        sa.Column("workdays", sa.String(length=11), nullable=False),
        sa.Column("weekends", sa.String(length=11), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(length=100), nullable=False),
        sa.PrimaryKeyConstraint("zone", name=op.f("pk_quiet_hours")),
    )
    op.create_table(
        "cap",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("per_day", sa.Integer(), nullable=True),
        sa.Column("per_week", sa.Integer(), nullable=True),
        sa.Column("per_month", sa.Integer(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(length=100), nullable=False),
        sa.PrimaryKeyConstraint("kind", name=op.f("pk_cap")),
    )
    op.execute("INSERT INTO cap (kind, per_day, per_week, per_month, updated_at, updated_by) VALUES ('reminder', 2, 4, 16, now(), 'default')")
    op.create_table(
        "told",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("type", sa.String(length=100), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_told")),
    )
    op.create_index("ix_told_account_id_day", "told", ["account_id", "day"])
    op.create_table(
        "notification_event",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", "message_id", name=op.f("pk_notification_event")),
    )
    op.create_index(op.f("ix_notification_event_message_id"), "notification_event", ["message_id"])
    op.add_column("outbox", sa.Column("coalesce_key", sa.String(length=160), nullable=True))
    op.create_index("ix_outbox_coalesce_key", "outbox", ["coalesce_key"], unique=True, postgresql_where=sa.text("coalesce_key IS NOT NULL AND state = 'held'"))
    op.add_column("outbox", sa.Column("after_message", sa.Uuid(), nullable=True))
    op.create_index("ix_outbox_after_message", "outbox", ["after_message"], postgresql_where=sa.text("after_message IS NOT NULL"))
    op.add_column("message", sa.Column("leads", sa.Boolean(), nullable=True))
    # What is due is released by priority, then age: each priority is a range of its own.
    op.drop_index("ix_outbox_held", table_name="outbox")
    op.create_index("ix_outbox_held", "outbox", ["priority", "not_before"], postgresql_where=sa.text("state = 'held' AND stopped_at IS NULL"))
    op.create_table("follow_up", sa.Column("message_id", sa.Uuid(), nullable=False), sa.PrimaryKeyConstraint("message_id", name=op.f("pk_follow_up")))
    op.execute(FOLLOW_UP)
    op.execute(TRIGGER)
    op.add_column("consent", sa.Column("type", sa.String(length=100), nullable=True))
    op.alter_column("consent", "channel", nullable=True)
    op.alter_column("consent", "address", nullable=True)


def downgrade() -> None:
    op.execute("ALTER TABLE consent DISABLE TRIGGER USER")
    op.execute("DELETE FROM consent WHERE channel IS NULL OR address IS NULL")
    op.execute("ALTER TABLE consent ENABLE TRIGGER USER")
    op.alter_column("consent", "address", nullable=False)
    op.alter_column("consent", "channel", nullable=False)
    op.drop_column("consent", "type")
    op.execute("DROP TRIGGER message_leads ON message")
    op.execute("DROP FUNCTION follow_up_message()")
    op.drop_table("follow_up")
    op.drop_column("message", "leads")
    op.drop_index("ix_outbox_held", table_name="outbox")
    op.create_index("ix_outbox_held", "outbox", ["not_before"], postgresql_where=sa.text("state = 'held' AND stopped_at IS NULL"))
    op.drop_index("ix_outbox_after_message", table_name="outbox")
    op.drop_column("outbox", "after_message")
    op.drop_index("ix_outbox_coalesce_key", table_name="outbox")
    op.drop_column("outbox", "coalesce_key")
    for table in ("notification_event", "told", "cap", "quiet_hours", "code_message", "contact_code"):
        op.drop_table(table)
    for table in ("preference_bulk", "replan_waiting"):
        op.drop_table(table)
    op.drop_index("ix_account_own_days", table_name="account")
    op.drop_column("account", "upcoming_days")
    op.drop_column("account", "warning_days")
    op.drop_column("account", "warned_at")
    op.drop_column("account", "own_threshold")
    op.drop_table("account_preference")
