"""What happens is told: queued in the transaction in which it happened, signed, once for each thing that happened."""

from uuid import uuid4

import sqlalchemy as sa

from app.core.clock import now
from app.sending.outcome import Accepted, Refused
from tests.builders.accounts import an_account
from tests.builders.inbound import an_sms, come
from tests.builders.messages import a_message, claim, one, rows, run, write
from tests.builders.stations import until

MOVE = "UPDATE message SET state = :state, reason = :reason, updated_at = now() WHERE id = :id"


async def move(database, message, state, reason=None):
    await run(database, MOVE, id=message, state=state, reason=reason)


async def queued(database):
    return [tuple(row) for row in await rows(database, "SELECT subject_id, type, reason FROM webhook_delivery ORDER BY type")]


async def test_billing_hears_that_a_message_was_delivered(database, hook, far, station):
    made = await hook()
    account = await an_account(database, "100500")
    message = await a_message(database, account, ended="accepted", text="Секрет")

    await move(database, message, "delivered")
    station.poke()
    await until(lambda: far.received)

    told = far.received[0].verified_by(made["secret"])
    assert told["type"] == "message.delivered"
    assert told["data"]["message_id"] == str(message)
    assert (told["data"]["account"], told["data"]["state"], told["data"]["type"]) == ("100500", "delivered", "service.connected")
    assert told["data"]["text"] is None
    assert "Секрет" not in far.received[0].body.decode()
    assert "replay" not in told
    assert far.received[0].id == f"msg_{message.hex}_delivered"
    await until(lambda: is_settled(database))
    (delivery,) = await rows(database, "SELECT state, attempts, history FROM webhook_delivery")
    assert (delivery.state, delivery.attempts, delivery.history[0]["status"]) == ("delivered", 1, 204)


async def is_settled(database):
    return not await rows(database, "SELECT type FROM webhook_delivery WHERE state IN ('waiting', 'sending')")


async def test_text_is_told_to_who_asked_for_it(database, hook, far, station):
    await hook(with_text=True)
    message = await a_message(database, ended="accepted", text="Баланс 7,00")

    await move(database, message, "undelivered", "absent_subscriber")
    station.poke()
    await until(lambda: far.received)

    data = far.received[0].json["data"]
    assert (data["text"], data["reason"]) == ("Баланс 7,00", "absent_subscriber")


async def test_late_truth_is_told_again_and_the_same_truth_is_not(database, hook):
    await hook()
    message = await a_message(database, ended="accepted")

    await move(database, message, "undelivered", "expired_at_smsc")
    await run(database, "UPDATE message SET parts = 2 WHERE id = :id", id=message)
    await move(database, message, "undelivered", "expired_at_smsc")
    await move(database, message, "delivered")

    assert await queued(database) == [(message, "message.delivered", None), (message, "message.undelivered", "expired_at_smsc")]


async def test_whatever_settles_a_message_tells_of_it(database, hook):
    await hook()
    lost, taken = await a_message(database), await a_message(database)
    owner = uuid4()
    claimed = {one.id: one for one in await claim(database, owner=owner)}

    await write(database, owner, (claimed[lost], Refused("invalid_destination")), (claimed[taken], Accepted(("a1",))))

    assert await queued(database) == [(lost, "message.failed", "invalid_destination")]


async def test_what_is_rolled_back_was_never_queued(database, hook):
    await hook()
    message = await a_message(database, ended="accepted")

    async with database.transaction() as session:
        await session.execute(sa.text(MOVE), {"id": message, "state": "delivered", "reason": None})
        assert (await session.execute(sa.text("SELECT count(*) FROM webhook_delivery"))).scalar() == 1
        await session.rollback()

    assert await queued(database) == []


async def test_who_is_told_nothing_costs_no_row(database, api, hook):
    made = await hook(types=["message.failed"])
    message = await a_message(database, ended="accepted")

    await move(database, message, "delivered")
    await api.patch(f"/webhooks/{made['id']}", json={"types": ["message.delivered"], "enabled": False}, headers={"If-Match": "*"})
    await move(database, await a_message(database, ended="accepted"), "delivered")

    assert await queued(database) == []


async def test_tests_of_operators_are_told_to_who_asked_for_them(database, hook, far):
    await hook()
    curious = await hook(url=far.url + "/tests", with_tests=True)
    message = await a_message(database, ended="accepted", test=True)

    await move(database, message, "delivered")

    assert [str(row.endpoint_id) for row in await rows(database, "SELECT endpoint_id FROM webhook_delivery")] == [curious["id"]]


async def test_every_endpoint_is_told_what_it_chose(database, hook, far):
    first = await hook(types=["message.delivered", "message.failed"])
    second = await hook(url=far.url + "/2", types=["message.failed"])
    message, other = await a_message(database, ended="accepted"), await a_message(database, ended="accepted")

    await run(database, "UPDATE message SET state = CASE WHEN id = :id THEN 'delivered' ELSE 'failed' END", id=message)

    found = {(str(row.endpoint_id), row.subject_id) for row in await rows(database, "SELECT endpoint_id, subject_id FROM webhook_delivery")}
    assert found == {(first["id"], message), (first["id"], other), (second["id"], other)}


async def test_inbound_sms_is_told_with_its_accounts(database, hook, far, station):
    made = await hook(with_text=True)
    await an_account(database, "7")

    await come(database, an_sms("Когда включат?"))
    station.poke()
    await until(lambda: far.received)

    told = far.received[0].verified_by(made["secret"])
    inbound = await one(database, "SELECT id FROM inbound_message")
    assert told["type"] == "inbound.received"
    assert told["data"] | {"text": "Когда включат?", "accounts": ["7"], "source": "+79161234567"} == told["data"]
    assert far.received[0].id == f"msg_{inbound.id.hex}_received"


async def test_after_an_erasure_nothing_personal_is_told(database, api, hook, far):
    made = await hook(with_text=True)
    account = await an_account(database, "100500")
    message = await a_message(database, account, ended="accepted", text="Баланс 10,00")
    await move(database, message, "delivered")

    assert (await api.delete("/accounts/100500")).status_code < 300
    await run(database, "UPDATE message SET updated_at = :now WHERE id = :id", id=message, now=now())
    stored = str(await rows(database, "SELECT * FROM webhook_delivery"))
    assert "+7916" not in stored
    assert "100500" not in stored
    assert made["id"] in stored
