import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from app.accounts.models import Account, Contact
from app.core.models import AuditRecord


def pointers(answer):
    return {(error["pointer"], error["code"]) for error in answer.json()["errors"]}


async def test_account_is_shown_as_it_was_given_with_ids(api, given_account):
    made = await api.put("/accounts/100500", json=given_account())
    read = await api.get("/accounts/100500")

    assert made.status_code == 201
    assert read.status_code == 200
    assert read.json() == made.json()
    shown = read.json()
    assert shown["number"] == "100500"
    given = given_account()
    for field in ("name", "status", "balance", "credit_limit", "currency", "locale", "timezone", "tariff", "threshold", "attributes"):
        assert shown[field] == given[field]
    assert datetime.fromisoformat(shown["balance_as_of"]) == datetime.fromisoformat(given["balance_as_of"])
    assert [(c["channel"], c["address"], c["origin"], c["verified"]) for c in shown["contacts"]] == [
        ("sms", "+79161234567", "billing", True),
        ("email", "subscriber@example.org", "billing", True),
    ]
    assert all(contact["id"] for contact in shown["contacts"])
    assert shown["charges"][0].items() >= given["charges"][0].items()


async def test_new_account_of_nearly_nothing_takes_the_operators_settings(api):
    made = await api.put("/accounts/1", json={})

    assert made.status_code == 201
    shown = made.json()
    assert (shown["balance"], shown["balance_as_of"], shown["currency"], shown["locale"], shown["timezone"]) == ("0.00", None, "RUB", "ru", "Europe/Moscow")
    assert (shown["name"], shown["status"], shown["threshold"], shown["contacts"], shown["charges"]) == ("", "active", None, [], [])


async def test_same_account_put_again_changes_nothing_and_writes_no_audit(api, database, given_account):
    await api.put("/accounts/100500", json=given_account())
    first = (await api.get("/accounts/100500")).json()

    again = await api.put("/accounts/100500", json=given_account())

    assert again.status_code == 200
    assert again.json() == first
    async with database.transaction() as session:
        actions = (await session.scalars(sa.select(AuditRecord.action).where(AuditRecord.action.like("account.%")))).all()
    assert actions == ["account.create"]


async def test_what_is_given_replaces_and_what_is_left_out_stays(api, given_account):
    first = (await api.put("/accounts/100500", json=given_account())).json()

    changed = (await api.put("/accounts/100500", json={"name": "Новое имя", "threshold": None})).json()

    assert changed["name"] == "Новое имя"
    assert changed["threshold"] is None
    kept = first.keys() - {"name", "threshold", "updated_at"}
    assert {name: changed[name] for name in kept} == {name: first[name] for name in kept}


async def test_contacts_and_charges_given_replace_the_billings_own_alone(api, given_account):
    first = (await api.put("/accounts/100500", json=given_account())).json()
    own = (await api.post("/accounts/100500/contacts", json={"channel": "sms", "address": "8 926 000-00-01", "label": "дача"})).json()

    contacts = [{"channel": "sms", "address": "+79161234567", "label": "основной"}, {"channel": "sms", "address": "+79160000002"}]
    charges = [
        {"id": "s1", "title": "Home 200", "amount": "700.00", "kind": "monthly", "day": 31},
        {"id": "s2", "title": "TV", "amount": "0.00", "kind": "daily"},
    ]
    changed = (await api.put("/accounts/100500", json={"contacts": contacts, "charges": charges})).json()

    assert {(c["address"], c["label"], c["origin"]) for c in changed["contacts"]} == {
        ("+79161234567", "основной", "billing"),
        ("+79160000002", "", "billing"),
        ("+79260000001", "дача", "subscriber"),
    }
    ids = {contact["address"]: contact["id"] for contact in changed["contacts"]}
    assert ids["+79161234567"] == first["contacts"][0]["id"]  # one that stays is the same contact: messages refer to it
    assert ids["+79260000001"] == own["id"]
    assert [(c["id"], c["title"], c["day"], c["posted_through"]) for c in changed["charges"]] == [("s1", "Home 200", 31, None), ("s2", "TV", None, None)]

    emptied = (await api.put("/accounts/100500", json={"contacts": [], "charges": []})).json()
    assert [c["address"] for c in emptied["contacts"]] == ["+79260000001"]
    assert emptied["charges"] == []


