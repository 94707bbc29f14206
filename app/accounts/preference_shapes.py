"""The document of preferences as it is sent, and what it is here: leaves, each a choice at its place, so that what differs, and what was said, can be told.

    {"types": {"payment.received": {"enabled": false}}}    is    {("types", "payment.received", "enabled"): False}

A leaf that is not there is a choice that was not made: nulls and empty objects are nothing.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, StrictBool, StrictInt, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from app.accounts.shapes import AccountIn, LocaleTag, Number
from app.core.errors import field_invalid
from app.core.money import Money, money_string

MOST_INTERVALS = 7
LARGEST_DOCUMENT = 16 << 10  # octets
MOST_DAYS, LONGEST_WARNING = 10, 366

Leaves = dict[tuple[str, ...], Any]
Section = Literal["locale", "threshold", "hours", "types", "contacts"]

_clock = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]", re.ASCII).fullmatch
TypeCode = Annotated[str, StringConstraints(min_length=1, max_length=100)]


def _written_clock(value: object) -> object:
    """Midnight at the end of a day may be written as 24:00 (ISO 8601): an interval that ends at 00:00 ends there, too."""
    if value == "24:00":
        return "00:00"
    if not isinstance(value, str) or not _clock(value):
        raise PydanticCustomError("clock", 'Write the time of day as HH:MM, e.g. "09:00".')
    return value


def _sorted(values: list[int]) -> list[int]:
    if len(set(values)) != len(values):
        raise PydanticCustomError("repeated", "Name each one once.")
    return sorted(values)


def _days(value: object) -> int | list[int]:
    """One number of days, or a list of them, the earliest first. By hand: what is wrong with a union is told twice, and at no place that was sent."""
    listed: list[Any] = value if isinstance(value, list) else [value]
    if not 1 <= len(listed) <= MOST_DAYS or any(type(day) is not int or not 1 <= day <= LONGEST_WARNING for day in listed) or len({*listed}) < len(listed):
        raise PydanticCustomError("days_before", "Write a number of days from 1 to 366, or a list of up to ten different ones.")
    return sorted(listed, reverse=True) if isinstance(value, list) else int(listed[0])


Clock = Annotated[str, BeforeValidator(_written_clock)]
Weekdays = Annotated[list[Annotated[StrictInt, Field(ge=1, le=7)]], Field(min_length=1, max_length=7), AfterValidator(_sorted)]
_DAY = {"type": "integer", "minimum": 1, "maximum": LONGEST_WARNING}
_LISTED = {"type": "array", "items": _DAY, "minItems": 1, "maxItems": MOST_DAYS, "uniqueItems": True}
Days = Annotated[int | list[int], PlainValidator(_days), WithJsonSchema({"anyOf": [_DAY, _LISTED]})]


class IntervalIn(BaseModel):
    """From `from` to `to` on the clock of the account, over midnight when `to` is not later; equal ends are a whole day."""

    model_config = ConfigDict(extra="forbid")

    weekdays: Weekdays = Field(default=[1, 2, 3, 4, 5, 6, 7], description="On which days it begins: 1 is Monday")
    from_: Clock = Field(alias="from", examples=["09:00"])
    to: Clock = Field(examples=["21:00"])

    @property
    def stored(self) -> dict[str, Any]:
        return {"weekdays": self.weekdays, "from": self.from_, "to": self.to}


Hours = Annotated[list[IntervalIn], Field(max_length=MOST_INTERVALS)]


class TypeChoiceIn(BaseModel):
    """What is chosen for one type. Null, or left out: as the operator has it."""

    model_config = ConfigDict(extra="forbid")

    enabled: StrictBool | None = None
    channels: dict[TypeCode, StrictBool | None] | None = Field(default=None, description="By channel: sms, email")
    days_before: Days | None = Field(default=None, description="Own warning days: a list of balance.exhausting, one number of charges.upcoming")


class ContactChoiceIn(BaseModel):
    """What is chosen for one contact."""

    model_config = ConfigDict(extra="forbid")

    enabled: StrictBool | None = None
    types: dict[TypeCode, StrictBool | None] | None = None
    hours: Hours | None = None


class PreferencesIn(BaseModel):
    """What a subscriber has chosen, whole: whatever is left out was not chosen, and is as the operator has it."""

    model_config = ConfigDict(extra="forbid")

    locale: LocaleTag | None = Field(default=None, description="The language of what is sent; null: as the billing says")
    threshold: Money | None = Field(default=None, description="The balance at which to be warned; null: as the billing says")
    hours: Hours | None = Field(default=None, description="When to be written to; none: at any time")
    types: dict[TypeCode, TypeChoiceIn] | None = None
    contacts: dict[Annotated[str, StringConstraints(min_length=1, max_length=320)], ContactChoiceIn] | None = Field(
        default=None, description="By the id of a contact; its address does as well"
    )

    @property
    def leaves(self) -> Leaves:
        """The choices in it, those that were made."""
        found: Leaves = {
            ("locale",): self.locale,
            ("threshold",): None if self.threshold is None else money_string(self.threshold),
            ("hours",): _hours(self.hours),
        }
        for code, kind in (self.types or {}).items():
            found |= of_type(code, kind)
        for key, contact in (self.contacts or {}).items():
            place = ("contacts", key)
            found |= {(*place, "enabled"): contact.enabled, (*place, "hours"): _hours(contact.hours)}
            found |= {(*place, "types", code): said for code, said in (contact.types or {}).items()}
        return {place: value for place, value in found.items() if value is not None}


class AccountLine(AccountIn):
    """One line of an import: an account with its number."""

    number: Number
    preferences: PreferencesIn | None = Field(
        default=None, description="The keys that are given replace what was chosen under them; saying the same again does not undo what was chosen since"
    )


def of_type(code: str, kind: TypeChoiceIn) -> Leaves:
    """The choices for one type, those that were not made (null) among them."""
    place = ("types", code)
    return {
        (*place, "enabled"): kind.enabled,
        (*place, "days_before"): kind.days_before,
        **{(*place, "channels", channel): said for channel, said in (kind.channels or {}).items()},
    }


@dataclass(frozen=True, slots=True)
class Said:
    """What a line of an import says of preferences: the sections that it gives, and the choices in them."""

    sections: frozenset[str]
    leaves: Leaves

    @classmethod
    def of(cls, given: PreferencesIn) -> "Said":
        return cls(frozenset(given.model_fields_set), given.leaves)

    def over(self, earlier: "Said | None") -> "Said":
        """Both said one after the other: this one wins."""
        if earlier is None:
            return self
        return Said(earlier.sections | self.sections, replaced(earlier.leaves, self.leaves, self.sections))

    @property
    def digest(self) -> int:
        """64 bits that stand for it."""
        said = orjson.dumps([sorted(self.sections), sorted((".".join(place), value) for place, value in self.leaves.items())])
        return int.from_bytes(blake2b(said, digest_size=8).digest(), "big", signed=True)


def _hours(given: list[IntervalIn] | None) -> list[dict[str, Any]] | None:
    return [interval.stored for interval in given] if given else None


def leaves_of(document: Mapping[str, Any]) -> Leaves:
    """The choices in a stored document."""
    found: Leaves = {(name,): document.get(name) for name in ("locale", "threshold", "hours")}
    for code, kind in document.get("types", {}).items():
        found |= {("types", code, name): kind.get(name) for name in ("enabled", "days_before")}
        found |= {("types", code, "channels", channel): said for channel, said in kind.get("channels", {}).items()}
    for key, contact in document.get("contacts", {}).items():
        found |= {("contacts", key, name): contact.get(name) for name in ("enabled", "hours")}
        found |= {("contacts", key, "types", code): said for code, said in contact.get("types", {}).items()}
    return {place: value for place, value in found.items() if value is not None and value != []}


def document_of(leaves: Leaves) -> dict[str, Any]:
    """The document, as it is stored and shown."""
    document: dict[str, Any] = {}
    for (*way, last), value in leaves.items():
        at = document
        for step in way:
            at = at.setdefault(step, {})
        at[last] = value
    return document


def differing(before: Leaves, after: Leaves) -> dict[tuple[str, ...], tuple[Any, Any]]:
    """Place -> what was there and what is there now, where that is not the same."""
    return {place: (before.get(place), after.get(place)) for place in sorted(before.keys() | after.keys()) if before.get(place) != after.get(place)}


def replaced(before: Leaves, said: Leaves, sections: Iterable[str]) -> Leaves:
    """The choices with these sections as they were said now."""
    gone = frozenset(sections)
    return {place: value for place, value in before.items() if place[0] not in gone} | {place: value for place, value in said.items() if place[0] in gone}


def without_contact(leaves: Leaves, contact_id: UUID) -> Leaves:
    """The choices without those for this contact."""
    return {place: value for place, value in leaves.items() if place[:2] != ("contacts", str(contact_id))}


def threshold_of(leaves: Leaves) -> Decimal | None:
    said = leaves.get(("threshold",))
    return None if said is None else Decimal(said)


def check_size(leaves: Leaves) -> None:
    """Invalid, when the document would be larger than anybody's choices are."""
    if len(orjson.dumps(document_of(leaves))) > LARGEST_DOCUMENT:
        raise field_invalid((), "document_too_large", f"Preferences have at most {LARGEST_DOCUMENT >> 10} KiB: leave out what is as the operator has it.")
