"""POST /events in the three modes of CloudEvents, and everything that is wrong with an envelope."""

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import orjson
import pytest

from app.core.clock import now
from app.events.cloudevents import read_event
from tests.builders.accounts import an_account
from tests.builders.events import a_payment
from tests.builders.messages import one, rows

STRUCTURED = {"content-type": "application/cloudevents+json"}
BATCH = {"content-type": "application/cloudevents-batch+json"}


@pytest.fixture
async def account(database):
    return await an_account(database)


async def post(api, event, headers=STRUCTURED):
    return await api.post("/events", content=orjson.dumps(event), headers=headers)


async def test_structured_event_is_committed_and_waits_to_be_planned(api, database, account):
    answer = await post(api, a_payment(id="p1", balance="612.30", time="2026-01-23T10:00:00+03:00"))

    assert answer.status_code == 202
    event_id = answer.json().pop("event_id")
    assert answer.json() == {"event_id": event_id, "duplicate": False}
    row = await one(database, "SELECT e.*, w.account_id AS waits FROM event e JOIN event_waiting w ON w.event_id = e.id")
    assert (str(row.id), row.source, row.external_id, row.waits) == (event_id, "/billing/payments", "p1", account.id)
    assert row.data == {"amount": "500.00", "balance": "612.30"}


async def test_plain_json_is_taken_as_structured(api, account):
    for kind in ("application/json", "application/json; charset=utf-8", "Application/CloudEvents+JSON"):
        assert (await post(api, a_payment(), {"content-type": kind})).status_code == 202


async def test_plain_json_array_is_taken_as_a_batch(api, account):
    answer = await post(api, [a_payment(), a_payment()], {"content-type": "application/json"})

    assert answer.json() == {"accepted": 2, "duplicates": 0, "rejected": []}


async def test_binary_mode_has_its_attributes_in_percent_encoded_headers(api, database, account):
    headers = {"ce-specversion": "1.0", "ce-id": quote("платёж 1%"), "ce-source": "/billing", "ce-type": "payment.received", "ce-subject": "100500"}

    answer = await api.post("/events", json={"amount": "1.00"}, headers=headers | {"ce-time": "2026-01-23T10:00:00Z", "ce-traceparent": "00-1-2-3"})

    assert answer.status_code == 202
    assert (await one(database, "SELECT external_id FROM event")).external_id == "платёж 1%"


async def test_structured_event_may_repeat_its_attributes_in_headers(api, account):
    # CloudEvents HTTP binding 1.0.2, 3: the content type decides the mode; 3.2.2: ce- headers may come along.
    answer = await post(api, a_payment(), STRUCTURED | {"ce-id": "1", "ce-specversion": "1.0"})

    assert answer.status_code == 202


NO_EVENTS = [
    ({"content-type": "text/plain"}, b"{}", 415, "unsupported_media_type"),
    ({"content-type": "text/xml", "ce-id": "1", "ce-specversion": "1.0"}, b"<a/>", 415, "unsupported_media_type"),
    (STRUCTURED, b"", 400, "empty_body"),
    (STRUCTURED, b"{", 400, "malformed_json"),
    (STRUCTURED, b'{"id": NaN}', 400, "malformed_json"),
    (STRUCTURED, b'{"id": "\\ud800"}', 400, "malformed_json"),
    (STRUCTURED, b'{"data": {"x": "a\\u0000"}}', 422, "nul_character"),
    (STRUCTURED, b"[]", 422, "not_an_event"),
    (STRUCTURED, b'"text"', 422, "not_an_event"),
    (BATCH, b"{}", 400, "not_a_batch"),
    ({"ce-id": "%FF", "ce-specversion": "1.0", "content-type": "application/json"}, b"{}", 400, "malformed_header"),
]


