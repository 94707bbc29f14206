"""Bind stations of a test, and the sweeps that a worker would run beside them."""

import asyncio
from zoneinfo import ZoneInfo

from app.core.secrets import SecretBox
from app.core.wakeups import Wakeups
from app.notifications.hold import Holding
from app.notifications.stops import Switch
from app.sending.bind_station import BindStation
from app.sending.budget_watch import BudgetWatch
from app.tracking.match import record
from app.tracking.sweeps import Sweeper
from tests.builders.messages import run

MOSCOW = ZoneInfo("Europe/Moscow")
# In order of time, as the ids of messages are: receipts are not looked for among those that are too old.
NEW_ID = "CAST(lpad(to_hex(CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)), 12, '0') || substr(replace(CAST(gen_random_uuid() AS text), '-', ''), 13) AS uuid)"


class Stations:
    """Started by slot, poked by the sweeps, stopped together."""

    def __init__(self, database, settings):
        self.database, self.settings = database, settings
        self.running = {}
        self.switch, self.watch = Switch(database), BudgetWatch(database, MOSCOW)
        self.wakeups = Wakeups(settings.redis_url, direct=lambda queue: not self.poke())
        self.sweeper, self.matching = Sweeper(database, self.wakeups), None
        self.holding = Holding(database, settings, self.wakeups)

    def start(self, slot=0, gateway="main"):
        self.matching = self.matching or asyncio.create_task(self.match_parked())
        station = BindStation(self.database, SecretBox(self.settings.secret_keys), gateway, slot, record, MOSCOW)
        self.running[gateway, slot] = (station, asyncio.create_task(station.run()))

    def follow(self, binds, gateway="main"):
        """As the worker's supervisor does: a station for each slot that is wanted and has none."""
        for slot in range(binds):
            if (gateway, slot) not in self.running or self.running[gateway, slot][1].done():
                self.start(slot, gateway)

    def poke(self):
        for station, _ in self.running.values():
            station.poke()

    async def match_parked(self):
        """A receipt may come on another bind than the one that has yet to write the answer to its submit."""
        while True:
            await self.sweeper.match_parked()
            await asyncio.sleep(0.3)

    async def sweep(self):
        """What is stopped follows, what may go is released."""
        await self.switch.follow()
        await self.watch.follow()
        while await self.holding.release():
            pass

    async def stop(self):
        for station, _ in self.running.values():
            station.stop()
        await asyncio.wait_for(asyncio.gather(*(task for _, task in self.running.values())), 30)
        if self.matching is not None:
            self.matching.cancel()
            await asyncio.gather(self.matching, return_exceptions=True)


async def until(condition, seconds=30):
    """Until it is so. The condition may be asynchronous."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if found := (await found if asyncio.iscoroutine(found) else found):
                return found
            await asyncio.sleep(0.02)


async def many_messages(database, account, number, **fields):
    """Queued, to as many addresses, with a contact that they can be released by."""
    given = {"type": "service.connected", "gateway": "main", "parts": 1, "text": "Баланс 10,00", "expires": 3600} | fields
    await run(
        database,
        "WITH made AS (INSERT INTO message (id, account_id, contact_id, type, channel, address, locale, gateway, state, urgent, not_before, expires_at, text,"
        f" parts, updated_at) SELECT {NEW_ID}, :account, (SELECT id FROM contact WHERE account_id = :account LIMIT 1), :type, 'sms',"
        " '+7916' || lpad(CAST(n AS text), 7, '0'), 'ru', :gateway, 'queued', false, now(), now() + make_interval(secs => :expires), :text, :parts, now()"
        " FROM generate_series(1, CAST(:number AS int)) n RETURNING id)"
        " INSERT INTO outbox (message_id, state, channel, gateway, priority, parts, not_before, expires_at, tries, attempts)"
        " SELECT id, 'queued', 'sms', :gateway, 1, :parts, now() - interval '1 second', now() + make_interval(secs => :expires), 0, 0 FROM made",
        account=account.id,
        number=number,
        **given,
    )
