"""Routes over the API: read and replaced as one."""

import asyncio

import pytest

from app.commands.gateways import put_routes
from app.core.clock import now
from app.gateways.models import Routing
from app.gateways.routes import RouteIn
from app.gateways.routes_api import faults_of
from tests.builders.gateways import an_smpp_gateway, an_smtp_gateway
from tests.builders.messages import a_message, rows

WHOLE = {
    "name": None,
    "channel": "sms",
    "prefix": [],
    "type": [],
    "attributes": {},
    "operator": [],
    "gateways": [{"name": "main", "weight": 1}],
    "balance": "order",
    "sender": None,
    "price_per_part": None,
}


@pytest.fixture
async def gateways(database):
    await an_smpp_gateway(database, "main")
    await an_smpp_gateway(database, "spare")
    await an_smtp_gateway(database, "post")


async def put(api, *routes, **headers):
    return await api.put("/routes", json={"items": list(routes)}, headers={key.replace("_", "-"): value for key, value in headers.items()})


@pytest.mark.usefixtures("gateways")
async def test_routes_are_read_as_they_were_written_in_one_form(api):
    given = {
        "name": "Moscow",
        "prefix": "7916",
        "type": "payment.received",
        "attributes": {"segment": "vip"},
        "operator": "МТС",
        "gateways": ["main", {"name": "spare", "weight": 3}],
        "balance": "weights",
        "sender": "MyISP",
        "price_per_part": "2.3",
    }

    answer = await put(api, given, {"channel": "email", "gateways": "post"})

    assert (answer.status_code, answer.headers["etag"]) == (200, '"1"')
    first, second = answer.json()["items"]
    assert first == {
        "name": "Moscow",
        "channel": "sms",
        "prefix": ["+7916"],
        "type": ["payment.received"],
        "attributes": {"segment": ["vip"]},
        "operator": ["МТС"],
        "gateways": [{"name": "main", "weight": 1}, {"name": "spare", "weight": 3}],
        "balance": "weights",
        "sender": "MyISP",
        "price_per_part": "2.30",
    }
    assert second == WHOLE | {"channel": "email", "gateways": [{"name": "post", "weight": 1}]}
    read = await api.get("/routes")
    assert (read.json(), read.headers["etag"]) == (answer.json(), '"1"')


async def test_without_routes_there_is_an_empty_list(api):
    answer = await api.get("/routes")

    assert (answer.json(), answer.headers["etag"]) == ({"items": []}, '"0"')


@pytest.mark.usefixtures("gateways")
@pytest.mark.parametrize("form", [lambda routes: {"items": routes}, lambda routes: {"routes": routes}, lambda routes: routes])
async def test_every_form_of_the_body_is_taken_and_faults_point_into_it(api, form):
    good, bad = {"gateways": ["main"]}, {"gateways": ["main"], "prefix": ["+7916", "8-916"]}

    assert (await api.put("/routes", json=form([good]))).json() == {"items": [WHOLE]}
    fault = (await api.put("/routes", json=form([good, bad]))).json()["errors"][0]

    root = {"items": "/items", "routes": "/routes"}.get(next(iter(form([]))) if isinstance(form([]), dict) else "", "")
    assert fault["pointer"] == f"{root}/1/prefix/1"
    assert "+7916" in fault["detail"]


@pytest.mark.usefixtures("gateways")
async def test_change_needs_the_etag_that_was_read_and_repetition_changes_nothing(api, database):
    route = {"gateways": ["main"]}
    await put(api, route)

    assert (await put(api)).status_code == 428
    assert (await put(api, if_match='"7"')).status_code == 412
    assert (await put(api, route, if_match='"1"')).headers["etag"] == '"1"'
    assert (await put(api, if_match='"1"')).headers["etag"] == '"2"'
    assert (await put(api, route, if_match='"1"')).status_code == 412
    assert [row.action for row in await rows(database, "SELECT action FROM audit_record ORDER BY at")] == ["routes.create", "routes.update"]


@pytest.mark.usefixtures("gateways")
async def test_first_routes_are_written_by_one_of_two(api):
    assert (await put(api, {"gateways": ["main"]}, if_match='"3"')).status_code == 412
    assert (await put(api, {"gateways": ["main"]}, if_match='"0"')).status_code == 200
    assert (await put(api, {"gateways": ["spare"]}, if_match='"0"')).status_code == 412


