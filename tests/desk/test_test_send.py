from uuid import UUID, uuid4

import pytest

from app.core.auth import cabinet_token
from app.core.ids import NOBODY
from app.sending.mail_letters import Letters
from tests.builders.accounts import PHONE, an_account
from tests.builders.gateways import an_smpp_gateway, an_smtp_gateway
from tests.builders.messages import claim, one, rows, run

OPERATOR = "+79990001122"
BOX = "operator@isp.example"


def key_of(client):
    return client.headers["Authorization"].split("_")[1]


async def template_id_of(database, kind="payment.received", channel="sms"):
    return (await one(database, "SELECT id FROM template WHERE type = :kind AND channel = :channel AND locale = 'ru'", kind=kind, channel=channel)).id


@pytest.fixture
async def operator(api, as_role, database):
    """An operator whose key may test on a phone and in a mailbox; there are gateways for both."""
    client = await as_role("operator")
    contacts = [{"channel": "sms", "address": "8 999 000-11-22"}, {"channel": "email", "address": BOX}]
    answer = await api.put(f"/keys/{key_of(client)}/contacts", json={"contacts": contacts})
    assert answer.status_code == 200, answer.text
    await an_smpp_gateway(database, price_per_part="2.50")
    await an_smtp_gateway(database)
    return client


async def messages(database):
    return await rows(
        database,
        "SELECT m.id, m.account_id, m.contact_id, m.type, m.channel, m.address, m.text, m.subject, m.test, m.template_version, m.gateway, m.price, m.parts, o.state, o.priority"
        " FROM message m JOIN outbox o ON o.message_id = m.id ORDER BY m.id",
    )


async def test_operator_gets_a_test_on_his_own_phone_and_nobody_else_does(operator, database):
    template = await template_id_of(database)

    sent = await operator.post(f"/templates/{template}/test-send", json={})

    assert sent.status_code == 201, sent.text
    (message,) = await messages(database)
    assert sent.json() == {
        "template_id": str(template),
        "version": 1,
        "messages": [{"id": str(message.id), "channel": "sms", "address": OPERATOR, "gateway": "main"}],
    }
    assert (message.address, message.test, message.state, message.priority, message.contact_id) == (OPERATOR, True, "queued", 0, None)
    assert (message.account_id, message.type, message.template_version) == (NOBODY, "payment.received", 1)
    assert "500,00" in message.text
    assert (message.parts, str(message.price)) == (1, "2.5000")


async def test_operator_gets_a_letter_with_the_words_of_an_account(operator, database):
    account = await an_account(database, "777", name="Ромашка", mails=("subscriber@example.org",))
    template = await template_id_of(database, channel="email")

    sent = await operator.post(f"/templates/{template}/test-send", json={"account": "777", "sample": {"amount": "12.00"}})

    assert sent.status_code == 201, sent.text
    (message,) = await messages(database)
    assert (message.address, message.account_id, message.gateway) == (BOX, account.id, "post")
    assert "Ромашка" in message.text
    assert "12,00" in message.subject


async def test_version_that_is_not_published_can_be_tried(operator, database):
    template = await template_id_of(database)
    added = (await operator.post(f"/templates/{template}/versions", json={"text": "Новая {{ amount|money }}"})).json()["version"]

    newest = await operator.post(f"/templates/{template}/test-send", json={})
    first = await operator.post(f"/templates/{template}/test-send", json={"version": 1})

    assert (newest.json()["version"], first.json()["version"]) == (added, 1)
    assert [message.text.startswith("Новая") for message in await messages(database)] == [True, False]


async def test_template_that_was_tried_is_kept(operator, database):
    template = (await operator.post("/templates", json={"type": "payment.received", "channel": "sms", "locale": "de"})).json()["id"]
    await operator.post(f"/templates/{template}/versions", json={"text": "Danke"})

    tried = await operator.post(f"/templates/{template}/test-send", json={})
    again = await operator.post(f"/templates/{template}/test-send", json={})
    first, second = (await one(database, "SELECT used_at, updated_at FROM template WHERE id = :id", id=template))[:2]

    assert (tried.status_code, again.status_code) == (201, 201)
    assert first > second, "a test is no change of the template"
    assert (await operator.delete(f"/templates/{template}")).json()["code"] == "template_in_use"


