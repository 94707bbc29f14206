"""What would happen if an event came at this moment: who would be told, by which rule, and who would not. Decided as planning does, and written nowhere."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.preferences import Preferences, read
from app.accounts.quiet import QuietHoursNow
from app.catalogue.registry import Catalogue, TypeRules
from app.core.clock import now
from app.core.config import Settings
from app.desk.explain_event import Since
from app.desk.steps import Step, Teller
from app.notifications.audience import Around, Reached, Skipped, Told, choose
from app.notifications.caps import CAPS, Counted, limits_in
from app.notifications.coalesce import first_told
from app.notifications.delivery import course_of
from app.notifications.plan import ACCOUNTS, CONTACTS, zone_of

LIMITS = sa.text(f"SELECT {CAPS}")
WRITTEN = sa.text("SELECT DISTINCT channel FROM template WHERE type = :type AND published_version IS NOT NULL")


@dataclass(frozen=True, slots=True)
class Imagined:
    """An event that has not come."""

    type: str
    account: Any


async def now_steps(session: AsyncSession, teller: Teller, account_id: Any, code: str, catalogue: Catalogue, settings: Settings) -> list[Step]:
    moment, rules = now(), catalogue.types.get(code)
    account = (await session.execute(ACCOUNTS, {"ids": [account_id]})).one()
    contacts = [Reached(contact_id, *rest) for contact_id, _, *rest in await session.execute(CONTACTS, {"ids": [account_id]})]
    quiet = QuietHoursNow(settings.quiet)
    await quiet.refresh(session)
    around = Around(moment, zone_of(account.timezone, settings.timezone), quiet.of(account.timezone), read(account.chosen_json))
    limits = limits_in((await session.execute(LIMITS)).scalar_one())
    written = set((await session.execute(WRITTEN, {"type": code})).scalars())
    counted = await Counted.of(session, [Imagined(code, account)], catalogue.types, limits)
    choices = choose(rules, account.status, contacts, moment, around)
    too_much, course = counted.refusal(account_id, rules, first_told(rules, "", choices, around), around.zone), course_of(rules, choices, around)
    since = await Since.of(session, account_id, [contact.address for contact in contacts], moment)
    addresses = {contact.id: contact.address for contact in contacts}
    steps = [teller.step("now", None)]
    for chosen in choices:
        choice = chosen if isinstance(chosen, Skipped) else course.turn(chosen)
        if isinstance(choice, Told) and too_much is not None:
            choice = Skipped(choice.contact.channel, choice.contact.id, *too_much)
        if isinstance(choice, Told) and choice.contact.channel not in written:
            choice = Skipped(choice.contact.channel, choice.contact.id, "no_template")
        if isinstance(choice, Told) and rules is not None:
            course.made(choice.contact.id, choice.not_before)
            steps.append(_told(teller, choice, rule_of(rules, choice.contact, around.chosen), moment))
        elif isinstance(choice, Skipped):
            steps.append(_skipped(teller, code, choice, addresses, since, moment))
    return steps


def rule_of(rules: TypeRules, contact: Reached, chosen: Preferences) -> str:
    """By which line of the rule (see `accounts.preferences`) a contact that is told is told."""
    if rules.mandatory:
        return "rule_mandatory"
    kind, own = chosen.types.get(rules.code), chosen.contacts.get(contact.id)
    said = [kind.enabled, kind.channels.get(contact.channel)] if kind is not None else []
    said += [own.types.get(rules.code)] if own is not None else []
    return "rule_chosen" if any(said) else "rule_default"


def _told(teller: Teller, choice: Told, rule: str, moment: datetime) -> Step:
    common: dict[str, Any] = {"channel": choice.contact.channel, "address": choice.contact.address, "contact_id": choice.contact.id, "rule": teller.piece(rule)}
    if choice.not_before <= moment and choice.waits is None:
        return teller.step("would_tell", None, **common)
    return teller.step("would_tell_later", None, reason=choice.waits, not_before=choice.not_before, **common)


def _skipped(teller: Teller, code: str, choice: Skipped, addresses: dict[Any, str], since: Since, moment: datetime) -> Step:
    address = addresses.get(choice.contact_id)
    why = since.say(teller, {"type": code, "channel": choice.channel, "address": address, "reason": choice.reason, "detail": choice.detail}, moment)
    common: dict[str, Any] = {"channel": choice.channel, "address": address, "contact_id": choice.contact_id}
    return teller.step("would_skip_since" if why else "would_skip", None, reason=choice.reason, since=why, **common)
