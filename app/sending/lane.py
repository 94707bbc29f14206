"""A lane: one wire with its claiming loop and its flusher, as every station runs it."""

import asyncio
import contextlib
import time

import structlog

from app.sending.deliver import Delivery
from app.sending.flush import Flusher
from app.sending.smpp.bind import Bind
from app.sending.smtp.pool import Pool

log = structlog.get_logger()

WATCH = 1.0  # seconds between two looks at a gateway's revision
GRACE = 20.0  # seconds for what is on the wire when a station ends


class Lane:
    """Started together, drained in the order claim, wire, flush."""

    def __init__(self, wire: Bind | Pool, delivery: Delivery, flusher: Flusher) -> None:
        self.wire, self.delivery, self.flusher = wire, delivery, flusher
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(part.run()) for part in (self.wire, self.delivery, self.flusher)]

    async def stop(self, grace: float) -> None:
        """Claim no more; let the wire finish; write what came of it."""
        until = time.monotonic() + grace
        self.delivery.stop()
        await asyncio.wait({self._tasks[1]}, timeout=5)
        await self.wire.stop(max(1.0, until - time.monotonic() - 3))
        if not await self.flusher.drained(max(3.0, until - time.monotonic())):
            log.error("not_all_settled", gateway=self.flusher.policy.gateway)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def is_broken(self) -> bool:
        return any(task.done() for task in self._tasks)


async def pause(stopping: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)
