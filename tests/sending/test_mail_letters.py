"""Letters on their way: as whom they go, what goes with them, and what becomes of one whose files cannot be had."""

import asyncio
from uuid import UUID, uuid4

import httpx
import orjson
import pytest
from sqlalchemy.exc import InterfaceError

from app.accounts.unsubscribe import UnsubscribeLinks
from app.attachments.models import Attachment, AttachmentPart
from app.attachments.write import AttachmentMissing
from app.core.secrets import SecretBox
from app.core.wakeups import Wakeups
from app.notifications.hold import Holding
from app.notifications.plan import Planner
from app.sending import mail_letters, mail_station
from app.sending.mail_station import MailStation
from app.sending.smtp.verp import Verp
from app.simulators.mailbox import Mailbox
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smtp_gateway
from tests.builders.letters import a_brand, a_letter
from tests.builders.messages import a_message, one, run, state_of

PNG = b"\x89PNG\r\n\x1a\n" + bytes(3000)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(mail_station, "WATCH", 0.1)
    monkeypatch.setattr(mail_station, "GRACE", 5.0)


@pytest.fixture
def wakeups(settings):
    return Wakeups(settings.redis_url, direct=lambda queue: True)


@pytest.fixture
def planner(database, settings, wakeups):
    return Planner(database, settings, wakeups)


@pytest.fixture
async def mailbox():
    async with Mailbox() as mailbox:
        yield mailbox


@pytest.fixture
async def send(database, settings, mailbox):
    """Sends what is queued on the gateway `post`, until the condition is so."""
    await an_smtp_gateway(database, port=mailbox.port, profile={"reconnect_min": 0.05, "retry_backoff_min": 0.2, "temp_attempts": 3})

    async def sent(condition):
        station = MailStation(database, SecretBox(settings.secret_keys), UnsubscribeLinks(settings), Verp(settings))
        running = asyncio.create_task(station.run())
        try:
            async with asyncio.timeout(15):
                while not await condition():
                    await asyncio.sleep(0.03)
        finally:
            station.stop()
            await asyncio.wait_for(running, 20)
        return mailbox.letters

    return sent


async def a_file(database, name: str = "a.png", kind: str = "image/png", data: bytes = PNG) -> UUID:
    file_id = uuid4()
    async with database.transaction() as session:
        session.add(Attachment(id=file_id, sha256=file_id.bytes, name=name, content_type=kind, size=len(data), created_by="test"))
        await session.flush()
        session.add(AttachmentPart(attachment_id=file_id, n=0, data=data))
    return file_id


def ended(database, message_id, *states):
    async def condition():
        return (await state_of(database, message_id))[0] in states

    return condition


async def a_queued_letter(database, **fields):
    return await a_message(database, channel="email", address="a@example.org", subject="S", gateway="post", **fields)


async def test_a_letter_goes_in_the_name_of_its_brand(database, send):
    await a_brand(database, "tv", sender="ТВ <hello@tv.example>", reply_to="help@tv.example")
    message_id = await a_queued_letter(database, brand="tv")

    [letter] = await send(ended(database, message_id, "accepted"))

    assert (letter.parsed["from"].addresses[0].display_name, letter.sender) == ("ТВ", "hello@tv.example")
    assert letter.parsed["reply-to"] == "help@tv.example"
    assert letter.parsed["feedback-id"] == "service.connected:tv:vestnik"
    assert letter.parsed["message-id"] == f"<{message_id}@isp.example>", "in the domain of the gateway, where bounces are matched"


