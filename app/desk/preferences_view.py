"""What comes of preferences, type by type and contact by contact: the answer of the rule by which planning asks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import time
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from app.accounts.models import Account
from app.accounts.preference_checks import EXHAUSTING, NOT_CHOSEN, OWN_DAYS_MOST, THRESHOLD, UPCOMING, Known
from app.accounts.preference_shapes import Leaves, PreferencesIn, document_of
from app.accounts.preferences import Preferences, read
from app.accounts.shapes import Channel
from app.accounts.window import Hours, next_open
from app.catalogue.registry import TypeRules
from app.core.errors import FieldError
from app.core.money import Money
from app.forecasts.find import wanted_from
from app.notifications.audience import Around, Reached, contact_refusal


class ToldOut(BaseModel):
    """Whether a contact, or a channel, is told of a type; `reason` when not."""

    model_config = ConfigDict(extra="forbid")

    channel: Channel
    told: bool
    reason: str | None


class ContactToldOut(ToldOut):
    contact_id: str


class TypeEffectOut(BaseModel):
    """What comes of the choices for one type."""

    model_config = ConfigDict(extra="forbid")

    code: str
    title: str
    enabled: bool = Field(description="Whether it is on for this account at all")
    mandatory: bool
    ground: str | None = Field(description="Why a mandatory type cannot be turned off")
    can_change: bool
    opt_in: bool = Field(description="Nobody is told who has not chosen it")
    channels: list[ToldOut]
    contacts: list[ContactToldOut]
    days_before: list[int] | int | None = Field(description="The days of warning in force, own or the operator's; null where a type has none")
    own_days_most: int | None = Field(description="How early one may want to be warned; null where a type has no days")


class QuietHoursOut(BaseModel):
    """The operator's quiet hours in the account's zone, for SMS that are not urgent; null: none."""

    model_config = ConfigDict(extra="forbid")

    timezone: str
    workdays: str | None
    weekends: str | None


class EffectiveOut(BaseModel):
    """What holds, whoever said it."""

    model_config = ConfigDict(extra="forbid")

    locale: str
    threshold: Money | None = Field(description="The balance at which the subscriber is warned: his own, else the billing's")
    own_threshold_most: Money | None
    quiet_hours: QuietHoursOut
    types: list[TypeEffectOut]


class WarningOut(BaseModel):
    """Something that may not do what was expected."""

    model_config = ConfigDict(extra="forbid")

    pointer: str
    code: str
    detail: str


class PreferencesOut(PreferencesIn):
    """The choices, as PUT takes them without `effective` and `warnings`, and what comes of them."""

    effective: EffectiveOut
    warnings: list[WarningOut]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the choices of an account are judged and shown by."""

    known: Known
    reached: Sequence[Reached]
    locale: str  # the operator's


def shown(account: Account, leaves: Leaves, seen: Seen, locale: str | None, warnings: Sequence[FieldError]) -> PreferencesOut:
    """The choices of an account and what comes of them, with titles in `locale`, else in the account's language."""
    known, document = seen.known, document_of(leaves)
    chosen = read(orjson.dumps(document).decode())
    around = Around(known.now, known.zone, known.quiet, chosen)
    language = chosen.locale or account.locale
    effective: dict[str, Any] = {
        "locale": language,
        "threshold": account.warned_at,
        "own_threshold_most": _setting(known.types, THRESHOLD, "own_threshold_most"),
        "quiet_hours": {"timezone": account.timezone, "workdays": _hours(known.quiet.workdays), "weekends": _hours(known.quiet.weekends)},
        "types": [
            _effect(rules, seen.reached, around, account, locale or language, known, seen.locale)
            for code, rules in sorted(known.types.items())
            if rules.enabled and code not in NOT_CHOSEN
        ],
    }
    listed = [warning.as_json() for warning in warnings]
    empty: dict[str, Any] = {"locale": None, "threshold": None, "hours": [], "types": {}, "contacts": {}}
    return PreferencesOut.model_validate(empty | document | {"effective": effective, "warnings": listed})


def _effect(rules: TypeRules, reached: Sequence[Reached], around: Around, account: Account, locale: str, known: Known, otherwise: str) -> dict[str, Any]:
    contacts = [_told(rules, contact, around) for contact in reached if contact.channel in rules.channels]
    return {
        "code": rules.code,
        "title": title_of(rules, locale, otherwise),
        "enabled": _is_on(rules, around.chosen),
        "mandatory": rules.mandatory,
        "ground": rules.options.ground if rules.mandatory else None,
        "can_change": not rules.mandatory,
        "opt_in": rules.options.opt_in,
        "channels": [_of_channel(channel, [one for one in contacts if one["channel"] == channel]) for channel in rules.channels],
        "contacts": contacts,
        "days_before": _days(rules.code, account, known.types),
        "own_days_most": rules.settings.get("own_days_most", OWN_DAYS_MOST) if rules.code in (EXHAUSTING, UPCOMING) else None,
    }


def _told(rules: TypeRules, contact: Reached, around: Around) -> dict[str, Any]:
    reason = contact_refusal(rules, contact, around.chosen)
    if reason is None and next_open(around.now, around.opening(rules, contact.channel, contact.id)) is None:
        reason = "no_open_hours"
    return {"contact_id": str(contact.id), "channel": contact.channel, "told": reason is None, "reason": reason}


def _of_channel(channel: str, contacts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Told when one of its contacts is; else the reason of the first."""
    told = any(one["told"] for one in contacts)
    reason = None if told else contacts[0]["reason"] if contacts else "no_contact"
    return {"channel": channel, "told": told, "reason": reason}


def _is_on(rules: TypeRules, chosen: Preferences) -> bool:
    if rules.mandatory:
        return True
    said = chosen.types.get(rules.code)
    return not rules.options.opt_in if said is None or said.enabled is None else said.enabled


def _days(code: str, account: Account, types: Mapping[str, TypeRules]) -> list[int] | int | None:
    wanted = wanted_from({known: rules.settings for known, rules in types.items()}).of(account)
    if code == EXHAUSTING:
        return list(wanted.warning_days)
    return wanted.upcoming_days if code == UPCOMING else None


def _setting(types: Mapping[str, TypeRules], code: str, name: str) -> Any:
    rules = types.get(code)
    return rules.settings.get(name) if rules is not None else None


def title_of(rules: TypeRules, locale: str, otherwise: str) -> str:
    """The title in this language, in the operator's, or in any."""
    for wanted in (locale, locale.partition("-")[0], otherwise, otherwise.partition("-")[0]):
        if wanted in rules.titles:
            return rules.titles[wanted]
    return next(iter(rules.titles.values()), rules.code)


def _hours(quiet: Hours) -> str | None:
    begin, end = quiet
    return None if begin == end else f"{_clock(begin)}-{_clock(end)}"


def _clock(moment: time) -> str:
    return moment.isoformat("minutes")
