"""What a process tells Prometheus of the ground that it stands on, also when that has gone."""

import asyncio
import math
import re

import httpx
import pytest
import sqlalchemy as sa
from prometheus_client import generate_latest

from app.catalogue.registry import Catalogue
from app.core import metrics
from app.core.db import Database
from app.core.metrics_port import MetricsPort
from app.core.pulse import Pulse, see_workers
from app.core.wakeups import QUEUES
from app.main import see_types
from tests.builders.messages import run

NOWHERE = "postgresql+asyncpg://nobody:x@127.0.0.1:9/none"
NO_REDIS = "redis://127.0.0.1:9/0"


def shown(name: str) -> dict[tuple[str, ...], float]:
    """The series of a metric as Prometheus gets them: label values -> value."""
    lines = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", generate_latest().decode(), re.MULTILINE)
    return {tuple(re.findall(r'="([^"]*)"', labels)): float(value) for labels, value in lines}


@pytest.fixture
async def looking(settings, database):
    pulses = []

    def make(*looks, base=database, redis=settings.redis_url, **more):
        pulses.append(Pulse(base, redis, *looks, **more))
        return pulses[-1]

    yield make
    for pulse in pulses:
        await pulse.stop()


async def test_process_on_firm_ground_says_so(looking):
    await looking(queues=True).look()

    assert shown("vestnik_database_up") == {(): 1}
    assert shown("vestnik_redis_up") == {(): 1}
    assert math.fabs(shown("vestnik_clock_skew_seconds")[()]) < 60
    assert shown("vestnik_database_connections")[("idle",)] == 1
    assert shown("vestnik_database_connections_most") == {(): 20}
    assert shown("vestnik_wakeups_waiting").keys() == {(queue,) for queue in QUEUES}


async def test_clock_that_is_ahead_of_the_databases_is_seen(looking, monkeypatch):
    monkeypatch.setattr("app.core.pulse.time.time", lambda: 4_000_000_000.0)

    await looking().look()

    assert shown("vestnik_clock_skew_seconds")[()] > 1_000_000


async def test_database_and_redis_that_have_gone_are_shown_and_come_back(looking, database):
    gone = Database(NOWHERE)

    await looking(base=gone, redis=NO_REDIS).look()
    assert (shown("vestnik_database_up"), shown("vestnik_redis_up")) == ({(): 0}, {(): 0})

    await looking().look()
    assert (shown("vestnik_database_up"), shown("vestnik_redis_up")) == ({(): 1}, {(): 1})
    await gone.close()


async def test_pool_that_is_all_at_work_says_nothing_of_the_database(settings, looking, monkeypatch):
    monkeypatch.setattr("app.core.pulse.PATIENCE", 0.2)
    small = Database(settings.database_url, pool_size=1)
    pulse = looking(base=small)
    await pulse.look()

    async with small.engine.connect(), small.engine.connect():
        await pulse.look()
        assert shown("vestnik_database_connections")[("in_use",)] == 2

    assert shown("vestnik_database_up") == {(): 1}
    await small.close()


async def test_look_that_fails_leaves_the_pulse_beating(looking, monkeypatch):
    monkeypatch.setattr("app.core.pulse.EVERY", 0.01)
    asked = asyncio.Event()

    async def stumble(_):
        if asked.is_set():
            again.set()
        asked.set()
        raise RuntimeError

    again = asyncio.Event()
    looking(stumble).start()

    await asyncio.wait_for(again.wait(), 10)


async def test_workers_that_live_are_counted_by_queue(database, looking):
    alive = (("all", 1), ("plan", 1), ("mail,cron", 1), ("smpp:main:0", 1), ("smpp:main:1", 1), ("plan", 3600))
    for queues, age in alive:
        await run(
            database,
            "INSERT INTO worker_process (id, queues, host, started_at, seen_at) VALUES (gen_random_uuid(), :queues, 'h', now(), now() - make_interval(secs => :age))",
            queues=queues,
            age=age,
        )

    await looking(see_workers).look()
    seen = shown("vestnik_workers")
    assert {queue for (queue,), number in seen.items() if number == 2} == {"plan", "mail", "cron", "smpp"}
    assert {queue for (queue,), number in seen.items() if number == 1} == set(QUEUES) - {"plan", "mail", "cron"}

    await run(database, "DELETE FROM worker_process")
    await looking(see_workers).look()
    assert set(shown("vestnik_workers").values()) == {0}


async def test_events_of_a_type_that_was_made_just_now_begin_at_zero(database, api):
    body = {"titles": {"ru": "Проверка", "en": "A check"}, "channels": ["sms"], "data_schema": {"type": "object", "properties": {}}}
    answer = await api.put("/notification-types/metrics.checked", json=body)
    assert answer.is_success, answer.text

    async with database.transaction() as session:
        await see_types(Catalogue(), session)

    assert shown("vestnik_events_total")["accepted", "metrics.checked"] == 0


def test_what_alerts_ask_of_a_gateway_begins_at_zero():
    metrics.start_gateway("sms-zero", "smpp", ["some.type"], wire=True)
    metrics.start_gateway("mail-zero", "smtp", ["some.type"], wire=True)

    messages = shown("vestnik_messages_total")
    assert messages["sms", "sms-zero", "unknown", "some.type"] == 0
    assert messages["email", "mail-zero", "failed", "some.type"] == 0
    assert shown("vestnik_smpp_throttled_total")[("sms-zero",)] == 0
    assert ("mail-zero",) not in shown("vestnik_smpp_throttled_total")


async def test_scrapes_are_answered_with_the_database_gone(settings):
    from app.main import create_app

    app = create_app(settings.model_copy(update={"database_url": NOWHERE, "redis_url": NO_REDIS}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app, client=("127.0.0.1", 1)), base_url="http://vestnik") as client,
    ):
        metrics.DATABASE_UP.set(1)
        async with asyncio.timeout(30):
            while shown("vestnik_database_up") != {(): 0}:
                await asyncio.sleep(0.05)

        answer = await client.get("/metrics")
        refused = await client.get("/metrics/targets")

    assert answer.status_code == 200
    assert "vestnik_database_up 0.0" in answer.text
    assert refused.status_code == 503  # Prometheus goes on with the targets that it knows


async def test_a_workers_port_serves_what_the_api_serves(settings):
    port = MetricsPort(settings)
    number = await port.start(0)

    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{number}/metrics")
        elsewhere = await client.get(f"http://127.0.0.1:{number}/")

    assert (answer.status_code, elsewhere.status_code) == (200, 404)
    assert "vestnik_build_info" in answer.text
    await port.stop()


async def test_a_scrape_asks_the_database_nothing(api, database):
    asked: list[str] = []
    engine = api.app.state.database.engine.sync_engine
    sa.event.listen(engine, "before_cursor_execute", lambda *words: asked.append(words[2]))

    transport = httpx.ASGITransport(app=api.app, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://vestnik") as client:
        await client.get("/metrics/targets")
        assert any("worker_process" in statement for statement in asked)
        asked.clear()
        assert (await client.get("/metrics")).status_code == 200

    assert asked == []
