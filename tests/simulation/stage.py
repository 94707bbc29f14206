"""The month is played on a virtual clock: every step of the product that plans, releases, follows, puts off, expires, claims, settles and matches receipts,
one after the other, at moments that the stage gives. The far end is a function."""

import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa

from app.accounts import suppressions
from app.accounts.models import Account as AccountRow
from app.accounts.models import Contact as ContactRow
from app.accounts.models import Preference
from app.accounts.preference_store import ask_replan_of_zone
from app.catalogue.registry import Catalogue
from app.core.wakeups import Wakeups
from app.events.intake import Intake, Rejected
from app.notifications.hold import Holding
from app.notifications.plan import Planner
from app.notifications.reminders import Reminders
from app.notifications.replan import Replanning, replan
from app.notifications.withdraw import withdraw
from app.sending.outcome import Accepted, Deferred, Refused, Unknown
from app.sending.settle import Policy
from app.tracking.match import record
from app.tracking.sweeps import Sweeper
from tests.builders.messages import claim, rows, run, write
from tests.builders.receipts import a_receipt
from tests.simulation.checker import FAR, OURS, Event, Message, minutes
from tests.simulation.world import BEGIN, Happening, World

MINUTE = timedelta(minutes=1)
ROOM = 500
VIRTUAL = (
    "CREATE SCHEMA virtual",
    "CREATE TABLE virtual.clock (at timestamptz NOT NULL)",
    f"INSERT INTO virtual.clock VALUES ('{BEGIN.isoformat()}')",
    "CREATE FUNCTION virtual.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT at FROM virtual.clock'",
    "DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = virtual, pg_catalog, public', current_database()); END$$",
)
CONDITIONS = {"accepted": "accepted", "refused": "failed", "unknown": "unknown"}


class Clock:
    """What app.core.clock asks instead of `datetime`."""

    at: ClassVar[datetime] = BEGIN
    _number: ClassVar[int] = 0

    @classmethod
    def now(cls, _: Any = None) -> datetime:
        return cls.at

    @classmethod
    def new_id(cls) -> UUID:
        """RFC 9562, 5.7, of the virtual moment; in the order in which they are asked for, the last 32 bits random."""
        cls._number += 1
        high, low = divmod(cls._number, 2**30)
        bits = random.getrandbits(32)
        return UUID(int=int(cls.at.timestamp() * 1000) << 80 | 7 << 76 | (high & 0xFFF) << 64 | 2 << 62 | low << 32 | bits)


