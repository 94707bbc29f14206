"""Jobs on many messages over the API: what is asked for, what is refused, who may, what is written down."""

from datetime import timedelta
from uuid import uuid4

import pytest

from app.core.clock import now
from app.core.wakeups import Wakeups
from app.notifications import bulk, bulk_shapes
from app.notifications.bulk import Bulks
from tests.builders.accounts import an_account
from tests.builders.bulks import Past, ask, period, shown, worked
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import rows


@pytest.fixture
async def past(database):
    return Past(database, await an_account(database))


@pytest.fixture
def bulks(database, settings):
    return Bulks(database, settings, Wakeups(settings.redis_url, direct=lambda _: True))


async def refused(api, **body):
    answer = await api.post("/messages/bulk", json={"action": "cancel", "filter": period()} | body)
    problem = answer.json()
    return answer.status_code, problem["code"], [error["pointer"] for error in problem.get("errors", [])]


async def test_nothing_is_changed_unless_it_is_said(database, api, bulks, past):
    await past.message(ended=None)

    answer = await api.post("/messages/bulk", json={"action": "cancel", "filter": period()})
    done = await worked(api, bulks, answer.json()["id"])

    assert (answer.status_code, answer.headers["location"]) == (202, f"/api/v1/messages/bulk/{done['id']}")
    assert (done["dry_run"], done["state"], done["done"], done["outcomes"], done["progress"]) == (True, "done", 1, {"cancelled": 1}, 1.0)
    assert [row.state for row in await rows(database, "SELECT state FROM outbox")] == ["queued"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"action": "delete"}, "/action"),
        ({"filter": {"from": "2026-11-01T00:00:00Z"}}, "/filter/to"),
        ({"filter": {"from": "2026-11-01T00:00:00Z", "to": "2026-11-01T00:00:00Z"}}, "/filter/to"),
        ({"filter": {"from": "2026-11-01T00:00:00", "to": "2026-11-02T00:00:00Z"}}, "/filter/from"),
        ({"filter": period(state=["delivered"])}, "/filter/state/0"),
        ({"filter": period(state=["unheard_of"])}, "/filter/state/0"),
        ({"filter": period(state=[])}, "/filter/state"),
        ({"filter": period(gateway=["x"] * 101)}, "/filter/gateway"),
        ({"filter": period(address="a" * 321)}, "/filter/address"),
        ({"filter": period(colour="red")}, "/filter/colour"),
        ({"dry_run": "no"}, "/dry_run"),
        ({"again": True}, "/again"),
        ({"most": 0}, "/most"),
        ({"dry_run": False, "most": 10_001}, "/confirm"),
    ],
)
async def test_wrong_job_is_told_what_to_change(database, api, body, pointer):
    status, _, pointers = await refused(api, **body)

    assert (status, pointers) == (422, [pointer])
    assert await rows(database, "SELECT id FROM message_bulk") == []


async def test_many_are_moved_after_a_dry_run_of_the_same_alone(api, bulks, past, monkeypatch):
    monkeypatch.setattr(bulk_shapes, "MOST", 2)
    for _ in range(3):
        await past.message(ended=None, address="+79160000001")
    filter_ = period(address="+79160000001")
    large = {"filter": filter_, "dry_run": False, "most": 100}

    unconfirmed = await refused(api, **large)
    unknown = await refused(api, **large, confirm=3)
    dry = await worked(api, bulks, await ask(api, "cancel", filter_, dry_run=True))
    wrong = [await refused(api, **large, confirm=4), await refused(api, **large | {"filter": filter_ | {"address": "+79160000002"}}, confirm=3)]
    done = await worked(api, bulks, await ask(api, "cancel", filter_, most=100, confirm=dry["done"]))

    assert unconfirmed == (422, "invalid", ["/confirm"])
    assert [one[:2] for one in (unknown, *wrong)] == [(409, "not_confirmed")] * 3
    assert (dry["done"], done["done"], done["most"]) == (3, 3, 3)


