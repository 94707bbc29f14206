"""Days that are summed up from the hours: other clocks, days of 23 and 25 hours, folding that dies, what comes late, and readers at any of these moments."""

import asyncio
import datetime as dt
import itertools
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from app.core.clock import now
from app.core.ids import first_id_at
from app.tracking.reports.cells import Folding
from app.tracking.reports.days import CHUNK
from app.tracking.reports.dimensions import Period
from app.tracking.reports.recount import Backfill, recount, repair
from tests.builders.messages import a_message, one, rows, run
from tests.builders.receipts import a_submission
from tests.builders.reports import EVERY_DAY, ZONE, by_days, counted, fold, today, told, told_parts

NUMBERS = itertools.count(1)
MARCH = Period(dt.date(2026, 3, 1), dt.date(2026, 3, 31), ZONE)


async def lines(database, period=None):
    async with database.transaction() as session:
        return (await recount(session, period or today())).lines


async def days_of(database):
    """The messages of each day, as the table has them."""
    found = await rows(database, "SELECT day, sum(messages) AS messages FROM report_day GROUP BY day ORDER BY day")
    return {row.day.isoformat(): int(row.messages) for row in found}


async def number_told(database, groups=(), period=None, **filters):
    return sum(counts.messages for counts in (await told(database, groups, period, **filters)).values())


def at(day, time="12:00", zone=ZONE):
    """An id of that moment, another one each time."""
    return UUID(int=first_id_at(dt.datetime.fromisoformat(f"{day} {time}").replace(tzinfo=ZoneInfo(zone))).int + next(NUMBERS))


async def test_reports_without_hours_read_days_and_those_with_hours_read_hours(database):
    await a_message(database, id=at("2026-03-10"))
    await fold(database)
    await run(database, "DELETE FROM report_cell")

    for groups in ((), ("day",), ("type",), ("day", "type", "gateway", "state"), ("template",)):
        assert await number_told(database, groups, MARCH) == 1
    for groups in (("hour",), ("day", "hour")):
        assert await number_told(database, groups, MARCH) == 0


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", dt.date(2026, 3, 29), 23),
        ("Europe/Berlin", dt.date(2026, 10, 25), 25),
        ("Asia/Beirut", dt.date(2026, 3, 29), 23),  # this day has no midnight
        ("America/Havana", dt.date(2026, 11, 1), 25),  # this one has two
        ("Africa/Cairo", dt.date(2026, 10, 29), 25),  # the last hour of it comes twice
    ],
)
async def test_day_of_23_or_25_hours_has_all_of_them(database, zone, day, hours):
    begins = Period(day, day, zone).begins
    for hour in range(-1, hours + 1):
        await a_message(database, id=first_id_at(begins + dt.timedelta(hours=hour, minutes=30)))
    around = Period(day - dt.timedelta(days=1), day + dt.timedelta(days=1), zone)
    said = {(day + dt.timedelta(days=n)).isoformat(): number for n, number in ((-1, 1), (0, hours), (1, 1))}

    unfolded = await told(database, ("day",), around)
    await fold(database, zone)

    assert {key[0].isoformat(): counts.messages for key, counts in unfolded.items()} == said
    assert await told(database, ("day",), around) == unfolded
    assert await days_of(database) == said
    assert len(await rows(database, "SELECT DISTINCT slot FROM report_cell")) == hours + 2
    assert await lines(database, around) == []
    # Summed up from the hours it is the same, also when only this day is.
    await run(database, "UPDATE report_day SET messages = 7")
    async with database.transaction() as session:
        assert await repair(session, Period(day, day, zone)) == 0
    assert (await days_of(database))[day.isoformat()] == hours
    await run(database, "DELETE FROM report_day_zone")
    await fold(database, zone)
    assert await days_of(database) == said


async def test_folding_twice_adds_to_a_day_once(database):
    await a_message(database, id=at("2026-03-10"))

    for _ in range(3):
        await Folding(database, ZONE).fold()

    assert await days_of(database) == {"2026-03-10": 1}


