"""The large tables by month: event, notification, message and submission are range-partitioned by their UUIDv7 ids.

Nothing is copied. The table that is there becomes the first partition, up to the end of a month; the old version goes on working while this runs and after it.
Each table is turned in a transaction of its own, which holds its lock for milliseconds; what it is checked by was validated before, without a lock that
anybody waits for. Interrupted anywhere, it goes on where it stopped."""

import contextlib
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

KEYS = {"event": "id", "notification": "event_id", "message": "id", "submission": "message_id"}
PRIMARY = {"event": "id", "notification": "event_id", "message": "id", "submission": "message_id, n, part"}
INDEXES = {
    "event": {"ix_event_account_id_id": "(account_id, id)"},
    "notification": {},
    "message": {
        "ix_message_account_id_id": "(account_id, id)",
        "ix_message_address": "(address)",
        "ix_message_expires_at": "USING brin (expires_at) WITH (pages_per_range = 32, autosummarize = on)",
    },
    "submission": {"ix_submission_gateway_message_id": "(gateway_message_id, receipt_group)"},
}
# A partitioned table has no storage settings: each of its partitions has them.
STORAGE = {"message": "fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05"}
TRIGGER = """
CREATE TRIGGER message_leads AFTER UPDATE OF state ON message FOR EACH ROW
WHEN (NEW.leads AND NEW.state IN ('delivered', 'undelivered', 'expired', 'failed', 'cancelled', 'unknown')) EXECUTE FUNCTION follow_up_message()
"""
AHEAD = 3  # months
# Nobody waits longer than this behind us; we try again instead.
WAIT = "500ms"
TRIES = 120
BUSY = ("55P03", "40P01")


