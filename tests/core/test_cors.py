"""A cabinet page on another origin: the browser asks first, without a token, and has to be able to read refusals too."""

import pytest
from httpx import ASGITransport, AsyncClient

from app.core.auth import cabinet_token
from app.main import create_app
from tests.builders.accounts import an_account

PAGE, STRANGER = "https://cabinet.isp.example", "https://elsewhere.example"


@pytest.fixture
async def page(settings, database):
    """A client without a token of its own; `page(PAGE)` are the headers of a page of that origin."""
    await an_account(database, "100500")
    app = create_app(settings.model_copy(update={"cors_origins": f"{PAGE}, https://other.isp.example"}))
    async with app.router.lifespan_context(app), AsyncClient(transport=ASGITransport(app), base_url="http://vestnik/api/v1") as client:
        yield client


def asks(origin, method, headers="authorization, content-type, if-match"):
    return {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/me/preferences"), ("DELETE", "/me/contacts/1"), ("PATCH", "/me"), ("POST", "/me/contacts"), ("GET", "/me")]
)
async def test_page_of_a_known_origin_may_ask_with_its_token_and_a_version(page, method, path):
    answer = await page.options(path, headers=asks(PAGE, method))

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert method in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in ("authorization", "content-type", "if-match"))


async def test_page_of_another_origin_may_not(page):
    answer = await page.options("/me/preferences", headers=asks(STRANGER, "PUT"))

    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers


async def test_page_reads_answers_their_version_and_their_refusals(page, settings):
    token = {"Authorization": f"Bearer {cabinet_token(settings, '100500')}", "Origin": PAGE}

    shown = await page.get("/me", headers=token)
    refused = await page.get("/me", headers={"Origin": PAGE})
    too_large = await page.post("/me/contacts", headers=token | {"Content-Type": "application/json"}, content=b" " * ((1 << 20) + 1))

    assert (shown.status_code, refused.status_code, too_large.status_code) == (200, 401, 413)
    assert {answer.headers["access-control-allow-origin"] for answer in (shown, refused, too_large)} == {PAGE}
    exposed = shown.headers["access-control-expose-headers"].lower()
    assert all(name in exposed for name in ("etag", "retry-after"))
    assert "access-control-allow-credentials" not in shown.headers  # a token is no cookie


async def test_nothing_is_said_to_pages_where_no_origin_is_configured(as_subscriber, database):
    await an_account(database, "100500")
    me = await as_subscriber("100500")

    assert (await me.options("/me", headers=asks(PAGE, "PATCH"))).headers.get("access-control-allow-origin") is None
    assert "access-control-allow-origin" not in (await me.get("/me", headers={"Origin": PAGE})).headers
