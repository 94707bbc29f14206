"""The data of each event type: one definition, from which intake checks, templates get their variables and samples are made.

check_data    what came from outside -> what is stored (JSON), or what is wrong with it
variables_of  what is stored -> what a template works with (Decimals, dates, None for what may be absent and is)
sample_of     an example of a type, complete or with no more than it needs

A new built-in type is a class here, a row in `defaults.BUILTIN` and its words in `app/rendering/wording`.
"""

import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from math import isfinite
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, StrictInt, ValidationError
from pydantic_core import PydanticCustomError

from app.catalogue import schemas
from app.core.errors import FieldError, pointer
from app.core.money import Money, NonNegativeMoney, PositiveMoney, money_string, parse_money

MORE_KEYS = 50
LONGEST_STRING = 1000
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def _scalar(value: object) -> object:
    kind = type(value)
    if kind is str:
        if len(value) > LONGEST_STRING:  # type: ignore[arg-type]
            raise PydanticCustomError("string_too_long", "Shorten the text to 1,000 characters.")
        return value
    if value is None or kind is bool or kind is int or (kind is float and isfinite(value)):  # type: ignore[arg-type]
        return value
    raise PydanticCustomError("scalar", "Send a string, a number, a boolean or null: further keys hold no lists and no objects.")


def _key(value: object) -> object:
    if isinstance(value, str) and NAME.fullmatch(value):
        return value
    raise PydanticCustomError("key_name", "Name the key in Latin letters, digits and underscores, a letter first, at most 64: templates know it by this name.")


def _written_as_date(value: object) -> object:
    # Pydantic would take seconds since 1970, too.
    if isinstance(value, str | date):
        return value
    raise PydanticCustomError("date_type", 'Write the date as a string, e.g. "2026-12-01".')


Day = Annotated[date, BeforeValidator(_written_as_date)]
Word = Annotated[str, Field(min_length=1, max_length=100)]
Title = Annotated[str, Field(min_length=1, max_length=300)]


class Open(BaseModel):
    """Own keys are checked; further ones may be scalars, and reach the templates."""

    model_config = ConfigDict(extra="allow", frozen=True)

    __pydantic_extra__: dict[Annotated[str, AfterValidator(_key)], Annotated[Any, PlainValidator(_scalar)]]


class EventData(Open):
    """What the data of every event may say."""

    balance: Money | None = Field(default=None, description="The balance after what happened", examples=["612.30"])


class Service(Open):
    code: Word = Field(examples=["internet-100"])
    name: Title = Field(examples=["Internet 100"])


class ExpectedCharge(Open):
    """A charge of `charges.upcoming`."""

    id: Word = Field(examples=["s1"])
    title: Title = Field(examples=["Home 100"])
    amount: NonNegativeMoney = Field(examples=["600.00"])


class DatedCharge(ExpectedCharge):
    """A charge of `balance.exhausting`, where they fall on several days."""

    due_on: Day = Field(examples=["2026-12-01"])


class PaymentReceived(EventData):
    amount: PositiveMoney = Field(examples=["500.00"])
    method: Word | None = Field(default=None, examples=["card"])


class ServiceConnected(EventData):
    service: Service
    price: NonNegativeMoney | None = Field(default=None, examples=["300.00"])
    period: Word | None = Field(default=None, examples=["month"])


class ServiceDisconnected(EventData):
    service: Service
    reason: Title | None = Field(default=None, examples=["at the subscriber's request"])


class TariffChanged(EventData):
    old_tariff: Title = Field(examples=["Home 50"])
    new_tariff: Title = Field(examples=["Home 100"])
    price: NonNegativeMoney | None = Field(default=None, examples=["600.00"])
    effective_on: Day | None = Field(default=None, examples=["2026-12-01"])


class BalanceChanged(EventData):
    """Tells nobody by itself."""

    balance: Money = Field(examples=["612.30"])


class ThresholdReached(EventData):
    balance: Money = Field(examples=["42.00"])
    threshold: Money = Field(examples=["50.00"])


class Exhausting(EventData):
    days_left: StrictInt = Field(ge=0, le=366, examples=[3])
    exhausts_on: Day = Field(examples=["2026-12-01"])
    shortfall: NonNegativeMoney | None = Field(default=None, examples=["87.70"])
    recommended_payment: NonNegativeMoney = Field(examples=["100.00"])
    charges: list[DatedCharge] = Field(default_factory=list, max_length=1000)


class Restored(EventData):
    """The money is back: what `was` told of before is not so any more."""

    balance: Money = Field(examples=["512.30"])
    was: Literal["exhaustion", "threshold"] = Field(examples=["exhaustion"])
    amount: PositiveMoney | None = Field(default=None, description="Of the payment, where it was one", examples=["500.00"])


class UpcomingCharges(EventData):
    due_on: Day = Field(examples=["2026-12-01"])
    total: NonNegativeMoney = Field(examples=["600.00"])
    charges: list[ExpectedCharge] = Field(max_length=1000)


class Verification(EventData):
    """Made by the service itself, for a contact that is not used before its code was entered."""

    code: Word = Field(examples=["482913"])
    minutes: StrictInt = Field(ge=1, description="How long the code is good for", examples=[10])


