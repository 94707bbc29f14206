"""What an SMS costs, and what its version promises about that."""

from decimal import Decimal
from types import SimpleNamespace
from uuid import UUID

import pytest
import sqlalchemy as sa

from app.core.ids import new_id
from app.gateways.router import Road
from app.notifications.rows import cut_for, recut_for
from app.rendering.compose import RenderFailed, Templates, Version
from app.rendering.models import Template, TemplateVersion
from app.rendering.problem_words import russian
from app.rendering.proof import proved, unpublishable
from app.rendering.sms_words import analyse, cost_of, worst_case
from app.sms.cutting import Cutting

NOBODY = UUID(int=0)
PAYMENT = "Счёт {{ account.number }}: платёж {{ amount|money }} получен."
REGISTERED = "Счёт %w: платёж %* получен."


def version(text: str, *, locale: str = "ru", properties: tuple[str, ...] = (), **options: object) -> Version:
    return Version(NOBODY, 1, "sms", locale, None, text, None, properties, options)


def stored(text: str, **options: object) -> TemplateVersion:
    return TemplateVersion(template_id=NOBODY, version=1, text=text, options=options, created_by="test")


def codes(found: list) -> list[str]:
    return [fault.code for fault in found]


def test_message_is_written_as_its_version_wants(values):
    text = "«Счёт» — {{ account.number }}: +{{ amount|money }}"

    assert version(text).compose(values()).text == "«Счёт» — 100500: +500,00 руб."
    assert version(text, typography=True).compose(values()).text == '"Счёт" - 100500: +500,00 руб.'
    told = version(text, typography=True, translit="always").compose(values())
    assert (told.text, told.encoding, told.parts) == ('"Schyot" - 100500: +500,00 rub.', "GSM7", 1)


def test_parts_are_those_of_the_text_that_is_sent(values):
    text = "Счёт {{ account.number }}. " + "Пополните его, чтобы услуги не прервались. " * 3

    assert (version(text).compose(values()).parts, version(text, translit="always").compose(values()).parts) == (3, 1)


def test_name_with_typography_in_it_is_written_plainly_too(values):
    told = version("{{ account.name }}: ok", locale="en", typography=True).compose(values(name="O’Neil “Ltd”…"))

    assert (told.text, told.encoding) == ('O\'Neil "Ltd"...: ok', "GSM7")


def test_text_of_which_nothing_is_left_is_not_sent(values):
    with pytest.raises(RenderFailed, match="empty"):
        version("{{ account.name }}", typography=True).compose(values(name="\u200b\u00ad\u200b"))


def test_latin_letters_cannot_make_a_text_endless(values):
    with pytest.raises(RenderFailed, match="2,000"):
        version("{{ account.name }}", translit="always").compose(values(name="щ" * 1000))


def test_letter_knows_no_options(values):
    letter = Version(NOBODY, 1, "email", "ru", "«Счёт»", "«Счёт»", None, (), {"typography": True})

    assert letter.compose(values()).text == "«Счёт»"


def test_gateway_that_transliterates_gets_what_is_written_already(values):
    road = Road("main", "smpp", cutting=Cutting(transliteration="ascii"))
    words = version("Счёт №{{ account.number }}: «ежедневная» плата 5 ₽", typography=True, translit="always").compose(values())

    assert cut_for(road, words) == recut_for(road, words) == words
    assert "".join(road.cutting.cut(words.text).parts) == words.text


async def test_published_version_is_sent_with_its_options(database, values):
    known, template_id = Templates("ru"), new_id()
    async with database.transaction() as session:
        session.add(Template(id=template_id, name="x", type="payment.received", channel="sms", locale="kk", published_version=1))
        await session.flush()
        session.add(TemplateVersion(template_id=template_id, version=1, text="«Төлем» {{ amount }}", options={"typography": True}, created_by="test"))
        session.add(TemplateVersion(template_id=template_id, version=2, text="«Төлем» {{ amount }}", created_by="test"))
        await session.flush()
        await known.refresh(session)
    assert known.compose("payment.received", "sms", "kk", values()).text == '"Төлем" 500.00'

    async with database.transaction() as session:
        await session.execute(sa.update(Template).where(Template.id == template_id).values(published_version=2, revision=2))
        await known.refresh(session)

    assert known.compose("payment.received", "sms", "kk", values()).text == "«Төлем» 500.00"


