"""Webhooks: endpoints, what they are told, and what came of it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# What happened is queued in the transaction in which it happened, whoever wrote it. By statement: a settled batch is one call. EXCEPT and not a join: the
# plan of a function is kept, and one that was made for a single row would join five hundred by nested loops.
TELL_MESSAGES = """
CREATE FUNCTION tell_webhooks_of_messages() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM webhook WHERE enabled) THEN
        RETURN NULL;
    END IF;
    INSERT INTO webhook_delivery (endpoint_id, subject_id, type, reason, at, state, attempts, queued_at, due_at, history)
    SELECT w.id, told.id, 'message.' || told.state, told.reason, now(), 'waiting', 0, now(), now(), '[]'
    FROM (
        SELECT id, state, reason, test FROM fresh WHERE state IN ('delivered', 'undelivered', 'expired', 'failed', 'cancelled', 'unknown')
        EXCEPT SELECT id, state, reason, test FROM stale
    ) told JOIN webhook w ON w.enabled AND 'message.' || told.state = ANY(w.types) AND (w.with_tests OR NOT told.test)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$
"""
TELL_INBOUND = """
CREATE FUNCTION tell_webhooks_of_inbound() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM webhook WHERE enabled) THEN
        RETURN NULL;
    END IF;
    INSERT INTO webhook_delivery (endpoint_id, subject_id, type, reason, at, state, attempts, queued_at, due_at, history)
    SELECT w.id, fresh.id, 'inbound.received', fresh.action, fresh.at, 'waiting', 0, now(), now(), '[]'
    FROM fresh JOIN webhook w ON w.enabled AND 'inbound.received' = ANY(w.types)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$
"""
MESSAGE_TRIGGER = """
CREATE TRIGGER message_webhooks AFTER UPDATE ON message REFERENCING OLD TABLE AS stale NEW TABLE AS fresh
FOR EACH STATEMENT EXECUTE FUNCTION tell_webhooks_of_messages()
"""
INBOUND_TRIGGER = """
CREATE TRIGGER inbound_message_webhooks AFTER INSERT ON inbound_message REFERENCING NEW TABLE AS fresh
FOR EACH STATEMENT EXECUTE FUNCTION tell_webhooks_of_inbound()
"""


def upgrade() -> None:
    op.create_table(
        "webhook",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.String(length=2000), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("types", postgresql.ARRAY(sa.String(length=40)), nullable=False),
        sa.Column("with_text", sa.Boolean(), nullable=False),
        sa.Column("with_tests", sa.Boolean(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_because", sa.String(length=16), nullable=True),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("old_secret", sa.LargeBinary(), nullable=True),
        sa.Column("old_secret_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rests_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.String(length=200), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("disabled_because IN ('operator', 'gone', 'failing')", name=op.f("ck_webhook_disabled_because")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook")),
        sa.UniqueConstraint("url", name=op.f("uq_webhook_url")),
    )
    op.create_table(
        "webhook_delivery",
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.String(length=40), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_by", sa.Uuid(), nullable=True),
        sa.Column("replay_id", sa.Uuid(), nullable=True),
        sa.Column("history", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint("state IN ('waiting', 'sending', 'delivered', 'failed')", name=op.f("ck_webhook_delivery_state")),
        sa.PrimaryKeyConstraint("endpoint_id", "subject_id", "type", name=op.f("pk_webhook_delivery")),
        postgresql_with={"fillfactor": "80", "autovacuum_vacuum_scale_factor": "0.02", "autovacuum_vacuum_threshold": "2000"},
    )
    op.create_index(op.f("ix_webhook_delivery_endpoint_id_state_due_at"), "webhook_delivery", ["endpoint_id", "state", "due_at"])
    op.create_table(
        "webhook_replay",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("from_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("to_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("types", postgresql.ARRAY(sa.String(length=40)), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("position", sa.Uuid(), nullable=False),
        sa.Column("looked_at", sa.Integer(), nullable=False),
        sa.Column("queued", sa.Integer(), nullable=False),
        sa.Column("requested_by", sa.String(length=100), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('running', 'done')", name=op.f("ck_webhook_replay_state")),
        sa.CheckConstraint("source IN ('message', 'inbound_message')", name=op.f("ck_webhook_replay_source")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_replay")),
    )
    op.create_index(op.f("ix_webhook_replay_endpoint_id"), "webhook_replay", ["endpoint_id"])
    op.execute(TELL_MESSAGES)
    op.execute(TELL_INBOUND)
    op.execute(MESSAGE_TRIGGER)
    op.execute(INBOUND_TRIGGER)


def downgrade() -> None:
    op.execute("DROP TRIGGER inbound_message_webhooks ON inbound_message")
    op.execute("DROP TRIGGER message_webhooks ON message")
    op.execute("DROP FUNCTION tell_webhooks_of_inbound()")
    op.execute("DROP FUNCTION tell_webhooks_of_messages()")
    op.drop_table("webhook_replay")
    op.drop_table("webhook_delivery")
    op.drop_table("webhook")
