"""A worker's own port: /metrics for Prometheus, /health and /health/ready for whoever supervises it; for the same networks as the API's metrics.

/health says 503 when the process should be started again, /health/ready when it cannot work just now. Both tell why as JSON."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.core.config import Settings

LONGEST_HEAD = 8192
METRICS, ALIVE, READY = b"/metrics", b"/health", b"/health/ready"


@dataclass(frozen=True, slots=True)
class ProcessHealth:
    """`is_alive`: starting it again would not help. `is_ready`: it can do its work now. `detail` has no secrets and no personal data."""

    is_alive: bool
    is_ready: bool
    detail: dict[str, Any]

    def answer(self, path: bytes) -> tuple[str, bytes]:
        well = self.is_ready if path == READY else self.is_alive
        said = {"status": "ok" if self.is_alive and self.is_ready else "not_ready" if self.is_alive else "failing", **self.detail}
        return "200 OK" if well else "503 Service Unavailable", orjson.dumps(said)


class MetricsPort:
    """`start(None)` serves nothing; `start(0)` takes a free port."""

    def __init__(self, settings: Settings, health: Callable[[], ProcessHealth] = lambda: ProcessHealth(is_alive=True, is_ready=True, detail={})) -> None:
        self._settings, self._health = settings, health
        self._server: asyncio.Server | None = None

    async def start(self, port: int | None) -> int | None:
        """The port that it listens on."""
        if port is None:
            return None
        self._server = await asyncio.start_server(self._serve, self._settings.http_host, port, limit=LONGEST_HEAD)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, ValueError):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            method, path, _ = head.split(b" ", 2)
            path, kind = path.partition(b"?")[0], CONTENT_TYPE_LATEST
            peer = ip_address(writer.get_extra_info("peername")[0])
            peer = getattr(peer, "ipv4_mapped", None) or peer  # how an IPv4 peer looks to a server that listens on ::
            if not any(peer in network for network in self._settings.metrics_networks):
                status, body = "403 Forbidden", b""
            elif method not in (b"GET", b"HEAD") or path not in (METRICS, ALIVE, READY):
                status, body = "404 Not Found", b""
            elif path != METRICS:
                (status, body), kind = self._health().answer(path), "application/json"
            else:
                status, body = "200 OK", generate_latest()
            said = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(said.encode() + (body if method != b"HEAD" else b""))
            await writer.drain()
        writer.close()
