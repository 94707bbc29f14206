import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
import sqlalchemy as sa

from app.accounts.models import Account
from app.core.db import sync_dsn
from app.core.ids import new_id
from app.core.models import AuditRecord
from app.events.models import Event, EventKey, EventWaiting
from app.notifications.models import Message, MessageChange, Notification, Outbox
from app.sending.models import Submission
from app.tracking.models import Receipt

NOW = datetime.now(UTC).replace(microsecond=0)
PERSONAL = ("100500", "Тайное", "79161234567", "secret@example.org", "Секретная")


@pytest.fixture
async def life(api, database):
    """Account 100500 with a past: one delivered message, and one each held, queued and sending; and a neighbour with the same."""
    ids = {}
    for number in ("100500", "100501"):
        contacts = [{"channel": "sms", "address": "+79161234567"}, {"channel": "email", "address": "secret@example.org", "label": "Тайное"}]
        charges = [{"id": "s1", "title": "Секретная услуга", "amount": "1.00", "kind": "daily"}]
        body = {"name": "Тайное Имя", "balance": "5.00", "threshold": "1.00", "tariff": "Home 100", "attributes": {"passport": "Тайное"}, "contacts": contacts}
        assert (await api.put(f"/accounts/{number}", json=body | {"charges": charges})).status_code == 201
        async with database.transaction() as session:
            ids[number] = await past(session, await session.scalar(sa.select(Account.id).where(Account.number == number)))
    return ids


async def past(session, account):
    event, other = new_id(), new_id()
    for made, external in ((event, "e1"), (other, "e2")):
        session.add(EventKey(source=f"/{account}", external_id=external, event_id=made))
        session.add(
            Event(id=made, source=f"/{account}", external_id=external, type="payment.received", account_id=account, time=NOW, data={"payer": "Тайное Имя"})
        )
    session.add(EventWaiting(event_id=other, account_id=account))
    session.add(Notification(event_id=event, account_id=account, type="payment.received", decisions=[{"outcome": "planned"}], at=NOW))
    messages = {}
    for state in ("delivered", "held", "queued", "sending"):
        messages[state] = message = new_id()
        row = {"id": message, "event_id": event, "account_id": account, "type": "payment.received", "channel": "sms", "address": "+79161234567", "locale": "ru"}
        words = {"subject": "Тайное", "text": "Секретная", "html": "<p>Секретная</p>"}
        session.add(Message(**row, **words, gateway="main", state=state, not_before=NOW, expires_at=NOW + timedelta(days=1), updated_at=NOW))
        session.add(MessageChange(id=new_id(), message_id=message, at=NOW, state=state, detail="to +79161234567"))
        if state != "delivered":
            due = {"not_before": NOW, "expires_at": NOW + timedelta(days=1)}
            session.add(Outbox(message_id=message, state=state, channel="sms", gateway="main", priority=1, parts=1, **due))
    sent = {"n": 1, "part": 1, "parts": 1, "gateway": "main", "receipt_group": "main", "gateway_message_id": "77", "claimed_at": NOW, "at": NOW}
    session.add(Submission(message_id=messages["delivered"], outcome="accepted", detail="to +79161234567", **sent))
    seen = {"gateway": "main", "receipt_group": "main", "gateway_message_id": "77", "part": 1, "status": "matched", "stat": "DELIVRD", "state": "delivered"}
    session.add(Receipt(id=new_id(), at=NOW, message_id=messages["delivered"], raw="id:77 text:Секретная".encode(), **seen))
    return {"account": account, "event": event, **messages}


async def everything(settings):
    """The whole database as text, table by table."""
    connection = await asyncpg.connect(**sync_dsn(settings.database_url))
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        found = {}
        for (table,) in tables:
            rows = await connection.fetch(f'SELECT CAST(t AS text) FROM "{table}" t')
            found[table] = "\n".join(row[0] for row in rows)
        if "receipt" in found:
            raws = await connection.fetch("SELECT raw FROM receipt")
            found["receipt"] += "\n".join(row[0].decode() for row in raws)
        return found
    finally:
        await connection.close()


async def test_nothing_personal_is_left_anywhere_after_an_erasure(api, settings, life):
    await api.delete("/accounts/100501")
    assert any("Тайное" in text for text in (await everything(settings)).values())

    erased = await api.delete("/accounts/100500")

    assert (erased.status_code, erased.content) == (204, b"")
    left = {table: [word for word in PERSONAL if word in text] for table, text in (await everything(settings)).items()}
    assert {table: words for table, words in left.items() if words} == {}