@pytest.mark.parametrize("statement", ["INSERT INTO report_day", "DELETE FROM report_day", "DELETE FROM report_cell"])
async def test_folding_that_dies_between_hours_and_days_has_folded_neither(database, statement):
    """Whatever statement it dies at: hours, days and deltas are of one transaction."""
    message = await a_message(database, id=at("2026-03-10"))
    await fold(database)
    await run(database, "UPDATE message SET state = 'accepted' WHERE id = :id", id=message)  # empties a cell and a day's
    expected = await told(database, EVERY_DAY, MARCH)
    event, table = statement.split()[0], statement.split()[-1]
    await run(database, "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'died'; END $$")
    await run(database, f"CREATE TRIGGER die AFTER {event} ON {table} FOR EACH ROW EXECUTE FUNCTION die()")

    with pytest.raises(sa.exc.DBAPIError, match="died"):
        await fold(database)

    assert (await one(database, "SELECT count(*) AS number FROM report_delta")).number == 2
    assert await told(database, EVERY_DAY, MARCH) == expected
    await run(database, f"DROP TRIGGER die ON {table}")
    await fold(database)
    assert await told(database, EVERY_DAY, MARCH) == expected == by_days(await counted(database))
    assert await lines(database, MARCH) == []


async def test_day_is_the_sum_of_its_hours_and_of_what_is_not_folded_yet(database):
    message = await a_message(database, ended="accepted")
    await fold(database)
    await a_message(database, ended="accepted")
    await run(database, "UPDATE message SET state = 'delivered' WHERE id = :id", id=message)

    unfolded = await told(database, ("day", "state"))
    await fold(database)

    assert {key[1]: counts.messages for key, counts in unfolded.items()} == {"accepted": 1, "delivered": 1}
    assert await told(database, ("day", "state")) == unfolded
    assert await rows(database, "SELECT day FROM report_day WHERE messages = 0") == []


async def test_receipt_months_late_moves_its_message_on_the_day_of_long_ago(database):
    message = await a_message(database, id=at("2026-03-10"), ended="accepted")
    await a_message(database, id=at("2026-11-10"), ended="accepted")
    await fold(database)

    await run(database, "UPDATE message SET state = 'delivered' WHERE id = :id", id=message)

    for _ in range(2):
        assert [key[:2] for key in await told(database, ("day", "state"), MARCH)] == [(dt.date(2026, 3, 10), "delivered")]
        await fold(database)
    assert await days_of(database) == {"2026-03-10": 1, "2026-11-10": 1}


async def test_filters_and_parts_are_counted_by_days_as_by_hours(database):
    """Both kinds are in one table: neither may be in the other's report."""
    for type_, operator in (("payment.received", "МТС"), ("charges.upcoming", None), ("charges.upcoming", "Tele2")):
        message = await a_message(database, id=at("2026-03-10"), type=type_, operator=operator, ended="accepted", price=Decimal(2))
        await a_submission(database, message, f"s-{operator}", at=dt.datetime(2026, 3, 10, 21, 30, tzinfo=dt.UTC))  # the eleventh in Moscow
    await fold(database)

    for groups in (("day",), ("day", "hour")):
        assert await number_told(database, groups, MARCH) == 3
        assert await number_told(database, groups, MARCH, type=["charges.upcoming"]) == 2
        assert await number_told(database, groups, MARCH, type=["charges.upcoming"], operator=[""]) == 1
        assert await number_told(database, groups, MARCH, operator=["", "МТС"], state=["accepted"]) == 2
    assert await told_parts(database, ("day",), MARCH) == {(dt.date(2026, 3, 11),): (3, Decimal(6))}
    first_ten = Period(MARCH.first, dt.date(2026, 3, 10), ZONE)
    assert (await told_parts(database, (), first_ten), await number_told(database, (), first_ten)) == ({}, 3)


async def test_messages_from_before_the_upgrade_come_into_their_days_once(database):
    for days in (1, 5, 20):
        await a_message(database, id=first_id_at(now() - dt.timedelta(days=days)), ended="accepted")
    await run(database, "DELETE FROM report_delta")  # as if the triggers had come later
    await run(database, "INSERT INTO report_backfill (id, at, until) VALUES (1, now() - interval '21 days', now() + interval '1 day')")
    backfill, period = Backfill(database, ZONE), today(days=30)

    while await backfill.follow():
        await Folding(database, ZONE).fold()
    await fold(database)

    assert await told(database, EVERY_DAY, period) == by_days(await counted(database))
    assert len(await days_of(database)) == 3
    assert await lines(database, period) == []


