"""Held messages: released when their hour comes, rendered anew with the words published then; put off again when a queue backs up past the window.

Every step takes what it moves with SKIP LOCKED and does it in one transaction: two sweepers share the work, a dying one leaves none undone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.preferences import read
from app.accounts.quiet import QuietHoursNow
from app.accounts.suppressions import barred
from app.accounts.window import next_open, open_until
from app.catalogue.registry import Catalogue
from app.core.clock import now as clock
from app.core.config import Settings
from app.core.db import Database
from app.core.ids import new_id
from app.core.wakeups import Wakeups
from app.gateways.operators import operators_of
from app.gateways.roads import Roads
from app.gateways.router import NO_ATTRIBUTES, SIMULATED, SIMULATED_ROAD
from app.notifications.audience import URGENT, Around, Reached, contact_refusal, why_closed
from app.notifications.coalesce import News, news_of
from app.notifications.delivery import FALLBACK, Cancel, Wait, spread_over
from app.notifications.ending import close
from app.notifications.follow import judged, move_along
from app.notifications.links import Links
from app.notifications.plan import ACCOUNTS, CHOSEN, zone_of
from app.notifications.reminders import is_ours, still_true, until_midnight
from app.notifications.reroute import PRIORITIES, Rerouting
from app.notifications.rows import CHANGES, attachments_text, recut_for
from app.notifications.states import State
from app.notifications.stops import UNSTOPPED
from app.notifications.undone import undone
from app.rendering.compose import Composed, NoTemplate, RenderFailed, Templates, variables

log = structlog.get_logger()

BATCH = 500
NO_HOURS = timedelta(hours=1)

# The urgent first, then the oldest: each priority is a range of its own in the index, and only what is taken is locked.
DUE = sa.text(f"""
SELECT d.message_id FROM unnest(CAST(:priorities AS smallint[])) AS p(priority) CROSS JOIN LATERAL (
    SELECT message_id FROM outbox o
    WHERE state = 'held' AND stopped_at IS NULL AND priority = p.priority AND not_before <= now() AND expires_at > now() AND {UNSTOPPED}
    ORDER BY not_before FOR UPDATE SKIP LOCKED
) d LIMIT :batch
""")
HELD = sa.text(f"""
WITH barred AS MATERIALIZED ({barred("SELECT address FROM message WHERE id = ANY(CAST(:ids AS uuid[]))")})
SELECT m.id, m.account_id, m.event_id, m.type, m.channel, m.contact_id, m.address, m.subject, m.text, m.html, m.locale, m.template_id, m.template_version, m.encoding, m.parts,
       m.brand, CAST(m.attachments AS text) AS attachments,
       e.source, e.time, CASE WHEN m.resend_of IS NULL THEN CAST(e.data AS text) END AS data, c.label, b.dead, c.id IS NULL AS contact_gone, c.origin = 'billing' OR c.verified_at IS NOT NULL AS verified, o.resent, o.gateway,
       m.leads, o.priority, o.after_message, o.message_id, EXISTS (SELECT FROM notification_event n WHERE n.message_id = m.id) AS is_joined
FROM message m JOIN outbox o ON o.message_id = m.id LEFT JOIN event e ON e.id = m.event_id LEFT JOIN contact c ON c.id = m.contact_id
LEFT JOIN barred b ON b.channel = m.channel AND b.address = m.address
WHERE m.id = ANY(CAST(:ids AS uuid[])) AND o.message_id = ANY(CAST(:ids AS uuid[])) ORDER BY m.id
""")
REWRITE = sa.text("""
UPDATE message m SET subject = v.subject, text = v.text, html = v.html, locale = v.locale, template_id = v.template_id, template_version = v.version,
       encoding = v.encoding, parts = v.parts, brand = v.brand, attachments = CAST(v.attachments AS jsonb), gateway = v.gateway, route = v.route, sender = v.sender, price = v.price, updated_at = :now
FROM unnest(CAST(:c0 AS uuid[]), CAST(:c1 AS text[]), CAST(:c2 AS text[]), CAST(:c3 AS text[]), CAST(:c4 AS text[]), CAST(:c5 AS uuid[]), CAST(:c6 AS int[]),
            CAST(:c7 AS text[]), CAST(:c8 AS smallint[]), CAST(:c9 AS text[]), CAST(:c10 AS text[]), CAST(:c11 AS text[]), CAST(:c12 AS text[]),
            CAST(:c13 AS text[]), CAST(:c14 AS numeric[]))
    AS v(id, subject, text, html, locale, template_id, version, encoding, parts, brand, attachments, gateway, route, sender, price)