async def test_subscribers_unverified_contact_is_vouched_for_by_the_billing_and_stays_his(api, database):
    await api.put("/accounts/1", json={})
    async with database.transaction() as session:
        account = await session.scalar(sa.select(Account.id))
        session.add(Contact(account_id=account, channel="sms", address="+79161234567", origin="subscriber"))
    before = (await api.get("/accounts/1")).json()["contacts"]

    after = (await api.put("/accounts/1", json={"contacts": [{"channel": "sms", "address": "+79161234567"}]})).json()["contacts"]
    dropped = (await api.put("/accounts/1", json={"contacts": []})).json()["contacts"]

    assert [(c["origin"], c["verified"]) for c in before] == [("subscriber", False)]
    assert [(c["origin"], c["verified"]) for c in after] == [("subscriber", True)]
    assert dropped == after


async def test_one_address_written_twice_is_one_contact(api):
    contacts = [{"channel": "sms", "address": "+79161234567"}, {"channel": "sms", "address": "8 (916) 123-45-67", "label": "second"}]

    made = await api.put("/accounts/1", json={"contacts": contacts})

    assert [(c["address"], c["label"]) for c in made.json()["contacts"]] == [("+79161234567", "")]


@pytest.mark.parametrize("method", ["put", "patch"])
async def test_older_snapshot_does_not_undo_a_newer_balance(api, given_account, method):
    await api.put("/accounts/1", json=given_account(balance="112.30", balance_as_of="2026-01-23T10:00:00Z"))

    older = {"balance": "5.00", "balance_as_of": "2026-01-23T12:59:59+03:00", "name": "New"}
    stale = (await getattr(api, method)("/accounts/1", json=older)).json()
    fresh = (await getattr(api, method)("/accounts/1", json=older | {"balance_as_of": "2026-01-23T13:00:01+03:00"})).json()

    assert (stale["balance"], stale["balance_as_of"], stale["name"]) == ("112.30", "2026-01-23T10:00:00Z", "New")
    assert (fresh["balance"], fresh["balance_as_of"]) == ("5.00", "2026-01-23T10:00:01Z")


async def test_balance_without_a_time_is_one_of_this_moment(api):
    before = datetime.now(UTC)

    made = (await api.put("/accounts/1", json={"balance": "5.00"})).json()
    same = (await api.put("/accounts/1", json={"balance": "5.00"})).json()
    other = (await api.put("/accounts/1", json={"balance": "-6.00"})).json()

    assert before <= datetime.fromisoformat(made["balance_as_of"]) <= datetime.now(UTC)
    assert same == made
    assert other["balance"] == "-6.00"
    assert datetime.fromisoformat(other["balance_as_of"]) > datetime.fromisoformat(made["balance_as_of"])


async def test_patch_makes_no_account(api):
    answer = await api.patch("/accounts/404", json={"balance": "1.00"})

    assert answer.status_code == 404
    assert answer.json()["code"] == "account_not_found"


async def test_bad_fields_are_refused_each_by_its_pointer_and_nothing_is_stored(api):
    contacts = [{"channel": "email", "address": "a@b.ru"}, {"channel": "email", "address": "a@b"}, {"channel": "sms", "address": "8-800-FLOWERS"}]

    wrong_shape = await api.put(
        "/accounts/1", json={"balance": 112.3, "timezone": "Mars/Olympus", "nmae": "typo", "contacts": [{"channel": "fax", "address": "1"}]}
    )
    wrong_addresses = await api.put("/accounts/1", json={"contacts": contacts})

    assert wrong_shape.status_code == wrong_addresses.status_code == 422
    assert wrong_shape.headers["content-type"] == "application/problem+json"
    assert pointers(wrong_shape) == {("/balance", "money"), ("/timezone", "timezone"), ("/nmae", "extra_forbidden"), ("/contacts/0/channel", "literal_error")}
    assert pointers(wrong_addresses) == {("/contacts/1/address", "email_malformed"), ("/contacts/2/address", "phone_malformed")}
    assert (await api.get("/accounts/1")).status_code == 404


