"""Who is told of an event, on which contact, and who is not and why. Pure: the same input decides the same."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from app.accounts.preferences import NOTHING, Preferences, refusal
from app.accounts.window import Opening, Quiet, next_open, open_until
from app.catalogue.registry import TypeRules
from app.catalogue.types import VERIFICATION

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
    verified: bool = True  # the billing vouches for its own; the subscriber's are proved by a code


@dataclass(frozen=True, slots=True)
class Skipped:
    channel: str | None
    contact_id: UUID | None
    reason: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """To be told: from when, until when, and after when it would be of no use."""

    contact: Reached
    not_before: datetime
    send_until: datetime | None
    expires_at: datetime
    priority: int
    waits: str | None = None  # what for, when not_before is to come
    coalesce_key: str | None = None  # by which later events of the same find it


Choice = Told | Skipped


@dataclass(frozen=True, slots=True)
class Around:
    """What is so at the moment of a decision: the clock of the account, the operator's quiet hours there, what the subscriber has chosen."""

    now: datetime
    zone: ZoneInfo
    quiet: Quiet
    chosen: Preferences = NOTHING

    def opening(self, rules: TypeRules, channel: str, contact_id: UUID | None) -> Opening:
        """When a message of this type may go. Quiet hours are for SMS: an e-mail wakes nobody; the subscriber's own hours are for both."""
        quiet = self.quiet if channel == "sms" and not rules.passes_quiet_hours else None
        return Opening(self.zone, quiet, () if rules.passes_window else self.chosen.hours_of(contact_id))


def choose(rules: TypeRules | None, status: str, contacts: Iterable[Reached], event_time: datetime, around: Around) -> list[Choice]:
    """A choice for each channel and contact. `rules` is None for an event that tells nobody by itself."""
    refused = whole_refusal(rules, status, event_time, around.now)
    if rules is None or refused is not None:
        return [Skipped(None, None, refused or "tells_nobody")]
    choices: list[Choice] = []
    for channel in rules.channels:
        reached = [contact for contact in contacts if contact.channel == channel]
        if not reached:
            choices.append(Skipped(channel, None, "no_contact"))
        choices += [_choice(rules, contact, around) for contact in reached]
    return choices


def _choice(rules: TypeRules, contact: Reached, around: Around) -> Choice:
    reason = contact_refusal(rules, contact, around.chosen)
    return Skipped(contact.channel, contact.id, reason) if reason is not None else told(rules, contact, around)


def contact_refusal(rules: TypeRules, contact: Reached, chosen: Preferences) -> str | None:
    """Why this contact is not told of this type, if so."""
    if not contact.verified and rules.code != VERIFICATION:  # which is for those alone
        return "not_verified"
    if is_barred(rules, contact):
        return "suppressed"
    return refusal(rules, contact.channel, contact.id, chosen)


def is_barred(rules: TypeRules, contact: Reached) -> bool:
    """Whether a suppression keeps this type away. What the operator must tell goes against anybody's wish, but not to where nobody is; a code that some
    subscriber asks for does not."""
    return contact.dead or (contact.suppressed and (not rules.mandatory or rules.code == VERIFICATION))


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


def told(rules: TypeRules, contact: Reached, around: Around) -> Choice:
    """When this contact is told; skipped when its hours and the quiet ones leave no moment."""
    opening = around.opening(rules, contact.channel, contact.id)
    not_before = next_open(around.now, opening)
    if not_before is None:
        return Skipped(contact.channel, contact.id, "no_open_hours")
    priority = URGENT if rules.urgent else ORDINARY
    waits = why_closed(around.now, opening) if not_before > around.now else None
    return Told(contact, not_before, open_until(not_before, opening), not_before + rules.ttl, priority, waits)


def why_closed(moment: datetime, opening: Opening) -> str:
    """What a message waits for: the end of the operator's quiet hours, or the subscriber's own hours."""
    return "quiet_hours" if opening.quiet is not None and opening.quiet.has(moment.astimezone(opening.zone)) else "own_hours"


def skipped_decision(code: str, choice: Skipped) -> dict[str, Any]:
    """As the notification keeps it. No address: the contact's own row has it, and an erasure finds it there."""
    return {
        "type": code,
        "channel": choice.channel,
        "contact_id": str(choice.contact_id) if choice.contact_id else None,
        "outcome": "skipped",
        "reason": choice.reason,
    } | ({"detail": choice.detail} if choice.detail is not None else {})
