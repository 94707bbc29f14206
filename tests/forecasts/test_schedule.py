"""When the clock asks for scans: the hour of each zone, once a day, and what was missed."""

import asyncio
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

from app.core.clock import now
from app.core.ids import first_id_at
from app.forecasts import forget
from app.forecasts.forget import KEPT, OldScans
from app.forecasts.schedule import ask_for_due, days_of, today_in, zones
from tests.builders.accounts import an_account
from tests.forecasts.test_scan import a_scanner, sql

MOSCOW = "Europe/Moscow"
KINDS = ("exhaustion", "threshold", "upcoming")
TEN = time(10)


def at(written: str) -> datetime:
    return datetime.fromisoformat(written).astimezone(UTC)


async def asked(database, moment: datetime, kinds=KINDS) -> list[tuple[str, str, date]]:
    """What the clock asks for at this moment, in the order in which it asks."""
    async with database.transaction() as session:
        ids = await ask_for_due(session, kinds, TEN, MOSCOW, moment)
    rows = {row.id: (row.zone, row.kind, row.as_of) for row in await sql(database, "SELECT id, zone, kind, as_of FROM scan_run")}
    return [rows[run_id] for run_id in ids]


async def work(database) -> None:
    scanner = a_scanner(database)
    while await scanner.step():
        pass


async def test_each_zone_is_scanned_at_its_own_hour(database):
    for number, zone in (("1", MOSCOW), ("2", "Asia/Vladivostok")):
        await an_account(database, number, phones=(), timezone=zone)

    runs = {hour: await asked(database, at(f"2026-11-23T{hour}+03:00"), ["upcoming"]) for hour in ("02:59", "03:00", "09:59", "10:00", "16:59")}

    day = date(2026, 11, 23)
    assert {hour: run for hour, run in runs.items() if run} == {"03:00": [("Asia/Vladivostok", "upcoming", day)], "10:00": [(MOSCOW, "upcoming", day)]}


async def test_a_zone_is_scanned_once_a_day_however_often_and_by_however_many_it_is_asked(database):
    await an_account(database, phones=())

    async def ask():
        return await asked(database, at("2026-11-23T12:00+03:00"), ["exhaustion"])

    at_once = await asyncio.gather(*(ask() for _ in range(5)))

    assert sorted(map(len, at_once)) == [0, 0, 0, 0, 1]
    await work(database)
    assert await ask() == []
    assert await asked(database, at("2026-11-24T09:59+03:00"), ["exhaustion"]) == []
    assert await asked(database, at("2026-11-24T10:00+03:00"), ["exhaustion"]) == [(MOSCOW, "exhaustion", date(2026, 11, 24))]


async def test_daylight_saving_neither_skips_nor_doubles_a_day(database):
    await an_account(database, phones=(), timezone="Europe/Berlin")
    moment, end, days = at("2026-03-27T00:00+01:00"), at("2026-03-31T00:00+02:00"), []

    while moment < end:
        days += [day for _, _, day in await asked(database, moment, ["exhaustion"])]
        moment += timedelta(minutes=30)

    assert days == [date(2026, 3, day) for day in (27, 28, 29, 30)]


async def test_a_service_that_was_down_over_the_hour_scans_when_it_is_up_again(database):
    await an_account(database, phones=())

    assert await asked(database, at("2026-11-23T23:50+03:00"), ["exhaustion"]) == [(MOSCOW, "exhaustion", date(2026, 11, 23))]


async def test_days_missed_altogether_are_made_up_for_charges_that_are_still_to_come(database):
    await an_account(database, phones=())
    kinds = ["exhaustion", "upcoming"]
    await asked(database, at("2026-11-10T12:00+03:00"), kinds)
    await work(database)

    short = await asked(database, at("2026-11-13T12:00+03:00"), kinds)
    await work(database)
    long = await asked(database, at("2026-11-30T12:00+03:00"), kinds)

    # Exhaustion of today sees what yesterday's would have seen; charges of the 15th are announced on the 12th alone.
    assert [(kind, day.day) for _, kind, day in short] == [("exhaustion", 13), ("upcoming", 11), ("upcoming", 12), ("upcoming", 13)]
    assert [(kind, day.day) for _, kind, day in long] == [("exhaustion", 30), ("upcoming", 27), ("upcoming", 28), ("upcoming", 29), ("upcoming", 30)]


async def test_threshold_waits_until_exhaustion_has_told_the_more_serious(database):
    await an_account(database, phones=(), balance=Decimal(-1), threshold=Decimal(10))
    noon = at("2026-11-23T12:00+03:00")

    assert [kind for _, kind, _ in await asked(database, noon)] == ["exhaustion", "upcoming"]
    assert await asked(database, noon) == []
    await work(database)
    assert [kind for _, kind, _ in await asked(database, noon)] == ["threshold"]
    await work(database)

    assert [row.type for row in await sql(database, "SELECT type FROM event")] == ["balance.exhausting"]


