"""What is queued leaves a gateway that does badly, and stays where it would wait just as well."""

import asyncio
from datetime import timedelta

import orjson
import pytest

from app.core.clock import now
from app.notifications import reroute
from app.notifications.history import history_of
from app.notifications.hold import Holding
from tests.builders.accounts import an_account
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import a_message, claim, one, rows, run

DOWN = {"state": "connecting", "health": {"share": 1.0, "down_since": "2026-01-01T00:00:00Z"}}
JUST_DOWN = {"state": "connecting", "health": {"share": 1.0}}
FAILING = {"state": "bound", "health": {"share": 0.05}}
THROTTLED = {"state": "throttled", "health": {"share": 1.0, "throttled_since": "2026-01-01T00:00:00Z"}}


@pytest.fixture
async def gateways(database):
    await an_smpp_gateway(database, "main", bound=True)
    await an_smpp_gateway(database, "spare", bound=True)


async def does(database, status, gateway="main"):
    await run(database, "UPDATE bind_slot SET status = CAST(:status AS jsonb) WHERE gateway = :gateway", status=orjson.dumps(status).decode(), gateway=gateway)


async def routes(database, *given):
    text = orjson.dumps([{"gateways": [], **route} for route in given]).decode()
    await run(
        database,
        "INSERT INTO routing (id, routes, revision, updated_at) VALUES (1, CAST(:routes AS jsonb), 1, now())"
        " ON CONFLICT (id) DO UPDATE SET routes = excluded.routes, revision = routing.revision + 1",
        routes=text,
    )


async def via(database):
    return {row.message_id: row.gateway for row in await rows(database, "SELECT message_id, gateway FROM outbox")}


@pytest.mark.usefixtures("gateways")
@pytest.mark.parametrize("status", [DOWN, THROTTLED, JUST_DOWN | {"state": "stopped", "health": DOWN["health"]}])
async def test_queue_of_a_gateway_that_is_lost_moves_and_its_history_says_so(database, holding, status, woken):
    message = await a_message(database)
    await does(database, status)

    assert await holding.reroute() == 1

    assert await via(database) == {message: "spare"}
    assert (await one(database, "SELECT gateway FROM message")).gateway == "spare"
    assert (await one(database, "SELECT state, reason, detail FROM message_change")) == ("queued", "rerouted", "main -> spare")
    assert woken == ["smpp:spare:0"]
    async with database.transaction() as session:
        history = await history_of(session, message, now())
    assert [(line.state, line.reason, line.gateway) for line in history if line.reason] == [("queued", "rerouted", "spare")]
    assert [claimed.id for claimed in await claim(database, gateway="spare")] == [message]


@pytest.mark.usefixtures("gateways")
async def test_gateway_that_was_down_for_a_moment_keeps_its_queue(database, holding):
    await a_message(database)
    moment = (now() - timedelta(seconds=5)).isoformat()
    await does(database, {"state": "connecting", "health": {"share": 1.0, "down_since": moment}})

    assert await holding.reroute() == 0


@pytest.mark.usefixtures("gateways")
async def test_nothing_moves_while_all_do_well(database, holding):
    for _ in range(3):
        await a_message(database)

    assert await holding.reroute() == 0
    assert await rows(database, "SELECT id FROM message_change") == []


@pytest.mark.usefixtures("gateways")
async def test_what_is_paused_moves_when_another_takes_messages_and_waits_otherwise(database, holding):
    message = await a_message(database)
    await run(database, "UPDATE gateway SET paused = true WHERE name = 'main'")
    await does(database, DOWN, "spare")
    assert await holding.reroute() == 0

    await does(database, {"state": "bound"}, "spare")

    assert await holding.reroute() == 1
    assert await via(database) == {message: "spare"}


@pytest.mark.usefixtures("gateways")
async def test_failing_gateway_keeps_the_accounts_of_its_share(database, holding):
    for _ in range(400):
        await a_message(database)
    await does(database, FAILING)

    moved = await holding.reroute()

    assert 350 < moved < 400
    assert (await one(database, "SELECT count(*) AS n FROM outbox WHERE gateway = 'main'")).n == 400 - moved
    assert await holding.reroute() == 0


