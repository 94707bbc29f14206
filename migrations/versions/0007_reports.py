"""Reports: triggers append what each statement changes in the counts; cells add it up; exports are files for a day."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# The quarter of an hour in which a UUIDv7 was made (RFC 9562, 5.7: 48 bits of milliseconds): every zone's hours begin with one.
SLOT = """
CREATE FUNCTION report_slot(id uuid) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT to_timestamp(CAST(CAST('x' || translate(left(CAST(id AS text), 13), '-', '') AS bit(48)) AS bigint) / 900000 * 900)
$$
"""
# Borders in seconds, each the square root of two times the one before (app/tracking/reports/times.py).
BORDERS = ", ".join(str(round(2 ** (step / 2), 3)) for step in range(41))
BUCKET = f"""
CREATE FUNCTION report_bucket(state text, due timestamptz, at timestamptz) RETURNS smallint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CAST(CASE WHEN state = 'delivered' THEN width_bucket(extract(epoch FROM at - due), CAST(ARRAY[{BORDERS}] AS numeric[])) ELSE -1 END AS smallint)
$$
"""
# What is still ours to send is `waiting`: the outbox knows more, and moves too often to be counted. Parts are those that went out to an SMSC, also in
# doubt: a message that was refused, cancelled or too late cost nothing.
SENT = "state IN ('accepted', 'delivered', 'undelivered', 'unknown') OR state = 'expired' AND reason IS DISTINCT FROM 'too_late'"
COLUMNS = "type, channel, gateway, route, sender, operator, template_id, template_version"
FACTS = f"""
SELECT {{sign}} AS n, report_slot(id) AS slot, {COLUMNS}, CASE WHEN state IN ('held', 'queued', 'sending') THEN 'waiting' ELSE state END AS state, reason,
       report_bucket(state, not_before, updated_at) AS bucket, CASE WHEN {SENT} THEN parts ELSE 0 END AS sent, channel = 'sms' AS is_sms, coalesce(price, 0) AS price
FROM {{rows}} WHERE NOT test
"""
SUMS = f"""
INSERT INTO report_delta (kind, slot, {COLUMNS}, state, reason, bucket, messages, parts, cost)
SELECT 'message', slot, {COLUMNS}, state, reason, bucket, sum(n), coalesce(sum(n * sent) FILTER (WHERE is_sms), 0), sum(n * sent * price)
FROM ({{facts}}) facts GROUP BY slot, {COLUMNS}, state, reason, bucket
"""
ADDED = f"""
CREATE FUNCTION report_added_messages() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {SUMS.format(facts=FACTS.format(sign=1, rows="added"))};
    RETURN NULL;
END $$
"""
# A statement that moves nothing that is counted leaves no delta.
CHANGED = f"""
CREATE FUNCTION report_changed_messages() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {SUMS.format(facts=FACTS.format(sign=-1, rows="before") + " UNION ALL " + FACTS.format(sign=1, rows="after"))}
    HAVING sum(n) <> 0 OR sum(n * sent) <> 0 OR sum(n * sent * price) <> 0;
    RETURN NULL;
END $$
"""
# What an SMSC has taken is on its invoice, by the hour of the submission: each try, and tests too, but not what was only simulated. What is accepted after all,
# by a late answer or a receipt, comes by an update. Each message by its key, whatever the statistics say.
PARTS = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO report_delta (kind, slot, channel, gateway, sender, operator, bucket, messages, parts, cost)
    SELECT 'part', date_bin('15 minutes', s.at, TIMESTAMPTZ '2000-01-01 00:00Z'), m.channel, s.gateway, m.sender, m.operator, -1,
           count(*) FILTER (WHERE s.part = 1), count(*), sum(coalesce(m.price, 0))
    FROM {accepted} LEFT JOIN LATERAL (SELECT channel, sender, operator, price FROM message WHERE id = s.message_id OFFSET 0) m ON true
    WHERE s.outcome = 'accepted' AND s.gateway <> '@simulated' GROUP BY 2, 3, 4, 5, 6;
    RETURN NULL;
END $$
"""
ADDED_PARTS = PARTS.format(name="report_added_parts", accepted="added s")
LEARNED_PARTS = PARTS.format(
    name="report_learned_parts", accepted="after s JOIN before b ON b.message_id = s.message_id AND b.n = s.n AND b.part = s.part AND b.outcome <> 'accepted'"
)
TRIGGERS = (
    "CREATE TRIGGER report_message_added AFTER INSERT ON message REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION report_added_messages()",
    """CREATE TRIGGER report_message_changed AFTER UPDATE ON message REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION report_changed_messages()""",
    "CREATE TRIGGER report_part_added AFTER INSERT ON submission REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION report_added_parts()",
    """CREATE TRIGGER report_part_learned AFTER UPDATE ON submission REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION report_learned_parts()""",
)
# What was there before the triggers is counted by the workers, week by week: no lock is held for it.
BACKFILL = """
INSERT INTO report_backfill (id, at, until)
SELECT 1, report_slot(first) - interval '1 day', now() + interval '1 day' FROM (SELECT id AS first FROM message ORDER BY id LIMIT 1) m
"""


def dimensions() -> list[sa.Column]:
    return [
        sa.Column("type", sa.String(length=100), nullable=True),
        sa.Column("channel", sa.String(length=8), nullable=True),
        sa.Column("gateway", sa.String(length=64), nullable=True),
        sa.Column("route", sa.String(length=64), nullable=True),
        sa.Column("sender", sa.String(length=20), nullable=True),
        sa.Column("operator", sa.String(length=200), nullable=True),
        sa.Column("template_id", sa.Uuid(), nullable=True),
        sa.Column("template_version", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.String(length=64), nullable=True),
    ]


