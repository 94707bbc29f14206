"""How the channels of one notification follow one another: all at once, the first that has somebody, or one after the other until one is delivered. Pure.

Of a chain, the messages of the first channel go as any others. Those of each following channel are made with them, held (reason `fallback`) behind the first
message of the channel before (`outbox.after_message`), until the moment at which that one was to go and `fallback_minutes` more. What becomes of them is
judged from all messages of the channel before, by the first line that applies:

    one of them is delivered                                        not needed
    their time is over, and one was taken by a gateway that never says more (e-mail, SMS without receipts)   not needed
    all have ended, and one because the notification itself is not wanted any more                          cancelled for the same reason
    all have ended                                                  the next one goes now
    one of them still waits for its hour                            they wait as long as it does, and their time more
    their time is over                                              the next one goes
    otherwise                                                       they wait
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from app.catalogue.options import SendingOptions
from app.catalogue.registry import TypeRules
from app.notifications.audience import URGENT, Around, Choice, Skipped, Told, told
from app.notifications.states import IN_OUTBOX, State

FALLBACK, NOT_NEEDED = "fallback", "not_needed"
# What a message waits for whose own hour is to come. A stop and a budget are no hours: of them nobody knows when they end.
HOURS = frozenset({"quiet_hours", "own_hours"})
NO_HOUR = frozenset({"stopped", "budget"})
# Cancelled because of its address, and not of what it says: on another channel it is as true as ever.
OF_ITS_ADDRESS = frozenset({"suppressed", "contact_removed", "not_verified", "contact_off", "contact_type_off", "channel_off", "not_chosen", "no_open_hours"})
OPEN = frozenset({*IN_OUTBOX, State.ACCEPTED, State.UNKNOWN})


class Course:
    """The channels of one notification, while its messages are made: each goes by itself."""

    after: UUID | None = None  # the message that those of the channel whose turn it is wait for
    leads = False  # whether others may wait for the messages of this channel

    def turn(self, choice: Told) -> Choice:
        """What the course makes of a choice. Contacts of one channel come together, the channels in the order of the type."""
        return choice

    def made(self, message_id: UUID, goes: datetime) -> None:
        """This message tells it, then."""


EACH_BY_ITSELF = Course()


class OneByOne(Course):
    """The first channel that has somebody, or each one behind the one before."""

    def __init__(self, rules: TypeRules, choices: Sequence[Choice], around: Around) -> None:
        self._rules, self._around = rules, around
        self._is_chain = rules.options.delivery == "chain"
        self._last = next((choice.contact.channel for choice in reversed(choices) if isinstance(choice, Told)), None)
        self._channel: str | None = None
        self._head: UUID | None = None  # of the channel whose turn it is: its first message
        self._goes = around.now  # when the last message of that channel goes

    def turn(self, choice: Told) -> Choice:
        if choice.contact.channel != self._channel:
            self.after, self._channel, self._head = self._head or self.after, choice.contact.channel, None
            self.leads = self._is_chain and self._channel != self._last
        if self.after is None:
            return choice
        if not self._is_chain:
            return Skipped(choice.contact.channel, choice.contact.id, "other_channel")
        later = told(self._rules, choice.contact, replace(self._around, now=self._goes + patience_of(self._rules.options)))
        return replace(later, waits=FALLBACK) if isinstance(later, Told) else later

    def made(self, message_id: UUID, goes: datetime) -> None:
        self._goes = goes if self._head is None else max(self._goes, goes)
        self._head = self._head or message_id


def course_of(rules: TypeRules | None, choices: Sequence[Choice], around: Around) -> Course:
    """The course of a notification, by its type."""
    return EACH_BY_ITSELF if rules is None or rules.options.delivery == "all" else OneByOne(rules, choices, around)


def first_of(rules: TypeRules | None, choices: Sequence[Choice]) -> Sequence[Choice]:
    """Those of the choices that wait for no other channel: all of them, or those of the first channel that has somebody."""
    if rules is None or rules.options.delivery == "all":
        return choices
    channel = next((choice.contact.channel for choice in choices if isinstance(choice, Told)), None)
    return [choice for choice in choices if isinstance(choice, Told) and choice.contact.channel == channel]


def patience_of(options: SendingOptions) -> timedelta:
    return timedelta(minutes=options.fallback_minutes)


@dataclass(frozen=True, slots=True)
class Earlier:
    """One message of the channel before. `not_before` while it is in the outbox; `is_all`: its gateway says no more than that it was taken."""

    state: str
    reason: str | None
    not_before: datetime | None
    is_all: bool

    @property
    def waits_for_its_hour(self) -> bool:
        return self.state == State.HELD and self.reason not in NO_HOUR


@dataclass(frozen=True, slots=True)
class Cancel:
    reason: str


@dataclass(frozen=True, slots=True)
class Go:
    """Now, or as soon as its hours allow. `because`: what became of the message before, for the history."""

    because: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Until then; nothing: until its own time."""

    until: datetime | None = None


Verdict = Cancel | Go | Wait


def judge(before: Sequence[Earlier], patience: timedelta, moment: datetime, *, is_over: bool) -> Verdict:
    """What becomes of the messages that wait for these. `is_over`: whether their time is."""
    still_open = [one for one in before if one.state in OPEN]
    if any(one.state == State.DELIVERED or (is_over and one.state == State.ACCEPTED and one.is_all) for one in before):
        return Cancel(NOT_NEEDED)
    if not still_open:
        unwanted = [one.reason for one in before if one.state == State.CANCELLED and one.reason not in OF_ITS_ADDRESS]
        return Cancel(unwanted[0] or NOT_NEEDED) if unwanted else Go(said_of(before))
    hours = [one.not_before for one in still_open if one.waits_for_its_hour and one.not_before is not None]
    if hours:
        return Wait(max(*hours, moment) + patience)
    return Go(said_of(before)) if is_over else Wait()


def said_of(before: Sequence[Earlier]) -> str:
    return ", ".join(sorted({f"{one.state} ({one.reason})" if one.reason else one.state for one in before})) or "gone"


def spread_over(message_id: UUID, begins: datetime, until: datetime | None, width: timedelta) -> timedelta:
    """How much later than its window a message goes, so that not all go at once: always the same for the same id, and within the window."""
    if until is not None:
        width = min(width, until - begins)
    # RFC 9562, 5.7: the last bits are random.
    return max(width, timedelta(0)) * ((message_id.int & 0xFFFFFFFF) / 2**32)


def spread(choice: Told, message_id: UUID, width: timedelta) -> Told:
    """The choice, shifted when it waits for hours to open; nobody lets an urgent one wait longer."""
    if not width or choice.waits not in HOURS or choice.priority == URGENT:
        return choice
    shift = spread_over(message_id, choice.not_before, choice.send_until, width)
    return replace(choice, not_before=choice.not_before + shift, expires_at=choice.expires_at + shift)
