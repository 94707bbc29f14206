"""A message that waits for its one second try after a silence is in doubt: nothing that ends its waiting may say that it never went."""

from datetime import timedelta

import pytest

from app.accounts.suppressions import put
from app.core.clock import now
from app.notifications.hold import close
from app.notifications.states import State
from app.notifications.withdraw import withdraw
from tests.builders.accounts import PHONE, an_account
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import a_message, one, rows, run, state_of


@pytest.fixture
async def account(database):
    return await an_account(database)


async def waits(database, account, **fields):
    """Both tries by the gateway `spare`, which is not the one that would be chosen now."""
    contact = await one(database, "SELECT id FROM contact WHERE account_id = :id AND channel = 'sms'", id=account.id)
    given = {"contact_id": contact.id, "address": PHONE, "gateway": "spare", "text": "as it went", "resent": True, "tries": 1}
    return await a_message(database, account, **(given | fields))


async def test_second_try_that_a_stop_withdraws_leaves_the_message_in_doubt(database, account):
    doubtful, fresh = await waits(database, account), await waits(database, account, resent=False)

    async with database.transaction() as session:
        await put(session, {"channel": "sms", "address": PHONE, "reason": "stop_word", "detail": "", "by": "subscriber", "at": now(), "until": None})
        assert await withdraw(session, [PHONE]) == 2

    assert await state_of(database, doubtful) == ("unknown", "no_answer")
    assert await state_of(database, fresh) == ("cancelled", "suppressed")
    assert await rows(database, "SELECT state, reason, detail FROM message_change WHERE message_id = :id", id=doubtful) == [
        ("unknown", "no_answer", "suppressed")
    ]


async def test_second_try_that_an_operator_cancels_leaves_the_message_in_doubt(database, account):
    message = await waits(database, account)

    async with database.transaction() as session:
        assert await close(session, [message], State.CANCELLED, "operator", now(), detail="olga") == [message]

    assert await state_of(database, message) == ("unknown", "no_answer")


async def test_second_try_whose_type_was_disabled_while_it_was_held_leaves_the_message_in_doubt(database, account, holding):
    await an_smpp_gateway(database, "spare", bound=True)
    message = await waits(database, account, state="held", reason="quiet_hours")
    await run(database, "UPDATE notification_type SET enabled = false WHERE code = 'service.connected'")

    await holding.release()

    assert await state_of(database, message) == ("unknown", "no_answer")


async def test_second_try_that_was_held_over_night_goes_in_its_words_and_by_its_gateway(database, account, holding):
    for name in ("main", "spare"):
        await an_smpp_gateway(database, name, bound=True)
    await waits(database, account, state="held", reason="quiet_hours", not_before=now() - timedelta(minutes=1), sender="Bank", route="first")

    assert await holding.release() == 1

    row = await one(database, "SELECT o.state, o.gateway, m.gateway AS via, m.text, m.sender, m.route FROM message m JOIN outbox o ON o.message_id = m.id")
    assert row == ("queued", "spare", "spare", "as it went", "Bank", "first")
