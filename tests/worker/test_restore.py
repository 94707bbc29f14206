"""A dump is taken while messages go out, the database is lost, the dump is loaded, and the service goes on: nothing goes twice."""

import asyncio
import subprocess
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from app.core.clock import now
from app.core.db import Database
from app.desk.after_restore import settle_the_lost_time
from app.embedded.postgres import find_binaries
from app.simulators.smsc import SmscSimulator
from app.worker import follow_gateways
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import a_message, one, rows, state_of
from tests.conftest import at, run_sql
from tests.worker.test_worker import until

EVENTS = 40


def client(tool: str, url: str, *options: str) -> None:
    parts = urlsplit(url)
    words = [str(find_binaries() / tool), "-h", parse_qs(parts.query)["host"][0], "-U", "vestnik", "-d", parts.path.lstrip("/"), *options]
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
async def spare(servers):
    """An empty database for what is restored; its URL."""
    name = f"spare{id(servers)}"
    await run_sql(servers[0], f"CREATE DATABASE {name}")
    yield at(servers[0], name)
    await run_sql(servers[0], f"DROP DATABASE {name} WITH (FORCE)")


async def test_service_goes_on_from_a_dump_and_sends_nothing_twice(database, settings, spare, open_office, tmp_path):
    dump = tmp_path / "vestnik.dump"
    async with SmscSimulator() as smsc:
        await an_smpp_gateway(database, port=smsc.port, rate_per_second=20)
        accounts = [await an_account(database, str(number), phones=(f"+7916000{number:04d}",)) for number in range(EVENTS)]
        later = await a_message(
            database, accounts[0], state="held", reason="quiet_hours", not_before=now() + timedelta(hours=3), expires_at=now() + timedelta(hours=9)
        )
        for account in accounts:
            await a_waiting_event(database, account)
        office = open_office()
        office.open("plan")
        await follow_gateways(office)
        await until(lambda: len(smsc.received) >= 5)

        await asyncio.to_thread(client, "pg_dump", settings.database_url, "--format=custom", f"--file={dump}")
        sent_before = len(smsc.received)
        await until(lambda: len(smsc.received) == EVENTS)
        await office.shut(*office.stations)
        lost_at = now()

        await asyncio.to_thread(client, "pg_restore", spare, "--no-owner", "--exit-on-error", str(dump))
        restored = Database(spare)
        done = await settle_the_lost_time(restored, settings.model_copy(update={"database_url": spare}), lost_at)
        office = open_office(database_url=spare)
        office.open("plan")
        await follow_gateways(office)
        await a_waiting_event(restored, await an_account(restored, "new", phones=("+79169999999",)))
        await until(lambda: len(smsc.received) > EVENTS)
        await office.shut(*office.stations)

        assert sent_before < EVENTS
        assert len(smsc.received) == EVENTS + 1
        doubtful = await one(restored, "SELECT count(*) AS number FROM message WHERE state = 'unknown' AND reason = 'database_restored'")
        assert doubtful.number == sum(done.doubtful.values()) >= EVENTS - sent_before
        assert await state_of(restored, later) == ("held", "quiet_hours")
        assert await rows(restored, "SELECT 1 FROM outbox WHERE message_id <> :later AND state = 'sending'", later=later) == []
        await restored.close()
