import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from app.children import free_port
from app.demo.script import BATCH, SINGLE, expected_state, zone_with_day
from app.embedded.running import find_running

REMINDERS_BY_SMS = [[kind, "sms"] for kind in ("balance.threshold_reached", "balance.exhausting", "charges.upcoming")]


@pytest.fixture
def data_dir() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="vst"))
    yield directory
    shutil.rmtree(directory)


def test_demo_ends_by_itself_with_every_message_in_its_expected_state(data_dir):
    command = [sys.executable, "-m", "app.cli", "up", "--demo", "--exit-when-done", "--port", str(free_port()), "--data-dir", str(data_dir)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert "every one ended as it must" in said
    assert "WRONG" not in said
    for word in (
        "binary mode",
        "structured mode",
        "batch mode",
        "1 duplicate",
        "1 rejected",
        "UCS2, 2 parts",
        "UNDELIV",
        "undelivered",
        "failed",
        "accepted",
        "delivered",
        "exhaustion: 11 accounts, ",
        "upcoming: 11 accounts, ",
    ):
        assert word in said, word
    rows = [line.split() for line in said.splitlines() if line.endswith("  ok")]
    assert len(rows) == 16
    assert [(row[0], row[5]) for row in rows if row[1:3] in REMINDERS_BY_SMS] == [("100509", "delivered"), ("100510", "delivered"), ("100511", "delivered")]
    assert find_running(data_dir) == ("", "")


def test_demo_accounts_have_day_at_any_hour():
    midnight = datetime(2026, 6, 1, tzinfo=UTC)
    for quarter in range(4 * 24):
        at = midnight + timedelta(minutes=15 * quarter)
        assert 9 <= at.astimezone(ZoneInfo(zone_with_day(at))).hour <= 20


def test_script_has_every_kind_of_end():
    ends = {expected_state("sms", "+79160000101"), expected_state("sms", "+79160000213"), expected_state("sms", "+79160000314")}
    ends |= {expected_state("email", "nobody@example.org"), expected_state("email", "anna@example.org")}

    assert ends == {"delivered", "undelivered", "failed", "accepted"}
    assert len({happening.number for happening in (*SINGLE, *BATCH)}) == len(SINGLE) + len(BATCH)
