"""Drafts rendered in processes of their own, which are killed when they take too long or too much.

The sandbox of templates bounds what a draft may do; this bounds what it can do where the sandbox has a hole, and keeps the API's own loop free meanwhile.
A few children stay warm from one preview to the next. None has a database, a secret in its environment, or an hour of patience.
"""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog

from app.core.errors import Unavailable

log = structlog.get_logger()

CHILDREN, WAITING = 2, 4
# The child has one second of the processor (see `preview_child`). This is for one that gets none, or does not use it: it counts the queue for the processor.
PATIENCE = 5.0
STARTING = 60.0  # seconds until a child has imported everything, on a machine that is busy with other things
ENDING = 1.0  # seconds between the end of its output and its own
LONGEST_ANSWER = 1 << 24
PASSED_ON = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")  # of our environment; secrets are not among them
TOO_SLOW, TOO_LARGE = "too_slow", "too_large"
SLOW_ENDS = frozenset({-signal.SIGPROF, -signal.SIGXCPU})


@dataclass(frozen=True, slots=True)
class Killed:
    """The draft took more than it may: `too_slow`, or `too_large` of what it did to the memory."""

    code: str


Answer = dict[str, Any] | Killed


class Previews:
    """Of one process. Nothing runs before the first preview."""

    def __init__(self, *, children: int = CHILDREN, waiting: int = WAITING, patience: float = PATIENCE) -> None:
        self._most = children + waiting
        self._children = [_Child(patience) for _ in range(children)]
        self._idle: asyncio.LifoQueue[_Child] = asyncio.LifoQueue()  # the one that worked last is the warm one
        for child in self._children:
            self._idle.put_nowait(child)
        self._present = 0

    @contextlib.contextmanager
    def seat(self) -> Iterator[None]:
        """A place among those who are served or wait, to be taken before anything else is done. Unavailable, with the time to wait, when there is none."""
        if self._present >= self._most:
            raise Unavailable("Too many previews at this moment: try again in a second.", code="previews_busy", headers={"Retry-After": "1"})
        self._present += 1
        try:
            yield
        finally:
            self._present -= 1

    async def render(self, job: dict[str, Any]) -> Answer:
        """What `preview_child` makes of this job, in a place of its own. Unavailable when there is none."""
        with self.seat():
            return await self.seated(job)

    async def seated(self, job: dict[str, Any]) -> Answer:
        """The same for whoever has a seat."""
        child = await self._idle.get()
        try:
            return await child.ask(orjson.dumps(job) + b"\n")
        finally:
            self._idle.put_nowait(child)

    async def close(self) -> None:
        for child in self._children:
            await child.close()


@dataclass(slots=True)
class _Child:
    """One child, started when it is first asked, and again at once when it had to be killed: the next preview finds it warm."""

    patience: float
    process: Process | None = None
    starting: asyncio.Task[None] | None = None
    dying: set[asyncio.Task[Any]] = field(default_factory=set)

    async def ask(self, line: bytes) -> Answer:
        process = await self._ready()
        try:
            answer = await asyncio.wait_for(_exchange(process, line), self.patience)
        except TimeoutError:
            self._kill()
            self._start_soon()
            return Killed(TOO_SLOW)
        except BaseException:  # nobody waits for this answer any more; the next one must not get it
            self._kill()
            raise
        if answer.endswith(b"\n"):
            return self._read(answer)
        ended = await _ended(process)
        self._kill()
        self._start_soon()
        log.info("preview_killed", code=ended)
        return Killed(TOO_SLOW if ended in SLOW_ENDS else TOO_LARGE)

    def _read(self, answer: bytes) -> Answer:
        said: dict[str, Any] = orjson.loads(answer)
        if said.get("spent"):  # it ran out of memory and lived: nobody knows in which state
            self._kill()
            self._start_soon()
            return Killed(TOO_LARGE)
        if "failed" in said:
            raise RuntimeError(f"the preview failed: {said['failed']}")
        return said

    async def close(self) -> None:
        if self.starting is not None:
            self.starting.cancel()
            await asyncio.gather(self.starting, return_exceptions=True)
        self._kill()
        while self.dying:
            await asyncio.wait(self.dying)

    async def _ready(self) -> Process:
        if self.process is not None and self.process.returncode is not None:  # somebody else has killed it
            self._kill()
        if self.process is None:
            starting = self._start_soon()
            try:
                await asyncio.shield(starting)  # who waits for it may go: it will be of use to the next
            except (OSError, TimeoutError, EOFError) as error:
                log.error("preview_not_started", error=type(error).__name__)
                raise Unavailable("Previews cannot be made just now.", code="previews_down", headers={"Retry-After": "5"}) from None
            finally:
                self.starting = None if starting.done() else starting
        assert self.process is not None
        return self.process

    def _start_soon(self) -> asyncio.Task[None]:
        if self.starting is None or self.starting.done():
            self.starting = asyncio.create_task(self._start())
        return self.starting

    async def _start(self) -> None:
        self.process = await _started()

    def _kill(self) -> None:
        if self.process is not None:
            task = asyncio.create_task(_end(self.process))
            self.dying.add(task)
            task.add_done_callback(self.dying.discard)
            self.process = None


async def _started() -> Process:
    """A child that has said that it is ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # a package called `app` in the current directory is not ours
        "-m",
        "app.desk.preview_child",
        stdin=PIPE,
        stdout=PIPE,
        limit=LONGEST_ANSWER,
        env={name: os.environ[name] for name in PASSED_ON if name in os.environ} | {"PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        start_new_session=True,  # a Ctrl-C is for us: we end it
    )
    try:
        assert process.stdout is not None
        if not await asyncio.wait_for(process.stdout.readline(), STARTING):
            raise EOFError
    except BaseException:
        await _end(process)
        raise
    return process


async def _exchange(process: Process, line: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(ConnectionError):  # it has died: reading says so, too
        process.stdin.write(line)
        await process.stdin.drain()
    return await process.stdout.readline()


async def _ended(process: Process) -> int:
    """How one came to its end that has closed its output. It is not killed before that is known: to send a signal reads the status, and asyncio then has none."""
    with contextlib.suppress(TimeoutError):
        return await asyncio.wait_for(process.wait(), ENDING)
    await _end(process)
    return -signal.SIGKILL


async def _end(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
