import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.children import free_port
from app.embedded.process import command_of
from app.embedded.running import find_running


@dataclass
class Up:
    process: subprocess.Popen[str]
    data_dir: Path
    port: int
    log: Path

    def children(self, words: str) -> list[int]:
        """Pids of child processes whose command line has these words."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in listed if words in command_of(int(pid))]

    def api(self, method: str, path: str, **more: object) -> httpx.Response:
        return httpx.request(method, f"http://127.0.0.1:{self.port}{path}", trust_env=False, **more)

    def is_ready(self) -> bool:
        try:
            return self.api("GET", "/health/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def vestnik(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "app.cli", *words], env=os.environ | {"VESTNIK_DATA_DIR": str(self.data_dir)}, capture_output=True, text=True, check=False
        )


def eventually(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def start(data_dir: Path) -> Up:
    port, log = free_port(), data_dir / "up.log"
    with log.open("w") as out:
        command = [sys.executable, "-m", "app.cli", "up", "--port", str(port), "--data-dir", str(data_dir)]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    up = Up(process, data_dir, port, log)
    eventually(lambda: up.is_ready() or process.poll() is not None, 60)
    assert process.poll() is None, log.read_text()
    return up


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    data_dir = Path(tempfile.mkdtemp(prefix="vst"))
    up = start(data_dir)
    yield up
    if up.process.poll() is None:
        os.killpg(up.process.pid, signal.SIGTERM)
        up.process.wait(40)
    shutil.rmtree(data_dir)


def test_another_command_finds_the_running_servers_and_its_key_is_taken(up):
    made = up.vestnik("key", "create", "--name", "billing", "--role", "operator")

    key = made.stdout.strip()
    assert made.returncode == 0, made.stderr
    assert up.api("GET", "/api/v1/gateways", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    assert up.api("GET", "/api/v1/gateways", headers={"Authorization": f"Bearer {key}x"}).status_code == 401


def test_revoked_key_is_listed_as_revoked_and_refused(up):
    key = up.vestnik("key", "create", "--name", "leaver", "--role", "viewer").stdout.strip()

    revoked = up.vestnik("key", "revoke", key.split("_")[1])

    assert revoked.returncode == 0
    assert "revoked" in next(line for line in up.vestnik("key", "list").stdout.splitlines() if "leaver" in line)
    assert up.api("GET", "/api/v1/gateways", headers={"Authorization": f"Bearer {key}"}).status_code == 401


def test_gateway_file_may_be_applied_twice_and_a_wrong_one_names_the_field(up, tmp_path):
    good, wrong = tmp_path / "good.toml", tmp_path / "wrong.toml"
    good.write_text('[gateways.file-mail]\nkind = "smtp"\nhost = "127.0.0.1"\nport = 2525\ntls = "none"\nfrom = "a@example.org"\nenabled = false\n')
    wrong.write_text(good.read_text().replace("2525", "70000"))

    changed = tmp_path / "changed.toml"
    changed.write_text(good.read_text().replace("2525", "2526"))

    first, second, third, refused = (up.vestnik("gateway", "apply", str(file)) for file in (good, good, changed, wrong))

    assert (first.returncode, first.stdout) == (0, "file-mail: created\n"), first.stderr
    assert (second.returncode, second.stdout) == (0, "file-mail: unchanged\n")
    assert (third.returncode, third.stdout) == (0, "file-mail: updated\n")
    assert refused.returncode == 2
    assert "port" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_import_loads_the_good_lines_and_names_the_bad_ones(up, tmp_path):
    file = tmp_path / "accounts.ndjson"
    account = {"name": "A", "status": "active", "balance": "1.00", "currency": "RUB", "locale": "ru", "timezone": "Europe/Moscow"}
    lines = [account | {"number": f"import-{number}"} for number in range(3)]
    lines[1]["balance"] = "a lot"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    done = up.vestnik("import", "accounts", str(file))

    assert done.returncode == 1
    assert "received 3 created 2" in done.stdout
    assert "line 2: " in done.stderr
    assert "1 of 3 lines were rejected" in done.stderr


def test_bind_worker_comes_with_its_gateway_and_goes_with_it(up, tmp_path):
    file = tmp_path / "gateways.toml"
    body = f'[gateways.slow]\nkind = "smpp"\nhost = "127.0.0.1"\nport = {free_port()}\nsystem_id = "a"\npassword = "b"\nsender = "MyISP"\nbinds = 2\nenabled = true\n'
    file.write_text(body)
    assert up.vestnik("gateway", "apply", str(file)).returncode == 0

    eventually(lambda: up.children("worker --queue smpp:slow:0") and up.children("worker --queue smpp:slow:1"))

    file.write_text(body.replace("enabled = true", "enabled = false"))
    assert up.vestnik("gateway", "apply", str(file)).returncode == 0
    eventually(lambda: not up.children("smpp:slow"))


@pytest.mark.parametrize("words", ["serve --host", "worker --queue plan"])
def test_process_that_is_killed_is_started_again(up, words):
    (first,) = up.children(words)

    os.kill(first, signal.SIGKILL)

    eventually(lambda: up.children(words) not in ([], [first]))
    eventually(up.is_ready)


@pytest.mark.parametrize("pid_file", ["redis/redis.pid", "postgres/data/postmaster.pid"])
def test_embedded_server_that_is_killed_is_started_again(up, pid_file):
    os.kill(first := int((up.data_dir / pid_file).read_text().split()[0]), signal.SIGKILL)

    eventually(lambda: str(first) not in _read(up.data_dir / pid_file).split()[:1] and all(find_running(up.data_dir)))

    eventually(up.is_ready)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_second_up_on_the_same_port_is_refused_in_one_line_and_disturbs_nothing(up):
    second = up.vestnik("up", "--port", str(up.port))

    assert second.returncode == 1
    assert f"127.0.0.1:{up.port} is taken" in second.stderr
    assert up.is_ready()


def test_sigterm_to_the_group_ends_with_zero_and_leaves_nothing_behind(up):
    mine = [
        up.process.pid,
        *up.children("app.cli"),
        *(int(_read(up.data_dir / file).split()[0]) for file in ("redis/redis.pid", "postgres/data/postmaster.pid")),
    ]
    assert len(mine) >= 6

    os.killpg(up.process.pid, signal.SIGTERM)

    assert up.process.wait(35) == 0
    assert [pid for pid in mine if command_of(pid)] == []


def test_after_kill_nine_of_up_everything_ends_by_itself_and_the_next_one_has_the_data():
    data_dir = Path(tempfile.mkdtemp(prefix="vst"))
    first = start(data_dir)
    key = first.vestnik("key", "create", "--name", "kept", "--role", "viewer").stdout.strip()
    orphans = first.children("app.cli")

    first.process.kill()
    first.process.wait()
    eventually(lambda: not any(command_of(pid) for pid in orphans) and find_running(data_dir) == ("", ""))

    second = start(data_dir)
    assert second.api("GET", "/api/v1/gateways", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    os.killpg(second.process.pid, signal.SIGTERM)
    assert second.process.wait(40) == 0
    shutil.rmtree(data_dir)
