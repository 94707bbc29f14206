async def test_subscriber_sees_his_own_account_without_the_operators_notes(api, as_subscriber, given_account):
    await api.put("/accounts/100500", json=given_account())
    await api.put("/accounts/100501", json=given_account(name="Other"))
    me = await as_subscriber("100500")

    shown = (await me.get("/me")).json()

    assert shown == {
        "number": "100500",
        "name": "Абонент 100500",
        "status": "active",
        "balance": "112.30",
        "balance_as_of": "2026-01-23T06:59:00Z",
        "credit_limit": "0.00",
        "currency": "RUB",
        "locale": "ru",
        "timezone": "Asia/Yekaterinburg",
        "tariff": "Home 100",
        "threshold": "50.00",
    }


async def test_subscriber_sees_his_own_contacts_page_by_page(api, as_subscriber, given_account):
    await api.put("/accounts/100500", json=given_account())
    await api.put("/accounts/100501", json=given_account(contacts=[{"channel": "sms", "address": "+79169999999"}]))
    me = await as_subscriber("100500")

    first = (await me.get("/me/contacts", params={"limit": 1})).json()
    second = (await me.get("/me/contacts", params={"limit": 1, "cursor": first["next_cursor"]})).json()

    assert first["items"] == [{"id": first["items"][0]["id"], "channel": "sms", "address": "+79161234567", "label": "", "origin": "billing", "verified": True}]
    assert [contact["address"] for contact in second["items"]] == ["subscriber@example.org"]
    assert second["next_cursor"] is None


async def test_token_of_an_account_that_is_not_or_no_longer_there_finds_nothing(api, as_subscriber):
    await api.put("/accounts/1", json={})
    erased, stranger = await as_subscriber("1"), await as_subscriber("404")
    await api.delete("/accounts/1")

    for me in (erased, stranger):
        for path in ("/me", "/me/contacts"):
            answer = await me.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "account_not_found")


async def test_tombstone_is_nobodys_account(api, as_subscriber, database):
    import sqlalchemy as sa

    await api.put("/accounts/1", json={})
    await api.delete("/accounts/1")
    async with database.transaction() as session:
        number = await session.scalar(sa.text("SELECT number FROM account"))

    assert number.startswith("erased:")
    assert (await (await as_subscriber(number)).get("/me")).status_code == 404


async def test_token_reaches_the_cabinet_alone_and_a_key_all_but_it(api, as_subscriber):
    me = await as_subscriber("1")

    assert (await me.get("/accounts/1")).status_code == 403
    assert (await api.get("/me")).status_code == 403
