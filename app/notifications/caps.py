"""Not too much: how many notifications of a kind an account gets in a day, a week and a month, and how long it has peace between two of one type.

A notification counts once, however many messages it has, by a row in `told`: on the day, on the account's own clock, on which the first of them is to go.
A week is the last seven days, a month the last thirty. Only what has a limit is counted: other events cost nothing, and a kind counts from the moment on
that it has a cap. Mandatory types have no limits and take nobody's place. What was cancelled before it went gives its place back (`give_back`).

Whoever counts has locked the account: two planners never give the last place away twice.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import groupby
from typing import Any, Protocol, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import sqlalchemy as sa

from app.catalogue.registry import TypeRules
from app.core.clock import now as clock
from app.core.db import BulkInsert, Executor
from app.core.ids import first_id_at
from app.notifications.audience import Choice, Told

# As a column of the planner's look: one row a kind.
CAPS = "(SELECT CAST(coalesce(json_agg(json_build_array(kind, per_day, per_week, per_month)), '[]') AS text) FROM cap)"

WEEK, MONTH = timedelta(days=7), timedelta(days=30)
KEPT = timedelta(days=33)  # the longest interval between two of one type is thirty days, and zones are a day apart
SKEW = timedelta(hours=1)  # between the clocks of those who take events in and those who plan them

COUNTED = sa.text("""
SELECT account_id, kind, type, array_agg(day) AS days, max(at) AS last FROM told
WHERE account_id = ANY(CAST(:accounts AS uuid[])) AND day > :oldest GROUP BY account_id, kind, type
""")
TOLD = BulkInsert(
    "told", conflict="ON CONFLICT (event_id) DO NOTHING", event_id="uuid", account_id="uuid", kind="text", type="text", day="date", at="timestamptz"
)
# What is too old to count goes when something newer of the same account comes: nobody keeps more than a month of anybody.
COUNT = sa.text(f"WITH old AS (DELETE FROM told WHERE account_id = ANY(CAST(:accounts AS uuid[])) AND day < :oldest) {TOLD.sql}")
# By the account and the time of its messages, for nothing finds a message by its event.
GIVE_BACK = sa.text("""
DELETE FROM told t WHERE t.event_id = ANY(CAST(:events AS uuid[])) AND NOT EXISTS (
    SELECT FROM message m WHERE m.account_id = t.account_id AND m.id >= CAST(:oldest AS uuid) AND m.event_id = t.event_id
    AND NOT (m.state = 'cancelled' OR (m.state = 'expired' AND m.reason = 'too_late')))
