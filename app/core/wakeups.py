"""Wake-ups: "there is work in this queue". They carry nothing, so one may come twice, late or never.

The row in PostgreSQL is the work. Three roads bring the news: a Redis notice at once (leading edge), an arq job at the end of a time bucket
(trailing edge: a thousand requests a second cost five jobs), and the sweeper and the workers' own slow look-round (the guarantee, also with Redis down).
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import structlog
from arq.connections import ArqRedis, RedisSettings, create_pool
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

log = structlog.get_logger()

CHANNEL = "vestnik:wake"
BUCKET = 0.2  # seconds: the trailing edge
PAUSE = 0.02  # seconds between two notices of one process
PLAN, MAIL, CRON, SCAN, BOUNCES, REPORTS, WEBHOOKS, SIMULATIONS = "plan", "mail", "cron", "scan", "bounces", "reports", "webhooks", "simulated"
QUEUES = (PLAN, MAIL, CRON, SCAN, REPORTS, WEBHOOKS, SIMULATIONS)  # of every installation; bounces where they are listened for, and one for each bind
FAULTS = (RedisError, OSError, asyncio.TimeoutError)


def bind_queue(gateway: str, slot: int) -> str:
    return f"smpp:{gateway}:{slot}"


def pack(value: Any) -> bytes:
    """arq's jobs as JSON: the default is pickle, and whoever can write to Redis could then run code here. An exception becomes its text."""
    return orjson.dumps(value, default=str)


def unpack(octets: bytes) -> Any:
    return orjson.loads(octets)


def redis_settings(url: str, *, patient: bool = True) -> RedisSettings:
    """arq's settings of a `redis://`, `rediss://`, `unix://` or `redis+sentinel://host1,host2:26379/master` URL. `patient` ones outlive a blip of half a minute."""
    if url.startswith("redis+sentinel://"):
        parts = urlsplit(url)
        hosts = [(h.partition(":")[0], int(h.partition(":")[2] or 26379)) for h in parts.netloc.rpartition("@")[2].split(",")]
        settings = RedisSettings(host=hosts, sentinel=True, sentinel_master=parts.path.lstrip("/") or "mymaster", password=parts.password)
        settings.database = int(parse_qs(parts.query).get("db", ["0"])[0])
    else:
        settings = RedisSettings.from_dsn(url)
    settings.conn_timeout = 5 if patient else 1
    settings.conn_retries = 5 if patient else 0
    if patient:
        settings.retry = Retry(ExponentialBackoff(cap=2, base=0.05), 20)
        settings.retry_on_error = [ConnectionError, TimeoutError, ConnectionRefusedError]
    return settings


async def connect(url: str) -> ArqRedis:
    """A pool of connections that waits for nobody: whoever asks can do without. One of FAULTS when there is no Redis."""
    return await create_pool(redis_settings(url, patient=False), job_serializer=pack, job_deserializer=unpack)


class Wakeups:
    """`wake(queue)` never blocks and never fails. Redis down costs a warning; the work goes on by the slow look-round."""

    def __init__(self, url: str, *, direct: Callable[[str], bool] | None = None) -> None:
        self._url = url
        self._direct = direct  # the stations of this very process: no way over Redis for them
        self._pending: set[str] = set()
        self._buckets: dict[str, int] = {}
        self._flusher: asyncio.Task[None] | None = None
        self._redis: ArqRedis | None = None
        self._silent_until = 0.0

    def wake(self, *queues: str) -> None:
        """Say that these queues have work. Call it after the commit."""
        self._pending.update(queue for queue in queues if not (self._direct and self._direct(queue)))
        if self._pending and (self._flusher is None or self._flusher.done()):
            self._flusher = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        while self._pending:
            queues, self._pending = self._pending, set()
            try:
                await asyncio.wait_for(self._send(queues), 2)
            except FAULTS as error:
                await self._lost(error)
            await asyncio.sleep(PAUSE)

    async def _send(self, queues: set[str]) -> None:
        if time.monotonic() < self._silent_until:
            return
        if self._redis is None:
            self._redis = await connect(self._url)
        for queue in queues:
            await self._redis.publish(CHANNEL, queue)
            bucket = int(time.time() / BUCKET)
            if self._buckets.get(queue) != bucket:
                self._buckets[queue] = bucket
                await self._redis.enqueue_job("wake", _queue_name=f"vestnik:{queue}", _job_id=f"{queue}:{bucket}", _defer_by=BUCKET, _expires=60)

    async def _lost(self, error: BaseException) -> None:
        self._silent_until = time.monotonic() + 1
        redis, self._redis = self._redis, None
        self._buckets.clear()
        log.warning("redis_unreachable", error=type(error).__name__, consequence="wake-ups come by the slow look-round")
        if redis is not None:
            with contextlib.suppress(*FAULTS):
                await redis.aclose(close_connection_pool=True)

    async def listen(self, poke: Callable[[str], object]) -> None:
        """Hand every notice to `poke`, for ever, over every loss of the connection."""
        while True:
            redis: ArqRedis | None = None
            try:
                redis = await create_pool(redis_settings(self._url, patient=False))
                async with redis.pubsub() as inbox:
                    await inbox.subscribe(CHANNEL)
                    async for notice in inbox.listen():
                        if notice["type"] == "message":
                            poke(notice["data"].decode("utf-8", "replace"))
            except FAULTS:
                await asyncio.sleep(0.5)
            finally:
                if redis is not None:
                    with contextlib.suppress(*FAULTS):
                        await redis.aclose(close_connection_pool=True)

    async def close(self) -> None:
        if self._flusher is not None:
            with contextlib.suppress(*FAULTS):
                await asyncio.wait_for(asyncio.shield(self._flusher), 2)
        if self._redis is not None:
            with contextlib.suppress(*FAULTS):
                await self._redis.aclose(close_connection_pool=True)
