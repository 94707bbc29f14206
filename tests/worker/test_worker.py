"""The worker process: all stations, with Redis and without, from start to drain."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from app import worker
from app.core.errors import ConfigurationError
from app.core.wakeups import Wakeups
from app.simulators.mailbox import Mailbox
from app.simulators.smsc import SmscSimulator
from app.worker import follow_gateways
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import QUICK, an_smpp_gateway, an_smtp_gateway
from tests.builders.messages import a_message, one, rows, run

ROOT = Path(__file__).resolve().parents[2]
NO_REDIS = "redis://127.0.0.1:9/0"


@pytest.fixture
async def smsc():
    async with SmscSimulator() as simulator:
        yield simulator


async def until(condition, seconds=15):
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if found := (await found if asyncio.iscoroutine(found) else found):
                return found
            await asyncio.sleep(0.05)


async def states(database):
    return {row.state for row in await rows(database, "SELECT coalesce(o.state, m.state) AS state FROM message m LEFT JOIN outbox o ON o.message_id = m.id")}


async def are(database, *expected):
    return await states(database) == set(expected)


class Process:
    """`vestnik worker` as a child process."""

    def __init__(self, settings, **changes):
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("VESTNIK_")} | {
            "VESTNIK_DATABASE_URL": settings.database_url,
            "VESTNIK_REDIS_URL": settings.redis_url,
            "VESTNIK_DATA_DIR": str(settings.data_dir),
            "VESTNIK_QUIET_HOURS": "00:00-00:00",
            **changes,
        }

    async def __aenter__(self):
        command = [sys.executable, "-c", "from app.cli import main; main()", "worker"]
        self._process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=self._environment, stderr=asyncio.subprocess.PIPE)
        self._errors = asyncio.create_task(self._process.stderr.read())
        return self

    async def __aexit__(self, *_):
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def tell(self, number):
        self._process.send_signal(number)

    async def ended(self, seconds=30):
        code = await asyncio.wait_for(self._process.wait(), seconds)
        return code, (await self._errors).decode()


async def test_event_goes_all_the_way_with_redis_down(database, open_office, smsc):
    await an_smpp_gateway(database, port=smsc.port)
    office = open_office(redis_url=NO_REDIS)
    office.open("plan")
    await follow_gateways(office)
    await until(lambda: smsc.links)

    await a_waiting_event(database, await an_account(database))

    await until(lambda: are(database, "delivered"))
    assert len(smsc.received) == 1


async def test_stations_of_one_process_are_woken_without_redis(database, open_office, smsc, monkeypatch):
    monkeypatch.setattr(worker, "IDLE", 60.0)
    await an_smpp_gateway(database, port=smsc.port)
    office = open_office(redis_url=NO_REDIS)
    office.open("plan")
    await follow_gateways(office)
    await until(lambda: smsc.links)
    await asyncio.sleep(0.3)
    await a_waiting_event(database, await an_account(database))

    assert office.poke("plan")

    await until(lambda: are(database, "delivered"))


async def test_notice_over_redis_wakes_a_station_of_another_process(database, settings, open_office, monkeypatch):
    monkeypatch.setattr(worker, "IDLE", 60.0)
    office = open_office()
    office.open("plan")
    listener = asyncio.create_task(office.wakeups.listen(office.poke))
    await asyncio.sleep(0.5)
    await a_waiting_event(database, await an_account(database))
    elsewhere = Wakeups(settings.redis_url)

    elsewhere.wake("plan")

    await until(lambda: are(database, "queued"))
    listener.cancel()
    await asyncio.gather(listener, return_exceptions=True)
    await elsewhere.close()


async def test_arq_job_wakes_a_station_whose_process_missed_the_notice(database, settings, open_office, monkeypatch):
    monkeypatch.setattr(worker, "IDLE", 60.0)
    office = open_office()
    office.open("plan")  # nobody listens to notices here
    await asyncio.sleep(0.3)
    await a_waiting_event(database, await an_account(database))
    elsewhere = Wakeups(settings.redis_url)

    elsewhere.wake("plan")

    await until(lambda: are(database, "queued"))
    await elsewhere.close()


async def test_sweeps_run_by_themselves_when_no_tick_of_cron_comes(database, open_office, monkeypatch):
    monkeypatch.setattr(worker, "UNDISTURBED", 0.1)
    message = await a_message(database, state="sending")
    await run(database, "UPDATE outbox SET lease_until = now() - interval '1 second'")
    office = open_office(redis_url=NO_REDIS)

    office.open("cron")

    await until(lambda: are(database, "unknown"))
    assert (await one(database, "SELECT reason FROM message WHERE id = :id", id=message)).reason == "no_answer"


async def test_gateways_are_followed_as_they_come_change_and_go(database, open_office):
    office = open_office(redis_url=NO_REDIS)

    def queues():
        return sorted(office.stations)

    await follow_gateways(office)
    assert queues() == []
    await an_smpp_gateway(database, "main", port=9, binds=2)
    await an_smpp_gateway(database, "off", port=9, enabled=False)
    await follow_gateways(office)
    assert queues() == ["smpp:main:0", "smpp:main:1"]

    await run(database, "UPDATE gateway SET settings = settings || '{\"binds\": 1}', revision = revision + 1 WHERE name = 'main'")
    await run(database, "UPDATE gateway SET enabled = true, revision = revision + 1 WHERE name = 'off'")
    await follow_gateways(office)
    assert queues() == ["smpp:main:0", "smpp:off:0"]

    await run(database, "DELETE FROM gateway")
    await follow_gateways(office)
    assert queues() == []


def test_queue_that_does_not_exist_is_named_in_the_error(open_office):
    office = open_office()

    for queue in ("planning", "smpp:main", "smpp::0", "smpp:main:x", ""):
        with pytest.raises(ConfigurationError, match="there is no queue"):
            office.make(queue)


async def test_worker_serves_everything_and_drains_on_sigterm(database, settings):
    async with SmscSimulator(answer_delay=0.3) as smsc, Mailbox() as mailbox, Process(settings) as process:
        account = await an_account(database, mails=("a@example.org",))
        await an_smtp_gateway(database, port=mailbox.port)
        await a_waiting_event(database, account)
        await until(lambda: mailbox.count == 1)  # planned and sent by mail, the SMS waits for a gateway
        await an_smpp_gateway(database, port=smsc.port, profile=QUICK)
        await until(lambda: are(database, "accepted", "delivered"))  # rerouted to the gateway that came, and delivered

        for _ in range(40):
            await a_message(database, account)
        await until(lambda: smsc.submitted > 5)
        process.tell(signal.SIGTERM)
        code, errors = await process.ended()

    assert code == 0, errors
    assert "Traceback" not in errors
    assert (await one(database, "SELECT count(*) AS n FROM outbox WHERE state = 'sending'")).n == 0
    assert smsc.submitted == smsc.accepted == (await one(database, "SELECT count(*) AS n FROM submission WHERE gateway = 'main'")).n
    assert smsc.unbinds == 1
    assert await rows(database, "SELECT id FROM worker_process") == []
    assert (await one(database, "SELECT until <= now() AS free FROM bind_slot")).free


async def test_worker_whose_redis_is_down_ends_on_sigterm_as_well(database, settings):
    async with Process(settings, VESTNIK_REDIS_URL=NO_REDIS) as process:
        await until(lambda: rows(database, "SELECT id FROM worker_process"))

        process.tell(signal.SIGTERM)
        code, errors = await process.ended()

    assert code == 0, errors