async def test_test_is_in_the_history_and_not_in_the_cabinet_of_the_account(operator, as_subscriber, database):
    await an_account(database, "777")
    template = await template_id_of(database)

    sent = (await operator.post(f"/templates/{template}/test-send", json={"account": "777"})).json()["messages"][0]["id"]

    seen = (await operator.get(f"/messages/{sent}")).json()
    assert (seen["test"], seen["account"], seen["address"]) == (True, "777", OPERATOR)
    assert seen["history"]
    subscriber = await as_subscriber("777")
    assert (await subscriber.get("/me/messages")).json()["items"] == []
    assert (await subscriber.get(f"/me/messages/{sent}")).status_code == 404


async def test_test_of_made_up_data_belongs_to_nobody(operator, database):
    sent = (await operator.post(f"/templates/{await template_id_of(database)}/test-send", json={})).json()["messages"][0]["id"]

    seen = (await operator.get(f"/messages/{sent}")).json()
    explained = await operator.get(f"/messages/{sent}/explain")

    assert (seen["account"], seen["test"]) == (None, True)
    assert explained.status_code == 200


async def test_test_goes_past_preferences_hours_and_caps_and_counts_towards_none(operator, api, database):
    account = await an_account(database, "777")
    template = await template_id_of(database)
    off = await api.put("/accounts/777/preferences", json={"types": {"payment.received": {"enabled": False}}})
    assert off.status_code in (200, 201), off.text

    sent = await operator.post(f"/templates/{template}/test-send", json={"account": "777"})

    assert sent.status_code == 201
    assert await rows(database, "SELECT * FROM told WHERE account_id = :id", id=account.id) == []


async def test_changing_preferences_does_not_withdraw_a_test(operator, api, database):
    await an_account(database, "777")
    sent = (await operator.post(f"/templates/{await template_id_of(database)}/test-send", json={"account": "777"})).json()["messages"][0]["id"]

    await api.put("/accounts/777/preferences", json={"types": {"payment.received": {"enabled": False}}})

    assert (await operator.get(f"/messages/{sent}")).json()["state"] == "queued"


async def test_erasing_the_account_takes_the_words_of_its_tests_away(operator, api, database):
    await an_account(database, "777", name="Ромашка")
    await operator.post(f"/templates/{await template_id_of(database)}/test-send", json={"account": "777"})

    assert (await api.delete("/accounts/777")).status_code == 204

    (message,) = await rows(database, "SELECT text, address FROM message")
    assert (message.text, message.address) == ("", "")


async def test_key_without_contacts_can_test_nothing(as_role, database):
    client = await as_role("operator")

    refused = await client.post(f"/templates/{await template_id_of(database)}/test-send", json={})

    assert (refused.status_code, refused.json()["code"]) == (422, "no_test_contacts")
    assert await messages(database) == []


async def test_test_goes_to_a_contact_of_the_key_alone_whoever_is_named(operator, database):
    await an_account(database, "777")
    template = await template_id_of(database)

    stranger = await operator.post(f"/templates/{template}/test-send", json={"account": "777", "contact": PHONE})
    nonsense = await operator.post(f"/templates/{template}/test-send", json={"contact": "not a phone"})
    own = await operator.post(f"/templates/{template}/test-send", json={"contact": "+7 999 000 11 22"})

    assert (stranger.status_code, stranger.json()["errors"][0]["code"]) == (422, "not_a_test_contact")
    assert nonsense.status_code == 422
    assert own.status_code == 201
    assert [message.address for message in await messages(database)] == [OPERATOR]


async def test_key_sends_ten_tests_a_minute(operator, database):
    template = await template_id_of(database)

    answers = [(await operator.post(f"/templates/{template}/test-send", json={})) for _ in range(11)]

    assert [answer.status_code for answer in answers] == [201] * 10 + [429]
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert len(await messages(database)) == 10


async def test_each_message_counts_not_each_request(operator, api, database):
    many = [{"channel": "sms", "address": f"+799900011{n:02}"} for n in range(6)]
    await api.put(f"/keys/{key_of(operator)}/contacts", json={"contacts": many})
    template = await template_id_of(database)

    first, second = [await operator.post(f"/templates/{template}/test-send", json={}) for _ in range(2)]

    assert (first.status_code, len(first.json()["messages"]), second.status_code) == (201, 6, 429)
    assert len(await messages(database)) == 6


