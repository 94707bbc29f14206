"""(i) Reports over 30 days of ten million messages, from the cells that such messages make: six types in two languages, by SMS over two gateways to numbers of
five operators, and by mail; delivered within seconds to hours, and one in twelve not.

No service: a PostgreSQL of its own, and the query with everything that an answer takes, up to the written JSON.
"""

import asyncio
import datetime as dt
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg

from app.core.config import Settings
from app.core.db import Database, sync_dsn
from app.embedded.postgres import EmbeddedPostgres
from app.schema import prepare
from app.tracking.reports.cells import Folding
from app.tracking.reports.dimensions import Period, Wanted
from app.tracking.reports.write import write

ZONE, FIRST, DAYS = "Europe/Moscow", dt.date(2026, 10, 1), 30
MESSAGES = 10_000_000
ASKED: dict[str, tuple[str, ...]] = {
    "day": ("day",),
    "type": ("type",),
    "day_type_gateway_state": ("day", "type", "gateway", "state"),
    "day_gateway_state": ("day", "gateway", "state"),
    "route": ("route",),
    "template": ("template",),
    "operator_reason": ("operator", "state", "reason"),
    "all_but_hours": ("day", "type", "channel", "gateway", "route", "sender", "operator", "template", "state", "reason"),
    "hour": ("hour",),
    "hour_gateway_state": ("hour", "gateway", "state"),
}
# A road is chosen by the operator, as routes do; a template by type, channel and language. The share of a state and of a bucket is what makes a cell.
KEYS = """
INSERT INTO report_key (key, kind, type, channel, gateway, route, sender, operator, template_id, template_version, state, reason)
SELECT gen_random_uuid(), 'message', t.type, r.channel, r.gateway, r.route, r.sender, r.operator, CAST(md5(t.type || r.channel || l.locale) AS uuid), l.version, s.state, s.reason
FROM unnest(ARRAY['payment.received', 'charges.upcoming', 'balance.exhausting', 'balance.threshold_reached', 'service.connected', 'tariff.changed']) t(type)
CROSS JOIN (VALUES ('sms', 'main', 'cheap', 'ISP', 'МТС'), ('sms', 'main', 'cheap', 'ISP', 'МегаФон'), ('sms', 'spare', 'rest', 'ISP', 'билайн'),
    ('sms', 'spare', 'rest', 'ISP', 'Tele2'), ('sms', 'spare', 'rest', 'ISP', 'Yota'), ('email', 'post', NULL, NULL, NULL)) r(channel, gateway, route, sender, operator)
CROSS JOIN (VALUES ('ru', 3), ('en', 2)) l(locale, version)
CROSS JOIN (VALUES ('delivered', NULL), ('accepted', NULL), ('undelivered', 'absent'), ('undelivered', 'blocked'), ('expired', 'expired'), ('failed', 'invalid_number'),
    ('unknown', 'no_answer'), ('cancelled', 'resolved')) s(state, reason)
"""
CELLS = """
INSERT INTO report_cell (slot, key, bucket, messages, parts, cost)
SELECT slot, key, bucket, n, n * 2, n * 3.1 FROM (
    SELECT h.slot, k.key, b.bucket, CAST(floor($1 / 720.0 * h.weight * k.weight * b.weight + random()) AS int) AS n
    FROM (SELECT slot, 1.0 + 0.8 * sin(extract(hour FROM slot) / 24.0 * 6.283) AS weight
          FROM generate_series($2::timestamptz, $2::timestamptz + interval '719 hours', interval '1 hour') slot) h
    CROSS JOIN (SELECT key, state, 1 / 36.0 * CASE template_version WHEN 3 THEN 0.9 ELSE 0.1 END
                       * CASE state WHEN 'delivered' THEN 0.9 WHEN 'accepted' THEN 0.02 ELSE 0.013 END AS weight FROM report_key) k
    CROSS JOIN (SELECT step AS bucket, CASE WHEN step < 0 THEN 1.0 ELSE exp(-0.5 * power((step - 6) / 3.0, 2)) / 7.5 END AS weight FROM generate_series(-1, 30) step) b
    WHERE (k.state = 'delivered') = (b.bucket >= 0)
) made WHERE n > 0
"""


async def measured(url: str) -> dict[str, Any]:
    connection = await asyncpg.connect(**sync_dsn(url), command_timeout=3600)
    begins = Period(FIRST, FIRST, ZONE).begins
    await connection.execute(KEYS)
    await connection.execute(CELLS, MESSAGES, begins)
    await connection.execute("VACUUM ANALYZE")
    counted = await connection.fetchrow("SELECT count(*) AS cells, sum(messages) AS messages, pg_total_relation_size('report_cell') AS octets FROM report_cell")
    database = Database.of(Settings(_env_file=None, database_url=url))
    began = time.perf_counter()
    while await Folding(database, ZONE).fold():  # sums up the days, a week at a time
        pass
    took = {"days_summed_s": round(time.perf_counter() - began, 3)}
    period = Period(FIRST, FIRST + dt.timedelta(days=DAYS - 1), ZONE)
    took |= {f"{name}_s": await seconds_of(database, Wanted(period, groups)) for name, groups in ASKED.items()}
    # As it is until the days are summed anew for another clock.
    await connection.execute("DELETE FROM report_day_zone")
    took |= {f"{name}_from_hours_s": await seconds_of(database, Wanted(period, groups)) for name, groups in ASKED.items() if "hour" not in groups}
    await connection.close()
    await database.close()
    return {**took, "cells": counted["cells"], "messages": int(counted["messages"]), "mib": counted["octets"] >> 20, "rate_per_s": round(1 / took["day_s"], 2)}


async def seconds_of(database: Database, wanted: Wanted) -> float:
    began = time.perf_counter()
    (await write(database, "messages", wanted, "json", "ru")).close()
    return round(time.perf_counter() - began, 3)


def reports(_: int) -> dict[str, Any]:
    """Seconds for each report. The rate is that of the report by day."""
    with tempfile.TemporaryDirectory(prefix="vestnik-bench-", ignore_cleanup_errors=True) as home:
        Path(home).chmod(0o755)
        postgres = EmbeddedPostgres(Path(home))
        url = postgres.start()
        try:

            async def whole() -> dict[str, Any]:
                await prepare(url)
                return await measured(url)

            return asyncio.run(whole())
        finally:
            postgres.stop()