def test_analysis_and_price_are_those_of_the_road():
    text = "Счёт 100500: платёж 500,00 руб. получен. Баланс 1 612,30 руб. Спасибо, что остаётесь с нами!"
    road = Road("main", "smpp", price=Decimal("2.35"), cutting=Cutting(transliteration="ascii"))

    assert (analyse(text)["segments"], analyse(text, road)["segments"]) == (2, 1)
    assert analyse(text, Road("plain", "smpp")) == analyse(text)
    assert cost_of(3, road) == Decimal("7.05")
    assert cost_of(3, Road("free", "smpp")) is None
    assert cost_of(3, None) is None


def test_worst_case_has_the_longest_of_everything():
    worst = worst_case(version("{{ account.number }} {{ account.name }} {{ amount|money }} {{ account.tariff }}"), "payment.received")

    assert "12345678901234567890" in worst.text
    assert "999 999 999 999,99 руб." in worst.text
    assert len(worst.text) == 20 + 60 + len("999 999 999 999,99 руб.") + 60 + 3
    assert (worst.encoding, worst.segments) == ("UCS2", 3)


def test_worst_case_of_plain_latin_words_is_a_name_in_cyrillic():
    worst = worst_case(version("Hello {{ account.name }}, thank you for {{ amount|money }} of today!", locale="en"), "payment.received")

    assert (worst.encoding, worst.segments) == ("UCS2", 2)
    assert worst_case(version("{{ account.name }}", translit="always"), "payment.received").encoding == "GSM7"


@pytest.mark.parametrize(
    "text",
    [
        "{% if method is defined %}x{% else %}" + "я" * 300 + "{% endif %}",  # longest where the data are least
        "{% if count > 1 %}" + "я" * 300 + "{% else %}x{% endif %}",  # and where several events are told
        "{% for one in events %}{{ one.amount|money }}, и ещё {% endfor %}",
    ],
)
def test_worst_case_looks_into_every_branch(text):
    assert worst_case(version(text), "payment.received").segments >= 4


def test_worst_case_is_counted_on_its_road():
    road = SimpleNamespace(cutting=Cutting(transliteration="ascii"), price=None)

    assert worst_case(version("{{ account.name }}"), "payment.received", road=road).encoding == "GSM7"


def test_worst_case_of_an_operators_type_follows_its_schema():
    schema = {"type": "object", "properties": {"gift": {"type": "string", "maxLength": 40}}}

    assert len(worst_case(version("{{ gift }}", properties=("gift",)), "promo.offer", schema).text) == 40


def test_version_within_its_parts_is_published():
    proof = proved("payment.received", None, "sms", "ru", stored(PAYMENT, max_parts=2, registered=REGISTERED))

    assert (proof.faults, codes(proof.warnings)) == ([], [])


def test_version_of_too_many_parts_is_not():
    (fault,) = unpublishable("payment.received", None, "sms", "ru", stored(PAYMENT + " я" * 25, max_parts=1))

    assert (fault.pointer, fault.code) == ("/text", "too_many_parts")
    assert fault.detail == "the text takes 2 parts, and `max_parts` allows 1"
    assert russian(fault.detail) == "текст занимает частей: 2, а `max_parts` допускает 1"


def test_latin_letters_bring_it_back_under_the_limit():
    assert unpublishable("payment.received", None, "sms", "ru", stored(PAYMENT + " я" * 25, max_parts=1, translit="always")) == []


@pytest.mark.parametrize(
    ("text", "when", "when_ru"),
    [
        ("Привет, {{ account.name }}, " + PAYMENT, "when the values are the longest plausible ones", "когда значения самые длинные из возможных"),
        (
            "{% if balance is defined %}ok{% else %}" + "я" * 90 + "{% endif %}",
            "when the data have only what this type requires",
            "когда в данных только то, что для этого типа обязательно",
        ),
        (
            "{% if count > 1 %}" + "я" * 90 + "{% else %}ok{% endif %}",
            "when one message tells several events (`count`)",
            "когда одно сообщение говорит о нескольких событиях (`count`)",
        ),
    ],
)
def test_version_that_may_become_too_long_is_published_with_a_warning(text, when, when_ru):
    proof = proved("payment.received", None, "sms", "ru", stored(text, max_parts=1))
    (warning,) = [warning for warning in proof.warnings if warning.code == "too_many_parts"]

    assert proof.faults == []
    assert warning.detail.endswith(f", and `max_parts` allows 1 {when}")
    assert warning.as_json()["detail_ru"].endswith(f", а `max_parts` допускает 1, {when_ru}")


