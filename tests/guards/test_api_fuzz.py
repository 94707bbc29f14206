"""Whatever is sent to the API, it answers as its contract says: no 5xx, no status, shape or content type that is not documented."""

import ipaddress
import json
import socket
import threading
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from app.core.auth import cabinet_token, create_key
from app.core.config import Settings
from app.core.db import Database
from app.main import contract_text, create_app
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smpp_gateway, an_smtp_gateway
from tests.builders.messages import a_message, one
from tests.conftest import at, run_sql

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
CABINET = "/api/v1/me"
# Of random words none is an account, a type or an address.
MEANINGFUL = {"subject": "100500", "type": "payment.received", "address": "+79165550001"}


@schemathesis.serializer("application/x-ndjson")
def lines(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """An import: the generated object as its one line, or as many lines as a generated array has."""
    return b"".join(json.dumps(item).encode() + b"\n" for item in (value if isinstance(value, list) else [value]))


@schemathesis.serializer("message/rfc822")
def mail(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """A mail that came back: whatever octets or text were generated."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


schema = schemathesis.openapi.from_dict(json.loads(contract_text(Settings(_env_file=None, database_url="postgresql+asyncpg://nowhere/none"))))
schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
schema.config.seed = 1


@dataclass
class Service:
    """The API on a loopback port, and what is there to be found."""

    client: httpx.Client
    key: str
    token: str
    there: dict[str, str]  # path parameter -> a value that exists
    to_delete: dict[str, str]
    kept: str  # the id of our own key, which nothing may revoke

    def headers(self, path: str) -> dict[str, str]:
        mine = path == CABINET or path.startswith(f"{CABINET}/")
        return {"Authorization": f"Bearer {self.token if mine else self.key}"}

    def aim(self, case: schemathesis.Case) -> None:
        """Let two cases of three meet something that exists, as it is now: random names and versions only ever find 404 and 412."""
        given = case.path_parameters or {}
        if zlib.crc32(repr((given, case.query, case.body)).encode("utf-8", "replace")) % 3 == 0:
            return
        known = self.to_delete if case.method == "DELETE" else self.there
        case.path_parameters = {name: known.get(name, value) for name, value in given.items()}
        if isinstance(case.body, dict):
            case.body |= {name: value for name, value in MEANINGFUL.items() if isinstance(case.body.get(name), str)}
        if "if-match" in {parameter.name.lower() for parameter in case.operation.headers} and (etag := self.etag(case.formatted_path)):
            case.headers["If-Match"] = etag

    def etag(self, path: str) -> str:
        """The version of what a path names, or of the nearest thing above it that has one."""
        while path != "/api/v1":
            answer = self.client.get(path, headers=self.headers(path))
            if "etag" in answer.headers:
                return str(answer.headers["etag"])
            path = path.rpartition("/")[0]
        return ""


@pytest.fixture(scope="module", autouse=True)
def loopback_only() -> Iterator[None]:
    """A gateway with a made-up host is dialled nowhere: POST /gateways/{name}/check finds that out as it would a dead host."""
    patch = pytest.MonkeyPatch()
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def is_here(host: Any) -> bool:
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and not is_here(address[0]):
            raise OSError(101, "tests reach the loopback interface alone")
        connect(self, address)

    def guarded_resolve(host: Any, *more: Any, **named: Any) -> Any:
        if host is not None and not is_here(host):
            raise socket.gaierror(socket.EAI_NONAME, "tests resolve no names")
        return resolve(host, *more, **named)

    patch.setattr(socket.socket, "connect", guarded_connect)
    patch.setattr(socket, "getaddrinfo", guarded_resolve)
    yield
    patch.undo()


@pytest_asyncio.fixture(scope="module")
async def service(servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    name = f"fuzz{uuid4().hex}"
    await run_sql(servers[0], f"CREATE DATABASE {name} TEMPLATE {template}")
    given = Settings(
        _env_file=None,
        database_url=at(servers[0], name),
        redis_url=servers[1],
        data_dir=tmp_path_factory.mktemp("fuzz"),
        log_level="error",
        jwt_hs256_secret="s" * 40,
    )
    database = Database.of(given)
    key, key_id = await furnish_key(database)
    there, to_delete = await furnish(database)
    server = uvicorn.Server(uvicorn.Config(create_app(given), host="127.0.0.1", port=0, loop="asyncio", ws="none", log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        yield Service(client, key, cabinet_token(given, "100500"), there, to_delete, key_id)
    server.should_exit = True
    thread.join(20)
    await database.close()
    await run_sql(servers[0], f"DROP DATABASE {name} WITH (FORCE)")


async def furnish_key(database: Database) -> tuple[str, str]:
    async with database.transaction() as session:
        key, row = await create_key(session, "fuzz", "admin")
        return key, row.id


async def furnish(database: Database) -> tuple[dict[str, str], dict[str, str]]:
    """Something behind every kind of path parameter, and something of it that may be deleted."""
    account = await an_account(database, mails=("subscriber@example.org",))
    other = await an_account(database, "100501")
    await an_smpp_gateway(database, "main", port=1)
    await an_smtp_gateway(database, "spare", port=1)
    message, event = await a_message(database, account), await a_waiting_event(database, account)
    template = await one(database, "SELECT id FROM template ORDER BY id LIMIT 1")
    contact = await one(database, "SELECT id FROM contact WHERE account_id = :id LIMIT 1", id=other.id)
    there = {
        "number": account.number,
        "name": "main",
        "message_id": str(message),
        "event_id": str(event),
        "template_id": str(template.id),
        "version": "1",
        "code": "service.connected",
    }
    return there, {"number": other.number, "name": "spare", "contact_id": str(contact.id)}


@schema.parametrize()
@settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_api_answers_as_its_contract_says(case: schemathesis.Case, service: Service):
    service.aim(case)
    if service.kept in (case.path_parameters or {}).values():
        return
    case.call_and_validate(base_url=str(service.client.base_url), headers=service.headers(case.operation.path), checks=CHECKS)


def test_nothing_of_this_leaves_the_machine():
    with socket.socket() as outward, pytest.raises(OSError, match="loopback"):
        outward.connect(("192.0.2.1", 80))
    with pytest.raises(socket.gaierror):
        socket.create_connection(("smsc.example", 80), timeout=1)
