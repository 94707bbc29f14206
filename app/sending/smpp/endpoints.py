"""From the name of a gateway to a connected socket: resolved anew each time, address after address, from where the profile says."""

import asyncio
import errno
import os
import socket
import struct
from typing import Any

from app.gateways.hosts import Endpoint
from app.gateways.profile import Profile

_LONGEST_IDLE = 32_767  # seconds that Linux takes for TCP_KEEPIDLE
_PROBES = 4  # unanswered keep-alive probes that end a connection
_GIVE_UP_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: on, no seconds


async def dial(endpoint: Endpoint, profile: Profile, *, source_port: int = 0) -> socket.socket:
    """A connected socket, within `connect_timeout` for all addresses of the name together. OSError says what was tried and how it went."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + profile.connect_timeout
    addresses = await _resolved(endpoint, profile, deadline)
    failures: list[str] = []
    for index, (family, address) in enumerate(addresses):
        share = (deadline - loop.time()) / (len(addresses) - index)
        try:
            async with asyncio.timeout(max(share, 0)):
                return await _connected(family, address, profile, source_port)
        except TimeoutError:
            failures.append(f"{_written(address)}: no answer within {share:.2g} s")
        except OSError as error:
            failures.append(f"{_written(address)}: {_reason(error)}")
    raise OSError("; ".join(failures))


def proxy_line(connection: socket.socket) -> bytes:
    """The first line for a balancer that asks for PROXY protocol, version 1: where this connection comes from and goes to."""
    (here, our_port, *_), (there, their_port, *_) = connection.getsockname(), connection.getpeername()
    kind = "TCP6" if connection.family == socket.AF_INET6 else "TCP4"
    return f"PROXY {kind} {here} {there} {our_port} {their_port}\r\n".encode()


async def _resolved(endpoint: Endpoint, profile: Profile, deadline: float) -> list[tuple[int, Any]]:
    """Family and address of everything that the name stands for now, each once, in the resolver's order."""
    host, port = endpoint
    family = socket.AF_UNSPEC
    if profile.source_ip:
        family = socket.AF_INET6 if ":" in profile.source_ip else socket.AF_INET
    try:
        async with asyncio.timeout_at(deadline):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except TimeoutError as error:
        raise OSError(f"{host}: the name was not resolved within {profile.connect_timeout:g} s") from error
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(f"{host}: the name cannot be resolved ({getattr(error, 'strerror', None) or error})") from error
    return list(dict.fromkeys((kind, address) for kind, _, _, _, address in found))


async def _connected(family: int, address: Any, profile: Profile, source_port: int) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if profile.tcp_keepalive:
            _keep_alive(connection, max(1, min(int(profile.tcp_keepalive), _LONGEST_IDLE)))
        if profile.source_ip or source_port:
            _come_from(connection, profile.source_ip or ("::" if family == socket.AF_INET6 else "0.0.0.0"), source_port)  # noqa: S104 - an end of our own, nothing listens
        await asyncio.get_running_loop().sock_connect(connection, address)
        if profile.proxy_protocol:
            await asyncio.get_running_loop().sock_sendall(connection, proxy_line(connection))
    except BaseException:
        connection.close()
        raise
    return connection


def _keep_alive(connection: socket.socket, idle: int) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", idle), ("TCP_KEEPINTVL", max(1, idle // _PROBES)), ("TCP_KEEPCNT", _PROBES)):
        if (option := getattr(socket, name, None)) is not None:  # not everywhere
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _come_from(connection: socket.socket, ip: str, port: int) -> None:
    if port > 65_535:
        raise OSError(f"source_port {port}: there is no such port; each connection of the gateway takes the next one")
    if port:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # A connection that is closed in good order keeps its port for a minute, and the next one could not have it.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _GIVE_UP_AT_ONCE)
    try:
        connection.bind((ip, port))
    except OSError as error:
        raise OSError(f"source_ip {ip}, source_port {port}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if error.errno == errno.EADDRNOTAVAIL:
        return "the address or port to connect from is not to be had on this machine"
    return os.strerror(error.errno) if error.errno else str(error) or type(error).__name__


def _written(address: Any) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
