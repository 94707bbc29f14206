"""Stations against the far end: they take over what changes at a gateway, and lose nothing on the way."""

import asyncio

import pytest

from app.accounts.unsubscribe import OfMessage, UnsubscribeLinks
from app.core.secrets import SecretBox
from app.core.wakeups import Wakeups
from app.sending import bind_station, mail_station
from app.sending.bind_station import BindStation
from app.sending.mail_station import MailStation
from app.sending.slots import take_slot
from app.sending.smtp.verp import Verp
from app.simulators.mailbox import Mailbox
from app.simulators.smsc import SmscSimulator
from app.tracking.match import record
from app.tracking.sweeps import Sweeper
from tests.builders.gateways import QUICK, an_smpp_gateway, an_smtp_gateway
from tests.builders.messages import a_message, one, rows, run, state_of


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for module in (bind_station, mail_station):
        monkeypatch.setattr(module, "WATCH", 0.1)
        monkeypatch.setattr(module, "GRACE", 5.0)


@pytest.fixture
async def run_station(database, settings):
    """Starts stations, and stops them at the end."""
    running = []

    def start(kind=BindStation, *arguments):
        secrets = SecretBox(settings.secret_keys)
        station = (
            kind(database, secrets, *(arguments or ("main", 0)), record)
            if kind is BindStation
            else kind(database, secrets, UnsubscribeLinks(settings), Verp(settings))
        )
        task = asyncio.create_task(station.run())
        running.append((station, task))
        return station, task

    yield start
    for station, _ in running:
        station.stop()
    await asyncio.wait_for(asyncio.gather(*(task for _, task in running)), 20)


@pytest.fixture
async def smsc():
    async with SmscSimulator() as simulator:
        yield simulator


