"""From events to messages: a batch of what waits is taken, decided, rendered and written in one transaction.

    take (accounts locked, all their waiting events, oldest first) -> choose -> compose -> write -> wake the gateways

If the process dies anywhere, the transaction never was, and the events wait on. If two planners run, each takes other accounts (SKIP LOCKED).
"""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.preferences import read
from app.accounts.quiet import STAMP as QUIET_STAMP
from app.accounts.quiet import QuietHoursNow
from app.accounts.suppressions import barred
from app.catalogue.registry import STAMP as TYPES_STAMP
from app.catalogue.registry import Catalogue
from app.core import metrics
from app.core.clock import now as clock
from app.core.config import Settings
from app.core.db import Database, is_away, is_conflict
from app.core.ids import new_id
from app.core.wakeups import Wakeups
from app.forecasts.find import TYPES
from app.forecasts.watch import EPISODES_OF, concerns
from app.gateways.operators import operators_of
from app.gateways.roads import ROADS, Roads
from app.gateways.router import NO_ATTRIBUTES, SIMULATED_ROAD, Router
from app.notifications.audience import Around, Reached, Skipped, Told, choose, skipped_decision
from app.notifications.caps import CAPS, Counted, limits_in, weightiest_first
from app.notifications.coalesce import Joined, Together, first_told
from app.notifications.delivery import course_of, spread
from app.notifications.links import Links
from app.notifications.reminders import Moved, balances_moved, is_ours, may_wait, still_true, supersede, until_midnight, without_doubles
from app.notifications.rows import Rows, cut_for
from app.notifications.states import State
from app.notifications.stops import STOPS, Stops
from app.rendering.compose import STAMP as TEMPLATES_STAMP
from app.rendering.compose import NoTemplate, RenderFailed, Templates, variables

log = structlog.get_logger()

BATCH = 500

