"""Whether everything that was sent in a simulated month may have been sent, and nothing was forgotten. It shares no code with the product: it knows the
promises of docs/preferences.md, contacts.md, limits.md and delivery.md, what was true when, and what came out."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

OURS = "/vestnik/forecasts"
QUARTER, SECOND = timedelta(minutes=15), timedelta(seconds=1)
FAR = datetime(9000, 1, 1, tzinfo=UTC)
NO_SEND = frozenset({"cancelled", "expired"})
OPPOSITE = {"service.connected": "service.disconnected", "service.disconnected": "service.connected", "tariff.changed": "tariff.changed"}
REMINDERS = frozenset({"balance.threshold_reached", "balance.exhausting"})
ENDED = NO_SEND | {"failed", "undelivered"}
Hours = tuple[tuple[int, int, frozenset[int]], ...]  # minutes of the day from and to, ISO weekdays


@dataclass
class Kind:
    """A notification type, as the operator has set it."""

    channels: tuple[str, ...]
    ttl: timedelta
    cap: str
    mandatory: bool = False
    urgent: bool = False
    opt_in: bool = False
    enabled: bool = True
    default_channels: tuple[str, ...] | None = None
    delivery: str = "all"
    fallback: timedelta = timedelta(minutes=30)
    coalesce: timedelta = timedelta(0)
    interval: timedelta = timedelta(0)

    @property
    def passes_window(self) -> bool:
        return self.urgent or self.mandatory


@dataclass
class Contact:
    id: UUID
    channel: str
    address: str
    proved: datetime  # from then on it may be used
    removed: datetime = FAR


@dataclass
class Account:
    id: UUID
    number: str
    zone: str
    contacts: dict[UUID, Contact]
    closed: datetime = FAR
    documents: list[tuple[datetime, dict[str, Any]]] = field(default_factory=list)

    def chosen(self, at: datetime) -> dict[str, Any]:
        return latest(self.documents, at) or {}


@dataclass
class Bar:
    since: datetime
    until: datetime
    dead: bool


@dataclass
class Event:
    id: UUID
    account_id: UUID
    type: str
    source: str
    time: datetime
    service: str | None = None  # its code
    has_balance: bool = False

    @property
    def came(self) -> datetime:
        """When it was taken in: its id says so."""
        return datetime.fromtimestamp((self.id.int >> 80) / 1000, UTC)


@dataclass
class Message:
    id: UUID
    event_id: UUID
    account_id: UUID
    type: str
    channel: str
    contact_id: UUID
    address: str
    state: str
    reason: str | None
    expires_at: datetime
    updated_at: datetime


@dataclass
class Month:
    """What was so, and what came of it."""

    kinds: dict[str, Kind]
    caps: dict[str, tuple[int, int, int]]
    accounts: dict[UUID, Account]
    bars: dict[tuple[str, str], list[Bar]]
    quiet: dict[str, list[tuple[datetime, tuple[tuple[int, int], tuple[int, int]]]]]  # by zone; "" is every other one
    sent_events: dict[tuple[str, str], tuple[str, str]]  # source and id -> account's number and type
    kept_events: dict[tuple[str, str], UUID] = field(default_factory=dict)
    events: dict[UUID, Event] = field(default_factory=dict)
    decided: dict[UUID, tuple[datetime, list[dict[str, Any]]]] = field(default_factory=dict)
    messages: dict[UUID, Message] = field(default_factory=dict)
    joins: list[tuple[UUID, UUID]] = field(default_factory=list)
    claims: list[tuple[UUID, datetime, str]] = field(default_factory=list)  # message, when, what the far end said
    news: dict[UUID, list[tuple[datetime, str, str | None]]] = field(default_factory=lambda: defaultdict(list))  # states in the order in which they came
    outbox: int = 0


def latest(line: list[tuple[datetime, Any]], at: datetime) -> Any:
    place = bisect_right([since for since, _ in line], at)
    return line[place - 1][1] if place else None


class Checker:
    """`faults` is empty when the month was as promised."""

    def __init__(self, month: Month) -> None:
        self.month, self.faults = month, list[str]()
        self.agreed: Counter[str] = Counter()
        self.of_event: dict[UUID, list[Message]] = defaultdict(list)
        self.first_claim: dict[UUID, datetime] = {}
        self.told_by: dict[UUID, list[Event]] = defaultdict(list)
        self.telling: dict[UUID, list[Message]] = defaultdict(list)
        self.balances: dict[UUID, list[Event]] = defaultdict(list)
        self.changes: dict[tuple[UUID, str, str | None], list[Event]] = defaultdict(list)
        for message in month.messages.values():
            self.of_event[message.event_id].append(message)
            self.told_by[message.id].append(month.events[message.event_id])
        for event_id, joined in month.joins:
            self.told_by[joined].append(month.events[event_id])
        for message_id, events in self.told_by.items():
            for event in events:
                self.telling[event.id].append(month.messages[message_id])
        for event in month.events.values():
            if event.has_balance:
                self.balances[event.account_id].append(event)
            self.changes[event.account_id, event.type, event.service].append(event)
        for message_id, at, _ in sorted(month.claims, key=lambda one: one[1]):
            self.first_claim.setdefault(message_id, at)

    def check(self) -> list[str]:
        self._nothing_lost()
        if self.faults:  # with holes in it nothing else can be said
            return self.faults
        self._nothing_doubled()
        for message_id, at, _ in self.month.claims:
            self._may_go(self.month.messages[message_id], at)
        counted = self._counted()
        self._caps_hold(counted)
        for event_id, (at, decisions) in self.month.decided.items():
            self._decision(self.month.events[event_id], at, decisions, counted)
        for message in self.month.messages.values():
            self._ended_well(message)
        return self.faults

    def fault(self, what: str, *about: object) -> None:
        self.faults.append(f"{what}: " + ", ".join(str(one) for one in about))

    # --- nothing lost, nothing doubled

    def _nothing_lost(self) -> None:
        month = self.month
        for key in month.sent_events.keys() - month.kept_events.keys():
            self.fault("event was not kept", key)
        for event_id in month.events.keys() - month.decided.keys():
            self.fault("event was not decided", event_id)
        if month.outbox:
            self.fault("messages are left in the outbox", month.outbox)
        for event_id, (_, decisions) in month.decided.items():
            if not decisions:
                self.fault("event has no decision", event_id)
            for one in decisions:
                if one["outcome"] == "planned" and UUID(one["message_id"]) not in month.messages:
                    self.fault("planned message is not there", event_id, one)

    def _nothing_doubled(self) -> None:
        month = self.month
        told = [(message.event_id, message.contact_id, message.channel) for message in month.messages.values()]
        told += [(event_id, month.messages[joined].contact_id, month.messages[joined].channel) for event_id, joined in month.joins]
        for key, number in Counter(told).items():
            if number > 1:
                self.fault("told twice", *key, number)
        for event_id, (_, decisions) in month.decided.items():
            ids = [UUID(one["message_id"]) for one in decisions if one["outcome"] == "planned"]
            made = {message.id for message in self.of_event[event_id]}
            if not made <= set(ids) or len(ids) != len(set(ids)):
                self.fault("decisions and messages differ", event_id)
        for event_id, joined in month.joins:
            if all(UUID(one["message_id"]) != joined for one in month.decided[event_id][1] if one["outcome"] == "planned"):
                self.fault("joined without a decision", event_id, joined)
        tries: dict[UUID, list[str]] = defaultdict(list)
        for message_id, _, said in month.claims:
            tries[message_id].append(said)
        for message_id, said in tries.items():
            if any(one != "deferred" for one in said[:-1]):
                self.fault("went twice", message_id, said)

    # --- what was claimed

    def _may_go(self, message: Message, at: datetime) -> None:
        account, kind = self.month.accounts[message.account_id], self.month.kinds[message.type]
        contact = account.contacts.get(message.contact_id)
        if contact is None or (contact.channel, contact.address) != (message.channel, message.address):
            return self.fault("not a contact of this account", message)
        if contact.removed <= at:
            self.fault("contact was removed", message.id, at, contact)
        if (refusal := self._refusal(account, contact, message.type, at)) is not None:
            self.fault("should not have gone", refusal, message.id, message.type, at)
        if not self._is_open(account, contact, kind, at):
            self.fault("outside its hours", message.id, message.type, message.channel, at, account.zone, account.chosen(at).get("hours"))
        if message.channel not in kind.channels:
            self.fault("channel is none of the type's", message.id)
        if at >= message.expires_at:
            self.fault("went after its time", message.id, at, message.expires_at)
        event = self.month.events[message.event_id]
        planned = self.month.decided[event.id][0]
        if at < planned:
            self.fault("went before it was planned", message.id)
        if kind.coalesce and event.source != OURS and message.channel == self._first_channel(message) and at < planned + kind.coalesce:
            self.fault("did not wait for others", message.id, at, planned)
        if kind.delivery == "chain":
            self._turn_has_come(message, kind, at)
        if kind.delivery == "first" and len({one.channel for one in self.of_event[event.id]}) > 1:
            self.fault("more than the first channel", message.id)
        return None

    def _first_channel(self, message: Message) -> str:
        kind = self.month.kinds[message.type]
        if kind.delivery == "all":
            return message.channel
        return min((one.channel for one in self.of_event[message.event_id]), key=kind.channels.index)

    def _turn_has_come(self, message: Message, kind: Kind, at: datetime) -> None:
        place = kind.channels.index(message.channel)
        before = [one for one in self.of_event[message.event_id] if kind.channels.index(one.channel) == place - 1]
        if not before:
            return None
        if any(state == "delivered" for one in before for _, state, _ in self._news_until(one.id, at)):
            return self.fault("was not needed", message.id, at)
        # Whatever becomes of those before while it is in its queue: it has been let go.
        let_go = max(when for when, state, _ in self._news_until(message.id, at) if state == "queued")
        known = {one.id: self._news_until(one.id, let_go) for one in before}
        if all(line and line[-1][1] in ENDED for line in known.values()):
            self.agreed["fallback after a failure"] += 1
            return None
        ids, decisions = {str(one.id) for one in before}, self.month.decided[message.event_id][1]
        goes = max(datetime.fromisoformat(one["not_before"]) for one in decisions if one.get("message_id") in ids)
        if let_go < goes + kind.fallback:
            self.fault("fallback too early", message.id, let_go, goes, known)
        for line in known.values():
            if line and line[-1][1] == "held" and line[-1][2] in {"quiet_hours", "own_hours", "coalescing"}:
                self.fault("fallback before what still waits for its hour", message.id, let_go, known)
        self.agreed["fallback after its time"] += 1
        return None

    def _news_until(self, message_id: UUID, at: datetime) -> list[tuple[datetime, str, str | None]]:
        return [one for one in self.month.news[message_id] if one[0] <= at]

    # --- the rule

    def _refusal(self, account: Account, contact: Contact, code: str, at: datetime) -> str | None:
        kind = self.month.kinds[code]
        if contact.proved > at:
            return "not_verified"
        bars = [bar for bar in self.month.bars.get((contact.channel, contact.address), ()) if bar.since <= at < bar.until]
        if bars and (not kind.mandatory or any(bar.dead for bar in bars)):
            return "suppressed"
        if kind.mandatory:
            return None
        chosen = account.chosen(at)
        of_type, of_contact = chosen.get("types", {}).get(code, {}), chosen.get("contacts", {}).get(str(contact.id), {})
        channel, here = of_type.get("channels", {}).get(contact.channel), of_contact.get("types", {}).get(code)
        if of_type.get("enabled") is False:
            return "type_off"
        if channel is False:
            return "channel_off"
        if of_contact.get("enabled") is False:
            return "contact_off"
        if here is False:
            return "contact_type_off"
        if channel or here:
            return None
        by_default = kind.channels if kind.default_channels is None else kind.default_channels
        if contact.channel not in by_default or (kind.opt_in and not of_type.get("enabled")):
            return "not_chosen"
        return None

    # --- hours

    def _hours(self, account: Account, contact: Contact, kind: Kind, at: datetime) -> tuple[Any, tuple[Hours, ...]]:
        """The operator's quiet hours and the subscriber's own ones that hold for a message, as known at this moment."""
        lines = self.month.quiet
        quiet = latest(lines.get(account.zone, []), at) or latest(lines[""], at)
        own: tuple[Hours, ...] = ()
        if not kind.passes_window:
            chosen = account.chosen(at)
            said = chosen.get("hours"), chosen.get("contacts", {}).get(str(contact.id), {}).get("hours")
            own = tuple(as_minutes(one) for one in said if one)
        return (None if contact.channel != "sms" or kind.urgent else quiet), own

    def _is_open(self, account: Account, contact: Contact, kind: Kind, at: datetime, known_at: datetime | None = None) -> bool:
        return is_open_then(account.zone, *self._hours(account, contact, kind, known_at or at), at)

    def _opens(self, account: Account, contact: Contact, kind: Kind, at: datetime, known_at: datetime) -> datetime | None:
        quiet, own = self._hours(account, contact, kind, known_at)
        if quiet is None and not own:
            return at
        if is_open_then(account.zone, quiet, own, at):
            return at
        if not opens_ever(account.zone, quiet, own):
            return None
        moment = at.replace(minute=at.minute // 15 * 15, second=0, microsecond=0)
        while True:
            moment += QUARTER
            if is_open_then(account.zone, quiet, own, moment):
                return moment

    # --- not too much

    def _counted(self) -> dict[UUID, list[tuple[datetime, datetime, date, datetime, Event]]]:
        """By account: when planned, when its place was given back, its day, its moment, the event."""
        counted: dict[UUID, list[tuple[datetime, datetime, date, datetime, Event]]] = defaultdict(list)
        for event_id, (at, decisions) in self.month.decided.items():
            event, own = self.month.events[event_id], self.of_event[event_id]
            kind = self.month.kinds.get(event.type)
            if not own or kind is None or kind.mandatory:
                continue
            made = {str(message.id) for message in own}
            moment = min(datetime.fromisoformat(one["not_before"]) for one in decisions if one.get("message_id") in made)
            gone = all(message.state in NO_SEND and message.id not in self.first_claim for message in own)
            back = max(message.updated_at for message in own) if gone else FAR
            counted[event.account_id].append((at, back, self._local(event, moment).date(), moment, event))
        for line in counted.values():
            line.sort(key=lambda one: one[0])
        return counted

    def _local(self, event: Event, moment: datetime) -> datetime:
        return moment.astimezone(zone(self.month.accounts[event.account_id].zone))

    def _caps_hold(self, counted: dict[UUID, list[tuple[datetime, datetime, date, datetime, Event]]]) -> None:
        for account_id, line in counted.items():
            by_cap: dict[str, list[date]] = defaultdict(list)
            by_type: dict[str, list[datetime]] = defaultdict(list)
            for _, back, day, moment, event in line:
                kind = self.month.kinds[event.type]
                if back == FAR and kind.cap in self.month.caps:
                    by_cap[kind.cap].append(day)
                if back == FAR and kind.interval:
                    by_type[event.type].append(moment)
            for cap, days in by_cap.items():
                for name, most, width in zip(("day", "week", "month"), self.month.caps[cap], (1, 7, 30), strict=True):
                    for last in set(days):
                        if sum(last - timedelta(days=width) < day <= last for day in days) > most:
                            self.fault("too many in a " + name, account_id, last, sorted(days))
            for code, moments in by_type.items():
                moments.sort()
                for one, other in pairwise(moments):
                    if other - one < self.month.kinds[code].interval:
                        self.fault("too soon after another", account_id, code, one, other)

    # --- decisions

    def _decision(self, event: Event, at: datetime, decisions: list[dict[str, Any]], counted: dict[UUID, list[tuple[Any, ...]]]) -> None:
        account, kind = self.month.accounts[event.account_id], self.month.kinds.get(event.type)
        whole = [one for one in decisions if one["channel"] is None]
        if whole:
            reason = whole[0]["reason"]
            if len(decisions) != 1 or not self._whole(event, account, kind, at, reason):
                self.fault("no such reason", event, at, decisions)
            self.agreed[reason] += 1
            return None
        if kind is None or not kind.enabled or event.time + kind.ttl <= at or (account.closed <= at and not kind.mandatory):
            return self.fault("should have told nobody", event, at)
        given = Counter((one["channel"], one["contact_id"]) for one in decisions)
        there = {channel: [one for one in account.contacts.values() if one.channel == channel and one.removed > at] for channel in kind.channels}
        wanted = Counter((channel, str(one.id) if one else None) for channel in kind.channels for one in there[channel] or [None])
        if given != wanted:
            return self.fault("not one decision for each contact", event, at, decisions)
        refusals = {one["contact_id"]: self._refused_at(account, one, event.type, kind, at) for one in decisions if one["contact_id"]}
        willing = [channel for channel in kind.channels if any(refusals[str(contact.id)] is None for contact in there[channel])]
        is_one_left_out = kind.delivery == "first" and any(one["outcome"] == "planned" for one in decisions)
        for one in decisions:
            expected, reason = refusals.get(one["contact_id"]) if one["contact_id"] else "no_contact", one["reason"]
            if is_one_left_out and expected is None and one["channel"] != willing[0]:
                expected = "other_channel"
            self.agreed[one["outcome"] + " " + str(reason)] += 1
            if one["outcome"] == "skipped" and expected is None and reason in {"capped", "too_soon"}:
                if not self._is_too_much(event, kind, at, one, decisions, counted[event.account_id]):
                    self.fault("was not too much", event, at, one)
            elif (one["outcome"] == "skipped" and reason != expected) or (one["outcome"] == "planned" and expected is not None):
                self.fault("decided otherwise", expected, event, at, one)
            elif one["outcome"] == "planned":
                self._planned(event, account, kind, at, one)
        return None

    def _refused_at(self, account: Account, one: dict[str, Any], code: str, kind: Kind, at: datetime) -> str | None:
        contact = account.contacts[UUID(one["contact_id"])]
        refusal = self._refusal(account, contact, code, at)
        return refusal or ("no_open_hours" if self._opens(account, contact, kind, at, at) is None else None)

    def _whole(self, event: Event, account: Account, kind: Kind | None, at: datetime, reason: str) -> bool:
        if reason == "tells_nobody":
            return kind is None
        if reason == "type_disabled":
            return kind is not None and not kind.enabled
        if reason == "account_closed":
            return kind is not None and not kind.mandatory and account.closed <= at
        if reason == "too_late":
            return kind is not None and event.time + kind.ttl <= at
        return reason in {"resolved", "duplicate"} and event.source == OURS

    def _is_too_much(self, event: Event, kind: Kind, at: datetime, one: dict[str, Any], decisions: list[dict[str, Any]], line: list[tuple[Any, ...]]) -> bool:
        """By what stood at that moment; of what was planned together, in which order nobody can say."""
        account = self.month.accounts[event.account_id]
        contacts = [account.contacts[UUID(other["contact_id"])] for other in decisions if other["reason"] in {"capped", "too_soon"}]
        opens = [self._opens(account, contact, kind, at, at) for contact in contacts]
        moment = min(one for one in opens if one is not None)
        stood = [(day, when, other) for planned, back, day, when, other in line if planned <= at and back >= at and other.id != event.id]
        if one["reason"] == "too_soon":
            return any(other.type == event.type and moment - when < kind.interval for _, when, other in stood)
        days = [day for day, _, other in stood if self.month.kinds[other.type].cap == kind.cap]
        day, name = self._local(event, moment).date(), ("day", "week", "month").index(one["detail"])
        number = sum(other == day for other in days) if name == 0 else sum(other > day - timedelta(days=(1, 7, 30)[name]) for other in days)
        return number >= self.month.caps[kind.cap][name]

    def _planned(self, event: Event, account: Account, kind: Kind, at: datetime, one: dict[str, Any]) -> None:
        contact, message = account.contacts[UUID(one["contact_id"])], self.month.messages[UUID(one["message_id"])]
        goes = datetime.fromisoformat(one["not_before"])
        if (message.account_id, message.contact_id, message.type) != (event.account_id, contact.id, event.type):
            self.fault("told by somebody else's message", event, one)
        if one["reason"] == "coalesced":
            claimed = self.first_claim.get(message.id)
            if not kind.coalesce or event.source == OURS or message.event_id == event.id or (claimed is not None and claimed < at):
                self.fault("could not be joined", event, one)
            return
        if one["reason"] == "fallback":
            if kind.delivery != "chain":
                self.fault("no chain", event, one)
            return
        gathered = at + kind.coalesce if event.source != OURS else at
        expected = self._opens(account, contact, kind, gathered, at)
        if goes != expected:
            self.fault("another hour", event, at, one, expected)

    # --- what became of messages

    def _ended_well(self, message: Message) -> None:
        self.agreed[f"{message.state} ({message.reason})"] += 1
        account, kind = self.month.accounts[message.account_id], self.month.kinds[message.type]
        contact, at, claimed = account.contacts[message.contact_id], message.updated_at, message.id in self.first_claim
        if message.state in {"held", "queued", "sending"}:
            self.fault("has not ended", message)
        if message.state == "cancelled" and not self._has_reason(message, account, contact, kind, at):
            self.fault("cancelled for no reason", message)
        for released, state, why in self.month.news[message.id]:
            if (state, why) == ("queued", "released") and self._is_undone(message, released - SECOND):
                self.fault("told what was undone", message)
        if message.state == "expired" and message.reason == "too_late" and at < message.expires_at:
            self.fault("expired too early", message)
        if message.state not in NO_SEND and not claimed:
            self.fault("nobody sent it", message)
        if message.state == "cancelled" and claimed and all(said != "deferred" for one, _, said in self.month.claims if one == message.id):
            self.fault("cancelled after it went", message)

    def _has_reason(self, message: Message, account: Account, contact: Contact, kind: Kind, at: datetime) -> bool:
        reason, event = message.reason, self.month.events[message.event_id]
        if reason == "contact_removed":
            return contact.removed <= at
        if reason == "account_closed":
            return account.closed <= at
        if reason == "resolved" and (self._is_undone(message, at) or self._has_paid(message, at)):
            return True
        if reason in {"resolved", "duplicate"}:
            return event.source == OURS or self._behind_one_that_ended_with(message, kind, reason)
        if reason == "no_open_hours":
            return self._opens(account, contact, kind, at, at) is None
        if reason == "not_needed":
            return any(
                state == "delivered" or (state == "accepted" and other.channel == "email")
                for told in self.told_by[message.id]
                for other in self.telling[told.id]
                if other.channel != message.channel
                for _, state, _ in self._news_until(other.id, at)
            )
        return self._refusal(account, contact, message.type, at) == reason or self._behind_one_that_ended_with(message, kind, reason)

    def _has_paid(self, message: Message, at: datetime) -> bool:
        """Whether the balance that a reminder of the billing's own speaks of has become another one since."""
        came = self.month.events[message.event_id].came
        return message.type in REMINDERS and any(came < other.came <= at for other in self.balances[message.account_id])

    def _is_undone(self, message: Message, at: datetime) -> bool:
        """Whether later news that had come in by then has undone all that it tells."""
        return all(
            any(
                (other.time, other.id) > (event.time, event.id) and other.came <= at
                for other in self.changes[event.account_id, OPPOSITE.get(event.type, ""), event.service]
            )
            for event in self.told_by[message.id]
        )

    def _behind_one_that_ended_with(self, message: Message, kind: Kind, reason: str | None) -> bool:
        """A type that was turned off is off for what waits behind it, too."""
        return kind.delivery == "chain" and any(other.reason == reason and other.channel != message.channel for other in self.of_event[message.event_id])


