import json

import httpx
from fastapi import APIRouter

from app.core import errors
from app.core.auth import Gatekeeper, MayReadAccounts
from app.core.db import Database
from app.core.door import BODY_LIMIT
from app.core.errors import AppError, ConfigurationError
from app.core.http import Guarded, parse_json

JSON = {"Content-Type": "application/json"}
KEYS = {"type", "title", "status", "detail", "code", "errors", "request_id"}


def problem(answer):
    """The problem of an answer, which has the shape of all problems."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    body = answer.json()
    assert body.keys() == KEYS
    assert body["status"] == answer.status_code
    assert body["type"] == f"urn:vestnik:problem:{body['code']}"
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["detail"]
    for fault in body["errors"]:
        assert fault.keys() == {"pointer", "code", "detail"}
    return answer.status_code, body["code"]


async def test_every_kind_of_refusal_is_a_problem(api, as_role):
    nobody, viewer = await as_role(None), await as_role("viewer")

    assert problem(await nobody.get("/accounts")) == (401, "missing_credentials")
    assert problem(await nobody.get("/nowhere")) == (401, "missing_credentials")
    assert problem(await viewer.put("/accounts/1", json={})) == (403, "missing_scope")
    assert problem(await api.get("/nowhere")) == (404, "not_found")
    assert problem(await api.get("/accounts/404")) == (404, "account_not_found")
    assert problem(await api.post("/accounts/1", json={})) == (405, "method_not_allowed")
    assert problem(await api.request("BREW", "/accounts")) == (405, "method_not_allowed")
    assert problem(await api.put("/accounts/1", content=b"{}", headers={"Content-Type": "text/xml"})) == (415, "unsupported_media_type")
    assert problem(await api.put("/accounts/1", json={"name": 1}))[0] == 422
    assert problem(await api.get("/accounts", params={"limit": 501}))[0] == 422
    assert problem(await api.get("/accounts", params={"limit": "x"}))[0] == 422
    assert problem(await api.get("/accounts?query=%00")) == (422, "nul_character")


BODIES = [
    (b"", 400, "empty_body"),
    (b"{", 400, "malformed_json"),
    (b'{"name": "\xff"}', 400, "malformed_json"),
    (b'{"name": NaN}', 400, "malformed_json"),
    (b'{"name": "\\ud800"}', 400, "malformed_json"),
    (b"[" * 100_000, 400, "malformed_json"),
    (b'{"a": ' * 5_000 + b"1" + b"}" * 5_000, 400, "malformed_json"),
    (b'{"name": "\\u0000"}', 422, "nul_character"),
    (b'{"attributes": {"a\\u0000": 1}}', 422, "nul_character"),
    (b"[]", 422, "invalid"),
    (b"null", 422, "invalid"),
    (b'"x"', 422, "invalid"),
]


async def test_body_that_cannot_be_taken_is_refused_and_not_echoed(api):
    for body, status, code in BODIES:
        answer = await api.put("/accounts/1", content=body, headers=JSON)

        assert (body[:30], *problem(answer)) == (body[:30], status, code)
        assert len(answer.content) < 1000


def test_zero_escape_that_is_an_escaped_backslash_is_no_nul():
    assert parse_json(b'{"a": "\\\\u0000"}') == {"a": "\\u0000"}


async def test_wrong_value_is_pointed_at_and_never_echoed(api):
    answer = await api.put("/accounts/1", json={"name": "x" * 301, "contacts": [{"channel": "sms", "address": "secret-word " * 4}], "currency": "secret-word"})

    problem(answer)
    assert {error["pointer"] for error in answer.json()["errors"]} == {"/name", "/currency"}
    assert "secret-word" not in answer.text


async def test_body_has_a_limit_whether_it_says_its_length_or_not(api):
    async def pieces():
        for _ in range(20):
            yield b" " * (BODY_LIMIT // 10)

    said = await api.put("/accounts/1", content=b" " * (BODY_LIMIT + 1), headers=JSON)
    streamed = await api.put("/accounts/1", content=pieces(), headers=JSON)
    fitting = await api.put("/accounts/1", content=b"{}" + b" " * (BODY_LIMIT - 2), headers=JSON)

    assert problem(said) == problem(streamed) == (413, "too_large")
    assert fitting.status_code == 201


async def test_request_id_of_the_client_is_kept_when_it_is_a_plain_one(api):
    assert (await api.get("/accounts", headers={"X-Request-Id": "billing-77.a_b"})).headers["x-request-id"] == "billing-77.a_b"
    for strange in ("a b", "x" * 65, "<script>", ""):
        given = (await api.get("/accounts", headers={"X-Request-Id": strange})).headers["x-request-id"]
        assert given != strange
        assert len(given) == 32


async def test_fault_of_ours_tells_nothing_of_the_inside(api):
    router = APIRouter(route_class=Guarded)

    @router.get("/broken")
    async def broken(caller: MayReadAccounts):
        raise RuntimeError("SELECT secret FROM api_key")

    api.app.include_router(router, prefix="/api/v1")

    answer = await api.get("/broken")

    assert problem(answer) == (500, "internal")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


async def test_database_that_cannot_be_reached_is_a_503_that_says_when_to_try_again(api, settings):
    gone = Database("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    api.app.state.database, kept = gone, api.app.state.database
    api.app.state.gatekeeper = Gatekeeper(settings, kept)
    try:
        answer = await api.get("/accounts")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=api.app), base_url="http://vestnik") as client:
            ready, live = await client.get("/health/ready"), await client.get("/health/live")
    finally:
        api.app.state.database = kept
        await gone.close()

    assert problem(answer) == (503, "unavailable")
    assert answer.headers["retry-after"]
    assert problem(ready) == (503, "database_unreachable")
    assert live.status_code == 200


def all_kinds(kind=AppError):
    return {kind}.union(*(all_kinds(below) for below in kind.__subclasses__()))


def test_every_error_has_a_code_of_its_own_and_a_sentence():
    kinds = all_kinds() - {AppError}
    codes = [kind.code for kind in kinds]

    assert len(codes) == len(set(codes))
    assert all(kind.title and 400 <= kind.status < 600 for kind in kinds)
    assert errors.NotFound().detail == errors.NotFound.title
    assert not issubclass(ConfigurationError, AppError)


async def test_contract_and_health_need_no_key_and_the_rest_does(api, as_role):
    nobody = await as_role(None)

    assert (await nobody.get("/openapi.json")).status_code == 200
    contract = json.loads((await nobody.get("/openapi.json")).content)
    for path, operations in contract["paths"].items():
        for method in operations:
            if path.startswith("/api/v1"):
                answer = await nobody.request(method, f"http://vestnik{path}")
                assert (path, method, answer.status_code) == (path, method, 401)
