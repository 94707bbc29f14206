from collections.abc import AsyncIterator

import pytest_asyncio

from tests.flow.stack import Stack, running


@pytest_asyncio.fixture(scope="session")
async def stack() -> AsyncIterator[Stack]:
    async with running() as stack:
        yield stack
