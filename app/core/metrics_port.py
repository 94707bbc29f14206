"""A worker's own /metrics: a port, one path, the same networks as the API's."""

import asyncio
import contextlib
from ipaddress import ip_address

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.core.config import Settings

LONGEST_HEAD = 8192


class MetricsPort:
    """`start(None)` serves nothing; `start(0)` takes a free port."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
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
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            words = head.split(b" ", 2)
            peer = ip_address(writer.get_extra_info("peername")[0])
            peer = getattr(peer, "ipv4_mapped", None) or peer  # how an IPv4 peer looks to a server that listens on ::
            if not any(peer in network for network in self._settings.metrics_networks):
                status, body = "403 Forbidden", b""
            elif words[0] not in (b"GET", b"HEAD") or words[1].partition(b"?")[0] != b"/metrics":
                status, body = "404 Not Found", b""
            else:
                status, body = "200 OK", generate_latest()
            said = f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE_LATEST}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(said.encode() + (body if words[0] != b"HEAD" else b""))
            await writer.drain()
        writer.close()
