"""A text against the one that is registered with the operator."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.sms.registered import Registered

GAPS = {"%w": r"\S{1,60}", "%d": "[0-9]+", "%*": ".{0,60}", "%%": "%"}


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("Счёт %w: платёж %* получен.", "Счёт 100500: платёж 1 500,00 руб. получен."),
        ("Код %d.", "Код 482913."),
        ("Скидка 50%", "Скидка 50%"),
        ("Скидка 5% на всё", "Скидка 5% на всё"),
        ("%d%% off %w", "50% off TV"),
        ("%%d", "%d"),
        ("a%*b", "ab"),
        ("a%*b", "a" + "b" * 61),
        ("%*", "\n"),
        ("%w%w", "ab"),
        ("[a-z]+(.*)\\", "[a-z]+(.*)\\"),
        ("😀%d", "😀5"),
    ],
)
def test_text_with_filled_gaps_is_the_registered_one(pattern, text):
    assert Registered(pattern).misfit(text) is None


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("Счёт %w: платёж", "Счёт 100500: Платёж", 13),
        ("Код %d.", "Код 12х.", 6),
        ("Код %d.", "Код х.", 4),
        ("Код %d", "Код ١٢", 4),  # Arabic digits are none here
        ("a%*b", "a" + "x" * 61 + "b", 61),
        ("%w", "x" * 61, 60),
        ("%w.", "два слова.", 3),
        ("abc", "abcd", 3),
        ("abc", "ab", 2),
        ("abc", "", 0),
        ("abc", "ABC", 0),
    ],
)
def test_author_is_told_how_far_it_is(pattern, text, fits):
    assert Registered(pattern).misfit(text) == fits


@given(st.lists(st.sampled_from([*GAPS, "a", "1", " ", "%", "ab"]), max_size=6), st.text(alphabet="ab1 %", max_size=12))
@settings(deadline=None, max_examples=500)
def test_gaps_mean_what_the_same_regular_expression_means(steps, text):
    if any(step == "%" and index + 1 < len(steps) and steps[index + 1][0] == "%" for index, step in enumerate(steps)):
        return  # together they would be a percent sign
    expression = "".join(GAPS.get(step, re.escape(step)) for step in steps)

    assert (Registered("".join(steps)).misfit(text) is None) == bool(re.fullmatch(expression, text, re.DOTALL))


@pytest.mark.parametrize("pattern", ["%*" * 50 + "x", "%d" * 50 + "x", "%w%*" * 25 + "x", "%*a" * 50 + "b"])
def test_pattern_that_would_backtrack_for_ever_is_answered(pattern):
    assert Registered(pattern).misfit("a1" * 1000) is not None


def test_pattern_of_too_many_gaps_is_refused():
    with pytest.raises(ValueError, match="50 gaps"):
        Registered("%w " * 51)
