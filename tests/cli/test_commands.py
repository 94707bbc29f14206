import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import typer

from app import cli

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def vestnik(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs the command line in this process, in an empty directory: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vestnik", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return run


def every_command(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    group = group or typer.main.get_command(cli.cli)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, (*path, name))
        else:
            yield (*path, name)


COMMANDS = list(every_command())


def test_every_command_of_the_documentation_is_there():
    assert {" ".join(command) for command in COMMANDS} >= {
        *("up", "serve", "worker", "migrate", "openapi", "key create", "key list", "key revoke", "token"),
        *("gateway apply", "gateway check", "import accounts", "scan", "smsc-simulator", "mailbox"),
    }


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command_says_what_it_does_and_gives_an_example_of_itself(command, vestnik):
    code, said, _ = vestnik(*command, "--help")

    assert code == 0
    assert f"Example: vestnik {' '.join(command)}" in said
    assert len(said.splitlines()[2].strip()) > 10


def test_help_comes_without_loading_the_service():
    loaded = "import sys; import app.cli; print([name for name in ('fastapi', 'sqlalchemy', 'uvicorn', 'arq') if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


BAD_INPUT = [
    (["nonsense"], "nonsense"),
    (["key"], "Missing command"),
    (["key", "create", "--name", "x"], "--role"),
    (["key", "create", "--name", "x", "--role", "king"], "king"),
    (["key", "create", "--name", " ", "--role", "viewer"], "--name"),
    (["serve", "--port", "70000"], "65535"),
    (["worker", "--queue", "smpp:main"], "smpp:<gateway>:<slot>"),
    (["up", "--exit-when-done"], "--demo"),
    (["token", "--account", ""], "--account"),
    (["gateway", "apply", "nowhere.toml"], "nowhere.toml"),
    (["gateway", "apply", "broken.toml"], "broken.toml"),
    (["gateway", "apply", "other.toml"], "unknown 'gateway'"),
    (["import", "accounts", "nowhere.ndjson"], "nowhere.ndjson"),
    (["smsc-simulator", "--outcome", "UNDELIV"], "13=UNDELIV"),
    (["smsc-simulator", "--error", "14=bad"], "command_status"),
    (["mailbox", "--rule", "nonsense"], "--rule"),
]


@pytest.mark.parametrize(("words", "named"), BAD_INPUT, ids=[" ".join(words) for words, _ in BAD_INPUT])
def test_bad_input_is_one_line_that_names_it_and_exit_two(words, named, vestnik, tmp_path):
    (tmp_path / "broken.toml").write_text("[gateways\n")
    (tmp_path / "other.toml").write_text("[gateway.main]\nkind = 'smpp'\n")

    code, out, err = vestnik(*words)

    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert named in err


def test_wrong_variable_is_one_line_that_names_it_and_exit_two(vestnik, monkeypatch):
    monkeypatch.setenv("VESTNIK_TIMEZONE", "Mars/Olympus")

    code, _, err = vestnik("key", "list")

    assert code == 2
    assert err.startswith("vestnik: VESTNIK_TIMEZONE: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("words", [["key", "list"], ["migrate"], ["serve"], ["worker"]], ids=" ".join)
def test_without_servers_a_command_says_what_starts_them_and_exits_one(words, vestnik):
    code, _, err = vestnik(*words)

    assert code == 1
    assert len(err.splitlines()) == 1
    assert "start `vestnik up`" in err


def test_debug_shows_the_traceback_that_is_else_hidden(vestnik, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["vestnik", "key", "list", "--debug"])

    with pytest.raises(Exception, match="start `vestnik up`"):
        cli.main()


def test_token_is_signed_for_the_account_and_expires(vestnik, monkeypatch):
    monkeypatch.setenv("VESTNIK_JWT_HS256_SECRET", "s" * 40)

    code, out, _ = vestnik("token", "--account", "100500", "--ttl", "60")

    claims = jwt.decode(out.strip(), "s" * 40, algorithms=["HS256"], audience="vestnik")
    assert code == 0
    assert claims["sub"] == "100500"
    assert claims["exp"] - claims["iat"] == 60


def test_production_refuses_tokens_and_demonstrations(vestnik, monkeypatch):
    given = {
        "ENV": "production",
        "DATABASE_URL": "postgresql+asyncpg://u@h/d",
        "REDIS_URL": "redis://h",
        "SECRET_KEYS": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        "JWT_HS256_SECRET": "s" * 40,
        "PUBLIC_URL": "https://isp.example",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"VESTNIK_{name}", value)

    for words in (["token", "--account", "1"], ["up", "--demo"]):
        code, _, err = vestnik(*words)
        assert code == 2
        assert "production" in err


def test_contract_is_the_same_whatever_the_environment_says(vestnik, monkeypatch):
    first = vestnik("openapi")
    monkeypatch.setenv("VESTNIK_DOCS", "off")
    monkeypatch.setenv("VESTNIK_PUBLIC_URL", "https://isp.example")

    second = vestnik("openapi")

    assert first[0] == 0
    assert json.loads(first[1])["openapi"].startswith("3.1")
    assert second == first


def test_simulators_name_their_port_first_and_end_with_zero_on_sigterm():
    for command in ("smsc-simulator", "mailbox"):
        process = subprocess.Popen([sys.executable, "-m", "app.cli", command, "--port", "0"], stdout=subprocess.PIPE, text=True)
        watchdog = threading.Timer(20, process.kill)
        watchdog.start()
        first = json.loads(process.stdout.readline())
        process.terminate()

        assert first["kind"] == "listening"
        assert first["port"] > 0
        assert process.wait() == 0
        watchdog.cancel()