async def until(condition, seconds=10):
    """Until it is so. The condition may be asynchronous."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if found := (await found if asyncio.iscoroutine(found) else found):
                return found
            await asyncio.sleep(0.02)


async def all_are(database, *states):
    return {
        row.state for row in await rows(database, "SELECT coalesce(o.state, m.state) AS state FROM message m LEFT JOIN outbox o ON o.message_id = m.id")
    } <= set(states)


async def test_message_goes_out_and_its_receipt_comes_back(database, run_station, smsc):
    await an_smpp_gateway(database, port=smsc.port)
    run_station()

    message = await a_message(database, text="Баланс 10,00")

    await until(lambda: all_are(database, "delivered"))
    assert [(received.destination, received.text) for received in smsc.received] == [("79161234567", "Баланс 10,00")]
    assert await state_of(database, message) == ("delivered", None)
    assert (await one(database, "SELECT status FROM bind_slot")).status["state"] == "bound"


async def test_long_message_is_delivered_with_its_last_part(database, run_station, smsc):
    await an_smpp_gateway(database, port=smsc.port, window=2)
    run_station()

    await a_message(database, text="Ж" * 200, parts=3)

    await until(lambda: all_are(database, "delivered"))
    assert smsc.received[0].parts == 3
    assert len(await rows(database, "SELECT part FROM receipt WHERE status = 'matched'")) == 3


async def test_gateway_that_was_moved_is_followed_and_nothing_is_sent_twice(database, run_station, smsc):
    await an_smpp_gateway(database, port=smsc.port)
    run_station()
    async with SmscSimulator() as other:
        for number in range(60):
            await a_message(database, address=f"+7916000{number:04}")
        await until(lambda: smsc.received)

        await run(
            database,
            "UPDATE gateway SET settings = settings || jsonb_build_object('port', CAST(:port AS int)), revision = revision + 1",
            port=other.port,
        )
        await until(lambda: other.links)
        for number in range(60, 70):
            await a_message(database, address=f"+7916000{number:04}")

        await until(lambda: all_are(database, "delivered"))
        seen = [received.destination for received in [*smsc.received, *other.received]]
        assert len(seen) == len(set(seen)) == 70
        assert smsc.links == []


async def test_paused_gateway_stays_bound_and_sends_nothing_until_it_is_resumed(database, run_station, smsc):
    await an_smpp_gateway(database, port=smsc.port, paused=True)
    run_station()
    await until(lambda: smsc.links)
    await a_message(database)
    await asyncio.sleep(0.4)
    assert smsc.received == []

    await run(database, "UPDATE gateway SET paused = false")

    await until(lambda: all_are(database, "delivered"))
    assert len(smsc.binds) == 1


async def test_disabled_gateway_is_unbound_and_its_station_ends(database, run_station, smsc):
    await an_smpp_gateway(database, port=smsc.port)
    _, task = run_station()
    await until(lambda: smsc.links)

    await run(database, "UPDATE gateway SET enabled = false, revision = revision + 1")

    await asyncio.wait_for(asyncio.shield(task), 10)
    assert smsc.unbinds == 1
    assert (await one(database, "SELECT until <= now() AS free FROM bind_slot")).free


async def test_station_of_a_gateway_or_a_slot_that_is_not_there_ends_at_once(database, run_station, smsc):
    await an_smpp_gateway(database, port=smsc.port, binds=1)

    for arguments in (("nowhere", 0), ("main", 1)):
        _, task = run_station(BindStation, *arguments)
        await asyncio.wait_for(asyncio.shield(task), 5)


async def test_of_two_stations_for_one_slot_one_is_bound(database, run_station, smsc):
    await an_smpp_gateway(database, port=smsc.port)
    first, task = run_station()
    await until(lambda: smsc.links)
    run_station()
    await asyncio.sleep(0.5)
    assert len(smsc.links) == 1

    first.stop()
    await asyncio.wait_for(asyncio.shield(task), 10)

    await until(lambda: len(smsc.binds) == 2 and smsc.links)


async def test_station_whose_slot_was_taken_by_another_unbinds(database, run_station, smsc, monkeypatch):
    monkeypatch.setattr(bind_station, "RENEW", 0.3)
    await an_smpp_gateway(database, port=smsc.port)
    run_station()
    await until(lambda: rows(database, "SELECT 1 FROM bind_slot WHERE status ->> 'state' = 'bound'"))  # the renewal that a new state brings is over

    await run(database, "UPDATE bind_slot SET until = now() - interval '1 second'")
    assert await take_slot(database, "main", 0)
    await run(database, "UPDATE bind_slot SET owner = 'another-host|b|p|1|1'")

    await until(lambda: not smsc.links)
    await a_message(database)
    await asyncio.sleep(0.3)
    assert smsc.received == []


async def test_stopped_station_settles_what_is_on_the_wire(database, run_station):
    async with SmscSimulator(answer_delay=0.5, receipts=False) as slow:
        await an_smpp_gateway(database, port=slow.port)
        for _ in range(30):
            await a_message(database)
        station, task = run_station()
        await until(lambda: slow.submitted)

        station.stop()
        await asyncio.wait_for(asyncio.shield(task), 15)

        states = dict(
            tuple(row)
            for row in await rows(database, "SELECT coalesce(o.state, m.state), count(*) FROM message m LEFT JOIN outbox o ON o.message_id = m.id GROUP BY 1")
        )
        assert states.keys() <= {"accepted", "queued"}
        assert states["accepted"] == slow.accepted


async def test_slot_is_kept_for_as_long_as_a_drain_takes(database, run_station, monkeypatch):
    monkeypatch.setattr(bind_station, "RENEW", 0.1)
    async with SmscSimulator(answer_delay=1.5) as slow:
        await an_smpp_gateway(database, port=slow.port)
        await a_message(database)
        station, task = run_station()
        await until(lambda: slow.submitted)

        station.stop()
        await asyncio.sleep(0.3)
        await run(database, "UPDATE bind_slot SET until = now() + interval '0.5 seconds'")
        await asyncio.sleep(0.7)

        assert await take_slot(database, "main", 0) is None
        await asyncio.wait_for(asyncio.shield(task), 10)
        assert await take_slot(database, "main", 0) is not None
        assert await all_are(database, "accepted", "delivered")


async def test_messages_of_a_silent_smsc_are_unknown_and_are_not_sent_again(database, run_station):
    async with SmscSimulator(silent=True) as silent:
        await an_smpp_gateway(database, port=silent.port, profile=QUICK | {"response_timeout": 0.3})
        run_station()
        for _ in range(5):
            await a_message(database)

        await until(lambda: all_are(database, "unknown"))
        await asyncio.sleep(0.5)
        assert silent.submitted == 5


async def test_what_a_dead_worker_had_claimed_is_in_doubt_as_soon_as_another_takes_its_slot(database, settings, run_station, smsc):
    await an_smpp_gateway(database, port=smsc.port)
    dead = await take_slot(database, "main", 0)
    orphan = await a_message(database, state="sending", claimed_by=dead.fence)
    await run(database, "UPDATE outbox SET lease_until = now() + interval '1 hour'")
    await run(database, "UPDATE bind_slot SET until = now() - interval '1 second'")
    run_station()
    await until(lambda: smsc.links)

    await Sweeper(database, Wakeups(settings.redis_url, direct=lambda queue: True)).end_leases()

    assert await state_of(database, orphan) == ("unknown", "no_answer")
    assert smsc.received == []


async def test_letters_of_two_gateways_go_each_its_own_way(database, run_station):
    async with Mailbox() as first, Mailbox() as second:
        await an_smtp_gateway(database, "alpha", port=first.port)
        await an_smtp_gateway(database, "beta", port=second.port)
        for gateway in ("alpha", "beta", "beta"):
            await a_message(database, channel="email", address="a@example.org", subject="S", gateway=gateway)
        run_station(MailStation)

        await until(lambda: all_are(database, "accepted"))

        assert (first.count, second.count) == (1, 2)


async def test_doubt_about_a_claim_of_one_mail_gateway_puts_nothing_of_another_back(database, run_station):
    async with Mailbox(delay=0.3) as slow, Mailbox() as quick:
        await an_smtp_gateway(database, "slow", port=slow.port, connections=1)
        await an_smtp_gateway(database, "quick", port=quick.port)
        station, _ = run_station(MailStation)
        await a_message(database, channel="email", address="a@example.org", subject="S", gateway="slow")
        await until(lambda: slow.commands["DATA"] or slow.commands["MAIL"])

        station._lanes["quick"][1].delivery._doubt = True
        await a_message(database, channel="email", address="b@example.org", subject="S", gateway="quick")
        station.poke()

        await until(lambda: all_are(database, "accepted"))
        assert (slow.count, quick.count) == (1, 1)


async def test_lease_of_a_letter_on_the_wire_is_pushed_on_and_that_of_one_that_could_not_be_written_is_not(database, run_station, monkeypatch):
    monkeypatch.setattr(mail_station, "MAIL_RENEW", 0.1)
    await run(database, "ALTER TABLE submission ADD CONSTRAINT poison CHECK (detail NOT LIKE '%poison%')")
    async with Mailbox(delay=0.4) as slow, Mailbox() as quick:
        quick.refuse("*", "550 poison")
        await an_smtp_gateway(database, "slow", port=slow.port)
        await an_smtp_gateway(database, "quick", port=quick.port)
        station, _ = run_station(MailStation)
        unwritten = await a_message(database, channel="email", address="b@example.org", subject="S", gateway="quick")
        await until(lambda: station._lanes and station._lanes["quick"][1].delivery._unwritten)
        on_wire = await a_message(database, channel="email", address="a@example.org", subject="S", gateway="slow")
        await until(lambda: all_are(database, "sending"))

        await run(database, "UPDATE outbox SET lease_until = now() - interval '1 second'")
        await asyncio.sleep(0.4)

        leases = dict(tuple(row) for row in await rows(database, "SELECT message_id, lease_until > now() FROM outbox"))
        assert leases == {on_wire: True, unwritten: False}


async def test_mail_gateway_that_was_paused_is_left_and_taken_up_again(database, run_station):
    async with Mailbox() as mailbox:
        await an_smtp_gateway(database, port=mailbox.port, paused=True)
        run_station(MailStation)
        await a_message(database, channel="email", address="a@example.org", subject="S", gateway="post")
        await asyncio.sleep(0.5)
        assert mailbox.count == 0

        await run(database, "UPDATE gateway SET paused = false")

        await until(lambda: all_are(database, "accepted"))


async def test_letter_of_a_type_that_may_be_refused_has_the_headers_of_one_click_and_a_mandatory_one_has_none(database, settings, run_station):
    await run(database, "UPDATE notification_type SET mandatory = true, revision = revision + 1 WHERE code = 'tariff.changed'")
    async with Mailbox() as mailbox:
        await an_smtp_gateway(database, port=mailbox.port)
        run_station(MailStation)
        refusable = await a_message(database, channel="email", address="a@example.org", subject="S", gateway="post")
        await a_message(database, channel="email", address="b@example.org", subject="S", gateway="post", type="tariff.changed")

        await until(lambda: mailbox.count == 2)

        headers = {letter.to: letter.parsed for letter in mailbox.letters}
    link = headers["a@example.org"]["List-Unsubscribe"].strip("<>")
    assert headers["a@example.org"]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert UnsubscribeLinks(settings).read(link.rpartition("/")[2]) == OfMessage(refusable)
    assert headers["b@example.org"]["List-Unsubscribe"] is None
