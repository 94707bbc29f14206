"""`vestnik audit verify` and `vestnik key ...` as somebody at a shell has them."""

import asyncio
import os
import subprocess
import sys

import pytest
import sqlalchemy as sa

from app.core.audit import record
from app.core.audit_chain import Seal


@pytest.fixture
def vestnik(settings):
    """`await vestnik("audit", "verify")`: exit code, what it said, and what it complained of."""

    async def run(*words):
        environment = os.environ | {
            "VESTNIK_DATABASE_URL": settings.database_url,
            "VESTNIK_REDIS_URL": settings.redis_url,
            "VESTNIK_SECRET_KEYS": settings.secret_keys.get_secret_value(),
        }
        done = await asyncio.to_thread(subprocess.run, [sys.executable, "-m", "app.cli", *words], env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.strip(), done.stderr.strip()

    return run


async def test_operator_verifies_the_audit_and_is_told_where_it_is_broken(vestnik, database):
    async with database.transaction() as session:
        await record(session, "test", "thing.change", "thing:a", {"to": 1})
    await Seal(database).run()

    code, said, _ = await vestnik("audit", "verify")
    head = said.rpartition(" ")[2]
    assert (code, "are as they were sealed" in said) == (0, True)
    assert (await vestnik("audit", "verify", "--expect", head))[0] == 0
    assert (await vestnik("audit", "verify", "--expect", "nonsense"))[0] == 2

    async with database.transaction() as session:
        await session.execute(sa.text("ALTER TABLE audit_record DISABLE TRIGGER ALL"))
        await session.execute(sa.text("UPDATE audit_record SET actor = 'nobody' WHERE object = 'thing:a'"))
        await session.execute(sa.text("ALTER TABLE audit_record ENABLE TRIGGER ALL"))

    code, _, complaint = await vestnik("audit", "verify")
    assert code == 1
    assert "is not what was sealed" in complaint


async def test_operator_makes_a_limited_test_key_and_rotates_it(vestnik, api, as_role):
    code, key, _ = await vestnik(
        "key", "create", "--name", "tests", "--role", "billing", "--network", "127.0.0.0/8", "--rate", "5", "--quota", "1000", "--test"
    )
    key_id = key.split("_")[1]
    shown = next(item for item in (await api.get("/keys")).json()["items"] if item["id"] == key_id)
    assert code == 0
    assert (shown["allowed_networks"], shown["rate_per_second"], shown["daily_quota"], shown["test"]) == (["127.0.0.0/8"], 5.0, 1000, True)

    code, new, _ = await vestnik("key", "rotate", key_id, "--overlap-hours", "0")

    assert code == 0
    assert (await (await as_role(None, token=new)).get("/accounts")).status_code == 200
    assert (await (await as_role(None, token=key)).get("/accounts")).status_code == 401
    assert (await vestnik("key", "rotate", "nobody00"))[0] == 2
    assert (await vestnik("key", "create", "--name", "n", "--role", "billing", "--network", "10.0.0.1/8"))[0] == 2