# What the subscriber has chosen, beside his account.
CHOSEN = "(SELECT CAST(p.document AS text) FROM account_preference p WHERE p.account_id = a.id)"
# An account that somebody has locked does not count towards the batch: another planner finds the accounts behind it. LATERAL, because a join would
# become a walk through all accounts as soon as the statistics remember a long queue.
TAKE = sa.text(f"""
WITH due AS MATERIALIZED (
    SELECT a.* FROM (SELECT account_id FROM event_waiting ORDER BY event_id) w CROSS JOIN LATERAL (
        SELECT id, number, name, status, balance, balance_as_of, credit_limit, currency, locale, timezone, tariff, warned_at AS threshold, warning_days,
               upcoming_days, CAST(attributes AS text) AS attributes_json,
               {EPISODES_OF} AS episodes, {CHOSEN} AS chosen_json
        FROM account a WHERE id = w.account_id FOR NO KEY UPDATE SKIP LOCKED
    ) a LIMIT :batch
), locked AS MATERIALIZED (
    SELECT DISTINCT ON (id) * FROM due
), taken AS (
    DELETE FROM event_waiting WHERE account_id = ANY(ARRAY(SELECT id FROM locked)) RETURNING event_id
)
SELECT e.id AS event_id, e.test AS event_test, e.source AS event_source, e.type AS event_type, e.time AS event_time, CAST(e.data AS text) AS event_data,
       a.*
FROM event e JOIN locked a ON a.id = e.account_id
WHERE e.id = ANY(ARRAY(SELECT event_id FROM taken)) ORDER BY e.account_id, e.time, e.id
""")
# Has anything changed that decides? Types, templates, roads and stops in one round trip.
LOOK = sa.text(f"""
SELECT t.number AS types, t.revisions AS types_revision, w.number AS templates, w.revisions AS templates_revision,
       ({ROADS}) AS roads, {STOPS} AS stops, ({QUIET_STAMP}) AS quiet, {CAPS} AS caps
FROM ({TYPES_STAMP.text}) AS t(number, revisions), ({TEMPLATES_STAMP.text}) AS w(number, revisions)
""")
ACCOUNTS = sa.text(f"""
SELECT id, number, name, status, balance, balance_as_of, credit_limit, currency, locale, timezone, tariff, warned_at AS threshold, warning_days, upcoming_days,
       CAST(attributes AS text) AS attributes_json, {CHOSEN} AS chosen_json
FROM account a WHERE id = ANY(CAST(:ids AS uuid[]))
""")
CONTACTS = sa.text(f"""
WITH known AS MATERIALIZED (
    SELECT id, account_id, channel, address, label, origin = 'billing' OR verified_at IS NOT NULL AS verified FROM contact WHERE account_id = ANY(CAST(:ids AS uuid[]))
), barred AS MATERIALIZED ({barred("SELECT address FROM known")})
SELECT id, account_id, channel, address, label, dead IS NOT NULL AS suppressed, coalesce(dead, false) AS dead, verified FROM known LEFT JOIN barred USING (channel, address) ORDER BY id
""")
# Taken in at the very moment of an erasure: its data goes the way of the account's.
FORGET = [
    sa.text("UPDATE event SET data = '{}' WHERE id = ANY(CAST(:ids AS uuid[]))"),
    sa.text("UPDATE forecast_hit SET inputs = '{}' WHERE account_id = ANY(CAST(:accounts AS uuid[]))"),
    sa.text("DELETE FROM forecast_episode WHERE account_id = ANY(CAST(:accounts AS uuid[]))"),
]
ERASED = "erased"


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event whose turn it is."""

    id: UUID
    source: str
    type: str
    time: datetime
    data: dict[str, Any]
    account: Any  # the locked row
    test: bool = False  # told by a test key: no road leads out, and nothing real is moved by it


@dataclass(slots=True)
class Planned:
    events: int = 0
    queues: frozenset[str] = frozenset()


class Planner:
    """Plans what waits. Any number of them may run."""

    def __init__(self, database: Database, settings: Settings, wakeups: Wakeups) -> None:
        self._database, self._settings, self._wakeups = database, settings, wakeups
        self._catalogue, self._templates, self._roads = Catalogue(), Templates(settings.locale), Roads()
        self._quiet = QuietHoursNow(settings.quiet)
        self._links, self._spread = Links(settings), timedelta(seconds=settings.release_spread_seconds)

    async def plan(self, batch: int = BATCH) -> int:
        """Plan one batch. How many events it had; 0 when nothing waits (or others are at it)."""
        began = time.perf_counter()
        try:
            planned = await self._together(batch)
        except Exception as error:
            if is_away(error) or is_conflict(error):
                raise
            planned = await self._smaller(batch)
        if planned.events:
            metrics.PLAN_SECONDS.observe(time.perf_counter() - began)
            self._wakeups.wake(*planned.queues)
        return planned.events

    async def _smaller(self, batch: int) -> Planned:
        """Halve the batch down to the account with the culprit: nobody waits behind it."""
        return Planned(await self.plan(batch // 2)) if batch > 1 else await self._one_by_one()

    async def _together(self, batch: int) -> Planned:
        async with self._database.transaction() as session:
            events = await take(session, batch)
            if not events:
                return Planned()
            rows, tally, queues = await self._decide(session, events)
            await rows.write(session)
        return counted(events, tally, queues)

    async def _one_by_one(self) -> Planned:
        """The events of one account, each for itself: one that cannot be planned is set aside with its reason, the others are not."""
        tally, queues = Counter[tuple[str, ...]](), set[str]()
        async with self._database.transaction() as session:
            events = await take(session, 1)
            for event in events:
                try:
                    async with session.begin_nested():
                        rows, its_tally, its_queues = await self._decide(session, [event])
                        await rows.write(session)
                except Exception as error:
                    if is_away(error) or is_conflict(error):
                        raise
                    metrics.PLAN_FAILURES.labels("planning_failed").inc()
                    log.error("planning_failed", event_id=str(event.id), type=event.type, exc_info=error)
                    aside = Rows()
                    aside.decide(event.id, event.account.id, event.type, [skipped_decision(event.type, Skipped(None, None, "planning_failed"))], clock())
                    await aside.write(session)
                else:
                    tally += its_tally
                    queues |= its_queues
        return counted(events, tally, queues)

    async def _decide(self, session: AsyncSession, events: list[Waiting]) -> tuple[Rows, Counter[tuple[str, ...]], set[str]]:
        seen = (await session.execute(LOOK)).one()
        await self._catalogue.refresh(session, (seen.types, int(seen.types_revision)))
        await self._templates.refresh(session, (seen.templates, int(seen.templates_revision)))
        router = await self._roads.refresh(session, seen.roads)
        await self._quiet.refresh(session, seen.quiet)
        stops = Stops.seen(orjson.loads(seen.stops))
        ids = list({event.account.id for event in events})
        contacts: dict[UUID, list[Reached]] = defaultdict(list)
        for contact_id, account_id, *rest in await session.execute(CONTACTS, {"ids": ids}):
            contacts[account_id].append(Reached(contact_id, *rest))
        operators = await operators_of(session, addresses_in(contacts)) if router.asks_operator else {}
        events, untrue, doubles = await self._true_ones(session, events, contacts)
        rows, tally, queues, now, gone = Rows(), Counter[tuple[str, ...]](), set[str](), clock(), list[Waiting]()
        for event in untrue:
            rows.decide(event.id, event.account.id, event.type, [skipped_decision(event.type, Skipped(None, None, "resolved"))], now)
        for event in doubles:
            rows.decide(event.id, event.account.id, event.type, [skipped_decision(event.type, Skipped(None, None, "duplicate"))], now)
        types, limits = self._catalogue.types, limits_in(seen.caps)
        real = [event for event in events if not event.test]
        together, counted = await Together.of(session, real, types, contacts), await Counted.of(session, real, types, limits)
        told: list[Waiting] = []
        for event in weightiest_first(events, types, counted.codes):
            if event.account.status == ERASED:
                gone.append(event)
                rows.decide(event.id, event.account.id, event.type, [skipped_decision(event.type, Skipped(None, None, "account_erased"))], now)
            elif self._decide_one(event, contacts[event.account.id], router, operators, stops, now, rows, tally, queues, together, counted):
                told.append(event)
        # Not before it is sure that the newer one is told: one that is too much today, or has no words, takes nobody's place.
        await supersede(session, [(event.account.id, event.type) for event in told if not event.test and is_ours(event.type, event.source)], now)
        rows.beside += [together, counted]
        if gone:
            for statement in FORGET:
                await session.execute(statement, {"ids": [event.id for event in gone], "accounts": [event.account.id for event in gone]})
        return rows, tally, queues

    async def _true_ones(
        self, session: AsyncSession, events: list[Waiting], contacts: Mapping[UUID, list[Reached]]
    ) -> tuple[list[Waiting], list[Waiting], list[Waiting]]:
        """What balances change is changed; then our own reminders, with the figures of now; those that are not true any more; and those that a newer or
        more serious one leaves nothing to say: one that somebody is told, not one that he has refused."""
        told: dict[UUID, Moved] = {}
        for event in events:
            if not event.test and event.data.get("balance") is not None and tells_balance(event) and self._is_concerned(event.account):
                moved = told.setdefault(event.account.id, Moved(event.account))
                moved.balances.append((event.time, Decimal(event.data["balance"])))
                if event.type == "payment.received":
                    moved.paid = Decimal(event.data["amount"])
        if told:
            await balances_moved(session, told.values(), self._settings.timezone, self._catalogue)
        asked = [event for event in events if is_ours(event.type, event.source) and event.account.status != ERASED]
        if not asked:
            return events, [], []
        answers = await still_true(session, [(event.type, event.data, event.account) for event in asked], self._settings.timezone, self._catalogue)
        now_true = {event.id: data for event, data in zip(asked, answers, strict=True)}
        # What made it untrue may have come in the middle of the scan, before there was a spell to end: the next fall has to be told again.
        untold = {event.account.id: Moved(event.account) for event in asked if now_true[event.id] is None and event.account.id not in told}
        if untold:
            await balances_moved(session, untold.values(), self._settings.timezone, self._catalogue)
        kept = [replace(event, data=data) if (data := now_true.get(event.id, event.data)) is not None else None for event in events]
        alive = [event for event in kept if event is not None]
        ours = [event for event in alive if event.id in now_true and self._is_told(event, contacts.get(event.account.id, []))]
        doubles = without_doubles([(event.id, event.account.id, event.type) for event in ours])
        return (
            [event for event in alive if event.id not in doubles],
            [event for event in asked if now_true[event.id] is None],
            [event for event in ours if event.id in doubles],
        )

    def _is_told(self, event: Waiting, contacts: list[Reached]) -> bool:
        """Whether anybody would be, whatever caps say."""
        account, zone = event.account, event.account.timezone
        around = Around(clock(), zone_of(zone, self._settings.timezone), self._quiet.of(zone), read(account.chosen_json))
        return any(isinstance(choice, Told) for choice in choose(self._catalogue.types.get(event.type), account.status, contacts, event.time, around))

    def _is_concerned(self, account: Any) -> bool:
        return concerns(account, account.episodes) or may_wait(account, self._catalogue)

    def _decide_one(
        self,
        event: Waiting,
        contacts: list[Reached],
        router: Router,
        operators: dict[str, str],
        stops: Stops,
        now: datetime,
        rows: Rows,
        tally: Counter[tuple[str, ...]],
        queues: set[str],
        together: Together,
        counted: Counted,
    ) -> bool:
        """Whether anybody is told."""
        rules, account = self._catalogue.types.get(event.type), event.account
        attributes = orjson.loads(account.attributes_json) if router.asks_attributes else NO_ATTRIBUTES
        decisions, ours = [], is_ours(event.type, event.source)
        around = Around(now, zone_of(account.timezone, self._settings.timezone), self._quiet.of(account.timezone), read(account.chosen_json))
        first: datetime | None = None  # when the first message of this event is to go
        choices = choose(rules, account.status, contacts, event.time, around)
        course, too_much = course_of(rules, choices, around), counted.refusal(account.id, rules, first_told(rules, event.source, choices, around), around.zone)
        if event.test:
            too_much = None
        for chosen in choices:
            choice = chosen if isinstance(chosen, Skipped) else course.turn(chosen)
            if isinstance(choice, Told) and event.test:  # no cap counts it, and it is put together with nothing
                choice = replace(choice, coalesce_key=None)
            elif isinstance(choice, Told):
                placed = together.place(event.id, event.source, rules, choice, around, course.after)
                if isinstance(placed, Joined):  # what waits goes in any case: it is not one more
                    decisions.append(placed.decision(event.type))
                    course.made(placed.leader.message_id, placed.leader.not_before)
                    continue
                choice = placed if too_much is None else Skipped(placed.contact.channel, placed.contact.id, *too_much)
            if isinstance(choice, Skipped):
                decisions.append(skipped_decision(event.type, choice))
                continue
            contact = choice.contact
            try:
                said = variables(account, contact, event.type, event.time, event.data, now, self._links.of(self._templates, rules, account.id, contact))
                words = self._templates.compose(event.type, contact.channel, around.chosen.locale or account.locale, said)
            except NoTemplate:
                decisions.append(skipped_decision(event.type, Skipped(contact.channel, contact.id, "no_template")))
                continue
            except RenderFailed as error:
                metrics.PLAN_FAILURES.labels("render_failed").inc()
                log.warning("render_failed", type=event.type, channel=contact.channel, detail=str(error), event_id=str(event.id))
                decisions.append(skipped_decision(event.type, Skipped(contact.channel, contact.id, "render_failed")))
                continue
            road = (
                SIMULATED_ROAD
                if event.test
                else router.choose(contact.channel, event.type, contact.address, account.id, attributes, operators.get(contact.address))
            )
            name = road.name if road else None
            words = cut_for(road, words)
            stopped = stops.hold(event.type, name)
            message_id = new_id()
            told = replace(choice, send_until=until_midnight(choice.send_until, choice.not_before, around.zone)) if ours else choice
            told = spread(told, message_id, self._spread)
            rows.message(
                message_id=message_id,
                event_id=event.id,
                account_id=account.id,
                code=event.type,
                told=told,
                words=words,
                road=road,
                now=now,
                stopped=stopped,
                leads=course.leads,
                after=course.after,
                test=event.test,
            )
            if not event.test:
                together.lead(message_id, told)
            course.made(message_id, told.not_before)
            first = told.not_before if first is None else min(first, told.not_before)
            held = choice.waits or ("stopped" if stopped else None)
            decisions.append(
                {
                    "type": event.type,
                    "channel": contact.channel,
                    "contact_id": str(contact.id),
                    "outcome": "planned",
                    "reason": held,
                    "message_id": str(message_id),
                    "not_before": told.not_before.isoformat(),
                    "template_id": str(words.template_id),
                    "template_version": words.version,
                    "gateway": name,
                }
                | ({"route": road.route} if road is not None and road.route is not None else {})
                | ({"after": str(course.after)} if course.after is not None else {})
            )
            tally[contact.channel, name or "none", event.type, State.HELD if held else State.QUEUED] += 1
            if road and not held:
                queues.update(road.queues)
        if first is not None and not event.test:
            counted.add(event.id, account.id, rules, first, around.zone)
        rows.decide(event.id, event.account.id, event.type, decisions, now)
        return first is not None


def tells_balance(event: Waiting) -> bool:
    """Whether its balance is news: that of our own reminder is none, and of a threshold that the billing itself tells we need not tell again."""
    return event.type != TYPES["threshold"] and not is_ours(event.type, event.source)


async def take(session: AsyncSession, batch: int) -> list[Waiting]:
    """The oldest waiting events, and with them all others of their accounts, which are locked until the end of the transaction."""
    rows: list[Any] = list((await session.execute(TAKE, {"batch": batch})).all())
    return [Waiting(row.event_id, row.event_source, row.event_type, row.event_time, orjson.loads(row.event_data), row, row.event_test) for row in rows]


def addresses_in(contacts: dict[UUID, list[Reached]]) -> list[str]:
    """The telephone numbers among them."""
    return [contact.address for reached in contacts.values() for contact in reached if contact.channel == "sms"]


def counted(events: list[Waiting], tally: Counter[tuple[str, ...]], queues: set[str]) -> Planned:
    """For metrics, once it is committed."""
    for labels, number in tally.items():
        metrics.MESSAGES.labels(*labels).inc(number)
    return Planned(len(events), frozenset(queues))


@lru_cache(maxsize=1000)
def zone_of(name: str, otherwise: str) -> ZoneInfo:
    """The account's zone, or the operator's where the account's is unknown to this machine's zone data."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return ZoneInfo(otherwise)
