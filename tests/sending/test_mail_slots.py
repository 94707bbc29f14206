"""A mail gateway that cannot be reached says so: in its status, in the log, and beside each letter that waits for it."""

import asyncio
import gc

import pytest
import structlog

from app.accounts.unsubscribe import UnsubscribeLinks
from app.core.secrets import SecretBox
from app.gateways.smtp import SmtpSettings
from app.sending import mail_station
from app.sending.mail_station import MailStation
from app.sending.smtp.entry import SessionNotOpened, open_session
from app.sending.smtp.verp import Verp
from app.simulators.mailbox import Mailbox
from tests.builders.accounts import an_account
from tests.builders.gateways import an_smtp_gateway
from tests.builders.messages import a_message, rows, run
from tests.builders.stations import until


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(mail_station, "WATCH", 0.05)


@pytest.fixture
async def closed_door():
    """A server that greets with a refusal and waits: its port, and those of whom it has seen the end."""
    left = []

    async def talk(reader, writer):
        writer.write(b"554 5.7.1 not from here\r\n")
        while await reader.read(1000):
            pass
        left.append(writer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], left


@pytest.fixture
async def station(database, settings):
    async with asyncio.TaskGroup() as tasks:
        stations = []

        def start():
            stations.append(MailStation(database, SecretBox(settings.secret_keys), UnsubscribeLinks(settings), Verp(settings)))
            tasks.create_task(stations[-1].run())

        start()
        yield start
        for one in stations:
            one.stop()


async def binds(api):
    return (await api.get("/gateways/post/status")).json()["binds"]


async def test_a_connection_that_the_server_does_not_want_is_closed_at_once(closed_door):
    port, left = closed_door
    given = {"kind": "smtp", "host": "127.0.0.1", "port": port, "tls": "none", "from": "noreply@isp.example"}
    gc.disable()
    try:
        with pytest.raises(SessionNotOpened) as refusal:
            await open_session(SmtpSettings.model_validate(given), None)

        await until(lambda: left, 5)
    finally:
        gc.enable()
    assert "not from here" in refusal.value.trouble.detail


async def test_status_and_log_and_letter_say_why_nothing_goes(api, database, closed_door, station):
    account = await an_account(database, phones=(), mails=("a@example.org",))
    letter = await a_message(database, account, channel="email", address="a@example.org", subject="S", gateway="post")
    with structlog.testing.capture_logs() as logged:
        await an_smtp_gateway(database, port=closed_door[0], profile={"reconnect_min": 0.05})

        async def down():
            return [bind for bind in await binds(api) if bind["last_error"]]

        (bind,) = await until(down)
        await until(lambda: len(closed_door[1]) > 3)

    assert bind["state"] in ("down", "connecting")
    assert (bind["last_error"]["where"], bind["connections"], bind["health"]) == ("greeting", 0, None)
    assert "not from here" in bind["last_error"]["detail"]
    assert [line["detail"] for line in logged if line["event"] == "mail_gateway_down"] == [bind["last_error"]["detail"]], "once, however often it is tried"
    explained = (await api.get(f"/messages/{letter}/explain")).json()
    (step,) = [step for step in explained["steps"] if step["step"] == "gateway_down"]
    assert "not from here" in step["detail"]


async def test_status_shows_each_station_that_is_connected_and_nobody_who_has_gone(api, database, station):
    async with Mailbox() as mailbox:
        await an_smtp_gateway(database, port=mailbox.port)
        station()

        async def both():
            found = await binds(api)
            return [bind["slot"] for bind in found if bind["state"] == "bound"] == [0, 1] and found

        found = await until(both)
        assert [(bind["host"], bind["last_error"], bind["rate_now"]) for bind in found] == [(f"127.0.0.1:{mailbox.port}", None, None)] * 2

        await run(database, "UPDATE gateway SET enabled = false, revision = revision + 1")

        async def gone():
            return not await rows(database, "SELECT slot FROM bind_slot")

        await until(gone)
        assert [(bind["slot"], bind["state"]) for bind in await binds(api)] == [(0, "stopped")]
