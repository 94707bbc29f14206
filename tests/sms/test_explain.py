"""Why a text costs what it costs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.sms.cutting import Cutting
from app.sms.explain import MOST_NAMED, analyse
from app.sms.latin import in_latin
from app.sms.segment import segment

ASCII = Cutting(transliteration="ascii")


def test_latin_text_with_one_quote_is_told_what_it_costs():
    found = analyse("a" * 79 + "’" + "b" * 20)

    assert found == {
        "encoding": "UCS2",
        "units": 100,
        "segments": 2,
        "units_left": 34,
        "forced_ucs2_by": [{"character": "’", "position": 79, "name": "RIGHT SINGLE QUOTATION MARK", "instead": "'"}],
        "without_them": {"encoding": "GSM7", "segments": 1},
        "typography": {"segments": 1, "saved": 1},
        "translit": {"segments": 2, "saved": 0},
    }


def test_russian_text_is_told_what_latin_letters_would_save():
    found = analyse("Счёт 100500: платёж 500,00 руб. получен. Баланс 1 612,30 руб. Спасибо, что остаётесь с нами!")

    assert (found["encoding"], found["segments"]) == ("UCS2", 2)
    assert found["translit"] == {"segments": 1, "saved": 1}
    assert found["typography"] == {"segments": 2, "saved": 0}
    assert "".join(one["instead"] or "" for one in found["forced_ucs2_by"][:10]) == "Schyotplatyozh"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Вalance", [("В", 0, "B")]),  # a Cyrillic letter in a Latin word
        ("Internеt и TV", [("е", 6, "e"), ("и", 9, "i")]),
        ("5 ₽ №7", [("₽", 2, "RUB"), ("№", 4, "N")]),
        ("a\u200bb", [("\u200b", 1, "")]),
        ("ok 😀", [("😀", 3, None)]),
        ("ção", [("ç", 0, "c"), ("ã", 1, "a")]),
        ("été à l’été", [("’", 7, "'")]),
        ("€ [x]", []),
    ],
)
def test_each_character_has_its_place_and_what_to_type(text, named):
    assert [(one["character"], one["position"], one["instead"]) for one in analyse(text)["forced_ucs2_by"]] == named


def test_control_character_is_named_by_its_code():
    assert [one["name"] for one in analyse("a\tb")["forced_ucs2_by"]] == ["U+0009"]


def test_long_text_names_the_first_hundred():
    assert len(analyse("я" * 500)["forced_ucs2_by"]) == MOST_NAMED


@pytest.mark.parametrize(
    ("text", "left"),
    [("", 160), ("a" * 160, 0), ("a" * 161, 306 - 161), ("a" * 306, 0), ("я", 69), ("я" * 71, 134 - 71), ("a" * 152 + "€" + "b" * 50, 153 - 52)],
)
def test_units_left_are_those_of_the_last_part(text, left):
    assert analyse(text)["units_left"] == left


def test_units_left_know_the_gateways_headers():
    assert analyse("a" * 161, Cutting(long_messages="udh16"))["units_left"] == 304 - 161
    assert analyse("a", Cutting(null_terminated=True))["units_left"] == 158


def test_gateway_that_transliterates_has_nothing_left_to_save():
    found = analyse("Счёт «Дом» " * 10, ASCII)

    assert (found["encoding"], found["forced_ucs2_by"]) == ("GSM7", [])
    assert found["translit"]["saved"] == found["typography"]["saved"] == 0


def test_gateway_that_transliterates_names_what_has_no_likeness():
    assert [one["character"] for one in analyse("Счёт «Дом» 😀", ASCII)["forced_ucs2_by"]] == ["😀"]


def test_gateway_of_two_narrow_alphabets_names_the_fewest():
    found = analyse("êêê Ω", Cutting(alphabets=("GSM7", "LATIN1", "UCS2")))

    assert [one["character"] for one in found["forced_ucs2_by"]] == ["Ω"]


def test_gateway_of_ucs2_alone_is_forced_by_nothing():
    found = analyse("Plain", Cutting(alphabets=("UCS2",)))

    assert (found["encoding"], found["forced_ucs2_by"]) == ("UCS2", [])


def test_gateway_without_ucs2_names_what_it_cannot_write():
    found = analyse("5 я", Cutting(alphabets=("GSM7",)))

    assert (found["encoding"], found["segments"]) == ("GSM7", 1)
    assert [one["character"] for one in found["forced_ucs2_by"]] == ["я"]


@given(st.text(alphabet=st.one_of(st.sampled_from("abc «»я€ъ\u0301"), st.characters()), max_size=300))
@settings(deadline=None)
def test_any_text_can_be_analysed_and_agrees_with_the_cutting(text):
    found, cut = analyse(text), segment(text)

    assert (found["encoding"], found["segments"], found["units"]) == (cut.encoding, cut.count, cut.units)
    assert bool(found["forced_ucs2_by"]) == (cut.encoding == "UCS2")
    assert all(text[one["position"]] == one["character"] for one in found["forced_ucs2_by"])
    assert found["without_them"]["encoding"] == "GSM7"
    assert found["translit"]["segments"] == segment(in_latin(text)).count
    assert 0 <= found["units_left"] <= 160
