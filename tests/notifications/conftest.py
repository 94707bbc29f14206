import pytest

from app.core.wakeups import Wakeups
from app.notifications.hold import Holding
from app.notifications.plan import Planner


@pytest.fixture
def planner(database, settings):
    return Planner(database, settings, Wakeups(settings.redis_url, direct=lambda queue: True))


@pytest.fixture
def holding(database, settings):
    return Holding(database, settings, Wakeups(settings.redis_url, direct=lambda queue: True))
