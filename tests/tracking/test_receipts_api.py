"""Looking at receipts: the quarantine, and what belongs to nobody."""

from datetime import timedelta
from urllib.parse import quote

import pytest

from app.core.clock import now
from app.core.ids import new_id
from tests.builders.messages import a_message, rows, run
from tests.builders.receipts import a_receipt, a_submission, receive


@pytest.fixture
async def received(database):
    """One receipt of each status, in the order matched, parked, unmatched, quarantined. The message of the first."""
    message = await a_message(database, ended="accepted")
    await a_submission(database, message, "1")
    await receive(database, a_receipt("1", "UNDELIV", err="013"))
    await receive(database, a_receipt("3", reference=9))
    await run(database, "UPDATE receipt SET status = 'unmatched' WHERE gateway_message_id = '3'")
    await receive(database, a_receipt("2"), group="other")
    await receive(database, a_receipt(body=b"\xff" * 600))
    return message


async def items(api, query=""):
    answer = await api.get(f"/receipts{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


@pytest.mark.parametrize("status", ["matched", "parked", "unmatched", "quarantined"])
async def test_receipts_are_found_by_their_status(api, received, status):
    assert [item["status"] for item in await items(api, f"?status={status}")] == [status]


async def test_receipt_is_shown_with_all_that_was_read_from_it(api, database, received):
    (item,) = await items(api, f"?message_id={received}")

    (row,) = await rows(database, "SELECT id, raw FROM receipt WHERE status = 'matched'")
    assert item.pop("at")
    assert item == {
        "id": str(row.id),
        "gateway": "main",
        "receipt_group": "main",
        "status": "matched",
        "gateway_message_id": "1",
        "message_id": str(received),
        "part": 1,
        "stat": "UNDELIV",
        "state": "undelivered",
        "reason": "call_barred",
        "error": "013",
        "reference": None,
        "address": "+79161234567",
        "raw": row.raw.hex(),
        "octets": len(row.raw),
    }


async def test_what_could_not_be_read_is_cut_in_the_list_and_whole_by_itself(api, received):
    (item,) = await items(api, "?status=quarantined")

    whole = (await api.get(f"/receipts/{item['id']}")).json()

    assert (item["raw"], item["octets"]) == ("ff" * 512, 600)
    assert whole["raw"] == "ff" * 600
    assert (whole["gateway_message_id"], whole["state"], whole["address"]) == (None, None, None)


async def test_list_goes_on_from_its_cursor_newest_first(api, received):
    first = (await api.get("/receipts?limit=3")).json()
    second = (await api.get(f"/receipts?limit=3&cursor={first['next_cursor']}")).json()

    ids = [item["id"] for item in first["items"] + second["items"]]
    assert len(ids) == 4
    assert ids == sorted(ids, reverse=True)
    assert second["next_cursor"] is None


async def test_filters_narrow(api, received):
    hour = timedelta(hours=1)
    before, after = quote((now() - hour).isoformat()), quote((now() + hour).isoformat())

    assert [item["status"] for item in await items(api, "?gateway=other")] == ["parked"]
    assert len(await items(api, f"?from={before}&to={after}")) == 4
    assert await items(api, f"?from={after}") == []
    assert await items(api, f"?to={before}&status=quarantined") == []
    assert await items(api, "?gateway=main&status=parked") == []


@pytest.mark.parametrize("query", ["?status=lost", "?message_id=17", "?from=yesterday", "?limit=0", "?cursor=abc"])
async def test_filter_that_makes_no_sense_is_refused(api, query):
    assert (await api.get(f"/receipts{query}")).status_code == 422


async def test_receipt_that_is_not_there_is_said_to_be_so(api):
    answer = await api.get(f"/receipts/{new_id()}")

    assert answer.status_code == 404
    assert answer.json()["code"] == "receipt_not_found"


async def test_receipts_are_read_by_who_may_read_messages(as_role):
    for role, expected in (("viewer", 200), ("operator", 200), ("billing", 403), (None, 401)):
        assert (await (await as_role(role)).get("/receipts")).status_code == expected
