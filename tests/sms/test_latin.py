"""Texts in Latin letters."""

import iuliia
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.sms.latin import _SIGNS, as_ascii, in_latin


@pytest.mark.parametrize(
    ("text", "latin"),
    [
        ("", ""),
        ("Plain [text] 100%\n", "Plain [text] 100%\n"),
        ("Счёт № 100500: 12,50 ₽", "Schyot No. 100500: 12,50 RUB"),
        ("«Тариф» — „Домашний“…", '"Tarif" - "Domashny"...'),
        ("It’s 5\u00a0000\u202f₽", "It's 5 000 RUB"),
        ("Їжак, Ґанок, ўсё", "Yizhak, Ganok, usyo"),
        ("Қазақстан 500 ₸", "Kazakstan 500 KZT"),
        ("Łódź, Gómez, naïve œuvre", "Lodz, Gomez, naive oeuvre"),
        ("и\u0306 e\u0301", "y e"),  # letters and their accents apart
        ("a\u200bb\u00adc\ufeff", "abc"),
        ("2×2 ≥ 3 → •", "2x2 >= 3 -> *"),
        ("5 € Ω", "5 € Ω"),
        ("😀", "😀"),
    ],
)
def test_what_has_a_likeness_in_ascii_gets_it(text, latin):
    assert as_ascii(text) == latin


def test_the_filter_of_templates_leaves_accents_alone():
    assert in_latin("Счёт «Gómez»") == 'Schyot "Gómez"'


@given(st.text(max_size=300))
@settings(deadline=None)
def test_any_text_can_be_asked_for(text):
    assert isinstance(as_ascii(text), str)


@given(st.text(alphabet=st.characters(codec="ascii", exclude_characters="\t`"), max_size=200))
@settings(deadline=None)
def test_ascii_stays_as_it_is(text):
    assert as_ascii(text) == text


@given(st.text(alphabet=st.one_of(st.sampled_from("абеёийьъыЩЕ a_5-\u0306"), st.characters(exclude_categories=["Cs"])), max_size=200))
@settings(deadline=None)
def test_word_is_written_as_it_is_written_among_others(text):
    assert in_latin(text) == iuliia.WIKIPEDIA.translate(text).translate(_SIGNS)
