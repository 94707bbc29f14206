"""Migrations expand, and only much later contract: while a fleet is upgraded, the version before works on under the new schema, and nobody waits for long."""

import ast
import re
from pathlib import Path

import pytest

VERSIONS = Path(__file__).resolve().parents[2] / "migrations/versions"
SINCE = "0006"  # what came before was released with a stop of the service
# Tables that every message passes through, or that have a row for each account: an index is built beside the writers, and a check waits for nobody.
LARGE = frozenset({"account", "contact", "event", "event_key", "event_waiting", "message", "message_change", "notification", "outbox", "receipt", "submission"})

# What the rules find, and why it is right all the same.
ARGUED = {
    # The table becomes the first partition of one that has its name, in one short transaction: a name is never without its table.
    "0006": {"RENAME TABLE", "DROP TRIGGER", "VALIDATE IN PLACE", "ADD CONSTRAINT"},
}
SQL = {
    "DROP COLUMN": r"DROP COLUMN",
    "DROP TABLE": r"DROP TABLE",
    "RENAME TABLE": r"RENAME TO",
    "RENAME COLUMN": r"RENAME COLUMN",
    "CHANGE TYPE": r"ALTER COLUMN \S+ (?:SET DATA )?TYPE",
    "SET NOT NULL": r"SET NOT NULL",
    "ADD NOT NULL WITHOUT DEFAULT": r"ADD COLUMN (?!.*DEFAULT).*NOT NULL",
    "INDEX IN THE WAY": rf"CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY).*\bON (?:{'|'.join(sorted(LARGE))})\b",
    "REWRITE": r"\b(?:VACUUM FULL|CLUSTER)\b",
}


def upgrade_of(text: str) -> ast.Module:
    """The whole file less its way back: what is built at the top is executed by `upgrade`."""
    tree = ast.parse(text)
    tree.body = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name == "downgrade")]
    return tree


def calls_of(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    """`op.<name>(...)`."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return [(call.func.attr, call) for call in found if isinstance(call.func.value, ast.Name) and call.func.value.id == "op"]


def text_of(node: ast.AST | None) -> str:
    return ast.unparse(node) if node is not None else ""


def faults_of(text: str) -> set[str]:
    tree = upgrade_of(text)
    calls = calls_of(tree)
    own = {call.args[0].value for name, call in calls if name == "create_table" and isinstance(call.args[0], ast.Constant)}
    found = set()
    for name, call in calls:
        given = {word.arg: text_of(word.value) for word in call.keywords}
        place = [argument.value if isinstance(argument, ast.Constant) else text_of(argument) for argument in call.args]
        if name in ("drop_column", "drop_table", "rename_table"):
            found.add(name.replace("_", " ").upper())
        elif name == "alter_column" and "type_" in given:
            found.add("CHANGE TYPE")
        elif name == "alter_column" and given.get("nullable") == "False":
            found.add("SET NOT NULL")
        elif name == "alter_column" and "new_column_name" in given:
            found.add("RENAME COLUMN")
        elif name == "add_column" and "nullable=False" in text_of(call) and "server_default" not in text_of(call) and place[0] not in own:
            found.add("ADD NOT NULL WITHOUT DEFAULT")
        elif name == "create_index" and place[1] in LARGE - own and given.get("postgresql_concurrently") != "True":
            found.add("INDEX IN THE WAY")
        elif name in ("create_foreign_key", "create_check_constraint", "create_unique_constraint") and place[1] in LARGE - own:
            found.add("ADD CONSTRAINT")
    written = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return found | {rule for rule, pattern in SQL.items() for sql in written if re.search(pattern, sql, re.IGNORECASE)}


FILES = sorted(path for path in VERSIONS.glob("*.py") if path.name[:4] >= SINCE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_version_before_goes_on_under_the_new_schema(path):
    assert faults_of(path.read_text("utf-8")) - ARGUED.get(path.name[:4], set()) == set()


def test_migrations_stand_in_one_row():
    texts = {path.name[:4]: path.read_text("utf-8") for path in VERSIONS.glob("*.py")}
    before = {name: re.search(r'down_revision(?:: [^=]+)? = (?:"(\d+)"|None)', text)[1] for name, text in texts.items()}

    assert sorted(texts) == [f"{number:04d}" for number in range(1, len(texts) + 1)]
    assert before == {name: None if name == "0001" else f"{int(name) - 1:04d}" for name in texts}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('op.drop_column("message", "text")', "DROP COLUMN"),
        ('op.execute("ALTER TABLE account DROP COLUMN name")', "DROP COLUMN"),
        ('op.add_column("message", sa.Column("x", sa.Integer(), nullable=False))', "ADD NOT NULL WITHOUT DEFAULT"),
        ('op.execute("ALTER TABLE message ADD COLUMN x int NOT NULL")', "ADD NOT NULL WITHOUT DEFAULT"),
        ('op.alter_column("message", "parts", type_=sa.Integer())', "CHANGE TYPE"),
        ('op.execute("ALTER TABLE message ALTER COLUMN parts TYPE int")', "CHANGE TYPE"),
        ('op.alter_column("message", "gateway", nullable=False)', "SET NOT NULL"),
        ('op.create_index("ix", "message", ["type"])', "INDEX IN THE WAY"),
        ('op.execute("CREATE INDEX ix ON message (type)")', "INDEX IN THE WAY"),
        ('op.rename_table("message", "letter")', "RENAME TABLE"),
        ('op.create_foreign_key("fk", "message", "account", ["account_id"], ["id"])', "ADD CONSTRAINT"),
    ],
)
def test_rule_finds_what_it_is_for(line, fault):
    assert faults_of(f"def upgrade():\n    {line}\n") == {fault}


@pytest.mark.parametrize(
    "line",
    [
        'op.add_column("message", sa.Column("x", sa.Integer(), nullable=True))',
        'op.add_column("message", sa.Column("x", sa.Integer(), nullable=False, server_default="0"))',
        'op.execute("ALTER TABLE message ADD COLUMN x int NOT NULL DEFAULT 0")',
        'op.create_index("ix", "message", ["type"], postgresql_concurrently=True)',
        'op.execute("CREATE INDEX CONCURRENTLY ix ON message (type)")',
        'op.create_index("ix", "brand", ["name"])',
    ],
)
def test_rule_lets_by_what_is_in_nobodys_way(line):
    assert faults_of(f"def upgrade():\n    {line}\n\n\ndef downgrade():\n    op.drop_column('message', 'x')\n") == set()
