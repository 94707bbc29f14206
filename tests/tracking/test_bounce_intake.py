"""The door for mail that comes back, spoken to as a mail server does."""

import asyncio
import smtplib
from contextlib import asynccontextmanager

import pytest

from app.accounts.unsubscribe import UnsubscribeLinks
from app.core.config import Settings, parse_endpoint
from app.core.db import Database
from app.core.errors import ConfigurationError
from app.core.secrets import SecretBox
from app.sending.mail_station import MailStation
from app.sending.smtp.verp import Verp
from app.simulators.mailbox import Mailbox
from app.tracking import bounce_intake
from app.tracking.bounce_intake import BounceStation
from app.worker import Office
from tests.builders.accounts import MAIL
from tests.builders.bounces import RETURN_PATH, a_dsn, a_recipient, envelope_of
from tests.builders.gateways import an_smtp_gateway
from tests.builders.messages import a_message, rows, state_of
from tests.builders.stations import until

NOWHERE = "postgresql+asyncpg://nobody@127.0.0.1:9/none"


@asynccontextmanager
async def listening(database, settings, port=0):
    station = BounceStation(database, Verp(settings), "127.0.0.1", port)
    running = asyncio.create_task(station.run())
    await until(lambda: station.port or running.done())
    try:
        yield station
    finally:
        station.stop()
        await asyncio.wait_for(running, 20)


@pytest.fixture
async def station(database, settings):
    async with listening(database, settings) as station:
        yield station


class Talk:
    """A connection, line by line."""

    def __init__(self, reader, writer):
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, port):
        talk = cls(*await asyncio.open_connection("127.0.0.1", port))
        talk.greeting = await talk.answer()
        return talk

    async def answer(self):
        lines = [await asyncio.wait_for(self._reader.readline(), 10)]
        while lines[-1][3:4] == b"-":
            lines.append(await asyncio.wait_for(self._reader.readline(), 10))
        return lines[-1].decode().strip()

    async def say(self, line):
        self._writer.write(line if isinstance(line, bytes) else f"{line}\r\n".encode())
        return await self.answer()

    async def bring(self, raw, *recipients, greeting="EHLO relay.example"):
        """The answer to the whole mail."""
        assert (await self.say(greeting)).startswith("250")
        assert (await self.say("MAIL FROM:<>")).startswith("250")
        for recipient in recipients:
            assert (await self.say(f"RCPT TO:<{recipient}>")).startswith("250")
        assert (await self.say("DATA")).startswith("354")
        return await self.say(raw.replace(b"\r\n.", b"\r\n..") + b"\r\n.\r\n")

    def hang_up(self):
        self._writer.transport.abort()


@pytest.fixture
async def talk(station):
    talk = await Talk.to(station.port)
    yield talk
    talk.hang_up()


async def a_letter(database, **fields):
    return await a_message(database, **({"channel": "email", "address": MAIL, "gateway": "post", "ended": "accepted"} | fields))


async def test_a_mail_server_brings_a_bounce_by_smtp(database, settings, station):
    message = await a_letter(database)

    def bring():
        with smtplib.SMTP("127.0.0.1", station.port, timeout=10) as client:
            return client.sendmail("", [envelope_of(settings, message)], a_dsn(a_recipient(MAIL)), mail_options=["SIZE=2000"])

    assert await asyncio.to_thread(bring) == {}
    assert await state_of(database, message) == ("undelivered", "mailbox_unavailable")


async def test_a_mail_server_brings_a_bounce_by_lmtp(database, settings, station):
    message = await a_letter(database)

    def bring():
        with smtplib.LMTP("127.0.0.1", station.port, timeout=10) as client:
            return client.sendmail("", [envelope_of(settings, message)], a_dsn(a_recipient(MAIL)))

    assert await asyncio.to_thread(bring) == {}
    assert await state_of(database, message) == ("undelivered", "mailbox_unavailable")


async def test_by_lmtp_each_recipient_has_an_answer_of_his_own(station, talk):
    first = await talk.bring(b"Subject: x\r\n\r\nHello", "a@isp.example", "b@isp.example", greeting="LHLO relay.example")
    second = await talk.answer()

    assert first == second
    assert first.startswith("250 2.0.0 unknown")
    assert (await talk.say("NOOP")).startswith("250")


