"""The documentation says what the code does: tables against schemas, names against what there is, links against files."""

import json
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel, SecretStr

from app.catalogue.types import EVENT_TYPES
from app.cli import cli
from app.core.auth import SCOPES
from app.core.config import Settings
from app.gateways.profile import Profile
from app.gateways.smtp import SmtpProfile
from app.notifications.states import NEXT, State
from app.rendering.filters import FILTERS
from app.rendering.questions import TESTS
from app.sending.smpp import statuses

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
BOTH = ("", "ru/")


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def rows(text: str) -> list[list[str]]:
    """The cells of every row of every table."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def code_of(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("folder", BOTH)
def test_the_table_of_settings_has_every_variable_with_its_default(folder):
    described = {code_of(row[0])[0]: row[1] for row in rows(page(f"{folder}install.md")) if row[0].startswith("`VESTNIK_")}

    defaults = {f"VESTNIK_{name.upper()}": field.default for name, field in Settings.model_fields.items()}
    assert described.keys() == defaults.keys() | {"VESTNIK_SECRETS_DIR"}
    written = {name: f"`{value}`" if value != "" else "" for name, value in defaults.items() if not isinstance(value, SecretStr)}
    assert {name: described[name] for name in written} == written


def test_no_page_names_a_variable_that_is_not_there():
    there = {f"VESTNIK_{name.upper()}" for name in Settings.model_fields} | {"VESTNIK_SECRETS_DIR"}
    there |= set(re.findall(r"VESTNIK_[A-Z0-9_]+", (ROOT / "compose.yaml").read_text("utf-8")))

    strange = {f"{named(path)}: {name}" for path in PAGES for name in re.findall(r"VESTNIK_[A-Z0-9_]*[A-Z0-9]", path.read_text("utf-8")) if name not in there}

    assert strange == set()


@pytest.mark.parametrize("folder", BOTH)
@pytest.mark.parametrize("profile", [Profile, SmtpProfile])
def test_the_table_of_a_profile_has_every_key_with_its_default(folder, profile: type[BaseModel]):
    heading = {Profile: r"## (?:The profile|Профиль)", SmtpProfile: r"## .*SMTP"}[profile]
    section = re.split(heading, page(f"{folder}gateways.md"))[1]

    described = [(code_of(row[0])[0], row[1]) for row in rows(re.split(r"\n## ", section)[0]) if row[0].startswith("`")]

    expected = [(name, as_written(field.get_default(call_default_factory=True))) for name, field in profile.model_fields.items()]
    assert [pair for pair in expected if pair not in described] == []
    if profile is Profile:  # the table of an SMTP gateway's own settings stands in the same section
        assert described == expected


def as_written(default: object) -> str:
    value = default.model_dump() if isinstance(default, BaseModel) else default
    return "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


@pytest.mark.parametrize("folder", BOTH)
def test_the_table_of_answers_has_every_command_status_in_its_class(folder):
    described = {code_of(row[0])[0]: set(code_of(row[1])) for row in rows(page(f"{folder}gateways.md")) if len(row) == 4 and "`0x" in row[1]}

    judge, expected = statuses.judge(Profile()), defaultdict(set)
    for status in range(0x500):
        verdict = judge(status)
        if (verdict.action, verdict.attempts) != ("TEMP", statuses.SHY):
            expected[verdict.action].add(f"0x{status:02X}")
    assert described == expected


def test_the_page_of_states_has_every_state_and_every_move():
    table = rows(page("states.md"))

    described = {code_of(row[0])[0] for row in table if len(row) == 3 and row[0].startswith("`") and not row[1].startswith("`")}
    moves = [(code_of(row[0])[0], code_of(row[1])[0]) for row in table if row[0].startswith("`") and row[1].startswith("`")]

    assert described == {state.value for state in State}
    assert sorted(moves) == sorted((before.value, after.value) for before, targets in NEXT.items() for after in targets)


@pytest.mark.parametrize("folder", BOTH)
def test_the_table_of_roles_has_every_role_with_its_scopes(folder):
    described = {code_of(row[0])[0]: row[2] for row in rows(page(f"{folder}install.md")) if code_of(row[0])[:1] and code_of(row[0])[0] in SCOPES}

    assert described.keys() == SCOPES.keys()
    found: dict[str, set[str]] = {}
    for role in ("billing", "viewer", "operator", "admin"):
        names = set(code_of(described[role]))
        found[role] = {name for name in names if name not in SCOPES} | {scope for name in names & SCOPES.keys() - {"admin"} for scope in found[name]}
        found[role] |= names & {"admin"}
    assert found == {role: set(scopes) for role, scopes in SCOPES.items()}


@pytest.mark.parametrize("folder", BOTH)
def test_the_page_of_templates_has_every_type_with_its_data_and_every_filter_and_test(folder):
    text = page(f"{folder}templates.md")
    table = rows(text)

    types = {code_of(row[0])[0]: row[1] for row in table if row[0].startswith("`") and code_of(row[0])[0] in EVENT_TYPES}
    assert types.keys() == EVENT_TYPES.keys()
    for code, shape in EVENT_TYPES.items():
        keys = {(name, not field.is_required()) for name, field in shape.model_fields.items()}
        said = re.findall(r"`(\w+)`(?: \(.*?\))?(\??)", types[code])
        assert {(name, mark == "?") for name, mark in said} == keys, code

    filters = {name for row in table if set(code_of(row[0])) <= FILTERS.keys() for name in code_of(row[0])}
    assert filters == FILTERS.keys()
    line = next(line for line in text.splitlines() if line.startswith(("Tests: ", "Проверки: ")))
    assert set(code_of(line)) == TESTS.keys()


# A class of the house, called with its reason as a literal.
SAID = {"app/sending/smpp": r'Refused\(\s*"(\w+)"', "app/notifications": r'Skipped\([^()]*"(\w+)"\)'}


@pytest.mark.parametrize("folder", BOTH)
@pytest.mark.parametrize("package", SAID)
def test_the_runbook_explains_every_reason(folder, package):
    explained = {name for row in rows(page(f"{folder}runbook.md")) for name in code_of(row[0])}

    said = {reason for path in (ROOT / package).glob("*.py") for reason in re.findall(SAID[package], path.read_text("utf-8"))}

    assert len(said) > 5
    assert said - explained == set()


@cache
def contract() -> dict[str, dict[str, object]]:
    paths = json.loads((ROOT / "openapi/vestnik.json").read_text("utf-8"))["paths"]  # test_house.py holds it to the code
    return {path.removeprefix("/api/v1"): item for path, item in paths.items()}


def is_served(path: str, method: str | None = None) -> bool:
    shape = path.rstrip("/").split("?")[0].split("/")
    for template, item in contract().items():
        parts = template.split("/")
        fits = len(parts) == len(shape) and all(part == given or part.startswith("{") for part, given in zip(parts, shape, strict=True))
        if fits and (method is None or method.lower() in item):
            return True
    return False


def test_every_operation_and_address_that_a_page_names_is_served():
    strange = set()
    for path in PAGES:
        text = path.read_text("utf-8")
        strange |= {
            f"{named(path)}: {method} {where}"
            for method, where in re.findall(r"\b(GET|PUT|POST|PATCH|DELETE) (/[^\s`,;)]+)", text)
            if not is_served(where, method)
        }
        strange |= {f"{named(path)}: {where}" for where in re.findall(r"\$API(/[^\s\"']+)", text) if not is_served(where)}

    assert is_served("/gateways/main/status", "GET")
    assert not is_served("/no/such/thing")
    assert strange == set()


def test_every_resource_of_the_api_is_named_in_some_guide():
    guides = "".join(page(name) for name in ("api.md", "gateways.md", "templates.md"))

    resources = {path.split("/")[1] for path in contract() if not path.startswith("/health")}

    assert {"accounts", "routes", "stops"} <= resources
    assert {resource for resource in resources if not re.search(rf"(?:\$API|[ `])/{resource}\b", guides)} == set()


def shell_lines(text: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()] + re.findall(r"`((?:vestnik|make) [^`]+)`", text)


def test_every_command_and_option_that_a_page_names_is_there():
    group = typer.main.get_command(cli)
    strange = set()
    for path in PAGES:
        for line in shell_lines(path.read_text("utf-8")):
            for words in re.findall(r"(?:^|[\s(/])vestnik ((?:[a-z-]+ ?)[^|)]*)", line):
                if (wrong := unknown_word(group, words.split())) is not None:
                    strange.add(f"{named(path)}: vestnik {words}: {wrong}")

    assert unknown_word(group, ["key", "create", "--name", "x"]) is None
    assert unknown_word(group, ["key", "make"]) == "make"
    assert unknown_word(group, ["worker", "--speed"]) == "--speed"
    assert strange == set()


def unknown_word(command: object, words: list[str]) -> str | None:
    """The first word that is no command or option there; a command's own arguments are anything."""
    position = 0
    while (commands := getattr(command, "commands", None)) and position < len(words):
        if words[position] not in commands:
            return words[position]
        command, position = commands[words[position]], position + 1
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}  # type: ignore[attr-defined]
    return next((word for word in words[position:] if word.startswith("--") and word.strip("`.,") not in options), None)