async def test_one_click_on_the_header_of_a_received_letter_ends_its_type(database, settings, api, planner, send):
    """RFC 8058, from the event to the refusal: what a mail program does with nothing but the letter as it came."""
    account = await an_account(database, phones=(), mails=("a@example.org",))
    await a_waiting_event(database, account)
    await planner.plan()
    told = await one(database, "SELECT id FROM message")

    [letter] = await send(ended(database, told.id, "accepted"))
    url = str(letter.parsed["list-unsubscribe"]).strip("<>")
    name, _, value = str(letter.parsed["list-unsubscribe-post"]).partition("=")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api.app), base_url="http://mail.program") as program:
        clicked = await program.post("/" + url.split("/", 3)[3], data={name: value})
    event = await a_waiting_event(database, account)
    await planner.plan()

    assert (url.startswith(f"{settings.base_url}/unsubscribe/"), name, value, clicked.status_code) == (True, "List-Unsubscribe", "One-Click", 200)
    decisions = (await one(database, "SELECT decisions FROM notification WHERE event_id = :id", id=event)).decisions
    assert ("email", "contact_type_off") in [(decision["channel"], decision["reason"]) for decision in decisions]


async def test_a_letter_without_a_brand_goes_as_the_gateway_says(database, send):
    message_id = await a_queued_letter(database)
    gone = await a_queued_letter(database, brand="gone")

    first, second = await send(ended(database, gone, "accepted"))

    assert await state_of(database, message_id) == ("accepted", None)
    assert {first.sender, second.sender} == {"noreply@isp.example"}
    assert {letter.parsed["feedback-id"] for letter in (first, second)} == {"service.connected:default:vestnik", "service.connected:gone:vestnik"}
    assert first.parsed["reply-to"] is None


async def test_a_brand_that_came_after_the_last_look_is_known_all_the_same(database, send, monkeypatch):
    monkeypatch.setattr(mail_letters.Letters, "follow", lambda self, brands: None)
    await a_brand(database, "tv", sender="hello@tv.example")
    message_id = await a_queued_letter(database, brand="tv")

    [letter] = await send(ended(database, message_id, "accepted"))

    assert letter.sender == "hello@tv.example"


async def test_files_go_with_their_letter(database, send):
    picture, paper = await a_file(database), await a_file(database, "Договор № 1.pdf", "application/pdf", b"%PDF-1.7")
    specs = [{"kind": "file", "id": str(picture), "inline": True, "name": "logo.png"}, {"kind": "file", "id": str(paper)}]
    message_id = await a_queued_letter(database, html='<p><img src="cid:logo.png"></p>', attachments=specs)

    [letter] = await send(ended(database, message_id, "accepted"))

    parts = {part.get_filename(): part for part in letter.parsed.walk() if part.get_filename()}
    assert parts["Договор № 1.pdf"].get_content() == b"%PDF-1.7"
    assert parts["logo.png"].get_content() == PNG
    assert parts["logo.png"]["content-id"].strip("<>") in letter.parsed.get_body(("html",)).get_content()


async def test_a_letter_whose_file_is_gone_does_not_go_without_it(database, send):
    message_id = await a_queued_letter(database, attachments=[{"kind": "file", "id": str(uuid4())}])

    letters = await send(ended(database, message_id, "failed", "accepted"))

    assert await state_of(database, message_id) == ("failed", "attachment_missing")
    assert len(letters) == 0


async def test_a_letter_whose_files_cannot_be_read_just_now_waits_and_costs_no_attempt(database, send, monkeypatch):
    files_of, broken = mail_letters.files_of, [1] * 5  # and three attempts are all that a letter has

    async def sometimes(*arguments, **more):
        if broken:
            broken.pop()
            raise InterfaceError("SELECT", None, Exception("connection is closed"))
        return await files_of(*arguments, **more)

    monkeypatch.setattr(mail_letters, "files_of", sometimes)
    message_id = await a_queued_letter(database, attachments=[{"kind": "file", "id": str(await a_file(database))}])

    [letter] = await send(ended(database, message_id, "accepted"))

    assert broken == []
    assert len([part for part in letter.parsed.walk() if part.get_filename()]) == 1