def upgrade() -> None:
    op.create_table(
        "retention_mark",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("upto", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_retention_mark")),
        if_not_exists=True,
    )
    op.create_table(
        "content_left",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_content_left")),
        if_not_exists=True,
    )
    with each_by_itself():
        until = first_border()
        for table in KEYS:
            if not is_partitioned(table):
                turn(table, until)


def turn(table: str, until: datetime) -> None:
    """The table becomes the first partition of one of the same name."""
    key, bounds = KEYS[table], f"ck_{table}_first"
    alone(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {bounds}")
    alone(f"ALTER TABLE {table} ADD CONSTRAINT {bounds} CHECK ({key} IS NOT NULL AND {key} < '{first_id(until)}') NOT VALID")
    op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {bounds}")  # reads all of it, and is in nobody's way
    first, steps = f"{table}_first", []
    if table in ("event", "message"):
        steps += [f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS content_deleted_at timestamptz"]
    if table == "message":
        steps += ["DROP TRIGGER message_leads ON message", f"ALTER TABLE message SET ({STORAGE['message']})"]
    steps += [f"ALTER TABLE {table} RENAME TO {first}", f"ALTER TABLE {first} RENAME CONSTRAINT pk_{table} TO pk_{first}"]
    steps += [f"ALTER INDEX {name} RENAME TO {name.replace(table, first, 1)}" for name in INDEXES[table]]
    steps += [f"CREATE TABLE {table} (LIKE {first} INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE ({key})"]
    steps += [f"ALTER TABLE {table} DROP CONSTRAINT {bounds}", f"ALTER TABLE {table} ADD CONSTRAINT pk_{table} PRIMARY KEY ({PRIMARY[table]})"]
    steps += [f"CREATE INDEX {name} ON {table} {what}" for name, what in INDEXES[table].items()]
    steps += [
        f"ALTER TABLE {table} ATTACH PARTITION {first} FOR VALUES FROM (MINVALUE) TO ('{first_id(until)}')",
        f"ALTER TABLE {first} DROP CONSTRAINT {bounds}",
    ]
    begin = until
    for _ in range(AHEAD):
        end = next_month(begin)
        steps += partition(table, f"{table}_{begin:%Y_%m}", f"'{first_id(begin)}'", f"'{first_id(end)}'")
        begin = end
    # What is above all months has a place, too: no insert ever fails because nobody has made the next month.
    steps += partition(table, f"{table}_tail", f"'{first_id(begin)}'", "MAXVALUE")
    if table == "message":
        steps += [TRIGGER]
    alone(*steps)


def partition(table: str, name: str, begin: str, end: str) -> list[str]:
    storage = f" WITH ({STORAGE[table]})" if table in STORAGE else ""
    return [f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL){storage}", f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({begin}) TO ({end})"]


def downgrade() -> None:
    """Plain tables again. What is in later partitions is copied into the first one: minutes for millions of rows, and nobody can write meanwhile."""
    for table, key in KEYS.items():
        names = partitions(table)
        first, *others = names
        op.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        if table == "message":
            op.execute("DROP TRIGGER message_leads ON message")
        for name in names:
            op.execute(f"ALTER TABLE {table} DETACH PARTITION {name}")
        for name in others:
            op.execute(f"INSERT INTO {first} SELECT {columns(first)} FROM {name} ORDER BY {key}")
            op.execute(f"DROP TABLE {name}")
        constraint, indexes = found_names(first, table)
        op.execute(f"DROP TABLE {table}")
        op.execute(f"ALTER TABLE {first} RENAME TO {table}")
        op.execute(f"ALTER TABLE {table} RENAME CONSTRAINT {constraint} TO pk_{table}")
        for found, name in indexes:
            op.execute(f"ALTER INDEX {found} RENAME TO {name}")
        if table in ("event", "message"):
            op.drop_column(table, "content_deleted_at")
        if table == "message":
            op.execute("ALTER TABLE message RESET (autovacuum_vacuum_scale_factor)")
            op.execute("ALTER TABLE message SET (fillfactor = 70)")
            op.execute(TRIGGER)
    op.drop_table("content_left")
    op.drop_table("retention_mark")


# -- when -------------------------------------------------------------------------------------------------------------------------------------------------


def first_border() -> datetime:
    """The end of the month in which everything that is there, and everything that is written while this runs, was made.

    In the last two days of a month it is the end of the next one: the check of the border must not refuse what comes after midnight."""
    moment = datetime.now(UTC) + timedelta(days=2)
    for table, key in KEYS.items():
        newest = op.get_bind().execute(sa.text(f"SELECT {key} FROM {table} ORDER BY {key} DESC LIMIT 1")).scalar()
        if newest is None:
            continue
        if newest.int >> 80 > (moment + timedelta(days=3660)).timestamp() * 1000:
            raise RuntimeError(f"{table} has the id {newest}, which no clock has made: ids are UUIDv7 (RFC 9562, 5.7). Delete this row, then migrate again.")
        moment = max(moment, datetime.fromtimestamp((newest.int >> 80) / 1000, UTC))
    return next_month(moment)


def next_month(moment: datetime) -> datetime:
    return (moment.replace(day=1) + timedelta(days=32)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def first_id(moment: datetime) -> UUID:
    """The smallest UUIDv7 of this moment."""
    return UUID(int=(int(moment.timestamp() * 1000) & 0xFFFFFFFFFFFF) << 80 | 0x7 << 76 | 0x2 << 62)


# -- how ------------------------------------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def each_by_itself() -> Iterator[None]:
    """Each statement commits; inside of somebody else's transaction (a test that goes back and forth) it is part of that."""
    context = op.get_context()
    if context._in_external_transaction:  # noqa: SLF001 - alembic asks itself the same, and tells nobody
        yield
        return
    with context.autocommit_block():
        yield


def alone(*steps: str) -> None:
    """All of it or nothing, in one transaction, waiting for its lock a moment at a time: whoever stands behind us goes first and we come again."""
    body = "\n".join(f"EXECUTE $step${step}$step$;" for step in steps)
    statement = sa.text(f"DO $do$ BEGIN PERFORM set_config('lock_timeout', '{WAIT}', true); {body} END $do$".replace(":", r"\:"))
    for left in range(TRIES - 1, -1, -1):
        try:
            op.get_bind().execute(statement)
        except sa.exc.DBAPIError as error:
            if left == 0 or getattr(error.orig, "sqlstate", None) not in BUSY or op.get_context()._in_external_transaction:  # noqa: SLF001
                raise
            time.sleep(0.5)
        else:
            return


def is_partitioned(table: str) -> bool:
    return op.get_bind().execute(sa.text("SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(:name)"), {"name": table}).scalar_one()


def partitions(table: str) -> list[str]:
    """Those of a table, the first one ahead."""
    found = op.get_bind().execute(
        sa.text(
            "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass(:name)"
        ),
        {"name": table},
    )
    return [name for name, bound in sorted(found, key=lambda row: (re.findall(r"FROM \('?([^')]+)", row[1]) or [""])[0].replace("MINVALUE", ""))]


def columns(table: str) -> str:
    rows = op.get_bind().execute(
        sa.text("SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = to_regclass(:name) AND attnum > 0 AND NOT attisdropped ORDER BY attnum"),
        {"name": table},
    )
    return ", ".join(rows.scalars())


def found_names(first: str, table: str) -> tuple[str, list[tuple[str, str]]]:
    """The name of a partition's primary key, and of each of its indexes beside the name that it had on the plain table."""
    rows = (
        op.get_bind()
        .execute(
            sa.text("""
        SELECT i.indisprimary, c.relname, pg_get_indexdef(c.oid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = to_regclass(:name)
        """),
            {"name": first},
        )
        .all()
    )
    primary = next(name for is_primary, name, _ in rows if is_primary)
    wanted = {what.split("(")[1].split(")")[0]: name for name, what in INDEXES[table].items()}
    return primary, [(name, wanted[definition.split("(")[1].split(")")[0]]) for is_primary, name, definition in rows if not is_primary]
