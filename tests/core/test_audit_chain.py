import asyncio

import pytest
import sqlalchemy as sa

from app.core import metrics
from app.core.audit import record
from app.core.audit_chain import Head, Seal, verify
from app.core.models import AuditRecord, AuditSeal

OFF, ON = "ALTER TABLE {} DISABLE TRIGGER ALL", "ALTER TABLE {} ENABLE TRIGGER ALL"


async def written(database, *names):
    async with database.transaction() as session:
        for name in names:
            await record(session, "test", "thing.change", f"thing:{name}", {"to": [1, name], "price": "0.10"})


async def sealed(database, *names):
    await Seal(database).run()
    await written(database, *names)
    await Seal(database).run()
    found = await verify(database)
    assert found.broken is None
    return found.head


async def behind_our_back(database, *statements, table="audit_record"):
    """As a superuser does it, with the triggers off."""
    async with database.transaction() as session:
        await session.execute(sa.text(OFF.format(table)))
        for statement in statements:
            await session.execute(sa.text(statement))
        await session.execute(sa.text(ON.format(table)))


async def seq_of(database, name):
    async with database.transaction() as session:
        return (
            await session.execute(
                sa.text("SELECT s.seq FROM audit_seal s JOIN audit_record r ON r.id = s.record_id WHERE r.object = :name"), {"name": f"thing:{name}"}
            )
        ).scalar_one()


async def test_chain_of_untouched_records_is_whole_and_grows(database):
    first = await sealed(database, "a", "b")
    second = await sealed(database, "c")

    assert second.seq == first.seq + 1
    assert (await verify(database, first)).broken is None
    assert (await verify(database, Head())).broken is None


@pytest.mark.parametrize(
    "change",
    [
        "actor = 'nobody'",
        "action = 'thing.keep'",
        "object = 'thing:z'",
        'changes = changes || \'{"to": [1, "c"]}\'',
        "at = at + interval '1 microsecond'",
        "request_id = 'x'",
        "account_id = id",
    ],
)
async def test_changed_record_is_found_whatever_was_changed(database, change):
    await sealed(database, "a", "b", "c")

    await behind_our_back(database, f"UPDATE audit_record SET {change} WHERE object = 'thing:b'")

    broken = (await verify(database)).broken
    assert broken.what == "changed_or_reordered"
    assert broken.seq == (await verify(database)).head.seq + 1


async def test_deleted_record_is_named_by_its_place(database):
    await sealed(database, "a", "b", "c")
    place = await seq_of(database, "b")

    await behind_our_back(database, "DELETE FROM audit_record WHERE object = 'thing:b'")

    broken = (await verify(database)).broken
    assert (broken.what, broken.seq) == ("deleted", place)


async def test_deleted_record_is_missed_though_its_seal_was_deleted_too(database):
    await sealed(database, "a", "b", "c")
    place = await seq_of(database, "b")

    await behind_our_back(database, f"DELETE FROM audit_seal WHERE seq = {place}", table="audit_seal")
    await behind_our_back(database, "DELETE FROM audit_record WHERE object = 'thing:b'")

    broken = (await verify(database)).broken
    assert (broken.what, broken.seq) == ("seal_missing", place)


async def test_record_deleted_before_it_was_sealed_is_missed(database):
    await sealed(database, "a")
    await written(database, "b")

    await behind_our_back(database, "DELETE FROM audit_record WHERE object = 'thing:b'")
    await Seal(database).run()

    assert (await verify(database)).broken.what == "deleted"


async def test_record_added_past_the_chain_is_found(database):
    await sealed(database, "a")

    await behind_our_back(
        database,
        "INSERT INTO audit_record (id, at, actor, action, object, changes) VALUES (gen_random_uuid(), now() - interval '1 day', 'test', 'x', 'thing:q', '{}')",
    )

    assert (await verify(database)).broken.what == "not_sealed"


async def test_records_that_changed_places_are_found(database):
    await sealed(database, "a", "b", "c")
    first, second = await seq_of(database, "a"), await seq_of(database, "b")

    await behind_our_back(
        database,
        "ALTER TABLE audit_seal DROP CONSTRAINT uq_audit_seal_record_id",
        f"UPDATE audit_seal s SET record_id = o.record_id FROM audit_seal o WHERE (s.seq, o.seq) IN (({first}, {second}), ({second}, {first}))",
        table="audit_seal",
    )

    broken = (await verify(database)).broken
    assert (broken.what, broken.seq) == ("changed_or_reordered", first)


async def test_chain_that_was_cut_off_or_made_anew_does_not_have_the_head_that_is_kept_elsewhere(database):
    kept = await sealed(database, "a", "b")

    await behind_our_back(database, "TRUNCATE audit_seal", table="audit_seal")
    await behind_our_back(database, "DELETE FROM audit_record WHERE object = 'thing:b'")
    async with database.transaction() as session:
        await session.execute(sa.text("INSERT INTO audit_unsealed SELECT id FROM audit_record"))
    await sealed(database, "c")

    assert (await verify(database)).broken is None
    assert (await verify(database, kept)).broken.what == "head_not_found"


async def test_record_of_a_slow_transaction_is_sealed_when_it_commits_and_breaks_nothing(database):
    """Its id is older than those of records that were sealed before it."""
    await sealed(database)
    async with database.transaction() as slow:
        await record(slow, "test", "thing.change", "thing:slow")
        await sealed(database, "quick")

    head = await sealed(database)

    assert await seq_of(database, "slow") == await seq_of(database, "quick") + 1 == head.seq


async def test_two_seals_at_once_seal_every_record_once(database):
    await sealed(database)
    await written(database, *(f"n{number}" for number in range(50)))

    done = await asyncio.gather(*(Seal(database).run() for _ in range(4)))
    await Seal(database).run()

    assert sum(done) == 50
    async with database.transaction() as session:
        records = (await session.execute(sa.select(sa.func.count()).select_from(AuditRecord))).scalar_one()
        seals = (await session.execute(sa.select(sa.func.count()).select_from(AuditSeal))).scalar_one()
    assert records == seals
    assert (await verify(database)).broken is None


async def test_record_of_what_was_rolled_back_is_in_no_chain(database):
    await sealed(database)
    async with database.transaction() as session:
        await record(session, "test", "thing.change", "thing:never")
        await session.rollback()

    assert await Seal(database).run() == 0
    assert (await verify(database)).waiting == 0


async def test_seals_can_neither_be_changed_nor_deleted(database):
    await sealed(database, "a")

    for statement in ("UPDATE audit_seal SET seq = seq + 1", "DELETE FROM audit_seal", "TRUNCATE audit_seal"):
        with pytest.raises(sa.exc.DBAPIError, match="only ever added"):
            async with database.transaction() as session:
                await session.execute(sa.text(statement))


async def test_records_that_wait_for_the_seal_are_shown(database):
    seal = Seal(database)
    await written(database, "a", "b")

    await seal.look()
    assert metrics.AUDIT_UNSEALED._value.get() == 2

    await seal.run()
    await seal.look()
    assert metrics.AUDIT_UNSEALED._value.get() == 0
