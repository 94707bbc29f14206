"""HTTP to addresses that somebody else has chosen: nowhere but where it may go, nothing but a bounded answer, and no redirects.

A name is resolved here, each address is judged, and the connection is made to the address that was judged: a name that resolves to something else a moment
later (DNS rebinding) changes nothing. TLS still checks the certificate against the name.
"""

import asyncio
import re
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal
from urllib.parse import urlsplit

import httpx

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

RESOLVED_FOR = 30.0  # seconds for which an address that was judged is used again
RESOLVE = 5.0  # seconds that a name may take
# What an IPv6 address may carry an IPv4 address in: NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056), IPv4-compatible (RFC 4291, 2.5.5.1).
NAT64 = ip_network("64:ff9b::/96")
NAT64_LOCAL = ip_network("64:ff9b:1::/48")
SIX_TO_FOUR = ip_network("2002::/16")
COMPATIBLE = ip_network("::/96")
TEREDO = ip_network("2001::/32")
# What `ipaddress` takes for public in some of its versions: IANA's registries of special-purpose addresses (RFC 6890), site-local ones (RFC 3879), and by
# its number a public one, the wire server of Azure's machines.
NOT_PUBLIC = [
    ip_network(network)
    for network in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "fec0::/10", "2001::/23", "3fff::/20", "5f00::/16", "100::/64", "100:0:0:1::/64")
]
LOWEST_PORT = 1024  # besides 80 and 443: below it live mail, shells and files
NAME = re.compile(r"[A-Za-z0-9._-]+")


class DestinationRefused(Exception):
    """We do not connect there. `code` is for programs, the text says why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


@dataclass(frozen=True, slots=True)
class Answer:
    """What the far side said: the beginning of its body, undecoded, and the header that counts."""

    status: int
    body: bytes
    retry_after: str | None


@dataclass(frozen=True, slots=True)
class Rules:
    """Where we may go. `private` lists the networks that are no public ones and are allowed all the same."""

    private: Sequence[Network] = ()
    plain_http: bool = False


def check_url(url: str, rules: Rules) -> None:
    """DestinationRefused for a URL that is none of ours to call, as far as that can be seen without a look at the DNS."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise DestinationRefused("bad_url", "Write the URL in ASCII, without spaces and backslashes: encode what is not (RFC 3986).")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        raise DestinationRefused("bad_url", "This is no URL.") from None
    if parts.scheme not in ("https", "http") or not host:
        raise DestinationRefused("bad_url", "Give an absolute URL that begins with https://.")
    if parts.scheme == "http" and not rules.plain_http:
        raise DestinationRefused("https_needed", "Give an https:// URL: over plain HTTP anybody on the way can read it.")
    if parts.username is not None or parts.password is not None:
        raise DestinationRefused("credentials_in_url", "Leave user name and password out of the URL: the signature says who we are.")
    if parts.fragment:
        raise DestinationRefused("bad_url", "Leave the part after # out: it is never sent.")
    if port is not None and port not in (80, 443) and not LOWEST_PORT <= port <= 65535:
        raise DestinationRefused("port_refused", f"Port {port} is refused: use 80, 443, or one from {LOWEST_PORT} on.")
    literal = as_address(host)
    if literal is None and not NAME.fullmatch(host):
        raise DestinationRefused("bad_url", "The host is neither a name nor an address.")
    if literal is not None and not may_connect(literal, rules.private):
        raise refused_address()


