"""A random month: whom there is, what they want, what happens to them, and when. Plain data; the same seed makes the same month."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from tests.simulation.checker import FAR, Account, Bar, Contact, Kind, Month

BEGIN = datetime(2027, 3, 8, 4, 30, tzinfo=UTC)  # both summer times begin within the month
ZONES = (
    "Europe/Kaliningrad",
    "Europe/Moscow",
    "Europe/Samara",
    "Asia/Yekaterinburg",
    "Asia/Omsk",
    "Asia/Krasnoyarsk",
    "Asia/Irkutsk",
    "Asia/Vladivostok",
    "Asia/Kamchatka",
    "Europe/Berlin",
    "America/New_York",
)
BOTH, DAY = ("sms", "email"), timedelta(days=1)
KINDS = {
    "payment.received": Kind(BOTH, DAY, "operation", urgent=True),
    "service.connected": Kind(BOTH, 2 * DAY, "operation", delivery="chain", fallback=timedelta(minutes=40)),
    "service.disconnected": Kind(BOTH, 2 * DAY, "operation", coalesce=timedelta(minutes=20), default_channels=("sms",)),
    "tariff.changed": Kind(BOTH, 2 * DAY, "operation", mandatory=True),
    "balance.threshold_reached": Kind(BOTH, 2 * DAY, "reminder", interval=timedelta(hours=20)),
    "balance.exhausting": Kind(BOTH, 2 * DAY, "reminder"),
    "balance.restored": Kind(BOTH, DAY, "operation", opt_in=True),
    "charges.upcoming": Kind(("email", "sms"), 2 * DAY, "reminder", delivery="first"),
    "service.paused": Kind(BOTH, 2 * DAY, "operation", delivery="chain", coalesce=timedelta(minutes=15)),
}
CAPS = {"reminder": (2, 4, 16)}
QUIET = ((22 * 60, 8 * 60), (22 * 60, 8 * 60))
APART = {"Asia/Omsk": ("21:00-09:00", "23:00-11:00"), "Europe/Berlin": ("20:00-07:30", "00:00-00:00"), "Europe/Samara": ("01:00-06:00", "13:00-15:00")}
CLOCKS = ("00:00", "02:30", "06:00", "08:00", "09:00", "10:30", "12:00", "14:00", "18:00", "20:00", "21:30", "23:00")
SERVICES = ({"service": {"code": "tv", "name": "TV"}}, {"service": {"code": "radio", "name": "Радио"}})


@dataclass(frozen=True)
class Happening:
    """At this moment the billing sends an event (again), or somebody changes something."""

    at: datetime
    what: str
    account: UUID | None = None
    data: Any = None


class World:
    def __init__(self, seed: int, accounts: int, days: int) -> None:
        self.random, self.days, self.end = random.Random(seed), days, BEGIN + timedelta(days=days)
        self.seed = seed
        people = [self._account(number) for number in range(accounts)]
        self.month = Month(KINDS, CAPS, {one.id: one for one in people}, {}, {"": [(BEGIN - DAY, QUIET)]}, {})
        self.thresholds = {one.id: self.random.choice((None, None, "50.00", "200.00")) for one in people}
        self.own_thresholds = {one.id: self.random.choice((None, None, None, "100.00")) for one in people}
        self.happenings = sorted(self._all(people), key=lambda one: one.at)

    def _id(self) -> UUID:
        return UUID(int=self.random.getrandbits(128) & ~(0xF << 76) & ~(0x3 << 62) | 4 << 76 | 2 << 62)

    def _account(self, number: int) -> Account:
        pick, contacts = self.random, {}
        for channel, most in (("sms", 3), ("email", 2)):
            for n in range(pick.choice((0, 1, 1, 1, most))):
                # Now and then one that a neighbour has as well.
                whose = max(number - 1, 0) if pick.random() < 0.05 and n else number
                address = f"+79{whose:06d}{n:03d}" if channel == "sms" else f"s{whose}.{n}@example.org"
                billings = n == 0 or pick.random() < 0.5
                proved = BEGIN - DAY if billings else self._moment() if pick.random() < 0.6 else FAR
                contact = Contact(self._id(), channel, address, proved)
                contacts[contact.id] = contact
        account = Account(self._id(), f"n{number}", pick.choice(ZONES), contacts)
        if pick.random() < 0.6:
            account.documents.append((BEGIN - DAY, self.document(account)))
        return account

    def document(self, account: Account) -> dict[str, Any]:
        pick, said = self.random, dict[str, Any]()
        if pick.random() < 0.5:
            said["hours"] = self._intervals()
        for code in pick.sample(sorted(KINDS), 4):
            choice: dict[str, Any] = {}
            if pick.random() < 0.6:
                choice["enabled"] = pick.random() < 0.6
            if pick.random() < 0.4:
                choice["channels"] = {pick.choice(BOTH): pick.random() < 0.5}
            said.setdefault("types", {})[code] = choice
        for contact in account.contacts.values():
            choice = {}
            if pick.random() < 0.15:
                choice["enabled"] = pick.random() < 0.5
            if pick.random() < 0.3:
                choice["types"] = {pick.choice(sorted(KINDS)): pick.random() < 0.5}
            if pick.random() < 0.15:
                choice["hours"] = self._intervals()
            if choice:
                said.setdefault("contacts", {})[str(contact.id)] = choice
        return said

    def _intervals(self) -> list[dict[str, Any]]:
        pick, made = self.random, []
        for _ in range(pick.choice((1, 1, 2, 3))):
            one: dict[str, Any] = {"from": pick.choice(CLOCKS), "to": pick.choice(CLOCKS)}
            if pick.random() < 0.5:
                one["weekdays"] = sorted(pick.sample(range(1, 8), pick.randint(2, 7)))
            made.append(one)
        return made

    def _moment(self) -> datetime:
        return BEGIN + timedelta(seconds=self.random.randrange(self.days * 86_400))

    def _all(self, people: list[Account]) -> Iterator[Happening]:
        for account in people:
            yield from self._events(account)
            yield from self._changes(account)
        for zone, hours in APART.items():
            yield Happening(self._moment() if zone == "Europe/Samara" else BEGIN, "quiet", None, (zone, *hours))

    def _events(self, account: Account) -> Iterator[Happening]:
        pick = self.random
        for _ in range(pick.randint(1, max(2, self.days // 3))):
            at, code = self._moment(), pick.choice((*KINDS, "balance.changed"))
            burst = pick.randint(2, 5) if code.startswith(("service", "balance.exhausting")) and pick.random() < 0.4 else 1
            for n in range(burst):
                came = at + timedelta(seconds=n * pick.choice((5, 200, 3000)))
                time = came - timedelta(days=3) if pick.random() < 0.02 else came - timedelta(seconds=pick.randrange(600))
                raw = {
                    "specversion": "1.0",
                    "id": str(self._id()),
                    "source": "/billing",
                    "type": code,
                    "subject": account.number,
                    "time": time.isoformat(),
                    "data": self._data(code),
                }
                yield Happening(came, "event", account.id, raw)
                if pick.random() < 0.05:
                    yield Happening(came + timedelta(seconds=pick.randrange(40_000)), "event", account.id, raw)

    def _data(self, code: str) -> dict[str, Any]:
        balance = f"{self.random.randint(-5_000, 60_000) / 100:.2f}"
        if code == "payment.received":
            return {"amount": "500.00", "balance": balance} if self.random.random() < 0.5 else {"amount": "500.00"}
        if code == "tariff.changed":
            return {"old_tariff": "Home 50", "new_tariff": "Home 100"}
        return {
            "balance.changed": {"balance": balance},
            "balance.threshold_reached": {"balance": "42.00", "threshold": "50.00"},
            "balance.exhausting": {"days_left": 3, "exhausts_on": "2027-04-01", "recommended_payment": "100.00"},
            "balance.restored": {"balance": "512.30", "was": "threshold"},
            "service.paused": {"name": "TV"},
            "charges.upcoming": {"due_on": "2027-04-01", "total": "600.00", "charges": []},
        }.get(code, self.random.choice(SERVICES))

    def _changes(self, account: Account) -> Iterator[Happening]:
        pick = self.random
        for _ in range(pick.choice((0, 0, 1, 3))):
            yield Happening(self._moment(), "preferences", account.id)
        if pick.random() < 0.02:
            yield Happening(self._moment(), "close", account.id)
        for contact in account.contacts.values():
            if BEGIN < contact.proved < FAR:
                yield Happening(contact.proved, "prove", account.id, contact.id)
            if pick.random() < 0.05:
                yield Happening(self._moment(), "remove", account.id, contact.id)
            if pick.random() < 0.15:
                at = self._moment()
                for_good, dead = pick.random() < 0.5, pick.random() < 0.3
                yield Happening(at, "suppress", account.id, (contact, FAR if for_good else at + timedelta(hours=pick.randint(1, 200)), dead))

    # What has happened is told to the checker at the moment at which it was done.

    def closes(self, account: Account, at: datetime) -> None:
        account.closed = at

    def suppresses(self, contact: Contact, at: datetime, until: datetime, *, dead: bool) -> None:
        bars = self.month.bars.setdefault((contact.channel, contact.address), [])
        for bar in bars:
            if bar.dead == dead and bar.until > at:  # the same reason again takes over the end
                bar.until = until
                return
        bars.append(Bar(at, until, dead))