async def test_version_that_cannot_be_rendered_is_not_sent(operator, database):
    template = await template_id_of(database)
    await run(
        database,
        "INSERT INTO template_version (template_id, version, text, created_at, created_by) VALUES (:id, 7, '{{ nobody.knows }}', now(), 'test')",
        id=template,
    )

    refused = await operator.post(f"/templates/{template}/test-send", json={})

    assert (refused.status_code, refused.json()["code"]) == (422, "not_renderable")
    assert refused.json()["errors"][0]["pointer"] == "/text"
    assert await messages(database) == []


async def test_suppressed_address_gets_no_test(operator, api, database):
    await api.post("/suppressions", json={"channel": "sms", "address": OPERATOR, "reason": "operator"})

    refused = await operator.post(f"/templates/{await template_id_of(database)}/test-send", json={})

    assert (refused.status_code, refused.json()["code"]) == (409, "suppressed")
    assert await messages(database) == []


async def test_nothing_goes_past_a_stop(operator, api, database):
    stopped = await api.post("/stops", json={"scope": "all", "reason": "drill"})
    assert stopped.status_code in (200, 201), stopped.text

    refused = await operator.post(f"/templates/{await template_id_of(database)}/test-send", json={})

    assert (refused.status_code, refused.json()["code"]) == (409, "stopped")


async def test_without_a_gateway_the_operator_is_told_at_once(operator, database):
    await run(database, "UPDATE gateway SET enabled = false, revision = revision + 1 WHERE kind = 'smpp'")

    refused = await operator.post(f"/templates/{await template_id_of(database)}/test-send", json={})

    assert (refused.status_code, refused.json()["code"]) == (409, "no_gateway")


async def test_test_is_not_resent_but_sent_anew(operator, api, database):
    sent = (await operator.post(f"/templates/{await template_id_of(database)}/test-send", json={})).json()["messages"][0]["id"]
    await api.post(f"/messages/{sent}/cancel")

    refused = await api.post(f"/messages/{sent}/resend")

    assert (refused.status_code, refused.json()["code"]) == (409, "test_message")


async def test_links_of_a_test_refuse_nothing(operator, database):
    account = await an_account(database, "777", mails=("subscriber@example.org",))
    template = await template_id_of(database, "charges.upcoming", "email")
    await operator.post(f"/templates/{template}/versions", json={"subject": "s", "text": "{{ links.unsubscribe }}"})

    await operator.post(f"/templates/{template}/test-send", json={"account": account.number})

    (message,) = await messages(database)
    assert message.text.endswith("/unsubscribe/sample")


async def test_what_is_not_there_is_not_found(operator, database):
    template = await template_id_of(database)

    assert (await operator.post(f"/templates/{uuid4()}/test-send", json={})).status_code == 404
    assert (await operator.post(f"/templates/{template}/test-send", json={"version": 99})).status_code == 404
    assert (await operator.post(f"/templates/{template}/test-send", json={"account": "nobody"})).status_code == 422


async def test_testing_is_for_those_who_write_templates_and_is_audited(operator, as_role, database):
    template = await template_id_of(database)
    viewer = await as_role("viewer")

    refused = await viewer.post(f"/templates/{template}/test-send", json={})
    sent = await operator.post(f"/templates/{template}/test-send", json={})

    assert refused.status_code == 403
    record = await one(database, "SELECT actor, object, CAST(changes AS text) AS changes FROM audit_record WHERE action = 'template.test_send'")
    assert (record.actor, record.object) == (f"key:{key_of(operator)}", f"template:{template}")
    assert sent.json()["messages"][0]["id"] in record.changes
    assert OPERATOR not in record.changes


