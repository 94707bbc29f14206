"""What is wrong with choices, and what they will not do that somebody may expect. Pure.

A choice that was there already is not judged again: a type that has become mandatory since, or a limit that the operator has lowered, must not keep the
subscriber from changing anything else. Hours of a contact are judged again with those of the account: the two have to have a moment in common.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from app.accounts.contacts import AddressError, normalise
from app.accounts.preference_shapes import Leaves
from app.accounts.preferences import hours_of
from app.accounts.window import Intervals, Opening, Quiet, next_open
from app.catalogue.registry import TypeRules
from app.core.errors import FieldError, Invalid, pointer

OWN_DAYS_MOST, OWN_DAYS_COUNT = 30, 5  # unless the operator says otherwise
EXHAUSTING, UPCOMING, THRESHOLD = "balance.exhausting", "charges.upcoming", "balance.threshold_reached"
# The code that proves a contact goes to it whatever was chosen: there is nothing to choose.
NOT_CHOSEN = frozenset({"contact.verification"})
UTC = ZoneInfo("UTC")
NEVER = Quiet.alike((time(), time()))


@dataclass(frozen=True, slots=True)
class KnownContact:
    """A contact of the account whose preferences are judged."""

    id: UUID
    channel: str
    address: str


@dataclass(frozen=True, slots=True)
class Known:
    """What the choices are judged by."""

    types: Mapping[str, TypeRules]
    now: datetime
    contacts: Sequence[KnownContact] = ()
    credit_limit: Decimal = Decimal(0)
    zone: ZoneInfo = UTC
    quiet: Quiet = NEVER


def check(before: Leaves, after: Leaves, known: Known, root: tuple[str, ...] = ()) -> None:
    """Invalid, with every choice that cannot be made. `root`: where in the body the document stands."""
    contacts = {str(contact.id): contact for contact in known.contacts}
    found: list[FieldError] = []
    other_hours = before.get(("hours",)) != after.get(("hours",))
    for place, value in after.items():
        is_news = before.get(place) != value or (other_hours and place[0] == "contacts" and place[-1] == "hours" and place[1] in contacts)
        if is_news and (fault := _fault(place, value, after, known, contacts)) is not None:
            found.append(FieldError(pointer(*root, *place), *fault))
    if found:
        raise Invalid(f"{found[0].pointer}: {found[0].detail}" + (f" (and {len(found) - 1} more)" if len(found) > 1 else ""), errors=found[:50])


Fault = tuple[str, str] | None  # a code, and a sentence


def _fault(place: tuple[str, ...], value: Any, after: Leaves, known: Known, contacts: Mapping[str, KnownContact]) -> Fault:
    match place:
        case ("threshold",):
            return _threshold_fault(Decimal(value), known)
        case ("types", code, *rest):
            return _type_fault(code, rest, value, known.types.get(code))
        case ("contacts", key, *_) if key not in contacts:
            return "unknown_contact", "The account has no such contact: read its contacts, and name one of them by its id."
        case ("contacts", key, "types", code):
            return _contact_type_fault(contacts[key], code, value, known.types.get(code))
        case ("contacts", _, "hours"):
            together = (hours_of(after.get(("hours",), ())), hours_of(value))
            if next_open(known.now, Opening(known.zone, None, together)) is None:
                return "no_open_hours", "These hours and those of the account have no moment in common: nothing could ever be sent here."
    return None


def _type_fault(code: str, rest: Sequence[str], value: Any, rules: TypeRules | None) -> Fault:
    if rules is None or code in NOT_CHOSEN:
        return "unknown_type", "There is no notification type of this code."
    if rest[0] == "days_before":
        return _days_fault(rules, value)
    if rest[0] == "channels" and rest[1] not in rules.channels:
        return "unknown_channel", f"This type goes by {' and '.join(rules.channels)} alone."
    return _mandatory(rules) if rules.mandatory and value is False else None


def _contact_type_fault(contact: KnownContact, code: str, value: Any, rules: TypeRules | None) -> Fault:
    if rules is None or code in NOT_CHOSEN:
        return "unknown_type", "There is no notification type of this code."
    if contact.channel not in rules.channels:
        return "unknown_channel", f"This type goes by {' and '.join(rules.channels)} alone, and this contact is none of that."
    return _mandatory(rules) if rules.mandatory and value is False else None


def _mandatory(rules: TypeRules) -> Fault:
    return "mandatory", f"This type cannot be turned off: {rules.options.ground or 'the operator has to tell it'}"


def _days_fault(rules: TypeRules, value: Any) -> Fault:
    if rules.code not in (EXHAUSTING, UPCOMING):
        return "unknown_setting", f"Only {EXHAUSTING} and {UPCOMING} have days of warning."
    most = rules.settings.get("own_days_most", OWN_DAYS_MOST)
    if rules.code == UPCOMING:
        if isinstance(value, list):
            return "days_before", "Upcoming charges are told once: write one number of days."
        return ("days_before", f"Choose at most {most} days.") if value > most else None
    if not isinstance(value, list):
        return "days_before", "Write the days of warning as a list, e.g. [5, 2]."
    count = rules.settings.get("own_days_count", OWN_DAYS_COUNT)
    if len(value) > count:
        return "days_before", f"Choose at most {count} days of warning."
    return ("days_before", f"Choose at most {most} days.") if max(value) > most else None


def _threshold_fault(value: Decimal, known: Known) -> Fault:
    rules = known.types.get(THRESHOLD)
    most = rules.settings.get("own_threshold_most") if rules is not None else None
    if most is not None and value > Decimal(most):
        return "threshold", f"Choose at most {most}."
    if value < -known.credit_limit:
        return "threshold", f"Choose at least {-known.credit_limit or Decimal('0.00')}: below that the account has nothing left."
    return None


def warnings_of(leaves: Leaves, known: Known) -> list[FieldError]:
    """Hours that leave no SMS a moment: they are no mistake where somebody wants letters alone, or sleeps by day; and quiet hours may change any time."""
    found, account = [], hours_of(leaves.get(("hours",), ()))
    if not any(not rules.passes_quiet_hours and not rules.passes_window and "sms" in rules.channels for rules in known.types.values()):
        return []
    phones = [contact for contact in known.contacts if contact.channel == "sms"]
    if account and phones and _is_shut((account,), known):
        return [_no_sms(("hours",))]
    for contact in phones:
        own = hours_of(leaves.get(("contacts", str(contact.id), "hours"), ()))
        if own and _is_shut((account, own), known):
            found.append(_no_sms(("contacts", str(contact.id), "hours")))
    return found


def _is_shut(own: tuple[Intervals, ...], known: Known) -> bool:
    return next_open(known.now, Opening(known.zone, known.quiet, own)) is None


def _no_sms(place: tuple[str, ...]) -> FieldError:
    return FieldError(pointer(*place), "no_open_hours", "The operator's quiet hours leave none of these for SMS: only what is urgent will come.")


def with_ids(leaves: Leaves, contacts: Sequence[KnownContact], region: str) -> Leaves:
    """The choices with contacts by their ids, where somebody has named them by their addresses. What is neither stays, to be refused."""
    by_address = {(contact.channel, contact.address): str(contact.id) for contact in contacts}
    names: dict[str, str] = {}

    def name(key: str) -> str:
        if key not in names:
            names[key] = _id_of(key, by_address, region)
        return names[key]

    return {(place[0], name(place[1]), *place[2:]) if place[0] == "contacts" else place: value for place, value in leaves.items()}


def _id_of(key: str, by_address: Mapping[tuple[str, str], str], region: str) -> str:
    try:
        return str(UUID(key))
    except ValueError:
        pass
    channel = "email" if "@" in key else "sms"
    try:
        return by_address.get((channel, normalise(channel, key, region)), key)
    except AddressError:
        return key
