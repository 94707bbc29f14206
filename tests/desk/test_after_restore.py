"""What an operator does between loading a backup and starting the workers."""

import asyncio
import sys
from datetime import timedelta
from uuid import uuid4

import pytest

from app import cli
from app.core.clock import now
from app.core.db import Database
from app.core.errors import Conflict
from app.core.ids import first_id_at
from app.core.wakeups import Wakeups
from app.desk.after_restore import REASON, settle_the_lost_time, what_is_due
from app.desk.appraise import Appraiser
from app.forecasts.station import ScanStation
from app.notifications.bulk import Bulks
from app.notifications.plan import Planner
from tests.builders.accounts import an_account
from tests.builders.bulks import ask, period, shown
from tests.builders.charges import a_charge
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import HOUR, a_message, one, rows, state_of


async def test_whatever_may_have_gone_is_in_doubt_and_what_was_for_later_stays(database, settings):
    account, moment = await an_account(database), now()
    sending = await a_message(database, account, state="sending", claimed_by=uuid4(), lease_until=moment + HOUR)
    queued = await a_message(database, account)
    held = await a_message(database, account, state="held", reason="quiet_hours", not_before=moment - timedelta(minutes=5))
    later = await a_message(database, account, state="held", reason="quiet_hours", not_before=moment + HOUR, expires_at=moment + 2 * HOUR)
    delivered = await a_message(database, account, ended="delivered")

    done = await settle_the_lost_time(database, settings, now())

    assert done.doubtful == {"sms": 3}
    assert [await state_of(database, one_of) for one_of in (sending, queued, held)] == [("unknown", REASON)] * 3
    assert await state_of(database, later) == ("held", "quiet_hours")
    assert await state_of(database, delivered) == ("delivered", None)
    told = await rows(database, "SELECT detail FROM message_change WHERE message_id = :id", id=queued)
    assert "may have been sent before" in told[0].detail


async def test_what_waits_for_a_doubtful_message_is_in_doubt_as_well(database, settings):
    account, moment = await an_account(database), now()
    leader = await a_message(database, account, leads=True)
    follower = await a_message(
        database, account, channel="email", address="a@example.org", state="held", reason="fallback", after_message=leader, not_before=moment + HOUR
    )

    await settle_the_lost_time(database, settings, now())

    assert await state_of(database, follower) == ("unknown", REASON)


async def test_event_that_waited_is_planned_and_not_sent(database, settings):
    await an_smpp_gateway(database, bound=True)
    await a_waiting_event(database, await an_account(database))

    assert await what_is_due(database, now()) == (1, 0)
    done = await settle_the_lost_time(database, settings, now())

    assert done.events == 1
    row = await one(database, "SELECT state, reason FROM message")
    assert (row.state, row.reason) == ("unknown", REASON)
    assert await rows(database, "SELECT 1 FROM event_waiting") == []


async def test_reminder_of_the_lost_hours_is_not_told_again_by_the_next_scan(database, settings):
    settings = settings.model_copy(update={"scan_hour": "00:00"})
    await an_smpp_gateway(database, bound=True)
    account = await an_account(database, balance_as_of=now())
    await a_charge(database, account, "600.00", on_date=(now() + timedelta(days=2)).date())

    await settle_the_lost_time(database, settings, now())
    told = await rows(database, "SELECT type, state, reason FROM message")
    quiet = Wakeups(settings.redis_url, direct=lambda _: True)
    await ScanStation(database, settings, quiet, Appraiser(settings)).catch_up(now())
    await Planner(database, settings, quiet).plan()

    assert ("balance.exhausting", "unknown", REASON) in [tuple(row) for row in told]
    assert len(await rows(database, "SELECT 1 FROM message")) == len(told)
    assert await rows(database, "SELECT 1 FROM outbox") == []


async def test_twice_over_changes_nothing_more(database, settings):
    account = await an_account(database)
    message = await a_message(database, account)
    await settle_the_lost_time(database, settings, now())
    before = await one(database, "SELECT updated_at FROM message WHERE id = :id", id=message)

    again = await settle_the_lost_time(database, settings, now())

    assert again.doubtful == {}
    assert await one(database, "SELECT updated_at FROM message WHERE id = :id", id=message) == before


async def test_job_on_many_messages_that_the_dump_has_at_work_ends_there(database, settings, api):
    account = await an_account(database)
    await an_smpp_gateway(database)
    job = await ask(api, "resend", period(account="100500"))
    lost = await a_message(database, account, ended="failed", id=first_id_at(now() - HOUR))

    await settle_the_lost_time(database, settings, now())
    await Bulks(database, settings, Wakeups(settings.redis_url, direct=lambda _: True)).follow()

    ended = await shown(api, job)
    assert (ended["state"], ended["error"], ended["filter"]["account"]) == ("failed", REASON, "*")
    assert await rows(database, "SELECT id FROM message WHERE resend_of = :id", id=lost) == []


async def test_nothing_is_done_beside_a_worker(database, settings):
    message = await a_message(database, await an_account(database))
    worker = Database.of(settings, name="vestnik-worker", pool_size=1)
    try:
        async with worker.engine.connect():
            with pytest.raises(Conflict, match="stop every worker"):
                await settle_the_lost_time(database, settings, now())
    finally:
        await worker.close()

    assert await state_of(database, message) == ("queued", None)


@pytest.fixture
def vestnik(monkeypatch, capsys, settings, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("database_url", "redis_url", "data_dir"):
        monkeypatch.setenv(f"VESTNIK_{name.upper()}", str(getattr(settings, name)))

    async def run_it(*words):
        def command() -> int:
            monkeypatch.setattr(sys, "argv", ["vestnik", *words])
            with pytest.raises(SystemExit) as end:
                cli.main()
            return int(end.value.code or 0)

        code = await asyncio.to_thread(command)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run_it


async def test_command_looks_first_and_then_does_it(database, vestnik):
    message = await a_message(database, await an_account(database))

    _, looked, _ = await vestnik("restored", "--until", now().isoformat(), "--dry-run")
    assert "messages that may have gone already: 1" in looked
    assert await state_of(database, message) == ("queued", None)

    code, said, _ = await vestnik("restored", "--until", now().isoformat())
    assert code == 0
    assert "sms 1" in said
    assert await state_of(database, message) == ("unknown", REASON)


@pytest.mark.parametrize("until", ["yesterday", "2026-11-23T15:04:05", "2999-01-01T00:00:00+00:00"])
async def test_time_that_nobody_can_be_sure_of_is_refused(vestnik, until):
    code, _, why = await vestnik("restored", "--until", until)

    assert code == 2
    assert "--until" in why
