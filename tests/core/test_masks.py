from hypothesis import given
from hypothesis import strategies as st

from app.core.masks import masked


def test_address_is_recognised_and_cannot_be_written_to():
    assert masked("+79161234567") == "+7916***4567"
    assert masked("anna@example.org") == "a***@example.org"
    assert masked('"a@b"@example.org') == '"***@example.org'
    assert masked("") == ""


@given(st.from_regex(r"\+[1-9][0-9]{5,14}", fullmatch=True))
def test_no_phone_shows_more_than_nine_of_its_signs_or_all_but_three(phone):
    shown = masked(phone).replace("***", "")

    assert "***" in masked(phone)
    assert len(shown) <= 9
    assert len(phone) - len(shown) >= 3
