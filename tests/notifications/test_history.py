"""The history of a message: what happened, in the order in which it happened."""

from datetime import timedelta
from uuid import uuid4

import pytest

from app.core.clock import now
from app.notifications.hold import Holding
from app.notifications.plan import Planner
from app.sending.outcome import Accepted, Deferred, Refused
from app.tracking.sweeps import Sweeper
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import a_message, claim, rows, run, write
from tests.builders.receipts import a_receipt, receive

BUSY = Deferred("refused_for_now", timedelta(0), code="0x00000014", detail="ESME_RMSGQFUL")


@pytest.fixture
async def send(database):
    async def send(*outcomes):
        for outcome in outcomes:
            await run(database, "UPDATE outbox SET not_before = now() - interval '1 second'")
            (claimed,) = await claim(database, owner=(owner := uuid4()))
            await write(database, owner, (claimed, outcome))

    return send


async def history(api, message):
    return (await api.get(f"/messages/{message}")).json()["history"]


async def told(api, message):
    return [(line["state"], line["reason"]) for line in await history(api, message)]


async def test_ordinary_road_from_queue_to_receipt(database, api, send):
    message = await a_message(database, await an_account(database))
    await send(Accepted(("17",)))
    await receive(database, a_receipt("17"))

    lines = await history(api, message)

    assert [(line["state"], line["gateway"], line["detail"]) for line in lines] == [
        ("queued", None, None),
        ("sending", "main", None),
        ("accepted", "main", "id 17"),
        ("delivered", "main", "receipt DELIVRD for part 1, id 17"),
    ]
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)


async def test_attempts_and_their_refusals(database, api, send):
    message = await a_message(database)
    await send(BUSY, BUSY, Accepted(("17",)))

    lines = await history(api, message)

    assert [line["state"] for line in lines] == ["queued", "sending", "queued", "sending", "queued", "sending", "accepted"]
    assert [line["detail"] for line in lines][1:5] == [None, "0x00000014 ESME_RMSGQFUL", "attempt 2", "0x00000014 ESME_RMSGQFUL"]


async def test_last_line_of_a_message_that_used_up_its_attempts_says_that_it_failed(database, api, send):
    message = await a_message(database)
    await send(BUSY, BUSY, BUSY)

    assert (await told(api, message))[-1] == ("failed", "refused_for_now")
    assert (await api.get(f"/messages/{message}")).json()["state"] == "failed"


async def test_held_message_begins_held_and_is_released(database, api, settings, wakeups):
    account = await an_account(database)
    event_id = await a_waiting_event(database, account)
    await an_smpp_gateway(database)
    hour = (now() - timedelta(hours=1)).astimezone(settings.zone), (now() + timedelta(hours=2)).astimezone(settings.zone)
    quiet = settings.model_copy(update={"quiet_hours": f"{hour[0]:%H:%M}-{hour[1]:%H:%M}"})
    await Planner(database, quiet, wakeups).plan()
    (message,) = await rows(database, "SELECT id FROM message WHERE event_id = :id", id=event_id)
    assert await told(api, message.id) == [("held", "quiet_hours")]

    await run(database, "UPDATE outbox SET not_before = now() - interval '1 second'")
    await Holding(database, settings, wakeups).release()

    assert await told(api, message.id) == [("held", "quiet_hours"), ("queued", "released")]


async def test_message_on_the_wire_says_so(database, api):
    message = await a_message(database)
    await claim(database)

    assert await told(api, message) == [("queued", None), ("sending", None)]


async def test_end_of_a_lease_is_a_line(database, api, wakeups):
    message = await a_message(database)
    await claim(database)
    await run(database, "UPDATE outbox SET lease_until = now() - interval '1 second'")
    await Sweeper(database, wakeups).end_leases()

    assert (await told(api, message))[-1] == ("unknown", "no_answer")


async def test_receipt_that_changes_nothing_repeats_the_state(database, api, send):
    message = await a_message(database)
    await send(Accepted(("17",)))
    for stat in ("ENROUTE", "DELIVRD", "UNDELIV"):
        await receive(database, a_receipt("17", stat))

    assert [state for state, _ in await told(api, message)][-3:] == ["accepted", "delivered", "delivered"]


async def test_long_message_is_delivered_with_the_receipt_of_its_last_part(database, api, send):
    message = await a_message(database, parts=2)
    await send(Accepted(("17", "18")))
    for identity, stat in (("17", "EXPIRED"), ("18", "DELIVRD"), ("17", "DELIVRD")):
        await receive(database, a_receipt(identity, stat))

    assert [state for state, _ in await told(api, message)][-3:] == ["accepted", "expired", "delivered"]
    assert (await api.get(f"/messages/{message}")).json()["state"] == "delivered"


async def test_half_refused_message_has_failed_and_its_taken_part_is_named(database, api, send):
    message = await a_message(database, parts=2)
    await send(Refused("refused", "0x0000000B", "ESME_RINVDSTADR", ids=("9", "")))

    last = (await history(api, message))[-1]

    assert (last["state"], last["reason"]) == ("failed", "refused")
    assert "0x0000000B" in last["detail"]
    assert "id 9" in last["detail"]
