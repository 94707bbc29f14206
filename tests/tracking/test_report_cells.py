"""Cells, deltas and their upkeep: folding that dies, two that fold at once, zones, what was there before the triggers, what `recount` says and repairs."""

import asyncio
import datetime as dt
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from app.core.clock import now
from app.core.ids import first_id_at
from app.tracking.reports.cells import Folding
from app.tracking.reports.dimensions import Period
from app.tracking.reports.recount import Backfill, recount, repair
from app.tracking.reports.times import BORDERS, percentile, seconds_of
from tests.builders.messages import a_message, one, rows, run
from tests.builders.receipts import a_submission
from tests.builders.reports import EVERYTHING, ZONE, bucket_of, counted, counted_parts, fold, today, told, told_parts


async def lines(database, period=None):
    async with database.transaction() as session:
        return (await recount(session, period or today())).lines


async def test_folding_that_dies_before_its_commit_has_folded_nothing(database):
    await a_message(database, ended="accepted")
    folding = Folding(database, ZONE)

    class Died(Exception):
        pass

    class Dying:
        def transaction(self):
            return self

        async def __aenter__(self):
            self.context = database.transaction()
            return await self.context.__aenter__()

        async def __aexit__(self, *_):
            died = Died()
            await self.context.__aexit__(Died, died, None)
            raise died

    with pytest.raises(Died):
        await Folding(Dying(), ZONE).fold()
    assert (await one(database, "SELECT count(*) AS deltas FROM report_delta")).deltas == 1

    assert await folding.fold() == 1
    assert await folding.fold() == 0
    assert await told(database, EVERYTHING) == await counted(database)


async def test_two_that_fold_at_once_count_nothing_twice(database):
    for _ in range(5):
        await a_message(database, ended="accepted")

    await asyncio.gather(*(Folding(database, ZONE).fold() for _ in range(4)))
    await fold(database)

    assert [counts.messages for counts in (await told(database)).values()] == [5]


async def test_messages_that_have_moved_on_leave_no_empty_cells(database):
    message = await a_message(database)
    await fold(database)
    await run(database, "UPDATE message SET state = 'accepted' WHERE id = :id", id=message)
    await fold(database)

    cells = await rows(database, "SELECT k.state, c.messages FROM report_cell c JOIN report_key k ON k.key = c.key")
    assert [tuple(cell) for cell in cells] == [("accepted", 1)]


async def test_statement_that_moves_nothing_that_is_counted_leaves_no_delta(database):
    message = await a_message(database)
    await fold(database)

    await run(database, "UPDATE message SET text = '', expires_at = now() WHERE id = :id", id=message)

    assert await rows(database, "SELECT id FROM report_delta") == []


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns", "Europe/Moscow"])
async def test_day_begins_at_midnight_of_the_zone_also_where_it_is_no_full_hour(database, zone):
    midnight = dt.datetime(2026, 3, 10, tzinfo=ZoneInfo(zone))
    for minutes in (-1, 1, 59):
        await a_message(database, id=first_id_at(midnight + dt.timedelta(minutes=minutes)))
    period = Period(dt.date(2026, 3, 9), dt.date(2026, 3, 10), zone)

    for _ in range(2):
        days = {key[0].isoformat(): counts.messages for key, counts in (await told(database, ("day",), period)).items()}
        assert days == {"2026-03-09": 1, "2026-03-10": 2}
        await fold(database, zone)
    assert await lines(database, period) == []


