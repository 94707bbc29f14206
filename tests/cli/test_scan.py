"""`vestnik scan`, as somebody at a terminal sees it."""

import asyncio
import json
import sys
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from app import cli
from app.worker import Office
from tests.builders.accounts import an_account
from tests.builders.charges import a_charge
from tests.builders.messages import rows, run
from tests.worker.test_worker import NO_REDIS

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def vestnik(monkeypatch, capsys, settings, tmp_path):
    """Runs the command line in a thread of its own, on the database of the test: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("app.forecasts.api.now", lambda: NOON)
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


@pytest.fixture
async def worker(settings, database):
    """A worker that scans when it is asked to, and by no clock."""
    office = Office(settings.model_copy(update={"redis_url": NO_REDIS, "scan_hour": "23:59:59"}))
    office.open("scan")
    yield
    await office.shut("scan")
    await office.wakeups.close()
    await office.database.close()


@pytest.fixture
async def anna(database):
    account = await an_account(database, mails=("a@example.org",), balance=Decimal("50.00"), threshold=Decimal("20.00"))
    await a_charge(database, account, "60.00", on_date=date(2026, 11, 24))
    return account


async def test_scan_shows_how_far_it_is_and_whom_it_told(vestnik, worker, anna, database):
    code, said, err = await vestnik("scan", "exhaustion")

    assert (code, err) == (0, "")
    assert "done: 1 accounts, 1 told, 0 told something more serious that day" in said
    assert [row.type for row in await rows(database, "SELECT type FROM event")] == ["balance.exhausting"]
    assert await rows(database, "SELECT 1 FROM api_key WHERE revoked_at IS NULL") == []


async def test_the_same_scan_again_tells_nobody(vestnik, worker, anna):
    await vestnik("scan", "exhaustion")

    code, said, _ = await vestnik("scan", "exhaustion")

    assert code == 0
    assert "done: 1 accounts, 0 told" in said


async def test_dry_run_shows_counts_parts_cost_and_words_and_tells_nobody(vestnik, worker, anna, database):
    code, said, _ = await vestnik("scan", "exhaustion", "--as-of", "2026-11-23", "--dry-run")

    assert code == 0
    assert "done: 1 accounts, 1 would be told" in said
    assert "by type: balance.exhausting 1" in said
    assert "messages: email 1, sms 1" in said
    assert "by zone: Europe/Moscow 1" in said
    assert "SMS parts: 1, cost 0" in said
    assert "100500 sms: " in said
    assert await rows(database, "SELECT 1 FROM event") == []


@pytest.fixture
async def usually_nobody(database):
    """One more is far too many."""
    past = json.dumps({"told": 0})
    await run(
        database,
        """INSERT INTO scan_run (id, kind, origin, dry_run, state, phase, requested_by, found, sample, created_at)
        SELECT gen_random_uuid(), 'exhaustion', 'hand', false, 'done', 'tell', 't', CAST(:past AS jsonb), '[]', now() FROM generate_series(1, 3)""",
        past=past,
    )
    await run(
        database, """UPDATE notification_type SET settings = settings || '{"alarm_least": 0}', revision = revision + 1 WHERE code = 'balance.exhausting'"""
    )


async def test_a_scan_that_waits_for_a_confirmation_says_how_to_give_it_and_ends_with_one(vestnik, worker, anna, usually_nobody):
    code, _, err = await vestnik("scan", "exhaustion")

    assert code == 1
    assert "1 is far more than the usual 0" in err
    assert "vestnik scan confirm " in err
    assert len(err.splitlines()) == 1


async def the_waiting_one(database) -> str:
    return str((await rows(database, "SELECT id FROM scan_run WHERE state = 'needs_confirmation'"))[0].id)


async def acts(database) -> list[str]:
    return [row.action for row in await rows(database, "SELECT action FROM audit_record WHERE object LIKE 'scan:%' ORDER BY id")]


async def test_a_scan_that_waits_is_confirmed_and_told(vestnik, worker, anna, usually_nobody, database):
    await vestnik("scan", "exhaustion")
    scan_id = await the_waiting_one(database)

    code, said, err = await vestnik("scan", "confirm", scan_id)
    again, _, why = await vestnik("scan", "confirm", scan_id)

    assert (code, err) == (0, "")
    assert "done: 1 accounts, 1 told" in said
    assert len(await rows(database, "SELECT 1 FROM event")) == 1
    assert await acts(database) == ["scan.start", "scan.confirm"]
    assert (again, "does not wait" in why) == (1, True)


async def test_or_it_is_refused_and_nobody_is_told(vestnik, worker, anna, usually_nobody, database):
    await vestnik("scan", "exhaustion")

    code, said, err = await vestnik("scan", "refuse", await the_waiting_one(database))

    assert (code, err) == (0, "")
    assert said.startswith("refused: 1 accounts, 1 would be told")
    assert await rows(database, "SELECT 1 FROM event") == []
    assert await acts(database) == ["scan.start", "scan.refuse"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["confirm"], "which scan"),
        (["confirm", "yesterdays"], "no id of a scan"),
        (["refuse", "00000000-0000-0000-0000-000000000000"], "There is no such scan"),
        (["confirm", "00000000-0000-0000-0000-000000000000", "--dry-run"], "leave --dry-run"),
        (["exhaustion", "00000000-0000-0000-0000-000000000000"], "takes no id"),
        (["everything"], "threshold, exhaustion and upcoming"),
        (["threshold", "--as-of", "tomorrow"], "/as_of"),
        (["threshold", "--as-of", "2026-02-30"], "/as_of"),
        ([], "Missing argument"),
    ],
    ids=" ".join,
)
async def test_bad_input_is_one_line_that_names_it_and_exit_two(vestnik, anna, words, named):
    code, _, err = await vestnik("scan", *words)

    assert code == 2
    assert named in err
    assert len(err.splitlines()) == 1


async def test_a_day_that_is_past_everywhere_is_refused_and_exit_one(vestnik, anna):
    code, _, err = await vestnik("scan", "threshold", "--as-of", "2026-11-20")

    assert code == 1
    assert "a dry run may still look at it" in err