async def test_a_letter_whose_files_we_cannot_make_fails_after_its_attempts(database, send, monkeypatch):
    async def mistaken(*_, **__):
        raise KeyError("a mistake of ours")

    monkeypatch.setattr(mail_letters, "files_of", mistaken)
    message_id = await a_queued_letter(database, attachments=[{"kind": "file", "id": str(uuid4())}])

    letters = await send(ended(database, message_id, "failed"))

    assert (await state_of(database, message_id))[0] == "failed"
    assert len(letters) == 0


async def test_files_are_made_of_the_data_that_the_words_were_made_of(database, send, planner, monkeypatch):
    asked = []

    async def remembered(session, specs, account_id, brand, data, moment, locale, **_):
        asked.append((specs, account_id, brand.get("payee"), data, locale))
        raise AttachmentMissing("no matter")

    monkeypatch.setattr(mail_letters, "files_of", remembered)
    payee = {"name": "ООО", "personal_account": "4" * 20, "bank_name": "Банк", "bic": "0" * 9, "correspondent_account": "0"}
    await a_brand(database, "tv", is_default=True, payee=payee)
    await a_letter(database, html="<p>x</p>", attachments=[{"kind": "payment_qr"}])
    account = await an_account(database, phones=(), mails=("a@example.org",))
    await a_waiting_event(database, account, data={"service": {"code": "tv", "name": "TV"}, "price": "5.00"})

    await planner.plan()
    await run(database, "UPDATE event SET data = '{}'")
    message = await one(database, "SELECT id, brand FROM message")
    await send(ended(database, message.id, "failed"))

    assert message.brand == "tv"
    [(specs, account_id, asked_payee, data, locale)] = asked
    assert (specs, account_id, data, locale) == ([{"kind": "payment_qr"}], account.id, {"service": {"code": "tv", "name": "TV"}, "price": "5.00"}, "ru")
    assert asked_payee == payee | {"inn": None, "kpp": None}


async def test_a_held_letter_keeps_its_brand_and_files_or_takes_those_of_now(database, settings, wakeups, planner):
    await a_brand(database, "tv", is_default=True)
    await a_letter(database, html="<p>x</p>", attachments=[{"kind": "statement_pdf"}])
    account = await an_account(database, phones=(), mails=("a@example.org",))
    await a_waiting_event(database, account)
    await planner.plan()
    await run(database, "UPDATE outbox SET state = 'held', reason = 'quiet_hours'")
    await run(database, "UPDATE brand SET settings = '{}', revision = 2, updated_at = now()")

    await Holding(database, settings, wakeups).release()

    message = await one(database, "SELECT brand, CAST(attachments AS text) AS attachments FROM message")
    assert message.brand is None
    assert [spec["kind"] for spec in orjson.loads(message.attachments)] == ["statement_pdf", "data"]


async def test_a_resent_letter_has_the_files_of_the_first(database, api, mailbox):
    await an_smtp_gateway(database, port=mailbox.port)
    account = await an_account(database, phones=(), mails=("a@example.org",))
    specs = [{"kind": "file", "id": str(uuid4())}]
    first = await a_message(database, account, channel="email", address="a@example.org", subject="S", brand="tv", attachments=specs, ended="delivered")

    answer = await api.post(f"/messages/{first}/resend")

    assert answer.status_code == 201, answer.text
    made = await one(database, "SELECT brand, CAST(attachments AS text) AS attachments FROM message WHERE id = :id", id=UUID(answer.json()["id"]))
    assert (made.brand, orjson.loads(made.attachments)) == ("tv", specs)


async def test_an_erased_account_leaves_nothing_in_the_list_of_files(database, api):
    account = await an_account(database, phones=(), mails=("a@example.org",))
    specs = [{"kind": "payment_qr"}, {"kind": "data", "data": {"total": "5.00"}}]
    await a_message(database, account, channel="email", address="a@example.org", attachments=specs, ended="delivered")

    await api.delete(f"/accounts/{account.number}")

    assert (await one(database, "SELECT attachments FROM message")).attachments is None
