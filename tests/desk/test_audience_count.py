import asyncio
from uuid import uuid4

import orjson
import pytest
import sqlalchemy as sa

from app.accounts.models import Preference
from app.accounts.preferences import read, refusal
from app.catalogue.models import NotificationType
from app.catalogue.registry import rules_of
from tests.builders.accounts import a_contact, an_account
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import one, rows, run
from tests.builders.types import set_type

PAYMENT = "payment.received"


async def template_id_of(database, kind=PAYMENT, channel="sms", locale="ru"):
    found = await one(
        database, "SELECT id FROM template WHERE type = :kind AND channel = :channel AND locale = :locale", kind=kind, channel=channel, locale=locale
    )
    return found.id


async def counted(api, database, body=None, **which):
    answer = await api.post(f"/templates/{await template_id_of(database, **which)}/audience", json=body or {})
    assert answer.status_code == 200, answer.text
    return answer.json()


def notes(answer):
    return {note["code"] for note in answer["notes"]}


async def people(database, count, **fields):
    for n in range(count):
        await an_account(database, f"n{n:03}", phones=(f"+7916000{n:04}",), **fields)


async def test_operator_learns_how_many_would_be_told_and_what_it_would_cost(api, database):
    await an_smpp_gateway(database, price_per_part="2.50")
    await people(database, 3)

    seen = await counted(api, database)

    assert (seen["accounts"], seen["messages"], seen["accounts_in_other_words"]) == (3, 3, 0)
    assert (seen["parts"], seen["cost"]) == (3, "7.50")
    assert seen["sample"] == {"accounts": 3, "messages": 3, "failed": 0, "unpriced": 0}
    assert notes(seen) == {"preferences_of_now", "own_event", "example_data"}
    assert all(note["detail"] != note["detail_ru"] for note in seen["notes"])


async def test_each_contact_is_a_message(api, database):
    await an_account(database, "1", phones=("+79160000001", "+79160000002"), mails=("a@example.org",))

    sms, email = await counted(api, database), await counted(api, database, channel="email")

    assert (sms["accounts"], sms["messages"]) == (1, 2)
    assert (email["accounts"], email["messages"], email["parts"], email["cost"]) == (1, 1, None, None)


async def test_what_has_no_price_is_not_called_free(api, database):
    await people(database, 2)

    seen = await counted(api, database)

    assert (seen["parts"], seen["cost"], seen["sample"]["unpriced"]) == (2, None, 2)
    assert "no_price" in notes(seen)


async def test_who_is_told_in_another_language_is_counted_apart(api, database):
    await an_account(database, "1", phones=("+79160000001",))
    await an_account(database, "2", phones=("+79160000002",), locale="en")
    await an_account(database, "3", phones=("+79160000003",), locale="en-GB")
    await an_account(database, "4", phones=("+79160000004",), locale="kk")
    chooser = await an_account(database, "5", phones=("+79160000005",))
    await prefers(database, chooser, {"locale": "en"})

    russian, english = await counted(api, database), await counted(api, database, locale="en")

    assert (russian["accounts"], russian["accounts_in_other_words"]) == (2, 3)  # who speaks Kazakh is written to in the operator's own language
    assert (english["accounts"], english["accounts_in_other_words"]) == (3, 2)


async def test_nobody_is_counted_who_is_not_told(api, database):
    await an_account(database, "told", phones=("+79160000001",))
    await an_account(database, "closed", phones=("+79160000002",), status="closed")
    await an_account(database, "no phone", phones=(), mails=("a@example.org",))
    await an_account(database, "stopped", phones=("+79160000003",))
    await an_account(database, "stopped once", phones=("+79160000004",))
    unproved = await an_account(database, "unproved", phones=())
    async with database.transaction() as session:
        session.add(a_contact(unproved, "sms", "+79160000005", origin="subscriber"))
    for address, until in (("+79160000003", "NULL"), ("+79160000004", "now() - interval '1 day'")):
        await run(
            database,
            f"INSERT INTO suppression (channel, address, reason, detail, by, at, until) VALUES ('sms', :address, 'stop_word', '', 'x', now(), {until})",
            address=address,
        )

    seen = await counted(api, database)

    assert (seen["accounts"], seen["messages"]) == (2, 2)


async def test_mandatory_type_reaches_whoever_can_be_reached(api, database):
    await set_type(database, PAYMENT, mandatory=True)
    closed = await an_account(database, "closed", phones=("+79160000002",), status="closed")
    await prefers(database, closed, {"types": {PAYMENT: {"enabled": False}}})
    await an_account(database, "stopped", phones=("+79160000003",))
    await an_account(database, "dead", phones=("+79160000004",))
    for address, reason in (("+79160000003", "stop_word"), ("+79160000004", "invalid_address")):
        await run(
            database,
            "INSERT INTO suppression (channel, address, reason, detail, by, at) VALUES ('sms', :address, :reason, '', 'x', now())",
            address=address,
            reason=reason,
        )

    assert (await counted(api, database))["accounts"] == 2


