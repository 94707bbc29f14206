"""What a process knows of the ground that it stands on, for its metrics: looked at every ten seconds, so that a scrape asks nobody and never fails."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import cast

import sqlalchemy as sa
import structlog
from arq.connections import ArqRedis
from sqlalchemy import QueuePool
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import metrics
from app.core.db import Database
from app.core.wakeups import BOUNCES, FAULTS, QUEUES, connect

log = structlog.get_logger()

EVERY = 10.0  # seconds between two looks
PATIENCE = 3.0  # seconds after which what has not answered counts as away

CLOCK = sa.text("SELECT extract(epoch FROM clock_timestamp())")
WORKERS = sa.text("SELECT queues FROM worker_process WHERE seen_at > now() - interval '60 seconds'")

Look = Callable[[AsyncSession], Awaitable[None]]


class Pulse:
    """Of one process: its pool, its database, its Redis, its clock. `looks` are asked too, while the database answers; with `queues` also Redis' queues."""

    def __init__(self, database: Database, redis_url: str, *looks: Look, queues: bool = False) -> None:
        self._database, self._redis_url, self._looks, self._queues = database, redis_url, looks, queues
        self._redis: ArqRedis | None = None
        self._task: asyncio.Task[None] | None = None
        self._pool = cast("QueuePool", database.engine.pool)
        self._most = 2 * self._pool.size()  # as many again may be opened beyond the pool's size
        metrics.DATABASE_CONNECTIONS_MOST.set(self._most)
        # Two numbers in memory: they are read at the scrape.
        metrics.DATABASE_CONNECTIONS.labels("in_use").set_function(self._pool.checkedout)
        metrics.DATABASE_CONNECTIONS.labels("idle").set_function(self._pool.checkedin)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="pulse")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._drop_redis()

    async def _run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Raises nothing: what fails is what is shown."""
        await asyncio.gather(self._look_at_database(), self._look_at_redis())

    async def _look_at_database(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE), self._database.transaction() as session:
                asked = time.time()
                theirs = float((await session.execute(CLOCK)).scalar_one())
                metrics.CLOCK_SKEW.set((asked + time.time()) / 2 - theirs)
                metrics.DATABASE_UP.set(1)
                for look in self._looks:
                    await look(session)
        except Exception as error:
            # With every connection of ours at work nothing is known of the database.
            if self._pool.checkedout() < self._most:
                metrics.DATABASE_UP.set(0)
            log.warning("pulse_database", error=type(error).__name__)

    async def _look_at_redis(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                if self._redis is None:
                    self._redis = await connect(self._redis_url)
                await self._redis.ping()
                if self._queues:
                    for queue in QUEUES:
                        metrics.WAKEUPS_WAITING.labels(queue).set(await self._redis.zcard(f"vestnik:{queue}"))
            metrics.REDIS_UP.set(1)
        except Exception as error:
            metrics.REDIS_UP.set(0)
            log.warning("pulse_redis", error=type(error).__name__)
            await self._drop_redis()

    async def _drop_redis(self) -> None:
        redis, self._redis = self._redis, None
        if redis is not None:
            with contextlib.suppress(*FAULTS):
                await redis.aclose(close_connection_pool=True)


async def see_workers(session: AsyncSession) -> None:
    """How many processes serve each queue. A bind's own queue counts as `smpp`: binds have metrics of their own."""
    alive = Counter(dict.fromkeys(QUEUES, 0))
    for (queues,) in await session.execute(WORKERS):
        served = set(QUEUES if queues == "all" else (queue.partition(":")[0] for queue in queues.split(",")))
        alive.update(served & {*QUEUES, BOUNCES, "smpp"})
    for queue, number in alive.items():
        metrics.WORKERS.labels(queue).set(number)
    for (queue,) in set(metrics.WORKERS._metrics) - {(queue,) for queue in alive}:  # noqa: SLF001 - the series that it has
        metrics.WORKERS.labels(queue).set(0)
