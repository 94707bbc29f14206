"""What the billing and the operators send about an account. Addresses are checked one step later: they need the operator's region."""

import calendar
import math
import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, Literal, Self
from zoneinfo import available_timezones

from babel import Locale, UnknownLocaleError
from babel.numbers import is_currency
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.core.clock import now
from app.core.money import Money, NonNegativeMoney

MAX_CONTACTS, MAX_CHARGES, MAX_ATTRIBUTES = 20, 200, 50
# What an erased account is renamed to begins so: nobody else's number may.
TOMBSTONE = "erased:"
# How far another clock may be ahead of ours.
FUTURE = timedelta(minutes=10)

Status = Literal["active", "suspended", "closed"]
Channel = Literal["sms", "email"]
Kind = Literal["once", "daily", "weekly", "monthly", "yearly"]

# Which fields say when a charge of each kind falls due.
DUE: dict[str, frozenset[str]] = {
    "once": frozenset({"on"}),
    "daily": frozenset(),
    "weekly": frozenset({"weekday"}),
    "monthly": frozenset({"day"}),
    "yearly": frozenset({"month", "day"}),
}
_DUE_FIELDS = ("on", "weekday", "month", "day")

_bad_in_number = re.compile(r"[/\x00-\x1f\x7f-\x9f]").search
_instant = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+-]\d\d:\d\d)", re.ASCII).fullmatch
_day = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII).fullmatch
# BCP 47: a language, perhaps a script, perhaps a region.
_locale = re.compile(r"([A-Za-z]{2,3})(?:[-_]([A-Za-z]{4}))?(?:[-_]([A-Za-z]{2}|[0-9]{3}))?").fullmatch


def check_number(number: str) -> str:
    """An account's number: the billing's own string, as it is, but one that can stand in a path."""
    if _bad_in_number(number):
        raise PydanticCustomError("number_characters", "A number has no slash and no control characters.")
    if number in {".", ".."} or number.startswith(TOMBSTONE):
        raise PydanticCustomError("number_reserved", "This cannot be the number of an account.")
    return number


def _written_instant(value: object) -> object:
    # Pydantic would take 1700000000 for a time as well: whoever sends a bare number has not said what it means.
    if not isinstance(value, str) or not _instant(value):
        raise PydanticCustomError("time", "Write the time with its date and offset (RFC 3339), e.g. 2026-11-23T09:59:00+03:00.")
    return value


def _plausible(value: datetime) -> datetime:
    if value.year < 2000 or value > now() + FUTURE:
        raise PydanticCustomError("time_implausible", "A balance is of a time between the year 2000 and now.")
    return value.astimezone(UTC)


def _written_day(value: object) -> object:
    if type(value) is date:
        return value
    if not isinstance(value, str) or not _day(value):
        raise PydanticCustomError("date", "Write the date as YYYY-MM-DD.")
    return value


@lru_cache(maxsize=1)
def known_zones() -> frozenset[str]:
    # What a Linux system keeps beside the zones: its own clock is nobody's.
    return frozenset(available_timezones() - {"localtime", "posixrules", "Factory"})


def _zone(name: str) -> str:
    if name not in known_zones():
        raise PydanticCustomError("timezone", "This is no IANA time zone: write e.g. Asia/Yekaterinburg.")
    return name


@lru_cache(maxsize=1024)
def tidy_locale(tag: str) -> str | None:
    """`ru_ru` as `ru-RU`; None when no such language is known."""
    found = _locale(tag)
    if found is None:
        return None
    language, script, region = found[1].lower(), found[2], found[3]
    try:
        Locale.parse(language)
    except (UnknownLocaleError, ValueError):
        return None
    return "-".join(part for part in (language, script and script.title(), region and region.upper()) if part)


def _known_locale(tag: str) -> str:
    tidy = tidy_locale(tag)
    if tidy is None:
        raise PydanticCustomError("locale", "This is no language tag that is known here: write e.g. ru, en or ru-RU.")
    return tidy


@lru_cache(maxsize=512)
def is_known_currency(code: str) -> bool:
    return bool(is_currency(code))


def _known_currency(code: str) -> str:
    if not is_known_currency(code):
        raise PydanticCustomError("currency", "This is no currency of ISO 4217: write e.g. RUB.")
    return code


def _few(value: dict[str, Any]) -> dict[str, Any]:
    if len(value) > MAX_ATTRIBUTES:
        raise PydanticCustomError("too_many_attributes", "An account has at most {most} attributes.", {"most": MAX_ATTRIBUTES})
    return value


def _scalar(value: object) -> object:
    kind = type(value)
    if value is None or kind is bool:
        return value
    # 64 bits: what every reader of JSON on the way can hold.
    fits = (kind is str and len(str(value)) <= 1000) or (kind is int and -(2**63) <= value < 2**63) or (kind is float and math.isfinite(value))  # type: ignore[operator, arg-type]
    if not fits:
        raise PydanticCustomError("attribute", "An attribute is a string of at most 1000 characters, a number, true, false or null.")
    return value


