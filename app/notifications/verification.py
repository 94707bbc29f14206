"""The code that proves a contact, on its way there: one message to the contact that nobody has proved yet, past preferences and hours."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts import codes
from app.accounts.models import Contact
from app.accounts.preferences import read
from app.accounts.suppressions import is_barred
from app.catalogue.registry import Catalogue
from app.catalogue.types import VERIFICATION
from app.core import metrics
from app.core.config import Settings
from app.gateways.operators import operators_of
from app.gateways.roads import Roads
from app.gateways.router import NO_ATTRIBUTES, Road
from app.notifications.audience import URGENT, Reached, Told
from app.notifications.ending import close
from app.notifications.plan import ACCOUNTS
from app.notifications.rows import Rows, cut_for
from app.notifications.states import State
from app.notifications.stops import Stops
from app.notifications.withdraw import LAST_TRY
from app.rendering.compose import Composed, NoTemplate, RenderFailed, Templates, variables

log = structlog.get_logger()

WAITING = sa.text("""
SELECT o.message_id FROM message m JOIN outbox o ON o.message_id = m.id
WHERE m.account_id = :account AND m.contact_id = :contact AND (CAST(:type AS text) IS NULL OR m.type = :type) ORDER BY o.message_id
""")
SHOWN_OF_NUMBER = 3


@dataclass(frozen=True, slots=True)
class Sent:
    """The code is on its way: until when it is good, from when on another one may be asked for, whom to wake."""

    good_until: datetime
    again_from: datetime
    queues: Sequence[str]


@dataclass(frozen=True, slots=True)
class TooSoon:
    """So many codes were sent that this one has to wait."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Unable:
    """No code can be sent at all: `type_disabled`, `no_template` or `render_failed`."""

    reason: str


Answer = Sent | TooSoon | Unable


class Verification:
    """Of one process: types, templates and roads stay in memory from one code to the next."""

    def __init__(self, settings: Settings) -> None:
        self.digests = codes.Digests(settings)
        self._catalogue, self._templates, self._roads = Catalogue(), Templates(settings.locale), Roads()
        self._links = {"cabinet": settings.cabinet_url}

    async def send(self, session: AsyncSession, contact: Contact, moment: datetime) -> Answer:
        """A new code to a contact that is not proved. The caller has locked its account, and keeps nothing of it when the answer is not Sent.

        To a suppressed address the answer is the same, and nothing goes there: who is suppressed is nobody else's business. The message says it."""
        await self._catalogue.refresh(session)
        rules = self._catalogue.types.get(VERIFICATION)
        if rules is None or not rules.enabled:
            return Unable("type_disabled")
        if (until := await codes.may_send_from(session, self.digests, contact, moment)) > moment:
            return TooSoon(until)
        account = (await session.execute(ACCOUNTS, {"ids": [contact.account_id]})).one()
        code, good_until = await codes.issue(session, self.digests, contact, moment)
        words = await self._words(session, account, contact, code, moment)
        if isinstance(words, Unable):
            return words
        await withdraw_of(session, contact, "not_needed", moment, VERIFICATION)  # the code before this one is good no more
        road = await self._road(session, account, contact)
        reached = Reached(contact.id, contact.channel, contact.address, contact.label, suppressed=False, verified=False)
        rows, stopped = Rows(), (await Stops.look(session)).hold(VERIFICATION, road.name if road else None)
        message_id = rows.message(
            event_id=None,
            account_id=contact.account_id,
            code=VERIFICATION,
            told=Told(reached, moment, None, good_until, URGENT),
            words=cut_for(road, words),
            road=road,
            now=moment,
            stopped=stopped,
        )
        await rows.write(session)
        await codes.count_sending(session, self.digests, contact, message_id, moment)
        if await is_barred(session, contact.channel, contact.address, mandatory=False):
            await close(session, [message_id], State.CANCELLED, "suppressed", moment)
        metrics.MESSAGES.labels(contact.channel, road.name if road else "none", VERIFICATION, (State.HELD if stopped else State.QUEUED).value).inc()
        return Sent(good_until, await codes.may_send_from(session, self.digests, contact, moment), road.queues if road else ())

    async def _words(self, session: AsyncSession, account: Any, contact: Contact, code: str, moment: datetime) -> Composed | Unable:
        await self._templates.refresh(session)
        data = {"code": code, "minutes": int(codes.GOOD_FOR.total_seconds() // 60)}
        said = variables(_to_a_stranger(account), contact, VERIFICATION, moment, data, moment, self._links)
        try:
            locale, attributes = read(account.chosen_json).locale or account.locale, orjson.loads(account.attributes_json)
            return self._templates.compose(VERIFICATION, contact.channel, locale, said, attributes=attributes)
        except (NoTemplate, RenderFailed) as error:
            reason = "no_template" if isinstance(error, NoTemplate) else "render_failed"
            log.error("verification_not_sent", channel=contact.channel, reason=reason)  # not what the template says: it may have the code in it
            return Unable(reason)

    async def _road(self, session: AsyncSession, account: Any, contact: Contact) -> Road | None:
        router = await self._roads.look(session)
        operators = await operators_of(session, [contact.address]) if router.asks_operator and contact.channel == "sms" else {}
        attributes = orjson.loads(account.attributes_json) if router.asks_attributes else NO_ATTRIBUTES
        return router.choose(contact.channel, VERIFICATION, contact.address, account.id, attributes, operators.get(contact.address))


def _to_a_stranger(account: Any) -> Any:
    """The account as whoever gets the code may know it: he may be somebody whose address was mistyped."""
    number = account.number
    hidden = f"***{number[-SHOWN_OF_NUMBER:]}" if len(number) > SHOWN_OF_NUMBER else "***"
    shown = {name: getattr(account, name) for name in ("currency", "locale", "timezone", "status", "tariff")}
    return SimpleNamespace(**shown, number=hidden, name="", balance=account.balance * 0, credit_limit=account.credit_limit * 0, threshold=None, attributes={})


async def withdraw_of(session: AsyncSession, contact: Contact, reason: str, moment: datetime, code: str | None = None) -> int:
    """Cancel what is held or queued for a contact, of one type or of all. How many there were. What is on the wire at this very moment is on its last try."""
    ids = list((await session.execute(WAITING, {"account": contact.account_id, "contact": contact.id, "type": code})).scalars())
    if not ids:
        return 0
    cancelled: list[UUID] = await close(session, ids, State.CANCELLED, reason, moment)
    if len(cancelled) < len(ids):
        await session.execute(LAST_TRY, {"ids": ids, "now": moment})
    return len(cancelled)
