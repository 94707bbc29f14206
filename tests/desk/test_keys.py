import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from app.core.auth import SCOPES, Gatekeeper
from app.core.models import ApiKey, AuditRecord


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


async def test_key_is_shown_once_and_works(api, database):
    made = await api.post("/keys", json={"name": "  billing of the north ", "role": "billing"})
    listed = (await api.get("/keys")).json()["items"]

    assert made.status_code == 201
    key = made.json()["key"]
    assert key.startswith(f"vst_{made.json()['id']}_")
    assert made.json()["name"] == "billing of the north"
    assert made.json()["scopes"] == sorted(SCOPES["billing"])
    found = next(item for item in listed if item["id"] == made.json()["id"])
    assert found == {name: value for name, value in made.json().items() if name != "key"}
    assert key not in json.dumps(listed)
    async with database.transaction() as session:
        assert key.encode() not in (await session.get(ApiKey, made.json()["id"])).digest

    assert (await api.get("/accounts", headers=bearer(key))).status_code == 200
    assert (await api.get("/keys", headers=bearer(key))).status_code == 403


async def test_revoked_key_is_refused_at_once_and_stays_listed(api):
    made = (await api.post("/keys", json={"name": "n", "role": "viewer"})).json()
    assert (await api.get("/accounts", headers=bearer(made["key"]))).status_code == 200

    gone = await api.delete(f"/keys/{made['id']}")
    refused = await api.get("/accounts", headers=bearer(made["key"]))
    again = await api.delete(f"/keys/{made['id']}")

    assert (gone.status_code, gone.content) == (204, b"")
    assert (refused.status_code, refused.json()["code"]) == (401, "key_revoked")
    assert again.status_code == 204
    shown = next(item for item in (await api.get("/keys")).json()["items"] if item["id"] == made["id"])
    assert shown["revoked_at"] is not None
    assert shown["last_used_at"] is not None


async def test_unknown_key_cannot_be_revoked(api):
    answers = [await api.delete(f"/keys/{key_id}") for key_id in ("nobody00", "x" * 9, "%F0%9F%98%80")]

    assert [answer.status_code for answer in answers] == [404, 422, 404]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "n"},
        {"name": "n", "role": "god"},
        {"name": "", "role": "viewer"},
        {"name": "x" * 101, "role": "viewer"},
        {"name": "a\nb", "role": "viewer"},
        {"name": "n", "role": "viewer", "scopes": ["admin"]},
        {"name": "n", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"},
        {"name": "n", "role": "viewer", "expires_at": "2030-01-01T00:00:00"},
        {"name": "n", "role": "viewer", "expires_at": "9999-12-31T23:59:59-14:00"},
    ],
)
async def test_key_that_makes_no_sense_is_not_made(api, wrong):
    assert (await api.post("/keys", json=wrong)).status_code == 422
    assert len((await api.get("/keys")).json()["items"]) == 1


async def test_key_may_have_an_end(api):
    ends = datetime.now(UTC) + timedelta(days=30)

    made = await api.post("/keys", json={"name": "n", "role": "viewer", "expires_at": ends.isoformat()})

    assert datetime.fromisoformat(made.json()["expires_at"]) == ends


