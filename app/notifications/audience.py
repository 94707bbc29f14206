"""Who is told of an event, on which contact, and who is not and why. Pure: the same input decides the same."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from app.accounts.window import Hours, next_open, open_until
from app.catalogue.registry import TypeRules

URGENT, ORDINARY = 0, 1


@dataclass(frozen=True, slots=True)
class Reached:
    """A contact as planning sees it. `suppressed`: nobody wants to be written to there; `dead`: there is nobody there."""

    id: UUID
    channel: str
    address: str
    label: str
    suppressed: bool
    dead: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    channel: str | None
    contact_id: UUID | None
    reason: str


@dataclass(frozen=True, slots=True)
class Told:
    """To be told: from when, until when, and after when it would be of no use."""

    contact: Reached
    not_before: datetime
    send_until: datetime | None
    expires_at: datetime
    priority: int


Choice = Told | Skipped


def choose(
    rules: TypeRules | None, status: str, contacts: Iterable[Reached], event_time: datetime, zone: ZoneInfo, quiet: Hours, now: datetime
) -> list[Choice]:
    """A choice for each channel and contact. `rules` is None for an event that tells nobody by itself."""
    refusal = whole_refusal(rules, status, event_time, now)
    if rules is None or refusal is not None:
        return [Skipped(None, None, refusal or "tells_nobody")]
    choices: list[Choice] = []
    for channel in rules.channels:
        reached = [contact for contact in contacts if contact.channel == channel]
        if not reached:
            choices.append(Skipped(channel, None, "no_contact"))
        choices += [Skipped(channel, contact.id, "suppressed") if is_barred(rules, contact) else told(rules, contact, zone, quiet, now) for contact in reached]
    return choices


def is_barred(rules: TypeRules, contact: Reached) -> bool:
    """Whether a suppression keeps this type away. What the operator must tell goes against anybody's wish, but not to where nobody is."""
    return contact.dead or (contact.suppressed and not rules.mandatory)


def whole_refusal(rules: TypeRules | None, status: str, event_time: datetime, now: datetime) -> str | None:
    """Why nobody at all is told, if so."""
    if rules is None:
        return "tells_nobody"
    if not rules.enabled:
        return "type_disabled"
    if status == "closed" and not rules.mandatory:
        return "account_closed"
    if event_time + rules.ttl <= now:
        return "too_late"
    return None


def told(rules: TypeRules, contact: Reached, zone: ZoneInfo, quiet: Hours, now: datetime) -> Told:
    """When this contact is told. Quiet hours are for SMS: an e-mail wakes nobody."""
    keeps_quiet = contact.channel == "sms" and not rules.passes_quiet_hours
    not_before = next_open(now, zone, quiet) if keeps_quiet else now
    send_until = open_until(not_before, zone, quiet) if keeps_quiet else None
    return Told(contact, not_before, send_until, max(now, not_before) + rules.ttl, URGENT if rules.urgent else ORDINARY)


def skipped_decision(code: str, choice: Skipped) -> dict[str, Any]:
    """As the notification keeps it. No address: the contact's own row has it, and an erasure finds it there."""
    return {
        "type": code,
        "channel": choice.channel,
        "contact_id": str(choice.contact_id) if choice.contact_id else None,
        "outcome": "skipped",
        "reason": choice.reason,
    }
