"""How often somebody may ask: token buckets in Redis, by Redis's own clock, so that all processes of the API count together.

With Redis away each process counts for itself: a little more gets through than should, and nobody is kept out by a server that is down.
"""

import asyncio
import contextlib
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Any, cast

import structlog
from fastapi import Request

from app.core.auth import Caller
from app.core.errors import TooMany
from app.core.wakeups import FAULTS, connect

log = structlog.get_logger()

REMEMBERED = 10_000  # buckets of one process, while Redis is away
PATIENCE = 0.25  # seconds that a request waits for Redis
SILENCE = 1.0  # seconds for which a Redis that failed is not asked again

# Either every bucket has a token and gives it, or none gives any: who is refused has used nothing up. The answer: milliseconds to wait, 0 for yes,
# and how many whole tokens are left in the emptiest.
SPEND = """
local moment = redis.call('TIME')
local now = moment[1] * 1000 + math.floor(moment[2] / 1000)
local wait, left = 0, {}
for i, key in ipairs(KEYS) do
    local burst, rate = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    local kept = redis.call('HMGET', key, 'left', 'at')
    left[i] = burst
    if kept[1] and kept[2] then
        left[i] = math.min(burst, tonumber(kept[1]) + math.max(0, now - tonumber(kept[2])) * rate)
    end
    if left[i] < 1 then
        wait = math.max(wait, math.ceil((1 - left[i]) / rate))
    end
end
if wait > 0 then
    return {wait, 0}
end
local least = nil
for i, key in ipairs(KEYS) do
    redis.call('HSET', key, 'left', tostring(left[i] - 1), 'at', tostring(now))
    least = math.min(least or left[i], left[i])
    redis.call('PEXPIRE', key, math.ceil(tonumber(ARGV[2 * i - 1]) / tonumber(ARGV[2 * i])) + 1000)
end
return {0, math.floor(least) - 1}
"""


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` at once, and `per_minute` in the long run."""

    name: str
    burst: int
    per_minute: float

    @property
    def per_millisecond(self) -> float:
        return self.per_minute / 60_000


# What a person does in a cabinet, and a script does not. Behind one address there may be a house, or a whole mobile operator.
WRITES, WRITES_FROM = Rate("writes", 60, 60), Rate("writes-from", 600, 1200)
CLICKS = Rate("clicks", 20, 10)  # on the links of one contact: each leaves a proof for ever
CODES, CODES_FROM = Rate("codes", 10, 4), Rate("codes-from", 100, 60)

Asked = tuple[Rate, str]


class Limits:
    """Of one process. `realm` keeps the buckets of two installations on one Redis apart."""

    def __init__(self, url: str, realm: str) -> None:
        self._url, self._realm = url, hashlib.sha256(realm.encode()).hexdigest()[:12]
        self._redis: Any = None
        self._connecting = asyncio.Lock()
        self._silent_until = 0.0
        self._own: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> tokens left, at (monotonic milliseconds)

    async def spend(self, asked: Sequence[Asked]) -> float:
        """A token of each bucket. How many seconds to wait until there is one in all of them; 0: they were given."""
        return (await self.take(asked))[0]

    async def take(self, asked: Sequence[Asked]) -> tuple[float, int]:
        """The same, and how many there are left in the emptiest bucket."""
        keys = [self._key(rate, who) for rate, who in asked]
        rates = [rate for rate, _ in asked]
        if time.monotonic() >= self._silent_until:
            try:
                wait, left = await asyncio.wait_for(self._ask_redis(keys, rates), PATIENCE)
                return wait / 1000, left
            except (*FAULTS, ValueError, TypeError) as error:
                await self._lost(error)
        wait, left = self._count_here(keys, rates, time.monotonic() * 1000)
        return wait / 1000, left

    async def admit(self, asked: Sequence[Asked]) -> None:
        """TooMany, with the time to wait, when a bucket is empty."""
        if wait := await self.spend(asked):
            raise TooMany(f"Too many requests: try again in {ceil(wait)} s.", headers={"Retry-After": str(ceil(wait))})

    async def close(self) -> None:
        redis, self._redis = self._redis, None
        if redis is not None:
            await redis.aclose(close_connection_pool=True)

    def _key(self, rate: Rate, who: str) -> str:
        # Redis keeps nobody's number and nobody's address.
        return f"vestnik:limit:{self._realm}:{rate.name}:{hashlib.sha256(who.encode()).hexdigest()[:24]}"

    async def _ask_redis(self, keys: list[str], rates: list[Rate]) -> tuple[float, int]:
        async with self._connecting:
            redis = self._redis = self._redis or await connect(self._url)
        values = [repr(value) for rate in rates for value in (rate.burst, rate.per_millisecond)]
        wait, left = await cast("Awaitable[Any]", redis.eval(SPEND, len(keys), *keys, *values))
        return float(wait), int(left)

    def _count_here(self, keys: list[str], rates: list[Rate], now: float) -> tuple[float, int]:
        left: list[float] = []
        for key, rate in zip(keys, rates, strict=True):
            tokens, at = self._own.get(key, (float(rate.burst), now))
            left.append(min(rate.burst, tokens + (now - at) * rate.per_millisecond))
        if wait := max((ceil((1 - tokens) / rate.per_millisecond) for tokens, rate in zip(left, rates, strict=True) if tokens < 1), default=0):
            return wait, 0
        for key, tokens in zip(keys, left, strict=True):
            self._own[key] = (tokens - 1, now)
            self._own.move_to_end(key)
        while len(self._own) > REMEMBERED:
            self._own.popitem(last=False)
        return 0, int(min(left, default=1)) - 1

    async def _lost(self, error: BaseException) -> None:
        self._silent_until = time.monotonic() + SILENCE
        redis, self._redis = self._redis, None
        log.warning("redis_unreachable", error=type(error).__name__, consequence="each process counts requests for itself")
        if redis is not None:
            with contextlib.suppress(*FAULTS):
                await asyncio.wait_for(redis.aclose(close_connection_pool=True), PATIENCE)


def peer_of(request: Request) -> str:
    """Who is at the other end, of IPv6 the network of 64 bits that one customer has. Behind a proxy that uvicorn trusts (FORWARDED_ALLOW_IPS) it is
    the one whom the proxy names."""
    host = request.client.host if request.client is not None else ""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address  # as a socket for both families names a client of the older one
    return str(address) if address.version == 4 else str(int(address) >> 64)


async def admit_write(request: Request, caller: Caller) -> None:
    """A write in the cabinet: so many for each account, and from each address."""
    await request.app.state.limits.admit([(WRITES, caller.account or ""), (WRITES_FROM, peer_of(request))])


async def admit_code(request: Request, caller: Caller) -> None:
    """A code entered or asked for: far fewer than other writes."""
    await request.app.state.limits.admit([(CODES, caller.account or ""), (CODES_FROM, peer_of(request))])
