"""`balance.restored`: told once, to those who had been told the contrary, and only where the operator wants it."""

from datetime import timedelta
from decimal import Decimal

import pytest

from app.core.clock import now
from app.notifications.reminders import Reminders
from tests.builders.accounts import an_account
from tests.builders.events import a_payment
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import run
from tests.notifications.test_reminders import charged, rows, scan, states
from tests.notifications.test_reminders_wait import changed, plan_all

RESTORED = "balance.restored"


@pytest.fixture
async def wanted(database):
    await run(database, "UPDATE notification_type SET enabled = true, revision = revision + 1 WHERE code = :code", code=RESTORED)


@pytest.fixture
def follow(database, settings, wakeups):
    return Reminders(database, settings, wakeups).follow


@pytest.fixture
async def warned(database, planner):
    """45.00, the threshold at 50.00, and 600.00 in three days; she has got the one message that says so."""
    await an_smpp_gateway(database)
    account = await an_account(database, balance=Decimal("45.00"), balance_as_of=now() - timedelta(hours=1), threshold=Decimal("50.00"))
    await charged(database, account, Decimal("600.00"), 3)
    for kind in ("exhaustion", "threshold"):
        await scan(database, kind)
    await plan_all(planner)
    await sent(database)
    return account


async def sent(database) -> None:
    """All that waits has gone out."""
    await run(database, "UPDATE message SET state = 'delivered' FROM outbox o WHERE o.message_id = message.id")
    await run(database, "DELETE FROM outbox")


async def restored(database) -> list:
    return [row.data for row in await rows(database, "SELECT data FROM event WHERE type = :code ORDER BY id", code=RESTORED)]


def balance(value: str, number: str = "1") -> dict:
    return {"specversion": "1.0", "id": number, "source": "/b", "type": "balance.changed", "subject": "100500", "data": {"balance": value}}


async def test_a_payment_that_ends_both_spells_is_answered_by_one_notice(api, database, planner, warned, wanted):
    await api.post("/events", json=a_payment(amount="700.00", balance="745.00"))
    await plan_all(planner)

    assert await restored(database) == [{"balance": "745.00", "was": "exhaustion", "amount": "700.00"}]
    (message,) = await rows(database, "SELECT text, channel FROM message WHERE type = :code", code=RESTORED)
    assert "745" in message.text
    assert {tuple(row) for row in await rows(database, "SELECT kind, is_open FROM forecast_episode")} == {("exhaustion", False), ("threshold", False)}


async def test_it_is_not_told_again(api, database, planner, warned, wanted):
    for n, amount in enumerate(("745.00", "800.00", "900.00")):
        await api.post("/events", json=a_payment(amount="100.00", balance=amount, id=f"p{n}"))
        await plan_all(planner)

    assert len(await restored(database)) == 1


async def test_a_balance_that_an_event_tells_restores_as_well(api, database, planner, warned, wanted):
    await api.post("/events", json=balance("745.00"))
    await plan_all(planner)

    assert await restored(database) == [{"balance": "745.00", "was": "exhaustion"}]


@pytest.mark.parametrize("way", ["PATCH", "PUT", "import"])
async def test_and_one_that_is_written_to_the_account(api, database, planner, follow, warned, wanted, way):
    await changed(api, way, {"balance": "745.00"})
    await follow()
    await plan_all(planner)

    assert await restored(database) == [{"balance": "745.00", "was": "exhaustion"}]


async def test_of_a_threshold_alone_it_says_so(api, database, planner, wanted):
    await an_smpp_gateway(database)
    await an_account(database, balance=Decimal("100.00"), balance_as_of=now() - timedelta(hours=1), threshold=Decimal("50.00"))
    await api.post("/events", json=balance("40.00", "1"))
    await plan_all(planner)
    await sent(database)

    await api.post("/events", json=balance("60.00", "2"))
    await plan_all(planner)

    assert await restored(database) == [{"balance": "60.00", "was": "threshold"}]


async def test_it_is_turned_off_at_first(api, database, planner, warned):
    await api.post("/events", json=a_payment(amount="700.00", balance="745.00"))
    await plan_all(planner)

    assert await restored(database) == []


async def test_who_was_told_nothing_is_told_nothing_now(api, database, planner, wanted):
    await an_account(database, balance=Decimal("1000.00"), threshold=Decimal("50.00"))

    await api.post("/events", json=a_payment(amount="700.00", balance="1700.00"))
    await plan_all(planner)

    assert await restored(database) == []


async def test_nor_is_he_whose_reminder_the_payment_has_cancelled_in_time(api, database, planner, wanted):
    account = await an_account(database, balance=Decimal("45.00"), threshold=Decimal("50.00"))
    await charged(database, account, Decimal("600.00"), 3)
    await scan(database, "exhaustion")
    await plan_all(planner)

    await api.post("/events", json=a_payment(amount="700.00", balance="745.00"))
    await plan_all(planner)

    assert await restored(database) == []
    assert ("balance.exhausting", "cancelled", "resolved") in await states(database)


async def test_while_one_of_both_spells_goes_on_nothing_is_restored(api, database, planner, warned, wanted):
    await api.post("/events", json=balance("300.00", "1"))  # above the threshold, and not enough for the charge
    await plan_all(planner)
    assert await restored(database) == []

    await api.post("/events", json=balance("700.00", "2"))
    await plan_all(planner)
    assert await restored(database) == [{"balance": "700.00", "was": "exhaustion"}]


async def test_a_charge_or_a_threshold_that_was_taken_away_restores_nobodys_balance(api, database, planner, follow, warned, wanted):
    await changed(api, "PATCH", {"charges": [], "threshold": None})
    await follow()
    await plan_all(planner)

    assert await restored(database) == []
    assert {row.is_open for row in await rows(database, "SELECT is_open FROM forecast_episode")} == {False}


async def test_a_balance_that_has_fallen_again_before_it_goes_out_cancels_it(api, database, planner, warned, wanted):
    await api.post("/events", json=balance("745.00", "1"))
    await plan_all(planner)

    await api.post("/events", json=balance("30.00", "2"))
    await plan_all(planner)

    assert [state for code, state, _ in await states(database) if code == RESTORED] == ["cancelled"]
    assert [state for code, state, _ in await states(database) if code != RESTORED] == ["delivered", "queued"]


async def test_a_scan_between_the_payment_and_its_planning_leaves_the_end_of_the_spell_to_the_payment(api, database, planner, warned, wanted):
    await api.post("/events", json=a_payment(amount="700.00", balance="745.00"))
    for kind in ("exhaustion", "threshold"):
        await scan(database, kind)
    await plan_all(planner)

    assert len(await restored(database)) == 1


async def test_a_new_spell_is_restored_anew(api, database, planner, warned, wanted):
    for n, value in enumerate(("745.00", "30.00", "800.00")):
        await api.post("/events", json=balance(value, str(n)))
        await plan_all(planner)
        await sent(database)

    assert [data["balance"] for data in await restored(database)] == ["745.00", "800.00"]
