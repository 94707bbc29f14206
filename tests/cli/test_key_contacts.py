"""`vestnik key contacts`, as an administrator at a terminal sees it."""

import asyncio
import sys

import pytest

from app import cli
from app.core.auth import create_key
from tests.builders.messages import one, rows


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


@pytest.fixture
async def key(database):
    async with database.transaction() as session:
        _, row = await create_key(session, "desk", "operator")
    return row.id


async def kept(database, key):
    return (await one(database, "SELECT contacts FROM api_key WHERE id = :id", id=key)).contacts


async def test_administrator_sets_the_contacts_of_a_key_and_takes_them_away(database, vestnik, key):
    code, out, _ = await vestnik("key", "contacts", key, "--sms", "8 916 123-45-67", "--email", "Operator@ISP.example")

    assert (code, out) == (0, f"test messages of {key} may go to +79161234567, Operator@isp.example\n")
    assert "+79161234567" in str(await kept(database, key))

    code, out, _ = await vestnik("key", "contacts", key, "--none")

    assert (code, out) == (0, f"test messages of {key} may go nowhere\n")
    assert str(await kept(database, key)) == "[]"
    records = await rows(database, "SELECT actor FROM audit_record WHERE action = 'key.contacts'")
    assert [record.actor for record in records] == ["command line"] * 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--none"),
        (["--none", "--sms", "+79161234567"], "--none"),
        (["--sms", "nonsense"], "phone number"),
        (["--email", "x"], "@"),
        ([word for n in range(11) for word in ("--sms", f"+7916123450{n}")], "at most 10"),
    ],
)
async def test_contacts_that_cannot_be_are_one_line_and_exit_two(database, vestnik, key, words, said):
    code, _, err = await vestnik("key", "contacts", key, *words)

    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert said in err
    assert str(await kept(database, key)) == "[]"


async def test_unknown_key_is_one_line_and_exit_two(vestnik):
    code, _, err = await vestnik("key", "contacts", "nobody00", "--none")

    assert code == 2
    assert "nobody00" in err
