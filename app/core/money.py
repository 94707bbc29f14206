"""Money: a decimal string outside, a Decimal inside, `numeric(14,2)` in the database. Never a float on the way."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

# What numeric(14,2) holds exactly: no exponent, no plus, no spaces, ASCII digits alone (\d would take Arabic ones).
PATTERN = r"^-?[0-9]{1,12}(\.[0-9]{1,2})?$"
is_money = re.compile(PATTERN[1:-1]).fullmatch
_LARGEST = Decimal(10) ** 12
_ZERO = Decimal(0)

PRICE = r"^[0-9]{1,4}(\.[0-9]{1,4})?$"
_is_price = re.compile(PRICE[1:-1]).fullmatch
_DEAREST = Decimal(10) ** 4


def parse_money(value: object) -> Decimal:
    """The amount, or ValueError.

    A Decimal is taken as well: our own code hands them over, and no JSON can hold one.
    """
    if type(value) is str and is_money(value):
        return Decimal(value)
    if type(value) is Decimal and value.is_finite() and abs(value) < _LARGEST and value == round(value, 2):
        return value
    raise ValueError('Write the amount as a string of at most 12 digits and two decimals, e.g. "500.00".')


def money_string(amount: Decimal) -> str:
    """`500.00`: two decimals always, and no minus before zero."""
    return f"{amount:.2f}" if amount else "0.00"


def parse_price(value: object) -> Decimal:
    """What one part costs, or ValueError. Traffic is priced in hundredths of a kopeck; nothing costs ten thousand a part."""
    if type(value) is str and _is_price(value):
        return Decimal(value)
    if type(value) is Decimal and value.is_finite() and _ZERO <= value < _DEAREST and value == round(value, 4):
        return value
    raise ValueError('Write the price as a string of at most four digits and four decimals, e.g. "2.35" or "0.0125".')


def price_string(price: Decimal) -> str:
    """`2.35`, `0.0125`: two decimals at least, four where they say something."""
    text = f"{price:.4f}"
    return text.removesuffix("00") if text.endswith("00") else text.removesuffix("0")


@dataclass(frozen=True, slots=True)
class _DecimalString:
    """The annotation that makes a Decimal field take and give decimal strings."""

    negative: bool = True
    zero: bool = True
    is_price: bool = False

    def validate(self, value: object) -> Decimal:
        try:
            amount = parse_price(value) if self.is_price else parse_money(value)
        except ValueError as error:
            raise PydanticCustomError("money", "{sentence}", {"sentence": str(error)}) from None
        if amount <= _ZERO:
            if amount and not self.negative:
                raise PydanticCustomError("money_negative", "The amount must not be below zero.")
            if not amount and not self.zero:
                raise PydanticCustomError("money_zero", "The amount must be above zero.")
        return amount

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                price_string if self.is_price else money_string, return_schema=core_schema.str_schema()
            ),
        )

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        if self.is_price:
            return {"type": "string", "pattern": PRICE, "examples": ["2.35", "0.0125"]}
        return {"type": "string", "pattern": PATTERN if self.negative else PATTERN.replace("-?", ""), "examples": ["123.45"]}


Money = Annotated[Decimal, _DecimalString()]
NonNegativeMoney = Annotated[Decimal, _DecimalString(negative=False)]
Price = Annotated[Decimal, _DecimalString(negative=False, is_price=True)]
PositiveMoney = Annotated[Decimal, _DecimalString(negative=False, zero=False)]
