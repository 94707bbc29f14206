"""Messages over the API: found, read, cancelled, sent again."""

from datetime import timedelta
from uuid import uuid4

import pytest

from app.core.clock import now
from app.core.ids import first_id_at
from app.sending.outcome import Accepted
from tests.builders.accounts import an_account
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import a_message, claim, one, rows, run, state_of, write


@pytest.fixture
async def account(database):
    return await an_account(database)


async def ids(api, **query):
    answer = await api.get("/messages", params=query)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


async def test_message_is_shown_as_it_stands(database, api, account):
    message = await a_message(database, account, parts=2, not_before=now() + timedelta(hours=1), state="held", reason="quiet_hours")

    shown = (await api.get(f"/messages/{message}")).json()

    assert shown["account"] == "100500"
    assert (shown["state"], shown["reason"], shown["segments"], shown["gateway"]) == ("held", "quiet_hours", 2, "main")
    assert shown["subject"] is None
    assert shown["history"][0]["state"] == "queued"
    assert "history" not in (await api.get("/messages")).json()["items"][0]


async def test_list_is_newest_first_and_goes_on_page_by_page(database, api, account):
    made = [str(await a_message(database, account)) for _ in range(5)]

    first = (await api.get("/messages", params={"limit": 2})).json()
    second = (await api.get("/messages", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    third = (await api.get("/messages", params={"limit": 2, "cursor": second["next_cursor"]})).json()

    assert [item["id"] for page in (first, second, third) for item in page["items"]] == made[::-1]
    assert third["next_cursor"] is None


async def test_each_filter_narrows(database, api, account):
    other = await an_account(database, "other")
    yesterday = now() - timedelta(days=1)
    plain = str(await a_message(database, account))
    queued = {
        "account": ("other", await a_message(database, other)),
        "address": ("+79160000001", await a_message(database, account, address="+79160000001")),
        "type": ("tariff.changed", await a_message(database, account, type="tariff.changed")),
        "channel": ("email", await a_message(database, account, channel="email")),
        "state": ("delivered", await a_message(database, account, ended="delivered")),
        "gateway": ("spare", await a_message(database, account, gateway="spare")),
        "to": ((yesterday + timedelta(hours=1)).isoformat(), await a_message(database, account, id=first_id_at(yesterday))),
    }

    for name, (value, message) in queued.items():
        assert await ids(api, **{name: value}) == [str(message)]
    assert plain in await ids(api, state="queued", account="100500", channel="sms")
    assert str(queued["to"][1]) not in await ids(api, **{"from": (now() - timedelta(hours=1)).isoformat()})
    assert await ids(api, account="nobody") == []


async def test_filter_that_makes_no_sense_is_refused(api):
    for query in ({"state": "lost"}, {"channel": "fax"}, {"from": "2026-01-01T00:00:00"}, {"cursor": "x"}, {"limit": 0}):
        assert (await api.get("/messages", params=query)).status_code == 422


async def test_waiting_message_is_cancelled_and_remembers_by_whom(database, api, account):
    for state in ("queued", "held"):
        message = await a_message(database, account, state=state)

        answer = await api.post(f"/messages/{message}/cancel")

        assert (answer.status_code, answer.json()["state"], answer.json()["reason"]) == (200, "cancelled", "operator")
    change = await one(database, "SELECT state, detail FROM message_change WHERE message_id = :id", id=message)
    assert change.state == "cancelled"
    assert change.detail.startswith("key:")
    assert len(await rows(database, "SELECT id FROM audit_record WHERE action = 'message.cancel'")) == 2
    assert await claim(database) == []


async def test_message_on_the_wire_cannot_be_cancelled(database, api, account):
    message = await a_message(database, account)
    await claim(database)

    answer = await api.post(f"/messages/{message}/cancel")

    assert (answer.status_code, answer.json()["code"]) == (409, "in_flight")
    assert (await state_of(database, message))[0] == "sending"


async def test_message_that_has_gone_cannot_be_cancelled(database, api, account):
    for state in ("accepted", "delivered", "failed", "unknown", "cancelled", "expired"):
        answer = await api.post(f"/messages/{await a_message(database, account, ended=state)}/cancel")

        assert (answer.status_code, answer.json()["code"]) == (409, "not_waiting")


async def test_resent_message_is_a_new_one_with_the_same_words_that_points_to_the_old(database, api, account):
    await an_smpp_gateway(database, "spare")
    old = await a_message(database, account, ended="undelivered", text="the very words", parts=2)

    answer = await api.post(f"/messages/{old}/resend")

    assert answer.status_code == 201
    new = answer.json()
    assert (new["resend_of"], new["state"], new["text"], new["segments"], new["gateway"]) == (str(old), "queued", "the very words", 2, "spare")
    assert (await state_of(database, old))[0] == "undelivered"
    (claimed,) = await claim(database, gateway="spare")
    assert (str(claimed.id), claimed.text) == (new["id"], "the very words")


async def test_resent_message_keeps_its_urgency(database, api, account):
    await an_smpp_gateway(database)
    old = await a_message(database, account, ended="delivered", priority=0)

    new = (await api.post(f"/messages/{old}/resend")).json()["id"]

    assert (await one(database, "SELECT priority FROM outbox WHERE message_id = :id", id=new)).priority == 0


async def test_message_that_waits_or_is_on_the_wire_is_not_sent_again(database, api, account):
    for state in ("held", "queued", "sending"):
        message = await a_message(database, account, state="held" if state == "held" else "queued")
        if state == "sending":
            await claim(database)

        answer = await api.post(f"/messages/{message}/resend")

        assert (answer.status_code, answer.json()["code"]) == (409, "not_sent_yet")


async def test_message_whose_contents_were_erased_is_not_sent_again(database, api, account):
    message = await a_message(database, account, ended="delivered", address="", text="")

    assert (await api.post(f"/messages/{message}/resend")).json()["code"] == "erased"


async def test_accepted_message_may_be_sent_again_and_each_has_its_own_history(database, api, account):
    await an_smpp_gateway(database)
    owner, old = uuid4(), await a_message(database, account)
    (claimed,) = await claim(database, owner=owner)
    await write(database, owner, (claimed, Accepted(("17",))))

    new = (await api.post(f"/messages/{old}/resend")).json()["id"]

    assert [line["state"] for line in (await api.get(f"/messages/{new}")).json()["history"]] == ["queued"]
    assert [line["state"] for line in (await api.get(f"/messages/{old}")).json()["history"]] == ["queued", "sending", "accepted"]


async def test_message_that_is_not_there_is_not_found(api):
    for method, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/resend")):
        answer = await api.request(method, f"/messages/{uuid4()}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "message_not_found")


async def test_viewer_reads_and_may_not_cancel(database, as_role, account):
    viewer, message = await as_role("viewer"), await a_message(database, account)

    assert (await viewer.get(f"/messages/{message}")).status_code == 200
    assert (await viewer.post(f"/messages/{message}/cancel")).status_code == 403
    assert (await viewer.post(f"/messages/{message}/resend")).status_code == 403


async def test_message_of_an_erased_account_has_no_account(database, api, account):
    message = await a_message(database, account, ended="delivered")
    await run(database, "UPDATE account SET number = 'erased:' || CAST(id AS text), status = 'erased'")

    assert (await api.get(f"/messages/{message}")).json()["account"] is None


async def test_message_to_a_contact_that_was_removed_is_not_sent_again(database, api, account):
    old = await a_message(database, account, ended="delivered", contact_id=uuid4())

    answer = await api.post(f"/messages/{old}/resend")

    assert (answer.status_code, answer.json()["code"]) == (409, "contact_removed")
