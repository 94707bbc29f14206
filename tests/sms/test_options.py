"""What a version may say of its SMS, and what that makes of the text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.sms import gsm
from app.sms.cutting import Cutting
from app.sms.options import SmsOptions, applied

BOTH = {"typography": True, "translit": "always"}


def test_nothing_said_changes_nothing():
    text = "«Дом» — 600\u00a0₽"

    assert SmsOptions() == SmsOptions(typography=False, translit="off", max_parts=None, registered=None)
    assert applied(text, {}) == applied(text, SmsOptions().model_dump()) == text


@pytest.mark.parametrize(
    "given",
    [
        {"typography": "very"},
        {"translit": "sometimes"},
        {"max_parts": 0},
        {"max_parts": 11},
        {"max_parts": "2"},
        {"max_parts": True},
        {"registered": ""},
        {"registered": "x" * 1001},
        {"registered": "%w " * 51},
        {"flash": True},
    ],
    ids=str,
)
def test_option_that_means_nothing_is_refused(given):
    with pytest.raises(ValidationError):
        SmsOptions.model_validate(given)


def test_typography_goes_before_latin_letters():
    text = "Счёт №5: «Дом» — 600\u00a0₽."

    assert applied(text, {"typography": True}) == 'Счёт N5: "Дом" - 600 р.'
    assert applied(text, {"translit": "always"}) == 'Schyot No.5: "Dom" - 600 RUB.'
    assert applied(text, BOTH) == 'Schyot N5: "Dom" - 600 RUB.'


@pytest.mark.parametrize("options", [{"typography": True}, {"translit": "always"}, BOTH], ids=str)
def test_link_leads_where_it_led(options):
    text = "Оплата: «https://кабинет.рф/счёт—5?q=‘a’» и http://x.example/№1"

    written = applied(text, options)

    assert "https://кабинет.рф/счёт—5?q=‘a’" in written
    assert written.endswith("http://x.example/№1")
    assert "«" not in written


@given(st.text(max_size=300))
@settings(deadline=None)
def test_what_was_written_so_once_stays(text):
    once = applied(text, BOTH)

    assert applied(once, BOTH) == once


@given(st.text(alphabet="абвгдеёжзийклмнопрстуфхцчшщъыьэюяАЕЩЮ «»—…₽№ 5a.", max_size=300))
@settings(deadline=None)
def test_gateway_that_transliterates_too_does_not_do_it_twice(text):
    latin = applied(text, BOTH)
    by_itself = Cutting(transliteration="ascii").cut(latin)

    assert by_itself is not None
    assert by_itself.encoding == "GSM7"
    assert "".join(by_itself.parts) == latin


@given(st.text(alphabet="абвгдеёжзийклмнопрстуфхцчшщъыьэюяАЕЩЮ «»—…₽№ 5a.", max_size=300))
@settings(deadline=None)
def test_russian_in_latin_letters_is_of_the_gsm_alphabet(text):
    assert gsm.encode(applied(text, {"translit": "always"})) is not None