async def test_messages_from_before_the_upgrade_are_counted_little_by_little_and_once(database):
    for days in (1, 5, 20):
        made = now() - dt.timedelta(days=days)
        message = await a_message(database, id=first_id_at(made), ended="accepted", price=Decimal(2))
        await a_submission(database, message, f"s{days}", at=made)
    await run(database, "DELETE FROM report_delta")  # as if the triggers had come later
    await run(
        database,
        "INSERT INTO report_backfill (id, at, until) SELECT 1, report_slot(min(CAST(id AS text))::uuid) - interval '1 day', now() + interval '1 day' FROM message",
    )
    # Meanwhile one of them moves on: its old state was never counted.
    await run(database, "UPDATE message SET state = 'delivered' WHERE id = (SELECT id FROM message ORDER BY id LIMIT 1)")
    backfill = Backfill(database, ZONE)

    steps = 0
    while await backfill.follow():
        steps += 1
        await fold(database)

    assert steps == 3
    assert await rows(database, "SELECT id FROM report_backfill") == []
    assert await told(database, EVERYTHING, today(days=30)) == await counted(database)
    assert await told_parts(database, ("gateway", "sender", "operator"), today(days=30)) == await counted_parts(database)
    assert await backfill.follow() == 0


async def test_part_that_turns_out_to_be_taken_is_on_the_invoice_and_a_simulated_one_is_not(database):
    message = await a_message(database, ended="unknown", price=Decimal(2))
    await a_submission(database, message, "", outcome="unknown")
    simulated = await a_message(database, ended="accepted", gateway="@simulated", test=True)
    await a_submission(database, simulated, "s1", group="@simulated")
    assert await told_parts(database, ("gateway",)) == {}

    for _ in range(2):
        await run(database, "UPDATE submission SET outcome = 'accepted', gateway_message_id = 's9' WHERE message_id = :id", id=message)
        await run(database, "UPDATE submission SET detail = 'seen' WHERE message_id = :id", id=message)

    assert await told_parts(database, ("gateway",)) == {("main",): (1, Decimal(2))}
    await fold(database)
    assert await lines(database) == []


async def test_recount_names_what_differs_and_repairs_it(database):
    await a_message(database, ended="accepted")
    await fold(database)
    await run(database, "UPDATE report_cell SET messages = messages + 2")

    assert [line.messages for line in await lines(database)] == [-2]
    async with database.transaction() as session:
        assert await repair(session, today()) == 1

    assert await lines(database) == []
    assert [counts.messages for counts in (await told(database)).values()] == [1]


async def test_recount_names_a_day_that_is_not_its_hours_and_sums_it_anew(database):
    await a_message(database, ended="accepted")
    await fold(database)
    await run(database, "UPDATE report_day SET messages = messages + 3")

    assert [line.messages for line in await lines(database)] == [-3]
    async with database.transaction() as session:
        assert await repair(session, today()) == 0

    assert await lines(database) == []
    assert [counts.messages for counts in (await told(database, ("day",))).values()] == [1]


async def test_recount_mends_days_that_have_no_records_any_more_too(database):
    """Their hours are still there."""
    period = Period(dt.date(2026, 3, 1), dt.date(2026, 3, 31), ZONE)
    for day in (10, 11):
        await a_message(database, id=first_id_at(dt.datetime(2026, 3, day, 12, tzinfo=dt.UTC)))
    await fold(database)
    await run(database, "DELETE FROM message")
    await run(database, "DELETE FROM report_day WHERE day = '2026-03-10'")

    assert [(line.slot, line.messages) for line in await lines(database, period)] == [(dt.date(2026, 3, 10), 1)]
    async with database.transaction() as session:
        assert await repair(session, period) == 0

    assert await lines(database, period) == []
    assert [counts.messages for counts in (await told(database, ("day",), period)).values()] == [1, 1]


async def test_repair_mends_hours_and_days_that_are_wrong_at_once(database):
    await a_message(database, ended="accepted")
    await fold(database)
    await run(database, "UPDATE report_cell SET messages = messages + 2")
    await run(database, "UPDATE report_day SET messages = messages + 3")

    async with database.transaction() as session:
        assert await repair(session, today()) == 1

    for _ in range(2):
        assert [[counts.messages for counts in (await told(database, groups)).values()] for groups in (("day",), ("hour",))] == [[1], [1]]
        assert await lines(database) == []
        await fold(database)


