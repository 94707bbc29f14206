"""What is installed with is held to the product: every command, queue, variable, path and port that deploy/, Compose and the Dockerfile name is there."""

import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import typer
import yaml

from app.cli import cli
from app.commands.processes import QUEUE
from app.core.config import Settings
from app.core.wakeups import QUEUES

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/vestnik"
UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))
# Read by the processes beside the settings, or by Compose alone.
OTHERS = {"VESTNIK_SECRETS_DIR", "VESTNIK_PUBLISH", "VESTNIK_BOUNCE_PUBLISH"}
VARIABLES = {f"VESTNIK_{name.upper()}" for name in Settings.model_fields}
NOT_FOR_CONTAINERS = {"VESTNIK_DATA_DIR", "VESTNIK_HTTP_HOST", "VESTNIK_HTTP_PORT"}  # the image sets these, or has no use for them


def deployed() -> dict[str, str]:
    places = [*(ROOT / "deploy").rglob("*"), ROOT / "compose.yaml", ROOT / "Dockerfile"]
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in places if path.is_file() and path.suffix != ".json"}


def compose() -> dict:
    return yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))


def words_are_known(words: list[str]) -> bool:
    """A command of the product with options that it has, and queues that it knows."""
    command = typer.main.get_command(cli).commands.get(words[0])
    if command is None:
        return False
    options = {name for parameter in command.params for name in parameter.opts}
    queues = [after for word, after in pairwise(words) if word == "--queue" and after != "%i"]
    return all(word in options for word in words[1:] if word.startswith("--")) and all(QUEUE.fullmatch(queue) for queue in queues)


def test_every_variable_that_is_named_is_a_setting():
    strange = {f"{path}: {name}" for path, text in deployed().items() for name in re.findall(r"\bVESTNIK_[A-Z0-9_]+\b", text)}

    assert {one for one in strange if one.split(": ")[1] not in VARIABLES | OTHERS} == set()


def test_compose_hands_every_setting_on():
    given = set(compose()["x-vestnik"]["environment"])

    assert VARIABLES - NOT_FOR_CONTAINERS - given == set()


def test_compose_runs_commands_that_are_there():
    services = compose()["services"]
    ours = {name: service["command"].split() for name, service in services.items() if service.get("image") == "vestnik"}

    assert set(ours) >= {"migrate", "serve", "worker"}
    assert {name for name, words in ours.items() if not words_are_known(words)} == set()
    assert not words_are_known(["worker", "--queue", "nonsense"])
    assert not words_are_known(["work"])


def test_compose_mounts_what_is_in_the_tree():
    mounted = [volume.split(":")[0] for service in compose()["services"].values() for volume in service.get("volumes", []) if volume.startswith("./")]

    assert [path for path in mounted if not (ROOT / path).exists()] == []


def test_image_copies_what_is_there_and_leaves_no_secret_in():
    dockerfile, ignored = (ROOT / "Dockerfile").read_text("utf-8"), (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    kept = [line[1:] for line in ignored if line.startswith("!")]

    assert ignored[1] == "*"
    assert [name for name in kept if not (ROOT / name).exists()] == []
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
    assert [name for line in copied for name in line.split() if name != "." and name not in kept] == []
    # What the installed service reads beside its package.
    assert {"app", "migrations", "alembic.ini"} <= set(kept)
    assert re.search(r"^USER 10001$", dockerfile, re.MULTILINE)
    assert "--require-hashes" in dockerfile


def test_image_builds_the_package_with_a_locked_setuptools():
    program = re.search(r"awk '(.+?)' requirements-dev.txt", (ROOT / "Dockerfile").read_text("utf-8"))[1]

    lock = subprocess.run(["awk", program, "requirements-dev.txt"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert re.match(r"setuptools==\d+", lock)
    assert "--hash=sha256:" in lock
    assert lock.count("==") == 1


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_unit_of_systemd_is_whole_and_confined(path):
    lines = [line for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    section, read = "", dict[str, list[tuple[str, str]]]()
    for line in lines:
        if found := re.fullmatch(r"\[(\w+)\]", line):
            section = found[1]
            continue
        name, equals, value = line.partition("=")
        assert equals, line
        assert re.fullmatch(r"[A-Z]\w+", name), line
        read.setdefault(section, []).append((name, value))
    service = dict(read["Service"])
    command = service["ExecStart"].split()

    assert set(read) <= {"Unit", "Service", "Install"}
    assert command[0] == "/opt/vestnik/.venv/bin/vestnik"
    assert words_are_known([word for word in command[1:] if not word.startswith("$")])
    assert service["User"] == "vestnik"
    assert service["ProtectSystem"] == "strict"
    assert service["NoNewPrivileges"] == "yes"
    assert ("EnvironmentFile", "/etc/vestnik/vestnik.env") in read["Service"]
    if service["Type"] != "oneshot":
        assert service["Restart"] == "always"
        assert int(service["TimeoutStopSec"]) >= 40
    assert (service["Type"] == "notify") == ("worker" in command) == ("WatchdogSec" in service)


def test_example_of_the_environment_is_what_production_asks_for():
    lines = (ROOT / "deploy/systemd/vestnik.env.example").read_text("utf-8").splitlines()
    names = {line.partition("=")[0].lstrip("#") for line in lines if "=" in line and not line.startswith("# ")}

    assert {"VESTNIK_DATABASE_URL", "VESTNIK_REDIS_URL", "VESTNIK_SECRET_KEYS", "VESTNIK_PUBLIC_URL", "VESTNIK_JWT_HS256_SECRET"} <= names


def test_chart_reads_values_that_are_there():
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    templates = "".join(path.read_text("utf-8") for path in (CHART / "templates").iterdir())
    missing = set()
    for path in set(re.findall(r"\.Values\.([\w.]+)", templates)):
        found = values
        for step in path.split("."):
            if not isinstance(found, dict) or step not in found:
                missing.add(path)
                break
            found = found[step]

    assert missing == set()
    turned_on = yaml.safe_load((ROOT / "deploy/helm/check.yaml").read_text("utf-8"))
    assert turned_on.keys() <= values.keys()


def test_chart_defines_what_it_includes_and_ends_what_it_begins():
    defined, included = set(), set()
    for path in (CHART / "templates").iterdir():
        text = re.sub(r"{{/\*.*?\*/}}", "", path.read_text("utf-8"), flags=re.DOTALL)
        defined |= set(re.findall(r'define "([\w.]+)"', text))
        included |= set(re.findall(r'include "([\w.]+)"', text))
        assert "{{" not in re.sub(r"{{[^{}]*}}", "", text), path.name
        begun = len(re.findall(r"{{-? (?:if|range|with|define)\b", text))
        assert begun == len(re.findall(r"{{-? end\b", text)), path.name

    assert included <= defined
    assert defined - included == set()


def test_chart_has_a_worker_for_every_queue_that_everybody_needs():
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))

    assert values["workers"].keys() == set(QUEUES)
    assert [queue for queue in QUEUES if not QUEUE.fullmatch(queue)] == []
