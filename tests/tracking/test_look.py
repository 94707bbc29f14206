"""The sweeper's look: what it shows of queues, events and gateways, and how often it counts."""

import pytest

from app.core import metrics
from app.core.wakeups import Wakeups
from app.tracking import sweeps
from app.tracking.reports.cells import ALONE, Folding
from app.tracking.sweeps import Sweeper
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smpp_gateway, an_smtp_gateway
from tests.builders.messages import a_message, claim, run


@pytest.fixture
def sweeper(database, settings):
    return Sweeper(database, Wakeups(settings.redis_url, direct=lambda _: True))


def found(queue: str) -> float:
    return metrics.SWEEPER_FOUND.labels(queue)._value.get()


async def test_events_that_wait_are_counted_and_their_age_is_shown(database, sweeper):
    account = await an_account(database)
    for _ in range(3):
        await a_waiting_event(database, account)

    await sweeper.look()
    assert metrics.EVENTS_WAITING._value.get() == 3
    assert 0 <= metrics.EVENTS_OLDEST._value.get() < 3600

    await run(database, "DELETE FROM event_waiting")
    await sweeper.look()
    assert (metrics.EVENTS_WAITING._value.get(), metrics.EVENTS_OLDEST._value.get()) == (0, 0)


async def test_binds_that_a_gateway_is_to_have_are_shown_until_it_is_disabled(database, sweeper):
    await an_smpp_gateway(database, "wanted", binds=3)
    await an_smtp_gateway(database, "letters")

    await sweeper.look()
    assert metrics.BINDS_WANTED.labels("wanted")._value.get() == 3
    assert ("letters",) not in metrics.BINDS_WANTED._metrics

    await run(database, "UPDATE gateway SET enabled = false WHERE name = 'wanted'")
    await sweeper.look()
    assert metrics.BINDS_WANTED.labels("wanted")._value.get() == 0


async def test_series_of_a_gateway_that_was_made_just_now_begin_at_zero(database, sweeper):
    await sweeper.look()
    await an_smpp_gateway(database, "newcomer")

    await sweeper.look()

    assert ("sms", "newcomer", "payment.received", "unknown") in metrics.MESSAGES._metrics


async def test_work_whose_owner_died_is_counted_as_found(database, sweeper):
    await a_message(database)
    await claim(database)
    before = found("smpp")
    await sweeper.end_leases()
    assert found("smpp") == before

    await run(database, "UPDATE outbox SET lease_until = now() - interval '1 second' WHERE state = 'sending'")
    await sweeper.end_leases()

    assert found("smpp") == before + 1


async def test_queue_that_takes_long_to_count_is_counted_more_seldom(database, sweeper, monkeypatch):
    monkeypatch.setattr(sweeps, "QUICK", 0.0)
    monkeypatch.setattr(sweeps, "SHARE", 1_000_000)
    await a_message(database, gateway="heavy")
    await sweeper.look()
    assert metrics.QUEUE_MESSAGES.labels("heavy", "queued")._value.get() == 1

    await a_message(database, gateway="heavy")
    await sweeper.look()

    assert metrics.QUEUE_MESSAGES.labels("heavy", "queued")._value.get() == 1
    assert metrics.EVENTS_WAITING._value.get() == 0  # and the rest of the look is done all the same


async def test_changes_that_the_reports_have_not_counted_in_are_shown_and_when_they_last_were(database):
    folding = Folding(database, "Europe/Moscow")
    metrics.REPORT_FOLD_SUCCESS.set(0)
    await a_message(database)

    await folding.look()
    assert (metrics.REPORT_DELTAS_WAITING._value.get(), metrics.REPORT_FOLD_SUCCESS._value.get()) == (1, 0)

    await folding.fold()
    await folding.look()
    assert metrics.REPORT_DELTAS_WAITING._value.get() == 0
    assert metrics.REPORT_FOLD_SUCCESS._value.get() > 1_700_000_000


async def test_folding_that_another_process_is_at_is_no_success_of_ours(database):
    metrics.REPORT_FOLD_SUCCESS.set(0)
    async with database.transaction() as session:
        await session.execute(ALONE)

        assert await Folding(database, "Europe/Moscow").fold() == 0

    assert metrics.REPORT_FOLD_SUCCESS._value.get() == 0
