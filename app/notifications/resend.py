"""Messages that are sent once more: the same words, as new messages that point to the old ones. Of one as of many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.preferences import read
from app.accounts.quiet import QuietHoursNow
from app.accounts.suppressions import barred
from app.accounts.window import Opening, next_open, open_until
from app.catalogue.registry import Catalogue
from app.catalogue.types import VERIFICATION
from app.core.config import Settings
from app.gateways.operators import operators_of
from app.gateways.roads import Roads
from app.gateways.router import SIMULATED, SIMULATED_ROAD, Road, Router
from app.notifications.audience import ORDINARY, URGENT, Around, Reached, Told, why_closed
from app.notifications.plan import ACCOUNTS, zone_of
from app.notifications.rows import Rows, recut_for
from app.notifications.states import IN_OUTBOX
from app.notifications.stops import Stops
from app.rendering.compose import Composed

OLD = sa.text("""
SELECT m.id, m.event_id, m.account_id, m.type, m.channel, m.contact_id, m.address, m.locale, m.template_id, m.template_version, m.gateway, m.urgent, m.subject,
       m.text, m.html, m.encoding, m.parts, m.brand, CAST(m.attachments AS text) AS attachments, m.resend_of, m.test, m.content_deleted_at,
       coalesce((SELECT o.state FROM outbox o WHERE o.message_id = m.id), m.state) AS state
FROM message m WHERE m.id = ANY(CAST(:ids AS uuid[])) ORDER BY m.id
""")
THERE = sa.text("SELECT id FROM contact WHERE id = ANY(CAST(:ids AS uuid[]))")
BARRED = sa.text(barred("SELECT unnest(CAST(:addresses AS text[]))"))


class NotResent(StrEnum):
    """Why a message cannot be sent again; the API says the same as a code."""

    NOT_SENT_YET = "not_sent_yet"
    ERASED = "erased"
    CONTENT_DELETED = "content_deleted"
    TEST = "test_message"
    CODE = "one_time_code"
    CONTACT_REMOVED = "contact_removed"
    SUPPRESSED = "suppressed"
    NO_OPEN_HOURS = "no_open_hours"


@dataclass(frozen=True, slots=True)
class Copy:
    """What would be sent, when and through what. Without a road it waits until there is a gateway for it."""

    old: Any  # a row of OLD
    told: Told
    words: Composed
    road: Road | None
    stopped: bool
    is_simulated: bool

    @property
    def waits(self) -> bool:
        """Whether it is held at first: for its hour, or by a stop."""
        return self.told.waits is not None or self.stopped

    def add(self, rows: Rows, moment: datetime) -> UUID:
        """The new message among the rows that are to be written. Its id."""
        return rows.message(
            event_id=self.old.event_id,
            account_id=self.old.account_id,
            code=self.old.type,
            told=self.told,
            words=self.words,
            road=self.road,
            now=moment,
            resend_of=self.old.id,
            stopped=self.stopped,
            test=self.is_simulated,
        )


class Resending:
    """Weighs messages. Keeps types, quiet hours and routes between two batches, and looks each time whether they have changed."""

    def __init__(self, settings: Settings) -> None:
        self._zone, self._quiet = settings.timezone, QuietHoursNow(settings.quiet)
        self._catalogue, self._roads = Catalogue(), Roads()

    async def weigh(self, session: AsyncSession, ids: Sequence[UUID], moment: datetime, *, simulated: bool = False) -> dict[UUID, Copy | NotResent]:
        """Of each message that is there: the copy that would be sent, or why there is none. A fixed number of queries, however many; writes nothing.

        `simulated`: whatever comes of it goes to the simulated gateway."""
        olds = (await session.execute(OLD, {"ids": list(ids)})).all()
        fates: dict[UUID, Copy | NotResent] = {old.id: found for old in olds if (found := _refusal(old)) is not None}
        left = [old for old in olds if old.id not in fates]
        if not left:
            return fates
        await self._catalogue.refresh(session)
        await self._quiet.refresh(session)
        router, stops = await self._roads.look(session), await Stops.look(session)
        accounts = {row.id: row for row in (await session.execute(ACCOUNTS, {"ids": list({old.account_id for old in left})})).all()}
        contacts = set((await session.execute(THERE, {"ids": [old.contact_id for old in left if old.contact_id is not None]})).scalars())
        dead = {(row.channel, row.address): row.dead for row in (await session.execute(BARRED, {"addresses": list({old.address for old in left})})).all()}
        operators = await operators_of(session, {old.address for old in left if old.channel == "sms"}) if router.asks_operator else {}
        for old in left:
            account = accounts.get(old.account_id)
            if account is None:
                fates[old.id] = NotResent.ERASED
            elif old.contact_id is not None and old.contact_id not in contacts:
                fates[old.id] = NotResent.CONTACT_REMOVED
            elif self._is_barred(old, dead):
                fates[old.id] = NotResent.SUPPRESSED
            else:
                is_simulated = simulated or old.gateway == SIMULATED
                road = SIMULATED_ROAD if is_simulated else _road(router, old, account, operators.get(old.address))
                fates[old.id] = self._copy(old, account, road, stops, moment, is_simulated=is_simulated)
        return fates

    def _is_barred(self, old: Any, dead: Mapping[tuple[str, str], bool]) -> bool:
        """As `suppressions.is_barred` says it of one."""
        found, rules = dead.get((old.channel, old.address)), self._catalogue.types.get(old.type)
        return found is not None and (found or not (rules and rules.mandatory))

    def _copy(self, old: Any, account: Any, road: Road | None, stops: Stops, moment: datetime, *, is_simulated: bool) -> Copy | NotResent:
        rules = self._catalogue.types.get(old.type)
        around = Around(moment, zone_of(account.timezone, self._zone), self._quiet.of(account.timezone), read(account.chosen_json))
        opening = around.opening(rules, old.channel, old.contact_id) if rules else Opening(around.zone)
        opens = next_open(moment, opening)
        if opens is None:
            return NotResent.NO_OPEN_HOURS
        told = Told(
            contact=Reached(old.contact_id, old.channel, old.address, "", suppressed=False),
            not_before=opens,
            send_until=open_until(opens, opening),
            expires_at=opens + (rules.ttl if rules else timedelta(days=1)),
            priority=URGENT if old.urgent else ORDINARY,
            waits=why_closed(moment, opening) if opens > moment else None,
        )
        words = recut_for(road, words_of(old))
        return Copy(old, told, words, road, stops.hold(old.type, road.name if road else None), is_simulated)


def _refusal(old: Any) -> NotResent | None:
    """What the message itself says against it."""
    if old.state in IN_OUTBOX:
        return NotResent.NOT_SENT_YET
    if not old.address:
        return NotResent.ERASED
    if old.content_deleted_at is not None:
        return NotResent.CONTENT_DELETED
    if old.test and old.gateway != SIMULATED:
        return NotResent.TEST
    return NotResent.CODE if old.type == VERIFICATION else None


def _road(router: Router, old: Any, account: Any, operator: str | None) -> Road | None:
    """The road that the message would take now."""
    attributes = orjson.loads(account.attributes_json) if router.asks_attributes and account.attributes_json else {}
    return router.choose(old.channel, old.type, old.address, old.account_id, attributes, operator)


def words_of(old: Any) -> Composed:
    """The words as they were sent."""
    return Composed(
        template_id=old.template_id,
        version=old.template_version,
        locale=old.locale,
        subject=old.subject,
        text=old.text,
        html=old.html,
        encoding=old.encoding,
        parts=old.parts,
        brand=old.brand,
        attachments=orjson.loads(old.attachments) if old.attachments else None,
    )
