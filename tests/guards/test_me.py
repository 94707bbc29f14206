"""Nobody sees, or changes, anything of another account: every route under /me, as the contract lists them, with another one's token and another one's ids."""

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest

from app.accounts.models import Account
from app.core.config import Settings
from app.core.http import API
from app.main import contract_text
from tests.builders.accounts import a_contact, an_account
from tests.builders.events import a_waiting_event
from tests.builders.messages import a_message, one, rows

OWN, OTHER = "100500", "700700"
# What stands in the other account and nowhere else.
SECRETS = (
    "700700",
    "Secretive",
    "+79167007070",
    "7007070",
    "secret@example.org",
    "***@secret",
    "7007.07",
    "Tariff of another",
    "words for another",
    "label of another",
)


@dataclass
class Another:
    """What belongs to the other account, by what a route may call it."""

    account: Account
    contact: UUID
    unproved: UUID
    message: UUID
    event: UUID

    @property
    def ids(self) -> dict[str, str]:
        return {"contact_id": str(self.unproved), "message_id": str(self.message), "event_id": str(self.event), "id": str(self.unproved)}


@pytest.fixture
async def another(database) -> Another:
    account = await an_account(database, OTHER, phones=(), name="Secretive", balance="7007.07", tariff="Tariff of another", threshold="7007.07")
    contact = a_contact(account, "sms", "+79167007070", label="label of another")
    unproved = a_contact(account, "email", "secret@example.org", origin="subscriber")
    async with database.transaction() as session:
        session.add_all([contact, unproved])
    message = await a_message(database, account, contact_id=contact.id, address=contact.address, text="words for another", ended="delivered")
    await a_message(database, account, contact_id=contact.id, address=contact.address, text="words for another")
    return Another(account, contact.id, unproved.id, message, await a_waiting_event(database, account))


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and operation of everything under /me."""
    paths = json.loads(contract_text(Settings(_env_file=None, database_url="postgresql+asyncpg://nowhere/none")))["paths"]
    mine = [(path.removeprefix(API), item) for path, item in paths.items() if path == f"{API}/me" or path.startswith(f"{API}/me/")]
    return [(method.upper(), path, operation) for path, item in mine for method, operation in item.items() if method in METHODS]


METHODS = ("get", "put", "patch", "post", "delete")
ALL = operations()


def body_for(method: str, path: str, another: Another) -> list[Any]:
    """Bodies that a route may take: each speaks of what is another's."""
    contacts = {str(another.contact): {"enabled": False}}
    return [
        {},
        {"locale": "en"},
        {"contacts": contacts, "types": {}},
        {"channel": "sms", "address": "+79167007070"},
        {"channel": "email", "address": "secret@example.org", "account": OTHER, "number": OTHER},
        {"code": "000000"},
        {"label": "mine now"},
    ]


async def state_of_another(database, another: Another) -> dict[str, list[Any]]:
    """Every row of every table that has an account, or belongs to one of the other's messages."""
    tables = [row.table_name for row in await rows(database, "SELECT table_name FROM information_schema.columns WHERE column_name = 'account_id' ORDER BY 1")]
    found = {
        table: [str(tuple(row)) for row in await rows(database, f"SELECT * FROM {table} WHERE account_id = :id ORDER BY 1", id=another.account.id)]
        for table in tables
    }
    found["account"] = [str(tuple(row)) for row in await rows(database, "SELECT * FROM account WHERE id = :id", id=another.account.id)]
    found["contact_code"] = [str(tuple(row)) for row in await rows(database, "SELECT * FROM contact_code WHERE contact_id = :id", id=another.unproved)]
    found["outbox"] = [
        str(tuple(row))
        for row in await rows(database, "SELECT o.* FROM outbox o JOIN message m ON m.id = o.message_id WHERE m.account_id = :id", id=another.account.id)
    ]
    return found


async def asked(client: httpx.AsyncClient, method: str, path: str, bodies: list[Any], headers: dict[str, str], query: dict[str, str]) -> list[httpx.Response]:
    if method in {"GET", "DELETE"}:
        return [await client.request(method, path, headers=headers, params=query)]
    return [await client.request(method, path, headers=headers, params=query, json=body) for body in bodies]


def test_the_contract_lists_the_cabinet():
    there = {(method, path) for method, path, _ in ALL}

    assert {("GET", "/me"), ("GET", "/me/messages"), ("GET", "/me/contacts"), ("GET", "/me/forecast"), ("GET", "/me/preferences")} <= there


@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in ALL])
async def test_nothing_of_another_account_is_seen_or_changed(database, as_subscriber, another, method, path):
    await an_account(database, OWN, name="Own", phones=("+79161110000",))
    me = await as_subscriber(OWN)
    before = await state_of_another(database, another)
    query = {"account": OTHER, "number": OTHER, "account_id": str(another.account.id), "limit": "100"}
    etag = {"If-Match": '"1"', "X-Account": OTHER, "X-Forwarded-User": OTHER}

    answers = []
    for bodies in (body_for(method, path, another),):
        for number in {path.replace("{" + name + "}", value) for name in (re.findall(r"\{(\w+)\}", path) or ["-"]) for value in another.ids.values()}:
            answers += await asked(me, method, number, bodies, etag, query)

    for answer in answers:
        assert answer.status_code < 500
        sent = answer.request.content.decode()
        assert [secret for secret in SECRETS if secret in answer.text and secret not in sent] == []
        assert not any(str(value) in answer.text for value in (another.account.id, another.message))
        if "{" in path:
            assert answer.status_code in {404, 422, 428, 429}, (answer.request.url, answer.text)
    assert await state_of_another(database, another) == before


@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in ALL])
async def test_no_route_is_open_to_a_key_or_to_nobody(as_role, api, method, path):
    nobody = await as_role(None)
    there = re.sub(r"\{\w+\}", "0192f1c0-0000-7000-8000-000000000000", path)

    answers = await asyncio.gather(nobody.request(method, there), api.request(method, there))

    assert [answer.status_code for answer in answers] == [401, 403]


@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in ALL if method == "GET" and "{" not in path])
async def test_each_sees_his_own(as_subscriber, another, method, path):
    """The same routes do find what is there, so that the tests above would notice it."""
    him = await as_subscriber(OTHER)

    answer = await him.get(path)

    assert answer.status_code == 200
    if path != "/me/preferences":
        assert any(secret in answer.text for secret in (*SECRETS, "+7916***7070"))


async def test_token_of_the_other_account_is_of_no_use_with_our_ids(database, as_subscriber, another):
    """The other way round: what is another's is found with his own token, and with no one else's."""
    him, me = await as_subscriber(OTHER), await as_subscriber(OWN)
    await an_account(database, OWN, phones=())

    assert (await him.get(f"/me/messages/{another.message}")).status_code == 200
    assert (await me.get(f"/me/messages/{another.message}")).status_code == 404
    assert (await one(database, "SELECT count(*) AS n FROM message")).n == 2
