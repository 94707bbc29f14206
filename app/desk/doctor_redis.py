"""The doctor looks at Redis: it carries wake-ups and counts requests, and must throw nothing away by itself."""

import asyncio
import contextlib
from typing import Any

from app.core.clock import now
from app.core.config import Settings
from app.core.wakeups import FAULTS, connect
from app.desk.doctor_database import clock_skew
from app.desk.findings import Finding

AREA = "redis"
LEAST_VERSION = (5, 0)
ANSWERS_WITHIN = 5.0  # seconds
FULL = 0.9  # of maxmemory


async def look_at_redis(settings: Settings) -> list[Finding]:
    if not settings.redis_url:
        return [Finding(AREA, "redis_not_configured")]
    try:
        async with asyncio.timeout(ANSWERS_WITHIN):
            redis = await connect(settings.redis_url)
            try:
                told: dict[str, Any] = await redis.info()
                asked = now()
                seconds, microseconds = await redis.time()
                middle = asked + (now() - asked) / 2
            finally:
                with contextlib.suppress(*FAULTS):
                    await redis.aclose(close_connection_pool=True)
    except FAULTS as error:
        return [Finding(AREA, "redis_unreachable", {"error": type(error).__name__})]
    return [*_said(told), *clock_skew(AREA, seconds + microseconds / 1e6 - middle.timestamp())]


def _said(told: dict[str, Any]) -> list[Finding]:
    version, policy = str(told.get("redis_version", "?")), str(told.get("maxmemory_policy", "?"))
    found = [Finding(AREA, "redis_ok", {"version": version, "policy": policy})]
    if (number := tuple(int(part) for part in version.split(".")[:2] if part.isdigit())) and number < LEAST_VERSION:
        found.append(Finding(AREA, "redis_old", {"version": version}))
    if policy != "noeviction":
        found.append(Finding(AREA, "redis_evicts", {"policy": policy}))
    most, used = int(told.get("maxmemory") or 0), int(told.get("used_memory") or 0)
    if most and used > FULL * most:
        found.append(Finding(AREA, "redis_full", {"used": f"{used / 1e6:.0f}", "most": f"{most / 1e6:.0f}"}))
    if not int(told.get("aof_enabled") or 0):
        found.append(Finding(AREA, "redis_forgets"))
    if told.get("aof_last_write_status", "ok") != "ok":
        found.append(Finding(AREA, "redis_cannot_write"))
    return found