async def test_recount_mends_hours_that_began_at_another_minute_on_the_clock_before(database):
    """Midnight of Kathmandu is at 18:15 UTC: in the middle of an hour of Moscow."""
    for minute in (5, 20, 25):
        await a_message(database, id=first_id_at(dt.datetime(2026, 3, 10, 18, minute, tzinfo=dt.UTC)))
    await fold(database)
    zone = "Asia/Kathmandu"
    period = Period(dt.date(2026, 3, 9), dt.date(2026, 3, 12), zone)
    await fold(database, zone)

    assert sum(line.messages for line in await lines(database, period)) == 0
    async with database.transaction() as session:
        assert await repair(session, period) == 2

    for _ in range(2):
        assert {str(key[0]): counts.messages for key, counts in (await told(database, ("day",), period)).items()} == {"2026-03-10": 1, "2026-03-11": 2}
        assert [(key[0].isoformat(), counts.messages) for key, counts in (await told(database, ("hour",), period)).items()] == [
            ("2026-03-10T23:00:00+05:45", 1),
            ("2026-03-11T00:00:00+05:45", 2),
        ]
        assert await lines(database, period) == []
        await fold(database, zone)


async def test_days_whose_records_were_dropped_keep_what_was_counted(database):
    old = await a_message(database, id=first_id_at(now() - dt.timedelta(days=10)), ended="delivered")
    await a_message(database, ended="delivered")
    await fold(database)

    await run(database, "DELETE FROM message WHERE id = :id", id=old)

    period = today(days=20)
    assert await lines(database, period) == []
    async with database.transaction() as session:
        await repair(session, period)
    assert [counts.messages for counts in (await told(database, (), period)).values()] == [2]


async def test_operator_of_the_ranges_is_written_with_the_message(database, api):
    from app.notifications.rows import MESSAGES, NUMBER

    assert NUMBER in MESSAGES.sql
    await run(
        database,
        "INSERT INTO number_range (kind, first, last, operator) VALUES ('range', 79160000000, 79169999999, 'МТС'), ('ported', 79161234567, 79161234567, 'Tele2')",
    )
    for index, (channel, address) in enumerate(
        [("sms", "+79161234567"), ("sms", "+79161111111"), ("sms", "+79260000000"), ("sms", "alpha"), ("email", "a@example.org")]
    ):
        await written(database, index, channel, address)

    found = {row.address: row.operator for row in await rows(database, "SELECT address, operator FROM message")}

    assert found == {"+79161234567": "Tele2", "+79161111111": "МТС", "+79260000000": None, "alpha": None, "a@example.org": None}


async def written(database, index, channel, address):
    from app.core.ids import new_id
    from app.notifications.rows import MESSAGES

    moment = now()
    given = {
        "message_id": new_id(),
        "message_account_id": new_id(),
        "message_type": "x",
        "message_channel": channel,
        "message_address": address,
        "message_locale": "ru",
    }
    given |= {"message_state": "queued", "message_urgent": False, "message_not_before": moment, "message_expires_at": moment, "message_text": str(index)}
    given |= {"message_parts": 1, "message_updated_at": moment}
    async with database.transaction() as session:
        await MESSAGES.run(session, [tuple(given.get(name) for name in MESSAGES._names)])


async def test_buckets_of_the_database_are_those_of_the_code(database):
    for seconds in (-5, 0, 0.999, 1, 1.4, 1.414, 1.415, 2, 59.9, 86_400, 1e8):
        found = await one(database, "SELECT report_bucket('delivered', now(), now() + :late) AS bucket", late=dt.timedelta(seconds=seconds))
        assert found.bucket == bucket_of(seconds), seconds


def test_percentile_is_at_most_a_fifth_off():
    for index in range(1, len(BORDERS)):
        middle = seconds_of(index)
        for exact in (BORDERS[index - 1], BORDERS[index]):
            assert max(middle, exact) / min(middle, exact) < 1.195
    assert percentile({}, 0.5) is None
    assert percentile({3: 1, 5: 99}, 0.5) == seconds_of(5)
    assert percentile({3: 50, 5: 50}, 0.5) == seconds_of(3)
