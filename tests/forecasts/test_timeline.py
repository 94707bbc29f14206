"""What an account will be told: the forecast of one account against a simulation of every day, and scans of many accounts, day by day, against another."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from app.forecasts import ask
from app.forecasts.ask import ask_for
from app.forecasts.find import TYPES, Wanted
from app.forecasts.rules import Due, period_end
from app.forecasts.scan import Alarm, Scanner
from app.forecasts.timeline import Heard, notices, reckon
from tests.forecasts.oracle import Charge, falls_on, runs_out
from tests.forecasts.test_rules import NOV23, a_charge, accounts_with
from tests.forecasts.test_scan import sql

D = Decimal
days_of_interest = st.sampled_from([NOV23, date(2026, 1, 31), date(2028, 2, 28), date(2028, 2, 29), date(2026, 12, 31), date(2100, 2, 27)])
money = st.integers(-5_000, 60_000).map(lambda kopecks: D(kopecks) / 100)


def days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def due_in(charges: Sequence[Charge], first: date, last: date) -> list[Due]:
    """As `due_of` gives them, by the oracle's own calendar."""
    return [
        Due(day, f"c{n}", f"Charge {n}", charge.amount, charge.announce, charge.kind)
        for day in days(first, last)
        for n, charge in enumerate(charges)
        if falls_on(charge, day)
    ]


@st.composite
def some_charges(draw: st.DrawFn, as_of: date) -> list[Charge]:
    rng = random.Random(draw(st.integers(0, 2**32)))
    return [a_charge(rng, as_of) for _ in range(draw(st.integers(0, 4)))]


@given(st.data(), days_of_interest, money, st.integers(0, 300).map(D), st.integers(1, 60))
@settings(max_examples=300, deadline=None)
def test_forecast_of_an_account_agrees_with_a_simulation_of_every_day(data, as_of, balance, credit, length):
    charges = data.draw(some_charges(as_of))
    upto = as_of + timedelta(days=length)

    told = reckon(balance, credit, as_of, upto, due_in(charges, as_of, max(upto, period_end(as_of))))

    expected = runs_out(balance + credit, charges, as_of, length)
    assert ((told.exhausts_on, told.shortfall) if told.exhausts_on else None) == expected
    assert told.days_left == ((expected[0] - as_of).days if expected else None)
    left = balance
    due_days = []
    for day in days(as_of, upto):
        due = [charge for charge in charges if falls_on(charge, day)]
        left -= sum((charge.amount for charge in due), D(0))
        if due:
            due_days.append((day, len(due), left))
    assert [(day.on, len(day.charges), day.after - credit) for day in told.days] == due_days


@given(st.data(), days_of_interest, money)
@settings(max_examples=300, deadline=None)
def test_whoever_pays_what_is_recommended_lasts_for_a_full_period(data, as_of, balance):
    charges = data.draw(some_charges(as_of))
    ends = period_end(as_of)

    told = reckon(balance, D(0), as_of, ends, due_in(charges, as_of, ends))

    payment = told.recommended_payment or D(0)
    assert runs_out(balance + payment, charges, as_of, (ends - as_of).days) is None
    if payment:
        assert payment >= (told.shortfall or D(0))
        assert runs_out(balance + payment - D("0.01"), charges, as_of, (ends - as_of).days) is not None, "not a kopeck too much"


@pytest.mark.parametrize(
    ("as_of", "ends"),
    [
        (date(2026, 11, 23), date(2026, 12, 22)),
        (date(2026, 1, 31), date(2026, 2, 27)),
        (date(2028, 1, 31), date(2028, 2, 28)),
        (date(2026, 12, 1), date(2026, 12, 31)),
        (date(2026, 12, 31), date(2027, 1, 30)),
    ],
)
def test_a_full_period_is_the_month_that_begins_today(as_of, ends):
    assert period_end(as_of) == ends


