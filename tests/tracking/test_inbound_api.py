"""What subscribers have sent, over the API; and their consents."""

from datetime import timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa

from app.core.clock import now
from tests.builders.accounts import an_account
from tests.builders.inbound import a_policy, an_sms, come, parts_of
from tests.builders.messages import one, rows, run


async def listed(api, **query):
    answer = await api.get("/inbound-messages", params=query)
    assert answer.status_code == 200, answer.text
    return [item["text"] for item in answer.json()["items"]]


async def test_message_is_shown_with_the_accounts_that_have_its_number(database, api):
    await an_account(database, "2")
    await an_account(database, "1")
    await come(database, *parts_of("Когда ", "включат?"))

    (item,) = (await api.get("/inbound-messages")).json()["items"]

    assert (await api.get(f"/inbound-messages/{item['id']}")).json() == item
    assert item["accounts"] == ["1", "2"]
    assert {name: item[name] for name in ("source", "destination", "text", "gateway", "encoding", "parts", "is_complete", "action")} == {
        "source": "+79161234567",
        "destination": "1234",
        "text": "Когда включат?",
        "gateway": "main",
        "encoding": "UCS2",
        "parts": 2,
        "is_complete": True,
        "action": None,
    }
    assert bytes.fromhex(item["octets"]).decode("utf-16-be") == "Когда включат?"


async def test_list_is_newest_first_by_pages_and_each_filter_narrows(database, api):
    await come(database, an_sms("первое"))
    await come(database, an_sms("второе", "79160000001"), policy=a_policy("spare"))
    await come(database, an_sms("третье"))

    first = (await api.get("/inbound-messages", params={"limit": 2})).json()
    assert [item["text"] for item in first["items"]] == ["третье", "второе"]
    assert await listed(api, limit=2, cursor=first["next_cursor"]) == ["первое"]
    assert await listed(api, source="8 916 123 45 67") == ["третье", "первое"]
    assert await listed(api, source=" 79160000001") == ["второе"]
    assert await listed(api, gateway="spare") == ["второе"]
    assert await listed(api, source="nobody") == []
    assert await listed(api, **{"from": (now() + timedelta(minutes=1)).isoformat()}) == []
    assert len(await listed(api, to=(now() + timedelta(minutes=1)).isoformat())) == 3


async def test_unknown_one_is_not_found_and_the_billing_reads_none(api, as_role):
    answer = await api.get(f"/inbound-messages/{uuid4()}")

    assert (answer.status_code, answer.json()["code"]) == (404, "inbound_message_not_found")
    assert (await (await as_role("billing")).get("/inbound-messages")).status_code == 403


async def test_consents_of_an_account_are_listed_newest_first(database, api):
    await an_account(database)
    await an_account(database, "100501", phones=("+79160000001",))
    await come(database, an_sms("Стоп"), an_sms("Старт"), an_sms("STOP", "79160000001"))

    items = (await api.get("/accounts/100500/consents")).json()["items"]

    assert [(item["act"], item["detail"], item["via"], item["address"]) for item in items] == [
        ("allowed", "Старт", "sms", "+79161234567"),
        ("refused", "Стоп", "sms", "+79161234567"),
    ]
    page = (await api.get("/accounts/100500/consents", params={"limit": 1})).json()
    assert (await api.get("/accounts/100500/consents", params={"limit": 1, "cursor": page["next_cursor"]})).json()["items"] == items[1:]
    assert (await api.get("/accounts/404/consents")).status_code == 404


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE consent SET act = 'allowed'",
        "UPDATE consent SET address = '+79160000001'",
        "UPDATE consent SET address = 'hmac:1', act = 'allowed', detail = ''",
        "DELETE FROM consent",
        "TRUNCATE consent",
    ],
)
async def test_consents_can_neither_be_changed_nor_deleted(database, statement):
    await come(database, an_sms("Стоп"))

    with pytest.raises(sa.exc.DBAPIError, match="only ever added"):
        await run(database, statement)


async def test_erasure_takes_what_was_received_and_keeps_the_proof_and_the_suppression(database, api):
    account = await an_account(database)
    await come(database, an_sms("Стоп"))
    await come(database, an_sms("Секрет"), parts_of("тай", "на")[0])
    await come(database, an_sms("Чужое", "79160000001"))

    assert (await api.delete("/accounts/100500")).status_code == 204

    kept = [tuple(row) for row in await rows(database, "SELECT source, text, CAST(raw AS text) FROM inbound_message ORDER BY id")]
    assert kept[:2] == [("", "", "\\x")] * 2
    assert kept[2][:2] == ("+79160000001", "Чужое")
    assert await rows(database, "SELECT 1 FROM inbound_part") == []
    consent = await one(database, "SELECT account_id, address, act, detail FROM consent")
    assert (consent.account_id, consent.address[:5], consent.act, consent.detail) == (account.id, "hmac:", "refused", "")
    assert (await one(database, "SELECT address FROM suppression")).address == "+79161234567"


async def test_number_that_another_account_has_as_well_keeps_what_it_sent(database, api):
    await an_account(database)
    await an_account(database, "100501")
    await come(database, an_sms("Стоп"))

    await api.delete("/accounts/100500")

    assert await listed(api) == ["Стоп"]
    assert [row.address[:5] for row in await rows(database, "SELECT address FROM consent ORDER BY address")] == ["+7916", "hmac:"]
    assert [item["act"] for item in (await api.get("/accounts/100501/consents")).json()["items"]] == ["refused"]


@pytest.mark.parametrize(
    "query",
    [
        "/inbound-messages?source=%00",
        "/inbound-messages?gateway=a%00b",
        "/inbound-messages?source=%ff%fe",
        "/inbound-messages?from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z",
        "/inbound-messages?cursor=WyIxIl0",
        "/inbound-messages?cursor=WzFd",
        "/suppressions?address=%00",
        "/suppressions?address=%ff@%fe",
        "/suppressions?cursor=WyJhIiwgImIiLCAiYyJd",
        "/suppressions?cursor=WzEsIDIsIDNd",
        "/accounts/%00/consents",
        "/accounts/1/consents?cursor=WyJ4Il0",
    ],
)
async def test_nonsense_in_a_query_is_nobodys_fault_but_the_callers(api, query):
    assert (await api.get(query)).status_code < 500


async def test_nonsense_to_lift_is_not_found_or_refused(api):
    for address in ("%00", "%ff", "x" * 300, "a@b"):
        assert (await api.delete(f"/suppressions?channel=email&address={address}")).status_code in (404, 422)