WHERE m.id = v.id
""")
QUEUE = sa.text("""
UPDATE outbox o SET state = 'queued', reason = NULL, coalesce_key = NULL, gateway = v.gateway, parts = v.parts, send_until = v.send_until, not_before = :now
FROM unnest(CAST(:c0 AS uuid[]), CAST(:c1 AS text[]), CAST(:c2 AS smallint[]), CAST(:c3 AS timestamptz[])) AS v(id, gateway, parts, send_until)
WHERE o.message_id = v.id AND o.state = 'held'
""")
# A budget ends at midnight, and a stop at any hour: what they held is not to expire in the night that follows; nor is what waits for a message that waits.
HOLD_ON = sa.text("""
WITH held AS (
    UPDATE outbox o SET reason = v.reason, not_before = v.not_before, send_until = v.send_until,
           expires_at = CASE WHEN o.reason IN ('budget', 'stopped') OR v.reason = 'fallback' THEN o.expires_at + (v.not_before - CAST(:now AS timestamptz)) ELSE o.expires_at END
    FROM unnest(CAST(:c0 AS uuid[]), CAST(:c1 AS timestamptz[]), CAST(:c2 AS timestamptz[]), CAST(:c3 AS text[])) AS v(id, not_before, send_until, reason)
    WHERE o.message_id = v.id AND o.state = 'held' RETURNING o.message_id, o.expires_at
)
UPDATE message m SET expires_at = held.expires_at FROM held WHERE m.id = held.message_id AND m.expires_at <> held.expires_at
""")
LATE = sa.text(f"""
SELECT o.message_id, o.not_before, o.priority, m.type, m.channel, m.contact_id, m.leads, (SELECT source FROM event WHERE id = m.event_id) AS source, a.timezone, {CHOSEN} AS chosen_json
FROM outbox o JOIN message m ON m.id = o.message_id JOIN account a ON a.id = m.account_id
WHERE o.state = 'queued' AND o.send_until <= now() AND o.expires_at > now() AND {UNSTOPPED} LIMIT :batch FOR UPDATE OF o SKIP LOCKED
""")
PUT_OFF = sa.text("""
UPDATE outbox o SET state = 'held', reason = v.reason, not_before = v.not_before, send_until = v.send_until
FROM unnest(CAST(:c0 AS uuid[]), CAST(:c1 AS timestamptz[]), CAST(:c2 AS timestamptz[]), CAST(:c3 AS text[])) AS v(id, not_before, send_until, reason)
WHERE o.message_id = v.id AND o.state = 'queued'
""")
EXPIRED = sa.text(f"""
SELECT message_id FROM outbox o WHERE state = ANY(CAST(:states AS text[])) AND expires_at <= now() AND stopped_at IS NULL AND {UNSTOPPED}
LIMIT :batch FOR UPDATE SKIP LOCKED
""")


@dataclass(frozen=True, slots=True)
class When:
    """From when, until when, and what it waits for till then."""

    begins: datetime
    until: datetime | None
    waits: str | None


class Holding:
    """The steps that the sweeper runs. Each returns how many it moved."""

    def __init__(self, database: Database, settings: Settings, wakeups: Wakeups) -> None:
        self._database, self._settings, self._wakeups = database, settings, wakeups
        self._catalogue, self._templates, self._roads = Catalogue(), Templates(settings.locale), Roads()
        self._quiet = QuietHoursNow(settings.quiet)
        self._spread = timedelta(seconds=settings.release_spread_seconds)
        self._rerouting = Rerouting(database, wakeups)
        self._links = Links(settings)

    async def release(self) -> int:
        """What is due goes into the queue, in the words of now."""
        async with self._database.transaction() as session:
            ids = list((await session.execute(DUE, {"batch": BATCH, "priorities": list(PRIORITIES)})).scalars())
            if not ids:
                return 0
            await self._catalogue.refresh(session)
            await self._templates.refresh(session)
            await self._quiet.refresh(session)
            router, moment = await self._roads.look(session), clock()
            rows = (await session.execute(HELD, {"ids": ids})).all()
            rows_by_id = {row.id: row for row in rows}
            operators = await operators_of(session, [row.address for row in rows if row.channel == "sms"]) if router.asks_operator else {}
            accounts = {row.id: row for row in (await session.execute(ACCOUNTS, {"ids": list({row.account_id for row in rows})})).all()}
            refused = {row.id: self._refusal(row, accounts) for row in rows}
            fresh = await self._true_ones(session, [row for row in rows if not refused[row.id]], accounts)
            refused |= {message_id: "resolved" for message_id, data in fresh.items() if data is None or self._is_stale_repeat(rows_by_id[message_id], data)}
            gone = await undone(session, [row for row in rows if not refused[row.id]], moment)
            refused |= dict.fromkeys(gone.messages, "resolved")
            followers = [row for row in rows if row.after_message is not None and not refused[row.id]]
            verdicts = await judged(session, followers, self._catalogue, moment, is_over=True)
            refused |= {message_id: said.reason for message_id, said in verdicts.items() if isinstance(said, Cancel)}
            for reason in {reason for reason in refused.values() if reason}:
                await close(session, [message_id for message_id, why in refused.items() if why == reason], State.CANCELLED, reason, moment)
            wanted, again, until = [], list[tuple[UUID, datetime, datetime | None, str | None]](), dict[UUID, datetime | None]()
            for row in (row for row in rows if not refused[row.id]):
                when, said = self._when(row, accounts[row.account_id], moment), verdicts.get(row.id)
                if isinstance(said, Wait) and said.until is not None:
                    again.append((row.id, said.until, None, FALLBACK))
                elif when.begins > moment:  # nobody has swept for hours, and by now it is quiet once more
                    again.append((row.id, when.begins, when.until, when.waits))
                else:
                    wanted.append(row)
                    until[row.id] = when.until
            if again:
                await session.execute(HOLD_ON, columns(again) | {"now": moment})
            goes = dict.fromkeys(until, moment) | {message_id: begins for message_id, begins, _, _ in again}
            await move_along(session, {row.id: goes[row.id] for row in rows if row.leads and row.id in goes}, self._catalogue)
            news = await news_of(session, [row for row in wanted if row.is_joined and row.data is not None], gone.events)
            rewritten, queued, queues = [], [], set[str]()
            for row in wanted:
                account = accounts[row.account_id]
                if row.resent:  # its first try may have arrived: the second one goes in the same words, and where the first one went
                    queued.append((row.id, row.gateway, row.parts, until[row.id]))
                    continue
                attributes = orjson.loads(account.attributes_json) if router.asks_attributes else NO_ATTRIBUTES
                road = (
                    SIMULATED_ROAD
                    if row.gateway == SIMULATED
                    else router.choose(row.channel, row.type, row.address, row.account_id, attributes, operators.get(row.address))
                )
                words = recut_for(road, self._words(row, account, moment, fresh.get(row.id), news.get(row.id)))
                by = (road.name, road.route, road.sender, road.price) if road else (None, None, None, None)
                written = (words.subject, words.text, words.html, words.locale, words.template_id, words.version, words.encoding, words.parts)
                rewritten.append((row.id, *written, words.brand, attachments_text(words), *by))
                queued.append((row.id, by[0], words.parts, until[row.id]))
                queues.update(road.queues if road else ())
            if rewritten:
                await session.execute(REWRITE, columns(rewritten) | {"now": moment})
            if wanted:
                await session.execute(QUEUE, columns(queued) | {"now": moment})
                await CHANGES.run(session, [(new_id(), row.id, moment, State.QUEUED.value, "released", said_of(news.get(row.id))) for row in wanted])
        self._wakeups.wake(*queues)
        return len(rows)

    def _refusal(self, row: Any, accounts: dict[UUID, Any]) -> str | None:
        rules = self._catalogue.types.get(row.type)
        if row.contact_gone or row.account_id not in accounts:
            return "contact_removed"
        if row.dead or (row.dead is not None and not (rules and rules.mandatory)):
            return "suppressed"
        if rules is None or not rules.enabled:
            return "type_disabled"
        account = accounts[row.account_id]
        if account.status == "closed" and not rules.mandatory:
            return "account_closed"
        contact = Reached(row.contact_id, row.channel, row.address, row.label, suppressed=False, verified=row.verified)
        return contact_refusal(rules, contact, read(account.chosen_json))

    async def _true_ones(self, session: AsyncSession, rows: Sequence[Any], accounts: dict[UUID, Any]) -> dict[UUID, dict[str, Any] | None]:
        """Of our own reminders, by message, the data of now; nothing where it is not true any more."""
        asked = [row for row in rows if row.data is not None and is_ours(row.type, row.source)]
        claims = [(row.type, orjson.loads(row.data), accounts[row.account_id]) for row in asked]
        answers = await still_true(session, claims, self._settings.timezone, self._catalogue) if asked else []
        return {row.id: data for row, data in zip(asked, answers, strict=True)}

    def _is_stale_repeat(self, row: Any, fresh: dict[str, Any]) -> bool:
        """A second try after a silence goes in the same words, or not at all."""
        return bool(row.resent) and fresh != orjson.loads(row.data)

    def _words(self, row: Any, account: Any, moment: datetime, fresh: dict[str, Any] | None = None, news: News | None = None) -> Composed:
        """The words of now; where they cannot be had any more, those that were planned."""
        planned = Composed(
            template_id=row.template_id,
            version=row.template_version,
            locale=row.locale,
            subject=row.subject,
            text=row.text,
            html=row.html,
            encoding=row.encoding,
            parts=row.parts,
            brand=row.brand,
            attachments=orjson.loads(row.attachments) if row.attachments else None,
        )
        if row.data is None:
            return planned
        try:
            contact = Reached(row.contact_id, row.channel, row.address, row.label, suppressed=False)
            links = self._links.of(self._templates, self._catalogue.types.get(row.type), row.account_id, contact)
            news = news or News(row.time, fresh or orjson.loads(row.data))
            said = variables(account, contact, row.type, news.time, news.data, moment, links, earlier=news.earlier)
            return self._templates.compose(row.type, row.channel, read(account.chosen_json).locale or account.locale, said)
        except (NoTemplate, RenderFailed) as error:
            log.warning("released_as_planned", type=row.type, message_id=str(row.id), error=type(error).__name__)
            return planned

    def _when(self, row: Any, account: Any, moment: datetime) -> "When":
        """From when and until when it may go. `account` has its zone and what was chosen."""
        zone = zone_of(account.timezone, self._settings.timezone)
        around = Around(moment, zone, self._quiet.of(account.timezone), read(account.chosen_json))
        opening = around.opening(self._catalogue.types[row.type], row.channel, row.contact_id)
        begins = next_open(moment, opening)
        if begins is None:  # the hours left no moment since it was planned: it waits for others, or for its end
            begins = moment + NO_HOURS
        until = open_until(begins, opening)
        waits = why_closed(moment, opening) if begins > moment else None
        if self._spread and waits is not None and row.priority != URGENT:
            begins += spread_over(row.message_id, begins, until, self._spread)
        return When(begins, until_midnight(until, begins, zone) if is_ours(row.type, row.source) else until, waits)

    async def put_off(self) -> int:
        """What backed up in its queue past the end of its window is held until the next one: nothing goes out at 3 a.m., and no reminder with the figures
        of yesterday."""
        async with self._database.transaction() as session:
            rows = (await session.execute(LATE, {"batch": BATCH})).all()
            if not rows:
                return 0
            await self._catalogue.refresh(session)
            await self._quiet.refresh(session)
            moment, moved = clock(), []
            for row in rows:
                when = self._when(row, row, max(moment, row.not_before))
                moved.append((row.message_id, when.begins, when.until, when.waits or "outdated"))
            await session.execute(PUT_OFF, columns(moved))
            begins = {message_id: begins for message_id, begins, _, _ in moved}
            await move_along(session, {row.message_id: begins[row.message_id] for row in rows if row.leads}, self._catalogue)
            await CHANGES.run(session, [(new_id(), message_id, moment, State.HELD.value, reason, None) for message_id, _, _, reason in moved])
        return len(rows)

    async def expire(self) -> int:
        """What came too late to be of use ends as expired."""
        async with self._database.transaction() as session:
            ids = list((await session.execute(EXPIRED, {"states": [State.HELD.value, State.QUEUED.value], "batch": BATCH})).scalars())
            if ids:
                await close(session, ids, State.EXPIRED, "too_late", clock())
            return len(ids)

    async def reroute(self) -> int:
        """What is queued on a gateway that is gone, disabled, paused, lost or failing takes another one."""
        return await self._rerouting.run()


def said_of(news: News | None) -> str | None:
    """In a message's history: of how many events it tells."""
    return f"{news.count} events" if news is not None else None


def columns(rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    """Rows as the arrays :c0, :c1, ... of an `unnest`."""
    return {f"c{number}": list(column) for number, column in enumerate(zip(*rows, strict=True))}
