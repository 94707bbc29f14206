"""Money, dates, hours, counts and phones: as Babel writes them, and in an SMS without characters that cost."""

import re
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from babel.dates import format_date
from babel.numbers import format_currency
from hypothesis import given
from hypothesis import strategies as st

from app.rendering.formats import as_amount, as_day, as_hour, phone, style_of, translit
from app.sms.explain import forced_ucs2_by

amounts = st.decimals(min_value=Decimal("-999999999999.99"), max_value=Decimal("999999999999.99"), places=2).filter(bool)
locales = st.sampled_from(["ru", "en", "en-GB", "de", "es", "pl", "uk", "kk", "uz", "hy", "ka", "ar", "hi", "fa"])
currencies = st.sampled_from(["RUB", "USD", "EUR", "KZT", "JPY", "KWD", "UAH", "GEL"])


@given(amounts, locales, currencies)
def test_money_is_written_as_babel_writes_it_but_for_the_space_beside_a_word(amount, locale, currency):
    written = style_of(locale, sms=False).money(amount, currency)

    assert re.sub(r"\s", "", written) == re.sub(r"\s", "", format_currency(amount, currency, locale=locale.replace("-", "_")))
    assert not re.search(r"[^\W\d]\d|\d[^\W\d]", written)


@given(amounts, st.sampled_from(["en", "de", "es", "pl", "uz", "en-GB"]), currencies)
def test_money_forces_no_sms_into_ucs2(amount, locale, currency):
    assert forced_ucs2_by(style_of(locale, sms=True).money(amount, currency)) == []


@pytest.mark.parametrize(
    ("locale", "currency", "mail", "sms"),
    [
        ("ru", "RUB", "1\u00a0234,50\u00a0₽", "1 234,50 руб."),
        ("ru", "USD", "1\u00a0234,50\u00a0$", "1 234,50 $"),
        ("ru", "KZT", "1\u00a0234,50\u00a0KZT", "1 234,50 KZT"),
        ("kk", "RUB", "1\u00a0234,50\u00a0₽", "1 234,50 RUB"),
        ("en", "RUB", "RUB\u00a01,234.50", "RUB 1,234.50"),
        ("en", "USD", "$1,234.50", "$1,234.50"),
        ("en", "EUR", "€1,234.50", "€1,234.50"),
        ("ru-RU", "RUB", "1\u00a0234,50\u00a0₽", "1 234,50 руб."),
        ("xx", "RUB", "RUB\u00a01,234.50", "RUB 1,234.50"),
    ],
)
def test_a_sum_in_a_mail_and_in_an_sms(locale, currency, mail, sms):
    assert style_of(locale, sms=False).money(Decimal("1234.50"), currency) == mail
    assert style_of(locale, sms=True).money(Decimal("1234.50"), currency) == sms


def test_a_debt_has_its_minus_where_the_language_wants_it():
    assert style_of("ru", sms=True).money(Decimal("-1234.50"), "RUB") == "-1 234,50 руб."
    assert style_of("en", sms=True).money(Decimal("-1234.50"), "RUB") == "-RUB 1,234.50"
    assert style_of("en", sms=True).money(Decimal("-1234.50"), "USD") == "-$1,234.50"


@pytest.mark.parametrize("value", ["five", "1e9", "", Decimal("NaN"), Decimal("1E+20"), 10**20, True, [], float("inf")])
def test_what_is_no_sum_is_not_written_as_one(value):
    with pytest.raises(ValueError):
        as_amount(value)


@pytest.mark.parametrize(
    ("locale", "form", "written"),
    [
        ("ru", None, "23.11.2026"),
        ("en", None, "Nov 23, 2026"),
        ("ru", "d MMMM", "23 ноября"),
        ("en", "long", "November 23, 2026"),
    ],
)
def test_a_date_in_a_language(locale, form, written):
    assert style_of(locale, sms=False).date(date(2026, 11, 23), form) == written


@given(st.dates(), locales, st.sampled_from(["short", "medium", "long", "full"]))
def test_a_date_is_babels(day, locale, form):
    assert style_of(locale, sms=False).date(day, form) == format_date(day, form, locale=locale.replace("-", "_"))


def test_an_hour_in_an_sms_has_plain_spaces():
    assert style_of("en", sms=True).time(time(10, 5)) == "10:05 AM"
    assert style_of("ru", sms=True).time(time(22, 5)) == "22:05"
    assert forced_ucs2_by(style_of("en", sms=True).date(date(2026, 11, 23), "full")) == []


def test_an_instant_is_told_on_the_accounts_clock():
    late = datetime(2026, 11, 23, 21, 30, tzinfo=UTC)
    zone = ZoneInfo("Asia/Yekaterinburg")

    assert as_day(late, zone) == date(2026, 11, 24)
    assert as_day("2026-11-23T21:30:00+00:00", zone) == date(2026, 11, 24)
    assert as_day("2026-11-23", zone) == date(2026, 11, 23)
    assert as_hour(late, zone) == time(2, 30)
    assert late.astimezone(timezone(timedelta(hours=5))).time() == time(2, 30)


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (0, "дней"),
        (1, "день"),
        (2, "дня"),
        (5, "дней"),
        (11, "дней"),
        (12, "дней"),
        (21, "день"),
        (22, "дня"),
        (111, "дней"),
        (-1, "день"),
        (Decimal("1.5"), "дня"),
    ],
)
def test_russian_counts_in_three_forms(number, word):
    assert style_of("ru", sms=True).plural(number, "день", "дня", "дней") == word


@pytest.mark.parametrize(("number", "word"), [(0, "days"), (1, "day"), (2, "days"), (21, "days"), (Decimal("1.5"), "days")])
def test_english_counts_in_two(number, word):
    style = style_of("en", sms=True)

    assert style.plural(number, "day", "days") == style.plural(number, "day", "days", "days") == word


def test_a_phone_is_written_for_people():
    assert phone("+79161234567") == "+7 916 123-45-67"
    assert phone("100500") == "100500"


def test_transliteration_leaves_nothing_that_gsm_lacks():
    written = translit("Щёлково — «объезд» № 5… 612,30 ₽ Юлия Цой")

    assert written == 'Shchyolkovo - "obyezd" No. 5... 612,30 RUB Yuliya Tsoy'
    assert forced_ucs2_by(written) == []


def test_the_filters_take_the_accounts_currency_and_the_language_of_the_template(render):
    assert render("{{ amount|money }} {{ amount|money('USD') }} {{ '5.5'|money }}", "sms") == "500,00 руб. 500,00 $ 5,50 руб."
    assert render("{{ amount|money }} {{ now|time }} {{ 3|plural('day', 'days') }}", "sms", "en") == "RUB 500.00 12:00 PM days"
    assert render("{{ method|money }}|{{ method|date }}") == "|"
