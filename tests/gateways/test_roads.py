"""Which gateway a message takes."""

import pytest

from app.core.ids import new_id
from app.gateways.roads import Roads
from tests.builders.gateways import an_smpp_gateway, an_smtp_gateway
from tests.builders.messages import run

ACCOUNT = new_id()


@pytest.fixture
def road(database):
    async def road(channel="sms"):
        async with database.transaction() as session:
            found = (await Roads().look(session)).choose(channel, "service.connected", "+79161234567", ACCOUNT)
        return found and found.name

    return road


async def test_without_gateways_there_is_no_road(road):
    assert await road() is None
    assert await road("email") is None


async def test_first_by_name_serves_when_all_are_healthy(database, road):
    for name in ("beta", "alpha", "gamma"):
        await an_smpp_gateway(database, name, bound=True)

    assert await road() == "alpha"


async def test_healthy_one_goes_before_an_earlier_name(database, road):
    await an_smpp_gateway(database, "alpha")
    await an_smpp_gateway(database, "beta", bound=True)

    assert await road() == "beta"


async def test_bind_that_has_not_been_heard_of_is_not_healthy(database, road):
    await an_smpp_gateway(database, "alpha", bound=True)
    await an_smpp_gateway(database, "beta", bound=True)
    await run(database, "UPDATE bind_slot SET until = now() - interval '1 second' WHERE gateway = 'alpha'")

    assert await road() == "beta"


async def test_throttled_bind_is_healthy_and_a_connecting_one_is_not(database, road):
    await an_smpp_gateway(database, "alpha", bound=True)
    await an_smpp_gateway(database, "beta", bound=True)
    await run(database, "UPDATE bind_slot SET status = '{\"state\": \"connecting\"}' WHERE gateway = 'alpha'")
    await run(database, "UPDATE bind_slot SET status = '{\"state\": \"throttled\"}' WHERE gateway = 'beta'")

    assert await road() == "beta"


async def test_paused_one_is_taken_only_when_there_is_no_other(database, road):
    await an_smpp_gateway(database, "alpha", bound=True, paused=True)
    assert await road() == "alpha"

    await an_smpp_gateway(database, "beta")
    assert await road() == "beta"


async def test_disabled_one_is_no_road(database, road):
    await an_smpp_gateway(database, "alpha", bound=True, enabled=False)

    assert await road() is None


async def test_channels_have_roads_of_their_own(database):
    await an_smpp_gateway(database, "main", binds=3)
    await an_smtp_gateway(database, "post")

    async with database.transaction() as session:
        router = await Roads().look(session)

    assert router.choose("sms", "x", "+79161234567", ACCOUNT).queues == ["smpp:main:0", "smpp:main:1", "smpp:main:2"]
    assert router.choose("email", "x", "a@example.org", ACCOUNT).queues == ["mail"]
    assert router.choose("fax", "x", "1", ACCOUNT) is None


async def test_gateway_that_only_receives_is_no_road(database, road):
    await an_smpp_gateway(database, "alpha", bound=True, profile={"bind_mode": "rx"})
    assert await road() is None

    await an_smpp_gateway(database, "beta")

    assert await road() == "beta"