async def test_what_is_no_event_at_all_is_refused_as_a_problem(api):
    for headers, body, status, code in NO_EVENTS:
        answer = await api.post("/events", content=body, headers=headers)

        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"specversion": "0.3"}, "/specversion", "specversion"),
        ({"specversion": ...}, "/specversion", "specversion"),
        ({"id": ""}, "/id", "required"),
        ({"source": 5}, "/source", "required"),
        ({"subject": ...}, "/subject", "required"),
        ({"type": "t" * 101}, "/type", "too_long"),
        ({"source": "/a\nb"}, "/source", "unprintable"),
        ({"subject": "1005\x85"}, "/subject", "unprintable"),
        ({"time": "2026-11-23T10:00:00"}, "/time", "time"),
        ({"time": "2026-11-23"}, "/time", "time"),
        ({"time": 1763888400}, "/time", "time"),
        ({"time": "2026-02-30T10:00:00Z"}, "/time", "time"),
        ({"time": "2026-11-23T10:00:00+25:00"}, "/time", "time"),
        ({"time": "1999-12-31T23:59:59Z"}, "/time", "time_too_old"),
        ({"time": "9999-12-31T23:59:59-23:00"}, "/time", "time"),
        ({"datacontenttype": "text/xml"}, "/datacontenttype", "datacontenttype"),
        ({"data_base64": "AA=="}, "/data_base64", "data_base64"),
        ({"Bad-Name": 1}, "/Bad-Name", "unknown_field"),
        ({"trace": {"a": 1}}, "/trace", "unknown_field"),
    ],
)
def test_fault_of_an_envelope_has_a_pointer_and_a_code(change, pointer, code):
    faults = read_event(a_payment(**change), now() + timedelta(minutes=10))

    assert [(fault.pointer, fault.code) for fault in faults] == [(pointer, code)]


async def test_of_a_refused_event_nothing_is_stored(api, database, account):
    changes = [{"specversion": "2.0"}, {"data": ...}, {"amount": "0.00"}, {"type": "payment.lost"}, {"subject": "7"}]

    answers = [(await post(api, a_payment(**change))).json() for change in changes]

    assert [answer["errors"][0]["pointer"] for answer in answers] == ["/specversion", "/data", "/data/amount", "/type", "/subject"]
    assert [answer["code"] for answer in answers] == [answer["errors"][0]["code"] for answer in answers]
    assert {answer["status"] for answer in answers} == {422}
    assert await rows(database, "SELECT event_id FROM event_key UNION ALL SELECT id FROM event UNION ALL SELECT event_id FROM event_waiting") == []


async def test_all_faults_of_an_envelope_are_told_at_once(api, account):
    answer = await post(api, {"specversion": "1.0", "id": "", "time": "yesterday", "data": {}})

    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/id", "/source", "/type", "/subject", "/time"]


async def test_extension_attributes_are_taken_and_ignored(api, account):
    assert (await post(api, a_payment(traceparent="00-1", sampled=True, dataschema="urn:x"))).status_code == 202


@pytest.mark.parametrize("time", ["2026-01-23t10:00:00z", "2026-01-23 10:00:00+00:00", "2026-01-23T13:00:00.000000001+03:00"])
def test_every_spelling_of_rfc_3339_is_a_time(time):
    assert read_event(a_payment(time=time), now()).time == datetime(2026, 1, 23, 10, tzinfo=UTC)


async def test_clock_that_is_nine_minutes_fast_is_forgiven_and_eleven_minutes_are_not(api, account):
    nine, eleven = ((now() + timedelta(minutes=minutes)).isoformat() for minutes in (9, 11))

    assert (await post(api, a_payment(time=nine))).status_code == 202
    assert (await post(api, a_payment(time=eleven))).json()["code"] == "time_in_future"


async def test_viewer_may_not_tell_events_and_the_body_is_not_looked_at(as_role, account):
    viewer = await as_role("viewer")

    assert (await post(viewer, "no event")).status_code == 403


async def test_type_that_an_operator_has_just_added_is_known_at_once(api, account):
    given = {
        "titles": {"ru": "Игра", "en": "Game"},
        "enabled": True,
        "mandatory": False,
        "urgent": False,
        "channels": ["sms"],
        "ttl_seconds": 3600,
        "settings": {},
    }
    assert (await post(api, a_payment(type="game.won"))).json()["code"] == "unknown_type"

    assert (await api.put("/notification-types/game.won", json=given)).status_code in {200, 201}

    assert (await post(api, a_payment(type="game.won"))).status_code == 202
