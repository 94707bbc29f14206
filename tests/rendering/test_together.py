"""The words of several events that are told together."""

from types import SimpleNamespace
from uuid import UUID

import pytest

from app.catalogue.types import sample_of
from app.rendering.compose import Version, variables
from app.rendering.defaults import templates
from app.rendering.models import TemplateVersion
from app.rendering.proof import unpublishable
from tests.rendering.conftest import NOW, account

NOBODY = UUID(int=0)
DEFAULTS = list(templates())
PUT_TOGETHER = [words for words in DEFAULTS if words["type"] in {"service.connected", "service.disconnected", "payment.received"}]
OPERATORS = {"type": "object", "properties": {"count": {"type": "string"}, "title": {"type": "string"}}}


def name(words):
    return f"{words['type']}-{words['channel']}-{words['locale']}"


def version(words):
    return Version(NOBODY, 1, words["channel"], words["locale"], words["subject"], words["text"], words["html"])


def said(code, data, *earlier, **changes):
    contact = SimpleNamespace(address="+79161234567", label="")
    return variables(account(**changes), contact, code, NOW, data, NOW, {"cabinet": ""}, earlier=earlier)


def services(number, title):
    return [{"service": {"code": "x", "name": title}} for _ in range(number)]


@pytest.mark.parametrize("number", [2, 5, 100])
@pytest.mark.parametrize("title", ["TV", "Internet 1000", "Unlimited " * 30])
@pytest.mark.parametrize("words", [words for words in PUT_TOGETHER if words["channel"] == "sms" and words["type"] != "payment.received"], ids=name)
def test_services_that_are_told_together_fit_one_part(words, title, number):
    newest, *others = services(number, title)

    composed = version(words).compose(said(words["type"], newest, *others, number="1234567890123"))

    assert composed.parts == 1, composed.text
    assert str(number) in composed.text


@pytest.mark.parametrize("words", [words for words in PUT_TOGETHER if words["channel"] == "email" and words["type"] != "payment.received"], ids=name)
def test_email_names_every_service(words):
    names = [f"Service {number}" for number in range(100)]
    *others, newest = [{"service": {"code": "x", "name": title}} for title in names]

    composed = version(words).compose(said(words["type"], newest, *others))

    assert all(title in composed.text and title in (composed.html or "") for title in names)
    assert "100" in (composed.subject or "")


@pytest.mark.parametrize("words", [words for words in PUT_TOGETHER if words["type"] == "payment.received"], ids=name)
def test_payments_told_together_are_one_sum(words):
    composed = version(words).compose(said("payment.received", {"amount": "5.00"}, {"amount": "7.50"}, {"amount": "1.00"}))

    assert any(sum_ in composed.text for sum_ in ("13,50", "13.50")), composed.text
    assert composed.parts == 1


def test_ordinary_payments_fit_one_part_together():
    (words,) = [words for words in PUT_TOGETHER if (words["type"], words["channel"], words["locale"]) == ("payment.received", "sms", "ru")]
    payments = [{"amount": "9999.99", "balance": "-999999.99"} for _ in range(100)]

    assert version(words).compose(said("payment.received", *payments, number="1234567890123")).parts == 1


def test_events_are_read_as_data_is_and_the_last_one_is_the_newest():
    made = said("payment.received", {"amount": "5.00"}, {"amount": "7.50"})

    assert [str(one["amount"]) for one in made["events"]] == ["7.50", "5.00"]
    assert (made["count"], made["amount"], made["events"][-1]) == (2, made["data"]["amount"], made["data"])


def test_data_of_these_names_are_still_found():
    made = said("promo.offer", {"count": "seven", "events": "none"})

    assert (made["count"], made["events"]) == ("seven", "none")


def test_key_that_the_schema_names_and_the_event_has_not_is_none_in_each_event():
    source = "{% if count is defined %}{{ count }}{% else %}-{% endif %}{% for one in events %}{{ one.title|default('?') }}{% endfor %}"
    template = Version(NOBODY, 1, "sms", "ru", None, source, None, ("count", "title"))

    assert template.compose(said("promo.offer", {"title": "b"}, {"title": "a"}, {})).text == "-a?b"


def test_words_that_would_fail_for_several_events_are_not_published():
    text = "{{ service.name }}{% if count > 1 %}{{ 1 / 0 }}{% endif %}"
    (problem,) = unpublishable("service.connected", None, "sms", "ru", TemplateVersion(template_id=NOBODY, version=1, text=text, created_by="test"))

    assert problem.code == "render_failed"
    assert "several events" in problem.detail


@pytest.mark.parametrize("words", DEFAULTS, ids=name)
def test_every_default_can_tell_of_several_events(words):
    sample = sample_of(words["type"])

    assert version(words).compose(said(words["type"], sample, sample)).text


@pytest.mark.parametrize("more", [{"count": 3}, {"count": "seven"}, {"events": "none"}], ids=str)
@pytest.mark.parametrize("words", PUT_TOGETHER, ids=name)
def test_further_key_of_a_built_in_type_does_not_change_how_many_are_told(words, more):
    sample = sample_of(words["type"])

    told = version(words).compose(said(words["type"], sample | more))

    assert told == version(words).compose(said(words["type"], sample))
