"""Gateways whole: routes, number ranges, stops, budgets, inbound messages, suppressions, traces."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# An erasure replaces the address by its keyed hash and empties the detail; nothing else of a consent may ever change.
ONLY_HASH_CONSENTS = """
CREATE FUNCTION consent_refuses_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.address LIKE 'hmac:%' AND NEW.detail = '' AND to_jsonb(NEW) - 'address' - 'detail' = to_jsonb(OLD) - 'address' - 'detail' THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'consents are only ever added';
END $$
"""
CONSENT_ONLY_ADDED = """
CREATE TRIGGER consent_only_added BEFORE UPDATE OR DELETE ON consent FOR EACH ROW EXECUTE FUNCTION consent_refuses_changes()
"""
CONSENT_NOT_EMPTIED = """
CREATE TRIGGER consent_not_emptied BEFORE TRUNCATE ON consent FOR EACH STATEMENT EXECUTE FUNCTION consent_refuses_changes()
"""
MOVE_SUPPRESSED = """
INSERT INTO suppression (channel, address, reason, detail, by, at)
SELECT DISTINCT channel, address, 'operator', '', 'migration', now() FROM contact WHERE suppressed
"""
MOVE_SUPPRESSED_BACK = """
UPDATE contact c SET suppressed = true
WHERE EXISTS (SELECT FROM suppression s WHERE s.channel = c.channel AND s.address = c.address AND (s.until IS NULL OR s.until > now()))
"""
# Asked for a row of the outbox while stops stand. Functions, because what a claim does not need must not cost it planning time.
STOPPED_SINCE = """
CREATE FUNCTION stopped_since(of_message uuid, over_gateway text) RETURNS timestamptz LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN (
        SELECT min(s.at) FROM stop s WHERE s.scope = 'all' OR (s.scope = 'gateway' AND s.name = over_gateway)
        OR (s.scope = 'type' AND s.name = (SELECT m.type FROM message m WHERE m.id = of_message))
    );
END $$
"""
NEXT_JOINT_REFERENCE = """
CREATE FUNCTION next_joint_reference(to_address text, moment timestamptz) RETURNS int LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    number int;
BEGIN
    INSERT INTO joint_reference AS r (address, last, at) VALUES (left(to_address, 32), 1, moment)
    ON CONFLICT (address) DO UPDATE SET last = (r.last + 1) & 65535, at = excluded.at RETURNING last INTO number;
    RETURN number;