async def prefers(database, account, document):
    async with database.transaction() as session:
        session.add(Preference(account_id=account.id, document=document, updated_by="x"))


CHOICES = [
    {},
    {"types": {PAYMENT: {"enabled": False}}},
    {"types": {PAYMENT: {"enabled": True}}},
    {"types": {PAYMENT: {"channels": {"sms": False}}}},
    {"types": {PAYMENT: {"channels": {"sms": True}}}},
    {"types": {PAYMENT: {"channels": {"email": False}}}},
    {"types": {PAYMENT: {"enabled": False, "channels": {"sms": True}}}},
    {"types": {"tariff.changed": {"enabled": False}}},
    {"contacts": {"self": {"enabled": False}}},
    {"contacts": {"self": {"types": {PAYMENT: False}}}},
    {"contacts": {"self": {"types": {PAYMENT: True}}}},
    {"contacts": {"other": {"enabled": False}}},
    {"contacts": {"self": {"types": {PAYMENT: True}}}, "types": {PAYMENT: {"enabled": False}}},
    {"contacts": {"self": {"enabled": False, "types": {PAYMENT: True}}}},
]


@pytest.mark.parametrize("settings_of_type", [{}, {"opt_in": True}, {"default_channels": ["email"]}, {"default_channels": ["email"], "opt_in": True}], ids=str)
@pytest.mark.parametrize("mandatory", [False, True])
async def test_count_goes_by_the_rule_of_planning_in_every_line(api, database, settings_of_type, mandatory):
    await set_type(database, PAYMENT, mandatory=mandatory, settings=settings_of_type)
    async with database.transaction() as session:
        rules = rules_of(await session.get_one(NotificationType, PAYMENT))
    expected = 0
    nobody = await an_account(database, "without", phones=("+79169999999",))
    contact = (await one(database, "SELECT id FROM contact WHERE account_id = :id", id=nobody.id)).id
    expected += refusal(rules, "sms", contact, read(None)) is None
    for n, choice in enumerate(CHOICES):
        account = await an_account(database, f"n{n}", phones=(f"+7916000{n:04}",))
        own = (await one(database, "SELECT id FROM contact WHERE account_id = :id", id=account.id)).id
        contacts = {str(own) if name == "self" else str(uuid4()): said for name, said in choice.get("contacts", {}).items()}
        document = choice | ({"contacts": contacts} if contacts else {})
        await prefers(database, account, document)
        expected += refusal(rules, "sms", own, read(orjson.dumps(document).decode())) is None

    seen = await counted(api, database)

    assert rules.mandatory is mandatory
    assert seen["accounts"] == expected


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        ({"status": "suspended"}, 1),
        ({"tariff": "Home 100"}, 1),
        ({"locale": "ru"}, 4),
        ({"attribute": {"name": "segment", "value": "home"}}, 1),
        ({"attribute": {"name": "vip", "value": True}}, 1),
        ({"attribute": {"name": "vip", "value": 1}}, 0),
        ({"attribute": {"name": "segment", "value": "' OR true --"}}, 0),
        ({"status": "active", "tariff": "Home 100", "locale": "ru"}, 1),
        ({"status": "suspended", "tariff": "Home 100"}, 0),
        ({}, 4),
    ],
)
async def test_filter_narrows_whom_to_count(api, database, wanted, number):
    await an_account(database, "1", phones=("+79160000001",), status="suspended")
    await an_account(database, "2", phones=("+79160000002",), tariff="Home 100")
    await an_account(database, "3", phones=("+79160000003",), attributes={"segment": "home", "vip": True})
    await an_account(database, "4", phones=("+79160000004",), attributes={"segment": "office"})

    assert (await counted(api, database, {"filter": wanted}))["accounts"] == number


