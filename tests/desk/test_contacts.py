"""Contacts: an operator adds them on the subscriber's behalf, the subscriber proves his own by a code, and nobody learns anything of others'."""

import asyncio
import json
import re
from datetime import timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa

from app.accounts import codes
from app.accounts.models import Contact
from app.accounts.suppressions import put
from app.core.clock import now
from app.notifications.audience import Around, Reached, Skipped, choose
from app.notifications.one_time import OneTimeTexts
from app.notifications.plan import CONTACTS
from tests.builders.accounts import an_account
from tests.builders.gateways import an_smpp_gateway, an_smtp_gateway
from tests.builders.messages import a_message, one, rows, run, state_of

PHONE, MAIL = "+79260000001", "mine@example.org"


@pytest.fixture
async def account(database):
    return await an_account(database)


@pytest.fixture
async def me(account, as_subscriber):
    return await as_subscriber(account.number)


async def added(me, channel="sms", address=PHONE, **more):
    answer = await me.post("/me/contacts", json={"channel": channel, "address": address, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def code_in(database, address=PHONE):
    """The code in the newest message to an address, as its holder reads it."""
    text = (await rows(database, "SELECT text FROM message WHERE type = 'contact.verification' AND address = :a ORDER BY id DESC LIMIT 1", a=address))[0].text
    return re.search(r"\b\d{6}\b", text)[0]


def another(code):
    return f"{(int(code) + 1) % 10**6:06}"


async def contact_row(database, contact_id):
    async with database.transaction() as session:
        return await session.get(Contact, contact_id)


async def a_minute_later(database):
    """As if every code had been sent a minute earlier."""
    await run(database, "UPDATE code_message SET at = at - interval '61 seconds'")


async def test_operators_contact_is_told_nothing_until_somebody_vouches_for_it(api, account, database):
    made = (await api.post("/accounts/100500/contacts", json={"channel": "sms", "address": "8 926 000-00-01"})).json()
    assert (made["address"], made["origin"], made["verified"]) == (PHONE, "subscriber", False)

    vouched = await api.patch(f"/accounts/100500/contacts/{made['id']}", json={"verified": True, "label": "дача"})

    assert (vouched.status_code, vouched.json()["verified"], vouched.json()["label"]) == (200, True, "дача")
    consent = await one(database, "SELECT account_id, channel, address, act, via, by FROM consent")
    assert (consent.account_id, consent.channel, consent.address, consent.act, consent.via) == (account.id, "sms", PHONE, "allowed", "api")
    assert consent.by.startswith("key:")
    assert "contact.verify" in {row.action for row in await rows(database, "SELECT action FROM audit_record")}


async def test_operator_who_vouches_at_once_says_so_in_the_audit_and_in_the_consents(api, account, database):
    made = await api.post("/accounts/100500/contacts", json={"channel": "email", "address": MAIL, "verified": True})

    assert (made.status_code, made.json()["verified"]) == (201, True)
    record = await one(database, "SELECT changes FROM audit_record WHERE action = 'contact.create'")
    assert record.changes["verified"] is True
    assert record.changes["address"].startswith("hmac:")
    assert (await one(database, "SELECT address, act FROM consent")) == (MAIL, "allowed")


async def test_billings_contact_is_neither_renamed_nor_removed_here(api, me, database):
    contact = (await me.get("/me/contacts")).json()["items"][0]["id"]

    answers = [
        await api.delete(f"/accounts/100500/contacts/{contact}"),
        await api.patch(f"/accounts/100500/contacts/{contact}", json={"label": "x"}),
        await me.delete(f"/me/contacts/{contact}"),
        await me.patch(f"/me/contacts/{contact}", json={"label": "x"}),
    ]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(409, "billing_contact")}
    assert (await contact_row(database, contact)).label == ""


async def test_added_contact_is_used_from_the_moment_at_which_its_code_was_entered(me, account, database):
    made = await added(me, label="дача")
    assert made["verified"] is False
    assert (await reached_by(database, account))[PHONE] is False

    proved = await me.post(f"/me/contacts/{made['id']}/verify", json={"code": await code_in(database)})

    assert (proved.status_code, proved.json()["verified"]) == (200, True)
    assert (await reached_by(database, account))[PHONE] is True
    assert (await one(database, "SELECT act, via, by, address FROM consent")) == ("allowed", "cabinet", "subscriber", PHONE)
    assert await rows(database, "SELECT 1 FROM contact_code") == []
    again = await me.post(f"/me/contacts/{made['id']}/verify", json={"code": "000000"})
    assert (again.status_code, again.json()["verified"]) == (200, True)  # it was pressed twice
    assert len(await rows(database, "SELECT 1 FROM consent")) == 1


async def reached_by(database, account):
    """The account's addresses, and whether planning may use them."""
    async with database.transaction() as session:
        return {row.address: row.verified for row in await session.execute(CONTACTS, {"ids": [account.id]})}


async def test_contact_that_nobody_has_proved_is_skipped_with_its_reason(settings, rules_of_payment):
    unproved = Reached(uuid4(), "sms", PHONE, "", suppressed=False, verified=False)
    around = Around(now(), settings.zone, None)

    (choice,) = [one for one in choose(rules_of_payment, "active", [unproved], now(), around) if one.channel == "sms"]

    assert isinstance(choice, Skipped)
    assert choice.reason == "not_verified"


@pytest.fixture
async def rules_of_payment(database):
    from app.catalogue.registry import Catalogue

    catalogue = Catalogue()
    async with database.transaction() as session:
        await catalogue.refresh(session)
    return catalogue.types["payment.received"]


async def test_code_goes_at_once_also_at_night_and_whatever_was_chosen(settings, account, database, as_subscriber):
    await an_smpp_gateway(database, "main", bound=True)
    document = '{"hours": [{"from": "03:00", "to": "03:01", "weekdays": [1]}], "types": {"contact.verification": {"enabled": false}}}'
    await run(
        database,
        "INSERT INTO account_preference (account_id, revision, document, updated_at, updated_by) VALUES (:id, 1, CAST(:doc AS jsonb), now(), 'x')",
        id=account.id,
        doc=document,
    )
    await run(database, "INSERT INTO quiet_hours (zone, workdays, weekends, updated_at, updated_by) VALUES ('', '00:01-00:00', '00:01-00:00', now(), 'x')")

    await added(await as_subscriber(account.number))

    line = await one(database, "SELECT o.state, o.gateway, o.priority, o.expires_at, m.urgent, m.event_id FROM outbox o JOIN message m ON m.id = o.message_id")
    assert (line.state, line.gateway, line.priority, line.urgent, line.event_id) == ("queued", "main", 0, True, None)
    assert timedelta(minutes=9) < line.expires_at - now() <= timedelta(minutes=10)


async def test_code_speaks_the_language_of_the_account_and_fits_one_sms(me, account, database):
    await added(me)
    await run(database, "UPDATE account SET locale = 'en'")
    await added(me, "email", MAIL)

    sms, letter = await rows(database, "SELECT text, subject, html, parts, locale FROM message ORDER BY id")

    assert (sms.locale, sms.parts, sms.subject) == ("ru", 1, None)
    assert sms.text.index(await code_in(database)) > 20  # receipts repeat twenty characters
    assert (letter.locale, letter.subject) == ("en", "Your confirmation code")
    assert await code_in(database, MAIL) in letter.html
    assert "100500" not in letter.text + letter.html  # whoever's address was mistyped need not know whose it nearly was


async def test_wrong_code_spends_an_attempt_and_the_sixth_is_not_even_looked_at(me, database):
    made = await added(me)
    right = await code_in(database)

    wrong = [await me.post(f"/me/contacts/{made['id']}/verify", json={"code": another(right)}) for _ in range(5)]
    late = await me.post(f"/me/contacts/{made['id']}/verify", json={"code": right})

    assert {(answer.status_code, answer.json()["code"]) for answer in wrong} == {(422, "wrong_code")}
    assert wrong[0].json()["errors"][0]["pointer"] == "/code"
    assert (late.status_code, late.json()["code"]) == (409, "no_valid_code")
    assert (await contact_row(database, made["id"])).verified_at is None


async def test_guesses_at_the_same_moment_are_counted_one_by_one(me, database):
    made = await added(me)
    right = await code_in(database)

    answers = await asyncio.gather(*(me.post(f"/me/contacts/{made['id']}/verify", json={"code": another(right)}) for _ in range(8)))

    assert sorted(answer.json()["code"] for answer in answers) == ["no_valid_code"] * 3 + ["wrong_code"] * 5


async def test_code_that_is_too_old_is_good_no_more(me, database):
    made = await added(me)
    await run(database, "UPDATE contact_code SET expires_at = now() - interval '1 second'")

    answer = await me.post(f"/me/contacts/{made['id']}/verify", json={"code": await code_in(database)})

    assert (answer.status_code, answer.json()["code"]) == (409, "no_valid_code")


async def test_code_of_one_contact_is_no_code_of_another(me, database):
    phone, mail = await added(me), await added(me, "email", MAIL)
    code = await code_in(database)
    if code == await code_in(database, MAIL):
        return  # one time in a million

    answer = await me.post(f"/me/contacts/{mail['id']}/verify", json={"code": code})

    assert answer.status_code == 422
    assert (await me.post(f"/me/contacts/{phone['id']}/verify", json={"code": code})).status_code == 200


@pytest.mark.parametrize("code", ["12345", "1234567", "12345a", "١٢٣٤٥٦", 123456, None])
async def test_what_is_no_code_at_all_spends_no_attempt(me, database, code):
    made = await added(me)

    answer = await me.post(f"/me/contacts/{made['id']}/verify", json={"code": code})

    assert answer.status_code == 422
    assert (await one(database, "SELECT attempts FROM contact_code")).attempts == 0


async def test_another_code_comes_after_a_minute_and_takes_the_place_of_the_first(me, database):
    made = await added(me)
    first = await code_in(database)
    soon = await me.post(f"/me/contacts/{made['id']}/code")
    assert (soon.status_code, soon.json()["code"]) == (429, "too_many_codes")
    assert 1 <= int(soon.headers["Retry-After"]) <= 61

    await a_minute_later(database)
    again = await me.post(f"/me/contacts/{made['id']}/code")

    assert again.status_code == 202
    states = [await state_of(database, row.id) for row in await rows(database, "SELECT id FROM message ORDER BY id")]
    assert states == [("cancelled", "not_needed"), ("queued", None)]
    second = await code_in(database)
    if first != second:
        assert (await me.post(f"/me/contacts/{made['id']}/verify", json={"code": first})).status_code == 422
    assert (await me.post(f"/me/contacts/{made['id']}/verify", json={"code": second})).status_code == 200
    assert (await me.post(f"/me/contacts/{made['id']}/code")).json()["code"] == "already_verified"


async def test_removing_a_contact_and_adding_it_again_brings_no_more_codes(me, database):
    for _ in range(5):
        made = await added(me)
        assert (await me.delete(f"/me/contacts/{made['id']}")).status_code == 204
        await a_minute_later(database)

    sixth = await me.post("/me/contacts", json={"channel": "sms", "address": PHONE})

    assert (sixth.status_code, sixth.json()["code"]) == (429, "too_many_codes")
    assert PHONE not in {contact["address"] for contact in (await me.get("/me/contacts")).json()["items"]}  # nothing of it is left half done


async def test_so_many_codes_a_day_for_an_address_whoever_asks(database, as_subscriber):
    accounts = [await an_account(database, f"20{n}", phones=()) for n in range(3)]
    moment = now()
    async with database.transaction() as session:
        digests = (await as_subscriber("x")).app.state.verification.digests
        for n in range(19):
            contact = Contact(account_id=uuid4(), channel="sms", address=PHONE)
            await codes.count_sending(session, digests, contact, uuid4(), moment - timedelta(minutes=n + 1))

    clients = [await as_subscriber(account.number) for account in accounts]
    answers = await asyncio.gather(*(client.post("/me/contacts", json={"channel": "sms", "address": PHONE}) for client in clients))

    assert sorted(answer.status_code for answer in answers) == [201, 429, 429]


async def test_an_address_that_somebody_else_has_is_added_and_proved_like_any_other(me, database):
    await an_account(database, "100501", phones=(PHONE,))
    known, unknown = await added(me, address=PHONE), await added(me, address="+79260000002")

    assert known.keys() == unknown.keys()
    assert {**known, "id": 0, "address": 0, "code": 0} == {**unknown, "id": 0, "address": 0, "code": 0}
    assert (await me.post(f"/me/contacts/{known['id']}/verify", json={"code": await code_in(database)})).status_code == 200


async def test_suppressed_address_gets_no_code_and_the_answer_does_not_say_so(me, database):
    async with database.transaction() as session:
        given = {"channel": "sms", "address": PHONE, "reason": "stop_word", "detail": "", "by": "subscriber", "at": now(), "until": None}
        await put(session, given)

    made = await added(me)

    assert made["code"]["good_until"]
    assert await state_of(database, (await one(database, "SELECT id FROM message")).id) == ("cancelled", "suppressed")
    assert await rows(database, "SELECT 1 FROM outbox") == []


async def test_what_became_of_a_code_is_shown_to_him_alone_who_has_proved_the_address(me, database):
    async with database.transaction() as session:
        given = {"channel": "sms", "address": PHONE, "reason": "stop_word", "detail": "", "by": "subscriber", "at": now(), "until": None}
        await put(session, given)
    await added(me)  # suppressed: its code was cancelled
    mine = await added(me, "email", MAIL)
    cancelled, sent = [row.id for row in await rows(database, "SELECT id FROM message ORDER BY id")]

    assert (await me.get("/me/messages")).json()["items"] == []
    assert {(await me.get(f"/me/messages/{message}")).status_code for message in (cancelled, sent)} == {404}

    await me.post(f"/me/contacts/{mine['id']}/verify", json={"code": await code_in(database, MAIL)})
    assert [one["id"] for one in (await me.get("/me/messages")).json()["items"]] == [str(sent)]


async def test_removal_ends_what_waits_for_a_contact_and_forgets_what_was_chosen_for_it(api, me, account, database):
    made = await added(me)
    waiting = await a_message(database, account, contact_id=made["id"], address=PHONE)
    others = await a_message(database, account)
    document = json.dumps({"contacts": {made["id"]: {"enabled": False}}, "locale": "en"})
    await run(
        database,
        "INSERT INTO account_preference (account_id, revision, document, updated_at, updated_by) VALUES (:id, 3, CAST(:doc AS jsonb), now(), 'x')",
        id=account.id,
        doc=document,
    )

    gone = await me.delete(f"/me/contacts/{made['id']}")

    assert gone.status_code == 204
    assert await state_of(database, waiting) == ("cancelled", "contact_removed")
    assert await state_of(database, others) == ("queued", None)
    kept = await one(database, "SELECT document, revision FROM account_preference")
    assert (kept.document, kept.revision) == ({"locale": "en"}, 4)
    assert (await one(database, "SELECT act, address, detail FROM consent")) == ("refused", PHONE, "contact removed")
    assert await rows(database, "SELECT 1 FROM contact_code") == []
    assert (await me.delete(f"/me/contacts/{made['id']}")).json()["code"] == "contact_not_found"


async def test_what_is_on_the_wire_when_its_contact_is_removed_is_on_its_last_try(api, account, database):
    made = (await api.post("/accounts/100500/contacts", json={"channel": "sms", "address": PHONE})).json()
    sending = await a_message(database, account, contact_id=made["id"], address=PHONE, state="sending")

    await api.delete(f"/accounts/100500/contacts/{made['id']}")

    assert (await state_of(database, sending))[0] == "sending"
    assert (await one(database, "SELECT expires_at <= now() AS over FROM outbox")).over


async def test_another_accounts_contact_is_found_by_no_operation_of_mine(me, database, as_subscriber):
    await an_account(database, "100501", phones=())
    theirs = await added(await as_subscriber("100501"))
    code = await code_in(database)

    answers = [
        await me.get(f"/me/contacts/{theirs['id']}"),
        await me.patch(f"/me/contacts/{theirs['id']}", json={"label": "x"}),
        await me.post(f"/me/contacts/{theirs['id']}/code"),
        await me.post(f"/me/contacts/{theirs['id']}/verify", json={"code": code}),
        await me.delete(f"/me/contacts/{theirs['id']}"),
    ]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(404, "contact_not_found")}
    assert (await one(database, "SELECT attempts FROM contact_code")).attempts == 0


