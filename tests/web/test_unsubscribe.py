"""The page behind the link in a letter, and the one click of a mail program."""

import re

import httpx
import pytest

from app.accounts.unsubscribe import OfMessage, Refusable, UnsubscribeLinks
from app.core.ids import new_id
from app.core.limits import Rate
from app.core.wakeups import Wakeups
from app.notifications.plan import Planner
from tests.builders.accounts import MAIL, a_contact, an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smtp_gateway
from tests.builders.messages import a_message, one, rows, run, state_of

TYPE = "service.connected"
ONE_CLICK = {"content": "List-Unsubscribe=One-Click", "headers": {"Content-Type": "application/x-www-form-urlencoded"}}
OFF, ON = {"data": {"choice": "off"}}, {"data": {"choice": "on"}}


@pytest.fixture
def links(settings):
    return UnsubscribeLinks(settings)


@pytest.fixture
async def web(api):
    """Somebody without a key."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api.app, raise_app_exceptions=False), base_url="http://vestnik") as client:
        yield client


@pytest.fixture
async def account(database):
    return await an_account(database, phones=(), mails=(MAIL,))


@pytest.fixture
async def contact(database, account):
    return (await one(database, "SELECT id FROM contact")).id


@pytest.fixture
def path(links, account, contact):
    return path_of(links.link(account.id, contact, TYPE))


def path_of(link):
    return "/" + link.split("/", 3)[3]


async def chosen(database):
    found = await rows(database, "SELECT document, revision FROM account_preference")
    return (found[0].document, found[0].revision) if found else ({}, 0)


async def consents(database):
    return [tuple(row) for row in await rows(database, "SELECT act, type, channel, address, via, by FROM consent ORDER BY id")]


async def test_page_tells_what_the_link_is_about_and_changes_nothing(database, web, path):
    for _ in range(2):
        shown = await web.get(path, headers={"Accept-Language": "en-GB,en;q=0.9"})

    assert shown.status_code == 200
    assert "“Service connected” notifications to s***@example.org" in shown.text
    assert MAIL not in shown.text
    assert '<button name="choice" value="off">' in shown.text
    assert await chosen(database) == ({}, 0)
    assert await consents(database) == []


async def test_scanner_that_asks_by_head_learns_what_get_would_say_and_changes_nothing(database, web, path):
    shown, asked = await web.get(path), await web.head(path)
    gone = await web.head("/unsubscribe/x")

    assert (asked.status_code, asked.content, gone.status_code) == (200, b"", 404)
    assert {**asked.headers, "x-request-id": ""} == {**shown.headers, "x-request-id": ""}
    assert await chosen(database) == ({}, 0)


async def test_page_lets_nothing_in_from_anywhere_and_tells_nobody_its_address(web, path):
    shown = await web.get(path)

    policy = shown.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in policy
    assert (shown.headers["referrer-policy"], shown.headers["cache-control"]) == ("no-referrer", "no-store")
    assert not re.search(r"<script|https?://|//|url\(", shown.text)
    assert shown.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    "body",
    [
        ONE_CLICK,
        OFF,
        {"files": {"List-Unsubscribe": (None, "One-Click")}},
    ],
)
async def test_one_click_refuses_the_type_on_that_contact_with_its_proof(database, web, path, contact, body):
    answer = await web.post(path, **body)

    assert answer.status_code == 200
    assert not answer.is_redirect
    assert await chosen(database) == ({"contacts": {str(contact): {"types": {TYPE: False}}}}, 1)
    assert await consents(database) == [("refused", TYPE, "email", MAIL, "link", "subscriber")]
    assert (await one(database, "SELECT actor, action FROM audit_record WHERE action = 'preferences.link'")).actor == "subscriber"
    assert '<button name="choice" value="on">' in answer.text


async def test_whoever_has_refused_is_not_told_and_the_same_click_again_changes_nothing(database, web, path, account, settings):
    await an_smtp_gateway(database)
    for _ in range(3):
        assert (await web.post(path, **ONE_CLICK)).status_code == 200
    event = await a_waiting_event(database, account)

    await Planner(database, settings, Wakeups(settings.redis_url, direct=lambda _: True)).plan()

    decisions = (await one(database, "SELECT decisions FROM notification WHERE event_id = :id", id=event)).decisions
    assert ("email", "contact_type_off") in [(decision["channel"], decision["reason"]) for decision in decisions]
    assert len(await consents(database)) == 1
    assert (await chosen(database))[1] == 1


async def test_refusing_cancels_what_waits_and_leaves_the_rest(database, web, path, account, contact):
    own = {"channel": "email", "gateway": "post", "contact_id": contact}
    waiting = await a_message(database, account, **own)
    held = await a_message(database, account, state="held", **own)
    other_type = await a_message(database, account, type="tariff.changed", **own)
    second = a_contact(account, "email", "second@example.org")
    async with database.transaction() as session:
        session.add(second)
    others = await a_message(database, account, channel="email", gateway="post", contact_id=second.id)

    await web.post(path, **ONE_CLICK)

    assert await state_of(database, waiting) == await state_of(database, held) == ("cancelled", "contact_type_off")
    assert [(await state_of(database, message))[0] for message in (other_type, others)] == ["queued", "queued"]


async def test_what_is_on_the_wire_is_on_its_last_try(database, web, path, account, contact):
    message = await a_message(database, account, channel="email", gateway="post", contact_id=contact, state="sending")

    await web.post(path, **ONE_CLICK)

    assert (await state_of(database, message))[0] == "sending"
    assert (await one(database, "SELECT expires_at <= now() AS over FROM outbox")).over


async def test_the_page_turns_it_on_again_and_that_is_a_consent(database, web, path, contact):
    await web.post(path, **OFF)

    answer = await web.post(path, **ON)

    assert '<button name="choice" value="off">' in answer.text
    assert await chosen(database) == ({"contacts": {str(contact): {"types": {TYPE: True}}}}, 2)
    assert [act for act, *_ in await consents(database)] == ["refused", "allowed"]


async def test_other_choices_stay_as_they_are_and_their_no_is_said(database, web, path, account, contact):
    document = f'{{"locale": "en", "types": {{"{TYPE}": {{"enabled": false}}}}, "contacts": {{"{contact}": {{"enabled": true}}}}}}'
    await run(database, "INSERT INTO account_preference VALUES (:id, 7, CAST(:d AS jsonb), now(), 'subscriber')", id=account.id, d=document)

    before = await web.get(path)
    answer = await web.post(path, **OFF)
    again = await web.post(path, **ON)

    assert "other settings decide so" in before.text
    assert "no longer go" in answer.text
    assert "Your refusal is lifted, but" in again.text
    stored, revision = await chosen(database)
    assert (stored["locale"], stored["types"], revision) == ("en", {TYPE: {"enabled": False}}, 9)
    assert stored["contacts"] == {str(contact): {"enabled": True, "types": {TYPE: True}}}


async def test_mandatory_type_states_its_ground_and_cannot_be_refused(database, web, path):
    settings = '{"ground": "Law <126>, article 44"}'
    await run(
        database, "UPDATE notification_type SET mandatory = true, revision = revision + 1, settings = CAST(:s AS jsonb) WHERE code = :c", s=settings, c=TYPE
    )

    shown = await web.get(path, params={"locale": "en"})
    answer = await web.post(path, **ONE_CLICK)

    assert "cannot be turned off" in shown.text
    assert "Law &lt;126&gt;, article 44" in shown.text
    assert "<button" not in shown.text
    assert answer.status_code == 200
    assert (await chosen(database), await consents(database)) == (({}, 0), [])


async def test_link_of_a_letters_header_refuses_what_the_message_was(database, web, links, account, contact):
    message = await a_message(database, account, channel="email", contact_id=contact, address=MAIL, ended="delivered")

    answer = await web.post(path_of(links.link_of_message(message)), **ONE_CLICK)

    assert answer.status_code == 200
    assert (await chosen(database))[0] == {"contacts": {str(contact): {"types": {TYPE: False}}}}


async def test_body_that_says_neither_yes_nor_no_changes_nothing(database, web, path):
    for body in (
        {},
        {"content": b"\xff\xfe"},
        {"data": {"choice": "maybe"}},
        {"content": b"List-Unsubscribe=One-Click" + b"&" * 20_000},
        {"json": {"choice": "off"}},
    ):
        answer = await web.post(path, **body)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "text/html; charset=utf-8")

    assert (await chosen(database), await consents(database)) == (({}, 0), [])


async def test_token_that_is_not_ours_or_of_what_is_gone_finds_a_page_without_detail(database, api, web, links, account, contact, path):
    token = path.rpartition("/")[2]
    forged = [token[:-1] + ("A" if token[-5] != "A" else "B") * 1, "x", "é", "A" * 88, token[:40], token + "AAAA", token[::-1], "%20", "a" * 5000]
    forged = [wrong for wrong in forged if UnsubscribeLinks.read(links, wrong) is None]
    of_nobody = [
        path_of(links.link(account.id, new_id(), TYPE)),
        path_of(links.link(new_id(), contact, TYPE)),
        path_of(links.link(account.id, contact, "no.type")),
    ]
    of_nobody += [path_of(links.link_of_message(new_id()))]

    answers = [await method(wrong) for wrong in [*(f"/unsubscribe/{one}" for one in forged), *of_nobody] for method in (web.get, web.post)]

    assert len(forged) >= 8
    assert {(answer.status_code, answer.text) for answer in answers} == {(404, answers[0].text)}
    await api.delete("/accounts/100500")
    assert (await web.post(path, **ONE_CLICK)).status_code == 404


def test_token_is_read_back_and_outlives_the_rotation_of_the_keys(settings):
    older = settings.secret_keys.get_secret_value()
    newer = settings.model_copy(update={"secret_keys": type(settings.secret_keys)(f"b3VyLW93bi1rZXktdGhhdC1pcy1ub3QtbG9jYWwtMSE=, {older}")})
    without = settings.model_copy(update={"secret_keys": type(settings.secret_keys)("b3VyLW93bi1rZXktdGhhdC1pcy1ub3QtbG9jYWwtMSE=")})
    account, contact, message = new_id(), new_id(), new_id()
    token = UnsubscribeLinks(settings).link(account, contact, "operators.own-type").rpartition("/")[2]
    short = UnsubscribeLinks(settings).link_of_message(message).rpartition("/")[2]

    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    for reader in (UnsubscribeLinks(settings), UnsubscribeLinks(newer)):
        assert reader.read(token) == Refusable(account, contact, "operators.own-type")
        assert reader.read(short) == OfMessage(message)
    assert UnsubscribeLinks(without).read(token) is None
    assert UnsubscribeLinks(newer).link(account, contact, "x") != UnsubscribeLinks(settings).link(account, contact, "x")


def test_token_in_which_any_character_is_changed_is_not_ours(settings):
    links = UnsubscribeLinks(settings)
    token = links.link(new_id(), new_id(), TYPE).rpartition("/")[2]

    for place in range(len(token) - 1):  # of the last one some bits count for nothing
        other = "A" if token[place] != "A" else "B"
        assert links.read(token[:place] + other + token[place + 1 :]) is None


async def test_type_in_a_letter_has_the_link_and_a_mandatory_one_has_none(database, settings, account, links):
    await an_smtp_gateway(database)
    await run(database, "UPDATE notification_type SET mandatory = true, revision = revision + 1 WHERE code = 'tariff.changed'")
    await a_waiting_event(database, account)
    await a_waiting_event(database, account, "tariff.changed", data={"old_tariff": "A", "new_tariff": "B"})

    await Planner(database, settings, Wakeups(settings.redis_url, direct=lambda _: True)).plan()

    said = {row.type: row for row in await rows(database, "SELECT type, text, html, contact_id FROM message")}
    (link,) = set(re.findall(r"http\S+/unsubscribe/[\w-]+", said[TYPE].text))
    assert link in said[TYPE].html
    assert links.read(link.rpartition("/")[2]) == Refusable(account.id, said[TYPE].contact_id, TYPE)
    assert "unsubscribe" not in said["tariff.changed"].text + said["tariff.changed"].html


async def test_token_stands_in_no_metric(web, path):
    await web.get(path)

    measured = (await web.get("/metrics")).text

    assert 'route="/unsubscribe/{token}"' in measured
    assert path.rpartition("/")[2] not in measured


async def test_whoever_has_a_link_does_not_fill_the_proofs_without_end(database, web, path, monkeypatch):
    monkeypatch.setattr("app.web.unsubscribe.CLICKS", Rate("clicks", 3, 1))

    answers = [(await web.post(path, **wish)).status_code for wish in (OFF, ON, OFF, ON, OFF)]

    assert answers == [200, 200, 200, 429, 429]
    assert len(await consents(database)) == 3
    assert (await web.get(path)).status_code == 200
