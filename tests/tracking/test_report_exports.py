"""Reports as files: asked for, written by a worker, fetched, cancelled, forgotten; and what is left when a worker dies."""

import asyncio
import json
from datetime import timedelta

from app.core.clock import now
from app.core.ids import new_id
from app.tracking.reports import exports
from app.tracking.reports.exports import CLAIM, Exporter, expire
from app.tracking.reports.station import ReportStation
from tests.builders.messages import a_message, one, run
from tests.builders.reports import ZONE, today

PERIOD = today()
ASKED = {"from": PERIOD.first.isoformat(), "to": PERIOD.last.isoformat(), "group_by": ["type"], "format": "json"}


async def asked_for(api, **other):
    answer = await api.post("/reports/exports", json=ASKED | other)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


async def look(api, export):
    return (await api.get(f"/reports/exports/{export}")).json()


async def test_file_is_written_by_a_worker_and_fetched(database, api):
    await a_message(database, ended="delivered")
    export = await asked_for(api)
    assert (await api.get(f"/reports/exports/{export}/file")).json()["code"] == "no_file"

    assert await Exporter(database, ZONE).step()

    done = await look(api, export)
    file = await api.get(f"/reports/exports/{export}/file")
    assert (done["state"], done["progress"], done["rows"], done["size"]) == ("done", 1.0, 1, len(file.content))
    assert json.loads(file.content)["items"][0]["messages"] == 1
    assert not await Exporter(database, ZONE).step()


async def test_list_for_the_call_centre_takes_both_scopes_and_any_length(database, api):
    await a_message(database, ended="failed", reason="blocked")
    export = await asked_for(api, kind="undelivered", group_by=[], format="csv", **{"from": "2024-01-01", "to": "2026-12-31"})

    await Exporter(database, ZONE).step()

    file = await api.get(f"/reports/exports/{export}/file")
    assert len(file.text.splitlines()) == 2
    assert file.headers["content-disposition"] == 'attachment; filename="undelivered-20240101-20261231.csv"'


async def test_file_of_many_pieces_comes_out_whole(database, api, monkeypatch):
    monkeypatch.setattr(exports, "PIECE", 100)
    for _ in range(20):
        await a_message(database, ended="failed", reason="blocked")
    export = await asked_for(api, kind="undelivered", group_by=[])

    await Exporter(database, ZONE).step()

    assert len((await api.get(f"/reports/exports/{export}/file")).json()["items"]) == 20


async def test_what_a_dead_worker_had_begun_is_begun_again_and_only_so_often(database, api):
    export = await asked_for(api)
    for _ in range(exports.TRIES):
        await died_at_work(database)

    await run(database, "UPDATE report_export SET lease_until = now() - interval '1 second'")
    assert await Exporter(database, ZONE).step()
    assert (await look(api, export))["state"] == "failed"

    again = await asked_for(api)
    await died_at_work(database)
    await run(database, "UPDATE report_export SET lease_until = now() - interval '1 second'")
    assert await Exporter(database, ZONE).step()
    assert (await look(api, again))["state"] == "done"


async def died_at_work(database):
    async with database.transaction() as session:
        await session.execute(exports.sa.text("UPDATE report_export SET lease_until = now() - interval '1 second' WHERE state = 'running'"))
        assert (await session.execute(CLAIM, {"me": new_id(), "until": now() + timedelta(minutes=2), "now": now()})).first()


async def test_cancelled_export_is_dropped_by_its_worker_and_leaves_nothing(database, api, monkeypatch):
    export = await asked_for(api)
    writing = asyncio.Event()

    async def slowly(*_):
        writing.set()
        await asyncio.sleep(3600)

    monkeypatch.setattr(exports, "write", slowly)
    monkeypatch.setattr(exports, "PULSE", 0.05)
    worker = asyncio.create_task(Exporter(database, ZONE).step())
    await writing.wait()

    assert (await api.delete(f"/reports/exports/{export}")).status_code == 204
    assert (await api.delete(f"/reports/exports/{export}")).status_code == 204

    await asyncio.wait_for(worker, 10)
    assert (await look(api, export))["state"] == "cancelled"
    assert (await one(database, "SELECT count(*) AS parts FROM report_export_part")).parts == 0


async def test_stopped_worker_puts_its_file_back_and_the_next_one_writes_it(database, api, monkeypatch):
    export = await asked_for(api)
    writing = asyncio.Event()

    async def slowly(*_):
        writing.set()
        await asyncio.sleep(3600)

    with monkeypatch.context() as patched:
        patched.setattr(exports, "write", slowly)
        station = ReportStation(database, ZONE)
        running = asyncio.create_task(station.run())
        await writing.wait()
        station.stop()
        await asyncio.wait_for(running, 10)
    assert (await look(api, export))["state"] == "queued"

    assert await Exporter(database, ZONE).step()

    assert (await look(api, export))["state"] == "done"


async def test_export_that_cannot_be_written_says_so_and_keeps_nobody_back(database, api, monkeypatch):
    export = await asked_for(api)

    async def broken(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(exports, "write", broken)
        assert await Exporter(database, ZONE).step()

    failed = await look(api, export)
    assert (failed["state"], "OSError" in failed["error"]) == ("failed", True)


async def test_file_that_is_too_large_is_refused(database, api, monkeypatch):
    monkeypatch.setattr(exports, "LARGEST", 10)
    export = await asked_for(api)

    await Exporter(database, ZONE).step()

    assert (await look(api, export))["state"] == "failed"


async def test_file_is_forgotten_after_a_day_and_the_export_after_a_month(database, api):
    export = await asked_for(api)
    await Exporter(database, ZONE).step()

    async with database.transaction() as session:
        assert await expire(session, now() + timedelta(hours=25)) == 1

    assert (await look(api, export))["state"] == "expired"
    assert (await api.get(f"/reports/exports/{export}/file")).status_code == 409
    assert (await one(database, "SELECT count(*) AS parts FROM report_export_part")).parts == 0
    async with database.transaction() as session:
        await expire(session, now() + timedelta(days=31))
    assert (await api.get(f"/reports/exports/{export}")).status_code == 404


async def test_exports_are_listed_newest_first_and_only_so_many_may_wait(database, api, monkeypatch):
    monkeypatch.setattr("app.tracking.reports.exports_api.MOST_OPEN", 2)
    first, second = await asked_for(api), await asked_for(api)

    refused = await api.post("/reports/exports", json=ASKED)
    page = (await api.get("/reports/exports", params={"limit": 1})).json()
    rest = (await api.get("/reports/exports", params={"limit": 1, "cursor": page["next_cursor"]})).json()

    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_exports")
    assert [page["items"][0]["id"], rest["items"][0]["id"]] == [second, first]


async def test_wrong_export_is_refused_with_what_to_change(api):
    for given, code in (
        ({"kind": "undelivered", "group_by": ["type"]}, "unknown_group"),
        ({"kind": "invoice", "group_by": ["type"]}, "unknown_group"),
        ({"from": "2020-01-01", "to": "2026-01-01"}, "period_too_long"),
    ):
        answer = await api.post("/reports/exports", json=ASKED | given)
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, code)
