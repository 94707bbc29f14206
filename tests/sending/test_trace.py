"""The trace of a gateway's PDUs: asked for, written down, read, forgotten."""

import asyncio
from datetime import timedelta

import pytest

from app.core.clock import now
from app.core.ids import first_id_at
from app.core.secrets import SecretBox
from app.gateways.models import GatewayTrace
from app.sending import bind_station, trace_lines
from app.sending.bind_station import BindStation
from app.sending.trace_lines import IN_MEMORY, TraceLines, Traces
from app.simulators.smsc import SmscSimulator
from app.tracking.match import record
from tests.builders.gateways import an_smpp_gateway, an_smtp_gateway
from tests.builders.messages import a_message, one, rows, run


@pytest.fixture
async def lines(database):
    await an_smpp_gateway(database)
    return TraceLines(database, "main", 0)


async def written(database):
    return [row.line for row in await rows(database, "SELECT line FROM gateway_trace ORDER BY id")]


async def until(condition, seconds=10):
    async with asyncio.timeout(seconds):
        while not (found := await condition()):
            await asyncio.sleep(0.02)
    return found


async def test_lines_are_written_in_their_order_and_once(database, lines):
    for number in range(3):
        lines.add(f"> submit_sm #{number}")

    assert (await lines.flush(), await lines.flush()) == (3, 0)
    assert await written(database) == ["> submit_sm #0", "> submit_sm #1", "> submit_sm #2"]


async def test_traffic_faster_than_the_table_loses_lines_and_the_trace_says_how_many(database, lines):
    for number in range(IN_MEMORY + 7):
        lines.add(str(number))

    await lines.flush()
    lines.add("later")
    await lines.flush()

    found = await written(database)
    assert len(found) == IN_MEMORY + 2
    assert found[-3:] == [str(IN_MEMORY - 1), "(7 lines were not kept: the traffic was faster than the trace)", "later"]


async def test_what_could_not_be_written_is_written_next_time(database, lines):
    lines.add("first")
    await run(database, "ALTER TABLE gateway_trace RENAME TO elsewhere")
    assert await lines.flush() == 0

    await run(database, "ALTER TABLE elsewhere RENAME TO gateway_trace")
    lines.add("second")

    assert await lines.flush() == 2
    assert await written(database) == ["first", "second"]


async def test_line_breaks_of_the_far_side_do_not_make_lines(database, lines):
    lines.add("< bind_transceiver_resp system_id=A\nB\x00C")

    await lines.flush()

    assert await written(database) == ["< bind_transceiver_resp system_id=A\N{REPLACEMENT CHARACTER}B\N{REPLACEMENT CHARACTER}C"]


async def test_trace_keeps_its_newest_lines_alone(database, lines, monkeypatch):
    monkeypatch.setattr(trace_lines, "KEPT", 20)
    await run(database, "INSERT INTO gateway_trace SELECT gen_random_uuid(), 'other', 0, now(), 'theirs' FROM generate_series(1, 50)")

    for number in range(45):
        lines.add(str(number))
        await lines.flush()

    found = [row.line for row in await rows(database, "SELECT line FROM gateway_trace WHERE gateway = 'main' ORDER BY id")]
    assert 20 <= len(found) <= 22
    assert found[-1] == "44"
    assert len(await rows(database, "SELECT id FROM gateway_trace WHERE gateway = 'other'")) == 50


async def test_lines_are_forgotten_after_a_week(database, lines):
    lines.add("today")
    await lines.flush()
    async with database.transaction() as session:
        session.add(GatewayTrace(id=first_id_at(now() - timedelta(days=8)), gateway="main", slot=0, at=now() - timedelta(days=8), line="long ago"))

    assert (await Traces(database).forget(), await Traces(database).forget()) == (1, 0)
    assert await written(database) == ["today"]


async def test_trace_is_asked_for_ended_and_audited_without_a_new_revision(database, api):
    await an_smpp_gateway(database)

    started = await api.post("/gateways/main/trace", json={"minutes": 5})
    running = (await api.get("/gateways/main/trace")).json()
    ended = [await api.delete("/gateways/main/trace") for _ in range(2)]

    assert started.status_code == 200
    assert running == {"items": [], "next_cursor": None, "until": started.json()["until"]}
    assert [answer.status_code for answer in ended] == [204, 204]
    assert (await api.get("/gateways/main/trace")).json()["until"] is None
    assert [row.action for row in await rows(database, "SELECT action FROM audit_record ORDER BY id")] == ["gateway.trace", "gateway.trace_end"]
    assert (await one(database, "SELECT revision FROM gateway")).revision == 1


