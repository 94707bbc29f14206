"""Suppressions over the API, and what they stop."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from app.core.clock import now
from app.core.models import AuditRecord
from app.core.wakeups import Wakeups
from app.notifications.hold import Holding
from app.notifications.plan import Planner
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import a_message, one, rows, run, state_of

PHONE = "+79161234567"


@pytest.fixture
def planner(database, settings):
    return Planner(database, settings, Wakeups(settings.redis_url, direct=lambda queue: True))


async def put(api, **fields):
    return await api.post("/suppressions", json={"channel": "sms", "address": PHONE, "reason": "operator"} | fields)


async def found(api, **query):
    return [(item["address"], item["reason"]) for item in (await api.get("/suppressions", params=query)).json()["items"]]


async def test_suppression_is_made_once_and_brought_up_to_date_by_the_same_again(api):
    first = await put(api, address="8 916 123-45-67", detail="asked by phone")
    again = await put(api, detail="asked again", until=(now() + timedelta(days=1)).isoformat())

    assert (first.status_code, again.status_code) == (201, 200)
    assert (first.json()["address"], first.json()["until"], first.json()["by"][:4]) == (PHONE, None, "key:")
    shown = (await api.get("/suppressions")).json()["items"]
    assert shown == [again.json()]
    assert (shown[0]["detail"], shown[0]["at"]) == ("asked again", first.json()["at"])


async def test_each_reason_stands_by_itself_and_one_or_all_are_lifted(api):
    for reason in ("operator", "complaint", "hard_bounce"):
        await put(api, reason=reason)

    one_gone = await api.delete("/suppressions", params={"channel": "sms", "address": PHONE, "reason": "complaint"})
    assert one_gone.status_code == 204
    assert [reason for _, reason in await found(api)] == ["hard_bounce", "operator"]

    assert (await api.delete("/suppressions", params={"channel": "sms", "address": "89161234567"})).status_code == 204
    assert await found(api) == []
    gone = await api.delete("/suppressions", params={"channel": "sms", "address": PHONE})
    assert (gone.status_code, gone.json()["code"]) == (404, "suppression_not_found")


async def test_list_is_filtered_and_goes_on_page_by_page(api):
    for number in range(5):
        await put(api, address=f"+7916000000{number}")
    await put(api, channel="email", address="A@Example.org")

    first = (await api.get("/suppressions", params={"limit": 4})).json()
    second = (await api.get("/suppressions", params={"limit": 4, "cursor": first["next_cursor"]})).json()

    assert [item["address"] for page in (first, second) for item in page["items"]] == [f"+7916000000{number}" for number in range(5)] + ["A@example.org"]
    assert second["next_cursor"] is None
    assert await found(api, channel="email") == [("A@example.org", "operator")]
    assert await found(api, address=" 79160000003") == [("+79160000003", "operator")]
    assert await found(api, address="nonsense") == []


async def test_one_that_has_run_out_is_not_shown_and_a_new_one_may_be_made(database, api):
    await put(api, until=(now() + timedelta(days=1)).isoformat())
    await run(database, "UPDATE suppression SET until = now() - interval '1 second', at = now() - interval '1 day'")

    assert await found(api) == []
    assert (await put(api)).status_code == 201
    assert await found(api) == [(PHONE, "operator")]


@pytest.mark.parametrize(
    ("field", "pointer"),
    [
        ({"address": "12"}, "/address"),
        ({"channel": "fax"}, "/channel"),
        ({"reason": "Because!"}, "/reason"),
        ({"until": "2020-01-01T00:00:00Z"}, "/until"),
        ({"other": 1}, "/other"),
    ],
)
async def test_what_is_wrong_is_named(api, field, pointer):
    answer = await put(api, **field)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


async def test_viewer_sees_and_does_not_touch_them_and_the_billing_has_nothing_to_do_with_them(as_role):
    viewer, billing = await as_role("viewer"), await as_role("billing")

    assert (await viewer.get("/suppressions")).status_code == 200
    assert (await put(viewer)).status_code == 403
    assert (await viewer.delete("/suppressions", params={"channel": "sms", "address": PHONE})).status_code == 403
    assert (await billing.get("/suppressions")).status_code == 403


async def test_audit_tells_of_each_and_has_no_address(database, api):
    await put(api)
    await put(api)
    await api.delete("/suppressions", params={"channel": "sms", "address": PHONE})

    async with database.transaction() as session:
        records = (await session.scalars(sa.select(AuditRecord).where(AuditRecord.action.like("suppression.%")).order_by(AuditRecord.id))).all()
    assert [record.action for record in records] == ["suppression.create", "suppression.update", "suppression.delete"]
    assert "9161234567" not in str([record.model_dump() for record in records])


@pytest.mark.parametrize(("reason", "mandatory_state"), [("operator", "queued"), ("stop_word", "queued"), ("hard_bounce", "cancelled")])
async def test_what_waits_is_cancelled_and_a_mandatory_one_only_where_nobody_is(database, api, reason, mandatory_state):
    await run(database, "UPDATE notification_type SET mandatory = true WHERE code = 'tariff.changed'")
    ordinary, mandatory = await a_message(database), await a_message(database, type="tariff.changed")

    await put(api, reason=reason)

    assert await state_of(database, ordinary) == ("cancelled", "suppressed")
    assert (await state_of(database, mandatory))[0] == mandatory_state


async def outcome_of(database, event):
    decisions = (await one(database, "SELECT decisions FROM notification WHERE event_id = :id", id=event)).decisions
    ((outcome, reason),) = [(decision["outcome"], decision["reason"]) for decision in decisions if decision["channel"] == "sms"]
    return outcome, reason


@pytest.mark.parametrize(
    ("reason", "mandatory", "outcome"),
    [
        ("operator", False, ("skipped", "suppressed")),
        ("stop_word", False, ("skipped", "suppressed")),
        ("stop_word", True, ("planned", None)),
        ("hard_bounce", False, ("skipped", "suppressed")),
        ("hard_bounce", True, ("skipped", "suppressed")),
    ],
)
async def test_event_tells_a_suppressed_contact_only_what_is_mandatory(database, api, planner, reason, mandatory, outcome):
    await run(database, "UPDATE notification_type SET mandatory = :mandatory, revision = revision + 1 WHERE code = 'service.connected'", mandatory=mandatory)
    await an_smpp_gateway(database, bound=True)
    account = await an_account(database)
    await put(api, reason=reason)
    event = await a_waiting_event(database, account)

    await planner.plan()

    assert await outcome_of(database, event) == outcome


@pytest.mark.parametrize("change", ["UPDATE suppression SET until = now() - interval '1 second'", "UPDATE suppression SET channel = 'email'"])
async def test_suppression_that_is_over_or_of_the_other_channel_stops_nothing(database, api, planner, change):
    await an_smpp_gateway(database, bound=True)
    account = await an_account(database)
    await put(api)
    await run(database, change)
    event = await a_waiting_event(database, account)

    await planner.plan()

    assert await outcome_of(database, event) == ("planned", None)


async def test_held_message_of_a_mandatory_type_is_released_against_a_wish_and_not_to_where_nobody_is(database, api, settings):
    await run(database, "UPDATE notification_type SET mandatory = true, revision = revision + 1 WHERE code = 'service.connected'")
    account = await an_account(database, phones=(PHONE, "+79160000001"))
    contacts = {row.address: row.id for row in await rows(database, "SELECT id, address FROM contact")}
    fields = {"state": "held", "not_before": now() + timedelta(hours=1)}
    wished, dead = [await a_message(database, account, address=address, contact_id=contacts[address], **fields) for address in (PHONE, "+79160000001")]
    await run(
        database,
        "INSERT INTO suppression (channel, address, reason, detail, by, at)"
        " VALUES ('sms', '+79161234567', 'stop_word', '', 'x', now()), ('sms', '+79160000001', 'hard_bounce', '', 'x', now())",
    )
    await run(database, "UPDATE outbox SET not_before = now()")

    await Holding(database, settings, Wakeups(settings.redis_url, direct=lambda queue: True)).release()

    assert (await state_of(database, wished))[0] == "queued"
    assert await state_of(database, dead) == ("cancelled", "suppressed")


async def test_contact_with_several_reasons_is_told_or_skipped_once(database, api, planner):
    account = await an_account(database)
    for reason in ("operator", "complaint", "stop_word"):
        await put(api, reason=reason)
    event = await a_waiting_event(database, account)

    await planner.plan()

    assert await outcome_of(database, event) == ("skipped", "suppressed")


async def test_resend_to_a_suppressed_address_is_refused_until_it_is_lifted(database, api):
    message = await a_message(database, await an_account(database), ended="delivered")
    await put(api)

    refused = await api.post(f"/messages/{message}/resend")
    assert (refused.status_code, refused.json()["code"]) == (409, "suppressed")
    assert await rows(database, "SELECT 1 FROM outbox") == []

    await api.delete("/suppressions", params={"channel": "sms", "address": PHONE})
    assert (await api.post(f"/messages/{message}/resend")).status_code == 201
