"""What a new balance changes at once."""

from datetime import UTC, date, datetime
from decimal import Decimal

import sqlalchemy as sa

from app.core.db import Database
from app.forecasts import brake
from app.forecasts.find import Wanted
from app.forecasts.watch import EPISODES_OF, Watched, concerns, watch
from tests.forecasts.oracle import Charge
from tests.forecasts.test_rules import accounts_with
from tests.forecasts.test_scan import scanned, set_balance, sql

D = Decimal
TODAY = date(2026, 11, 23)
LOOK = (
    f"SELECT id, status, balance, balance_as_of, credit_limit, threshold, warning_days, upcoming_days, {EPISODES_OF} AS episodes FROM account a WHERE id = :id"
)


async def balances(database: Database, account, *values: str):
    """The account's events told these balances, the last one is the account's; what the planner would see of it."""
    await set_balance(database, account, values[-1])
    async with database.transaction() as session:
        row = (await session.execute(sa.text(LOOK), {"id": account})).one()
        if not concerns(row, row.episodes):
            return None
        return await watch(session, [Watched(row, [D(value) for value in values], row.episodes, TODAY)], Wanted(), datetime(2026, 11, 23, 12, tzinfo=UTC))


async def told(database: Database) -> list[str]:
    return [row.type for row in await sql(database, "SELECT type FROM event ORDER BY id")]


async def test_crossing_the_threshold_is_told_once_until_it_is_armed_again(database):
    (account,) = await accounts_with(database, [[]])

    for values in (["20.01"], ["20.00"], ["19"], ["5"]):
        await balances(database, account, *values)
    assert await told(database) == ["balance.threshold_reached"]

    seen = await balances(database, account, "30")
    assert seen.resolved == {account: ["balance.threshold_reached"]}
    await balances(database, account, "10")
    assert await told(database) == ["balance.threshold_reached"] * 2


async def test_a_lift_and_a_fall_in_one_batch_both_count(database):
    (account,) = await accounts_with(database, [[]])
    await balances(database, account, "10")

    await balances(database, account, "100", "15")

    assert await told(database) == ["balance.threshold_reached"] * 2


async def test_a_fall_that_was_lifted_again_tells_nobody(database):
    (account,) = await accounts_with(database, [[]])

    seen = await balances(database, account, "10", "100")

    assert await told(database) == []
    assert seen.told == 0


async def test_whoever_runs_out_as_well_is_told_the_more_serious_of_the_two(database):
    (account,) = await accounts_with(database, [[Charge("daily", D("10"))]])

    await balances(database, account, "15")
    await scanned(database, "exhaustion", TODAY)
    await scanned(database, "threshold", TODAY)

    assert await told(database) == ["balance.exhausting"]


async def test_a_payment_ends_the_episode_of_exhaustion_and_names_the_reminders_that_are_untrue(database):
    (account,) = await accounts_with(database, [[Charge("once", D("100"), on=date(2026, 11, 25))]])
    await set_balance(database, account, "50")
    await scanned(database, "exhaustion", TODAY)

    assert (await balances(database, account, "60")).resolved == {}
    seen = await balances(database, account, "160")

    assert seen.resolved == {account: ["balance.exhausting"]}
    await set_balance(database, account, "70")
    await scanned(database, "exhaustion", TODAY)
    assert await told(database) == ["balance.exhausting"] * 2


async def test_a_frozen_account_concerns_nobody(database):
    (account,) = await accounts_with(database, [[]])
    await sql(database, "UPDATE account SET status = 'suspended' WHERE id = :id", id=account)

    assert await balances(database, account, "1") is None


async def test_above_a_share_of_all_accounts_nobody_more_is_told_at_once_and_the_next_scan_finds_them(database, monkeypatch):
    monkeypatch.setattr(brake, "LEAST", 2)
    accounts = await accounts_with(database, [[] for _ in range(5)])
    for account in accounts:
        await balances(database, account, "5")
    assert len(await told(database)) == 2

    run = await scanned(database, "threshold", TODAY)
    assert run["found"]["told"] == 3
    assert len(await told(database)) == 5


async def test_account_that_the_brake_left_is_not_told_that_its_balance_is_restored(database, monkeypatch):
    monkeypatch.setattr(brake, "LEAST", 1)
    first, second = await accounts_with(database, [[], []])
    await balances(database, second, "5")
    await balances(database, first, "5")

    seen = await balances(database, second, "50", "5")

    assert seen.ended == {}
    assert await told(database) == ["balance.threshold_reached"]


async def test_the_brake_counts_whoever_was_told_and_not_the_message_that_was_not_needed(database, monkeypatch):
    monkeypatch.setattr(brake, "LEAST", 2)
    first, second = await accounts_with(database, [[Charge("daily", D("10"))], [Charge("daily", D("10"))]])

    await balances(database, first, "15")
    await balances(database, second, "15")

    assert await told(database) == ["balance.exhausting"] * 2
