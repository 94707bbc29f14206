"""A month of a provider's life on a virtual clock, and a checker that knows nothing of the planner.

SIMULATION_ACCOUNTS, SIMULATION_DAYS and SIMULATION_SEED make it larger, longer, another one: the full size is 10,000 accounts and 30 days.
"""

import os

import pytest

from app.core.db import Database
from app.rendering.models import Template, TemplateVersion
from tests.builders.gateways import an_smpp_gateway, an_smtp_gateway
from tests.builders.messages import one, run
from tests.builders.types import set_type
from tests.conftest import run_sql
from tests.simulation.checker import Checker
from tests.simulation.stage import VIRTUAL, Clock, Stage
from tests.simulation.world import BEGIN, KINDS, World

ACCOUNTS, DAYS, SEED = (int(os.environ.get(f"SIMULATION_{name}", otherwise)) for name, otherwise in (("ACCOUNTS", "60"), ("DAYS", "30"), ("SEED", "1")))
OWN_TYPE = "service.paused"


@pytest.fixture
async def virtual(settings, monkeypatch):
    """A database whose now(), and a product whose clock, are those of the stage."""
    await run_sql(settings.database_url, *VIRTUAL)
    Clock.at = BEGIN
    monkeypatch.setattr("app.core.clock.datetime", Clock)
    monkeypatch.setattr("app.core.ids.uuid7", Clock.new_id)
    database = Database.of(settings)
    assert (await one(database, "SELECT now() AS at")).at == BEGIN
    yield database
    await database.close()


async def the_catalogue(database):
    """Types as the world has them; one of the operator's own, in the words of another."""
    columns = "titles, enabled, urgent, mandatory, passes_window, passes_quiet_hours, channels, ttl_seconds, coalesce_seconds, settings, revision, updated_at"
    await run(
        database,
        f"INSERT INTO notification_type (code, builtin, {columns}) SELECT '{OWN_TYPE}', false, {columns} FROM notification_type WHERE code = 'service.connected'",
    )
    for channel, subject in (("sms", None), ("email", "Пауза")):
        async with database.transaction() as session:
            template = Template(type=OWN_TYPE, channel=channel, locale="ru", name="Пауза", published_version=1)
            session.add(template)
            await session.flush()
            session.add(TemplateVersion(template_id=template.id, version=1, subject=subject, text="Приостановлено: {{ count }}", created_by="test"))
    for code, kind in KINDS.items():
        said = {
            "kind": kind.cap,
            "opt_in": kind.opt_in,
            "delivery": kind.delivery,
            "fallback_minutes": int(kind.fallback.total_seconds() // 60),
            "min_interval_seconds": int(kind.interval.total_seconds()),
        } | ({"default_channels": list(kind.default_channels)} if kind.default_channels is not None else {})
        await set_type(
            database,
            code,
            settings=said,
            enabled=True,
            mandatory=kind.mandatory,
            urgent=kind.urgent,
            channels=list(kind.channels),
            ttl_seconds=int(kind.ttl.total_seconds()),
            coalesce_seconds=int(kind.coalesce.total_seconds()),
        )


@pytest.mark.timeout(180 if ACCOUNTS <= 100 else 3600)
async def test_every_message_of_a_month_was_allowed_and_none_was_lost_or_doubled(virtual, settings):
    await the_catalogue(virtual)
    await an_smpp_gateway(virtual)
    await an_smtp_gateway(virtual)
    world = World(SEED, ACCOUNTS, DAYS)

    await Stage(world, virtual, settings.model_copy(update={"quiet_hours": "22:00-08:00"})).play()

    checker = Checker(world.month)
    faults = checker.check()
    print(len(world.month.events), "events,", len(world.month.messages), "messages,", len(world.month.claims), "claims;", dict(checker.agreed.most_common()))  # noqa: T201
    assert not faults, f"{len(faults)} faults, seed {SEED}: " + "\n".join(faults[:20])