""")

# Of what is planned together the most serious is counted first: it must not lose its place to something less.
WEIGHT = {"balance.exhausting": 0, "balance.threshold_reached": 1}
LIGHTEST = 2


@dataclass(frozen=True, slots=True)
class Limit:
    """The most of one kind; None: any number."""

    per_day: int | None
    per_week: int | None
    per_month: int | None


Limits = Mapping[str, Limit]


@lru_cache(maxsize=16)
def limits_in(caps: str) -> Limits:
    """As CAPS says them; kinds without any limit are left out."""
    found = {kind: Limit(*numbers) for kind, *numbers in orjson.loads(caps)}
    return {kind: limit for kind, limit in found.items() if limit != Limit(None, None, None)}


class Planned(Protocol):
    """What is asked of an event here."""

    @property
    def type(self) -> str: ...
    @property
    def account(self) -> Any: ...


E = TypeVar("E", bound=Planned)


def is_counted(rules: TypeRules, limits: Limits) -> bool:
    return rules.enabled and not rules.mandatory and (rules.kind in limits or rules.options.min_interval_seconds > 0)


def weightiest_first(events: Sequence[E], types: Mapping[str, TypeRules], codes: AbstractSet[str]) -> Sequence[E]:
    """The events, in which those of one account that are of these types have changed places: the most serious has the first of them."""
    places = [number for number, event in enumerate(events) if event.type in codes]
    if len(places) < 2:
        return events
    ordered = list(events)
    for _, group in groupby(places, key=lambda number: events[number].account.id):
        same = list(group)
        by_weight = sorted(same, key=lambda number: (WEIGHT.get(events[number].type, LIGHTEST), not types[events[number].type].urgent))
        for place, number in zip(same, by_weight, strict=True):
            ordered[place] = events[number]
    return ordered


@dataclass(slots=True)
class Counted:
    """What counts already of the accounts of a batch, and what the batch adds to it."""

    limits: Limits
    codes: AbstractSet[str]  # the types that are counted at all
    _days: dict[tuple[UUID, str], list[date]] = field(default_factory=lambda: defaultdict(list))  # by account and kind
    _last: dict[tuple[UUID, str], datetime] = field(default_factory=dict)  # by account and type
    _added: list[tuple[UUID, UUID, str, str, date, datetime]] = field(default_factory=list)

    @classmethod
    async def of(cls, session: Executor, events: Iterable[Planned], types: Mapping[str, TypeRules], limits: Limits) -> "Counted":
        """For these events, whose accounts are locked. One query where something has a limit, else none."""
        counted = cls(limits, {code for code, rules in types.items() if is_counted(rules, limits)})
        accounts = list({event.account.id for event in events if event.type in counted.codes}) if counted.codes else []
        if accounts:
            oldest = clock().date() - KEPT
            for account_id, kind, code, days, last in await session.execute(COUNTED, {"accounts": accounts, "oldest": oldest}):
                counted._days[account_id, kind] += days
                counted._last[account_id, code] = max(last, counted._last.get((account_id, code), last))
        return counted

    def refusal(self, account_id: UUID, rules: TypeRules | None, choices: Sequence[Choice], zone: ZoneInfo) -> tuple[str, str] | None:
        """Why nobody of these is to be told, for it would be too much; nothing when it is not.

        `capped` with what is full (day, week, month), or `too_soon` with the moment from which on it would not be."""
        if rules is None or rules.code not in self.codes:
            return None
        moment = min((choice.not_before for choice in choices if isinstance(choice, Told)), default=None)
        if moment is None:
            return None
        day = moment.astimezone(zone).date()
        last, interval = self._last.get((account_id, rules.code)), timedelta(seconds=rules.options.min_interval_seconds)
        if last is not None and interval and moment - last < interval:
            return "too_soon", (last + interval).isoformat(timespec="seconds")
        if (limit := self.limits.get(rules.kind)) is None:
            return None
        # What is already planned for later days counts as well: no seven days that have this one in them get more than a week may.
        days = self._days[account_id, rules.kind]
        for name, most, number in (
            ("day", limit.per_day, sum(one == day for one in days)),
            ("week", limit.per_week, sum(one > day - WEEK for one in days)),
            ("month", limit.per_month, sum(one > day - MONTH for one in days)),
        ):
            if most is not None and number >= most:
                return "capped", name
        return None

    def add(self, event_id: UUID, account_id: UUID, rules: TypeRules | None, moment: datetime, zone: ZoneInfo) -> None:
        """It has made messages, the first of which is to go at this moment."""
        if rules is not None and rules.code in self.codes:
            day = moment.astimezone(zone).date()
            self._days[account_id, rules.kind].append(day)
            last = self._last.get((account_id, rules.code))
            self._last[account_id, rules.code] = moment if last is None else max(last, moment)
            self._added.append((event_id, account_id, rules.kind, rules.code, day, moment))

    async def write(self, session: Executor) -> None:
        if self._added:
            accounts, oldest = [added[1] for added in self._added], clock().date() - KEPT
            await session.execute(COUNT, TOLD.arrays(self._added) | {"accounts": accounts, "oldest": oldest})


async def give_back(session: Executor, events: Sequence[UUID]) -> None:
    """The places of those of these events of which nothing has gone, and nothing will. Again it changes nothing."""
    if events:
        oldest = datetime.fromtimestamp((min(events).int >> 80) / 1000, tz=UTC) - SKEW  # RFC 9562, 5.7: milliseconds in front
        await session.execute(GIVE_BACK, {"events": list(events), "oldest": first_id_at(oldest)})
