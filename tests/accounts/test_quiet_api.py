"""The operator's quiet hours by zone: set, shown, audited, and in force at once."""

from datetime import time

import pytest

from app.accounts.quiet import QuietHoursNow
from app.accounts.window import Quiet
from tests.builders.accounts import an_account
from tests.builders.messages import a_message, one, rows

HOURS = {"workdays": "22:00-08:00", "weekends": "23:00-10:00"}
SETTINGS = (time(21), time(9))
NIGHTS = Quiet((time(22), time(8)), (time(23), time(10)))


async def test_hours_of_a_zone_are_set_shown_and_taken_back(api):
    made = await api.put("/quiet-hours/Asia/Yekaterinburg", json=HOURS)
    escaped = await api.put("/quiet-hours/Asia%2FYekaterinburg", json=HOURS | {"weekends": "00:00-00:00"})
    listed = (await api.get("/quiet-hours")).json()["items"]
    gone = await api.delete("/quiet-hours/Asia/Yekaterinburg")
    again = await api.delete("/quiet-hours/Asia/Yekaterinburg")

    assert (made.status_code, escaped.status_code, gone.status_code) == (201, 200, 204)
    assert [(line["zone"], line["workdays"], line["weekends"]) for line in listed] == [
        ("default", "00:00-00:00", "00:00-00:00"),  # as the settings say
        ("Asia/Yekaterinburg", "22:00-08:00", "00:00-00:00"),
    ]
    assert listed[0]["updated_by"] is None
    assert listed[1]["updated_by"].startswith("key:")
    assert (again.status_code, again.json()["code"]) == (404, "quiet_hours_not_found")


async def test_default_holds_wherever_a_zone_has_no_hours_of_its_own(api, database):
    await api.put("/quiet-hours/default", json=HOURS)
    await api.put("/quiet-hours/Asia/Omsk", json={"workdays": "00:00-00:00", "weekends": "00:00-00:00"})
    hours = QuietHoursNow(SETTINGS)

    async with database.transaction() as session:
        await hours.refresh(session)

    assert hours.of("Europe/Moscow") == NIGHTS
    assert hours.of("Asia/Omsk") == Quiet.alike((time(0), time(0)))


async def test_change_is_seen_by_whoever_has_the_hours_in_memory(api, database):
    hours = QuietHoursNow(SETTINGS)

    async def of_moscow():
        async with database.transaction() as session:
            await hours.refresh(session)
        return hours.of("Europe/Moscow")

    before = await of_moscow()
    await api.put("/quiet-hours/Europe/Moscow", json=HOURS)
    set_once = await of_moscow()
    await api.put("/quiet-hours/Europe/Moscow", json=HOURS | {"weekends": "22:00-08:00"})
    set_twice = await of_moscow()
    await api.delete("/quiet-hours/Europe/Moscow")

    assert before == Quiet.alike(SETTINGS)
    assert set_once == NIGHTS
    assert set_twice == Quiet.alike((time(22), time(8)))
    assert await of_moscow() == before


async def test_change_with_an_older_time_is_seen_too(api, database):
    """The clock of one API process is behind another's; or its transaction began first and ended last."""
    from tests.builders.messages import run

    await api.put("/quiet-hours/Europe/Moscow", json=HOURS)
    await api.put("/quiet-hours/Asia/Omsk", json=HOURS)
    hours = QuietHoursNow(SETTINGS)
    async with database.transaction() as session:
        await hours.refresh(session)

    await run(database, "UPDATE quiet_hours SET workdays = '20:00-07:00', updated_at = updated_at - interval '1 hour' WHERE zone = 'Europe/Moscow'")
    async with database.transaction() as session:
        await hours.refresh(session)

    assert hours.of("Europe/Moscow").workdays == (time(20), time(7))


async def test_what_waits_in_that_zone_is_to_be_decided_again(api, database):
    moscow, omsk = await an_account(database), await an_account(database, "100501", timezone="Asia/Omsk", phones=("+79160000001",))
    idle = await an_account(database, "100502", phones=())
    for account in (moscow, omsk):
        await a_message(database, account)

    await api.put("/quiet-hours/Asia/Omsk", json=HOURS)
    of_a_zone = {row.account_id for row in await rows(database, "SELECT account_id FROM replan_waiting")}
    await api.put("/quiet-hours/default", json=HOURS)

    of_the_default = {row.account_id for row in await rows(database, "SELECT account_id FROM replan_waiting")} - of_a_zone
    assert (of_a_zone, of_the_default) == ({omsk.id}, {moscow.id})
    assert idle.id not in of_a_zone | of_the_default


async def test_every_change_is_audited_with_what_was_there_and_the_same_again_is_none(api, database):
    await api.put("/quiet-hours/default", json=HOURS)
    await api.put("/quiet-hours/default", json=HOURS)
    await api.put("/quiet-hours/default", json=HOURS | {"workdays": "21:00-09:00"})
    await api.delete("/quiet-hours/default")

    records = await rows(database, "SELECT action, object, changes FROM audit_record WHERE action LIKE 'quiet%' ORDER BY id")

    assert [(record.action, record.object, record.changes["hours"]) for record in records] == [
        ("quiet_hours.update", "quiet_hours:default", [None, ["22:00-08:00", "23:00-10:00"]]),
        ("quiet_hours.update", "quiet_hours:default", [["22:00-08:00", "23:00-10:00"], ["21:00-09:00", "23:00-10:00"]]),
        ("quiet_hours.delete", "quiet_hours:default", [["21:00-09:00", "23:00-10:00"], None]),
    ]


@pytest.mark.parametrize(
    ("zone", "body", "pointer"),
    [
        ("Mars/Olympus", HOURS, "/path/zone"),
        ("default", HOURS | {"workdays": "22-8"}, "/workdays"),
        ("default", HOURS | {"workdays": "25:00-08:00"}, "/workdays"),
        ("default", HOURS | {"weekends": None}, "/weekends"),
        ("default", {"workdays": "22:00-08:00"}, "/weekends"),
        ("default", HOURS | {"sundays": "22:00-08:00"}, "/sundays"),
    ],
)
async def test_what_is_wrong_is_named(api, zone, body, pointer):
    answer = await api.put(f"/quiet-hours/{zone}", json=body)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


async def test_whoever_only_reads_sets_nothing(as_role, database):
    viewer, billing = await as_role("viewer"), await as_role("billing")

    assert (await viewer.get("/quiet-hours")).status_code == 200
    assert (await viewer.put("/quiet-hours/default", json=HOURS)).status_code == 403
    assert (await billing.put("/quiet-hours/default", json=HOURS)).status_code == 403
    assert (await one(database, "SELECT count(*) AS number FROM quiet_hours")).number == 0