async def test_contacts_of_a_key_are_set_by_an_administrator_alone(api, as_role, settings, as_subscriber):
    operator = await as_role("operator")
    body = {"contacts": [{"channel": "sms", "address": OPERATOR}]}

    assert (await operator.put(f"/keys/{key_of(operator)}/contacts", json=body)).status_code == 403
    assert (await (await as_subscriber("777")).put(f"/keys/{key_of(operator)}/contacts", json=body)).status_code == 403
    assert cabinet_token(settings, "777")
    kept = await api.put(f"/keys/{key_of(operator)}/contacts", json=body)
    assert (kept.status_code, kept.json()["contacts"]) == (200, body["contacts"])


async def test_contacts_of_a_key_are_kept_in_one_form_once_and_without_a_trace_in_the_audit(api, as_role, database):
    key = key_of(await as_role("operator"))
    given = [{"channel": "sms", "address": written} for written in ("8 (999) 000-11-22", OPERATOR)]

    first = await api.put(f"/keys/{key}/contacts", json={"contacts": given})
    again = await api.put(f"/keys/{key}/contacts", json={"contacts": given})
    none = await api.put(f"/keys/{key}/contacts", json={"contacts": []})

    assert first.json()["contacts"] == again.json()["contacts"] == [{"channel": "sms", "address": OPERATOR}]
    assert none.json()["contacts"] == []
    records = await rows(database, "SELECT CAST(changes AS text) AS changes FROM audit_record WHERE action = 'key.contacts'")
    assert len(records) == 2
    assert not any("9990001122" in record.changes for record in records)


@pytest.mark.parametrize(
    ("contacts", "pointer"),
    [
        ([{"channel": "sms", "address": OPERATOR}, {"channel": "sms", "address": "x@example.org"}], "/contacts/1/address"),
        ([{"channel": "email", "address": "a@b\r\nBcc: c@d"}], "/contacts/0/address"),
        ([{"channel": "fax", "address": "1"}], "/contacts/0/channel"),
        ([{"channel": "sms", "address": f"+7999000{n:04}"} for n in range(11)], "/contacts"),
    ],
)
async def test_contacts_that_cannot_be_are_refused(api, as_role, contacts, pointer):
    key = key_of(await as_role("operator"))

    refused = await api.put(f"/keys/{key}/contacts", json={"contacts": contacts})

    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == pointer
    listed = next(item for item in (await api.get("/keys")).json()["items"] if item["id"] == key)
    assert listed["contacts"] == []


async def test_contacts_of_an_unknown_key_cannot_be_set(api):
    assert (await api.put("/keys/nobody00/contacts", json={"contacts": []})).status_code == 404


async def test_files_of_a_test_letter_with_made_up_data_are_specimens(operator, database):
    """As the station makes them when it goes out: there is no account to make them of."""
    template = await template_id_of(database, channel="email")
    version = {"subject": "s", "text": "t", "attachments": [{"kind": "statement_csv"}]}
    assert (await operator.post(f"/templates/{template}/versions", json=version)).status_code == 201
    await operator.post(f"/templates/{template}/test-send", json={})
    (claimed,) = await claim(database, gateway="post")

    letter = await Letters(database).letter(claimed, "MyISP <noreply@isp.example>").finish()

    assert [file.name.endswith(".csv") for file in letter.files] == [True]


async def test_letter_of_a_test_offers_no_real_refusal(operator, database, api):
    """The header of a letter names the message; of a test it leads nowhere, for it has no contact."""
    sent = (await operator.post(f"/templates/{await template_id_of(database, channel='email')}/test-send", json={})).json()["messages"][0]["id"]

    assert await rows(database, "SELECT 1 FROM message WHERE id = :id AND contact_id IS NOT NULL", id=UUID(sent)) == []


async def test_payment_code_that_nobody_is_paid_by_is_refused_at_once(api, operator, database):
    template = await template_id_of(database, "balance.exhausting", "email")
    letter = {"subject": "S", "html": '<p>Pay <img src="cid:payment-qr.png" alt="code"></p>', "attachments": [{"kind": "payment_qr"}]}
    assert (await operator.post(f"/templates/{template}/versions", json=letter)).status_code == 201

    refused = await operator.post(f"/templates/{template}/test-send", json={})

    assert (refused.status_code, refused.json()["code"]) == (422, "not_renderable")
    assert [(fault["pointer"], fault["code"]) for fault in refused.json()["errors"]] == [("/attachments", "no_payee")]
    assert await messages(database) == []
