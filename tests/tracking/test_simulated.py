"""Test keys: what they send looks like life, and never gets out."""

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa

from app.core.clock import now
from app.core.wakeups import Wakeups
from app.gateways.router import SIMULATED
from app.notifications.hold import Holding
from app.notifications.plan import Planner
from app.tracking.simulated import SimulatedGateway, SimulatedStation
from tests.builders.accounts import PHONE, an_account
from tests.builders.events import a_payment
from tests.builders.gateways import an_smpp_gateway, an_smtp_gateway
from tests.builders.messages import claim, one, rows, run
from tests.builders.templates import publish

FATES = {
    "00": ("delivered", None),
    "01": ("undelivered", "undeliverable"),
    "02": ("expired", "expired"),
    "03": ("undelivered", "rejected"),
    "04": ("undelivered", "deleted"),
    "05": ("accepted", None),
    "10": ("failed", "refused"),
    "11": ("delivered", None),
    "12": ("delivered", None),
    "13": ("failed", "refused_for_now"),
    "14": ("unknown", "no_answer"),
    "77": ("delivered", None),
}
LETTERS = {
    "delivered": ("accepted", None),
    "bounce": ("undelivered", "mailbox_unavailable"),
    "full": ("undelivered", "mailbox_full"),
    "refused": ("failed", "mailbox_unavailable"),
    "greylist": ("accepted", None),
    "busy": ("failed", "policy"),
    "silent": ("unknown", "no_answer"),
    "somebody": ("accepted", None),
}


@pytest.fixture
async def tester(api, as_role):
    """Somebody with a test key of the role `operator`."""
    key = (await api.post("/keys", json={"name": "tests", "role": "operator", "test": True})).json()["key"]
    return await as_role(None, token=key)


@pytest.fixture
def planner(database, settings):
    return Planner(database, settings, Wakeups(settings.redis_url))


@pytest.fixture
def holding(database, settings):
    return Holding(database, settings, Wakeups(settings.redis_url))


@pytest.fixture
def live(database, planner):
    """`await live()`: all that is to come comes, as if time had passed."""

    async def live():
        await planner.plan()
        for _ in range(6):
            await run(database, "UPDATE outbox SET not_before = now() - interval '1 second' WHERE state = 'queued'")
            await run(database, "UPDATE simulated_receipt SET due_at = now()")
            await SimulatedGateway(database).send()
            await run(database, "UPDATE simulated_receipt SET due_at = now()")
            await SimulatedGateway(database).hear()

    return live


async def told(client, **more):
    answer = await client.post("/events", json=a_payment(**more))
    assert answer.status_code == 202, answer.text
    return answer.json()


async def states(database):
    found = await rows(
        database,
        "SELECT m.address, coalesce(o.state, m.state) AS state, m.reason, m.test, coalesce(o.gateway, m.gateway) AS gateway"
        " FROM message m LEFT JOIN outbox o ON o.message_id = m.id ORDER BY m.id",
    )
    assert {(row.test, row.gateway) for row in found} <= {(True, SIMULATED)}
    return {row.address: (row.state, row.reason) for row in found}


async def test_each_number_of_the_table_ends_as_it_says(database, tester, live):
    await an_smpp_gateway(database)
    for ending in FATES:
        await an_account(database, ending, phones=(f"+799900000{ending}",))
        await told(tester, account=ending)

    await live()

    assert await states(database) == {f"+799900000{ending}": fate for ending, fate in FATES.items()}


async def test_each_mailbox_of_the_table_ends_as_it_says(database, tester, live):
    await an_smtp_gateway(database)
    await publish(database, "payment.received", "Зачислено {{ amount|money }}", channel="email", subject="Платёж")
    for local in LETTERS:
        await an_account(database, local, phones=(), mails=(f"{local}@simulator.example",))
        await told(tester, account=local)

    await live()

    assert await states(database) == {f"{local}@simulator.example": fate for local, fate in LETTERS.items()}
    assert (await one(database, "SELECT count(*) AS n FROM suppression")).n == 0


async def test_history_of_a_simulated_message_is_that_of_a_real_one(api, database, tester, live):
    await an_account(database, phones=("+79990000012",))
    await told(tester)
    await live()

    message = await one(database, "SELECT id FROM message")
    shown = (await api.get(f"/messages/{message.id}")).json()

    assert (shown["state"], shown["test"], shown["gateway"]) == ("delivered", True, SIMULATED)
    assert [row.outcome for row in await rows(database, "SELECT outcome FROM submission ORDER BY n")] == ["deferred", "accepted"]
    assert (await one(database, "SELECT stat FROM receipt")).stat == "DELIVRD"


async def test_test_event_to_a_real_number_is_delivered_to_nobody(database, tester, live, planner):
    await an_smpp_gateway(database, bound=True)
    await an_account(database)
    await told(tester)
    await planner.plan()

    assert await claim(database) == []
    await live()

    assert await states(database) == {PHONE: ("delivered", None)}


