"""A process that works through one scan: `python -m benchmarks.scanner URL RUN`, begun by a line on stdin; its CPU and peak memory on stdout."""

import asyncio
import json
import resource
import sys
import time
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import Database
from app.forecasts.find import Wanted
from app.forecasts.scan import Alarm, Scanner

STATE = sa.text("SELECT state FROM scan_run WHERE id = :id")


async def wanted(_: AsyncSession) -> tuple[Wanted, Alarm]:
    return Wanted(), Alarm(multiple=1e9)


async def appraise(_: AsyncSession, hits: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    del hits
    return {}, []


async def main(url: str, run_id: UUID) -> None:
    database = Database(url, pool_size=2)
    scanner = Scanner(database, wanted, appraise)
    async with database.transaction() as session:
        await session.execute(STATE, {"id": run_id})
    idle = resource.getrusage(resource.RUSAGE_SELF)
    print("ready", flush=True)
    sys.stdin.readline()
    while not await is_over(database, run_id):
        if not await scanner.step():
            await asyncio.sleep(0.01)
    over, used = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    figures = {"over": over, "cpu_s": used.ru_utime + used.ru_stime - idle.ru_utime - idle.ru_stime, "mib_over_idle": (used.ru_maxrss - idle.ru_maxrss) / 1024}
    print(json.dumps(figures))
    await database.close()


async def is_over(database: Database, run_id: UUID) -> bool:
    async with database.atomic() as connection:
        return (await connection.execute(STATE, {"id": run_id})).scalar_one() not in ("queued", "running")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], UUID(sys.argv[2])))
