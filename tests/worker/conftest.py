import pytest

from app.worker import Office


@pytest.fixture
async def open_office(settings):
    offices = []

    def open_office(**changes):
        office = Office(settings.model_copy(update=changes))
        offices.append(office)
        return office

    yield open_office
    for office in offices:
        await office.shut(*office.stations)
        await office.wakeups.close()
        await office.database.close()
