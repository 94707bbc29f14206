"""`vestnik report recount`: what differs, and what it does about it."""

import datetime as dt

import pytest

from app.commands.ground import BadInput
from app.commands.reports import day_of, differences
from tests.builders.messages import a_message, run
from tests.builders.reports import fold, today


async def test_recount_says_what_differs_and_repairs_it_once(database, settings, monkeypatch):
    monkeypatch.setattr("app.commands.reports.connected_settings", lambda: settings)
    await a_message(database, ended="accepted")
    await fold(database)
    await run(database, "DELETE FROM report_cell")
    period = today()

    found = await differences(period.first, period.last, repair=False)
    repaired = await differences(period.first, period.last, repair=True)
    after = await differences(period.first, period.last, repair=True)

    assert [line.messages for line in found["lines"]] == [line.messages for line in repaired["lines"]] == [1]
    assert after["lines"] == []


def test_day_is_read_or_refused():
    assert day_of("2026-11-23", "--from") == dt.date(2026, 11, 23)
    for nonsense in ("23.11.2026", "", "0001-01-01", "yesterday"):
        with pytest.raises(BadInput):
            day_of(nonsense, "--from")