async def test_no_gateway_is_needed_and_none_can_have_the_name(api, database, tester, live):
    await an_account(database)
    await told(tester)
    await live()

    taken = await api.put("/gateways/@simulated", json={"kind": "smpp", "host": "127.0.0.1", "port": 1, "system_id": "x", "sender": "x"})

    assert taken.status_code == 422
    assert await states(database) == {PHONE: ("delivered", None)}


async def test_simulated_message_leaves_its_gateway_by_no_reroute_release_or_deletion(api, database, tester, planner, holding):
    await an_smpp_gateway(database, bound=True)
    await an_account(database)
    await told(tester)
    await planner.plan()

    await holding.reroute()
    await run(database, "UPDATE outbox SET state = 'held', reason = 'quiet_hours', not_before = now() - interval '1 second'")
    await holding.release()
    await run(database, "UPDATE outbox SET send_until = now() - interval '1 second'")
    await holding.put_off()
    await run(database, "UPDATE outbox SET not_before = now() - interval '1 second', send_until = NULL")
    await holding.release()
    gateway = await api.get("/gateways/main")
    await api.delete("/gateways/main", headers={"If-Match": gateway.headers["etag"]})
    await an_smpp_gateway(database, "other", bound=True)
    await holding.reroute()

    assert await states(database) == {PHONE: ("queued", None)}
    assert await claim(database, gateway="other") == []


@pytest.mark.parametrize("statement", ["UPDATE outbox SET gateway = 'main'", "UPDATE message SET gateway = 'main'", "UPDATE outbox SET gateway = NULL"])
async def test_database_itself_refuses_to_let_a_simulated_message_out(database, tester, planner, statement):
    await an_account(database)
    await told(tester)
    await planner.plan()

    with pytest.raises(sa.exc.DBAPIError, match="never changes its gateway"):
        await run(database, statement)


async def test_claim_hands_nothing_simulated_over_though_the_line_was_forged(database, tester, planner):
    """With the triggers off, as nobody but the owner of the tables can have it."""
    await an_smpp_gateway(database, bound=True)
    await an_account(database)
    await told(tester)
    await planner.plan()
    async with database.transaction() as session:
        await session.execute(sa.text("ALTER TABLE outbox DISABLE TRIGGER ALL"))
        await session.execute(sa.text("UPDATE outbox SET gateway = 'main'"))
        await session.execute(sa.text("ALTER TABLE outbox ENABLE TRIGGER ALL"))

    assert await claim(database) == []


async def test_real_message_is_not_taken_by_the_simulated_gateway(api, database, live):
    await an_smpp_gateway(database, bound=True)
    await an_account(database)
    await told(api)

    await live()

    message = await one(database, "SELECT m.test, o.state, o.gateway FROM message m JOIN outbox o ON o.message_id = m.id")
    assert tuple(message) == (False, "queued", "main")


async def test_resend_of_a_simulated_message_stays_simulated_whoever_asks(api, database, tester, live):
    await an_smpp_gateway(database, bound=True)
    await an_account(database)
    await told(tester)
    await live()
    message = await one(database, "SELECT id FROM message")

    answers = [await client.post(f"/messages/{message.id}/resend") for client in (api, tester)]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert {answer.json()["gateway"] for answer in answers} == {SIMULATED}
    await live()
    assert await states(database) == {PHONE: ("delivered", None)}


async def test_resend_of_a_real_message_by_a_test_key_is_simulated(api, database, tester, live, planner):
    await an_smpp_gateway(database, bound=True)
    await an_account(database)
    await told(api)
    await planner.plan()
    message = await one(database, "SELECT id FROM message")
    await run(database, "DELETE FROM outbox")
    await run(database, "UPDATE message SET state = 'delivered'")

    again = await tester.post(f"/messages/{message.id}/resend")

    assert (again.status_code, again.json()["gateway"], again.json()["test"]) == (201, SIMULATED, True)
    assert await claim(database) == []


async def test_test_send_by_a_test_key_is_simulated(api, database, tester):
    await an_smpp_gateway(database, bound=True)
    key_id = tester.headers["Authorization"].split("_")[1]
    await api.put(f"/keys/{key_id}/contacts", json={"contacts": [{"channel": "sms", "address": "+79990000001"}]})
    template = await one(database, "SELECT id FROM template WHERE type = 'payment.received' AND channel = 'sms' AND locale = 'ru'")

    sent = await tester.post(f"/templates/{template.id}/test-send", json={})

    # A role that may not write templates may not test them either, with a test key or without.
    assert sent.status_code == 201, sent.text
    assert sent.json()["messages"][0]["gateway"] == SIMULATED
    assert await claim(database) == []