@pytest.mark.usefixtures("gateways")
async def test_message_on_the_wire_stays_and_does_not_even_look(database, holding):
    await a_message(database)
    await claim(database)
    await does(database, DOWN)

    assert await holding.reroute() == 0
    assert (await one(database, "SELECT gateway, state FROM outbox")) == ("main", "sending")


@pytest.mark.usefixtures("gateways")
async def test_what_waits_for_its_second_try_after_a_silence_stays_where_the_first_one_went(database, holding):
    await a_message(database, resent=True)
    await does(database, DOWN)

    assert await holding.reroute() == 0


@pytest.mark.usefixtures("gateways")
@pytest.mark.parametrize(("scope", "name"), [("all", ""), ("gateway", "main"), ("type", "service.connected")])
async def test_what_a_stop_is_about_to_hold_does_not_slip_out_by_another_gateway(database, holding, scope, name):
    await a_message(database)
    await does(database, DOWN)
    await run(
        database,
        "INSERT INTO stop (id, scope, name, reason, by, at) VALUES (gen_random_uuid(), :scope, :name, '', 'test', now())",
        scope=scope,
        name=name,
    )

    assert await holding.reroute() == 0


@pytest.mark.usefixtures("gateways")
async def test_each_message_goes_where_its_own_route_leads(database, holding):
    await an_smpp_gateway(database, "third", bound=True)
    account = await an_account(database, attributes={"segment": "vip"})
    await run(database, "INSERT INTO number_range (kind, first, last, operator) VALUES ('range', 79260000000, 79269999999, 'MegaFon')")
    await routes(
        database,
        {"name": "vip", "attributes": {"segment": ["vip"]}, "gateways": ["main", "third"], "sender": "VIP", "price_per_part": "3.5"},
        {"name": "megafon", "operator": "megafon", "gateways": ["third"]},
        {"name": "rest", "gateways": ["main", "spare"]},
    )
    vip = await a_message(database, account)
    megafon = await a_message(database, address="+79261234567")
    rest = await a_message(database)
    await does(database, DOWN)

    assert await holding.reroute() == 3

    assert await via(database) == {vip: "third", megafon: "third", rest: "spare"}
    told = {row.id: (row.route, row.sender, row.price) for row in await rows(database, "SELECT id, route, sender, price FROM message")}
    assert {key: (route, sender, price and str(price)) for key, (route, sender, price) in told.items()} == {
        vip: ("vip", "VIP", "3.5000"),
        megafon: ("megafon", None, None),
        rest: ("rest", None, None),
    }


@pytest.mark.usefixtures("gateways")
async def test_message_stays_where_no_route_of_its_own_offers_anything_better(database, holding):
    await routes(database, {"gateways": ["main"]})
    message = await a_message(database)
    await does(database, DOWN)

    assert await holding.reroute() == 0
    assert await via(database) == {message: "main"}


async def test_parts_are_counted_anew_as_the_other_gateway_cuts(database, holding):
    await an_smpp_gateway(database, "main", bound=True)
    await an_smpp_gateway(database, "spare", bound=True, profile={"transliteration": "ascii"})
    await a_message(database, text="Баланс " * 12, encoding="UCS2", parts=2)
    await does(database, DOWN)

    await holding.reroute()

    assert (await one(database, "SELECT m.encoding, m.parts, o.parts AS waits FROM message m JOIN outbox o ON o.message_id = m.id")) == ("GSM7", 1, 1)


@pytest.mark.usefixtures("gateways")
async def test_long_queue_moves_in_one_go_and_in_its_order(database, holding):
    await run(
        database,
        """
        INSERT INTO message (id, account_id, type, channel, address, locale, text, gateway, state, urgent, not_before, expires_at, parts, updated_at)
        SELECT gen_random_uuid(), gen_random_uuid(), 'service.connected', 'sms', '+79161234567', 'ru', 'x', 'main', 'queued', false,
               now() - interval '1 hour' + n * interval '1 millisecond', now() + interval '1 hour', 1, now() FROM generate_series(1, 2300) n
        """,
    )
    await run(
        database,
        "INSERT INTO outbox (message_id, state, channel, gateway, priority, parts, not_before, expires_at, tries, attempts)"
        " SELECT id, 'queued', 'sms', 'main', 1, 1, not_before, expires_at, 0, 0 FROM message",
    )
    await does(database, DOWN)

    assert await holding.reroute() == 2300

    assert (await one(database, "SELECT count(*) AS n FROM outbox WHERE gateway = 'spare'")).n == 2300
    claimed = await claim(database, gateway="spare", room=100)
    oldest = [row.id for row in await rows(database, "SELECT id FROM message ORDER BY not_before LIMIT 100")]
    assert [message.id for message in claimed] == oldest