async def test_job_is_stopped_where_it_is(database, api, bulks, past):
    await past.message(ended=None)
    job = await ask(api, "cancel")

    stopped = await api.post(f"/messages/bulk/{job}/cancel")
    await bulks.follow()
    again = await api.post(f"/messages/bulk/{job}/cancel")

    assert (stopped.status_code, stopped.json()["state"], stopped.json()["done"]) == (200, "cancelled", 0)
    assert (again.status_code, again.json()["code"]) == (409, "not_running")
    assert [row.state for row in await rows(database, "SELECT state FROM outbox")] == ["queued"]


async def test_jobs_are_listed_newest_first_page_by_page(api):
    made = [await ask(api, "cancel", dry_run=True) for _ in range(3)]

    first = (await api.get("/messages/bulk", params={"limit": 2})).json()
    second = (await api.get("/messages/bulk", params={"limit": 2, "cursor": first["next_cursor"]})).json()

    assert [job["id"] for page in (first, second) for job in page["items"]] == made[::-1]
    assert second["next_cursor"] is None


async def test_job_that_is_not_there_is_not_found(api):
    for method, path in (("GET", ""), ("POST", "/cancel")):
        answer = await api.request(method, f"/messages/bulk/{uuid4()}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "message_bulk_not_found")
    assert (await api.get("/messages/bulk/nonsense")).status_code == 422


async def test_viewer_looks_and_changes_nothing(api, as_role):
    viewer, job = await as_role("viewer"), await ask(api, "cancel", dry_run=True)

    assert (await shown(viewer, job))["state"] == "running"
    assert len((await viewer.get("/messages/bulk")).json()["items"]) == 1
    for path in ("/messages/bulk", f"/messages/bulk/{job}/cancel"):
        assert (await viewer.post(path, json={"action": "cancel", "filter": period()})).status_code == 403


async def test_test_key_moves_nothing_in_bulk(database, api, as_role):
    made = (await api.post("/keys", json={"name": "trial", "role": "operator", "test": True})).json()
    trial = await as_role(None, token=made["key"])

    answer = await trial.post("/messages/bulk", json={"action": "resend", "filter": period()})

    assert (answer.status_code, answer.json()["code"]) == (403, "test_key")
    assert await rows(database, "SELECT id FROM message_bulk") == []


async def test_progress_says_how_much_of_the_period_is_done(api, bulks, past, monkeypatch):
    monkeypatch.setattr(bulk, "WINDOW", 1)
    for hours in (36, 24, 12):
        await past.message(ended=None, ago=timedelta(hours=hours))
    job = await ask(api, "cancel")

    seen = [(await shown(api, job))["progress"]]
    for _ in range(4):
        await bulks.follow()
        seen.append((await shown(api, job))["progress"])

    assert seen == [0.0, *(pytest.approx(share, abs=0.01) for share in (0.25, 0.5, 0.75)), 1.0]


async def test_who_asked_for_what_and_what_came_of_it_is_in_the_audit_without_an_address(database, api, bulks, past):
    await an_smpp_gateway(database)
    await past.message(address="+79160000001")
    job = await ask(api, "resend", period(address="+79160000001", account="100500"), note="the gateway was down")

    await worked(api, bulks, job)

    records = await rows(
        database, "SELECT actor, action, object, CAST(changes AS text) AS changes FROM audit_record WHERE action LIKE 'message.bulk%' ORDER BY id"
    )
    assert [(record.action, record.object) for record in records] == [(action, f"message-bulk:{job}") for action in ("message.bulk", "message.bulk.done")]
    assert len({record.actor for record in records}) == 1
    assert "the gateway was down" in records[0].changes
    assert '"done": 1' in records[1].changes
    assert not any(word in record.changes for record in records for word in ("79160000001", "100500"))


async def test_period_without_messages_is_done_at_once(api, bulks):
    long_ago = {"from": (now() - timedelta(days=3000)).isoformat(), "to": (now() + timedelta(days=3000)).isoformat()}

    done = await worked(api, bulks, await ask(api, "resend", long_ago))

    assert (done["looked_at"], done["done"], done["limited"], done["error"]) == (0, 0, False, None)