def measures() -> list[sa.Column]:
    return [
        sa.Column("messages", sa.BigInteger(), nullable=False),
        sa.Column("parts", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.Numeric(18, 4), nullable=False),
    ]


def upgrade() -> None:
    op.add_column("message", sa.Column("operator", sa.String(length=200), nullable=True))
    op.create_table(
        "report_delta",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("slot", sa.DateTime(timezone=True), nullable=False),
        *dimensions(),
        sa.Column("bucket", sa.SmallInteger(), nullable=False),
        *measures(),
        sa.CheckConstraint("kind IN ('message', 'part')", name=op.f("ck_report_delta_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_report_delta")),
        postgresql_with={"autovacuum_vacuum_scale_factor": "0.02", "autovacuum_vacuum_threshold": "5000", "autovacuum_vacuum_cost_delay": "0"},
    )
    op.create_table(
        "report_key",
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        *dimensions(),
        sa.CheckConstraint("kind IN ('message', 'part')", name=op.f("ck_report_key_kind")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_report_key")),
    )
    op.create_table(
        "report_cell",
        sa.Column("slot", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("bucket", sa.SmallInteger(), nullable=False),
        *measures(),
        sa.PrimaryKeyConstraint("slot", "key", "bucket", name=op.f("pk_report_cell")),
        postgresql_with={"fillfactor": "90", "autovacuum_vacuum_scale_factor": "0.02"},
    )
    op.create_table(
        "report_day",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("bucket", sa.SmallInteger(), nullable=False),
        *measures(),
        sa.PrimaryKeyConstraint("day", "key", "bucket", name=op.f("pk_report_day")),
        postgresql_with={"fillfactor": "90", "autovacuum_vacuum_scale_factor": "0.02"},
    )
    op.create_table(
        "report_day_zone",
        sa.Column("id", sa.SmallInteger(), nullable=False),
        sa.Column("zone", sa.String(length=64), nullable=False),
        sa.Column("next_day", sa.Date(), nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_report_day_zone_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_report_day_zone")),
    )
    op.create_table(
        "report_backfill",
        sa.Column("id", sa.SmallInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_report_backfill_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_report_backfill")),
    )
    op.create_table(
        "report_export",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("format", sa.String(length=4), nullable=False),
        sa.Column("query", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("claimed_by", sa.Uuid(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.String(length=500), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=120), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('messages', 'undelivered', 'invoice')", name=op.f("ck_report_export_kind")),
        sa.CheckConstraint("format IN ('json', 'csv', 'xlsx')", name=op.f("ck_report_export_format")),
        sa.CheckConstraint("state IN ('queued', 'running', 'done', 'failed', 'cancelled', 'expired')", name=op.f("ck_report_export_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_report_export")),
    )
    op.create_index("ix_report_export_open", "report_export", ["id"], postgresql_where=sa.text("state IN ('queued', 'running')"))
    op.create_table(
        "report_export_part",
        sa.Column("export_id", sa.Uuid(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["export_id"], ["report_export.id"], name=op.f("fk_report_export_part_export_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("export_id", "n", name=op.f("pk_report_export_part")),
    )
    for statement in (SLOT, BUCKET, ADDED, CHANGED, ADDED_PARTS, LEARNED_PARTS, *TRIGGERS, BACKFILL):
        op.execute(statement)
    op.create_table(
        "message_bulk",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("action", sa.String(length=8), nullable=False),
        sa.Column("filter", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("again", sa.Boolean(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("note", sa.String(length=300), nullable=False),
        sa.Column("most", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("error", sa.String(length=100), nullable=True),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("position", sa.Uuid(), nullable=False),
        sa.Column("end_id", sa.Uuid(), nullable=False),
        sa.Column("looked_at", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("outcomes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("left_out", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("parts", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.Numeric(18, 4), nullable=False),
        sa.Column("is_limited", sa.Boolean(), nullable=False),
        sa.Column("requested_by", sa.String(length=100), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("worked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("action IN ('cancel', 'resend')", name=op.f("ck_message_bulk_action")),
        sa.CheckConstraint("state IN ('running', 'done', 'cancelled', 'failed')", name=op.f("ck_message_bulk_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_message_bulk")),
    )
    op.create_index("ix_message_bulk_running", "message_bulk", ["worked_at", "id"], postgresql_where=sa.text("state = 'running'"))
    op.create_table(
        "message_bulk_mark",
        sa.Column("bulk_id", sa.Uuid(), nullable=False),
        sa.Column("root_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("bulk_id", "root_id", name=op.f("pk_message_bulk_mark")),
    )


def downgrade() -> None:
    for table in ("message_bulk_mark", "message_bulk"):
        op.drop_table(table)
    for trigger, table in (
        ("report_part_learned", "submission"),
        ("report_part_added", "submission"),
        ("report_message_changed", "message"),
        ("report_message_added", "message"),
    ):
        op.execute(f"DROP TRIGGER {trigger} ON {table}")
    for function in (
        "report_learned_parts()",
        "report_added_parts()",
        "report_changed_messages()",
        "report_added_messages()",
        "report_bucket(text, timestamptz, timestamptz)",
        "report_slot(uuid)",
    ):
        op.execute(f"DROP FUNCTION {function}")
    for table in ("report_export_part", "report_export", "report_backfill", "report_day_zone", "report_day", "report_cell", "report_key", "report_delta"):
        op.drop_table(table)
    op.drop_column("message", "operator")
