"""The words of a message: which template, in which language, with which variables; and the words that come with the service."""

from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from types import SimpleNamespace
from uuid import UUID

import pytest
import sqlalchemy as sa

from app.catalogue.types import sample_of
from app.core.ids import new_id
from app.rendering.compose import NoTemplate, RenderFailed, Templates, Version, variables
from app.rendering.defaults import seed, templates
from app.rendering.models import Template, TemplateVersion
from app.rendering.proof import unpublishable

DEFAULTS = list(templates())
SMS = [words for words in DEFAULTS if words["channel"] == "sms"]
EMAIL = [words for words in DEFAULTS if words["channel"] == "email"]
NOBODY = UUID(int=0)


def version(words: dict) -> Version:
    return Version(NOBODY, 1, words["channel"], words["locale"], words["subject"], words["text"], words["html"])


def name(words: dict) -> str:
    return f"{words['type']}-{words['channel']}-{words['locale']}"


def test_there_are_words_for_every_type_channel_and_language():
    assert len({(words["type"], words["channel"], words["locale"]) for words in DEFAULTS}) == 9 * 2 * 2


@pytest.mark.parametrize("words", DEFAULTS, ids=name)
def test_every_default_may_be_published(words):
    stored = TemplateVersion(template_id=NOBODY, version=1, created_by="test", **{part: words[part] for part in ("subject", "text", "html")})

    assert unpublishable(words["type"], None, words["channel"], words["locale"], stored) == []


EXTREMES = {
    "balance": [None, "-999999.99", "999999.99"],
    "amount": ["0.01", "999999.99"],
    "price": [None, "999999.99"],
    "total": ["999999.99"],
    "threshold": ["999999.99"],
    "recommended_payment": ["999999.99"],
    "days_left": [0, 1, 2, 30, 365],
    "effective_on": [None, "2026-12-31"],
}
NAMES = {"ru": ["Домашний интернет 1000", "Безлимит " * 20], "en": ["Home Internet 1000", "Unlimited " * 20]}


@pytest.mark.parametrize("words", SMS, ids=name)
def test_an_sms_fits_one_part_with_the_longest_ordinary_values(values, words):
    sample, needed = sample_of(words["type"]), sample_of(words["type"], complete=False)
    longest = EXTREMES | {"new_tariff": NAMES[words["locale"]], "service": [{"code": "x", "name": title} for title in NAMES[words["locale"]]]}
    keys = [key for key in longest if key in sample]

    for chosen in product(*(longest[key] for key in keys)):
        data = {key: value for key, value in (sample | dict(zip(keys, chosen, strict=True))).items() if value is not None or key in needed}
        data = {key: needed[key] if value is None else value for key, value in data.items()}
        balance = Decimal(data.get("balance", "-999999.99"))
        composed = version(words).compose(values(words["type"], data, number="1234567890123", balance=balance, name="Юлия " * 20))

        assert (composed.encoding, composed.parts) == ("UCS2" if words["locale"] == "ru" else "GSM7", 1), composed.text


@pytest.mark.parametrize("words", [words for words in SMS if words["locale"] == "en"], ids=name)
def test_an_english_sms_of_latin_names_stays_in_the_gsm_alphabet(values, words):
    composed = version(words).compose(values(words["type"], sample_of(words["type"]), name="Юлия"))

    assert (composed.encoding, composed.parts) == ("GSM7", 1)


def test_a_payment_is_told_in_these_words(values):
    told = {
        words["locale"]: version(words).compose(values("payment.received", {"amount": "500.00", "balance": "1612.30"})).text
        for words in SMS
        if words["type"] == "payment.received"
    }

    assert told == {
        "ru": "Счёт 100500: +500,00 руб. Баланс 1 612,30 руб.",
        "en": "Account 100500: payment of RUB 500.00 received. Balance: RUB 1,612.30. Thank you!",
    }


@pytest.mark.parametrize("words", EMAIL, ids=name)
def test_an_email_escapes_names_in_html_alone_and_links_to_the_cabinet(values, words):
    composed = version(words).compose(values(words["type"], sample_of(words["type"]), name="<b>Рога & Ко</b>"))

    assert composed.subject
    assert composed.html is not None
    is_for_strangers = words["type"] == "contact.verification"  # who reads it is not known yet: it calls nobody by name
    assert ("<b>Рога & Ко</b>" in composed.text) is not is_for_strangers
    assert "<b>Рога" not in composed.html
    assert ("&lt;b&gt;Рога &amp; Ко" in composed.html) is not is_for_strangers
    assert "https://isp.example/cabinet" in composed.text
    assert 'href="https://isp.example/cabinet"' in composed.html
    assert "@" not in composed.html, "every place of the layout was filled"
    assert "http" not in composed.html.replace("https://isp.example/cabinet", ""), "nothing is loaded from elsewhere"