async def test_what_waits_is_cancelled_and_what_is_on_the_wire_is_left_to_be_settled(api, database, life):
    await api.delete("/accounts/100500")

    mine = life["100500"]
    async with database.transaction() as session:
        states = {
            row.id: (row.state, row.reason, row.text, row.address)
            for row in await session.scalars(sa.select(Message).where(Message.account_id == mine["account"]))
        }
        outbox = {row.message_id: row for row in await session.scalars(sa.select(Outbox))}
        changes = (await session.scalars(sa.select(MessageChange).where(MessageChange.reason == "erased"))).all()
        waiting = list(await session.scalars(sa.select(EventWaiting.account_id)))
    assert states[mine["held"]] == states[mine["queued"]] == ("cancelled", "erased", "", "")
    assert states[mine["delivered"]] == ("delivered", None, "", "")
    assert sorted((change.message_id, change.state) for change in changes) == sorted((mine[state], "cancelled") for state in ("held", "queued"))
    neighbour = life["100501"]
    assert outbox.keys() == {mine["sending"]} | {neighbour[state] for state in ("held", "queued", "sending")}
    # Should the wire put it off, it must not go again with nothing in it.
    assert outbox[mine["sending"]].state == "sending"
    assert outbox[mine["sending"]].expires_at <= datetime.now(UTC)
    assert outbox[neighbour["sending"]].expires_at == NOW + timedelta(days=1)
    assert waiting == [neighbour["account"]]


async def test_neighbour_keeps_everything(api, database, life):
    before = (await api.get("/accounts/100501")).json()

    await api.delete("/accounts/100500")

    assert (await api.get("/accounts/100501")).json() == before
    async with database.transaction() as session:
        message = await session.get(Message, life["100501"]["delivered"])
        event = await session.get(Event, life["100501"]["event"])
        receipt = await session.scalar(sa.select(Receipt).where(Receipt.message_id == message.id))
    assert (message.text, message.address, event.data) == ("Секретная", "+79161234567", {"payer": "Тайное Имя"})
    assert "Секретная" in receipt.raw.decode()


async def test_number_is_free_for_a_new_account_that_knows_nothing_of_the_old(api, life):
    await api.delete("/accounts/100500")
    assert (await api.get("/accounts/100500")).status_code == 404

    made = await api.put("/accounts/100500", json={"name": "Другой"})

    assert made.status_code == 201
    assert (made.json()["contacts"], made.json()["charges"], made.json()["balance"]) == ([], [], "0.00")
    assert (await api.delete("/accounts/100500")).status_code == 204  # and a second tombstone beside the first
    assert (await api.delete("/accounts/100500")).status_code == 404


async def test_audit_recognises_the_number_and_does_not_say_it(api, database, life):
    await api.delete("/accounts/100500")
    await api.delete("/accounts/100501")

    async with database.transaction() as session:
        records = (await session.scalars(sa.select(AuditRecord).where(AuditRecord.action == "account.erase").order_by(AuditRecord.id))).all()
    assert [record.object for record in records] == [f"account:{life[number]['account']}" for number in ("100500", "100501")]
    hashes = [record.changes["number"] for record in records]
    assert all(re.fullmatch(r"hmac:[0-9a-f]{8}:[0-9a-f]{16}", text) for text in hashes)
    assert hashes[0] != hashes[1]
    assert [record.changes["messages"] for record in records] == [4, 4]


async def test_unknown_account_is_not_found_and_nothing_is_audited(api, database):
    answer = await api.delete("/accounts/404")

    assert (answer.status_code, answer.json()["code"]) == (404, "account_not_found")
    async with database.transaction() as session:
        assert (await session.scalars(sa.select(AuditRecord))).all() == []


async def test_erasing_needs_the_right_to_write_accounts(as_role, api):
    await api.put("/accounts/1", json={})
    viewer = await as_role("viewer")

    assert (await viewer.delete("/accounts/1")).status_code == 403
    assert (await api.get("/accounts/1")).status_code == 200


async def test_tombstone_keeps_the_id_alone(api, database, settings, life):
    await api.delete("/accounts/100500")

    account = life["100500"]["account"]
    assert isinstance(account, UUID)
    async with database.transaction() as session:
        row = await session.get(Account, account)
    assert row.model_dump(exclude={"created_at", "updated_at", "balance", "credit_limit"}) == {
        "id": account,
        "number": f"erased:{account}",
        "name": "",
        "status": "erased",
        "balance_as_of": None,
        "currency": settings.currency,
        "locale": settings.locale,
        "timezone": settings.timezone,
        "tariff": "",
        "threshold": None,
        "own_threshold": None,
        "warned_at": None,
        "warning_days": None,
        "upcoming_days": None,
        "attributes": {},
        "imported": None,
        "imported_lists": None,
    }
    assert (row.balance, row.credit_limit) == (0, 0)
