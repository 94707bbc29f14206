"""Two gateways and two SMSCs: what cannot go one way goes the other, each message once."""

import asyncio
from collections import Counter

import pytest

from app.core.secrets import SecretBox
from app.core.wakeups import Wakeups
from app.notifications.hold import Holding
from app.notifications.plan import Planner
from app.sending import bind_station
from app.sending.bind_station import BindStation
from app.simulators.smsc import SmscSimulator
from app.tracking.match import record
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import QUICK, an_smpp_gateway
from tests.builders.messages import one, rows

IMPATIENT = QUICK | {"failover_after": 0.3, "reconnect_max": 0.2}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(bind_station, "WATCH", 0.1)
    monkeypatch.setattr(bind_station, "RENEW", 0.3)
    monkeypatch.setattr(bind_station, "GRACE", 3.0)


@pytest.fixture
async def desk(database, settings):
    """Plans, sends and reroutes as the worker does."""
    stations: dict[str, BindStation] = {}

    def poke(queue):
        if (station := stations.get(queue)) is not None:
            station.poke()
        return True

    wakeups = Wakeups(settings.redis_url, direct=poke)
    holding, planner, tasks = Holding(database, settings, wakeups), Planner(database, settings, wakeups), []

    class Desk:
        def __init__(self):
            self.stopping = False

        def serve(self, gateway):
            station = stations[f"smpp:{gateway}:0"] = BindStation(database, SecretBox(settings.secret_keys), gateway, 0, record)
            tasks.append(asyncio.create_task(station.run()))

        async def sweep(self):
            while not self.stopping:
                await holding.reroute()
                await asyncio.sleep(0.1)

        async def tell(self, accounts):
            for account in accounts:
                await a_waiting_event(database, account)
            while await planner.plan():
                pass

    desk = Desk()
    tasks.append(asyncio.create_task(desk.sweep()))
    yield desk
    desk.stopping = True
    for station in stations.values():
        station.stop()
    await asyncio.wait_for(asyncio.gather(*tasks), 20)


async def until(condition, seconds=20):
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if found := (await found if asyncio.iscoroutine(found) else found):
                return found
            await asyncio.sleep(0.02)


async def subscribers(database, number, first=0):
    return [await an_account(database, f"acc{one}", phones=(f"+7916{one:07}",)) for one in range(first, first + number)]


async def in_outbox(database):
    return (await one(database, "SELECT count(*) AS n FROM outbox")).n


async def says(database, gateway, state):
    found = await rows(database, "SELECT status ->> 'state' AS state FROM bind_slot WHERE gateway = :gateway", gateway=gateway)
    return bool(found) and found[0].state == state


async def test_queue_of_a_gateway_whose_smsc_dies_goes_over_the_other_and_comes_back(database, desk):
    async with SmscSimulator() as spare:
        dying = SmscSimulator()
        await dying.start()
        port = dying.port
        await an_smpp_gateway(database, "alpha", port=port, profile=IMPATIENT, rate_per_second=40)
        await an_smpp_gateway(database, "beta", port=spare.port, profile=IMPATIENT)
        for gateway in ("alpha", "beta"):
            desk.serve(gateway)
        await until(lambda: says(database, "alpha", "bound"))
        await until(lambda: says(database, "beta", "bound"))
        accounts = await subscribers(database, 100)
        await desk.tell(accounts)
        await until(lambda: len(dying.received) >= 20)
        assert spare.received == []

        await dying.close()
        await until(lambda: says(database, "alpha", "connecting"))
        await until(lambda: is_empty(database))
        on_the_way = await subscribers(database, 10, first=100)
        await desk.tell(on_the_way)
        await until(lambda: is_empty(database))

        async with SmscSimulator(port=port) as back:  # the same SMSC, started again
            await until(lambda: says(database, "alpha", "bound"))
            later = await subscribers(database, 10, first=110)
            await desk.tell(later)
            await until(lambda: len(back.received) == 10)

            seen = Counter(received.destination for received in [*dying.received, *spare.received, *back.received])
            doubt = {row.address for row in await rows(database, "SELECT address FROM message WHERE state = 'unknown'")}
            assert set(seen.values()) == {1}
            assert {f"+{number}" for number in seen} | doubt == {f"+7916{one:07}" for one in range(120)}
            assert {received.destination for received in back.received} == {f"7916{one:07}" for one in range(110, 120)}
            moved = await rows(database, "SELECT DISTINCT reason, detail FROM message_change")
            assert ("rerouted", "alpha -> beta") in {tuple(row) for row in moved}


async def is_empty(database):
    return await in_outbox(database) == 0


async def test_gateway_that_refuses_everything_for_now_keeps_few_and_gets_its_accounts_back(database, desk):
    broken = True
    profile = IMPATIENT | {"failing_least": 10, "failing_window": 30, "failing_return": 4}
    async with SmscSimulator(answer=lambda _: 0x08 if broken else 0) as bad, SmscSimulator() as good:
        await an_smpp_gateway(database, "alpha", port=bad.port, profile=profile)
        await an_smpp_gateway(database, "beta", port=good.port, profile=profile)
        for gateway in ("alpha", "beta"):
            desk.serve(gateway)
            await until(lambda gateway=gateway: says(database, gateway, "bound"))

        await desk.tell(await subscribers(database, 80))
        await until(lambda: len(good.received) >= 50)
        told = (await one(database, "SELECT status -> 'health' AS health FROM bind_slot WHERE gateway = 'alpha'")).health
        assert told["share"] < 1
        assert told["failing_since"] is not None

        broken = False
        await until(lambda: is_empty(database))
        assert set(Counter(received.destination for received in [*bad.received, *good.received]).values()) == {1}
        assert len(bad.received) + len(good.received) == 80
        await until(lambda: is_well(database, "alpha"))
        before = len(good.received)
        await desk.tell(await subscribers(database, 20, first=80))
        await until(lambda: is_empty(database))
        assert len(good.received) == before


async def is_well(database, gateway):
    return (await one(database, "SELECT status -> 'health' AS health FROM bind_slot WHERE gateway = :gateway", gateway=gateway)).health["share"] == 1
