"""The brake: so many accounts have crossed their thresholds within a day that it is rather the feed of balances that is broken.

A scan counts before it tells, and asks somebody when the count is unusual. What a balance event tells at once has nobody to ask: above a share of all
accounts nobody more is told at once. The spells of the others stay unopened, the next scan finds them, and that one asks.
"""

from datetime import datetime, timedelta

import sqlalchemy as sa
import structlog

from app.core.db import Executor

log = structlog.get_logger()

SHARE = 0.1  # of all accounts, in a day
LEAST = 1000  # and fewer are nothing unusual anywhere
DAY = timedelta(days=1)

TOLD_AT_ONCE = sa.text("SELECT count(*) FROM (SELECT FROM forecast_hit WHERE run_id IS NULL AND at > :since AND outcome = 'told' LIMIT :limit) h")
# As the statistics know it; a table that has none yet is counted.
ACCOUNTS = sa.text("""
SELECT CASE WHEN reltuples > 0 THEN CAST(reltuples AS bigint) ELSE (SELECT count(*) FROM account) END FROM pg_class WHERE oid = CAST('account' AS regclass)
""")


async def room(session: Executor, share: float, moment: datetime) -> int:
    """How many more may be told of their threshold at once, a scan aside."""
    limit = max(LEAST, int(share * (await session.execute(ACCOUNTS)).scalar_one()))
    told: int = (await session.execute(TOLD_AT_ONCE, {"since": moment - DAY, "limit": limit})).scalar_one()
    if told >= limit:
        log.error("threshold_brake", told=told, limit=limit, detail="more crossed their thresholds in a day than is plausible: the next scan asks")
    return limit - told
