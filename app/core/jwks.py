"""Public keys of whoever signs cabinet tokens: fetched when a new key id turns up, not on every request."""

import asyncio
import time
from typing import Any

import httpx
import jwt
import structlog

from app.core.errors import Unavailable

log = structlog.get_logger()

FETCH_EVERY = 60.0  # seconds between two fetches at the least: a stranger's key ids must not make us a load
LONGEST_AGE = 600.0  # seconds after which a key that was withdrawn is no longer taken
MAX_DOCUMENT = 1 << 20

# Never HS*: a public key is no secret.
ALGORITHMS = {"RSA": ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"], "EC": ["ES256", "ES384", "ES512"], "OKP": ["EdDSA"]}


class KeySet:
    """The JWK Set (RFC 7517) behind one URL."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: dict[str, Any] = {}
        self._fetched = self._asked = -LONGEST_AGE
        self._lock = asyncio.Lock()

    async def for_token(self, token: str) -> tuple[Any, list[str]]:
        """The key that the token's header names, and the algorithms of that kind of key. jwt.InvalidKeyError when there is none."""
        kid = jwt.get_unverified_header(token).get("kid")
        if not isinstance(kid, str):
            raise jwt.InvalidKeyError
        if kid not in self._keys or self._age > LONGEST_AGE:
            async with self._lock:
                if (kid not in self._keys or self._age > LONGEST_AGE) and time.monotonic() - self._asked > FETCH_EVERY:
                    await self._fetch(needed=kid not in self._keys)
        if kid not in self._keys:
            raise jwt.InvalidKeyError
        jwk = self._keys[kid]
        return jwk.key, ALGORITHMS[jwk.key_type]

    @property
    def _age(self) -> float:
        return time.monotonic() - self._fetched

    async def _fetch(self, *, needed: bool) -> None:
        """Read the document. Out of reach: the keys that we have serve on, and only who needs a new one is told to come again (Unavailable)."""
        self._asked = time.monotonic()
        try:
            async with httpx.AsyncClient(timeout=5, follow_redirects=False) as client:
                answer = await client.get(self._url)
                answer.raise_for_status()
                if len(answer.content) > MAX_DOCUMENT:
                    raise ValueError
                listed = answer.json()["keys"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            log.warning("jwks_unreachable", error=type(error).__name__)
            if needed:
                raise Unavailable("The keys of the sign-in service are not reachable just now.", code="jwks_unreachable") from error
            return
        fresh = {}
        for entry in listed:
            try:
                jwk = jwt.PyJWK(entry)
            except (jwt.PyJWTError, TypeError, AttributeError):
                continue  # a kind that we do not take, beside others that we do
            if jwk.key_id and jwk.key_type in ALGORITHMS:
                fresh[jwk.key_id] = jwk
        self._keys, self._fetched = fresh, time.monotonic()
