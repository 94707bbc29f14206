"""Trying a gateway out over the API: what the far end said, word for word."""

import asyncio

import pytest

from app.simulators.smsc import SmscSimulator
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import run


@pytest.fixture
async def smsc():
    async with SmscSimulator() as simulator:
        yield simulator


@pytest.fixture
async def refusing():
    """An SMSC that refuses every bind with 0x0E, by a header alone."""

    async def talk(reader, writer):
        header = await reader.readexactly(16)
        await reader.readexactly(int.from_bytes(header[:4], "big") - 16)
        command = int.from_bytes(header[4:8], "big") | 0x80000000
        writer.write((16).to_bytes(4, "big") + command.to_bytes(4, "big") + (0x0E).to_bytes(4, "big") + header[12:])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
def dead_port(unused_tcp_port):
    return unused_tcp_port


async def check(api):
    answer = await api.post("/gateways/main/check")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_bind_that_works_says_who_is_there(database, api, smsc):
    await an_smpp_gateway(database, port=smsc.port)

    report = await check(api)

    host = report["hosts"][0]
    assert (report["ok"], report["live"], len(report["hosts"])) == (True, False, 1)
    assert (host["ok"], host["bind"], host["host"], host["command_status"], host["status_name"]) == (
        True, "transceiver", f"127.0.0.1:{smsc.port}", "0x00000000", "ESME_ROK",
    )  # fmt: skip
    assert host["tls_version"] == ""
    assert f"transceiver at 127.0.0.1:{smsc.port}: bound to " in report["detail"]


async def test_refusal_is_told_with_its_number_and_name(database, api, refusing):
    await an_smpp_gateway(database, port=refusing)

    report = await check(api)

    assert report["ok"] is False
    assert (report["hosts"][0]["command_status"], report["hosts"][0]["status_name"]) == ("0x0000000E", "ESME_RINVPASWD")
    assert "refused with 0x0000000E ESME_RINVPASWD" in report["detail"]


async def test_each_of_several_hosts_is_tried_and_one_that_works_is_enough(database, api, smsc, refusing, unused_tcp_port):
    await an_smpp_gateway(database, host=[f"127.0.0.1:{unused_tcp_port}", f"127.0.0.1:{refusing}", f"127.0.0.1:{smsc.port}"])

    report = await check(api)

    assert (report["ok"], [host["ok"] for host in report["hosts"]]) == (True, [False, False, True])
    assert report["hosts"][0]["error"]
    assert report["hosts"][0]["command_status"] == ""


async def test_pair_is_well_when_both_of_its_binds_are(database, api, smsc, unused_tcp_port):
    await an_smpp_gateway(database, port=smsc.port, profile={"bind_mode": "tx_rx"})
    whole = await check(api)
    assert (whole["ok"], [host["bind"] for host in whole["hosts"]]) == (True, ["transmitter", "receiver"])

    await run(database, "UPDATE gateway SET settings = jsonb_set(settings, '{profile,rx_port}', CAST(:port AS jsonb))", port=str(unused_tcp_port))

    half = await check(api)
    assert (half["ok"], [host["ok"] for host in half["hosts"]]) == (False, [True, False])


async def test_bind_that_is_up_is_reported_and_no_other_is_opened(database, api, smsc):
    await an_smpp_gateway(database, port=smsc.port)
    await run(
        database,
        "INSERT INTO bind_slot (gateway, slot, owner, fence, until, status) VALUES ('main', 0, 'w', gen_random_uuid(), now() + interval '1 minute',"
        """ '{"state": "bound", "host": "smsc.example:2775", "since": "2026-01-10T09:00:00+00:00", "window_in_use": 0, "rate_now": 0.0}')""",
    )

    report = await check(api)

    assert (report["ok"], report["live"], report["hosts"]) == (True, True, [])
    assert report["detail"] == "bound to smsc.example:2775 since 2026-01-10 09:00:00Z"


async def test_settings_that_this_version_cannot_read_are_told_and_not_an_error_of_ours(database, api):
    await an_smpp_gateway(database)
    await run(database, """UPDATE gateway SET settings = settings || '{"preset": "no-more"}'""")

    report = await check(api)

    assert report["ok"] is False
    assert "no-more" in report["detail"]