def told_day_by_day(balance: Decimal, threshold: Decimal, charges: Sequence[Charge], first: date, last: date, wanted: Wanted) -> list[tuple[date, str, str]]:
    """What a scan on each of these days tells, nobody paying and every charge posted at the end of its day."""
    told: list[tuple[date, str, str]] = []
    stage, is_low = None, False
    for day in days(first, last):
        out = runs_out(balance, charges, day, wanted.horizon)
        reached = min((warning for warning in wanted.warning_days if out and (out[0] - day).days <= warning), default=None)
        spoken = reached is not None and (stage is None or reached < stage)
        if spoken:
            stage = reached
            told.append((day, TYPES["exhaustion"], str(reached)))
        posted = balance - sum((charge.amount for charge in charges if falls_on(charge, day)), D(0))
        if not is_low and posted <= threshold:
            is_low = True
            if not spoken:
                told.append((day, TYPES["threshold"], "low"))
        ahead = day + timedelta(days=wanted.upcoming_days)
        if sum((charge.amount for charge in charges if falls_on(charge, ahead) and charge.announce and charge.kind != "daily"), D(0)) > 0:
            told.append((day, TYPES["upcoming"], ahead.isoformat()))
        charges, balance = [posted_on(charge, day) for charge in charges], posted
    return sorted(told, key=lambda notice: notice[:2])


def posted_on(charge: Charge, day: date) -> Charge:
    if not falls_on(charge, day):
        return charge
    return Charge(**{**vars(charge), "posted_through": day})


@given(st.data(), days_of_interest, money, st.integers(-20, 400).map(D), st.integers(1, 40), st.sampled_from([(7, 3, 1), (14,), (5, 2), (30, 10, 1)]))
@settings(max_examples=400, deadline=None)
def test_notices_are_what_a_scan_on_every_day_would_tell(data, as_of, balance, threshold, length, warning_days):
    charges = data.draw(some_charges(as_of))
    upto, wanted = as_of + timedelta(days=length), Wanted(warning_days)
    due = due_in(charges, as_of, upto + timedelta(days=max(wanted.horizon, wanted.upcoming_days)))

    found = notices(reckon(balance, D(0), as_of, upto, due), threshold, upto, due, wanted)

    assert [(notice.on, notice.type, notice.mark) for notice in found] == told_day_by_day(balance, threshold, charges, as_of, upto, wanted)


def test_what_was_heard_is_left_out():
    charges = [Charge("once", D(100), on=date(2026, 11, 30))]
    due, upto = due_in(charges, NOV23, date(2026, 12, 30)), date(2026, 11, 30)
    told = reckon(D(50), D(0), NOV23, upto, due)

    found = notices(told, D(60), upto, due, Wanted(), Heard(3, is_low=True, due_days=frozenset({"2026-11-30"})))

    assert [(notice.on, notice.mark) for notice in found] == [(date(2026, 11, 29), "1")]


# Sixty days of many accounts. The database is scanned each morning; the oracle below keeps its own books.

PEOPLE, LENGTH, FIRST = 220, 60, date(2027, 12, 31)  # over the 29th of February