async def test_threshold_waits_while_exhaustion_waits_for_a_confirmation(database):
    await an_account(database, phones=())
    noon = at("2026-11-23T12:00+03:00")
    await asked(database, noon)
    await sql(database, "UPDATE scan_run SET state = 'needs_confirmation' WHERE kind = 'exhaustion'")

    waiting = await asked(database, noon)
    await sql(database, "UPDATE scan_run SET state = 'failed' WHERE kind = 'exhaustion'")

    assert waiting == []
    assert [kind for _, kind, _ in await asked(database, noon)] == ["threshold"]


async def test_a_disabled_type_is_not_asked_for_and_threshold_does_not_wait_for_it(database):
    await an_account(database, phones=())

    assert [kind for _, kind, _ in await asked(database, at("2026-11-23T12:00+03:00"), ["threshold"])] == ["threshold"]


async def test_zones_are_those_that_accounts_live_in(database):
    for n, zone in enumerate((MOSCOW, "Asia/Omsk", MOSCOW, "America/Lima")):
        await an_account(database, str(n), phones=(), timezone=zone)

    async with database.transaction() as session:
        assert await zones(session) == ["America/Lima", "Asia/Omsk", MOSCOW]


def test_a_zone_that_this_machine_does_not_know_has_the_operators_day():
    moment = at("2026-03-29T01:30+03:00")

    assert [today_in(zone, MOSCOW, moment).date().day for zone in ("America/New_York", "Europe/London", "Mars/Olympus")] == [28, 28, 29]


def test_a_run_by_hand_skips_the_zones_that_are_past_its_day():
    moment, both = at("2026-11-22T12:00+00:00"), ["Pacific/Kiritimati", "Pacific/Niue"]

    assert days_of(both, MOSCOW, moment, None) == ({"Pacific/Kiritimati": date(2026, 11, 23), "Pacific/Niue": date(2026, 11, 22)}, [])
    assert days_of(both, MOSCOW, moment, date(2026, 11, 22)) == ({"Pacific/Niue": date(2026, 11, 22)}, ["Pacific/Kiritimati"])
    assert days_of(both, MOSCOW, moment, date(2026, 11, 20)) == ({}, both)


async def test_slices_and_samples_of_old_scans_are_forgotten_and_the_ledger_is_not(database):
    for age, state in ((1, "done"), (-1, "done"), (1, "needs_confirmation")):
        await a_run(database, first_id_at(now() - KEPT - timedelta(days=age)), state)

    step = OldScans(database, timedelta(days=400))
    gone = [await step.forget(), await step.forget()]

    left = await sql(
        database, "SELECT r.state, r.sample, count(s.n) AS slices FROM scan_run r LEFT JOIN scan_slice s ON s.run_id = r.id GROUP BY r.id ORDER BY r.id"
    )
    assert gone == [3, 0]
    assert [(row.state, row.sample, row.slices) for row in left] == [("done", [], 0), ("needs_confirmation", [], 3), ("done", [{"account": "1"}], 3)]


async def test_runs_and_hits_are_forgotten_when_records_are(database):
    young, old = (first_id_at(now() - timedelta(days=age)) for age in (399, 401))
    for run_id, state in ((young, "done"), (old, "done"), (old, "needs_confirmation")):
        await a_run(database, run_id, state)
    for hit_id in (young, old):
        await sql(
            database,
            """INSERT INTO forecast_hit (id, account_id, kind, episode, mark, as_of, outcome, inputs, at)
            VALUES (:id, gen_random_uuid(), 'upcoming', 0, '2026-11-23', '2026-11-20', 'told', '{}', now())""",
            id=hit_id,
        )

    step = OldScans(database, timedelta(days=400))
    await step.forget()

    assert [row.id for row in await sql(database, "SELECT id FROM forecast_hit")] == [young]
    assert [row.id for row in await sql(database, "SELECT id FROM scan_run")] == [UUID(int=young.int + len("done"))]
    assert await sql(database, "SELECT 1 FROM scan_slice") == []


async def test_old_records_go_in_batches_one_after_the_other(database, monkeypatch):
    monkeypatch.setattr(forget, "BATCH", 2)
    for n in range(5):
        await a_run(database, UUID(int=first_id_at(now() - timedelta(days=500)).int + 100 * n), "done")

    step = OldScans(database, timedelta(days=400))
    gone = [await step.forget() for _ in range(4)]

    assert gone[-1] == 0
    assert await sql(database, "SELECT 1 FROM scan_run") == []


async def a_run(database, run_id: UUID, state: str) -> None:
    """With three slices and a sample."""
    run_id = UUID(int=run_id.int + len(state))
    await sql(
        database,
        """INSERT INTO scan_run (id, kind, origin, dry_run, state, phase, requested_by, found, sample, created_at)
        VALUES (:id, 'upcoming', 'hand', true, :state, 'count', 't', '{}', '[{"account": "1"}]', now())""",
        id=run_id,
        state=state,
    )
    await sql(
        database,
        """INSERT INTO scan_slice (run_id, phase, n, as_of, first, last, state, attempts, found, created_at)
        SELECT :id, 'count', n, current_date, gen_random_uuid(), gen_random_uuid(), 'done', 1, '{}', now() FROM generate_series(1, 3) n""",
        id=run_id,
    )