async def test_charge_of_each_kind_comes_back_as_it_was_given(api):
    due = {"a": {"kind": "once", "on": "2026-12-01"}, "b": {"kind": "daily"}, "c": {"kind": "weekly", "weekday": 7}, "d": {"kind": "monthly", "day": 31}}
    due |= {
        "e": {"kind": "yearly", "month": 2, "day": 29},
        "f": {"kind": "daily", "start_on": "2026-01-01", "end_on": "2026-01-01", "posted_through": "2026-01-01"},
    }
    given = [{"id": name, "title": "TV", "amount": "100.00", "announce": name != "f"} | schedule for name, schedule in due.items()]

    made = await api.put("/accounts/1", json={"charges": given})

    assert [{name: value for name, value in charge.items() if value is not None} for charge in made.json()["charges"]] == given


async def test_number_that_cannot_be_one_is_refused_in_every_path(api):
    for number in ("%00", "a%0Ab", "%C2%85", "x" * 65, "erased:1", "%7F"):
        for method, path in (("GET", ""), ("PUT", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/contacts")):
            answer = await api.request(method, f"/accounts/{number}{path}", json={} if method in {"PUT", "PATCH"} else None)
            assert (number, answer.status_code) == (number, 422)
            assert answer.headers["content-type"] == "application/problem+json"


async def test_any_other_string_is_a_number(api):
    for number in ("абонент № 1", "a b", "...", "%25", "%FF", "1%3F2", "😀", "x" * 64, "import"):
        made = await api.put(f"/accounts/{number}", json={"name": "n"})

        assert (number, made.status_code) == (number, 201)
        assert (await api.get(f"/accounts/{number}")).json()["number"] == made.json()["number"]


async def test_many_puts_at_once_of_a_new_number_make_one_account(api, given_account):
    answers = await asyncio.gather(
        *(api.put("/accounts/1", json=given_account(name=f"n{n}", contacts=[{"channel": "sms", "address": f"+7916000000{n}"}])) for n in range(8))
    )

    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    last = (await api.get("/accounts/1")).json()
    # Each replaced the other's contacts: those of the last are left, never a mixture.
    assert [contact["address"] for contact in last["contacts"]] == [f"+7916000000{last['name'][1:]}"]


async def test_put_and_erasure_at_once_leave_either_one_account_or_none(api, given_account):
    await api.put("/accounts/1", json=given_account())

    answers = await asyncio.gather(*(call for n in range(4) for call in (api.put("/accounts/1", json=given_account(name=f"n{n}")), api.delete("/accounts/1"))))

    assert {answer.status_code for answer in answers} <= {200, 201, 204, 404}
    assert (await api.get("/accounts/1")).status_code in {200, 404}


async def test_contact_is_added_shown_and_forgotten(api):
    await api.put("/accounts/1", json={})

    made = await api.post("/accounts/1/contacts", json={"channel": "email", "address": "A@Example.org", "label": "работа", "verified": True})
    listed = await api.get("/accounts/1/contacts")
    gone = await api.delete(f"/accounts/1/contacts/{made.json()['id']}")
    again = await api.delete(f"/accounts/1/contacts/{made.json()['id']}")

    assert made.status_code == 201
    assert made.json() == {
        "id": made.json()["id"],
        "channel": "email",
        "address": "A@example.org",
        "label": "работа",
        "origin": "subscriber",
        "verified": True,
    }
    assert listed.json() == {"items": [made.json()], "next_cursor": None}
    assert (gone.status_code, gone.content) == (204, b"")
    assert (again.status_code, again.json()["code"]) == (404, "contact_not_found")
    assert (await api.get("/accounts/1/contacts")).json()["items"] == []


async def test_contact_of_another_account_is_not_found_here(api):
    await api.put("/accounts/1", json={"contacts": [{"channel": "sms", "address": "+79161234567"}]})
    await api.put("/accounts/2", json={})
    contact = (await api.get("/accounts/1/contacts")).json()["items"][0]["id"]

    assert (await api.delete(f"/accounts/2/contacts/{contact}")).status_code == 404
    assert (await api.delete("/accounts/2/contacts/not-an-id")).status_code == 422
    assert len((await api.get("/accounts/1/contacts")).json()["items"]) == 1


async def test_same_address_is_not_added_twice_and_not_the_twenty_first(api):
    await api.put("/accounts/1", json={"contacts": [{"channel": "sms", "address": f"+791600000{n:02}"} for n in range(20)]})

    same = await api.post("/accounts/1/contacts", json={"channel": "sms", "address": "8 916 000-00-01"})
    more = await api.post("/accounts/1/contacts", json={"channel": "sms", "address": "+79169999999"})

    there = (await api.get("/accounts/1/contacts")).json()["items"][1]["id"]
    assert (same.status_code, same.json()["code"]) == (409, "contact_exists")
    assert there in same.json()["detail"]
    assert (more.status_code, more.json()["code"]) == (409, "too_many_contacts")


async def test_added_address_is_checked_like_any_other(api):
    await api.put("/accounts/1", json={})

    answer = await api.post("/accounts/1/contacts", json={"channel": "sms", "address": "not a phone"})

    assert (answer.status_code, pointers(answer)) == (422, {("/address", "phone_malformed")})


async def test_lists_of_contacts_have_pages(api):
    await api.put("/accounts/1", json={"contacts": [{"channel": "sms", "address": f"+791600000{n:02}"} for n in range(5)]})

    seen, cursor = [], None
    for _ in range(3):
        page = (await api.get("/accounts/1/contacts", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [contact["address"] for contact in page["items"]]
        cursor = page["next_cursor"]

    assert cursor is None
    assert sorted(seen) == [f"+791600000{n:02}" for n in range(5)]


async def test_audit_names_the_fields_and_keeps_no_personal_value(api, database, given_account):
    await api.put("/accounts/100500", json=given_account())
    await api.patch("/accounts/100500", json={"name": "Тайное Имя", "tariff": "Home 200", "contacts": [{"channel": "sms", "address": "+79031112233"}]})

    async with database.transaction() as session:
        record = await session.scalar(sa.select(AuditRecord).where(AuditRecord.action == "account.update"))
    assert record.changes["tariff"] == ["Home 100", "Home 200"]
    assert all(side.startswith("hmac:") for field in ("name", "contacts") for side in record.changes[field])
    assert record.object.startswith("account:")
    written = f"{record.object} {record.changes}"
    assert "Тайное" not in written
    assert "79031112233" not in written
    assert "100500" not in written


@pytest.mark.parametrize(("role", "reads", "writes"), [("viewer", 200, 403), ("operator", 200, 200), ("billing", 200, 200)])
async def test_reading_and_writing_accounts_are_scopes_of_their_own(as_role, api, role, reads, writes):
    await api.put("/accounts/1", json={})
    client = await as_role(role)

    assert (await client.get("/accounts/1")).status_code == reads
    assert (await client.put("/accounts/1", json={"name": "x"})).status_code == writes
    assert (await client.post("/accounts/import", content=b"", headers={"Content-Type": "application/x-ndjson"})).status_code == writes


async def test_far_future_is_no_time_of_a_balance_but_a_clock_may_be_a_little_fast(api):
    def at(minutes):
        return {"balance": "1.00", "balance_as_of": (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()}

    assert (await api.put("/accounts/1", json=at(5))).status_code == 201
    assert (await api.put("/accounts/1", json=at(15))).status_code == 422