async def test_twenty_contacts_are_enough(me, account, database):
    async with database.transaction() as session:
        session.add_all(Contact(account_id=account.id, channel="sms", address=f"+791600000{n:02}") for n in range(19))

    full = await me.post("/me/contacts", json={"channel": "sms", "address": PHONE})
    same = await me.post("/me/contacts", json={"channel": "sms", "address": "8 916 000-00-01"})

    assert (full.status_code, full.json()["code"]) == (409, "too_many_contacts")
    assert (same.status_code, same.json()["code"]) == (409, "contact_exists")


async def test_codes_that_the_operator_has_turned_off_leave_no_half_made_contact(me, database):
    await run(database, "UPDATE notification_type SET enabled = false, revision = revision + 1 WHERE code = 'contact.verification'")

    answer = await me.post("/me/contacts", json={"channel": "sms", "address": PHONE})

    assert (answer.status_code, answer.json()["code"]) == (409, "verification_off")
    assert len((await me.get("/me/contacts")).json()["items"]) == 1


async def test_code_is_read_by_nobody_over_the_api_and_forgotten_when_it_has_gone(api, me, database):
    await an_smtp_gateway(database)
    await added(me, "email", MAIL)
    code, message = await code_in(database, MAIL), (await one(database, "SELECT id FROM message")).id

    shown = (await api.get(f"/messages/{message}")).text + (await api.get("/messages")).text
    assert code not in shown
    assert "******" in shown
    assert await OneTimeTexts(database).blank() == 0  # it has not gone yet: whoever sends it needs the code
    assert code in (await one(database, "SELECT text FROM message")).text

    await run(database, "DELETE FROM outbox")
    await run(database, "UPDATE message SET state = 'accepted'")
    assert await OneTimeTexts(database).blank() == 1

    kept = await one(database, "SELECT subject, text, html FROM message")
    assert code not in kept.text + kept.subject
    assert kept.html is None
    assert await OneTimeTexts(database).blank() == 0
    again = await api.post(f"/messages/{message}/resend")
    assert (again.status_code, again.json()["code"]) == (409, "one_time_code")
    for table in ("audit_record", "consent", "contact_code"):
        assert code not in str([row.changes if table == "audit_record" else row for row in await rows(database, f"SELECT * FROM {table}")])


