"""Hours of the day without a bind."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from app.sending.smpp.hours import Blackout

MOSCOW = ZoneInfo("Europe/Moscow")
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("spans", "moment", "until"),
    [
        (["02:00-02:30"], "2026-11-23 01:59:59", None),
        (["02:00-02:30"], "2026-11-23 02:00:00", "2026-11-23 02:30"),
        (["02:00-02:30"], "2026-11-23 02:29:59", "2026-11-23 02:30"),
        (["02:00-02:30"], "2026-11-23 02:30:00", None),
        (["23:30-00:15"], "2026-11-23 23:45:00", "2026-11-24 00:15"),
        (["23:30-00:15"], "2026-11-23 00:10:00", "2026-11-23 00:15"),
        (["23:30-00:15"], "2026-11-23 12:00:00", None),
        (["22:00-00:00"], "2026-11-23 22:30:00", "2026-11-24 00:00"),
        (["02:00-02:30", "02:20-03:00", "03:00-03:10"], "2026-11-23 02:10:00", "2026-11-23 03:10"),
        (["02:00-02:30", "04:00-05:00"], "2026-11-23 02:10:00", "2026-11-23 02:30"),
        (["00:00-12:00", "12:00-00:00"], "2026-11-23 06:00:00", "2026-11-24 12:00"),
    ],
)
def test_a_blackout_ends_when_no_span_of_it_goes_on(spans, moment, until):
    found = Blackout(spans, MOSCOW).until(datetime.fromisoformat(moment).replace(tzinfo=MOSCOW))

    assert (found and f"{found:%Y-%m-%d %H:%M}") == until


def test_the_hours_are_those_of_the_operators_zone():
    assert Blackout(["02:00-02:30"], MOSCOW).until(datetime.fromisoformat("2026-11-22 23:15+00:00")) is not None
    assert Blackout(["02:00-02:30"], MOSCOW).until(datetime.fromisoformat("2026-11-23 02:15+00:00")) is None


def test_a_night_of_two_hours_fewer_or_more_still_ends_at_the_hour_on_the_wall():
    spring = Blackout(["01:30-04:00"], BERLIN).until(datetime.fromisoformat("2026-03-29 01:45+01:00"))
    autumn = Blackout(["01:30-04:00"], BERLIN).until(datetime.fromisoformat("2026-10-25 01:45+02:00"))

    assert spring.astimezone(ZoneInfo("UTC")).hour == 2
    assert autumn.astimezone(ZoneInfo("UTC")).hour == 3
