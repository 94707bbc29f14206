"""From the far end to the decision: what subscribers send comes over real binds, and what they ask for is done."""

import asyncio

import pytest

from app.core.secrets import SecretBox
from app.core.wakeups import Wakeups
from app.notifications.plan import Planner
from app.sending import bind_station
from app.sending.bind_station import BindStation
from app.simulators import smsc_wire as wire
from app.simulators.smsc import SmscSimulator
from app.tracking.match import record
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smpp_gateway
from tests.builders.inbound import an_sms_body, joint8, joint16
from tests.builders.messages import one, rows, run


@pytest.fixture
async def smsc(database, settings, monkeypatch):
    """An SMSC to which the gateway `main` is bound twice, each bind by a station of its own."""
    monkeypatch.setattr(bind_station, "WATCH", 0.1)
    async with SmscSimulator(redelivery_delay=0.2) as simulator:
        await an_smpp_gateway(database, port=simulator.port, binds=2)
        stations = [BindStation(database, SecretBox(settings.secret_keys), "main", slot, record) for slot in (0, 1)]
        tasks = [asyncio.create_task(station.run()) for station in stations]
        await until(lambda: len(simulator.links) == 2)
        yield simulator
        for station in stations:
            station.stop()
        await asyncio.wait_for(asyncio.gather(*tasks), 20)


@pytest.fixture
def tell(database, settings):
    """`await tell(account)`: an ordinary event comes and is planned; what was decided about the phone."""
    planner = Planner(database, settings, Wakeups(settings.redis_url, direct=lambda queue: True))

    async def tell(account):
        event = await a_waiting_event(database, account)
        await planner.plan()
        decisions = (await one(database, "SELECT decisions FROM notification WHERE event_id = :id", id=event)).decisions
        return next((decision["outcome"], decision["reason"]) for decision in decisions if decision["channel"] == "sms")

    return tell


async def until(condition, seconds=30):
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if found := (await found if asyncio.iscoroutine(found) else found):
                return found
            await asyncio.sleep(0.02)


async def texts(database):
    return [row.text for row in await rows(database, "SELECT text FROM inbound_message ORDER BY id")]


async def test_long_sms_whose_parts_come_out_of_order_over_two_binds_is_joined_and_each_part_is_acknowledged(database, smsc):
    words = ("Здравствуйте, ", "когда включат ", "интернет? 🙂")
    bodies = [an_sms_body(text, udh=joint16(0xABCD, 3, number)) for number, text in enumerate(words, 1)]

    for sequence, (link, body) in enumerate(zip((0, 1, 0), (bodies[2], bodies[0], bodies[1]), strict=True), 9001):
        smsc.links[link].write(wire.frame(wire.DELIVER_SM, 0, sequence, body))

    await until(lambda: len(smsc.receipt_answers) == 3)
    assert smsc.receipt_answers == [0, 0, 0]
    assert await texts(database) == ["".join(words)]


async def test_stop_by_sms_silences_the_number_and_start_lets_it_be_told_again(database, smsc, tell):
    account = await an_account(database)
    assert await tell(account) == ("planned", None)

    smsc.deliver(an_sms_body("Стоп!", "89161234567"))
    await until(lambda: rows(database, "SELECT 1 FROM suppression"))
    assert await tell(account) == ("skipped", "suppressed")

    smsc.deliver(an_sms_body("СТАРТ"))
    await until(lambda: texts_are(database, ["Стоп!", "СТАРТ"]))
    assert await tell(account) == ("planned", None)
    assert [row.act for row in await rows(database, "SELECT act FROM consent ORDER BY id")] == ["refused", "allowed"]


async def texts_are(database, expected):
    return await texts(database) == expected


async def test_sms_that_could_not_be_stored_is_not_acknowledged_and_comes_again(database, smsc):
    await run(database, "ALTER TABLE inbound_message ADD CONSTRAINT poison CHECK (text <> 'Привет')")
    smsc.deliver(an_sms_body("Привет"))
    await until(lambda: smsc.receipt_answers)
    assert smsc.receipt_answers[0] == 0x64
    assert await texts(database) == []

    await run(database, "ALTER TABLE inbound_message DROP CONSTRAINT poison")

    await until(lambda: texts_are(database, ["Привет"]))
    await until(lambda: smsc.receipt_answers[-1] == 0)


async def test_part_that_comes_again_because_its_bind_was_lost_before_the_acknowledgement_is_joined_once(database, smsc):
    first, second = (an_sms_body(text, udh=joint8(9, 2, number)) for number, text in ((1, "раз "), (2, "два")))
    for sequence in (9001, 9002):
        smsc.links[0].write(wire.frame(wire.DELIVER_SM, 0, sequence, first))
    smsc.links[1].write(wire.frame(wire.DELIVER_SM, 0, 9003, second))
    await until(lambda: texts_are(database, ["раз два"]))
    smsc.links[0].reset()
    await until(lambda: len(smsc.binds) == 3 and len(smsc.links) == 2)

    for link in smsc.links:
        link.write(wire.frame(wire.DELIVER_SM, 0, 9004, second))

    answered = len(smsc.receipt_answers)
    await until(lambda: len(smsc.receipt_answers) >= answered + 2 or len(smsc.receipt_answers) >= 5)
    assert set(smsc.receipt_answers) == {0}
    assert await texts(database) == ["раз два"]
    assert await rows(database, "SELECT 1 FROM inbound_part WHERE NOT joined") == []
