"""The words that come with the service, where there are words already: newer ones take the place of what nobody has changed, and of nothing else."""

import asyncio
from types import SimpleNamespace
from uuid import UUID

import sqlalchemy as sa

from app.catalogue.types import sample_of
from app.core.models import AuditRecord
from app.rendering.compose import Templates, variables
from app.rendering.defaults import seed
from app.rendering.models import Template, TemplateVersion
from tests.rendering.conftest import NOW, account

ONE = sa.text("SELECT id FROM template WHERE type = 'tariff.changed' AND channel = 'sms' AND locale = 'ru'")
OLDER = sa.text("UPDATE template_version SET text = 'Тариф: {{ new_tariff }}' WHERE template_id = :id AND version = 1")


async def an_older_service(database) -> UUID:
    """One template as an older service had seeded it: its id."""
    async with database.transaction() as session:
        template_id = await session.scalar(ONE)
        await session.execute(OLDER, {"id": template_id})
    return template_id


async def seeded(database) -> None:
    async with database.transaction() as session:
        await seed(session)


async def state(database, template_id: UUID) -> tuple[int | None, int, list[tuple[int, str]]]:
    """(published, revision, versions with their authors)."""
    async with database.transaction() as session:
        template = await session.get_one(Template, template_id)
        rows = await session.execute(
            sa.select(TemplateVersion.version, TemplateVersion.created_by).order_by(sa.column("version")).filter_by(template_id=template_id)
        )
        return template.published_version, template.revision, [tuple(row) for row in rows.all()]


async def change(database, template_id: UUID, *, published: int | None, own: bool = False, archived: bool = False) -> None:
    """What an operator has done with a template."""
    async with database.transaction() as session:
        if own:
            session.add(TemplateVersion(template_id=template_id, version=2, text="Своё", created_by="key:ab12cd34"))
        template = await session.get_one(Template, template_id)
        template.published_version, template.archived_at = published, NOW if archived else None


async def test_seeding_again_changes_nothing(database):
    await seeded(database)

    async with database.transaction() as session:
        counts = await session.execute(sa.text("SELECT (SELECT count(*) FROM template), (SELECT count(*) FROM template_version), sum(revision) FROM template"))
        assert tuple(counts.one()) == (36, 36, 36)
        assert await session.scalar(sa.select(sa.func.count()).select_from(AuditRecord)) == 0


async def test_seeding_leaves_the_operators_names_and_what_he_has_stopped(database):
    async with database.transaction() as session:
        await session.execute(sa.update(Template).values(name="Моё", published_version=None))

    await seeded(database)

    async with database.transaction() as session:
        rows = (await session.execute(sa.select(Template.name, Template.published_version))).all()
    assert {tuple(row) for row in rows} == {("Моё", None)}


async def test_newer_words_take_the_place_of_a_default_that_nobody_changed(database):
    template_id = await an_older_service(database)

    await seeded(database)
    await seeded(database)

    assert await state(database, template_id) == (2, 2, [(1, "vestnik"), (2, "vestnik")])
    async with database.transaction() as session:
        audit = (await session.execute(sa.select(AuditRecord.actor, AuditRecord.action, AuditRecord.changes).order_by(AuditRecord.id))).all()
    assert [tuple(row) for row in audit] == [
        ("vestnik", "template.add_version", {"version": 2}),
        ("vestnik", "template.publish", {"published_version": [1, 2]}),
    ]


async def test_newer_words_are_sent_by_workers_that_run_already(database):
    template_id = await an_older_service(database)
    known = Templates("ru")
    async with database.transaction() as session:
        await known.refresh(session)

    await seeded(database)
    async with database.transaction() as session:
        await known.refresh(session)

    values = variables(account(), SimpleNamespace(address="+79161234567", label=""), "tariff.changed", NOW, sample_of("tariff.changed"), NOW, {})
    sent = known.compose("tariff.changed", "sms", "ru", values)
    assert (sent.template_id, sent.version, sent.text) == (template_id, 2, "Счёт 100500: тариф «Home 100» с 01.12.2026")


async def test_newer_words_wait_beside_the_operators_own(database):
    template_id = await an_older_service(database)
    await change(database, template_id, published=2, own=True)

    await seeded(database)
    await seeded(database)

    assert await state(database, template_id) == (2, 2, [(1, "vestnik"), (2, "key:ab12cd34"), (3, "vestnik")])


async def test_who_has_gone_back_to_an_older_default_keeps_it(database):
    template_id = await an_older_service(database)
    await seeded(database)
    await change(database, template_id, published=1)
    async with database.transaction() as session:
        await session.execute(sa.text("UPDATE template_version SET text = 'Иначе' WHERE template_id = :id AND version = 2"), {"id": template_id})

    await seeded(database)

    assert (await state(database, template_id))[0] == 1


async def test_an_older_service_beside_a_newer_one_changes_nothing_back(database):
    template_id = await an_older_service(database)
    await seeded(database)
    async with database.transaction() as session:  # version 1 has what this service brings, version 2 what a newer one has brought
        await session.execute(
            sa.text(
                "UPDATE template_version v SET text = o.text FROM template_version o WHERE v.template_id = :id AND o.template_id = :id AND v.version = 3 - o.version"
            ),
            {"id": template_id},
        )

    await seeded(database)

    assert await state(database, template_id) == (2, 2, [(1, "vestnik"), (2, "vestnik")])


async def test_an_archived_template_rests(database):
    template_id = await an_older_service(database)
    await change(database, template_id, published=None, archived=True)

    await seeded(database)

    assert await state(database, template_id) == (None, 1, [(1, "vestnik")])


async def test_a_template_that_was_lost_is_added_again(database):
    template_id = await an_older_service(database)
    async with database.transaction() as session:
        await session.execute(sa.delete(TemplateVersion).filter_by(template_id=template_id))
        await session.execute(sa.delete(Template).filter_by(id=template_id))

    await seeded(database)

    async with database.transaction() as session:
        again = await session.scalar(ONE)
    assert again != template_id
    assert await state(database, again) == (1, 1, [(1, "vestnik")])


async def test_two_services_that_start_at_once_add_newer_words_once(database):
    template_id = await an_older_service(database)

    await asyncio.gather(*(seeded(database) for _ in range(4)))

    assert await state(database, template_id) == (2, 2, [(1, "vestnik"), (2, "vestnik")])
