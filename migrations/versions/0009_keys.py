"""Keys with networks, rates, quotas and a test mode. Everything is added, with defaults: the version before goes on beside it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(astext_type=sa.Text())
# What was made for the simulated gateway stays there, whatever a program, or somebody at the console, wants with it.
STAYS_SIMULATED = """
CREATE FUNCTION simulated_stays_simulated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what is simulated never changes its gateway' USING ERRCODE = 'check_violation';
END $$
"""
GUARD = """
CREATE TRIGGER {table}_stays_simulated BEFORE UPDATE OF gateway ON {table} FOR EACH ROW
WHEN (OLD.gateway IS DISTINCT FROM NEW.gateway AND (OLD.gateway = '@simulated' OR NEW.gateway = '@simulated'))
EXECUTE FUNCTION simulated_stays_simulated()
"""


def upgrade() -> None:
    op.add_column("api_key", sa.Column("allowed_networks", JSON, server_default="[]", nullable=False))
    op.add_column("api_key", sa.Column("rate_per_second", sa.Float(), nullable=True))
    op.add_column("api_key", sa.Column("burst", sa.Integer(), nullable=True))
    op.add_column("api_key", sa.Column("daily_quota", sa.BigInteger(), nullable=True))
    op.add_column("api_key", sa.Column("test", sa.Boolean(), server_default="false", nullable=False))
    op.add_column("api_key", sa.Column("rotated_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("api_key", sa.Column("old_digest", sa.LargeBinary(), nullable=True))
    op.add_column("api_key", sa.Column("old_until", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "key_usage",
        sa.Column("key_id", sa.String(length=8), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "day", name=op.f("pk_key_usage")),
    )
    op.add_column("event", sa.Column("test", sa.Boolean(), server_default="false", nullable=False))
    op.create_table(
        "simulated_receipt",
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("gateway_message_id", sa.String(length=64), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("says", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("gateway_message_id", name=op.f("pk_simulated_receipt")),
    )
    op.create_index("ix_simulated_receipt_due_at", "simulated_receipt", ["due_at"])
    op.execute(STAYS_SIMULATED)
    for table in ("message", "outbox"):
        op.execute(GUARD.format(table=table))


def downgrade() -> None:
    for table in ("outbox", "message"):
        op.execute(f"DROP TRIGGER {table}_stays_simulated ON {table}")
    op.execute("DROP FUNCTION simulated_stays_simulated()")
    op.drop_table("simulated_receipt")
    op.drop_column("event", "test")
    op.drop_table("key_usage")
    for column in ("old_until", "old_digest", "rotated_at", "test", "daily_quota", "burst", "rate_per_second", "allowed_networks"):
        op.drop_column("api_key", column)
