"""Whom a slice finds, and what it says of them: against a simulation of every day, and against what the one account's own form says."""

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
import sqlalchemy as sa

from app.forecasts.find import TYPES, Wanted, count, find, hits_found
from app.forecasts.rules import Span, members, stage_of
from app.forecasts.truth import Claim, as_of_now
from tests.forecasts.oracle import falls_on, runs_out
from tests.forecasts.test_rules import a_charge, accounts_with

D = Decimal
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ALL = Span(UUID(int=0), UUID(int=2**128 - 1))
ACCOUNTS = "SELECT id, number, status, balance, balance_as_of, credit_limit, threshold, timezone, warning_days, upcoming_days FROM account"
SET = sa.text("""
UPDATE account a SET balance = g.balance, credit_limit = g.credit, threshold = g.threshold, status = g.status, timezone = g.zone
FROM unnest(CAST(:ids AS uuid[]), CAST(:balances AS numeric[]), CAST(:credits AS numeric[]), CAST(:thresholds AS numeric[]), CAST(:statuses AS text[]),
    CAST(:zones AS text[])) AS g(id, balance, credit, threshold, status, zone) WHERE a.id = g.id
""")


OWN = sa.text("""
UPDATE account a SET warning_days = CAST(g.warning AS smallint[]), upcoming_days = g.upcoming
FROM unnest(CAST(:ids AS uuid[]), CAST(:warnings AS text[]), CAST(:upcomings AS smallint[])) AS g(id, warning, upcoming) WHERE a.id = g.id
""")


async def a_town(session, database, rng, as_of, many, *, own=False):
    """Accounts by id, and the charges of each. `own`: some have chosen days of their own."""
    charges = [[a_charge(rng, as_of) for _ in range(rng.choice([0, 1, 1, 2, 3, 5]))] for _ in range(many)]
    ids = await accounts_with(database, charges)
    given = {
        "ids": ids,
        "balances": [D(rng.choice([0, 1, -1, 10_000, rng.randint(-5_000, 90_000)])) / 100 for _ in ids],
        "credits": [D(rng.choice([0, 0, 0, 5_000])) / 100 for _ in ids],
        "thresholds": [rng.choice([None, D(0), D(50)]) for _ in ids],
        "statuses": [rng.choice(["active"] * 8 + ["suspended", "closed"]) for _ in ids],
        "zones": [rng.choice(["Europe/Moscow", "Asia/Omsk"]) for _ in ids],
    }
    await session.execute(SET, given)
    if own:
        warnings = [rng.choice([None, None, "{5,2}", "{30}", "{1}", "{14,7,3,1}"]) for _ in ids]
        await session.execute(OWN, {"ids": ids, "warnings": warnings, "upcomings": [rng.choice([None, None, 1, 3, 10, 30]) for _ in ids]})
    accounts = {row.id: row for row in (await session.execute(sa.text(ACCOUNTS))).all()}
    return accounts, dict(zip(ids, charges, strict=True))


@pytest.mark.parametrize("own", [False, True], ids=["operators_days", "own_days"])
@pytest.mark.parametrize("as_of", [date(2026, 11, 23), date(2026, 12, 31), date(2028, 2, 29)])
async def test_slice_finds_whom_the_simulation_finds_and_says_what_is_said_of_one(database, as_of, own):
    rng, wanted = random.Random(as_of.toordinal()), Wanted()
    async with database.transaction() as session:
        accounts, charges = await a_town(session, database, rng, as_of, 1_500, own=own)
    expected = expectations(accounts, charges, as_of, wanted)

    for kind in TYPES:
        async with database.transaction() as session:
            counted = await count(session, kind, ALL, as_of, wanted, NOW)
        async with database.transaction() as session:
            await find(session, kind, list(accounts), as_of, wanted, NOW)
            hits = await hits_found(session)
        async with database.transaction() as session:
            await find(session, kind, counted.candidates, as_of, wanted, NOW)
            again = await hits_found(session)
        assert {hit.account_id: hit.mark for hit in hits} == expected[kind]
        assert again == hits
        assert (counted.told, counted.covered) == (len(hits), 0)
        assert set(counted.candidates) == {hit.account_id for hit in hits}
        async with database.transaction() as session:
            said = await as_of_now(session, [Claim(type_of(hit), hit.data, accounts[hit.account_id], as_of) for hit in hits], wanted)
        assert [hit.data for hit in hits] == said


async def test_slice_in_which_nobody_has_days_of_his_own_asks_nothing_more_of_the_others(database):
    rng, as_of = random.Random(3), date(2026, 11, 23)
    async with database.transaction() as session:
        accounts, _ = await a_town(session, database, rng, as_of, 300, own=True)
        own = {account_id for account_id, row in accounts.items() if row.warning_days is not None or row.upcoming_days is not None}
    last = max(accounts)
    async with database.transaction() as session:
        await session.execute(sa.text("UPDATE account SET warning_days = NULL, upcoming_days = NULL WHERE id < :last"), {"last": last})
        seen = []
        sa.event.listen(session.bind.sync_engine, "before_cursor_execute", lambda _c, _k, statement, *_: seen.append(statement))
        await count(session, "exhaustion", Span(ALL.first, last), as_of, Wanted(), NOW)
        await count(session, "upcoming", Span(ALL.first, last), as_of, Wanted(), NOW)

    assert own
    assert not any("coalesce(CAST(a.warning_days" in statement or "coalesce(o.upcoming_days" in statement for statement in seen)


async def test_slice_of_some_zones_finds_those_alone(database):
    rng, as_of, wanted = random.Random(7), date(2026, 11, 23), Wanted()
    async with database.transaction() as session:
        accounts, charges = await a_town(session, database, rng, as_of, 400, own=True)
    expected = expectations(accounts, charges, as_of, wanted)
    omsk = {account_id for account_id, row in accounts.items() if row.timezone == "Asia/Omsk"}

    for kind in TYPES:
        async with database.transaction() as session:
            them = await members(session, ALL, ["Asia/Omsk", "Asia/Tomsk"])
            counted = await count(session, kind, them, as_of, wanted, NOW)
            await find(session, kind, counted.candidates, as_of, wanted, NOW)
            hits = await hits_found(session)
        assert {hit.account_id for hit in hits} == set(counted.candidates) == expected[kind].keys() & omsk
        assert counted.accounts == sum(accounts[one].status == "active" for one in omsk)
        assert counted.frozen == sum(accounts[one].status == "suspended" for one in omsk)


def type_of(hit) -> str:
    return TYPES[hit.kind]


def expectations(accounts, charges, as_of, wanted) -> dict[str, dict[UUID, str]]:
    """By kind: account -> mark, by the simulation."""
    found: dict[str, dict[UUID, str]] = {kind: {} for kind in TYPES}
    for account_id, row in accounts.items():
        if row.status != "active":
            continue
        days = wanted.warning_days if row.warning_days is None else row.warning_days
        due_on = as_of + timedelta(days=wanted.upcoming_days if row.upcoming_days is None else row.upcoming_days)
        out = runs_out(row.balance + row.credit_limit, charges[account_id], as_of, max(days))
        stage = stage_of((out[0] - as_of).days, days) if out else None
        if stage is not None:
            found["exhaustion"][account_id] = str(stage)
        if row.threshold is not None and row.balance <= row.threshold:
            found["threshold"][account_id] = "low"
        if sum(charge.amount for charge in charges[account_id] if charge.announce and charge.kind != "daily" and falls_on(charge, due_on)) > 0:
            found["upcoming"][account_id] = due_on.isoformat()
    return found
