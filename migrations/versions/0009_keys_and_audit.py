"""Keys with networks, rates, quotas and a test mode; the audit as a chain.

Everything is added, with defaults: the version before goes on beside it. The indexes of the audit are built while it takes no records, a second for each
million: changes by people wait for that long, the pipeline writes none.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(astext_type=sa.Text())
INDEXES = {"at": ("at", "id"), "actor": ("actor", "at", "id"), "action": ("action", "at", "id"), "object": ("object", "at", "id")}

# What there was before the chain began says whose account it was about, where that can be seen. The trigger stands aside within this transaction alone.
ACCOUNTS = """
UPDATE audit_record SET account_id = CAST(coalesce(substring(object FROM '^account:([0-9a-f-]{36})$'), changes ->> 'account') AS uuid)
WHERE object ~ '^account:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
   OR changes ->> 'account' ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
"""
# Whoever adds a record puts it into the queue of the seal, in the same transaction: none is passed over, however late its commit comes.
TO_BE_SEALED = """
CREATE FUNCTION audit_is_to_be_sealed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_unsealed (record_id) VALUES (NEW.id);
    RETURN NULL;
END $$
"""
SEALED_LATER = "CREATE TRIGGER audit_record_sealed_later AFTER INSERT ON audit_record FOR EACH ROW EXECUTE FUNCTION audit_is_to_be_sealed()"
SEAL_ONLY_ADDED = """
CREATE TRIGGER audit_seal_only_added BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_seal
FOR EACH STATEMENT EXECUTE FUNCTION audit_refuses_changes()
"""
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
    op.create_table(
        "audit_pepper",
        sa.Column("id", sa.String(length=8), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_pepper")),
    )
    op.add_column("audit_record", sa.Column("account_id", sa.Uuid(), nullable=True))
    op.execute("ALTER TABLE audit_record DISABLE TRIGGER audit_record_only_added")
    op.execute(ACCOUNTS)
    op.execute("ALTER TABLE audit_record ENABLE TRIGGER audit_record_only_added")
    for name, columns in INDEXES.items():
        assert columns[0] == name
        op.create_index(f"ix_audit_record_{'_'.join(columns)}", "audit_record", list(columns))
    op.create_index("ix_audit_record_account_id_at_id", "audit_record", ["account_id", "at", "id"], postgresql_where=sa.text("account_id IS NOT NULL"))
    op.create_table("audit_unsealed", sa.Column("record_id", sa.Uuid(), nullable=False), sa.PrimaryKeyConstraint("record_id", name=op.f("pk_audit_unsealed")))
    op.create_table(
        "audit_seal",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("record_id", sa.Uuid(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_seal")),
        sa.UniqueConstraint("record_id", name=op.f("uq_audit_seal_record_id")),
    )
    op.execute(TO_BE_SEALED)
    op.execute(SEALED_LATER)
    op.execute(SEAL_ONLY_ADDED)
    op.execute("INSERT INTO audit_unsealed (record_id) SELECT id FROM audit_record")
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
    op.drop_table("audit_seal")
    op.execute("DROP TRIGGER audit_record_sealed_later ON audit_record")
    op.execute("DROP FUNCTION audit_is_to_be_sealed()")
    op.drop_table("audit_unsealed")
    op.drop_index("ix_audit_record_account_id_at_id", table_name="audit_record")
    for columns in INDEXES.values():
        op.drop_index(f"ix_audit_record_{'_'.join(columns)}", table_name="audit_record")
    op.drop_column("audit_record", "account_id")
    op.drop_table("audit_pepper")
    op.drop_table("key_usage")
    for column in ("old_until", "old_digest", "rotated_at", "test", "daily_quota", "burst", "rate_per_second", "allowed_networks"):
        op.drop_column("api_key", column)