async def test_test_event_moves_no_balance_and_counts_towards_no_cap(api, database, tester, live):
    await an_account(database)
    await api.put("/caps/service", json={"per_day": 1})
    for _ in range(3):
        await told(tester, balance="-50.00")

    await live()

    account = await one(database, "SELECT balance, balance_as_of FROM account")
    assert (str(account.balance), account.balance_as_of) == ("100.00", None)
    assert (await one(database, "SELECT count(*) AS n FROM told")).n == 0
    assert (await one(database, "SELECT count(*) AS n FROM message WHERE state = 'delivered'")).n == 3


async def test_key_of_a_test_event_does_not_stand_in_the_way_of_the_real_one_nor_the_other_way_round(api, database, tester):
    await an_account(database)
    event = a_payment()

    answers = [await client.post("/events", json=event) for client in (tester, api, tester, api)]

    assert [answer.json()["duplicate"] for answer in answers] == [False, False, True, True]
    assert answers[0].json()["event_id"] == answers[2].json()["event_id"] != answers[1].json()["event_id"]
    found = (await api.get("/events", params={"source": event["source"], "id": event["id"]})).json()["items"]
    assert len(found) == 2


async def test_batch_of_tests_and_one_of_real_events_that_are_planned_together_stay_apart(api, database, tester, planner):
    await an_smpp_gateway(database, bound=True)
    await an_account(database)
    await tester.post("/events", json=[a_payment() for _ in range(5)])
    await api.post("/events", json=[a_payment() for _ in range(5)])

    await planner.plan()

    found = await rows(database, "SELECT m.test, m.gateway, e.test AS of_test FROM message m JOIN event e ON e.id = m.event_id")
    assert sorted(tuple(row) for row in found) == [(False, "main", False)] * 5 + [(True, SIMULATED, True)] * 5


async def test_test_event_is_put_together_with_no_real_one_and_undoes_none(api, database, tester, planner, holding):
    """A service is disconnected in earnest; a test connects it again."""
    await an_smpp_gateway(database, bound=True)
    await an_account(database)

    def change(kind):
        return a_payment() | {"type": kind, "data": {"service": {"code": "tv", "name": "TV"}}}

    await api.post("/events", json=change("service.disconnected"))
    await planner.plan()
    await tester.post("/events", json=change("service.connected"))
    await planner.plan()
    await run(database, "UPDATE outbox SET state = 'held', reason = 'quiet_hours', not_before = now() - interval '1 second'")
    await holding.release()

    found = await rows(database, "SELECT m.type, m.test, o.state FROM message m JOIN outbox o ON o.message_id = m.id ORDER BY m.type DESC")
    assert [tuple(row) for row in found] == [("service.disconnected", False, "queued"), ("service.connected", True, "queued")]
    assert (await one(database, "SELECT count(*) AS n FROM notification_event")).n == 0


async def test_test_event_cannot_pass_for_one_of_our_own_reminders(database, tester):
    await an_account(database)

    answer = await tester.post("/events", json=a_payment(source="/vestnik/forecasts"))

    assert (answer.status_code, answer.json()["code"]) == (422, "made_here")


async def test_test_key_changes_nothing_but_tests(database, tester):
    account = await an_account(database)
    tries = [
        tester.patch(f"/accounts/{account.number}", json={"balance": "1.00"}),
        tester.post(f"/accounts/{account.number}/contacts", json={"channel": "sms", "address": "+79161112233"}),
        tester.post("/forecasts/scans", json={"kind": "exhaustion"}),
        tester.post("/stops", json={"scope": "all"}),
        tester.post("/messages/00000000-0000-7000-8000-000000000000/cancel"),
    ]

    answers = await asyncio.gather(*tries)

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(403, "test_key")}
    assert (await tester.get(f"/accounts/{account.number}")).status_code == 200


async def test_two_workers_answer_each_message_once_and_what_is_to_be_heard_outlives_them(database, tester, planner):
    await an_account(database)
    for _ in range(20):
        await told(tester)
    await planner.plan()

    done = await asyncio.gather(*(SimulatedGateway(database).send() for _ in range(3)))
    await run(database, "UPDATE simulated_receipt SET due_at = :at", at=now() - timedelta(seconds=1))
    heard = await asyncio.gather(*(SimulatedGateway(database).hear() for _ in range(3)))

    assert (sum(done), sum(heard)) == (20, 20)
    assert (await one(database, "SELECT count(*) AS n FROM submission")).n == 20
    assert (await one(database, "SELECT count(*) AS n FROM message WHERE state = 'delivered'")).n == 20
    assert (await one(database, "SELECT count(*) AS n FROM simulated_receipt")).n == 0


async def test_station_does_it_all_when_it_is_poked(database, tester, planner):
    await an_account(database)
    station = SimulatedStation(database)
    task = asyncio.create_task(station.run())
    await told(tester)
    await planner.plan()
    station.poke()

    while (await one(database, "SELECT state FROM message")).state != "delivered":
        await asyncio.sleep(0.05)

    station.stop()
    await task