async def test_the_answer_is_yes_only_when_everything_is_committed(database, settings, talk):
    message = await a_letter(database)

    answer = await talk.bring(a_dsn(a_recipient(MAIL)), envelope_of(settings, message))

    assert answer.startswith("250 2.0.0 hard")
    assert await state_of(database, message) == ("undelivered", "mailbox_unavailable")  # by another connection than the one that wrote it


async def test_a_mail_server_that_did_not_hear_the_answer_brings_it_again_and_nothing_changes(database, settings, station, talk):
    message = await a_letter(database)
    await talk.bring(a_dsn(a_recipient(MAIL)), envelope_of(settings, message))
    talk.hang_up()

    again = await Talk.to(station.port)
    answer = await again.bring(a_dsn(a_recipient(MAIL)), envelope_of(settings, message))

    assert answer.startswith("250 2.0.0 hard")
    assert len(await rows(database, "SELECT 1 FROM bounce")) == 1


async def test_with_the_database_away_the_mail_server_is_to_come_again(settings):
    away = Database(NOWHERE)
    async with listening(away, settings) as station:
        talk = await Talk.to(station.port)

        answer = await talk.bring(a_dsn(a_recipient(MAIL)), "bounces@mail.isp.example")

        assert answer.startswith("451 4.3.0")
        assert (await talk.say("NOOP")).startswith("250")
        talk.hang_up()
    await away.close()


async def test_what_goes_wrong_with_us_is_not_told_to_be_for_good(station, talk, monkeypatch):
    async def fail(*_, **__):
        raise RuntimeError("a mistake")

    monkeypatch.setattr(bounce_intake, "take", fail)

    assert (await talk.bring(b"Subject: x\r\n\r\nHello", "a@isp.example")) == "451 4.3.0 Try again later"


async def test_a_forged_address_is_refused_before_anything_is_sent(database, settings, talk):
    real = envelope_of(settings, await a_letter(database))
    await talk.say("EHLO relay.example")
    await talk.say("MAIL FROM:<>")

    answer = await talk.say(f"RCPT TO:<{real.partition('.')[0]}.{'a' * 16}@mail.isp.example>")

    assert answer.startswith("550 5.1.1")
    assert (await talk.say("DATA")).startswith("503")
    assert (await talk.say(f"RCPT TO:<{real}>")).startswith("250")


async def test_too_large_a_mail_is_refused_for_good(database, talk):
    answer = await talk.bring(b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 15_000, "a@isp.example")

    assert answer.startswith("552")
    assert await rows(database, "SELECT 1 FROM bounce") == []


async def test_long_lines_of_what_came_back_are_taken(database, talk):
    assert (await talk.bring(b"Subject: x\r\n\r\n" + b"x" * 30_000, "a@isp.example")).startswith("250")


@pytest.mark.parametrize(
    "line",
    [
        "MAIL FROM:<>\r\nMAIL FROM:<>",
        "RCPT TO:<a@b.example>",
        "DATA",
        "MAIL FROM: nobody",
        "RCPT TO:<" + "a" * 5000 + "@b.example>",
        "EHLO",
        "AUTH PLAIN AGEAYg==",
        "VRFY root",
        "\0\0\0",
        b"\xff\xfe\xfd\r\n",
    ],
)
async def test_nonsense_is_answered_and_does_no_harm(station, talk, line):
    assert (await talk.say(line))[:1] in ("2", "4", "5")
    talk.hang_up()

    other = await Talk.to(station.port)
    assert (await other.bring(b"Subject: x\r\n\r\nHello", "a@isp.example")).startswith("250")
    other.hang_up()


async def test_one_mail_has_so_many_recipients_and_no_more(talk):
    await talk.say("EHLO relay.example")
    await talk.say("MAIL FROM:<>")

    answers = [await talk.say(f"RCPT TO:<a{n}@isp.example>") for n in range(bounce_intake.RECIPIENTS + 1)]

    assert {answer[:3] for answer in answers[:-1]} == {"250"}
    assert answers[-1].startswith("452 4.5.3")


async def test_whoever_comes_when_it_is_full_is_told_to_come_later(station, monkeypatch):
    monkeypatch.setattr(bounce_intake, "CONNECTIONS", 2)
    first, second = await Talk.to(station.port), await Talk.to(station.port)

    third = await Talk.to(station.port)

    assert third.greeting.startswith("421 4.3.2")
    first.hang_up()
    await until(lambda: len(station.conversations) == 1)
    fourth = await Talk.to(station.port)
    assert fourth.greeting.startswith("220")
    second.hang_up()
    fourth.hang_up()