@dataclass
class Person:
    """One account in the oracle's books."""

    balance: Decimal
    credit: Decimal
    threshold: Decimal | None
    charges: list[Charge]
    stage: int | None = None
    spell: int = 0
    is_low: bool = False
    low_spell: int = 0
    is_frozen: bool = False
    told: list[tuple[date, str, int, str, str]] = field(default_factory=list)
    own_threshold: Decimal | None = None
    own_days: list[int] | None = None
    own_upcoming: int | None = None

    def choose(self, rng: random.Random) -> None:
        """He chooses in the cabinet when to be warned."""
        self.own_threshold = rng.choice([None, D(20), D(150)])
        self.own_days = rng.choice([None, [5, 2], [21], [14, 1]])
        self.own_upcoming = rng.choice([None, 1, 3, 9])

    def morning(self, day: date, wanted: Wanted) -> None:
        """What the three scans of a day must say of him."""
        if self.is_frozen:
            return
        warning_days = self.own_days or wanted.warning_days
        threshold = self.threshold if self.own_threshold is None else self.own_threshold
        out = runs_out(self.balance + self.credit, self.charges, day, max(warning_days))
        reached = min((warning for warning in warning_days if out and (out[0] - day).days <= warning), default=None)
        spoken = reached is not None and (self.stage is None or reached < self.stage)
        if spoken:
            self.spell += self.stage is None
            self.told.append((day, "exhaustion", self.spell, str(reached), "told"))
            self.stage = reached
        elif reached is None:
            self.stage = None
        if threshold is not None and self.balance <= threshold:
            if not self.is_low:
                self.low_spell += 1
                self.told.append((day, "threshold", self.low_spell, "low", "covered" if spoken else "told"))
            self.is_low = True
        else:
            self.is_low = False
        ahead = day + timedelta(days=self.own_upcoming or wanted.upcoming_days)
        falling = sum((charge.amount for charge in self.charges if charge.announce and charge.kind != "daily" and falls_on(charge, ahead)), D(0))
        if falling > 0 and all(mark != ahead.isoformat() for _, _, _, mark, _ in self.told):
            self.told.append((day, "upcoming", 0, ahead.isoformat(), "told"))

    def evening(self, day: date) -> None:
        """The billing posts what was due."""
        self.balance -= sum((charge.amount for charge in self.charges if falls_on(charge, day)), D(0))
        self.charges = [posted_on(charge, day) for charge in self.charges]


def a_person(rng: random.Random) -> Person:
    charges = [a_charge(rng, FIRST + timedelta(days=rng.randint(0, LENGTH))) for _ in range(rng.choice([0, 1, 1, 2, 3]))]
    charges += [Charge("daily", D(rng.randint(1, 20)))] * (rng.random() < 0.4)
    threshold = rng.choice([None, D(0), D(50), D(100)])
    return Person(D(rng.randint(-2_000, 60_000)) / 100, D(rng.choice([0, 0, 0, 50])), threshold, charges)


SET = sa.text("""
UPDATE account SET balance = g.balance, threshold = g.threshold, own_threshold = g.own_threshold, warning_days = CAST(g.own_days AS smallint[]),
    upcoming_days = g.own_upcoming, credit_limit = g.credit, status = CASE WHEN g.frozen THEN 'suspended' ELSE 'active' END
FROM unnest(CAST(:ids AS uuid[]), CAST(:balances AS numeric[]), CAST(:thresholds AS numeric[]), CAST(:credits AS numeric[]), CAST(:frozen AS bool[]),
    CAST(:own_thresholds AS numeric[]), CAST(:own_days AS text[]), CAST(:own_upcomings AS smallint[]))
    AS g(id, balance, threshold, credit, frozen, own_threshold, own_days, own_upcoming) WHERE account.id = g.id
""")
POST = sa.text("""
UPDATE planned_charge SET posted_through = g.day FROM unnest(CAST(:ids AS uuid[]), CAST(:names AS text[]), CAST(:days AS date[])) AS g(id, name, day)
WHERE account_id = g.id AND external_id = g.name
""")


async def store(database, ids: list[Any], people: list[Person]) -> None:
    """The oracle's balances, as the billing would tell them."""
    columns = ([one.balance for one in people], [one.threshold for one in people], [one.credit for one in people], [one.is_frozen for one in people])
    own = {
        "own_thresholds": [one.own_threshold for one in people],
        "own_days": ["{" + ",".join(map(str, one.own_days)) + "}" if one.own_days else None for one in people],
        "own_upcomings": [one.own_upcoming for one in people],
    }
    posted = [(ref, f"c{n}", charge.posted_through) for ref, one in zip(ids, people, strict=True) for n, charge in enumerate(one.charges)]
    async with database.transaction() as session:
        await session.execute(SET, {"ids": ids} | own | dict(zip(("balances", "thresholds", "credits", "frozen"), columns, strict=True)))
        await session.execute(POST, dict(zip(("ids", "names", "days"), map(list, zip(*posted, strict=True)), strict=True)))


