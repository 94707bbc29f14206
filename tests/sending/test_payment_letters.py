"""A letter by which one can pay, as the page on attachments tells an operator to make it: from its very commands to the mailbox."""

import asyncio
import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

from app.accounts.unsubscribe import UnsubscribeLinks
from app.attachments.payment_qr import Payee, as_png, payload
from app.core.secrets import SecretBox
from app.core.wakeups import Wakeups
from app.notifications.plan import Planner
from app.sending import mail_station
from app.sending.mail_station import MailStation
from app.sending.smtp.verp import Verp
from app.simulators.mailbox import Mailbox
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smtp_gateway
from tests.builders.messages import one, state_of
from tests.builders.stations import until

DOCS = Path(__file__).resolve().parents[2] / "docs"
SHORT = {"days_left": 3, "exhausts_on": "2027-01-10", "shortfall": "400.00", "recommended_payment": "450.00", "charges": []}


def bodies(folder: str) -> list[dict]:
    """What the page sends, in the order of its steps; shell variables as they stand."""
    section = re.split(r"## (?:Step by step|По шагам)", (DOCS / f"{folder}attachments.md").read_text("utf-8"))[1].split("\n## ")[0]
    return [json.loads(found) for found in re.findall(r"-d '(\{.*?\})'(?=\s)", section, re.DOTALL) if '"account"' not in found]


@pytest.fixture
async def arrived(database, settings, monkeypatch):
    """`await arrived(account)`: the letter that tells this account about the end of its money, out of the mailbox."""
    monkeypatch.setattr(mail_station, "WATCH", 0.1)

    async def sent(account):
        await a_waiting_event(database, account, "balance.exhausting", data=SHORT)
        await Planner(database, settings, Wakeups(settings.redis_url, direct=lambda queue: True)).plan()
        message = (await one(database, "SELECT id FROM message")).id

        async def has_ended():
            return (await state_of(database, message))[0] in ("accepted", "failed")

        station = MailStation(database, SecretBox(settings.secret_keys), UnsubscribeLinks(settings), Verp(settings))
        running = asyncio.create_task(station.run())
        try:
            await until(has_ended)
        finally:
            station.stop()
            await asyncio.wait_for(running, 20)
        assert await state_of(database, message) == ("accepted", None)

    async with Mailbox() as mailbox:
        await an_smtp_gateway(database, port=mailbox.port, profile={"reconnect_min": 0.05})

        async def letter(account):
            await sent(account)
            (found,) = mailbox.letters
            return found.parsed

        yield letter


@pytest.mark.parametrize(("folder", "locale"), [("", "en"), ("ru/", "ru")])
async def test_operator_makes_a_letter_with_a_payment_code_by_the_page_alone(api, database, arrived, folder, locale):
    brand, words = bodies(folder)
    account = await an_account(database, phones=(), mails=("a@example.org",), locale=locale)

    assert (await api.put("/brands/main", json=brand)).status_code == 201
    query = {"type": "balance.exhausting", "channel": "email", "locale": locale}
    template = (await api.get("/templates", params=query)).json()["items"][0]["id"]
    added = await api.post(f"/templates/{template}/versions", json=words)
    preview = (await api.post("/templates/preview", json={"template_id": template, "account": account.number})).json()
    published = await api.post(f"/templates/{template}/versions/2/publish")
    letter = await arrived(account)

    assert (added.json()["version"], added.json()["warnings"], preview["problems"], published.status_code) == (2, [], [], 200)
    files = {part.get_content_type(): part for part in letter.walk() if part.get_filename()}
    assert files.keys() == {"image/png", "application/pdf", "text/calendar"}
    assert files["image/png"].get_content() == as_png(payload(Payee(**brand["payee"]), account.number, Decimal("450.00")))
    html = letter.get_body(("html",)).get_content()
    assert f"cid:{files['image/png']['content-id'].strip('<>')}" in html
    assert files["application/pdf"].get_content().startswith(b"%PDF-")
    assert {file["name"] for file in preview["attachments"]} >= {"payment-qr.png"}


@pytest.mark.parametrize("locale", ["en", "ru"])
async def test_words_that_come_with_the_service_take_a_payment_code_too(api, database, arrived, locale):
    account = await an_account(database, phones=(), mails=("a@example.org",), locale=locale)
    await api.put("/brands/main", json=bodies("")[0])
    query = {"type": "balance.exhausting", "channel": "email", "locale": locale}
    template = (await api.get("/templates", params=query)).json()["items"][0]["id"]
    own = (await api.get(f"/templates/{template}/versions/1")).json()
    words = {name: own[name] for name in ("subject", "text", "layout")} | {"attachments": [{"kind": "payment_qr"}]}
    words["html"] = own["html"] + '\n<p><img src="cid:payment-qr.png" alt="QR" width="280"></p>\n'

    added = await api.post(f"/templates/{template}/versions", json=words)
    published = await api.post(f"/templates/{template}/versions/2/publish")
    letter = await arrived(account)

    assert (added.status_code, published.status_code) == (201, 200)
    (code,) = [part for part in letter.walk() if part.get_filename()]
    assert f"cid:{code['content-id'].strip('<>')}" in letter.get_body(("html",)).get_content()
