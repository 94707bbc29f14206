import pytest

from app.core.wakeups import Wakeups
from app.notifications.hold import Holding
from app.notifications.plan import Planner


@pytest.fixture
def woken():
    """The queues that were woken, in order."""
    return []


@pytest.fixture
def wakeups(settings, woken):
    return Wakeups(settings.redis_url, direct=lambda queue: not woken.append(queue))


@pytest.fixture
def at_night(settings):
    """Settings with quiet hours from 22:00 to 08:00."""
    return settings.model_copy(update={"quiet_hours": "22:00-08:00"})


@pytest.fixture
def planner(database, settings, wakeups):
    return Planner(database, settings, wakeups)


@pytest.fixture
def holding(database, settings, wakeups):
    return Holding(database, settings, wakeups)
