"""An endpoint of a billing: a small HTTP server on the loopback that answers as it is told to, and remembers what came."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from standardwebhooks.webhooks import Webhook as Verifier

Behaviour = Callable[["Received", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified_by(self, secret: str) -> Any:
        """As a receiver of the billing would do it, with the package that others use."""
        return Verifier(secret).verify(self.body, self.headers)


def says(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    async def behave(_: Received, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} Said", f"content-length: {len(body)}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return behave


def writes(octets: bytes, *, for_ever: bool = False, pause: float = 0.0) -> Behaviour:
    """Raw octets; `for_ever` again and again, until the other side has had enough."""

    async def behave(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(octets)
        while for_ever:
            await writer.drain()
            await asyncio.sleep(pause)
            writer.write(octets[-1000:])

    return behave


async def hangs(_: Received, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


class FarEndpoint:
    """`behaviours` are used up one by one; then it answers as `usual`."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.behaviours: list[Behaviour] = []
        self.usual: Behaviour = says(204)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"

    async def start(self, **more: Any) -> "FarEndpoint":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, **more)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                received = Received(head[0].split(" ")[1], headers, body)
                self.received.append(received)
                behave = self.behaviours.pop(0) if self.behaviours else self.usual
                await behave(received, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
