"""The data of events: one definition for intake, templates and samples."""

from datetime import date
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalogue.types import EVENT_TYPES, Checked, check_data, sample_of, variables_of

GOOD = {"amount": "500", "balance": "612.3", "method": "card"}


def codes(code: str, data: object, schema: dict | None = None) -> list[tuple[str, str]]:
    checked = check_data(code, data, schema)
    assert isinstance(checked, list), "it was taken"
    assert all(fault.detail.strip() for fault in checked)
    return [(fault.pointer, fault.code) for fault in checked]


def test_a_payment_is_taken_with_money_written_out_and_the_balance_told():
    checked = check_data("payment.received", GOOD)

    assert checked == Checked({"amount": "500.00", "balance": "612.30", "method": "card"}, Decimal("612.30"))


def test_keys_beyond_the_types_own_are_kept():
    checked = check_data("payment.received", {"amount": "1", "terminal": 17, "promo": "х", "first": True, "rate": 1.5})

    assert checked.data == {"amount": "1.00", "terminal": 17, "promo": "х", "first": True, "rate": 1.5}
    assert checked.balance is None


def test_what_is_null_is_as_if_it_were_left_out():
    assert check_data("payment.received", {"amount": "1", "method": None, "balance": None, "promo": None}) == Checked({"amount": "1.00"}, None)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({}, ("/data/amount", "missing")),
        ({"amount": 500}, ("/data/amount", "money")),
        ({"amount": "0"}, ("/data/amount", "money_zero")),
        ({"amount": "0.00"}, ("/data/amount", "money_zero")),
        ({"amount": "-1"}, ("/data/amount", "money_negative")),
        ({"amount": "1", "balance": "1e3"}, ("/data/balance", "money")),
        ({"amount": "1", "method": ""}, ("/data/method", "string_too_short")),
        ({"amount": "1", "method": 5}, ("/data/method", "string_type")),
        ({"amount": "1", "method": "x" * 101}, ("/data/method", "string_too_long")),
        ({"amount": "1", "more": [1]}, ("/data/more", "scalar")),
        ({"amount": "1", "more": {"a": 1}}, ("/data/more", "scalar")),
        ({"amount": "1", "more": float("nan")}, ("/data/more", "scalar")),
        ({"amount": "1", "more": "x" * 1001}, ("/data/more", "string_too_long")),
        ({"amount": "1", "a b": 1}, ("/data/a b", "key_name")),
        ({"amount": "1", "ключ": 1}, ("/data/ключ", "key_name")),
        ({"amount": "1", "k" * 65: 1}, ("/data/" + "k" * 65, "key_name")),
        ({"amount": "1", "a/b~c": 1}, ("/data/a~1b~0c", "key_name")),
        ({"amount": "1"} | {f"k{n}": n for n in range(51)}, ("/data", "too_many_keys")),
        ([], ("/data", "object_type")),
        (None, ("/data", "object_type")),
    ],
)
def test_a_payment_with_a_fault_is_refused_at_its_place(data, fault):
    assert codes("payment.received", data) == [fault]


def test_fifty_keys_of_ones_own_are_taken():
    assert isinstance(check_data("payment.received", GOOD | {f"k{n}": n for n in range(50)}), Checked)


@pytest.mark.parametrize(
    ("code", "data", "faults"),
    [
        ("service.connected", {"service": {"code": "x"}}, [("/data/service/name", "missing")]),
        ("service.connected", {"service": "x"}, [("/data/service", "model_type")]),
        ("service.connected", {"service": {"code": "x", "name": "y", "z": []}}, [("/data/service/z", "scalar")]),
        ("tariff.changed", {"old_tariff": "a", "new_tariff": "b", "effective_on": 20000}, [("/data/effective_on", "date_type")]),
        ("tariff.changed", {"old_tariff": "a", "new_tariff": "b", "effective_on": "2026-02-30"}, [("/data/effective_on", "date_from_datetime_parsing")]),
        ("balance.changed", {}, [("/data/balance", "missing")]),
        ("balance.exhausting", {"days_left": True, "exhausts_on": "2026-12-01", "recommended_payment": "1"}, [("/data/days_left", "int_type")]),
        ("charges.upcoming", {"due_on": "2026-12-01", "total": "1", "charges": [{"id": "a", "title": "b"}]}, [("/data/charges/0/amount", "missing")]),
    ],
)
def test_every_type_has_its_own_rules(code, data, faults):
    assert codes(code, data) == faults


@pytest.mark.parametrize("code", EVENT_TYPES)
@pytest.mark.parametrize("complete", [True, False])
def test_every_sample_is_taken_and_read_back(code, complete):
    checked = check_data(code, sample_of(code, complete=complete))

    assert isinstance(checked, Checked)
    assert set(EVENT_TYPES[code].model_fields) <= set(variables_of(code, checked.data)), "templates find every key of the type"


def test_templates_get_numbers_and_dates():
    stored = check_data("balance.exhausting", sample_of("balance.exhausting")).data

    read = variables_of("balance.exhausting", stored)

    assert read["recommended_payment"] == Decimal("100.00")
    assert read["exhausts_on"] == date(2026, 12, 1)
    assert read["charges"][0]["due_on"] == date(2026, 12, 1)
    assert orjson.dumps(stored), "what is stored is JSON, and reading it has not changed it"


scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(), st.text(max_size=20))
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8)


@given(st.sampled_from(sorted(EVENT_TYPES)), st.dictionaries(st.sampled_from(["amount", "balance", "service", "charges", "total", "x", "due_on"]), anything))
def test_whatever_comes_is_taken_as_json_or_refused_with_a_place(code, data):
    checked = check_data(code, data)

    if isinstance(checked, Checked):
        assert check_data(code, orjson.loads(orjson.dumps(checked.data))) == checked, "what was stored would be taken again"
    else:
        assert all(fault.pointer.startswith("/data") for fault in checked)


def test_an_operators_type_without_a_schema_takes_scalars():
    assert check_data("promo.offer", {"code": "A1", "balance": "5"}) == Checked({"code": "A1", "balance": "5.00"}, Decimal(5))
    assert codes("promo.offer", {"code": ["A1"]}) == [("/data/code", "scalar")]
    assert codes("promo.offer", {"balance": 5}) == [("/data/balance", "money")]
    assert codes("promo.offer", {f"k{n}": n for n in range(51)}) == [("/data", "too_many_keys")]