async def test_keys_come_newest_first_in_pages(api):
    made = [(await api.post("/keys", json={"name": f"n{n}", "role": "viewer"})).json()["id"] for n in range(4)]

    seen, cursor = [], None
    for _ in range(5):
        page = (await api.get("/keys", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert seen[:4] == made[::-1]
    assert len(seen) == 5


@pytest.mark.parametrize(
    "values", [["yesterday", "x"], ["2026-01-01T00:00:00", "x"], ["0001-01-01T00:00:00+14:00", "x"], ["2026-01-01T00:00:00+00:00", "\ud800"]]
)
async def test_made_up_cursor_is_refused(api, values):
    cursor = base64.urlsafe_b64encode(json.dumps(values).encode()).decode()

    answer = await api.get("/keys", params={"cursor": cursor})

    assert answer.status_code == 422


async def test_making_and_revoking_are_audited_without_the_key(api, database):
    made = (await api.post("/keys", json={"name": "n", "role": "viewer"})).json()
    await api.delete(f"/keys/{made['id']}")
    await api.delete(f"/keys/{made['id']}")

    async with database.transaction() as session:
        records = (await session.scalars(sa.select(AuditRecord).order_by(AuditRecord.id))).all()
    assert [(record.action, record.object) for record in records] == [("key.create", f"key:{made['id']}"), ("key.revoke", f"key:{made['id']}")]
    assert made["key"] not in str([record.changes for record in records])


@pytest.mark.parametrize("role", ["billing", "operator", "viewer"])
async def test_keys_are_for_admins(as_role, role):
    client = await as_role(role)

    answers = [await client.get("/keys"), await client.post("/keys", json={"name": "n", "role": "admin"}), await client.delete("/keys/x")]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(403, "missing_scope")}


async def test_rotated_key_has_a_new_secret_and_the_old_one_for_a_while(api, database):
    made = (await api.post("/keys", json={"name": "n", "role": "viewer", "daily_quota": 1000})).json()
    assert (await api.get("/accounts", headers=bearer(made["key"]))).status_code == 200

    rotated = await api.post(f"/keys/{made['id']}/rotate", json={"overlap_hours": 2})

    assert rotated.status_code == 200
    assert (rotated.json()["id"], rotated.json()["daily_quota"]) == (made["id"], 1000)
    new = rotated.json()["key"]
    assert new != made["key"]
    assert [(await api.get("/accounts", headers=bearer(key))).status_code for key in (new, made["key"])] == [200, 200]
    async with database.transaction() as session:
        await session.execute(sa.update(ApiKey).values(old_until=datetime.now(UTC)).where(ApiKey.id == made["id"]))
    api.app.state.gatekeeper.forget(made["id"])
    refused = await api.get("/accounts", headers=bearer(made["key"]))
    assert (refused.status_code, refused.json()["code"]) == (401, "key_rotated")
    assert (await api.get("/accounts", headers=bearer(new))).status_code == 200


async def test_rotation_without_overlap_ends_the_old_secret_and_the_one_before_it_at_once(api):
    made = (await api.post("/keys", json={"name": "n", "role": "viewer"})).json()
    first = (await api.post(f"/keys/{made['id']}/rotate", json={})).json()["key"]
    second = (await api.post(f"/keys/{made['id']}/rotate", json={"overlap_hours": 0})).json()["key"]

    answers = [await api.get("/accounts", headers=bearer(key)) for key in (made["key"], first, second)]

    assert [answer.status_code for answer in answers] == [401, 401, 200]


async def test_new_secret_is_taken_at_once_by_a_process_that_remembers_the_old_one(api, as_role, settings, database):
    """Another process has rotated the key; this one has seen it a moment ago."""
    made = (await api.post("/keys", json={"name": "n", "role": "viewer"})).json()
    elsewhere = Gatekeeper(settings, database)
    await elsewhere.identify(f"Bearer {made['key']}")

    new = (await api.post(f"/keys/{made['id']}/rotate", json={})).json()["key"]

    assert (await elsewhere.identify(f"Bearer {new}")).name == f"key:{made['id']}"
    assert (await elsewhere.identify(f"Bearer {made['key']}")).name == f"key:{made['id']}"


async def test_revoked_or_unknown_key_cannot_be_rotated(api):
    made = (await api.post("/keys", json={"name": "n", "role": "viewer"})).json()
    await api.delete(f"/keys/{made['id']}")

    answers = [await api.post(f"/keys/{key_id}/rotate", json={}) for key_id in (made["id"], "nobody00")]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(409, "key_not_valid"), (404, "key_not_found")]


async def test_revoked_key_is_refused_by_its_old_secret_as_well(api):
    made = (await api.post("/keys", json={"name": "n", "role": "viewer"})).json()
    new = (await api.post(f"/keys/{made['id']}/rotate", json={})).json()["key"]
    await api.delete(f"/keys/{made['id']}")

    answers = [await api.get("/accounts", headers=bearer(key)) for key in (made["key"], new)]

    assert [answer.json()["code"] for answer in answers] == ["key_revoked", "key_revoked"]
