"""The stop switch over the API."""

import pytest

from tests.builders.accounts import an_account
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import a_message, claim, one, rows, state_of


@pytest.fixture
async def account(database):
    await an_smpp_gateway(database)
    return await an_account(database)


async def test_stop_holds_what_waits_and_says_how_much_and_why(database, api, account):
    waiting, other = await a_message(database, account), await a_message(database, account, type="tariff.changed")

    answer = await api.post("/stops", json={"scope": "type", "name": "service.connected", "reason": "wrong words"})

    assert answer.status_code == 201, answer.text
    stop = answer.json()
    assert (stop["scope"], stop["name"], stop["reason"], stop["held"]) == ("type", "service.connected", "wrong words", 1)
    assert stop["by"].startswith("key:")
    assert (await api.get("/stops")).json()["items"] == [stop]
    assert [await state_of(database, message) for message in (waiting, other)] == [("held", "stopped"), ("queued", None)]


async def test_same_stop_again_is_the_same(database, api, account):
    first = await api.post("/stops", json={"scope": "all"})

    again = await api.post("/stops", json={"scope": "all", "reason": "another"})

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json()["name"] is None
    assert [row.action for row in await rows(database, "SELECT action FROM audit_record WHERE action LIKE 'stop.%'")] == ["stop.set"]


async def test_lifted_stop_lets_everything_go_and_is_gone(database, api, account):
    await a_message(database, account)
    stop = (await api.post("/stops", json={"scope": "gateway", "name": "main"})).json()

    lifted = await api.delete(f"/stops/{stop['id']}")

    assert lifted.status_code == 204
    assert (await one(database, "SELECT stopped_at FROM outbox")).stopped_at is None
    assert (await api.get("/stops")).json()["items"] == []
    assert (await api.delete(f"/stops/{stop['id']}")).status_code == 404
    records = await rows(database, "SELECT action, object, changes FROM audit_record WHERE action LIKE 'stop.%' ORDER BY id")
    assert [(row.action, row.object) for row in records] == [("stop.set", "stop:gateway:main"), ("stop.lift", "stop:gateway:main")]
    assert records[1].changes["by"] == [stop["by"], None]
    assert set(records[1].changes) == {"reason", "by", "at"}


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"scope": "all", "name": "main"}, "/name", "no_name"),
        ({"scope": "gateway"}, "/name", "missing"),
        ({"scope": "gateway", "name": "nowhere"}, "/name", "unknown_gateway"),
        ({"scope": "type", "name": "no.such"}, "/name", "unknown_type"),
        ({"scope": "account", "name": "1"}, "/scope", "literal_error"),
        ({"scope": "all", "until": "tomorrow"}, "/until", "extra_forbidden"),
    ],
)
async def test_stop_of_nothing_is_refused(database, api, account, body, pointer, code):
    answer = await api.post("/stops", json=body)

    assert answer.status_code == 422
    assert [(error["pointer"], error["code"]) for error in answer.json()["errors"]] == [(pointer, code)]
    assert await rows(database, "SELECT id FROM stop") == []


async def test_operator_may_stop_and_lift_and_a_viewer_may_look(database, as_role, account):
    operator, viewer, billing = await as_role("operator"), await as_role("viewer"), await as_role("billing")

    stop = (await operator.post("/stops", json={"scope": "all"})).json()

    assert (await viewer.get("/stops")).json()["items"][0]["id"] == stop["id"]
    assert (await viewer.post("/stops", json={"scope": "all"})).status_code == 403
    assert (await viewer.delete(f"/stops/{stop['id']}")).status_code == 403
    assert (await billing.get("/stops")).status_code == 403
    assert (await operator.delete(f"/stops/{stop['id']}")).status_code == 204


async def test_claim_after_the_answer_finds_nothing(database, api, account):
    for _ in range(20):
        await a_message(database, account)

    await api.post("/stops", json={"scope": "all"})

    assert await claim(database) == []
    assert (await api.get("/stops")).json()["items"][0]["held"] == 20


async def test_message_sent_once_more_under_a_stop_waits_like_any_other(database, api, account):
    old = await a_message(database, account, ended="delivered")
    await api.post("/stops", json={"scope": "all"})

    made = (await api.post(f"/messages/{old}/resend")).json()

    assert (made["state"], made["reason"]) == ("held", "stopped")