async def test_what_is_in_the_making_when_the_station_ends_is_answered(database, settings, monkeypatch):
    begun, may_go, real = asyncio.Event(), asyncio.Event(), bounce_intake.take

    async def slowly(*given, **more):
        begun.set()
        await may_go.wait()
        return await real(*given, **more)

    monkeypatch.setattr(bounce_intake, "take", slowly)
    async with listening(database, settings) as station:
        talk = await Talk.to(station.port)
        answer = asyncio.create_task(talk.bring(b"Subject: x\r\n\r\nHello", "a@isp.example"))
        await begun.wait()
        station.stop()
        await until(lambda: station.port is None)
        may_go.set()

        assert (await answer).startswith("250")


async def test_whoever_hangs_up_before_the_answer_has_his_mail_stored_all_the_same(database, settings, monkeypatch):
    begun, may_go, real = asyncio.Event(), asyncio.Event(), bounce_intake.take

    async def slowly(*given, **more):
        begun.set()
        await may_go.wait()
        return await real(*given, **more)

    monkeypatch.setattr(bounce_intake, "take", slowly)
    async with listening(database, settings) as station:
        talk = await Talk.to(station.port)
        answer = asyncio.create_task(talk.bring(b"Subject: x\r\n\r\nHello", "a@isp.example"))
        await begun.wait()
        talk.hang_up()
        await asyncio.gather(answer, return_exceptions=True)
        may_go.set()

        await until(lambda: stored(database))


async def stored(database):
    return bool(await rows(database, "SELECT 1 FROM bounce"))


async def test_a_second_listener_takes_the_port_over_when_the_first_ends(database, settings, monkeypatch):
    monkeypatch.setattr(bounce_intake, "AGAIN", 0.05)
    async with listening(database, settings) as first:
        second = BounceStation(database, Verp(settings), "127.0.0.1", first.port)
        running = asyncio.create_task(second.run())
        await asyncio.sleep(0.1)
        assert second.port is None
    await until(lambda: second.port)
    second.stop()
    await running


async def test_a_letter_goes_out_and_comes_back_to_its_own_message(database, settings, talk):
    async with Mailbox() as mailbox:
        await an_smtp_gateway(database, port=mailbox.port, profile={"return_path": RETURN_PATH})
        message = await a_letter(database, ended=None)
        station = MailStation(database, SecretBox(settings.secret_keys), UnsubscribeLinks(settings), Verp(settings))
        running = asyncio.create_task(station.run())
        await until(lambda: is_in(database, message, "accepted"))
        station.stop()
        await running
        (letter,) = mailbox.letters

    assert letter.sender == envelope_of(settings, message)
    assert letter.parsed["From"] == "MyISP <noreply@isp.example>"
    await talk.bring(a_dsn(a_recipient(MAIL)), letter.sender)
    assert await state_of(database, message) == ("undelivered", "mailbox_unavailable")


async def is_in(database, message, state):
    return (await state_of(database, message))[0] == state


@pytest.mark.parametrize(
    ("written", "expected"), [("", None), ("127.0.0.1:2526", ("127.0.0.1", 2526)), ("[::1]:25", ("::1", 25)), ("mail.isp.example:24", ("mail.isp.example", 24))]
)
def test_where_to_listen_is_a_host_and_a_port(written, expected):
    assert Settings(_env_file=None, bounce_listen=written).bounce_endpoint == expected
    assert parse_endpoint(written) == expected


@pytest.mark.parametrize("written", ["2526", ":2526", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "::1:25", "a:b"])
def test_what_is_no_host_and_port_is_refused(written):
    with pytest.raises(ValueError, match="no host and port"):
        Settings(_env_file=None, bounce_listen=written)


async def test_a_worker_listens_where_the_settings_say_and_nowhere_else(settings):
    office = Office(settings)
    with pytest.raises(ConfigurationError, match="VESTNIK_BOUNCE_LISTEN"):
        office.make("bounces")
    await office.database.close()

    office = Office(settings.model_copy(update={"bounce_listen": "127.0.0.1:2526"}))
    assert isinstance(office.make("bounces"), BounceStation)
    await office.database.close()
