import asyncio

import sqlalchemy as sa
from cryptography.fernet import Fernet
from pydantic import SecretStr

from app.core.audit_chain import Seal
from app.core.db import Database
from app.core.peppers import forms_of, hashed

NUMBER = "100500"


def with_keys(settings, *keys):
    return Database.of(settings.model_copy(update={"secret_keys": SecretStr(",".join(keys))}))


async def hash_of(database, value=NUMBER):
    async with database.transaction() as session:
        return await hashed(session, value)


async def test_rotation_of_the_secret_keys_changes_no_hash_even_when_the_old_key_is_gone(settings):
    first, second = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    before = await hash_of(with_keys(settings, first))

    await Seal(with_keys(settings, second, first)).run()

    assert await hash_of(with_keys(settings, second)) == before


async def test_keys_that_were_lost_make_a_new_pepper_and_it_is_told_apart(settings):
    lost, found = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    before = await hash_of(with_keys(settings, lost))

    after = await hash_of(with_keys(settings, found))

    assert after.split(":")[1] != before.split(":")[1]
    async with with_keys(settings, lost, found).transaction() as session:
        assert {before, after} <= set(await forms_of(session, NUMBER))


async def test_processes_that_start_at_once_agree_on_one_pepper(settings):
    databases = [Database.of(settings) for _ in range(5)]

    hashes = await asyncio.gather(*(hash_of(database) for database in databases))

    assert len(set(hashes)) == 1


async def test_pepper_of_a_transaction_that_came_to_nothing_is_used_by_nobody(settings, database):
    lost = ""
    try:
        async with database.transaction() as session:
            lost = await hashed(session, NUMBER)
            assert await hashed(session, NUMBER) == lost
            raise LookupError
    except LookupError:
        pass

    kept = await hash_of(database)

    assert kept != lost
    assert await hash_of(Database.of(settings)) == kept


async def test_pair_shows_which_side_was_empty_and_nothing_of_the_values(database):
    before, after = await hash_of(database, [None, "Ivan"])

    assert before is None
    assert after == await hash_of(database, "Ivan")
    assert "Ivan" not in after


async def test_pepper_is_nowhere_in_the_clear(settings, database):
    await hash_of(database)

    async with database.transaction() as session:
        sealed = (await session.execute(sa.text("SELECT sealed FROM audit_pepper"))).scalar_one()
    assert len(Fernet(settings.secret_keys.get_secret_value().split(",")[0]).decrypt(bytes(sealed))) == 32
