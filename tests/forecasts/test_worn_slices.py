"""A slice that kills whoever takes it: too much for the memory, say. Nobody is left to report it, and it is not handed on for ever."""

from datetime import date
from decimal import Decimal

import pytest

from app.forecasts.ask import ask_for
from app.forecasts.scan import TRIES, Scanner
from tests.forecasts.oracle import Charge
from tests.forecasts.test_rules import accounts_with
from tests.forecasts.test_scan import a_scanner, sql, the_run

DAY = date(2026, 11, 23)


class Killed(BaseException):
    """As SIGKILL has it: nothing that the worker would do at the end of its work is done."""


class Doomed(Scanner):
    """A worker that dies in the middle of every slice."""

    async def _work(self, piece):
        raise Killed


@pytest.fixture
async def run_id(database):
    await accounts_with(database, [[Charge("daily", Decimal(10))] for _ in range(20)])
    async with database.transaction() as session:
        return await ask_for(session, "exhaustion", origin="hand", by="test", days={"Europe/Moscow": DAY})


async def die(database) -> None:
    """A worker takes what there is, dies of it, and two minutes pass."""
    doomed = a_scanner(database)
    doomed.__class__ = Doomed
    with pytest.raises(Killed):
        await doomed.step()
    await sql(database, "UPDATE scan_slice SET lease_until = now() - interval '1 second' WHERE state = 'running'")


async def test_it_ends_the_scan_as_failed_after_five_workers(database, run_id):
    for _ in range(TRIES):
        await die(database)

    scanner = a_scanner(database)
    while await scanner.step():
        pass

    run = await the_run(database, run_id)
    assert (run["state"], run["error"]) == ("failed", f"its worker was lost {TRIES} times")
    assert run["finished_at"] is not None
    assert [(row.state, row.attempts) for row in await sql(database, "SELECT state, attempts FROM scan_slice")] == [("failed", TRIES)]
    assert await sql(database, "SELECT 1 FROM event") == []


async def test_the_last_try_still_counts(database, run_id):
    for _ in range(TRIES - 1):
        await die(database)

    scanner = a_scanner(database)
    while await scanner.step():
        pass

    assert (await the_run(database, run_id))["state"] == "done"
    assert len(await sql(database, "SELECT 1 FROM event")) == 20


async def test_a_slice_in_hand_is_nobodys_business_while_its_lease_lasts(database, run_id):
    await sql(database, "UPDATE scan_slice SET state = 'running', attempts = :tries, lease_until = now() + interval '1 minute'", tries=TRIES)

    assert await a_scanner(database).step() is False

    assert [row.state for row in await sql(database, "SELECT state FROM scan_slice")] == ["running"]