# Its messages carry a one-time code: their texts are shown to nobody, and it is no event that could be sent to us.
VERIFICATION = "contact.verification"

EVENT_TYPES: Mapping[str, type[EventData]] = {
    "payment.received": PaymentReceived,
    "service.connected": ServiceConnected,
    "service.disconnected": ServiceDisconnected,
    "tariff.changed": TariffChanged,
    "balance.changed": BalanceChanged,
    "balance.threshold_reached": ThresholdReached,
    "balance.exhausting": Exhausting,
    "balance.restored": Restored,
    "charges.upcoming": UpcomingCharges,
    VERIFICATION: Verification,
}


@dataclass(frozen=True, slots=True)
class Checked:
    """Data with nothing wrong, as it is stored: money with two decimals, optional keys that were null left out."""

    data: dict[str, Any]
    balance: Decimal | None


def check_data(code: str, data: object, schema: dict[str, Any] | None = None) -> Checked | list[FieldError]:
    """The data of an event, checked by its type's shape, by the type's JSON Schema, or (an operator's type without one) as scalars.

    Pointers begin with `/data`.
    """
    if type(data) is not dict:
        return [FieldError("/data", "object_type", "Send `data` as an object.")]
    shape = EVENT_TYPES.get(code)
    if shape is None:
        return _check_operators(data, schema)
    try:
        checked = shape.__pydantic_validator__.validate_python(data)
    except ValidationError as error:
        return _as_field_errors(error)
    if len(data) > MORE_KEYS and len(checked.__pydantic_extra__) > MORE_KEYS:
        return [_too_many()]
    return Checked(shape.__pydantic_serializer__.to_python(checked, mode="json", exclude_none=True), checked.balance)


def _check_operators(data: dict[str, Any], schema: dict[str, Any] | None) -> Checked | list[FieldError]:
    if schema is not None:
        faults = schemas.check(schema, data)
    else:
        try:
            Open.__pydantic_validator__.validate_python(data)
            faults = [_too_many()] if len(data) > MORE_KEYS else []
        except ValidationError as error:
            faults = _as_field_errors(error)
    if faults:
        return faults
    if data.get("balance") is None:
        return Checked(data, None)
    try:
        balance = parse_money(data["balance"])
    except ValueError as error:
        return [FieldError("/data/balance", "money", str(error))]
    return Checked({**data, "balance": money_string(balance)}, balance)


def _too_many() -> FieldError:
    return FieldError("/data", "too_many_keys", "Send at most 50 keys beyond those of the type.")


def _as_field_errors(error: ValidationError) -> list[FieldError]:
    found = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False)[:50]:
        steps = [step for step in fault["loc"] if step != "[key]"]
        detail = f"Add `{steps[-1]}`: this type needs it." if fault["type"] == "missing" else fault["msg"].removeprefix("Value error, ")
        found.append(FieldError(pointer("data", *steps), fault["type"], detail))
    return found


Convert = Callable[[Any], Any]


def _converter(annotation: Any) -> Convert | None:
    """How a stored value becomes a template's; None where it stays."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _converter(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return next((_converter(member) for member in get_args(annotation) if member is not type(None)), None)
    if origin is list:
        item = _converter(get_args(annotation)[0])
        return (lambda values: [item(value) for value in values]) if item else None
    if annotation is Decimal:
        return Decimal
    if annotation is date:
        return date.fromisoformat
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _reader(annotation)
    return None


def _reader(shape: type[BaseModel]) -> Convert:
    converted = [(name, convert) for name, field in shape.model_fields.items() if (convert := _converter(field.annotation)) is not None]
    absent: dict[str, Any] = {name: [] if field.default_factory is list else None for name, field in shape.model_fields.items() if not field.is_required()}

    def read(stored: dict[str, Any]) -> dict[str, Any]:
        values = {**absent, **stored}
        for name, convert in converted:
            if (value := values.get(name)) is not None:
                values[name] = convert(value)
        return values

    return read


_READERS: Mapping[str, Convert] = {code: _reader(shape) for code, shape in EVENT_TYPES.items()}


def variables_of(code: str, stored: dict[str, Any]) -> dict[str, Any]:
    """The data of an event as templates see it. A new dict; an operator's type has its values as they were sent."""
    read = _READERS.get(code)
    values: dict[str, Any] = read(stored) if read is not None else dict(stored)
    return values


def sample_of(code: str, schema: dict[str, Any] | None = None, *, complete: bool = True) -> dict[str, Any]:
    """Data that `check_data` takes, as it would be stored: with every key of the type, or with none that may be left out."""
    shape = EVENT_TYPES.get(code)
    if shape is not None:
        return _sample(shape, complete=complete)
    return schemas.sample(schema, complete=complete) if schema is not None else {}


def _sample(shape: type[BaseModel], *, complete: bool) -> dict[str, Any]:
    sample: dict[str, Any] = {}
    for name, field in shape.model_fields.items():
        if not (complete or field.is_required()):
            continue
        if field.examples:
            sample[name] = field.examples[0]
        else:
            inner = field.annotation
            item = get_args(inner)[0] if get_origin(inner) is list else inner
            assert isinstance(item, type)
            assert issubclass(item, BaseModel)
            made = _sample(item, complete=complete)
            sample[name] = made if item is inner else [made]
    return sample
