"""`vestnik up`: everything in one command. Servers, schema, API, workers, and a demonstration where one is asked for."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import httpx
import structlog
import typer
from sqlalchemy.exc import SQLAlchemyError

from app.children import Child, is_free
from app.core.config import Settings
from app.core.db import Database
from app.core.logs import configure_logs
from app.core.wakeups import BOUNCES, PLAN, QUEUES, Wakeups
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.process import Lifeline, ServerError
from app.embedded.redis import EmbeddedRedis
from app.schema import prepare
from app.worker import wanted_binds

T = TypeVar("T")
log = structlog.get_logger()

# Workers and API drain within 30 s; what is left then is killed, and all is gone within 35 s of the signal.
DRAIN_WITHIN = 30.0
READY_WITHIN = 60.0
LOOK_EVERY = 1.0  # seconds between two comparisons of the gateways with the running binds
SERVERS_EVERY = 0.25  # seconds between two looks at the embedded servers


class NotReady(ServerError):
    """Something of ours did not come up: one sentence."""


async def up(settings: Settings, *, demo: bool = False, exit_when_done: bool = False) -> int:
    """Run until a signal, or until the demonstration is over. Returns the exit code, with everything stopped that was started."""
    if demo:
        # The feed is the thing to look at: of the logs, only what is wrong.
        os.environ.setdefault("VESTNIK_LOG_LEVEL", "warning")
        os.environ.setdefault("VESTNIK_LOG_FORMAT", "text")
        settings = settings.model_copy(update={"log_level": os.environ["VESTNIK_LOG_LEVEL"], "log_format": os.environ["VESTNIK_LOG_FORMAT"]})
    configure_logs(settings.log_level, settings.log_format)
    run = LocalRun(settings)
    body = asyncio.create_task(_serve_until_cancelled(run, demo=demo, exit_when_done=exit_when_done))
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(name, body.cancel)
    try:
        return await body
    except asyncio.CancelledError:
        typer.echo("stopping ...")
        return 0
    finally:
        # Ctrl-C once more: no more waiting for the drain.
        loop.remove_signal_handler(signal.SIGTERM)
        loop.add_signal_handler(signal.SIGTERM, lambda: None)
        loop.add_signal_handler(signal.SIGINT, run.kill_children)
        await run.stop()


async def _serve_until_cancelled(run: "LocalRun", *, demo: bool, exit_when_done: bool) -> int:
    await run.start()
    if demo:
        from app.demo.play import play

        return await play(run, exit_when_done=exit_when_done)
    typer.echo(f"Vestnik is up: {run.settings.base_url}/docs   (a key: vestnik key create --name me --role operator; Ctrl-C stops)")
    await asyncio.Event().wait()
    return 0


class LocalRun:
    """The servers and processes of one `vestnik up`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings.model_copy(update={"data_dir": settings.data_dir.resolve()})
        self._lifeline = Lifeline()
        self._servers: list[EmbeddedPostgres | EmbeddedRedis] = []
        self._kept: dict[Child, asyncio.Task[None]] = {}
        self._far_end: set[Child] = set()
        self._binds: dict[str, Child] = {}
        self._ports: dict[int, Child | None] = {}
        self._watches: list[asyncio.Task[None]] = []
        self._look = asyncio.Event()

    async def start(self) -> None:
        """Servers, schema, API, workers; returns when the API says that it is ready."""
        self._refuse_taken_port()
        await self._start_servers()
        await self._step("schema and default templates", prepare(self.settings.database_url))
        self._watch(self._keep_servers())
        self._start_processes()
        await self._step(f"API at {self.settings.base_url}", self._api_is_ready())
        self._watch(self._follow_gateways())
        self._watch(self._hear_of_gateways())

    def start_simulator(self, name: str, words: list[str], on_line: Callable[[str], None]) -> Child:
        """A far end of the demonstration. It is stopped after the workers, which drain towards it."""
        child = self._start(name, words, on_line=on_line, shielded=True)
        self._far_end.add(child)
        return child

    async def stop(self) -> None:
        """Drain and stop the processes, then the far ends, then the servers. Nothing that we started is left."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await self._end([child for child in self._kept if child not in self._far_end], DRAIN_WITHIN)
        await self._end(list(self._far_end), 1)
        for server in reversed(self._servers):
            await asyncio.to_thread(server.stop)

    def kill_children(self) -> None:
        for child in self._kept:
            child.end(signal.SIGKILL)

    def _refuse_taken_port(self) -> None:
        host, port = self.settings.http_host, self.settings.http_port
        if not is_free(host, port):
            raise NotReady(f"{host}:{port} is taken: stop what listens there, or choose another with --port")

    async def _start_servers(self) -> None:
        settings = self.settings
        if not settings.database_url:
            settings.database_url = await self._start_server("PostgreSQL", EmbeddedPostgres(settings.data_dir, lifeline=self._lifeline))
        if not settings.redis_url:
            settings.redis_url = await self._start_server("Redis", EmbeddedRedis(settings.data_dir, lifeline=self._lifeline))

    async def _start_server(self, name: str, server: EmbeddedPostgres | EmbeddedRedis) -> str:
        self._servers.append(server)
        return await self._step(name, _to_its_end(server.start))

    async def _step(self, what: str, work: Coroutine[Any, Any, T]) -> T:
        began = asyncio.get_running_loop().time()
        result = await work
        typer.echo(f"  {what:<46} {asyncio.get_running_loop().time() - began:5.1f} s")
        return result

    def _start_processes(self) -> None:
        self._start("serve", ["serve", "--host", self.settings.http_host, "--port", str(self.settings.http_port)])
        self._start_worker(PLAN)
        self._start_worker(*(queue for queue in QUEUES if queue != PLAN), *((BOUNCES,) if self.settings.bounce_endpoint is not None else ()))

    def _start_worker(self, *queues: str) -> Child:
        port = self._free_metrics_port()
        words = ["worker", *(word for queue in queues for word in ("--queue", queue)), "--metrics-port", str(port)]
        child = self._start(" ".join(["worker", *queues]), words)
        self._ports[port] = child
        return child

    def _start(self, name: str, words: list[str], on_line: Callable[[str], None] | None = None, *, shielded: bool = False) -> Child:
        child = Child(name, words, env=self._environment(), pass_fds=[self._lifeline.fd], on_line=on_line, shielded=shielded)
        self._kept[child] = task = asyncio.create_task(child.keep())
        task.add_done_callback(lambda _: self._forget(child))
        return child

    def _forget(self, child: Child) -> None:
        self._kept.pop(child, None)
        self._ports = {port: owner for port, owner in self._ports.items() if owner is not child}

    def _environment(self) -> dict[str, str]:
        settings = self.settings
        return os.environ | {
            "VESTNIK_DATABASE_URL": settings.database_url,
            "VESTNIK_REDIS_URL": settings.redis_url,
            "VESTNIK_DATA_DIR": str(settings.data_dir),
            "VESTNIK_HTTP_HOST": settings.http_host,
            "VESTNIK_HTTP_PORT": str(settings.http_port),
        }

    def _free_metrics_port(self) -> int:
        """From the HTTP port + 1 on; a child that is started again keeps its own."""
        first = self.settings.http_port + 1
        return next((port for port in range(first, 65536) if port not in self._ports and is_free(self.settings.http_host, port)), first)

    async def _api_is_ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + READY_WITHIN
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            while asyncio.get_running_loop().time() < deadline:
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"{self.own_url}/health/ready")).is_success:
                        return
                await asyncio.sleep(0.05)
        raise NotReady(f"the API was not ready within {READY_WITHIN:.0f} s: its log above says why")

    @property
    def own_url(self) -> str:
        """Where this machine reaches the API, whatever its public address is."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.settings.http_host, self.settings.http_host)  # noqa: S104
        return f"http://{host}:{self.settings.http_port}"

    def _watch(self, work: Coroutine[Any, Any, None]) -> None:
        self._watches.append(asyncio.create_task(work))

    async def _keep_servers(self) -> None:
        while True:
            await asyncio.sleep(SERVERS_EVERY)
            for server in self._servers:
                name = type(server).__name__
                try:
                    if await _to_its_end(server.restart_if_dead):
                        log.warning("embedded_server_restarted", server=name)
                except (ServerError, OSError) as error:
                    log.error("embedded_server_down", server=name, error=str(error))
                    await asyncio.sleep(1)

    async def _follow_gateways(self) -> None:
        """Every enabled bind has its worker, and no other has one."""
        database = Database.of(self.settings, name="vestnik-up", pool_size=1)
        try:
            while True:
                self._look.clear()
                try:
                    self._match_binds(await wanted_binds(database))
                except (SQLAlchemyError, OSError) as error:
                    log.warning("gateways_not_read", error=type(error).__name__)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._look.wait(), LOOK_EVERY)
        finally:
            await database.close()

    def _match_binds(self, wanted: set[str]) -> None:
        for queue in self._binds.keys() - wanted:
            self._binds.pop(queue).end()
        for queue in sorted(wanted - self._binds.keys()):
            self._binds[queue] = self._start_worker(queue)

    async def _hear_of_gateways(self) -> None:
        """A notice for a bind that has no worker yet: a gateway was made just now."""

        def poke(queue: str) -> None:
            if queue.startswith("smpp:") and queue not in self._binds:
                self._look.set()

        await Wakeups(self.settings.redis_url).listen(poke)

    async def _end(self, children: list[Child], within: float) -> None:
        tasks = [self._kept[child] for child in children if child in self._kept]
        for child in children:
            child.end()
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=within)
        for child in [child for child, task in self._kept.items() if task in late]:
            log.warning("child_killed", child=child.name, reason=f"it did not end within {within:.0f} s")
            child.end(signal.SIGKILL)
        if late:
            await asyncio.wait(late)


async def _to_its_end(work: Callable[[], T]) -> T:
    """Run blocking work in a thread. Cancelled, wait for it all the same: a server half started could not be stopped."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(ServerError, OSError):
            await task
        raise
