"""The SQL of the rules against the cases of the specification and against a day-by-day simulation."""

import random
from datetime import date, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from app.core.db import BulkInsert, Database
from app.forecasts.rules import due_of, runs_out_of
from tests.forecasts.oracle import Charge, falls_on, runs_out

D = Decimal
NOV23 = date(2026, 11, 23)

CHARGES = BulkInsert(
    "planned_charge",
    id="uuid",
    account_id="uuid",
    external_id="text",
    title="text",
    amount="numeric",
    kind="text",
    slot="smallint",
    on_date="date",
    start_on="date",
    end_on="date",
    posted_through="date",
    announce="bool",
)


async def accounts_with(database: Database, charges: list[list[Charge]]) -> list[UUID]:
    ids = [uuid4() for _ in charges]
    rows = []
    for account_id, its in zip(ids, charges, strict=True):
        for n, charge in enumerate(its):
            slot = (charge.weekday or 0) + (charge.month or 0) * 100 + (charge.day or 0)
            until = (charge.on, charge.start_on, charge.end_on, charge.posted_through)
            rows.append((uuid4(), account_id, f"c{n}", f"Charge {n}", charge.amount, charge.kind, slot, *until, charge.announce))
    async with database.transaction() as session:
        await session.execute(
            sa.text("""
            INSERT INTO account (id, number, name, status, balance, credit_limit, currency, locale, timezone, tariff, attributes, created_at, updated_at)
            SELECT id, CAST(id AS text), '', 'active', 0, 0, 'RUB', 'ru', 'Europe/Moscow', '', '{}', now(), now() FROM unnest(CAST(:ids AS uuid[])) id"""),
            {"ids": ids},
        )
        await CHARGES.run(session, rows)
    return ids


CASES = [
    (1, D("0"), [], NOV23, 30, None),
    (2, D("0"), [Charge("monthly", D("300"), day=24)], NOV23, 30, (date(2026, 11, 24), D("300"))),
    (3, D("300"), [Charge("monthly", D("300"), day=24)], NOV23, 30, None),
    (4, D("300"), [Charge("monthly", D("300"), day=24)], NOV23, 7, None),
    (
        6,
        D("300"),
        [Charge("once", D("300"), on=date(2026, 11, 25)), Charge("daily", D("0.01"), start_on=date(2026, 11, 26))],
        NOV23,
        30,
        (date(2026, 11, 26), D("0.01")),
    ),
    (7, D("50"), [Charge("once", D("50.01"), on=NOV23)], NOV23, 7, (NOV23, D("0.01"))),
    (10, D("10"), [Charge("monthly", D("10.01"), day=31)], date(2028, 2, 1), 30, (date(2028, 2, 29), D("0.01"))),
    (12, D("70"), [Charge("daily", D("10"))], NOV23, 30, (date(2026, 11, 30), D("10"))),
    (13, D("70"), [Charge("daily", D("10"), end_on=date(2026, 11, 29))], NOV23, 30, None),
    (16, D("-0.01"), [], NOV23, 30, (NOV23, D("0.01"))),
    (17, D("0"), [], NOV23, 30, None),
    (19, D("0.30"), [Charge("daily", D("0.10"))], date(2026, 12, 30), 7, (date(2027, 1, 2), D("0.10"))),
]


@pytest.mark.parametrize(("number", "available", "charges", "as_of", "horizon", "expected"), CASES)
async def test_case_of_the_specification(database, number, available, charges, as_of, horizon, expected):
    (account,) = await accounts_with(database, [charges])

    async with database.transaction() as session:
        found = await runs_out_of(session, [(account, available)], as_of, horizon)

    assert ((found[0].exhausts_on, found[0].shortfall) if found else None) == expected
    assert runs_out(available, charges, as_of, horizon) == expected


def a_charge(rng: random.Random, around: date) -> Charge:
    kind = rng.choice(["once", "daily", "weekly", "monthly", "monthly", "yearly"])
    near = lambda spread: around + timedelta(days=rng.randint(-spread, spread))  # noqa: E731
    month = rng.choice([around.month, around.month % 12 + 1, rng.randint(1, 12)])
    longest = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}.get(month, 31)
    start, end = (near(20) if rng.random() < 0.2 else None for _ in range(2))
    if start and end and end < start:
        start, end = end, start
    return Charge(
        kind,
        D(rng.choice([0, 1, 10, 999, 10_000, rng.randint(1, 60_000)])) / 100,
        on=near(35) if kind == "once" else None,
        weekday=rng.randint(1, 7) if kind == "weekly" else None,
        month=month if kind == "yearly" else None,
        day=rng.choice([1, 15, 28, 29, 30, 31, around.day]) if kind == "monthly" else rng.randint(1, longest) if kind == "yearly" else None,
        start_on=start,
        end_on=end,
        posted_through=near(10) if rng.random() < 0.3 else None,
    )


@pytest.mark.parametrize(
    "as_of", [NOV23, date(2026, 1, 31), date(2027, 2, 28), date(2028, 2, 28), date(2028, 2, 29), date(2026, 12, 31), date(2026, 4, 30), date(2100, 2, 27)]
)
async def test_sql_agrees_with_a_simulation_of_every_day(database, as_of):
    rng = random.Random(as_of.toordinal())
    charges = [[a_charge(rng, as_of) for _ in range(rng.choice([0, 1, 1, 2, 3, 5]))] for _ in range(2_600)]
    available = [D(rng.choice([0, 1, -1, 10_000, rng.randint(-5_000, 90_000)])) / 100 for _ in charges]
    horizon = rng.choice([7, 30, 60])
    ids = await accounts_with(database, charges)

    async with database.transaction() as session:
        found = await runs_out_of(session, list(zip(ids, available, strict=True)), as_of, horizon)
        due = await due_of(session, ids, as_of, as_of + timedelta(days=horizon))

    for n, (has, its) in enumerate(zip(available, charges, strict=True)):
        assert ((found[n].exhausts_on, found[n].shortfall) if n in found else None) == runs_out(has, its, as_of, horizon), (has, its)
        days = [as_of + timedelta(days=d) for d in range(horizon + 1)]
        assert [(one.due_on, one.id) for one in due.get(ids[n], [])] == [
            (day, f"c{k}") for day in days for k, charge in enumerate(its) if falls_on(charge, day)
        ]
