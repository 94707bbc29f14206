import orjson
import pytest
from pydantic import ValidationError

from app.accounts.preference_shapes import AccountLine
from app.accounts.shapes import AccountIn
from app.accounts.snapshots import snapshot
from app.core.errors import Invalid
from app.core.problems import invalid_from


def faults(body):
    """(pointer, code) of everything that is wrong, as a problem would name it; the same whether it comes parsed or as JSON."""
    found = []
    for read in (lambda: AccountIn.model_validate(body), lambda: AccountIn.model_validate_json(orjson.dumps(body))):
        try:
            snapshot("1", read(), "RU")
        except ValidationError as error:
            found.append({(fault.pointer, fault.code) for fault in invalid_from(error.errors()).errors})
        except Invalid as error:
            found.append({(fault.pointer, fault.code) for fault in error.errors})
        else:
            found.append(set())
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize(
    ("wrong", "pointer", "code"),
    [
        ({"balance": 112.3}, "/balance", "money"),
        ({"balance": "1e3"}, "/balance", "money"),
        ({"balance": "1234567890123.00"}, "/balance", "money"),
        ({"credit_limit": "-1.00"}, "/credit_limit", "money_negative"),
        ({"balance_as_of": "2026-01-01T00:00:00Z"}, "", "balance_missing"),
        ({"balance": "1.00", "balance_as_of": "2026-01-01T00:00:00"}, "/balance_as_of", "time"),
        ({"balance": "1.00", "balance_as_of": 1767225600}, "/balance_as_of", "time"),
        ({"balance": "1.00", "balance_as_of": "1999-12-31T00:00:00Z"}, "/balance_as_of", "time_implausible"),
        ({"balance": "1.00", "balance_as_of": "0001-01-01T00:00:00+14:00"}, "/balance_as_of", "time_implausible"),
        ({"balance": "1.00", "balance_as_of": "9999-12-31T23:59:59-14:00"}, "/balance_as_of", "time_implausible"),
        ({"status": "erased"}, "/status", "literal_error"),
        ({"status": 1}, "/status", "literal_error"),
        ({"timezone": "Mars/Olympus"}, "/timezone", "timezone"),
        ({"timezone": "../../etc/passwd"}, "/timezone", "timezone"),
        ({"timezone": "localtime"}, "/timezone", "timezone"),
        ({"locale": "klingon"}, "/locale", "locale"),
        ({"locale": "qq"}, "/locale", "locale"),
        ({"currency": "rub"}, "/currency", "string_pattern_mismatch"),
        ({"currency": "ZZQ"}, "/currency", "currency"),
        ({"name": "x" * 301}, "/name", "string_too_long"),
        ({"name": "a\r\nBcc: b@c.ru"}, "/name", "string_pattern_mismatch"),
        ({"attributes": {f"k{n}": n for n in range(51)}}, "/attributes", "too_many_attributes"),
        ({"contacts": [{"channel": "sms", "address": "8-800-FLOWERS"}]}, "/contacts/0/address", "phone_malformed"),
        ({"contacts": [{"channel": "fax", "address": "1"}]}, "/contacts/0/channel", "literal_error"),
        ({"contacts": [{"channel": "sms", "address": f"+7916{n:07}"} for n in range(21)]}, "/contacts", "too_long"),
        ({"contacts": [{"channel": "email", "address": "a@b.ru"}, {"channel": "email", "address": "a@b"}]}, "/contacts/1/address", "email_malformed"),
        ({"contacts": [{"channel": "email", "address": "a@b.ru", "origin": "subscriber"}]}, "/contacts/0/origin", "extra_forbidden"),
        ({"nmae": "typo"}, "/nmae", "extra_forbidden"),
    ],
)
def test_bad_field_is_refused_by_name(wrong, pointer, code):
    assert (pointer, code) in faults(wrong)


def test_attributes_are_scalars_that_json_can_hold_everywhere():
    assert faults({"attributes": {"a": "x", "b": 1, "c": 1.5, "d": True, "e": None, "имя": "y"}}) == set()
    for value in ({"b": 1}, [1], "x" * 1001):
        assert faults({"attributes": {"a": value}}) == {("/attributes/a", "attribute")}
    for literal in (b"NaN", b"1e999", b"1180591620717411303424"):
        with pytest.raises(ValidationError):
            AccountIn.model_validate_json(b'{"attributes": {"a": %s}}' % literal)


@pytest.mark.parametrize(("written", "stored"), [("RU_ru", "ru-RU"), ("en", "en"), ("sr-latn-rs", "sr-Latn-RS"), ("es-419", "es-419")])
def test_locale_has_one_form(written, stored):
    assert AccountIn(locale=written).locale == stored


def test_null_is_the_same_as_left_out_but_for_the_threshold():
    nothing = snapshot("1", AccountIn(), "RU")
    nulls = snapshot("1", AccountIn.model_validate(dict.fromkeys(AccountIn.model_fields)), "RU")

    assert nothing.fields == {}
    assert nulls.fields == {"threshold": None}
    assert (nulls.balance, nulls.contacts, nulls.charges) == (None, None, None)


@pytest.mark.parametrize("number", ["", ".", "..", "a/b", "a\nb", "\x85", "erased:1", "x" * 65, 100500, None])
def test_number_that_cannot_stand_in_a_path_is_none(number):
    with pytest.raises(ValidationError):
        AccountLine.model_validate({"number": number})


CHARGE = {"id": "s1", "title": "TV", "amount": "100.00"}


@pytest.mark.parametrize(
    "schedule",
    [
        {"kind": "once"},
        {"kind": "once", "on": "2026-02-30"},
        {"kind": "once", "on": "2026-12-01T00:00:00"},
        {"kind": "daily", "day": 1},
        {"kind": "weekly", "weekday": 0},
        {"kind": "weekly", "weekday": 8},
        {"kind": "weekly", "weekday": True},
        {"kind": "weekly", "day": 1},
        {"kind": "monthly", "day": 32},
        {"kind": "monthly"},
        {"kind": "yearly", "day": 1},
        {"kind": "yearly", "month": 2, "day": 30},
        {"kind": "hourly"},
        {"kind": "daily", "start_on": "2026-01-02", "end_on": "2026-01-01"},
        {"kind": "daily", "amount": "-1.00"},
        {"kind": "daily", "title": ""},
    ],
)
def test_charge_that_says_no_clear_day_is_refused(schedule):
    found = faults({"charges": [CHARGE | schedule]})

    assert found
    assert all(pointer.startswith("/charges/0") for pointer, _ in found)


def test_two_charges_of_one_id_are_refused():
    assert faults({"charges": [CHARGE | {"kind": "daily"}, CHARGE | {"kind": "daily"}]}) == {("/charges", "duplicate_charge")}
