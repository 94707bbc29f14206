"""Searching the audit."""

import base64
import json
from datetime import timedelta

import pytest

from app.core.audit_chain import Seal
from app.core.clock import now
from tests.builders.accounts import an_account
from tests.builders.messages import one, run


async def found(client, **params):
    answer = await client.get("/audit", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def test_change_is_found_by_who_what_and_when(api, database):
    began = now()
    key = (await api.post("/keys", json={"name": "n", "role": "viewer"})).json()
    await api.delete(f"/keys/{key['id']}")
    me = "key:" + api.headers["Authorization"].split("_")[1]

    assert [item["action"] for item in await found(api, actor=me)] == ["key.revoke", "key.create"]
    assert [item["object"] for item in await found(api, action="key.revoke")] == [f"key:{key['id']}"]
    assert len(await found(api, object=f"key:{key['id']}")) == 2
    assert len(await found(api, actor=me, **{"from": began.isoformat(), "to": now().isoformat()})) == 2
    assert await found(api, actor=me, to=began.isoformat()) == []
    assert await found(api, actor=me, action="key.rotate") == []


async def test_records_of_an_account_are_found_by_its_number_before_and_after_its_erasure(api, database):
    await an_account(database, "100500")
    await an_account(database, "100501")
    for number in ("100500", "100501"):
        await api.patch(f"/accounts/{number}", json={"name": "Somebody"})
        await api.post(f"/accounts/{number}/contacts", json={"channel": "email", "address": f"x{number}@isp.example", "verified": True})
    living = await found(api, account="100500")

    await api.delete("/accounts/100500")

    assert len(living) >= 2
    erased = await found(api, account="100500")
    assert erased[0]["action"] == "account.erase"
    assert {item["id"] for item in living} < {item["id"] for item in erased}
    assert "100500" not in json.dumps(erased)
    assert await found(api, account="100599") == []


async def test_message_that_was_cancelled_is_found_by_its_account(api, database):
    from tests.builders.messages import a_message

    account = await an_account(database)
    message = await a_message(database, account)
    await api.post(f"/messages/{message}/cancel")

    (item,) = await found(api, account="100500")

    assert (item["action"], item["object"], item["changes"]["state"]) == ("message.cancel", f"message:{message}", ["queued", "cancelled"])


async def test_pages_go_through_all_records_once_newest_first(api, database):
    for number in range(5):
        await api.post("/keys", json={"name": f"n{number}", "role": "viewer"})

    seen, cursor = [], None
    for _ in range(10):
        page = (await api.get("/audit", params={"limit": 2, "action": "key.create"} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [item["id"] for item in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break

    assert len(seen) == len(set(seen)) == 5
    assert seen == [item["id"] for item in await found(api, action="key.create")]


async def test_place_in_the_chain_is_shown_when_there_is_one(api, database):
    await Seal(database).run()
    await api.post("/keys", json={"name": "n", "role": "viewer"})
    assert (await found(api, limit=1))[0]["seq"] is None

    await Seal(database).run()

    assert (await found(api, limit=1))[0]["seq"] == (await one(database, "SELECT max(seq) AS n FROM audit_seal")).n


@pytest.mark.parametrize(
    "values", [["yesterday", "x"], ["2026-01-01T00:00:00", str(now())], ["0001-01-01T00:00:00+14:00", "00000000-0000-7000-8000-000000000000"]]
)
async def test_made_up_cursor_is_refused(api, values):
    cursor = base64.urlsafe_b64encode(json.dumps(values).encode()).decode()

    assert (await api.get("/audit", params={"cursor": cursor})).status_code == 422


@pytest.mark.parametrize(("role", "status"), [("viewer", 200), ("operator", 200), ("billing", 403)])
async def test_audit_is_read_by_those_who_may(as_role, role, status):
    assert (await (await as_role(role)).get("/audit")).status_code == status


@pytest.mark.parametrize(
    "search", ["", "actor = 'key:k7'", "action = 'a3'", "object = 'o5'", "account_id = ANY(ARRAY[CAST('00000000-0000-7000-8000-000000000005' AS uuid)])"]
)
async def test_every_search_walks_an_index_and_not_the_table(database, search):
    await run(
        database,
        "INSERT INTO audit_record (id, at, actor, action, object, changes, account_id) SELECT gen_random_uuid(), now() - n * interval '1 second',"
        " 'key:k' || n % 2000, 'a' || n % 300, 'o' || n % 5000, '{}', CAST('00000000-0000-7000-8000-' || lpad(CAST(n % 5000 AS text), 12, '0') AS uuid)"
        " FROM generate_series(1, 20000) n",
    )
    await run(database, "ANALYZE audit_record")
    where = f"WHERE {search}" if search else ""
    after = now() - timedelta(hours=2)
    narrowed = f"{where} {'AND' if where else 'WHERE'} (at, id) < ('{after.isoformat()}', '00000000-0000-7000-8000-000000000000')"

    for asked in (where, narrowed):
        plan = (await one(database, f"EXPLAIN (FORMAT JSON) SELECT * FROM audit_record {asked} ORDER BY at DESC, id DESC LIMIT 51")).__getattribute__(
            "_mapping"
        )
        assert "Seq Scan" not in json.dumps(dict(plan), default=str)


async def test_audit_has_no_secret_no_code_and_nothing_personal(api, as_subscriber, database, settings):
    """Much is done with values that nobody else has; none of them is found afterwards."""
    secrets = {
        "password": "Pa55-of-the-gateway",
        "name": "Zinaida Unmistakable",
        "phone": "+79161230017",
        "mail": "unmistakable@isp.example",
        "label": "Dacha-of-Z",
    }
    smpp = {"kind": "smpp", "host": "127.0.0.1", "port": 2775, "system_id": "isp", "password": secrets["password"], "sender": "MyISP"}
    made = await api.put("/gateways/main", json=smpp)
    changed = await api.put("/gateways/main", json=smpp | {"password": "An0ther-password"}, headers={"If-Match": made.headers["etag"]})
    key = (await api.post("/keys", json={"name": "n", "role": "viewer"})).json()
    rotated = (await api.post(f"/keys/{key['id']}/rotate", json={})).json()
    await api.put(f"/keys/{key['id']}/contacts", json={"contacts": [{"channel": "sms", "address": secrets["phone"]}]})
    await an_account(database, "7700500")
    named = await api.patch("/accounts/7700500", json={"name": secrets["name"], "attributes": {"passport": "4510-UNIQUE"}})
    own = await as_subscriber("7700500")
    contact = await own.post("/me/contacts", json={"channel": "email", "address": secrets["mail"], "label": secrets["label"]})
    await api.post("/suppressions", json={"channel": "sms", "address": "+79161230018", "reason": "manual"})
    await api.delete("/accounts/7700500")

    assert [answer.status_code for answer in (made, changed, named, contact)] == [201, 200, 200, 201], contact.text
    kept = (await one(database, "SELECT string_agg(CAST(r AS text), ' ') AS everything, count(*) AS n FROM audit_record r")).everything
    hidden = [*secrets.values(), "An0ther-password", "4510-UNIQUE", "9161230018", "7700500", key["key"].split("_", 2)[2], rotated["key"].split("_", 2)[2]]
    assert [value for value in hidden if value in kept] == []
    assert all(
        action in kept for action in ("gateway.create", "gateway.update", "key.rotate", "key.contacts", "account.update", "contact.create", "account.erase")
    )
