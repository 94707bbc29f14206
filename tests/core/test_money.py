"""Money: strings outside, Decimals inside, nothing in between."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from app.core.money import Money, NonNegativeMoney, PositiveMoney, money_string, parse_money


class Bill(BaseModel):
    total: Money
    paid: NonNegativeMoney = Decimal(0)
    last: PositiveMoney = Decimal(1)


@given(st.decimals(min_value=Decimal("-999999999999.99"), max_value=Decimal("999999999999.99"), places=2))
def test_what_is_written_is_read_again(amount):
    assert parse_money(money_string(amount)) == amount


@pytest.mark.parametrize("text", ["0", "-0", "5", "500.5", "500.55", "-612.30", "999999999999.99", "000.10"])
def test_decimal_strings_are_money(text):
    assert parse_money(text) == Decimal(text)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "-",
        "+5",
        " 5",
        "5 ",
        "5\n",
        "5.",
        ".5",
        "5.123",
        "1e3",
        "1E3",
        "NaN",
        "Infinity",
        "1,5",
        "1_000",
        "٥",
        "５",
        "1000000000000",
        "0x10",
        5,
        5.0,
        True,
        None,
        [],
        {},
    ],
)
def test_everything_else_is_not(value):
    with pytest.raises(ValueError):
        parse_money(value)


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("1E+12"), Decimal("0.001"), Decimal("-Infinity")])
def test_decimals_of_our_own_that_the_database_could_not_hold_are_refused(value):
    with pytest.raises(ValueError):
        parse_money(value)


def test_a_model_takes_and_gives_strings():
    bill = Bill.model_validate({"total": "-5", "paid": "0", "last": "0.01"})

    assert bill.total == Decimal(-5)
    assert json.loads(bill.model_dump_json()) == {"total": "-5.00", "paid": "0.00", "last": "0.01"}


def test_no_minus_stands_before_zero():
    assert money_string(Decimal("-0.00")) == "0.00"


@pytest.mark.parametrize(
    ("fault", "code"), [({"total": 5}, "money"), ({"total": "1", "paid": "-1"}, "money_negative"), ({"total": "1", "last": "0"}, "money_zero")]
)
def test_a_refusal_says_what_to_change(fault, code):
    with pytest.raises(ValidationError) as refusal:
        Bill.model_validate(fault)

    assert refusal.value.errors()[0]["type"] == code
    assert refusal.value.errors()[0]["msg"].endswith(".")


def test_the_contract_says_that_money_is_a_string():
    assert Bill.model_json_schema()["properties"]["total"]["type"] == "string"
