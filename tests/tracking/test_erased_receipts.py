"""Receipts of an account that was erased keep nothing of a subscriber, whenever they come."""

import pytest

from app.core.wakeups import Wakeups
from app.tracking.sweeps import Sweeper
from tests.builders.accounts import an_account
from tests.builders.messages import a_message, rows, run, state_of
from tests.builders.receipts import a_receipt, a_submission, receive


@pytest.fixture
async def message(database):
    account = await an_account(database)
    message = await a_message(database, account, ended="accepted")
    await a_submission(database, message, "17", destination=79161234567)
    return message


async def kept(database):
    return [tuple(row) for row in await rows(database, "SELECT status, destination, raw FROM receipt ORDER BY id")]


async def test_receipt_that_comes_after_the_erasure_is_matched_and_keeps_no_text(database, api, message):
    assert (await api.delete("/accounts/100500")).status_code == 204

    await receive(database, a_receipt("17"), address="require")

    assert (await state_of(database, message))[0] == "delivered"
    assert await kept(database) == [("matched", None, b"")]


async def test_receipt_that_was_parked_before_and_found_its_message_after_keeps_no_text(database, api, settings, message):
    await receive(database, a_receipt("18"))
    await a_submission(database, message, "18", n=2, destination=79161234567)
    assert (await api.delete("/accounts/100500")).status_code == 204

    await Sweeper(database, Wakeups(settings.redis_url, direct=lambda queue: True)).match_parked()

    assert await kept(database) == [("matched", None, b"")]


@pytest.mark.parametrize("status", ["parked", "unmatched"])
async def test_receipts_to_its_number_that_belong_to_nobody_are_emptied_with_it(database, api, message, status):
    await receive(database, a_receipt("nobody"), a_receipt("stranger", of="79990000000"))
    await run(database, "UPDATE receipt SET status = :status", status=status)

    assert (await api.delete("/accounts/100500")).status_code == 204

    ours, strangers = await kept(database)
    assert ours == (status, None, b"")
    assert strangers[1] == 79990000000
    assert strangers[2]
