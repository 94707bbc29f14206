"""The mailbox as other mail programs see it: the SMTP client of the standard library, in a thread of its own."""

import asyncio
import contextlib
import json
import smtplib
from email.message import EmailMessage

import httpx
import pytest

from app.simulators.mailbox import HANG_UP, Mailbox, Rule, serve


def compose(text: str = "Привет\n.\n..\n") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@isp.example", "b@example.org", "Счёт"
    message.set_content(text)
    return message


async def send(mailbox: Mailbox, *messages: EmailMessage) -> None:
    def work() -> None:
        with smtplib.SMTP("127.0.0.1", mailbox.port, local_hostname="test.example", timeout=5) as client:
            for message in messages:
                client.send_message(message)

    await asyncio.to_thread(work)


async def test_it_keeps_what_the_client_of_the_standard_library_sends():
    async with Mailbox() as mailbox:
        await send(mailbox, compose(), compose(""), compose("x\n" * 100_000))

        assert [(letter.sender, letter.to, letter.subject) for letter in mailbox.letters] == [("a@isp.example", "b@example.org", "Счёт")] * 3
        assert [letter.text for letter in mailbox.letters] == ["Привет\n.\n..\n", "\n", "x\n" * 100_000]
        assert mailbox.letters[0].parsed["subject"] == "Счёт"


async def test_every_letter_is_told_as_it_comes():
    told = []
    async with Mailbox(on_letter=told.append) as mailbox:
        await send(mailbox, compose())

        assert told == list(mailbox.letters)


async def test_told_to_keep_nothing_it_only_counts():
    async with Mailbox(keep=0) as mailbox:
        await send(mailbox, compose(), compose())

        assert (mailbox.count, len(mailbox.letters)) == (2, 0)


@pytest.mark.parametrize("when", ["mail", "rcpt", "data", "dot"])
async def test_it_refuses_where_it_was_told_and_as_often(when):
    async with Mailbox() as mailbox:
        mailbox.refuse("*", "550 5.7.1 No", when=when, times=1)

        with pytest.raises(smtplib.SMTPException):
            await send(mailbox, compose())
        await send(mailbox, compose())

        assert mailbox.count == 1


async def test_a_rule_concerns_only_the_addresses_that_fit():
    async with Mailbox(rules=[Rule.parse("*@FULL.example=452 4.2.2 Full"), Rule.parse("dot:late@*=451 4.3.0 Later")]) as mailbox:
        await send(mailbox, compose())

        assert mailbox.rule_for("rcpt", ["Somebody@full.EXAMPLE"]).reply == "452 4.2.2 Full"
        assert mailbox.rule_for("rcpt", ["late@example.org"]) is None
        assert mailbox.rule_for("dot", ["late@example.org"]).reply == "451 4.3.0 Later"


@pytest.mark.parametrize("text", ["nobody", "nobody=", "nobody=refuse", "soon:nobody=550 No"])
def test_a_rule_that_makes_no_sense_is_an_error(text):
    with pytest.raises(ValueError, match="not a rule"):
        Rule.parse(text)


async def test_it_hangs_up_when_told():
    async with Mailbox(rules=[Rule("dot", HANG_UP)]) as mailbox, Mailbox(hang_up_after=2) as impatient:
        for each in (mailbox, impatient):
            with pytest.raises(smtplib.SMTPServerDisconnected):
                await send(each, compose())

        assert (mailbox.count, mailbox.commands["DATA"]) == (0, 1)
        assert (impatient.commands["MAIL"], impatient.commands["RCPT"]) == (1, 1)


async def test_it_lets_nobody_in_without_the_password():
    def log_in(password: str) -> None:
        with smtplib.SMTP("127.0.0.1", mailbox.port, local_hostname="test.example", timeout=5) as client:
            client.login("isp", password)
            client.send_message(compose())

    async with Mailbox(credentials=("isp", "secret")) as mailbox:
        await asyncio.to_thread(log_in, "secret")
        with pytest.raises(smtplib.SMTPAuthenticationError):
            await asyncio.to_thread(log_in, "wrong")
        with pytest.raises(smtplib.SMTPSenderRefused):
            await send(mailbox, compose())

        assert mailbox.count == 1


@pytest.mark.parametrize("content", [b"Subject: x\r\n\r\nbare\nline feed\r\n", b"Subject: x\r\n\r\n" + b"x" * 999 + b"\r\n"])
async def test_it_is_as_strict_about_lines_as_the_strictest_server(content):
    async with Mailbox() as mailbox:
        reader, writer = await asyncio.open_connection("127.0.0.1", mailbox.port)
        writer.write(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
        await reader.readuntil(b"354")
        writer.write(content + b".\r\nQUIT\r\n")

        answers = (await reader.read()).decode().splitlines()
        writer.close()

        assert answers[-2].split()[1] in {"5.6.11", "5.6.0"}
        assert answers[-1].startswith("221")  # what was sent behind the letter was not lost
        assert mailbox.count == 0


async def test_letters_are_read_over_http():
    ports, ready = [], asyncio.Event()

    def note(mailbox: Mailbox, http_port: int | None) -> None:
        ports.append((mailbox, http_port))
        ready.set()

    serving = asyncio.create_task(serve(port=0, http_port=0, rules=["nobody@*=550 5.1.1 No such user"], on_ready=note))
    await asyncio.wait_for(ready.wait(), 5)
    [(mailbox, http_port)] = ports
    await send(mailbox, compose())

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{http_port}", trust_env=False) as client:
        listed = (await client.get("/letters", params={"to": "B@example.org"})).json()
        assert (listed["total"], listed["items"][0]["subject"], listed["items"][0]["text"]) == (1, "Счёт", "Привет\n.\n..\n")
        assert (await client.get("/letters", params={"to": "c@example.org"})).json()["total"] == 0
        assert (await client.get("/letters/0")).json()["headers"]["To"] == "b@example.org"
        assert (await client.get("/letters/0.eml")).content == mailbox.letters[0].raw
        assert [(await client.get(path)).status_code for path in ("/letters/1", "/letters/x", "/")] == [404, 404, 404]
        assert (await client.post("/letters")).status_code == 405
        assert (await client.delete("/letters")).status_code == 204
        assert json.loads((await client.get("/letters")).content) == {"total": 0, "items": []}

    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