def test_data_never_hide_the_account(values):
    made = values("promo.offer", {"account": "evil", "now": "evil", "links": "evil", "_zone": "evil", "amount": "5"})

    assert made["account"]["number"] == "100500"
    assert made["data"]["account"] == "evil"
    assert made["now"].hour == 12, "07:00 UTC on the account's clock"


def test_attributes_may_come_unread():
    account = SimpleNamespace(
        number="1",
        name="",
        balance=Decimal(0),
        credit_limit=Decimal(0),
        currency="RUB",
        tariff="",
        threshold=None,
        status="active",
        timezone="Mars/Olympus",
        attributes_json='{"a": 1}',
    )
    now = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)

    made = variables(account, SimpleNamespace(address="a", label=""), "payment.received", now, {"amount": "1.00"}, now, {})

    assert made["account"]["attributes"] == {"a": 1}
    assert made["now"] == now
    assert made["links"] == {"cabinet": "", "unsubscribe": ""}


def test_an_empty_text_is_not_sent(values):
    with pytest.raises(RenderFailed, match="empty"):
        Version(NOBODY, 1, "sms", "ru", None, "{% if method %}x{% endif %}", None).compose(values())


async def add(session, code: str, channel: str, locale: str, text: str, properties: dict | None = None) -> UUID:
    template_id = new_id()
    session.add(Template(id=template_id, name="x", type=code, channel=channel, locale=locale, published_version=1))
    await session.flush()
    session.add(TemplateVersion(template_id=template_id, version=1, subject="s", text=text, created_by="test"))
    await session.flush()
    return template_id


@pytest.mark.parametrize(
    ("locale", "found"),
    [("ru-RU", "ru"), ("ru", "ru"), ("en_GB", "en"), ("en-GB-oxendict", "en"), ("kk", "ru"), ("", "ru"), ("zh-Hans-CN", "zh-Hans"), ("zh-Hant", "ru")],
)
async def test_the_nearest_language_is_taken(database, values, locale, found):
    known = Templates("ru")
    async with database.transaction() as session:
        await add(session, "payment.received", "sms", "zh-Hans", "钱 {{ amount }}")
        await known.refresh(session)

    assert known.compose("payment.received", "sms", locale, values()).locale == found


async def test_any_language_is_better_than_none(database, values):
    known = Templates("kk")
    async with database.transaction() as session:
        await session.execute(sa.update(Template).where(Template.locale == "ru").values(published_version=None, revision=2))
        await known.refresh(session)

    assert known.compose("payment.received", "sms", "ru", values()).locale == "en"
    with pytest.raises(NoTemplate):
        known.compose("promo.offer", "sms", "ru", values())


async def test_what_is_published_meanwhile_is_used_and_the_rest_stays_compiled(database, values):
    known = Templates("ru")
    async with database.transaction() as session:
        await known.refresh(session)
        before = known._nearest(("payment.received", "sms", "en"))
        row = (
            await session.execute(sa.select(Template).where(Template.type == "payment.received", Template.channel == "sms", Template.locale == "ru"))
        ).scalar_one()
        session.add(TemplateVersion(template_id=row.id, version=2, text="Пришло {{ amount|money }}", created_by="test"))
        row.published_version, row.revision = 2, row.revision + 1

    async with database.transaction() as session:
        await known.refresh(session)

    composed = known.compose("payment.received", "sms", "ru", values())
    assert (composed.template_id, composed.version, composed.text) == (row.id, 2, "Пришло 500,00 руб.")
    assert known._nearest(("payment.received", "sms", "en")) is before


async def test_a_property_of_an_operators_schema_may_be_absent(database, values):
    known = Templates("ru")
    async with database.transaction() as session:
        await session.execute(
            sa.text(
                "INSERT INTO notification_type SELECT (jsonb_populate_record(t, :changes)).* FROM notification_type t WHERE code = 'payment.received'"
            ).bindparams(
                sa.bindparam("changes", {"code": "promo.offer", "data_schema": {"properties": {"gift": {}, "code": {}}}}, sa.dialects.postgresql.JSONB)
            )
        )
        await add(session, "promo.offer", "sms", "ru", "{{ code }}{% if gift %} и {{ gift }}{% endif %}{{ data.gift }}")
        await known.refresh(session)

    assert known.compose("promo.offer", "sms", "ru", values("promo.offer", {"code": "A1"})).text == "A1"


async def test_seeding_again_leaves_the_operators_words(database):
    async with database.transaction() as session:
        await session.execute(sa.update(Template).values(name="Моё", published_version=None))
        await seed(session)

    async with database.transaction() as session:
        rows = (await session.execute(sa.select(Template.name, Template.published_version))).all()
        versions = await session.scalar(sa.select(sa.func.count()).select_from(TemplateVersion))
    assert {tuple(row) for row in rows} == {("Моё", None)}
    assert (len(rows), versions) == (36, 36)