async def test_clock_that_is_changed_shows_in_every_report_before_the_days_are_summed_anew(database):
    await a_message(database, id=at("2026-03-10", "22:30", "UTC"))  # the next day already in Moscow
    await fold(database)
    assert await days_of(database) == {"2026-03-11": 1}
    period = Period(dt.date(2026, 3, 10), dt.date(2026, 3, 11), "Europe/London")

    before = await told(database, ("day",), period)  # by the hours: the days are Moscow's
    whole = await number_told(database, (), period)
    await fold(database, "Europe/London")

    assert [key[0] for key in before] == [dt.date(2026, 3, 10)]
    assert (await told(database, ("day",), period), whole) == (before, 1)
    assert await days_of(database) == {"2026-03-10": 1}


async def test_years_of_days_are_summed_anew_some_at_a_time_and_every_report_is_right_meanwhile(database):
    """Also for what comes meanwhile, before and behind where it stands, and for a process that ends in the middle."""
    made = [dt.date(2025, 1, 31), dt.date(2026, 1, 1), dt.date(2026, 1, 7), dt.date(2026, 1, 8), dt.date(2026, 1, 20), dt.date(2026, 3, 10)]
    for day in made:
        await a_message(database, id=at(day, "22:30", "UTC"))
    await fold(database)
    zone = "Europe/London"
    period = Period(dt.date(2025, 1, 1), dt.date(2026, 12, 31), zone)

    steps = 0
    while await Folding(database, zone).fold() >= 500:
        steps += 1
        assert [key[0] for key in await told(database, ("day",), period)] == sorted({*made})
        for day in (dt.date(2026, 1, 2), dt.date(2026, 6, 1)):
            made.append(day)
            await a_message(database, id=at(day, "22:30", "UTC"))
        assert await number_told(database, (), period) == len(made)
        assert await lines(database, period) == []
    await fold(database, zone)

    assert steps == len(range(0, 20, CHUNK.days)) + 3  # January's weeks in three, and a step for each of the other months
    assert await told(database, EVERY_DAY, period) == by_days(await counted(database, zone))
    assert sum((await days_of(database)).values()) == len(made)
    assert await lines(database, period) == []
    assert await Folding(database, zone).fold() == 0


async def test_two_processes_that_disagree_on_the_clock_make_no_report_wrong(database):
    await a_message(database, id=at("2026-03-10", "22:30", "UTC"))
    clocks = {"Europe/London": dt.date(2026, 3, 10), ZONE: dt.date(2026, 3, 11)}

    for _ in range(2):
        for folds in clocks:
            await Folding(database, folds).fold()
            for zone, day in clocks.items():
                assert [key[0] for key in await told(database, ("day",), Period(MARCH.first, MARCH.last, zone))] == [day]


async def test_reports_are_right_while_some_fold_and_others_write(database):
    """Whoever asks sees one moment: each message once, in hours, days or deltas; also while the days are of another clock now and then."""
    wrong, asked, done = [], 0, asyncio.Event()

    async def there():
        return (await one(database, "SELECT count(*) AS number FROM message")).number

    async def asking():
        nonlocal asked
        while not done.is_set():
            for groups in (("day",), ("hour",), ()):
                before = await there()
                seen = await number_told(database, groups)
                after = await there()
                asked += 1
                if not before <= seen <= after:
                    wrong.append((groups, before, seen, after))

    async def folding(zone):
        while not done.is_set():
            await Folding(database, zone).fold()

    others = [asyncio.create_task(task) for task in (asking(), asking(), folding(ZONE), folding(ZONE), folding("Europe/London"))]
    try:
        for _ in range(60):
            await a_message(database, ended="accepted")
            await asyncio.sleep(0.01)
    finally:
        done.set()
        await asyncio.gather(*others)

    assert asked > 0
    assert wrong == []