def as_address(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def refused_address() -> DestinationRefused:
    return DestinationRefused(
        "address_refused", "This host is at an address that is not public; VESTNIK_WEBHOOK_ALLOW_PRIVATE lists networks that are allowed."
    )


def may_connect(address: Address, private: Sequence[Network]) -> bool:
    """Whether this address is public, or in a network that is allowed by name. An IPv4 address inside an IPv6 one is judged as itself."""
    address = unwrapped(address)
    if any(address.version == network.version and address in network for network in private):
        return True
    if any(address.version == network.version and address in network for network in NOT_PUBLIC):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def unwrapped(address: Address) -> Address:
    """The IPv4 address that this one leads to, or itself. One that hides its destination becomes the unspecified address, which is never public."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in NAT64 or (address in COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address in SIX_TO_FOUR:
        return IPv4Address((int(address) >> 80) & 0xFFFFFFFF)
    if address in NAT64_LOCAL or address in TEREDO:
        return IPv4Address(0)
    return address if address.scope_id is None else IPv6Address(int(address))


@dataclass(slots=True)
class Outgoing:
    """A client for one URL: its connections are used by nobody else. `close` it.

    Neither proxies nor credentials of the environment are used, cookies are not kept, redirects are an answer like any other."""

    url: str
    rules: Rules
    timeout: float
    connections: int = 1
    tls: ssl.SSLContext | None = None
    _client: httpx.AsyncClient = field(init=False)
    _pinned: str = ""
    _until: float = 0.0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._client = httpx.AsyncClient(
            verify=self.tls or shared_tls(),
            trust_env=False,
            follow_redirects=False,
            timeout=self.timeout,
            limits=httpx.Limits(max_connections=self.connections, max_keepalive_connections=self.connections, keepalive_expiry=20),
        )

    async def send(self, method: Literal["GET", "POST"], headers: Mapping[str, str], body: bytes = b"", *, most: int = 4096) -> Answer:
        """The answer, with `most` octets of its body at the most. DestinationRefused, httpx.HTTPError, TimeoutError (all of it took longer than `timeout`)
        or OSError. What the far side sends beyond that is never read."""
        async with asyncio.timeout(self.timeout):
            request = await self._request(method, headers, body)
            response = await self._client.send(request, stream=True)
            try:
                return Answer(response.status_code, await beginning(response, most), response.headers.get("retry-after"))
            finally:
                self._client.cookies.clear()
                await response.aclose()

    async def _request(self, method: str, headers: Mapping[str, str], body: bytes) -> httpx.Request:
        """The request to the address that was judged: the name stays in Host, and in what TLS asks for."""
        check_url(self.url, self.rules)
        named = httpx.URL(self.url)
        host = named.raw_host.decode("ascii")  # as it is written: `host` would decode it, and to encode it anew may make another name
        pinned = named.copy_with(host=await self._address(host, named.port or (443 if named.scheme == "https" else 80)))
        made = {"Host": named.netloc.decode("ascii"), "Accept": "*/*", "Accept-Encoding": "identity"} | dict(headers)
        extensions = {"sni_hostname": host} if named.scheme == "https" and as_address(host) is None else {}
        return self._client.build_request(method, pinned, headers=made, content=body, extensions=extensions)

    async def _address(self, host: str, port: int) -> str:
        async with self._lock:
            if time.monotonic() > self._until:
                self._pinned, self._until = await resolve(host, port, self.rules), time.monotonic() + RESOLVED_FOR
            return self._pinned

    async def close(self) -> None:
        await self._client.aclose()


async def resolve(host: str, port: int, rules: Rules) -> str:
    """The first address of this name that we may connect to. DestinationRefused when there are others only; OSError when there is none."""
    loop = asyncio.get_running_loop()
    found = await asyncio.wait_for(loop.run_in_executor(resolvers(), lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)), RESOLVE)
    for *_, sockaddr in found:
        address = ip_address(str(sockaddr[0]))
        if may_connect(address, rules.private):
            return str(address)
    raise refused_address()


async def beginning(response: httpx.Response, most: int) -> bytes:
    """The first octets of a body. The rest stays unread, and the connection is closed."""
    read = b""
    async for piece in response.aiter_raw(most):
        read += piece
        if len(read) >= most:
            break
    return read[:most]


@cache
def resolvers() -> ThreadPoolExecutor:
    """Names are looked up in threads of their own: a resolver that hangs takes none from the rest of the process."""
    return ThreadPoolExecutor(max_workers=8, thread_name_prefix="resolve")


@cache
def shared_tls() -> ssl.SSLContext:
    """One context a process, for the list of authorities takes 20 ms to read: that of the packaged list, or of SSL_CERT_FILE and SSL_CERT_DIR."""
    return httpx.create_ssl_context()