@pytest.mark.usefixtures("gateways")
async def test_two_sweepers_and_a_claim_at_once_move_each_message_once(database, holding, settings, wakeups):
    for _ in range(60):
        await a_message(database)
    await does(database, DOWN)

    first, second, claimed = await asyncio.gather(holding.reroute(), Holding(database, settings, wakeups).reroute(), claim(database, room=20))

    left = await one(database, "SELECT count(*) FILTER (WHERE gateway = 'spare') AS moved, count(*) FILTER (WHERE state = 'sending') AS sending FROM outbox")
    assert (left.moved, left.sending) == (first + second, len(claimed))
    assert (await one(database, "SELECT count(*) AS n, count(DISTINCT message_id) AS messages FROM message_change")) == (left.moved, left.moved)


@pytest.mark.usefixtures("gateways")
async def test_many_that_stay_are_not_walked_over_again_until_something_changes(database, holding, monkeypatch):
    monkeypatch.setattr(reroute, "MANY", 2)
    await routes(database, {"gateways": ["main"]})
    for _ in range(5):
        await a_message(database)
    await does(database, DOWN)
    await holding.reroute()
    walked = []
    real = reroute.Rerouting._batch

    async def batch(self, *arguments):
        walked.append(arguments)
        return await real(self, *arguments)

    monkeypatch.setattr(reroute.Rerouting, "_batch", batch)
    assert await holding.reroute() == 0
    assert walked == []

    await routes(database, {"gateways": ["main", "spare"]})

    assert await holding.reroute() == 5


@pytest.mark.usefixtures("gateways")
async def test_message_does_not_move_to_a_gateway_that_a_stop_would_hold_it_on(database, holding):
    message = await a_message(database)
    await does(database, DOWN)
    await run(database, "INSERT INTO stop (id, scope, name, reason, by, at) VALUES (gen_random_uuid(), 'gateway', 'spare', '', 'test', now())")
    assert await holding.reroute() == 0

    await run(database, "DELETE FROM stop")

    assert await holding.reroute() == 1
    assert await via(database) == {message: "spare"}


@pytest.mark.usefixtures("gateways")
async def test_message_leaves_a_gateway_that_only_receives(database, holding):
    message = await a_message(database)
    await run(database, """UPDATE gateway SET settings = jsonb_set(settings, '{profile,bind_mode}', '"rx"'), revision = 2 WHERE name = 'main'""")

    assert await holding.reroute() == 1
    assert await via(database) == {message: "spare"}


async def test_queues_that_are_too_long_for_one_spell_move_in_several_and_none_waits_for_ever(database, holding, monkeypatch):
    for name, value in {"SPELL": 0, "REST": 0, "BATCH": 2}.items():
        monkeypatch.setattr(reroute, name, value)
    for name in ("spare", "alpha", "beta"):
        await an_smpp_gateway(database, name, bound=True)
    await routes(database, {"gateways": ["alpha", "beta"], "type": ["stays"]}, {"gateways": ["alpha", "beta", "spare"], "type": ["service.connected"]})
    waiting = [await a_message(database, gateway=gateway, priority=priority) for gateway in ("alpha", "beta") for priority in (1, 0, 1, 1, 2)]
    staying = [await a_message(database, gateway="alpha", type="stays") for _ in range(3)]
    for gateway in ("alpha", "beta"):
        await does(database, DOWN, gateway)

    spells = [await holding.reroute() for _ in range(20)]

    assert max(spells) < 5
    assert await via(database) == dict.fromkeys(waiting, "spare") | dict.fromkeys(staying, "alpha")


@pytest.mark.usefixtures("gateways")
async def test_after_a_spell_that_was_too_short_the_other_sweeps_have_their_turn(database, holding, monkeypatch):
    monkeypatch.setattr(reroute, "SPELL", 0)
    monkeypatch.setattr(reroute, "BATCH", 2)
    for _ in range(5):
        await a_message(database)
    await does(database, DOWN)

    assert [await holding.reroute(), await holding.reroute()] == [2, 0]
