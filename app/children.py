"""Child processes that are started again when they die, and do not outlive us."""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence

import structlog

log = structlog.get_logger()

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIVED_LONG = 10.0  # seconds: a death after that is an accident, before it a habit
LONGEST_PAUSE = 30.0
LONGEST_LINE = 1 << 20


class Child:
    """One `vestnik` command as a child process. `keep()` runs it, again and again, until `end()`."""

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        *,
        env: Mapping[str, str],
        pass_fds: Sequence[int] = (),
        on_line: Callable[[str], None] | None = None,
        shielded: bool = False,
    ) -> None:
        """`on_line` gets what it prints, line by line. A `shielded` one hears no signal of our process group: it outlives those that drain towards it."""
        self.name = name
        # -P: a package called `app` in the current directory is not ours.
        self._command = (sys.executable, "-P", "-m", "app.cli", *words)
        self._env = dict(env)
        self._pass_fds = tuple(pass_fds)
        self._on_line = on_line
        self._shielded = shielded
        self._ending = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    async def keep(self) -> None:
        """Returns when the child has ended after `end()`."""
        short_lives = 0
        clock = asyncio.get_running_loop().time
        while not self._ending.is_set():
            began = clock()
            code = await self._run_once()
            if self._ending.is_set():
                return
            short_lives = short_lives + 1 if clock() - began < LIVED_LONG else 0
            # One that ended well has nothing to do any more, and may be told so in a moment: its gateway went.
            pause = max(pause_before_restart(short_lives), float(code == 0))
            log.warning("child_ended", child=self.name, code=code, restart_in=pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ask the child to end, and do not start it again."""
        self._ending.set()
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(how)

    async def _run_once(self) -> int | str:
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if self._on_line else None,
                limit=LONGEST_LINE,
                pass_fds=self._pass_fds,
                start_new_session=self._shielded,
                preexec_fn=die_with_parent(),
            )
        except OSError as error:
            return str(error)
        if self._ending.is_set():
            self.end()
        if self._on_line and self._process.stdout:
            async for line in self._process.stdout:
                self._on_line(line.decode("utf-8", "replace").rstrip("\n"))
        return await self._process.wait()


def pause_before_restart(short_lives: int) -> float:
    """Seconds: none after the first death, then 1, 2, 4 ... 30 while it keeps dying young."""
    return 0.0 if short_lives < 2 else min(2.0 ** (short_lives - 2), LONGEST_PAUSE)


def die_with_parent() -> Callable[[], None] | None:
    """What a child does before exec, so that it drains and ends when we are killed outright. Linux alone can do it."""
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def bind_life() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # we were killed between fork and prctl
            os._exit(1)

    return bind_life


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port on which nothing listens just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
