"""Endpoints of a billing, and the station that tells them."""

import asyncio

import pytest
import pytest_asyncio

from app.core.secrets import SecretBox
from app.webhooks.station import WebhookStation
from tests.builders.far_endpoint import FarEndpoint


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"webhook_allow_private": "127.0.0.0/8"})


@pytest_asyncio.fixture
async def far():
    endpoint = await FarEndpoint().start()
    yield endpoint
    await endpoint.stop()


@pytest.fixture
def hook(api, far):
    """`await hook()` makes an endpoint over the API: the answer of POST /webhooks."""

    async def made(url=None, **body):
        answer = await api.post("/webhooks", json={"url": url or far.url} | body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    return made


@pytest_asyncio.fixture
async def station(database, settings):
    """At work until the test ends."""
    made = WebhookStation(database, settings, SecretBox(settings.secret_keys))
    task = asyncio.create_task(made.run())
    yield made
    made.stop()
    await asyncio.wait_for(task, 30)
