"""What stations tell Prometheus of the wires that they keep."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from app.accounts.unsubscribe import UnsubscribeLinks
from app.core import metrics
from app.core.secrets import SecretBox
from app.sending import bind_station, mail_station
from app.sending.bind_station import BindStation, is_blackout
from app.sending.mail_station import MailStation
from app.sending.smpp.status import BindStatus, LastError
from app.sending.smtp.verp import Verp
from app.simulators.mailbox import Mailbox
from app.simulators.smsc import SmscSimulator
from app.tracking.match import record
from tests.builders.gateways import an_smpp_gateway, an_smtp_gateway
from tests.builders.messages import a_message, run


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for module in (bind_station, mail_station):
        monkeypatch.setattr(module, "WATCH", 0.05)
        monkeypatch.setattr(module, "GRACE", 2.0)


async def until(condition, seconds=20):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def end(station, task):
    station.stop()
    await asyncio.wait_for(task, 20)


async def test_mail_server_is_up_then_gone_and_a_disabled_gateway_is_neither(database, settings):
    def up():
        found = metrics.SMTP_UP._metrics.get(("watched-mail",))
        return None if found is None else found._value.get()

    station = MailStation(database, SecretBox(settings.secret_keys), UnsubscribeLinks(settings), Verp(settings))
    task = asyncio.create_task(station.run())
    async with Mailbox() as mailbox:
        await an_smtp_gateway(database, "watched-mail", port=mailbox.port)
        await until(lambda: up() == 1)
        assert metrics.SMTP_CONNECTIONS.labels("watched-mail")._value.get() == 1
    await a_message(database, channel="email", address="a@example.org", subject="S", gateway="watched-mail")  # nobody asks an idle server how it is
    await until(lambda: up() == 0)

    await run(database, "UPDATE gateway SET enabled = false")

    await until(lambda: up() is None)
    await end(station, task)


async def test_bind_is_up_and_down_again_and_its_deliveries_are_timed(database, settings):
    def up():
        return metrics.BIND_UP.labels("watched", "0")._value.get()

    station = BindStation(database, SecretBox(settings.secret_keys), "watched", 0, record)
    async with SmscSimulator() as smsc:
        await an_smpp_gateway(database, "watched", port=smsc.port)
        await a_message(database, gateway="watched")
        task = asyncio.create_task(station.run())
        await until(lambda: up() == 1)
        await until(lambda: metrics.DELIVERY_SECONDS.labels("watched")._sum.get() > 0)

        await end(station, task)

    assert up() == 0
    assert metrics.BIND_BLACKOUT.labels("watched", "0")._value.get() == 0


@pytest.mark.parametrize(
    ("state", "detail", "is_meant"),
    [("stopped", "blackout until 02:30", True), ("stopped", "wrong password", False), ("bound", "blackout until 02:30", False), ("down", "", False)],
)
def test_hours_without_a_bind_are_told_from_trouble(state, detail, is_meant):
    moment = datetime.now(UTC) - timedelta(minutes=1)
    error = LastError(moment, "link", "", "", detail) if detail else None

    status = BindStatus(0, state, "smsc:2775", moment, error, 0, 0.0, None, None)

    assert is_blackout(status) is is_meant
