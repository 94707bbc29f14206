"""Public keys of whoever signs cabinet tokens: fetched when a new key id turns up, not on every request."""

import asyncio
import json
import time
from ipaddress import ip_network
from typing import Any

import httpx
import jwt
import structlog

from app.core.errors import Unavailable
from app.core.outgoing import DestinationRefused, Outgoing, Rules

log = structlog.get_logger()

FETCH_EVERY = 60.0  # seconds between two fetches at the least, of a set that has grown old
# And for a key id that is not in it: a new key is taken within moments, and a stranger's key ids make us no load.
SOON = 5.0
LONGEST_AGE = 600.0  # seconds after which a key that was withdrawn is no longer taken
MAX_DOCUMENT = 1 << 20
# The operator has named this URL himself: a sign-in service in his own network is as good as any. Redirects are not followed, and its name is pinned.
ANYWHERE = Rules([ip_network("0.0.0.0/0"), ip_network("::/0")], plain_http=True)

# Never HS*: a public key is no secret.
ALGORITHMS = {"RSA": ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"], "EC": ["ES256", "ES384", "ES512"], "OKP": ["EdDSA"]}


class KeySet:
    """The JWK Set (RFC 7517) behind one URL."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: dict[str, Any] = {}
        self._fetched = self._asked = -LONGEST_AGE
        self._is_away = False  # the last fetch failed
        self._lock = asyncio.Lock()

    async def for_token(self, token: str) -> tuple[Any, list[str]]:
        """The key that the token's header names, and the algorithms of that kind of key. jwt.InvalidKeyError when there is none."""
        kid = jwt.get_unverified_header(token).get("kid")
        if not isinstance(kid, str):
            raise jwt.InvalidKeyError
        # Whose key is known does not wait for a fetch that somebody else has begun: while the provider is silent, strangers could begin one after the other.
        if kid not in self._keys or (self._age > LONGEST_AGE and not self._lock.locked()):
            async with self._lock:
                if self._is_time(kid):
                    await self._fetch()
        if kid not in self._keys:
            if self._is_away:  # nobody is told that his token is wrong while nobody knows
                raise Unavailable("The keys of the sign-in service are not reachable just now.", code="jwks_unreachable")
            raise jwt.InvalidKeyError
        jwk = self._keys[kid]
        return jwk.key, ALGORITHMS[jwk.key_type]

    @property
    def _age(self) -> float:
        return time.monotonic() - self._fetched

    def _is_time(self, kid: str) -> bool:
        """Whether the set is to be fetched for this key id; asked under the lock, for others may have done it meanwhile."""
        since = time.monotonic() - self._asked
        return self._age > LONGEST_AGE and since > FETCH_EVERY if kid in self._keys else since > SOON

    async def _fetch(self) -> None:
        """Read the document. Out of reach: the keys that we have serve on."""
        self._asked = time.monotonic()
        try:
            client = Outgoing(self._url, ANYWHERE, 5)
            try:
                answer = await client.send("GET", {}, most=MAX_DOCUMENT + 1)
            finally:
                await client.close()
            if answer.status != 200 or len(answer.body) > MAX_DOCUMENT:
                raise ValueError
            listed = json.loads(answer.body)["keys"]
        except (httpx.HTTPError, DestinationRefused, OSError, TimeoutError, ValueError, KeyError, TypeError) as error:
            log.warning("jwks_unreachable", error=type(error).__name__)
            self._is_away = True
            return
        fresh = {}
        for entry in listed:
            try:
                jwk = jwt.PyJWK(entry)
            except (jwt.PyJWTError, TypeError, AttributeError):
                continue  # a kind that we do not take, beside others that we do
            if jwk.key_id and jwk.key_type in ALGORITHMS:
                fresh[jwk.key_id] = jwk
        self._keys, self._fetched, self._is_away = fresh, time.monotonic(), False
