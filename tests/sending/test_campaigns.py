"""Many messages on live binds while something changes: stopped, lifted, bounded by a budget, another profile, more binds. Each goes once, none is lost."""

import asyncio

import pytest

from app.core.clock import now
from app.sending import bind_station
from app.simulators.smsc import SmscSimulator
from tests.builders.accounts import an_account
from tests.builders.gateways import QUICK, an_smpp_gateway
from tests.builders.messages import one, rows, run
from tests.builders.stations import Stations, many_messages, until


@pytest.fixture
async def stations(database, settings, monkeypatch):
    monkeypatch.setattr(bind_station, "WATCH", 0.1)
    stations = Stations(database, settings)
    yield stations
    await stations.stop()


@pytest.fixture
async def smsc():
    async with SmscSimulator() as simulator:
        yield simulator


@pytest.fixture
async def account(database):
    return await an_account(database)


async def states(database):
    found = await rows(
        database, "SELECT coalesce(o.state, m.state) AS state, count(*) AS n FROM message m LEFT JOIN outbox o ON o.message_id = m.id GROUP BY 1"
    )
    return {row.state: row.n for row in found}


def numbers(*simulators):
    return [received.destination for smsc in simulators for received in smsc.received]


async def test_stop_in_the_middle_of_a_campaign_lets_nothing_more_out_and_loses_nothing(database, api, stations, smsc, account):
    await an_smpp_gateway(database, port=smsc.port, window=20, rate_per_second=1000)
    await many_messages(database, account, 2000)
    stations.start()
    await until(lambda: len(smsc.received) > 200)

    stop = (await api.post("/stops", json={"scope": "all", "reason": "wrong price"})).json()
    claimed = len(await rows(database, "SELECT message_id FROM outbox WHERE state = 'sending'"))
    gone = len(await rows(database, "SELECT id FROM message m WHERE NOT EXISTS (SELECT FROM outbox o WHERE o.message_id = m.id)"))

    await asyncio.sleep(1)
    assert len(smsc.received) <= claimed + gone < 2000
    assert stop["held"] == 2000 - len(smsc.received)
    assert (await states(database))["held"] == stop["held"]

    await api.delete(f"/stops/{stop['id']}")
    await stations.sweep()
    await until(lambda: states_are(database, {"delivered": 2000}))
    assert len(numbers(smsc)) == len(set(numbers(smsc))) == 2000


async def states_are(database, expected):
    return await states(database) == expected


async def test_stop_of_a_type_lets_a_campaign_of_another_go_on(database, api, stations, smsc, account):
    await an_smpp_gateway(database, port=smsc.port, window=20)
    await many_messages(database, account, 300)
    await many_messages(database, account, 300, type="tariff.changed", text="other")

    await api.post("/stops", json={"scope": "type", "name": "tariff.changed"})
    stations.start()

    await until(lambda: states_are(database, {"delivered": 300, "held": 300}))
    assert {received.text for received in smsc.received} == {"Баланс 10,00"}


async def test_budget_of_fifty_parts_lets_exactly_fifty_of_two_hundred_go_over_two_binds(database, stations, smsc, account):
    await an_smpp_gateway(database, port=smsc.port, window=10, binds=2, daily_parts=50)
    await many_messages(database, account, 200)
    stations.follow(2)

    await until(lambda: states_are(database, {"delivered": 50, "held": 150}))
    waiting = await rows(database, "SELECT DISTINCT not_before, reason FROM outbox")
    assert [(row.reason, row.not_before.astimezone(stations.watch._zone).strftime("%H:%M")) for row in waiting] == [("budget", "00:00")]
    assert waiting[0].not_before > now()

    await run(database, "UPDATE gateway SET settings = settings || '{\"daily_parts\": 120}', revision = revision + 1")
    await stations.sweep()
    await until(lambda: states_are(database, {"delivered": 120, "held": 80}))

    await run(database, "UPDATE gateway SET settings = settings || '{\"daily_parts\": null}', revision = revision + 1")
    await stations.sweep()
    await until(lambda: states_are(database, {"delivered": 200}))
    assert len(numbers(smsc)) == len(set(numbers(smsc))) == 200
    assert 120 <= (await one(database, "SELECT parts FROM usage")).parts <= 200  # a bind may learn a moment later that there is nothing to count any more


async def test_long_messages_keep_a_budget_from_being_used_to_the_last_part(database, stations, smsc, account):
    await an_smpp_gateway(database, port=smsc.port, window=10, daily_parts=50)
    await many_messages(database, account, 20, parts=3, text="Ж" * 200)
    stations.start()

    await until(lambda: states_are(database, {"delivered": 16, "held": 4}))
    assert (await one(database, "SELECT parts FROM usage")).parts == 48


async def test_budget_of_a_type_is_taken_over_from_the_catalogue_without_a_new_bind(database, stations, smsc, account):
    await an_smpp_gateway(database, port=smsc.port)
    stations.start()
    await until(lambda: smsc.links)

    await run(database, "UPDATE notification_type SET settings = '{\"daily_parts\": 5}', revision = revision + 1 WHERE code = 'service.connected'")
    await asyncio.sleep(0.5)
    await many_messages(database, account, 12)
    stations.poke()

    await until(lambda: states_are(database, {"delivered": 5, "held": 7}))
    assert len(smsc.binds) == 1


async def test_binds_rate_and_profile_may_change_under_a_campaign(database, stations, smsc, account):
    await an_smpp_gateway(database, port=smsc.port, window=20, binds=1, rate_total=1000)
    await many_messages(database, account, 2000)
    stations.follow(1)
    changes = (
        ({"binds": 3, "rate_total": 1500}, 3),
        ({"profile": QUICK | {"long_messages": "udh16", "registered_delivery": 1}}, 3),
        ({"binds": 1, "rate_total": None, "rate_per_second": 700.0, "window": 5}, 1),
        ({"binds": 2, "rate_per_second": None, "window": 50}, 2),
    )

    for number, (change, binds) in enumerate(changes, 1):
        await until(lambda number=number: len(smsc.received) > 300 * number)
        await run(database, "UPDATE gateway SET settings = settings || CAST(:change AS jsonb), revision = revision + 1", change=as_json(change))
        stations.follow(binds)

    await until(lambda: states_are(database, {"delivered": 2000}), 60)
    assert len(numbers(smsc)) == len(set(numbers(smsc))) == 2000


def as_json(value):
    import json

    return json.dumps(value)


async def test_sender_flash_and_number_of_the_parts_reach_the_wire(database, stations, smsc, account):
    await an_smpp_gateway(database, port=smsc.port, profile=QUICK | {"long_messages": "udh16"})
    await run(database, "UPDATE notification_type SET settings = '{\"flash\": true}', revision = revision + 1 WHERE code = 'service.connected'")
    await run(database, "INSERT INTO joint_reference (address, last, at) VALUES ('+79160000001', 4242, now())")
    await many_messages(database, account, 1, parts=4, text="Ж" * 200)
    await run(database, "UPDATE message SET sender = 'Promo'")

    stations.start()

    await until(lambda: smsc.received)
    (received,) = smsc.received
    assert received.source == "Promo"
    assert received.parts == 4
    assert (await one(database, "SELECT last FROM joint_reference")).last == 4243
