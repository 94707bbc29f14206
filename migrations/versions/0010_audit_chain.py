"""The audit as a chain.

Everything is added: the version before goes on beside it. The records are gone through and indexed while the audit takes none, about half a minute for each
million: changes by people wait for that long, and nothing else does. What serves and what sends neither reads nor writes it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

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


def upgrade() -> None:
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


def downgrade() -> None:
    op.drop_table("audit_seal")
    op.execute("DROP TRIGGER audit_record_sealed_later ON audit_record")
    op.execute("DROP FUNCTION audit_is_to_be_sealed()")
    op.drop_table("audit_unsealed")
    op.drop_index("ix_audit_record_account_id_at_id", table_name="audit_record")
    for columns in INDEXES.values():
        op.drop_index(f"ix_audit_record_{'_'.join(columns)}", table_name="audit_record")
    op.drop_column("audit_record", "account_id")
    op.drop_table("audit_pepper")