async def test_parts_and_cost_of_many_are_scaled_up_from_200_of_them(api, database):
    await an_smpp_gateway(database, price_per_part="2.00")
    await run(
        database,
        "INSERT INTO account (id, number, name, status, balance, credit_limit, currency, locale, timezone, tariff, attributes, created_at, updated_at)"
        " SELECT gen_random_uuid(), 'n' || n, '', 'active', 1, 0, 'RUB', 'ru', 'Europe/Moscow', '', '{}', now(), now() FROM generate_series(1, 3000) n",
    )
    await run(
        database,
        "INSERT INTO contact (id, account_id, channel, address, label, origin, created_at)"
        " SELECT gen_random_uuid(), id, 'sms', '+7916' || lpad(substr(number, 2), 7, '0'), '', 'billing', now() FROM account",
    )

    first, again = await counted(api, database), await counted(api, database)

    assert (first["accounts"], first["messages"], first["parts"], first["cost"]) == (3000, 3000, 3000, "6000.00")
    assert first["sample"]["accounts"] == 200
    assert "scaled_up" in notes(first)
    assert again == first


async def test_longer_names_cost_more_in_the_sample(api, database):
    await an_smpp_gateway(database, price_per_part="1.00")
    await an_account(database, "1", phones=("+79160000001",), name="Я")
    await an_account(database, "2", phones=("+79160000002",), name="Я" * 100)
    template = await template_id_of(database)
    await api.post(f"/templates/{template}/versions", json={"text": "{{ account.name }}: {{ amount|money }}"})

    seen = await counted(api, database)

    assert (seen["version"], seen["parts"], seen["cost"]) == (2, 3, "3.00")


async def test_version_that_fails_for_some_says_so(api, database):
    await an_account(database, "1", phones=("+79160000001",), attributes={"city": "Тверь"})
    await an_account(database, "2", phones=("+79160000002",))
    template = await template_id_of(database)
    await run(
        database,
        "INSERT INTO template_version (template_id, version, text, created_at, created_by) VALUES (:id, 9, '{{ account.attributes.city }}', now(), 'test')",
        id=template,
    )

    seen = await counted(api, database)

    assert (seen["version"], seen["sample"]["failed"], seen["parts"]) == (9, 1, 2)
    assert "render_failed" in notes(seen)


async def test_bomb_in_a_version_costs_the_count_its_estimate_and_nothing_else(api, database):
    await people(database, 30)
    template = await template_id_of(database)
    loops = "{% for a in range(220) %}{% for b in range(220) %}{% if a == b and a == 300 %}x{% endif %}{% endfor %}{% endfor %}y"
    await run(
        database,
        "INSERT INTO template_version (template_id, version, text, created_at, created_by) VALUES (:id, 9, :text, now(), 'test')",
        id=template,
        text=loops * 7,
    )

    seen = await counted(api, database)

    assert (seen["accounts"], seen["sample"]["failed"], seen["parts"], seen["cost"]) == (30, 30, None, None)


async def test_numbers_that_mislead_are_explained(api, database):
    await people(database, 1)
    await set_type(database, PAYMENT, enabled=False, channels=["email"], settings={"delivery": "first"})

    seen = await counted(api, database)

    assert notes(seen) >= {"type_disabled", "not_its_channel", "one_channel_after_another"}


async def test_nobody_there_is_no_fault(api, database):
    seen = await counted(api, database)

    assert (seen["accounts"], seen["messages"], seen["parts"], seen["cost"]) == (0, 0, None, None)


async def test_count_that_takes_too_long_is_given_up(api, database, monkeypatch):
    await people(database, 1)
    monkeypatch.setattr("app.desk.audience_count.PATIENCE", "100ms")
    template = await template_id_of(database)
    async with database.transaction() as session:
        await session.execute(sa.text("LOCK TABLE contact IN ACCESS EXCLUSIVE MODE"))
        refused = await asyncio.wait_for(api.post(f"/templates/{template}/audience", json={}), 30)

    assert (refused.status_code, refused.json()["code"]) == (503, "audience_too_slow")
    assert (await counted(api, database))["accounts"] == 1


async def test_counts_are_few_a_minute(api, database):
    template = await template_id_of(database)

    answers = [(await api.post(f"/templates/{template}/audience", json={})).status_code for _ in range(4)]

    assert answers == [200, 200, 200, 429]


@pytest.mark.parametrize(
    "body", [{"filter": {"status": "erased"}}, {"filter": {"attribute": {"name": "a"}}}, {"filter": {"zone": "x"}}, {"version": 0}, {"who": 1}]
)
async def test_filter_that_makes_no_sense_is_refused(api, database, body):
    assert (await api.post(f"/templates/{await template_id_of(database)}/audience", json=body)).status_code == 422


async def test_counting_sends_nothing_and_is_for_those_who_read_templates(api, as_role, database):
    await people(database, 1)
    billing = await as_role("billing")

    await counted(api, database)

    assert await rows(database, "SELECT 1 FROM message") == []
    assert (await billing.post(f"/templates/{await template_id_of(database)}/audience", json={})).status_code == 403
    assert (await api.post(f"/templates/{uuid4()}/audience", json={})).status_code == 404
