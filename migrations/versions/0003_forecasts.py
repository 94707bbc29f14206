"""Forecasts: the charge calendar, scans with their slices, what they found, and how far each account has been told."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Every calendar rule, once: (from, to) -> the key of a charge and the days on which such charges fall. A month without the day has the charge on its
# last one. The keys: 0 daily, 10 + ISO weekday, 100 + day, 10000 + month * 100 + day, 1000000 + days since 2000 for those that come once.
# STRICT keeps it from being inlined: the planner would then expect a thousand times as many rows as there are, and sort everything.
CALENDAR = """
CREATE FUNCTION charge_calendar(first date, last date) RETURNS TABLE (key int, due_on date) LANGUAGE sql STABLE STRICT ROWS 50 AS $$
    WITH days AS (
        SELECT day, CAST(extract(isodow FROM day) AS int) AS weekday, CAST(extract(month FROM day) AS int) AS month, CAST(extract(day FROM day) AS int) AS nth,
               extract(month FROM day + 1) <> extract(month FROM day) AS is_last
        FROM (SELECT first + n AS day FROM generate_series(0, last - first) n) d
    )
    SELECT 0, day FROM days
    UNION ALL SELECT 10 + weekday, day FROM days
    UNION ALL SELECT 100 + n, day FROM days CROSS JOIN LATERAL generate_series(nth, CASE WHEN is_last THEN 31 ELSE nth END) n
    UNION ALL SELECT 10000 + month * 100 + n, day FROM days CROSS JOIN LATERAL generate_series(nth, CASE WHEN is_last THEN 31 ELSE nth END) n
    UNION ALL SELECT 1000000 + (day - DATE '2000-01-01'), day FROM days
$$
"""


def upgrade() -> None:
    op.execute(CALENDAR)
    op.add_column(
        "planned_charge",
        sa.Column(
            "calendar_key",
            sa.Integer(),
            sa.Computed(
                "CASE kind WHEN 'daily' THEN 0 WHEN 'weekly' THEN 10 + slot WHEN 'monthly' THEN 100 + slot WHEN 'yearly' THEN 10000 + slot "
                "ELSE 1000000 + (on_date - DATE '2000-01-01') END",
                persisted=True,
            ),
            nullable=True,
        ),
    )
    op.create_table(
        "balance_moved",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("highest", sa.Numeric(14, 2), nullable=False),
        sa.Column("highest_as_of", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_balance_moved")),
    )
    op.create_index("ix_account_timezone_id", "account", ["timezone", "id"])
    op.add_column("account", sa.Column("imported", sa.BigInteger(), nullable=True))
    op.add_column("account", sa.Column("imported_lists", sa.BigInteger(), nullable=True))
    # A new balance finds room in the same page, and then no index has to hear of it.
    op.execute("ALTER TABLE account SET (fillfactor = 85)")
    # A third of the server's time in an import. Accounts are never deleted, and whoever writes what belongs to one has it locked (app/accounts/models.py).
    op.drop_constraint("fk_contact_account_id", "contact", type_="foreignkey")
    op.drop_constraint("fk_planned_charge_account_id", "planned_charge", type_="foreignkey")
    op.create_table(
        "scan_run",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("origin", sa.String(length=8), nullable=False),
        sa.Column("zone", sa.String(length=64), nullable=True),
        sa.Column("as_of", sa.Date(), nullable=True),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("phase", sa.String(length=8), nullable=False),
        sa.Column("requested_by", sa.String(length=100), nullable=False),
        sa.Column("confirmed_by", sa.String(length=100), nullable=True),
        sa.Column("usual", sa.Integer(), nullable=True),
        sa.Column("found", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("sample", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("error", sa.String(length=500), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('exhaustion', 'threshold', 'upcoming')", name=op.f("ck_scan_run_kind")),
        sa.CheckConstraint("origin IN ('clock', 'hand')", name=op.f("ck_scan_run_origin")),
        sa.CheckConstraint("state IN ('queued', 'running', 'done', 'failed', 'needs_confirmation')", name=op.f("ck_scan_run_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scan_run")),
    )
    op.create_index("ix_scan_run_ledger", "scan_run", ["kind", "zone", "as_of"], unique=True, postgresql_where=sa.text("origin = 'clock'"))
    op.create_table(
        "scan_slice",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("phase", sa.String(length=8), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("zones", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("first", sa.Uuid(), nullable=False),
        sa.Column("last", sa.Uuid(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("found", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("candidates", postgresql.ARRAY(sa.Uuid()), nullable=True),
        sa.Column("error", sa.String(length=500), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('waiting', 'running', 'done', 'failed')", name=op.f("ck_scan_slice_state")),
        sa.ForeignKeyConstraint(["run_id"], ["scan_run.id"], name=op.f("fk_scan_slice_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "phase", "n", name=op.f("pk_scan_slice")),
    )
    op.create_index("ix_scan_slice_open", "scan_slice", ["run_id", "n"], postgresql_where=sa.text("state IN ('waiting', 'running')"))
    op.create_table(
        "forecast_episode",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("stage", sa.SmallInteger(), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('exhaustion', 'threshold')", name=op.f("ck_forecast_episode_kind")),
        sa.PrimaryKeyConstraint("account_id", "kind", name=op.f("pk_forecast_episode")),
    )
    op.create_table(
        "forecast_hit",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("episode", sa.Integer(), nullable=False),
        sa.Column("mark", sa.String(length=16), nullable=False),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("outcome", sa.String(length=8), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("event_id", sa.Uuid(), nullable=True),
        sa.Column("inputs", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('exhaustion', 'threshold', 'upcoming')", name=op.f("ck_forecast_hit_kind")),
        sa.CheckConstraint("outcome IN ('told', 'covered')", name=op.f("ck_forecast_hit_outcome")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_forecast_hit")),
        sa.UniqueConstraint("account_id", "kind", "episode", "mark", name=op.f("uq_forecast_hit_account_id_kind_episode_mark")),
    )
    op.create_index("ix_forecast_hit_at_once", "forecast_hit", ["at"], postgresql_where=sa.text("run_id IS NULL"))


def downgrade() -> None:
    for table in ("forecast_hit", "forecast_episode", "scan_slice", "scan_run", "balance_moved"):
        op.drop_table(table)
    op.drop_index("ix_account_timezone_id", table_name="account")
    op.create_foreign_key("fk_planned_charge_account_id", "planned_charge", "account", ["account_id"], ["id"], ondelete="CASCADE")
    op.create_foreign_key("fk_contact_account_id", "contact", "account", ["account_id"], ["id"], ondelete="CASCADE")
    op.execute("ALTER TABLE account RESET (fillfactor)")
    op.drop_column("account", "imported_lists")
    op.drop_column("account", "imported")
    op.drop_column("planned_charge", "calendar_key")
    op.execute("DROP FUNCTION charge_calendar(date, date)")
