"""Silence against a real bind: the answer that comes late after all, the receipt that tells whose it is, and the one second try."""

import asyncio

import pytest

from app.core.secrets import SecretBox
from app.core.wakeups import Wakeups
from app.sending import bind_station
from app.sending.bind_station import BindStation
from app.simulators import smsc_wire as wire
from app.simulators.smsc import SmscSimulator
from app.tracking.match import record
from app.tracking.sweeps import Sweeper
from tests.builders.gateways import QUICK, an_smpp_gateway
from tests.builders.messages import a_message, one, rows, state_of

SILENT = QUICK | {"response_timeout": 0.3, "reconnect_after_timeouts": 1000}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(bind_station, "WATCH", 0.1)
    monkeypatch.setattr(bind_station, "GRACE", 5.0)


@pytest.fixture
async def station(database, settings):
    running = []

    def start():
        bind = BindStation(database, SecretBox(settings.secret_keys), "main", 0, record)
        running.append((bind, asyncio.create_task(bind.run())))

    yield start
    for bind, _ in running:
        bind.stop()
    await asyncio.wait_for(asyncio.gather(*(task for _, task in running)), 20)


@pytest.fixture
def sweeper(database, settings):
    return Sweeper(database, Wakeups(settings.redis_url, direct=lambda queue: True))


async def until(condition, seconds=15):
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


def becomes(database, message, state):
    async def is_so():
        return (await state_of(database, message))[0] == state

    return is_so


async def test_answer_after_its_time_makes_an_unknown_message_accepted_and_its_receipt_delivers_it(database, station):
    async with SmscSimulator(answer_delay=1.2) as late:
        await an_smpp_gateway(database, port=late.port, window=10, profile=SILENT)
        station()
        message = await a_message(database)
        await until(becomes(database, message, "unknown"))

        await until(becomes(database, message, "delivered"))

        assert late.submitted == 1
        assert (await one(database, "SELECT outcome, reason FROM submission")) == ("accepted", "late_answer")


async def test_c17_silent_smsc_gets_a_message_twice_where_that_is_wanted_and_never_a_third_time(database, station):
    async with SmscSimulator(silent=True) as silent:
        await an_smpp_gateway(database, port=silent.port, profile=SILENT | {"on_response_timeout": "resend_once"})
        station()
        messages = [await a_message(database, address=f"+7916000000{number}") for number in range(3)]

        for message in messages:
            await until(becomes(database, message, "unknown"))
        await asyncio.sleep(1)

        assert silent.submitted == 6
        assert [tuple(row) for row in await rows(database, "SELECT n, outcome FROM submission ORDER BY n, message_id")] == [(1, "unknown")] * 3 + [
            (2, "unknown")
        ] * 3


async def test_receipt_that_repeats_our_reference_delivers_a_message_that_was_never_answered(database, station, sweeper):
    seen = []

    def answer(submit):
        seen.append(submit)
        return b""

    async with SmscSimulator(answer=answer, receipts=False) as silent:
        await an_smpp_gateway(database, port=silent.port, profile=SILENT)
        station()
        message = await a_message(database)
        await until(becomes(database, message, "unknown"))

        reference = seen[0].tlvs[0x0204]
        body = wire.receipt_body(source=b"79161234567", destination=b"MyISP", identity="a-strange-one", stat="DELIVRD", reference=reference)
        silent.send(wire.frame(wire.DELIVER_SM, 0, 1, body))

        async def swept():
            await sweeper.match_parked()
            return (await state_of(database, message))[0] == "delivered"

        await until(swept)