END $$
"""


def upgrade() -> None:
    op.create_table(
        "consent",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=True),
        sa.Column("channel", sa.String(length=8), nullable=False),
        sa.Column("address", sa.String(length=320), nullable=False),
        sa.Column("act", sa.String(length=16), nullable=False),
        sa.Column("via", sa.String(length=32), nullable=False),
        sa.Column("by", sa.String(length=100), nullable=False),
        sa.Column("text_version", sa.String(length=64), nullable=True),
        sa.Column("detail", sa.String(length=500), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("channel IN ('sms', 'email')", name=op.f("ck_consent_channel")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consent")),
    )
    op.create_index(op.f("ix_consent_account_id"), "consent", ["account_id"], unique=False)
    op.create_index("ix_consent_address", "consent", ["address"], unique=False)
    op.execute(ONLY_HASH_CONSENTS)
    op.execute(CONSENT_ONLY_ADDED)
    op.execute(CONSENT_NOT_EMPTIED)
    op.create_table(
        "gateway_trace",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("gateway", sa.String(length=64), nullable=False),
        sa.Column("slot", sa.SmallInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gateway_trace")),
    )
    op.create_index("ix_gateway_trace_gateway_id", "gateway_trace", ["gateway", "id"], unique=False)
    op.create_table(
        "inbound_message",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("gateway", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=32), nullable=False),
        sa.Column("destination", sa.String(length=32), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("encoding", sa.String(length=32), nullable=False),
        sa.Column("parts", sa.SmallInteger(), nullable=False),
        sa.Column("is_complete", sa.Boolean(), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=True),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbound_message")),
    )
    op.create_index("ix_inbound_message_source_at", "inbound_message", ["source", "at"], unique=False)
    op.create_table(
        "inbound_part",
        sa.Column("receipt_group", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=32), nullable=False),
        sa.Column("destination", sa.String(length=32), nullable=False),
        sa.Column("reference", sa.Integer(), nullable=False),
        sa.Column("total", sa.SmallInteger(), nullable=False),
        sa.Column("number", sa.SmallInteger(), nullable=False),
        sa.Column("gateway", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("encoding", sa.String(length=32), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("joined", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("receipt_group", "source", "destination", "reference", "total", "number", name=op.f("pk_inbound_part")),
    )
    op.create_index(op.f("ix_inbound_part_at"), "inbound_part", ["at"], unique=False)
    op.create_table(
        "joint_reference",
        sa.Column("address", sa.String(length=32), nullable=False),
        sa.Column("last", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("address", name=op.f("pk_joint_reference")),
    )
    op.create_table(
        "number_range",
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("operator", sa.String(length=200), nullable=False),
        sa.Column("region", sa.String(length=200), nullable=True),
        sa.CheckConstraint("kind IN ('range', 'ported')", name=op.f("ck_number_range_kind")),
        sa.CheckConstraint("first <= last", name=op.f("ck_number_range_first_last")),
        sa.PrimaryKeyConstraint("kind", "first", name=op.f("pk_number_range")),
    )
    op.create_table(
        "number_range_import",
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("operator", sa.String(length=200), nullable=False),
        sa.Column("region", sa.String(length=200), nullable=True),
        sa.PrimaryKeyConstraint("import_id", "line", name=op.f("pk_number_range_import")),
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "routing",
        sa.Column("id", sa.SmallInteger(), nullable=False),
        sa.Column("routes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_routing_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_routing")),
    )
    op.create_table(
        "stop",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.String(length=8), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("reason", sa.String(length=300), nullable=False),
        sa.Column("by", sa.String(length=100), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("scope IN ('all', 'type', 'gateway')", name=op.f("ck_stop_scope")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stop")),
        sa.UniqueConstraint("scope", "name", name=op.f("uq_stop_scope_name")),
    )
    op.create_table(
        "suppression",
        sa.Column("address", sa.String(length=320), nullable=False),
        sa.Column("channel", sa.String(length=8), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.String(length=500), nullable=False),
        sa.Column("by", sa.String(length=100), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("channel IN ('sms', 'email')", name=op.f("ck_suppression_channel")),
        sa.PrimaryKeyConstraint("address", "channel", "reason", name=op.f("pk_suppression")),
    )
    op.create_index("ix_suppression_at", "suppression", ["at"], unique=False)
    op.execute(MOVE_SUPPRESSED)
    op.drop_column("contact", "suppressed")
    op.create_table(
        "sweep_mark",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("upto", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_sweep_mark")),
    )
    op.create_table(
        "usage",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("scope", sa.String(length=8), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("parts", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.Numeric(precision=18, scale=4), nullable=False),
        sa.Column("alerted", sa.Boolean(), nullable=False),
        sa.CheckConstraint("scope IN ('type', 'gateway')", name=op.f("ck_usage_scope")),
        sa.PrimaryKeyConstraint("day", "scope", "name", name=op.f("pk_usage")),
    )
    op.add_column("gateway", sa.Column("trace_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("message", sa.Column("route", sa.String(length=64), nullable=True))
    op.add_column("message", sa.Column("sender", sa.String(length=20), nullable=True))
    op.add_column("message", sa.Column("price", sa.Numeric(precision=12, scale=4), nullable=True))
    op.create_index(
        "ix_message_expires_at",
        "message",
        ["expires_at"],
        unique=False,
        postgresql_using="brin",
        postgresql_with={"pages_per_range": "32", "autosummarize": "on"},
    )
    op.add_column("outbox", sa.Column("resent", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("outbox", sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_index("ix_outbox_held", table_name="outbox")
    op.create_index("ix_outbox_held", "outbox", ["not_before"], unique=False, postgresql_where=sa.text("state = 'held' AND stopped_at IS NULL"))
    op.create_index("ix_outbox_stopped", "outbox", ["stopped_at"], unique=False, postgresql_where=sa.text("stopped_at IS NOT NULL"))
    op.add_column("receipt", sa.Column("error", sa.String(length=32), nullable=True))
    op.add_column("receipt", sa.Column("destination", sa.BigInteger(), nullable=True))
    op.add_column("receipt", sa.Column("reference", sa.Integer(), nullable=True))
    op.create_index(
        "ix_receipt_set_aside", "receipt", ["status", "id"], unique=False, postgresql_where=sa.text("status IN ('parked', 'quarantined', 'unmatched')")
    )
    op.add_column("submission", sa.Column("destination", sa.BigInteger(), nullable=True))

    op.execute(STOPPED_SINCE)
    op.execute(NEXT_JOINT_REFERENCE)


def downgrade() -> None:
    op.execute("DROP FUNCTION next_joint_reference(text, timestamptz)")
    op.execute("DROP FUNCTION stopped_since(uuid, text)")
    op.drop_column("submission", "destination")
    op.drop_index("ix_receipt_set_aside", table_name="receipt", postgresql_where=sa.text("status IN ('parked', 'quarantined', 'unmatched')"))
    op.drop_column("receipt", "reference")
    op.drop_column("receipt", "destination")
    op.drop_column("receipt", "error")
    op.drop_index("ix_outbox_stopped", table_name="outbox", postgresql_where=sa.text("stopped_at IS NOT NULL"))
    op.drop_index("ix_outbox_held", table_name="outbox")
    op.create_index("ix_outbox_held", "outbox", ["not_before"], unique=False, postgresql_where=sa.text("state = 'held'"))
    op.drop_column("outbox", "stopped_at")
    op.drop_column("outbox", "resent")
    op.drop_index("ix_message_expires_at", table_name="message", postgresql_using="brin", postgresql_with={"pages_per_range": "32", "autosummarize": "on"})
    op.drop_column("message", "price")
    op.drop_column("message", "sender")
    op.drop_column("message", "route")
    op.drop_column("gateway", "trace_until")
    op.drop_table("usage")
    op.drop_table("sweep_mark")
    op.add_column("contact", sa.Column("suppressed", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.execute(MOVE_SUPPRESSED_BACK)
    op.alter_column("contact", "suppressed", server_default=None)
    op.drop_index("ix_suppression_at", table_name="suppression")
    op.drop_table("suppression")
    op.drop_table("stop")
    op.drop_table("routing")
    op.drop_table("number_range_import")
    op.drop_table("number_range")
    op.drop_table("joint_reference")
    op.drop_index(op.f("ix_inbound_part_at"), table_name="inbound_part")
    op.drop_table("inbound_part")
    op.drop_index("ix_inbound_message_source_at", table_name="inbound_message")
    op.drop_table("inbound_message")
    op.drop_index("ix_gateway_trace_gateway_id", table_name="gateway_trace")
    op.drop_table("gateway_trace")
    op.drop_index("ix_consent_address", table_name="consent")
    op.drop_index(op.f("ix_consent_account_id"), table_name="consent")
    op.drop_table("consent")
    op.execute("DROP FUNCTION consent_refuses_changes()")
