"""The cabinet: what was sent to a subscriber, in his words and with nothing of ours in it."""

from datetime import timedelta

import pytest

from app.core.clock import now
from app.core.ids import first_id_at, new_id
from tests.builders.accounts import MAIL, PHONE, an_account
from tests.builders.messages import a_message, run

FIELDS = {
    "id", "type", "title", "channel", "contact_id", "address", "subject", "text", "state", "reason", "result", "result_reason", "created_at", "next_send_at",
    "after", "expires_at", "updated_at",
}  # fmt: skip


@pytest.fixture
async def account(database):
    return await an_account(database, mails=(MAIL,))


@pytest.fixture
async def me(as_subscriber, account):
    return await as_subscriber("100500")


async def listed(client, **query):
    answer = await client.get("/me/messages", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def test_message_is_shown_with_its_text_and_result_and_a_masked_address(database, me, account):
    await a_message(database, account, ended="delivered", text="Подключено: ТВ")
    await a_message(database, account, ended="undelivered", reason="mailbox_full", channel="email", address=MAIL, subject="Тема", text="Текст")

    mail, sms = await listed(me)

    assert sms.keys() == FIELDS
    assert (sms["type"], sms["title"], sms["text"]) == ("service.connected", "Услуга подключена", "Подключено: ТВ")
    assert (sms["address"], sms["state"], sms["result"], sms["next_send_at"]) == ("+7916***4567", "delivered", "Доставлено", None)
    assert (mail["address"], mail["subject"], mail["result"], mail["result_reason"]) == (
        "s***@example.org",
        "Тема",
        "Не доставлено",
        "почтовый ящик переполнен",
    )


async def test_message_that_waits_says_when_it_will_go_and_why_not_now(database, me, account):
    later = now() + timedelta(hours=3)
    await a_message(database, account, state="held", reason="quiet_hours", not_before=later)

    (held,) = await listed(me, locale="en")

    assert (held["state"], held["reason"], held["result"], held["result_reason"]) == ("held", "quiet_hours", "Waits for its hour", "quiet hours")
    assert held["next_send_at"] == later.isoformat().replace("+00:00", "Z")
    assert held["expires_at"] is not None


async def test_message_behind_another_one_says_so(database, me, account):
    first = await a_message(database, account, ended="accepted")
    await a_message(database, account, state="held", reason="fallback", channel="email", address=MAIL, after_message=first)

    second, _ = await listed(me)

    assert (second["after"], second["reason"]) == (str(first), "fallback")


async def test_troubles_of_our_gateways_are_not_his(database, me, account):
    await a_message(database, account, ended="failed", reason="sender_refused")
    await a_message(database, account, state="held", reason="budget")

    for message in await listed(me):
        assert (message["reason"], message["result_reason"]) == (None, None)


async def test_one_time_codes_are_starred_out(database, me, account):
    message = await a_message(database, account, type="contact.verification", text="Код 482913", subject="482913")

    (shown,) = await listed(me)
    alone = (await me.get(f"/me/messages/{message}")).json()

    assert (shown["text"], shown["subject"]) == (alone["text"], alone["subject"]) == ("Код ******", "******")


async def test_words_are_in_the_language_asked_for_else_his_own(database, me, account):
    await a_message(database, account, ended="delivered")

    async def result(headers=None, **query):
        (message,) = (await me.get("/me/messages", params=query, headers=headers)).json()["items"]
        return message["result"], message["title"]

    assert await result() == ("Доставлено", "Услуга подключена")
    assert await result({"Accept-Language": "en"}) == await result(locale="en") == ("Delivered", "Service connected")
    await run(database, "INSERT INTO account_preference VALUES (:id, 1, CAST('{\"locale\": \"en\"}' AS jsonb), now(), 'subscriber')", id=account.id)
    assert (await result())[0] == "Delivered"


async def test_list_is_filtered_and_turned_page_by_page(database, me, account):
    start = now() - timedelta(days=3)
    ids = []
    for number in range(7):
        kind = {"type": "tariff.changed"} if number % 2 else {"channel": "email", "address": MAIL}
        ended = "delivered" if number < 5 else None
        ids.append(str(await a_message(database, account, id=first_id_at(start + timedelta(hours=number)), ended=ended, **kind)))
    await a_message(database, id=first_id_at(start + timedelta(minutes=30)), ended="delivered")  # somebody else's

    async def found(**query):
        return [item["id"] for item in await listed(me, **query)]

    pages, cursor = [], None
    while True:
        page = (await me.get("/me/messages", params={"limit": 3} | ({"cursor": cursor} if cursor else {}))).json()
        pages.append([item["id"] for item in page["items"]])
        if (cursor := page["next_cursor"]) is None:
            break
    assert pages == [ids[6:3:-1], ids[3:0:-1], ids[0::-1]]
    assert await found(type="tariff.changed") == [ids[5], ids[3], ids[1]]
    assert await found(channel="email") == [ids[6], ids[4], ids[2], ids[0]]
    assert await found(state="queued") == [ids[6], ids[5]]
    assert await found(state="delivered", limit=2) == [ids[4], ids[3]]
    assert await found(**{"from": (start + timedelta(hours=2)).isoformat(), "to": (start + timedelta(hours=4)).isoformat()}) == [ids[3], ids[2]]
    assert await found(state="delivered", type="tariff.changed") == [ids[3], ids[1]]


async def test_single_message_is_his_own_or_is_not_there(database, me, account, as_subscriber):
    mine = await a_message(database, account)
    other = await a_message(database, await an_account(database, "100501", phones=("+79165550001",)))

    assert (await me.get(f"/me/messages/{mine}")).json()["address"] == "+7916***4567"
    for message in (other, new_id()):
        answer = await me.get(f"/me/messages/{message}")
        assert (answer.status_code, answer.json()["code"]) == (404, "message_not_found")
    assert PHONE not in (await me.get("/me/messages")).text
