"""The words of a message: which template, in which language, with which variables."""

from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from uuid import UUID

import pytest
import sqlalchemy as sa

from app.core.ids import new_id
from app.rendering.compose import NoTemplate, RenderFailed, Templates, Version, variables
from app.rendering.models import Template, TemplateVersion

NOBODY = UUID(int=0)


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
