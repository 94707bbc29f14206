"""Typographic characters as plain ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.sms import gsm
from app.sms.typography import MARKS, plain

PRETTY = st.text(alphabet=st.one_of(st.sampled_from([*MARKS, "₽", ".", "1", "a", "я", " "]), st.characters(exclude_categories=["Cs"])), max_size=100)


@pytest.mark.parametrize(
    ("pretty", "written"),
    [
        ("", ""),
        ("«Дом» „Дом“ ”Дом” “Home”", '"Дом" "Дом" "Дом" "Home"'),
        ("it’s ‘5’ 6′", "it's '5' 6'"),
        ("2025–2026 — всё‑таки −5", "2025-2026 - всё-таки -5"),
        ("1\u00a0234\u202f567\u2009руб.", "1 234 567 руб."),
        ("Ждите…", "Ждите..."),
        ("Договор №5, № 6", "Договор N5, N 6"),
        ("не\u00adви\u200bди\ufeffмое", "невидимое"),
        ("a\tb`c", "a b'c"),
        ("a\u2028b", "a\nb"),
    ],
)
def test_each_sign_becomes_the_one_on_the_keyboard(pretty, written):
    assert plain(pretty) == written


@pytest.mark.parametrize(
    ("pretty", "written"),
    [
        ("Баланс 600 ₽", "Баланс 600 р."),
        ("Баланс 600₽, долг 5\u00a0₽", "Баланс 600р., долг 5 р."),
        ("Баланс 600 ₽.", "Баланс 600 р."),
        ("Ждём 600 ₽…", "Ждём 600 р...."),
        ("Balance: 600 ₽.", "Balance: 600 RUB."),
        ("Balance: 600₽", "Balance: 600 RUB"),
        ("₽600 or 5₽a", "RUB 600 or 5 RUB a"),
        ("₽", "RUB"),
    ],
)
def test_rouble_is_written_in_the_letters_of_the_text(pretty, written):
    assert plain(pretty) == written


def test_text_that_will_be_latin_gets_latin_roubles():
    assert plain("Баланс 600 ₽", latin=True) == "Баланс 600 RUB"
    assert plain("Balance 600 ₽", latin=False) == "Balance 600 р."


@given(PRETTY)
@settings(deadline=None)
def test_writing_it_again_changes_nothing_and_no_mark_is_left(text):
    written = plain(text)

    assert plain(written) == written
    assert not set(written) & {*MARKS, "₽"}


def test_every_mark_is_one_that_the_gsm_alphabet_lacks_and_every_likeness_one_that_it_has():
    assert all(gsm.encode(mark) is None for mark in MARKS)
    assert all(gsm.encode(likeness) is not None for likeness in MARKS.values())
