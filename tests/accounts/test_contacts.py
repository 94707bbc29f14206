import phonenumbers
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.accounts.contacts import AddressError, normalise, normalise_phone


@pytest.mark.parametrize(
    "written",
    ["+79161234567", "8 916 123-45-67", "8(916)1234567", "9161234567", "79161234567", "+7 (916) 123-45-67", "+7.916.123.45.67", " +7\u00a0916\u00a01234567"],
)
def test_phone_written_in_any_way_has_one_form(written):
    assert normalise("sms", written, "RU") == "+79161234567"


def test_number_without_country_code_is_dialled_in_the_operators_region():
    assert normalise("sms", "044 234 56 78", "CH") == "+41442345678"


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("8-800-FLOWERS", "phone_malformed"),  # the library would read the letters on a telephone's keys
        ("+7 916 123 45 67 ext. 5", "phone_malformed"),
        ("８９１６１２３４５６７", "phone_malformed"),
        ("+7916\r\n1234567", "phone_malformed"),
        ("+", "phone_malformed"),
        ("(+7)9161234567", "phone_malformed"),
        ("1" * 41, "phone_malformed"),
        ("+999123456789", "phone_malformed"),
        ("+7916123456", "phone_impossible"),
        ("123", "phone_impossible"),
    ],
)
def test_what_is_no_phone_is_refused(written, code):
    with pytest.raises(AddressError) as refused:
        normalise("sms", written, "RU")

    assert refused.value.code == code


def test_range_that_no_table_knows_yet_is_a_possible_number():
    number = "+70001234567"

    assert not phonenumbers.is_valid_number(phonenumbers.parse(number))
    assert normalise("sms", number, "RU") == number


def test_national_prefix_left_in_after_the_country_code_is_dropped():
    assert normalise("sms", "+3800501234567", "RU") == "+380501234567"


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_short_way_of_canonical_numbers_agrees_with_the_library_in_every_country(kind):
    examples = filter(None, (phonenumbers.example_number_for_type(region, kind) for region in sorted(phonenumbers.SUPPORTED_REGIONS)))
    written = [phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164) for example in examples]

    assert len(written) > 200
    assert [normalise_phone(number, "RU") for number in written] == [
        phonenumbers.format_number(phonenumbers.parse(number, "RU"), phonenumbers.PhoneNumberFormat.E164) for number in written
    ]


@example("+200000000000")
@given(st.text(alphabet="0123456789+ -().x", max_size=20) | st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True))
def test_phone_in_its_one_form_stays_as_it_is(written):
    try:
        once = normalise_phone(written, "RU")
    except AddressError:
        return
    assert once.startswith("+")
    assert normalise_phone(once, "RU") == normalise_phone(once, "US") == once


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("Ivan.Petrov+isp@Example.ORG", "Ivan.Petrov+isp@example.org"),
        (" a@b.ru ", "a@b.ru"),
        ("ivan@почта.рф", "ivan@xn--80a1acny.xn--p1ai"),
        ("o'brien@example.ie", "o'brien@example.ie"),
        ("a@mail.isp.local", "a@mail.isp.local"),
        ("a@demo.test", "a@demo.test"),
    ],
)
def test_email_keeps_its_local_part_and_has_its_domain_in_ascii(written, stored):
    assert normalise("email", written, "RU") == stored


@pytest.mark.parametrize(
    "written",
    [
        "a",
        "@b.ru",
        "a@b",
        "a@b..ru",
        "a@-b.ru",
        "a@b_c.ru",
        "a@1.2.3.4",
        "a@[1.2.3.4]",
        "a b@c.ru",
        "a@b.ru,c@d.ru",
        '"a b"@c.ru',
        "Ivan <a@b.ru>",
        "иван@b.ru",
        "a@b.ru\r\nBcc: c@d.ru",
        "a\x00@b.ru",
        "x" * 65 + "@b.ru",
        "x" * 60 + "@" + "b." * 100 + "ru",
        "a@" + "b" * 64 + ".ru",
        "a@ab--cd.ru",
    ],
)
def test_what_is_no_address_is_refused_with_a_reason(written):
    with pytest.raises(AddressError) as refused:
        normalise("email", written, "RU")

    assert refused.value.code in {"email_malformed", "email_too_long"}
    assert len(refused.value.detail) > 10


@given(st.emails() | st.text(max_size=40))
def test_email_in_its_one_form_stays_and_has_no_line_break(written):
    try:
        once = normalise("email", written, "RU")
    except AddressError:
        return
    assert normalise("email", once, "RU") == once
    assert once.isascii()
    assert once.isprintable()