@pytest.mark.usefixtures("gateways")
@pytest.mark.parametrize(
    ("route", "pointer", "code"),
    [
        ({"gateways": ["main", "nowhere"]}, "/items/0/gateways/1", "unknown_gateway"),
        ({"gateways": ["post"]}, "/items/0/gateways/0", "wrong_gateway"),
        ({"gateways": ["main"], "channel": "email"}, "/items/0/gateways/0", "wrong_gateway"),
        ({"gateways": ["main"], "type": ["payment.received", "no.such"]}, "/items/0/type/1", "unknown_type"),
        ({"gateways": ["main"], "channel": "fax"}, "/items/0/channel", "literal_error"),
        ({"gateways": ["main"], "sender": "МойПровайдер"}, "/items/0/sender", "sender_refused"),
        ({"gateways": ["main"], "sender": "MuchTooLongSender"}, "/items/0/sender", "sender_refused"),
        ({"gateways": ["main"], "prefx": "+7"}, "/items/0", "value_error"),
        ({"gateways": ["post"], "channel": "email", "prefix": "+7"}, "/items/0", "value_error"),
        ({"gateways": ["main", "main"]}, "/items/0", "value_error"),
        ({"gateways": []}, "/items/0/gateways", "too_short"),
        ({"gateways": [{"name": "main", "weight": 0}]}, "/items/0/gateways/0/weight", "greater_than_equal"),
        ({"gateways": ["main"], "price_per_part": 2.5}, "/items/0/price_per_part", "money"),
        ({"gateways": ["main"], "attributes": {"segment": []}}, "/items/0/attributes/segment", "too_short"),
        ("main", "/items/0", "model_type"),
    ],
)
async def test_wrong_route_is_refused_where_it_is_wrong(api, route, pointer, code):
    answer = await put(api, route)

    assert answer.status_code == 422, answer.text
    fault = answer.json()["errors"][0]
    assert (fault["pointer"], fault["code"]) == (pointer, code)
    assert (await api.get("/routes")).json() == {"items": []}


@pytest.mark.usefixtures("gateways")
async def test_two_routes_of_one_name_and_a_body_of_another_form_are_refused(api):
    assert (await put(api, {"name": "x", "gateways": ["main"]}, {"name": "x", "gateways": ["spare"]})).json()["errors"][0]["code"] == "name_repeated"
    for body in ({}, {"items": [], "routes": []}, {"rules": []}, {"items": {}}, 5):
        assert (await api.put("/routes", json=body)).status_code == 422


@pytest.mark.usefixtures("gateways")
async def test_route_to_a_gateway_that_admits_only_some_senders_names_one_of_them(api, database):
    await an_smpp_gateway(database, "strict", sender="MyISP", profile={"allowed_senders": ["MyISP", "MyISP-TV"]})

    assert (await put(api, {"gateways": ["main", "strict"], "sender": "Other"})).json()["errors"][0]["code"] == "sender_refused"
    assert (await put(api, {"gateways": ["main", "strict"], "sender": "MyISP-TV"})).status_code == 200


@pytest.mark.usefixtures("gateways")
async def test_gateway_that_a_route_names_is_not_deleted(api):
    await put(api, {"gateways": ["main"]})

    answer = await api.delete("/gateways/main")

    assert (answer.status_code, answer.json()["code"]) == (409, "gateway_in_use")
    assert (await api.delete("/gateways/spare")).status_code == 204


async def test_who_may_read_gateways_reads_routes_and_does_not_write_them(as_role):
    viewer, operator, billing = await as_role("viewer"), await as_role("operator"), await as_role("billing")

    assert (await viewer.get("/routes")).status_code == 200
    assert (await put(operator)).status_code == 403
    assert (await billing.get("/routes")).status_code == 403


@pytest.mark.usefixtures("gateways")
async def test_routes_of_a_file_are_applied_once(api):
    routes = [{"prefix": "+7", "gateways": ["main", "spare"]}]

    done = [await put_routes(api, routes), await put_routes(api, routes), await put_routes(api, [])]

    assert done == ["created", "unchanged", "updated"]
    assert (await api.get("/routes")).json() == {"items": []}


@pytest.mark.usefixtures("gateways")
async def test_route_over_a_gateway_that_only_receives_is_refused(api, database):
    await an_smpp_gateway(database, "ear", profile={"bind_mode": "rx"})

    answer = await put(api, {"gateways": ["ear"]})

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "wrong_gateway")


@pytest.mark.usefixtures("gateways")
async def test_gateway_that_is_about_to_be_named_is_not_deleted_meanwhile(api, database):
    async with database.transaction() as session:
        assert await faults_of(session, [RouteIn.model_validate({"gateways": ["main"]})], ()) == []
        deleting = asyncio.create_task(api.delete("/gateways/main"))
        await asyncio.wait({deleting}, timeout=0.5)
        session.add(Routing(id=1, routes=[WHOLE], revision=1, updated_at=now()))

    assert (await deleting).status_code == 409


@pytest.mark.usefixtures("gateways")
async def test_gateway_in_use_does_not_become_one_of_another_kind(api, database):
    letters = {"kind": "smtp", "host": "127.0.0.1", "port": 2525, "tls": "none", "from": "MyISP <noreply@isp.example>"}
    await put(api, {"gateways": ["main"]})
    await a_message(database, gateway="spare")

    for name in ("main", "spare"):
        answer = await api.put(f"/gateways/{name}", json=letters, headers={"if-match": "*"})
        assert (answer.status_code, answer.json()["code"]) == (409, "gateway_in_use")
