"""What a subscriber has chosen, and the one rule by which a contact is told of a type or is not.

The rule, from top to bottom; the first line that applies decides:

    the type is mandatory                                 told: nobody can turn it off
    the type is off for this account                      type_off
    its channel is off for this type                      channel_off
    this contact is off                                   contact_off
    this type is off for this contact                     contact_type_off
    its channel, or this contact, is on for this type     told
    the channel is not among the type's default ones      not_chosen
    the type is on for this account                       told
    the type is one that has to be chosen                 not_chosen
    otherwise                                             told

A no at any level is a no; a yes counts against the operator's default alone. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import time
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson

from app.accounts.window import EVERY_DAY, Interval, Intervals
from app.catalogue.registry import TypeRules


@dataclass(frozen=True, slots=True)
class TypeChoice:
    """What was chosen for one type. None, or left out: nothing was."""

    enabled: bool | None = None
    channels: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContactChoice:
    """What was chosen for one contact."""

    enabled: bool | None = None
    types: Mapping[str, bool] = field(default_factory=dict)
    hours: Intervals = ()


@dataclass(frozen=True, slots=True)
class Preferences:
    """A document as planning asks for it. `locale`: none, as the billing says."""

    types: Mapping[str, TypeChoice] = field(default_factory=dict)
    contacts: Mapping[UUID, ContactChoice] = field(default_factory=dict)
    hours: Intervals = ()
    locale: str | None = None

    def hours_of(self, contact_id: UUID | None) -> tuple[Intervals, ...]:
        """The account's and the contact's: a message needs a moment that both have."""
        choice = self.contacts.get(contact_id) if contact_id is not None else None
        return tuple(hours for hours in (self.hours, choice.hours if choice is not None else ()) if hours)


NOTHING = Preferences()


def refusal(rules: TypeRules, channel: str, contact_id: UUID, chosen: Preferences) -> str | None:
    """Why this contact is not told of this type on this channel; nothing when it is."""
    if rules.mandatory:
        return None
    kind, contact = chosen.types.get(rules.code, _NO_TYPE), chosen.contacts.get(contact_id, _NO_CONTACT)
    for off, reason in (
        (kind.enabled, "type_off"),
        (kind.channels.get(channel), "channel_off"),
        (contact.enabled, "contact_off"),
        (contact.types.get(rules.code), "contact_type_off"),
    ):
        if off is False:
            return reason
    if kind.channels.get(channel) or contact.types.get(rules.code):
        return None
    if channel not in rules.default_channels:
        return "not_chosen"
    return "not_chosen" if rules.options.opt_in and not kind.enabled else None


_NO_TYPE, _NO_CONTACT = TypeChoice(), ContactChoice()
_NOBODY = UUID(int=0)


def is_wanted(rules: TypeRules, chosen: Preferences) -> bool:
    """Whether some contact can be told of this type at all, whichever there are."""
    reasons = {refusal(rules, channel, _NOBODY, chosen) for channel in rules.channels}
    return None in reasons or ("not_chosen" in reasons and any(contact.types.get(rules.code) for contact in chosen.contacts.values()))


@lru_cache(maxsize=8192)
def read(document: str | None) -> Preferences:
    """The document as it is stored (JSON)."""
    if document is None:
        return NOTHING
    said = orjson.loads(document)
    types = {code: TypeChoice(one.get("enabled"), one.get("channels", {})) for code, one in said.get("types", {}).items()}
    contacts = {
        UUID(contact_id): ContactChoice(one.get("enabled"), one.get("types", {}), hours_of(one.get("hours", ())))
        for contact_id, one in said.get("contacts", {}).items()
    }
    return Preferences(types, contacts, hours_of(said.get("hours", ())), said.get("locale"))


def hours_of(said: Any) -> Intervals:
    """Intervals as a document has them."""
    return tuple(Interval(time.fromisoformat(one["from"]), time.fromisoformat(one["to"]), frozenset(one.get("weekdays") or EVERY_DAY)) for one in said)