# A line of text: a line break in a name would end up in the header of an e-mail.
LINE = r"^[^\x00-\x1f\x7f]*$"
Number = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(check_number)]
Line = Annotated[str, StringConstraints(max_length=300, pattern=LINE)]
Label = Annotated[str, StringConstraints(max_length=100, pattern=LINE)]
Instant = Annotated[AwareDatetime, BeforeValidator(_written_instant), AfterValidator(_plausible)]
Day = Annotated[date, BeforeValidator(_written_day), Field(ge=date(2000, 1, 1), le=date(2199, 12, 31))]
Zone = Annotated[str, StringConstraints(max_length=64), AfterValidator(_zone)]
LocaleTag = Annotated[str, StringConstraints(max_length=16), AfterValidator(_known_locale)]
Currency = Annotated[str, StringConstraints(pattern="^[A-Z]{3}$"), AfterValidator(_known_currency)]
AttributeName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=LINE)]
Scalar = Annotated[StrictBool | StrictInt | StrictFloat | str | None, BeforeValidator(_scalar)]
Attributes = Annotated[dict[AttributeName, Scalar], AfterValidator(_few)]


class ContactIn(BaseModel):
    """Where to reach somebody, as it was written: `contacts.normalise` brings it into its one form."""

    model_config = ConfigDict(extra="forbid")

    channel: Channel
    address: Annotated[str, StringConstraints(min_length=1, max_length=320)]
    label: Label = ""


class ChargeIn(BaseModel):
    """A charge to come. Its kind says which of `on`, `weekday`, `month` and `day` belong to it."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=LINE)]
    title: Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=LINE)]
    amount: NonNegativeMoney
    kind: Kind
    on: Day | None = None
    weekday: Annotated[StrictInt, Field(ge=1, le=7, description="1 is Monday")] | None = None
    month: Annotated[StrictInt, Field(ge=1, le=12)] | None = None
    day: Annotated[StrictInt, Field(ge=1, le=31, description="A month without this day has the charge on its last one")] | None = None
    start_on: Day | None = None
    end_on: Day | None = None
    posted_through: Day | None = None
    announce: StrictBool = True

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        given = frozenset(field for field in _DUE_FIELDS if getattr(self, field) is not None)
        wanted = DUE[self.kind]
        if given != wanted:
            said = " and ".join(sorted(wanted, key=_DUE_FIELDS.index)) or "none of on, weekday, month, day"
            raise PydanticCustomError("charge_schedule", "A {kind} charge is described by {said}.", {"kind": self.kind, "said": said})
        # A leap year: the 29th of February is a day to be charged on.
        if self.month and self.day and self.day > calendar.monthrange(2000, self.month)[1]:
            raise PydanticCustomError("charge_schedule", "Month {month} has no day {day}.", {"month": self.month, "day": self.day})
        if self.start_on and self.end_on and self.end_on < self.start_on:
            raise PydanticCustomError("charge_schedule", "end_on is before start_on.")
        return self

    @property
    def slot(self) -> int:
        """When in its period, as one number: ISO weekday, day of month, month * 100 + day; 0 for once and daily."""
        return (self.weekday or 0) + (self.month or 0) * 100 + (self.day or 0)


def _unique_ids(charges: list[ChargeIn]) -> list[ChargeIn]:
    if len({charge.id for charge in charges}) < len(charges):
        raise PydanticCustomError("duplicate_charge", "Two charges have the same id.")
    return charges


class AccountPatch(BaseModel):
    """What is given replaces what is stored; what is left out, or null, stays (a null threshold alone means: never warn).

    Contacts and charges replace the billing's own ones, all of them. A balance without `balance_as_of` is one of this moment;
    one that is older than the stored one changes neither.
    """

    model_config = ConfigDict(extra="forbid")

    name: Line | None = None
    status: Status | None = None
    balance: Money | None = None
    balance_as_of: Instant | None = None
    credit_limit: NonNegativeMoney | None = None
    currency: Currency | None = None
    locale: LocaleTag | None = None
    timezone: Zone | None = None
    tariff: Line | None = None
    threshold: Money | None = Field(default=None, description="Below this the subscriber is warned; null: never")
    attributes: Attributes | None = None
    contacts: Annotated[list[ContactIn], Field(max_length=MAX_CONTACTS)] | None = None
    charges: Annotated[list[ChargeIn], Field(max_length=MAX_CHARGES), AfterValidator(_unique_ids)] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.balance_as_of is not None and self.balance is None:
            raise PydanticCustomError("balance_missing", "balance_as_of says of when a balance is: send the balance with it.")
        return self


class AccountIn(AccountPatch):
    """An account of the billing: made when there is none of this number, brought up to date when there is."""