@lru_cache(maxsize=100)
def zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def minutes(clock: str) -> int:
    hour, minute = clock.split(":")
    return int(hour) * 60 + int(minute)


def as_minutes(said: list[dict[str, Any]]) -> Hours:
    return tuple((minutes(one["from"]), minutes(one["to"]), frozenset(one.get("weekdays") or range(1, 8))) for one in said)


def is_open_then(where: str, quiet: Any, own: tuple[Hours, ...], at: datetime) -> bool:
    local = at.astimezone(zone(where))
    minute, weekday = local.hour * 60 + local.minute, local.isoweekday()
    if quiet is not None:
        begin, end = quiet[weekday >= 6]
        asleep = begin <= minute < end if begin <= end else not end <= minute < begin
        if asleep:
            return False
    return all(any(covers(one, minute, weekday) for one in hours) for hours in own)


def covers(interval: tuple[int, int, frozenset[int]], minute: int, weekday: int) -> bool:
    begin, end, days = interval
    length = (end - begin) % 1440 or 1440
    since_yesterdays = minute + 1440 - begin
    return (weekday in days and 0 <= minute - begin < length) or ((weekday - 1 or 7) in days and since_yesterdays < length)


@lru_cache(maxsize=100_000)
def opens_ever(where: str, quiet: Any, own: tuple[Hours, ...]) -> bool:
    """In an ordinary week, without a change of clocks."""
    return any(is_open_then(where, quiet, own, moment) for moment in week())


def week() -> Iterator[datetime]:
    moment = datetime(2026, 6, 1, tzinfo=UTC)
    for _ in range(7 * 96):
        yield moment
        moment += QUARTER
