"""Who is asking: API keys with roles, cabinet tokens, and what each may do.

A key is `vst_<8 characters of its id>_<secret>`; the database has its SHA-256 alone (the secret is 256 random bits, so a slow hash would add nothing).
A cabinet token is a JWT of the subscriber's; it reaches `/api/v1/me` and nothing else.
"""

import hashlib
import hmac
import os
import secrets
import string
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, Literal

import jwt
import sqlalchemy as sa
from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import now
from app.core.config import Settings
from app.core.db import Database
from app.core.errors import Forbidden, Unauthorized
from app.core.jwks import KeySet
from app.core.models import ApiKey

Role = Literal["billing", "operator", "viewer", "admin"]

READS = frozenset(
    {"accounts:read", "templates:read", "messages:read", "gateways:read", "forecasts:read", "reports:read", "audit:read"},
)
WRITES = frozenset({"events:write", "accounts:write", "templates:write", "messages:write", "forecasts:run"})
SCOPES: dict[str, frozenset[str]] = {
    "billing": frozenset({"events:write", "accounts:read", "accounts:write"}),
    "operator": READS | WRITES,
    "viewer": READS,
    "admin": READS | WRITES | {"gateways:write", "admin"},
}
CABINET = "cabinet"

Network = IPv4Network | IPv6Network

ALPHABET = string.ascii_letters + string.digits
CACHE_SECONDS = 2.0  # how long another process may still take a revoked key; this one forgets it at once
USED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much a key may ask: requests in a second with a burst, and events (or other requests) in a day. Nothing: any number."""

    key_id: str
    rate_per_second: float | None
    burst: int | None
    daily_quota: int | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `name` goes into the audit: `key:ab12cd34` or `subscriber`."""

    name: str
    scopes: frozenset[str]
    account: str | None = None  # the number, for a cabinet token
    test: bool = False  # what it sends goes to the simulated gateway, and never out
    allowance: Allowance | None = None  # of a key that has one

    @property
    def key_id(self) -> str:
        """The id of the key; of a subscriber it is the id of none."""
        return self.name.removeprefix("key:")


@dataclass(slots=True)
class _Known:
    row: ApiKey
    until: float
    networks: Sequence[Network]
    caller: Caller


@dataclass(slots=True)
class Gatekeeper:
    """Turns an Authorization header into a Caller. Remembers keys for two seconds, so that a thousand requests a second are no thousand queries."""

    settings: Settings
    database: Database
    known: dict[str, _Known] = field(default_factory=dict)
    keys: KeySet | None = None
    peers_are_sure: bool = field(default_factory=lambda: not anybody_names_a_peer(os.environ.get("FORWARDED_ALLOW_IPS", "")))

    def __post_init__(self) -> None:
        if self.settings.jwt_jwks_url:
            self.keys = KeySet(self.settings.jwt_jwks_url)

    async def identify(self, authorization: str | None, peer: str = "") -> Caller:
        """The caller, or Unauthorized; Forbidden for a key that may not be used at this address. `peer` is the address of whoever asks, as the server
        knows it."""
        scheme, _, credentials = (authorization or "").partition(" ")
        credentials = credentials.strip()
        if scheme.lower() != "bearer" or not credentials:
            raise Unauthorized("Send `Authorization: Bearer` with a key or a cabinet token.", code="missing_credentials")
        if credentials.startswith("vst_"):
            return await self._by_key(credentials, peer)
        return await self._by_token(credentials)

    def forget(self, key_id: str) -> None:
        self.known.pop(key_id, None)

    async def _by_key(self, key: str, peer: str) -> Caller:
        parts = key.split("_", 2)
        if len(parts) != 3 or len(parts[1]) != 8 or not key.isascii():
            raise Unauthorized("This is no key of ours.", code="bad_key")
        found, given = await self._found(parts[1]), digest(key)
        if found is not None and not hmac.compare_digest(given, found.row.digest):
            found = await self._rotated(found, given)
        if found is None:
            raise Unauthorized("This key is not known.", code="bad_key")
        row = found.row
        if row.revoked_at is not None:
            raise Unauthorized("This key was revoked.", code="key_revoked")
        if row.expires_at is not None and row.expires_at <= now():
            raise Unauthorized("This key has expired.", code="key_expired")
        if found.networks and not self.peers_are_sure:
            raise Forbidden("This key has networks, and with FORWARDED_ALLOW_IPS=* anybody names himself what address he likes.", code="client_address_unsure")
        if found.networks and not is_within(peer, found.networks):
            raise Forbidden("This key may not be used from this address: see its allowed_networks.", code="network_not_allowed")
        return found.caller

    async def _rotated(self, known: _Known, given: bytes) -> _Known | None:
        """What is known of the key when this is its secret after all: a newer one than the one that is remembered, or the one before while that is taken."""
        row = known.row
        if row.old_digest is not None and row.old_until is not None and row.old_until > now() and hmac.compare_digest(given, row.old_digest):
            return known
        self.forget(row.id)
        found = await self._found(row.id)
        if found is None or hmac.compare_digest(given, found.row.digest):
            return found
        old, until = found.row.old_digest, found.row.old_until
        if old is None or until is None or not hmac.compare_digest(given, old):
            return None
        if until <= now():
            raise Unauthorized("This secret was replaced, and its time is over: use the new one.", code="key_rotated")
        return found

    async def _found(self, key_id: str) -> _Known | None:
        found = self.known.get(key_id)
        if found is not None and found.until > time.monotonic():
            return found
        async with self.database.transaction() as session:
            row = await session.get(ApiKey, key_id)
            if row is None:
                return None
            if row.revoked_at is None and (row.last_used_at is None or now() - row.last_used_at > USED_EVERY):
                await session.execute(sa.update(ApiKey).where(sa.column("id") == key_id).values(last_used_at=now()))
        if len(self.known) > 10_000:
            self.known.clear()
        found = self.known[key_id] = _Known(row, time.monotonic() + CACHE_SECONDS, networks_of(row), caller_of(row))
        return found

    async def _by_token(self, token: str) -> Caller:
        try:
            claims = await self._claims(token)
        except jwt.ExpiredSignatureError:
            raise Unauthorized("This token has expired: sign in again.", code="token_expired") from None
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise Unauthorized("This token is not valid.", code="bad_token") from None
        account = claims.get(self.settings.jwt_account_claim)
        if not isinstance(account, str) or not account or len(account) > 64 or "\0" in account:
            raise Unauthorized(f"The token names no account in `{self.settings.jwt_account_claim}`.", code="bad_token")
        return Caller("subscriber", frozenset({CABINET}), account)

    async def _claims(self, token: str) -> dict[str, Any]:
        # The algorithm is pinned by the source of the key, never by the token: no `none`, no HS256 with a public key as its secret.
        checks: dict[str, Any] = {
            "audience": self.settings.jwt_audience,
            "leeway": 30,
            "options": {"require": ["exp", "aud"] + (["iss"] if self.settings.jwt_issuer else [])},
        }
        if self.settings.jwt_issuer:
            checks["issuer"] = self.settings.jwt_issuer
        if self.keys is not None:
            key, algorithms = await self.keys.for_token(token)
            return jwt.decode(token, key, algorithms=algorithms, **checks)
        if not self.settings.jwt_secret:
            raise jwt.InvalidTokenError
        return jwt.decode(token, self.settings.jwt_secret, algorithms=["HS256"], **checks)


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def caller_of(row: ApiKey) -> Caller:
    """Whoever has this key."""
    is_limited = row.rate_per_second is not None or row.daily_quota is not None
    allowance = Allowance(row.id, row.rate_per_second, row.burst, row.daily_quota) if is_limited else None
    return Caller(f"key:{row.id}", SCOPES[row.role], test=row.test, allowance=allowance)