async def test_sixty_days_of_scans_with_payments_tell_what_the_books_say(database, monkeypatch):
    monkeypatch.setattr(ask, "SLICE", 83)
    rng, wanted = random.Random(4), Wanted()
    people = [a_person(rng) for _ in range(PEOPLE)]
    for one in people[::3]:
        one.choose(rng)
    ids = await accounts_with(database, [one.charges for one in people])

    for day in days(FIRST, FIRST + timedelta(days=LENGTH - 1)):
        await store(database, ids, people)
        await scans_of(database, day, wanted)
        for one in people:
            one.morning(day, wanted)
            one.evening(day)
            if rng.random() < 0.12:
                one.balance += D(rng.choice([1, 50, 100, 400]))  # he pays
            if rng.random() < 0.02:
                one.is_frozen = not one.is_frozen
            if rng.random() < 0.01:
                one.choose(rng)

    found = await sql(database, "SELECT account_id, as_of, kind, episode, mark, outcome FROM forecast_hit ORDER BY as_of")
    for ref, one in zip(ids, people, strict=True):
        assert sorted(tuple(row)[1:] for row in found if row.account_id == ref) == sorted(one.told), (ref, one)
    assert len({tuple(row)[:1] + tuple(row)[2:5] for row in found}) == len(found), "nothing is told twice"
    events = await sql(database, "SELECT count(*) AS n, count(DISTINCT external_id) AS keys FROM event")
    assert events[0].n == events[0].keys == sum(row.outcome == "told" for row in found) > 300
    assert {row.episode for row in found if row.kind == "exhaustion"} >= {1, 2, 3}, "payments have ended episodes"


async def scans_of(database, day: date, wanted: Wanted) -> None:
    """The three scans of a morning, in the order of the clock."""

    async def operator(_session):
        return wanted, Alarm(least=10_000)

    async def nothing(_session, _hits):
        return {}, []

    scanner = Scanner(database, operator, nothing)
    for kind in ("exhaustion", "threshold", "upcoming"):
        async with database.transaction() as session:
            await ask_for(session, kind, origin="clock", by="clock", days={"Europe/Moscow": day}, zone="Europe/Moscow", as_of=day)
        while await scanner.step():
            pass


async def test_the_notices_of_one_account_are_what_its_scans_tell(api, database):
    rng, wanted = random.Random(11), Wanted()
    charges = [[a_charge(rng, NOV23) for _ in range(3)] for _ in range(40)]
    ids = await accounts_with(database, charges)
    people = [Person(D(rng.randint(0, 60_000)) / 100, D(0), D(50), its) for its in charges]
    for one in people[::2]:
        one.choose(rng)
    await store(database, ids, people)
    upto = NOV23 + timedelta(days=14)
    foretold = {}
    for ref in ids:
        answer = (await api.get(f"/accounts/{ref}/forecast", params={"as_of": NOV23.isoformat(), "days": 14})).json()
        foretold[ref] = sorted((notice["date"], notice["type"], notice["mark"]) for notice in answer["notices"] if notice["type"] != TYPES["threshold"])

    for day in days(NOV23, upto):
        await scans_of(database, day, wanted)
        for one in people:
            one.evening(day)
        await store(database, ids, people)

    rows = await sql(database, "SELECT account_id, as_of, kind, mark FROM forecast_hit WHERE kind <> 'threshold'")
    for ref in ids:
        assert sorted((row.as_of.isoformat(), TYPES[row.kind], row.mark) for row in rows if row.account_id == ref) == foretold[ref]