async def test_receipts_of_codes_keep_nothing_of_the_text(me, database):
    await added(me)
    message = (await one(database, "SELECT id FROM message")).id
    receipt = "INSERT INTO receipt (id, at, gateway, receipt_group, message_id, part, status, stat, raw) VALUES (:id, now(), 'main', 'main', :message, 1, 'matched', 'DELIVRD', :raw)"
    await run(database, receipt, id=uuid4(), message=message, raw=b"id:1 stat:DELIVRD text:482913")
    await run(database, receipt, id=uuid4(), message=uuid4(), raw=b"id:2 stat:DELIVRD text:Balance")

    await OneTimeTexts(database).forget()

    assert {bytes(row.raw) for row in await rows(database, "SELECT raw FROM receipt")} == {b"", b"id:2 stat:DELIVRD text:Balance"}


async def test_events_of_this_type_are_not_taken_from_outside(api, account):
    event = {"specversion": "1.0", "id": "1", "source": "/x", "type": "contact.verification", "subject": "100500", "data": {"code": "482913", "minutes": 10}}

    answer = await api.post("/events", json=event)

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "made_here")


async def test_erasure_forgets_codes_too(api, me, database):
    await added(me)

    await api.delete("/accounts/100500")

    assert await rows(database, "SELECT 1 FROM contact_code") == []
    async with database.transaction() as session:
        assert await session.scalar(sa.text("SELECT count(*) FROM outbox")) == 0


async def test_held_code_is_released_though_its_contact_is_not_proved(me, database, settings):
    from app.core.wakeups import Wakeups
    from app.notifications.hold import Holding

    await an_smpp_gateway(database, "main", bound=True)
    await added(me)
    await run(database, "UPDATE outbox SET state = 'held', reason = 'stopped'")

    await Holding(database, settings, Wakeups(settings.redis_url)).release()

    line = await one(database, "SELECT o.state, m.text FROM outbox o JOIN message m ON m.id = o.message_id")
    assert line.state == "queued"
    assert await code_in(database) in line.text