def networks_of(row: ApiKey) -> Sequence[Network]:
    """Where the key may be used; nothing: anywhere."""
    return tuple(ip_network(written) for written in row.allowed_networks)


def anybody_names_a_peer(trusted: str) -> bool:
    """Whether uvicorn takes X-Forwarded-For from everybody (its FORWARDED_ALLOW_IPS): then an address proves nothing."""
    return any(entry == "*" or entry.endswith("/0") for entry in map(str.strip, trusted.split(",")))


def is_within(peer: str, networks: Sequence[Network]) -> bool:
    """Whether an address is in one of these networks. One that is not known (a socket of this machine) is in none."""
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address  # as a socket for both families names a client of the older one
    return any(address in network for network in networks)


def new_secret(key_id: str) -> str:
    """A whole key of this id: 256 random bits behind it."""
    return f"vst_{key_id}_{secrets.token_urlsafe(32)}"


async def create_key(session: AsyncSession, name: str, role: Role, expires_at: datetime | None = None, **limits: Any) -> tuple[str, ApiKey]:
    """A new key and its row; `limits` are further columns of it. The key is shown this once: nobody can read it afterwards."""
    key_id = "".join(secrets.choice(ALPHABET) for _ in range(8))
    key = new_secret(key_id)
    row = ApiKey(id=key_id, digest=digest(key), name=name, role=role, expires_at=expires_at, **limits)
    session.add(row)
    await session.flush()
    return key, row


def cabinet_token(settings: Settings, account: str, ttl: int = 3600) -> str:
    """A cabinet token for local runs and tests, signed with the HS256 secret."""
    issued = int(time.time())
    claims: dict[str, Any] = {"sub": account, settings.jwt_account_claim: account, "aud": settings.jwt_audience, "iat": issued, "exp": issued + ttl}
    if settings.jwt_issuer:
        claims["iss"] = settings.jwt_issuer
    return jwt.encode(claims, settings.jwt_secret, algorithm="HS256")


class RequiresScope:
    """A dependency that hands over the caller when he has the scope. `Guarded` routes look at `scope` before they read the body."""

    def __init__(self, scope: str) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Caller:  # not for waiting: what is no coroutine is run in a thread, which costs more than all that it does
        return self.check(request.scope["caller"])

    def check(self, caller: Caller) -> Caller:
        if self.scope not in caller.scopes:
            raise Forbidden(f"This needs the scope {self.scope}.", code="missing_scope")
        return caller


def may(scope: str) -> Any:
    return Depends(RequiresScope(scope))


# A route's signature says who may call it: `caller: MayReadAccounts`.
MayWriteEvents = Annotated[Caller, may("events:write")]
MayReadAccounts = Annotated[Caller, may("accounts:read")]
MayWriteAccounts = Annotated[Caller, may("accounts:write")]
MayReadTemplates = Annotated[Caller, may("templates:read")]
MayWriteTemplates = Annotated[Caller, may("templates:write")]
MayReadMessages = Annotated[Caller, may("messages:read")]
MayWriteMessages = Annotated[Caller, may("messages:write")]
MayReadGateways = Annotated[Caller, may("gateways:read")]
MayWriteGateways = Annotated[Caller, may("gateways:write")]
MayReadForecasts = Annotated[Caller, may("forecasts:read")]
MayReadReports = Annotated[Caller, may("reports:read")]
MayRunForecasts = Annotated[Caller, may("forecasts:run")]
MayReadAudit = Annotated[Caller, may("audit:read")]
Admin = Annotated[Caller, may("admin")]
Subscriber = Annotated[Caller, may(CABINET)]