class Stage:
    def __init__(self, world: World, database: Any, settings: Any) -> None:
        self.world, self.month, self.database, self.settings = world, world.month, database, settings
        self.random = random.Random(world.seed + 1)
        wakeups = Wakeups(settings.redis_url, direct=lambda _: True)
        self.planner, self.holding = Planner(database, settings, wakeups), Holding(database, settings, wakeups)
        self.sweeper, self.replanning = Sweeper(database, wakeups), Replanning(database, settings)
        self.reminders, self.intake = Reminders(database, settings, wakeups), Intake(database, Catalogue(), wakeups)
        self.receipts: list[tuple[datetime, UUID, str, str, str]] = []  # when it comes, message, its id there, what it says, whose number
        self.came: dict[UUID, list[tuple[UUID, datetime, str, str | None]]] = defaultdict(list)  # what became of messages; ids are in order
        self.policies = {name: Policy(name, name, 2 * MINUTE, 30 * MINUTE, 3) for name in ("main", "post")}

    async def play(self) -> None:
        await self._settle_down()
        happenings, number = self.world.happenings, 0
        for moment in self._moments():
            await self._set_clock(moment)
            upto = number
            while upto < len(happenings) and happenings[upto].at <= moment:
                upto += 1
            await self._happen(happenings[number:upto])
            number = upto
            await self._step(is_out=self._is_out(moment))
            if number == len(happenings) and moment > self.world.end and await self._is_empty():
                break
        await self._tell()

    def _moments(self) -> Iterator[datetime]:
        moment = BEGIN
        while moment < self.world.end + timedelta(days=1):
            yield moment
            moment += timedelta(seconds=self.random.randrange(300, 4200))
        while moment < self.world.end + timedelta(days=30):  # what waits for its hours has them at last
            yield moment
            moment += timedelta(hours=1)

    def _is_out(self, moment: datetime) -> bool:
        """Every fourth day the far end is away for some hours of the evening: what is queued backs up past its window."""
        return (moment - BEGIN).days % 4 == 2 and moment.hour in {13, 14, 15, 16, 17, 18, 19}

    async def _set_clock(self, moment: datetime) -> None:
        Clock.at = moment
        await run(self.database, "UPDATE virtual.clock SET at = :at", at=moment)

    async def _settle_down(self) -> None:
        async with self.database.transaction() as session:
            for account in self.month.accounts.values():
                shape = {"number": account.number, "currency": "RUB", "locale": "ru", "timezone": account.zone, "balance": Decimal(300), "balance_as_of": BEGIN}
                thresholds = {"threshold": self.world.thresholds[account.id], "own_threshold": self.world.own_thresholds[account.id]}
                session.add(AccountRow(id=account.id, **shape, **{name: Decimal(said) if said else None for name, said in thresholds.items()}))
                for contact in account.contacts.values():
                    whose = {"origin": "billing", "verified_at": None} if contact.proved < BEGIN else {"origin": "subscriber", "verified_at": None}
                    session.add(ContactRow(id=contact.id, account_id=account.id, channel=contact.channel, address=contact.address, **whose))
                for _, document in account.documents:
                    session.add(Preference(account_id=account.id, document=document, updated_by="test"))

    async def _happen(self, happenings: list[Happening]) -> None:
        events = [one for one in happenings if one.what == "event"]
        if events:
            for answer in await self.intake.take_batch([one.data for one in events]):
                assert not isinstance(answer, Rejected), answer
            for one in events:
                self.month.sent_events[one.data["source"], one.data["id"]] = (one.data["subject"], one.data["type"])
        for one in happenings:
            if one.what != "event":
                async with self.database.transaction() as session:
                    await self._change(session, one)

    async def _change(self, session: Any, one: Happening) -> None:
        at, account = Clock.at, self.month.accounts.get(one.account) if one.account else None
        if account is not None:
            await session.execute(sa.text("SELECT id FROM account WHERE id = :id FOR NO KEY UPDATE"), {"id": account.id})
        match one.what:
            case "preferences":
                document = self.world.document(account)
                account.documents.append((at, document))
                await session.merge(Preference(account_id=account.id, document=document, updated_by="test"))
                await session.flush()
            case "close":
                self.world.closes(account, at)
                await session.execute(sa.text("UPDATE account SET status = 'closed' WHERE id = :id"), {"id": account.id})
            case "prove":
                account.contacts[one.data].proved = at
                await session.execute(sa.text("UPDATE contact SET verified_at = :at WHERE id = :id"), {"at": at, "id": one.data})
            case "remove":
                account.contacts[one.data].removed = at
                await session.execute(sa.text("DELETE FROM contact WHERE id = :id"), {"id": one.data})
            case "suppress":
                contact, until, dead = one.data
                self.world.suppresses(contact, at, until, dead=dead)
                values = {"channel": contact.channel, "address": contact.address, "reason": "hard_bounce" if dead else "operator", "detail": "", "by": "test"}
                await suppressions.put(session, values | {"at": at, "until": None if until == FAR else until})
                await withdraw(session, [contact.address])
            case "quiet":
                name, workdays, weekends = one.data
                hours = tuple((minutes(said[:5]), minutes(said[6:])) for said in (workdays, weekends))
                self.month.quiet.setdefault(name, []).append((at, hours))
                put = "INSERT INTO quiet_hours (zone, workdays, weekends, updated_at, updated_by) VALUES (:zone, :workdays, :weekends, now(), 'test')"
                await session.execute(sa.text(put), {"zone": name, "workdays": workdays, "weekends": weekends})
                await ask_replan_of_zone(session, name)
        if one.what in {"preferences", "close", "remove"}:
            await replan(session, [account.id], self.settings)

    async def _step(self, *, is_out: bool) -> None:
        """What the processes of a whole installation do, until nothing is left to do at this moment."""
        while await self.planner.plan():
            pass
        await self._receive()
        while await self.replanning.follow():
            pass
        for work in (self.reminders.follow, self.holding.put_off, self.holding.expire, self.sweeper.follow_up, self.holding.release):
            while await work():
                pass
        while await self.planner.plan():  # what the reminders have found
            pass
        if not is_out:
            while await self._send("main") + await self._send("post"):
                pass
        await self.sweeper.follow_up()

    async def _send(self, gateway: str) -> int:
        owner, claimed = Clock.new_id(), []
        claimed = await claim(self.database, room=ROOM, owner=owner, gateway=gateway, at=Clock.at)
        outcomes = [(one, self._answer(one)) for one in claimed]
        if outcomes:
            await write(self.database, owner, *outcomes, policy=self.policies[gateway], at=Clock.at)
        for one, outcome in outcomes:
            said = type(outcome).__name__.lower()
            if said == "deferred" and one.attempts + 1 >= 3:
                said = "refused"
            self.month.claims.append((one.id, Clock.at, said))
            if said in CONDITIONS:
                self.came[one.id].append((Clock.new_id(), Clock.at, CONDITIONS[said], None))
        return len(claimed)

    def _answer(self, one: Any) -> Any:
        luck = self.random.random()
        if luck < 0.04:
            return Refused("refused", code="0x0000000B")
        if luck < 0.08:
            return Deferred("later", MINUTE, code="0x00000058")
        if luck < 0.09:
            return Unknown("no_answer")
        if one.channel == "sms" and luck < 0.9:
            stat = "UNDELIV" if luck < 0.25 else "DELIVRD"
            comes = Clock.at + timedelta(seconds=self.random.randrange(1, 6000))
            self.receipts += [(comes, one.id, f"{one.id}-{part}", stat, one.address[1:]) for part in range(one.parts)]
        return Accepted(tuple(f"{one.id}-{part}" for part in range(one.parts)))

    async def _receive(self) -> None:
        due = [one for one in self.receipts if one[0] <= Clock.at]
        self.receipts = [one for one in self.receipts if one[0] > Clock.at]
        for begin in range(0, len(due), ROOM):
            batch = due[begin : begin + ROOM]
            async with self.database.transaction() as session:
                await record(session, self.policies["main"], [a_receipt(identity, stat, of=number) for _, _, identity, stat, number in batch], [])
        for message_id, state in {one[1]: one[3] for one in due}.items():
            self.came[message_id].append((Clock.new_id(), Clock.at, "delivered" if state == "DELIVRD" else "undelivered", None))

    async def _is_empty(self) -> bool:
        return not self.receipts and not await rows(self.database, "SELECT 1 FROM outbox UNION ALL SELECT 1 FROM event_waiting LIMIT 1")

    async def _tell(self) -> None:
        """The checker is told what came of it."""
        month, read = self.month, self.database
        for row in await rows(
            read, "SELECT id, source, external_id, type, account_id, time, data #>> '{service,code}' AS service, data ? 'balance' AS has_balance FROM event"
        ):
            month.kept_events[row.source, row.external_id] = row.id
            month.events[row.id] = Event(row.id, row.account_id, row.type, row.source, row.time, row.service, row.has_balance and row.source != OURS)
        for row in await rows(read, "SELECT event_id, at, decisions FROM notification"):
            month.decided[row.event_id] = (row.at, row.decisions)
        named = "id, event_id, account_id, type, channel, contact_id, address, state, reason, expires_at, updated_at"
        for row in await rows(read, f"SELECT {named} FROM message"):
            month.messages[row.id] = Message(*row)
        month.joins = [(row.event_id, row.message_id) for row in await rows(read, "SELECT event_id, message_id FROM notification_event")]
        for row in await rows(read, "SELECT id, message_id, at, state, reason FROM message_change"):
            self.came[row.message_id].append((row.id, row.at.astimezone(UTC), row.state, row.reason))
        for message_id, line in self.came.items():
            month.news[message_id] = [(at, state, reason) for _, at, state, reason in sorted(line, key=lambda one: one[0])]
        month.outbox = len(await rows(read, "SELECT 1 FROM outbox"))