def test_version_that_is_not_as_registered_is_not_published():
    (fault,) = unpublishable("payment.received", None, "sms", "ru", stored("Ваш " + PAYMENT, registered=REGISTERED))

    assert (fault.code, fault.detail) == (
        "not_as_registered",
        "the text is another than the registered one from character 1 on: `Ваш Счёт 100500: платёж 500,00`",
    )
    assert russian(fault.detail).startswith("текст расходится с зарегистрированным, начиная со знака 1: `Ваш")


def test_registered_text_is_compared_with_what_is_sent():
    text = "Schyot %w: platyozh %* poluchen."

    assert unpublishable("payment.received", None, "sms", "ru", stored(PAYMENT, registered=text, translit="always")) == []
    assert codes(unpublishable("payment.received", None, "sms", "ru", stored(PAYMENT, registered=text))) == ["not_as_registered"]


def test_version_that_may_leave_the_registered_text_is_published_with_a_warning():
    text = PAYMENT + "{% if method is not defined %} Спасибо{% endif %}"
    proof = proved("payment.received", None, "sms", "ru", stored(text, registered=REGISTERED))

    assert (proof.faults, codes(proof.warnings)) == ([], ["not_as_registered"])
    assert "from character" in proof.warnings[0].detail
    assert proof.warnings[0].detail.endswith("when the data have only what this type requires")


def test_longest_values_that_cannot_be_written_are_a_warning():
    text = "{% for one in charges %}{{ one.title }} {{ one.title }} {{ one.title }} {{ one.title }};{% endfor %}"
    proof = proved("charges.upcoming", None, "sms", "ru", stored(text, max_parts=10))

    assert (proof.faults, codes(proof.warnings)) == ([], ["worst_case_failed"])
    assert proof.warnings[0].as_json()["detail_ru"] == "В тексте было бы больше 2,000 знаков., когда значения самые длинные из возможных"


def test_type_that_nobody_has_described_is_measured_by_sums():
    proof = proved("promo.offer", None, "sms", "ru", stored("Подарок {{ gift|money }} " + "я" * 45, max_parts=1))

    assert (proof.faults, codes(proof.warnings)) == ([], ["too_many_parts"])


def test_both_faults_are_told_at_once_and_not_again_as_warnings():
    proof = proved("payment.received", None, "sms", "ru", stored("x" * 200, max_parts=1, registered="y"))

    assert codes(proof.faults) == ["too_many_parts", "not_as_registered"]
    assert proof.warnings == []


async def test_operator_publishes_only_what_keeps_its_promise(api):
    template = (await api.post("/templates", json={"type": "payment.received", "channel": "sms", "locale": "de"})).json()["id"]
    text = "Danke für {{ amount|money }}, Konto {{ account.number }}, wir freuen uns über Ihre Zahlung – bis bald!"
    for options in ({"max_parts": 1}, {"max_parts": 1, "typography": True}, {"registered": "Danke %*, Konto %d.", "typography": True}, {"max_parts": 0}):
        answer = await api.post(f"/templates/{template}/versions", json={"text": text, "options": options})
        assert answer.status_code == (422 if options.get("max_parts") == 0 else 201), answer.text

    refused, taken, other = [await api.post(f"/templates/{template}/versions/{number}/publish") for number in (1, 2, 3)]

    assert (refused.status_code, [error["code"] for error in refused.json()["errors"]]) == (422, ["too_many_parts"])
    assert (taken.status_code, taken.json()["published_version"]) == (200, 2)
    assert (other.status_code, [error["code"] for error in other.json()["errors"]]) == (422, ["not_as_registered"])
    kept = (await api.get(f"/templates/{template}/versions")).json()["items"][1]
    assert kept["options"] == {"typography": True, "max_parts": 1}
