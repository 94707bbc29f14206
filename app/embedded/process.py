"""What both embedded servers need: where their files lie, who may start them, and what ends them when nobody is left."""

import fcntl
import hashlib
import importlib.util
import os
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# sun_path is 108 octets on Linux and 104 on macOS, one of them the final NUL.
SOCKET_PATH_OCTETS = 103
LONGEST_SOCKET_NAME = "/.s.PGSQL.5432"
PLAIN_PATH = re.compile(r"[\w/.+-]+", re.ASCII)


class ServerError(Exception):
    """A server could not be started: one sentence that says what to do."""


def socket_home(home: Path) -> Path:
    """The directory for a server's socket: `home`, or a short one in /tmp made from its name where a socket's path would not fit.

    A path with a blank or a `?` in it also goes there: not every driver decodes the URL that would have to carry it.
    """
    if len(f"{home}{LONGEST_SOCKET_NAME}".encode()) <= SOCKET_PATH_OCTETS and PLAIN_PATH.fullmatch(str(home)):
        return home
    # Always /tmp, never TMPDIR: every command must come to the same place, whatever its environment.
    return Path("/tmp") / f"vestnik-{hashlib.sha256(str(home).encode()).hexdigest()[:16]}"  # noqa: S108 - make_private checks whose it is


def make_private(directory: Path, owner: int) -> None:
    """Make `directory` with mode 0700 for `owner`; refuse one that somebody else made first, a trap in /tmp for instance."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            found = directory.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), owner):
                raise ServerError(f"{directory} belongs to somebody else: remove it, or choose another VESTNIK_DATA_DIR") from None
        if owner != os.geteuid():
            os.chown(directory, owner, -1, follow_symlinks=False)
    except OSError as error:
        raise ServerError(f"{directory} cannot be used ({error.strerror}): choose another VESTNIK_DATA_DIR") from error


def is_listening(path: Path) -> bool:
    """Whether some process accepts connections there: true of no stale file, whatever pid it names."""
    with socket.socket(socket.AF_UNIX) as knock:
        knock.settimeout(2)
        try:
            knock.connect(str(path))
        except OSError:
            return False
    return True


def command_of(pid: int) -> str:
    """The command line of a process, or "" when there is none: a pid alone proves nothing, it may have been given out again."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        if Path("/proc/self").exists():
            return ""
    # macOS has no /proc.
    return subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False).stdout  # noqa: S603, S607


def wheel_file(package: str, *places: str) -> Path | None:
    """A file that an installed wheel carries, without importing the wheel."""
    found = importlib.util.find_spec(package)
    for root in (found.submodule_search_locations or []) if found else []:
        for place in places:
            if (path := Path(root) / place).exists():
                return path
    return None


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Two starters of one data directory take turns; the kernel frees the lock of one that was killed."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = lock.open("w")
    except OSError as error:
        raise ServerError(f"{lock.parent} cannot be written ({error.strerror}): choose another VESTNIK_DATA_DIR") from error
    with held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def last_words(log: Path) -> str:
    """The last line of a server's log that says something, for an error message."""
    try:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return "it wrote no log"
    return lines[-1].strip() if lines else "its log is empty"


class Lifeline:
    """Stops servers whose starter is gone, kill -9 included.

    A shell for each server waits at the reading end of a pipe. The writing end (`fd`) is held by the starter and by every child that
    it passes it to, so the shells wake when the last of them has ended: workers that drain after the death of `up` still have a database.
    """

    # The pid file is read again before the signal: the server may have ended, and its pid been given to somebody else.
    SCRIPT = 'read -r _; if [ "$(head -n 1 "$1")" = "$2" ]; then kill -s "$3" "$2"; fi'

    def __init__(self) -> None:
        self._reader, self.fd = os.pipe()

    def guard(self, pid_file: Path, pid: int, end_with: signal.Signals) -> subprocess.Popen[bytes]:
        """The waiting shell. Whoever stops the server himself kills it first."""
        command = ["/bin/sh", "-c", self.SCRIPT, "vestnik-lifeline", str(pid_file), str(pid), end_with.name.removeprefix("SIG")]
        return subprocess.Popen(command, stdin=self._reader, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)  # noqa: S603


def dismiss(guard: subprocess.Popen[bytes] | None) -> None:
    if guard:
        guard.kill()
        guard.wait()
