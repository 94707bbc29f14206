"""`vestnik explain`, as somebody at a terminal sees it."""

import asyncio
import sys

import pytest

from app import cli
from app.core.wakeups import Wakeups
from app.notifications.plan import Planner
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event


@pytest.fixture
def vestnik(monkeypatch, capsys, settings, tmp_path):
    """Runs the command line in a thread of its own, on the database of the test: exit code, stdout, stderr."""
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


async def test_steps_are_lines_with_their_times_and_codes(database, settings, vestnik):
    await a_waiting_event(database, await an_account(database))
    await Planner(database, settings, Wakeups(settings.redis_url, direct=lambda _: True)).plan()

    code, out, _ = await vestnik("explain", "--account", "100500", "--type", "service.connected", "--locale", "en")

    head, found, taken, *_, last = out.splitlines()
    assert code == 0
    assert head.startswith("100500  service.connected  20")
    assert found == f"{'now':<21}Events of this type on {head[-10:]}: 1. [events_found]"
    assert "Event service.connected was taken in from /test" in taken
    assert last.startswith("now ")
    assert last.endswith("[no_gateway]")


async def test_what_did_not_happen_is_explained_in_the_services_language(database, vestnik):
    await an_account(database, phones=())

    code, out, _ = await vestnik("explain", "--account", "100500", "--type", "payment.received", "--day", "2026-01-10")

    assert code == 0
    assert "За 10.01.2026 (часовой пояс Europe/Moscow) события payment.received не было" in out
    assert "SMS: не было бы отправлено — у счёта нет адреса для этого канала. [no_contact]" in out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--account", "404", "--type", "payment.received"], "404"),
        (["--account", "1/2", "--type", "payment.received"], "--account"),
        (["--account", "100500", "--type", "payment.received", "--day", "yesterday"], "yesterday"),
        (["--account", "100500", "--type", "payment.received", "--locale", "fr"], "'fr'"),
        (["--account", "100500"], "--type"),
    ],
)
async def test_bad_input_is_one_line_and_exit_two(vestnik, words, named):
    code, out, err = await vestnik("explain", *words)

    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert named in err