def test_every_make_target_that_a_page_names_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))

    named_targets = {word for path in PAGES for line in shell_lines(path.read_text("utf-8")) for word in re.findall(r"^make ([a-z-]+)", line)}

    assert {"run", "demo", "test", "check"} <= named_targets <= targets


def test_every_link_leads_to_a_page_and_to_a_heading_in_it():
    broken = set()
    for path in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
            if re.match(r"[a-z]+:", target):
                continue
            where, _, heading = target.partition("#")
            page_there = (path.parent / where).resolve() if where else path
            if not page_there.exists() or (heading and heading not in headings(page_there)):
                broken.add(f"{named(path)}: {target}")

    assert broken == set()


def headings(path: Path) -> set[str]:
    """The anchors that Git hosts make of headings: lower case, punctuation gone, spaces to hyphens."""
    titles = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_for_operators_is_there_in_russian_with_the_same_parts():
    for name in ("install.md", "gateways.md", "templates.md", "forecasts.md", "runbook.md", "upgrade.md", "backup.md", "capacity.md", "security.md"):
        english, russian = (page(f"{folder}{name}") for folder in BOTH)
        assert len(re.findall(r"^## ", english, re.MULTILINE)) == len(re.findall(r"^## ", russian, re.MULTILINE)), name
        assert len(rows(english)) == len(rows(russian)), name


def test_every_package_has_its_row_in_the_architecture():
    described = {code_of(row[0])[0] for row in rows(page("architecture.md")) if row[0].startswith("`")}
    packages = {path.parent.name for path in (ROOT / "app").glob("*/__init__.py")} - {"simulators", "embedded", "demo", "commands"}

    assert packages <= described
    files = [(code_of(row[0])[0], name) for row in rows(page("architecture.md")) if len(row) == 3 and code_of(row[0])[:1] for name in code_of(row[2])]
    named_files = [(package, name) for package, name in files if package in packages and re.fullmatch(r"\w+", name)]
    assert len(named_files) > 30
    assert [f"{package}/{name}" for package, name in named_files if not (ROOT / "app" / package / f"{name}.py").exists()] == []
