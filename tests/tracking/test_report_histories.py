"""Whatever becomes of messages, in whatever order, and whenever it is folded: the reports say what a count of the messages says."""

import itertools
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.clock import now
from app.core.ids import new_id
from app.desk.erasure import erase
from app.desk.test_send import IS_TEST
from app.gateways.router import Road
from app.notifications.ending import close
from app.notifications.reroute import move
from app.notifications.states import State
from app.sending.outcome import Accepted, Deferred, Refused, Unknown
from app.tracking.reports.cells import Folding
from app.tracking.reports.recount import recount
from tests.builders.accounts import an_account
from tests.builders.messages import a_message, claim, run, write
from tests.builders.receipts import a_receipt, receive
from tests.builders.reports import EVERY_DAY, EVERYTHING, ZONE, by_days, counted, counted_parts, fold, today, told, told_parts

STEPS = (
    "make",
    "make",
    "take",
    "take",
    "refuse",
    "silence",
    "put_off",
    "receipt",
    "receipt",
    "late",
    "cancel",
    "expire",
    "reroute",
    "test",
    "blank",
    "erase",
    "fold",
)
NUMBERS = itertools.count(1)


class History:
    """Messages in the hands of the real steps; `draw` chooses which and how."""

    def __init__(self, database, settings):
        self.database, self.settings, self.owner = database, settings, uuid4()
        self.messages, self.sent, self.accounts = [], [], []

    async def make(self, pick):
        if not self.accounts or pick % 3 == 0:
            self.accounts.append(await an_account(self.database, f"r{next(NUMBERS)}", phones=()))
        account = self.accounts[-1]
        several = [new_id() for _ in range(1 + pick % 3)]
        for message in several:
            given = {
                "type": ("payment.received", "charges.upcoming")[pick % 2],
                "channel": "sms" if pick % 4 else "email",
                "parts": 1 + pick % 3,
                "price": (Decimal("1.2345"), None)[pick % 2],
                "sender": ("ISP", None)[pick % 2],
                "operator": ("МТС", "Tele2", None)[pick % 3],
                "template_id": None if pick % 5 else account.id,
                "template_version": pick % 5 or None,
                "resend_of": self.messages[-1] if self.messages and pick % 7 == 0 else None,
            }
            await a_message(self.database, account, id=message, **given)
        self.messages += several

    async def _claimed(self, outcome):
        taken = await claim(self.database, owner=self.owner, room=2)
        await write(self.database, self.owner, *((claimed, outcome(claimed)) for claimed in taken))
        return taken

    async def take(self, _):
        named = {}

        def accepted(claimed):
            named[claimed.id] = tuple(f"g{next(NUMBERS)}" for _ in range(claimed.parts))
            return Accepted(named[claimed.id])

        await self._claimed(accepted)
        self.sent += named.values()

    async def refuse(self, pick):
        await self._claimed(lambda _: Refused(("invalid_number", "blocked")[pick % 2], "0x0000000B"))

    async def silence(self, _):
        await self._claimed(lambda _: Unknown())

    async def put_off(self, _):
        await self._claimed(lambda _: Deferred("throttled", timedelta(0)))

    async def receipt(self, pick, stats=("DELIVRD", "UNDELIV", "EXPIRED", "REJECTD")):
        if self.sent:
            ids = self.sent[pick % len(self.sent)]
            await receive(self.database, *(a_receipt(identity, stats[pick % len(stats)]) for identity in ids))

    async def late(self, pick):
        """The truth after the end: a delivery that was reported as none."""
        await self.receipt(pick, ("UNDELIV",))
        await self.receipt(pick, ("DELIVRD",))

    async def _close(self, pick, state, reason):
        if self.messages:
            async with self.database.transaction() as session:
                await close(session, [self.messages[pick % len(self.messages)]], state, reason, now())

    async def cancel(self, pick):
        await self._close(pick, State.CANCELLED, "cancelled")

    async def expire(self, pick):
        await self._close(pick, State.EXPIRED, "too_late")

    async def reroute(self, pick):
        waiting = [row.message_id for row in await self._rows("SELECT message_id FROM outbox WHERE state = 'queued' LIMIT 2")]
        if waiting:
            road = Road(("main", "spare")[pick % 2], "smpp", 1, route="cheap", sender="NEW", price=Decimal("0.5"))
            async with self.database.transaction() as session:
                await move(session, "main", {road: waiting}, [(waiting[0], "ucs2", 2)])

    async def _rows(self, query):
        async with self.database.transaction() as session:
            return (await session.execute(sa.text(query))).all()

    async def test(self, pick):
        if self.messages:
            async with self.database.transaction() as session:
                await session.execute(IS_TEST, {"ids": [self.messages[pick % len(self.messages)]]})

    async def blank(self, _):
        """What retention of contents does."""
        await run(self.database, "UPDATE message SET subject = NULL, text = '', html = NULL, address = ''")

    async def erase(self, _):
        if self.accounts:
            account = self.accounts.pop()
            async with self.database.transaction() as session:
                await erase(session, "test", account.number, self.settings)

    async def fold(self, _):
        await Folding(self.database, ZONE).fold()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 1000)), min_size=5, max_size=40))
async def test_reports_say_what_the_messages_say_after_any_history(database, settings, steps):
    history = History(database, settings)

    for step, pick in steps:
        await getattr(history, step)(pick)

    # Before and after: what is folded is counted as what is not.
    for _ in range(2):
        assert await told(database, EVERYTHING) == await counted(database)
        assert await told(database, EVERY_DAY) == by_days(await counted(database))
        assert await told_parts(database, ("gateway", "sender", "operator")) == await counted_parts(database)
        async with database.transaction() as session:
            assert (await recount(session, today())).lines == []
        await fold(database)
    for table in ("report_cell", "report_day"):
        assert (await history._rows(f"SELECT count(*) FROM {table} WHERE messages = 0 AND parts = 0 AND cost = 0"))[0][0] == 0
        assert (await history._rows(f"SELECT count(*) FROM {table} WHERE messages < 0 OR parts < 0 OR cost < 0"))[0][0] == 0
