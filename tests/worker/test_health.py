"""What those who supervise a process may ask it: is it alive, can it work, and why not."""

import asyncio
import os
import socket

import httpx
import pytest

from app.core.metrics_port import MetricsPort
from app.core.watchdog import keep_watchdog, notify
from app.simulators.smsc import SmscSimulator
from app.worker import LONG_SILENT, follow_gateways
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import run
from tests.worker.test_worker import Process, until


@pytest.fixture
async def ask(settings):
    """`await ask(office, "/health")`: the status and the JSON that its port answers."""
    ports = []

    async def get(office, path, **changes):
        port = MetricsPort(settings.model_copy(update=changes), office.health)
        ports.append(port)
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{await port.start(0)}{path}")
        return answer.status_code, answer.json() if answer.content else None

    yield get
    for port in ports:
        await port.stop()


async def test_worker_tells_its_queues_and_that_its_bind_is_up(database, open_office, ask):
    async with SmscSimulator() as smsc:
        await an_smpp_gateway(database, port=smsc.port)
        office = open_office()
        office.open("plan")
        await follow_gateways(office)
        await until(lambda: office.health().detail["binds"]["smpp:main:0"]["state"] == "bound")

        status, said = await ask(office, "/health")
        ready, _ = await ask(office, "/health/ready")
        await office.shut(*office.stations)

    assert (status, ready) == (200, 200)
    assert said["status"] == "ok"
    assert said["queues"] == ["plan", "smpp:main:0"]
    assert 0 < said["binds"]["smpp:main:0"]["lease_seconds"] <= 20


async def test_worker_whose_only_bind_is_down_is_alive_and_not_ready(database, open_office, ask):
    await an_smpp_gateway(database, port=9)
    office = open_office()
    await follow_gateways(office)
    await until(lambda: office.health().detail["binds"]["smpp:main:0"]["state"] in ("down", "connecting"))

    assert (await ask(office, "/health"))[0] == 200
    status, said = await ask(office, "/health/ready")
    assert (status, said["status"]) == (503, "not_ready")


async def test_database_that_is_away_is_no_reason_to_start_the_worker_again(open_office, ask):
    office = open_office()
    office.looked_at -= LONG_SILENT + 1

    assert (await ask(office, "/health"))[0] == 200
    assert (await ask(office, "/health/ready"))[0] == 503


async def test_station_that_broke_is_one(open_office, ask, monkeypatch):
    office = open_office()

    class Broken:
        def poke(self) -> None: ...
        def stop(self) -> None: ...
        async def run(self) -> None:
            raise RuntimeError("a fault of ours")

    monkeypatch.setattr(office, "make", lambda queue: Broken())
    office.open("plan")
    await until(lambda: office.ended("plan"))

    status, said = await ask(office, "/health")

    assert (status, said["status"], said["broken"]) == (503, "failing", ["plan"])


async def test_health_is_for_the_networks_of_the_metrics(open_office, ask):
    assert await ask(open_office(), "/health", metrics_allow="10.0.0.0/8") == (403, None)
    assert (await ask(open_office(), "/nothing"))[0] == 404


async def test_answer_to_nonsense_does_not_stop_the_port(settings, open_office):
    port = MetricsPort(settings, open_office().health)
    number = await port.start(0)
    for nonsense in (b"\r\n\r\n", b"GET\r\n\r\n", b"\x00" * 9000):
        reader, writer = await asyncio.open_connection("127.0.0.1", number)
        writer.write(nonsense)
        writer.write_eof()
        await reader.read()
        writer.close()

    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{number}/health")).status_code == 200
    await port.stop()


@pytest.mark.parametrize(("revision", "status"), [("9999", 200), ("0001", 503)])
async def test_api_serves_on_under_a_newer_schema_and_waits_under_an_older_one(database, as_role, revision, status):
    client = await as_role(None)
    assert (await client.get("http://vestnik/health/ready")).status_code == 200

    await run(database, "UPDATE alembic_version SET version_num = :revision", revision=revision)

    assert (await client.get("http://vestnik/health/ready")).status_code == status
    assert (await client.get("http://vestnik/health/live")).status_code == 200


@pytest.fixture(params=["", "\0"], ids=["path", "abstract"])
def systemd(request, tmp_path, monkeypatch):
    """The socket that systemd listens on."""
    name = f"{tmp_path}/notify" if not request.param else f"\0vestnik-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name)
        listener.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))
        yield listener


async def test_systemd_hears_of_the_start_and_then_as_long_as_all_is_well(systemd, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    wells = iter([False, True])

    keeper = asyncio.create_task(keep_watchdog(lambda: next(wells)))
    said = [await asyncio.to_thread(systemd.recv, 100) for _ in range(2)]
    keeper.cancel()

    assert said == [b"READY=1", b"WATCHDOG=1"]
    assert list(wells) == []


async def test_without_systemd_nothing_is_told(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")

    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    assert not notify("READY=1")
    await keep_watchdog(lambda: True)


async def test_worker_process_tells_systemd_that_it_is_up_and_ends_well(settings, database, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "n"))
        listener.settimeout(60)
        async with Process(settings, NOTIFY_SOCKET=str(tmp_path / "n"), WATCHDOG_USEC="3000000") as process:
            said = [await asyncio.to_thread(listener.recv, 100) for _ in range(2)]
            process.tell(15)
            code, errors = await process.ended()

    assert said == [b"READY=1", b"WATCHDOG=1"]
    assert code == 0, errors