async def test_who_only_reads_gateways_reads_traces_and_starts_none(database, api, as_role):
    await an_smpp_gateway(database)
    viewer = await as_role("viewer")

    assert (await viewer.post("/gateways/main/trace", json={"minutes": 5})).status_code == 403
    assert (await viewer.delete("/gateways/main/trace")).status_code == 403
    assert (await viewer.get("/gateways/main/trace")).status_code == 200


async def test_trace_of_nothing_is_refused(database, api):
    await an_smtp_gateway(database)
    await an_smpp_gateway(database)

    assert (await api.post("/gateways/post/trace", json={"minutes": 5})).json()["code"] == "nothing_to_trace"
    assert (await api.post("/gateways/none/trace", json={"minutes": 5})).status_code == 404
    for minutes in (0, 61, "5", 1.5, None, True):
        assert (await api.post("/gateways/main/trace", json={"minutes": minutes})).status_code == 422, minutes


async def test_trace_is_read_page_by_page_newest_first_or_as_a_file(database, api, lines):
    for number in range(5):
        lines.add(f"line {number}")
    await lines.flush()

    first = (await api.get("/gateways/main/trace", params={"limit": 3})).json()
    second = (await api.get("/gateways/main/trace", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    file = await api.get("/gateways/main/trace", headers={"Accept": "text/plain"})

    assert [item["line"] for item in first["items"] + second["items"]] == [f"line {number}" for number in (4, 3, 2, 1, 0)]
    assert second["next_cursor"] is None
    assert file.headers["content-type"] == "text/plain; charset=utf-8"
    assert [line.split(" slot 0 ")[1] for line in file.text.splitlines()] == [f"line {number}" for number in range(5)]
    assert (await api.get("/gateways/main/trace", params={"cursor": "rubbish"})).status_code == 422


async def test_trace_of_a_live_bind_begins_and_ends_without_a_reconnect(database, settings, api, monkeypatch):
    monkeypatch.setattr(bind_station, "WATCH", 0.1)
    async with SmscSimulator(password="hunter2") as smsc:
        await an_smpp_gateway(database, port=smsc.port, system_id="isp", password="hunter2")
        await run(database, "UPDATE gateway SET secret = :secret", secret=SecretBox(settings.secret_keys).seal("hunter2"))
        station = BindStation(database, SecretBox(settings.secret_keys), "main", 0, record)
        running = asyncio.create_task(station.run())
        try:
            await until(lambda: rows(database, "SELECT 1 FROM bind_slot WHERE status ->> 'state' = 'bound'"))
            assert (await api.post("/gateways/main/trace", json={"minutes": 5})).status_code == 200
            await asyncio.sleep(0.3)

            await a_message(database, text="Тайный текст")

            await until(lambda: rows(database, "SELECT 1 FROM message WHERE state = 'delivered'"))
            await until(lambda: rows(database, "SELECT 1 FROM gateway_trace WHERE line LIKE '%deliver_sm_resp%'"))
            assert (await api.delete("/gateways/main/trace")).status_code == 204
            await asyncio.sleep(0.3)
            traced = len(await written(database))
            await a_message(database)
            await until(lambda: rows(database, "SELECT 1 FROM message WHERE state = 'delivered' OFFSET 1"))
            await asyncio.sleep(0.3)
        finally:
            station.stop()
            await asyncio.wait_for(running, 20)

        text = "\n".join(await written(database))
        assert len(await written(database)) == traced
        assert all(name in text for name in ("submit_sm", "submit_sm_resp", "deliver_sm", "deliver_sm_resp"))
        assert len(smsc.binds) == 1
        assert "Тайный" not in text
        assert "79161234567" not in text


async def test_trace_that_was_on_before_the_bind_shows_the_bind_without_its_password(database, settings, monkeypatch):
    monkeypatch.setattr(bind_station, "WATCH", 0.1)
    async with SmscSimulator(password="hunter2") as smsc:
        await an_smpp_gateway(database, port=smsc.port)
        secret = SecretBox(settings.secret_keys).seal("hunter2")
        await run(database, "UPDATE gateway SET secret = :secret, trace_until = now() + interval '1 minute'", secret=secret)
        station = BindStation(database, SecretBox(settings.secret_keys), "main", 0, record)
        running = asyncio.create_task(station.run())
        try:
            await until(lambda: rows(database, "SELECT 1 FROM gateway_trace WHERE line LIKE '%bind_transceiver_resp%'"))
        finally:
            station.stop()
            await asyncio.wait_for(running, 20)

        text = "\n".join(await written(database))
        assert "bind_transceiver " in text
        assert "unbind" in text
        assert "hunter2" not in text
