"""Endpoints over the API: made, changed, tested, replayed; and what is told of their deliveries."""

import json
from datetime import timedelta

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from app.core.clock import now
from app.core.config import Settings
from app.core.secrets import SecretBox
from app.main import contract_text
from app.webhooks.bodies import body_of, webhook_id
from app.webhooks.claim import Claimed
from app.webhooks.keep import Keeping
from app.webhooks.models import PING, TYPES
from app.webhooks.signing import new_secret, signed_headers
from tests.builders.far_endpoint import Received, says
from tests.builders.inbound import an_sms, come
from tests.builders.messages import a_message, one, rows, run
from tests.builders.stations import until

HOUR = timedelta(hours=1)


async def move(database, message, state, ago=timedelta()):
    await run(database, "UPDATE message SET state = :state, updated_at = :at WHERE id = :id", id=message, state=state, at=now() - ago)


async def problem(answer, status):
    assert answer.status_code == status, answer.text
    return answer.json()["code"], [(error["pointer"], error["code"]) for error in answer.json()["errors"]]


async def test_secret_is_shown_once_and_stored_sealed(database, api, hook):
    made = await hook(title="Биллинг")

    assert made["secret"].startswith("whsec_")
    assert made["types"] == list(TYPES)
    shown = await api.get(f"/webhooks/{made['id']}")
    assert "secret" not in shown.json()
    assert (shown.headers["etag"], shown.json()["state"], shown.json()["title"]) == ('"1"', "healthy", "Биллинг")
    assert (await api.get("/webhooks")).json()["items"] == [shown.json()]
    row = await one(database, "SELECT secret FROM webhook")
    assert made["secret"].encode() not in bytes(row.secret)
    audits = str(await rows(database, "SELECT changes FROM audit_record WHERE action LIKE 'webhook%'"))
    assert made["secret"] not in audits
    assert "/hooks" not in audits


async def test_signature_is_one_that_others_verify():
    secret, old = new_secret(), new_secret()
    headers = signed_headers("msg_1", int(now().timestamp()), b'{"a": 1}', [secret, old])

    for known in (secret, old):
        assert Received("/", headers, b'{"a": 1}').verified_by(known) == {"a": 1}


async def test_both_secrets_sign_while_the_old_one_is_good(database, api, hook, far):
    made = await hook()

    changed = (await api.post(f"/webhooks/{made['id']}/rotate-secret", json={})).json()
    await api.post(f"/webhooks/{made['id']}/test")
    assert changed["secret"] != made["secret"]
    for secret in (made["secret"], changed["secret"]):
        assert far.received[0].verified_by(secret)["type"] == PING

    await run(database, "UPDATE webhook SET old_secret_until = now() - interval '1 second'")
    await api.post(f"/webhooks/{made['id']}/test")
    assert far.received[1].verified_by(changed["secret"])
    with pytest.raises(Exception, match="matching signature"):
        far.received[1].verified_by(made["secret"])

    at_once = (await api.post(f"/webhooks/{made['id']}/rotate-secret", json={"hours": 0})).json()
    assert at_once["old_secret_until"] is None


async def test_housekeeping_forgets_the_old_secret(database, api, hook, settings):
    made = await hook()
    await api.post(f"/webhooks/{made['id']}/rotate-secret", json={"hours": 1})
    await run(database, "UPDATE webhook SET old_secret_until = now() - interval '1 second'")

    await Keeping(database, settings).round()

    assert (await one(database, "SELECT old_secret FROM webhook")).old_secret is None


async def test_secrets_are_sealed_with_the_newest_key_so_that_the_old_one_can_go(database, api, hook, far, settings):
    made = await hook()
    first, second = settings.secret_keys.get_secret_value(), Fernet.generate_key().decode()

    await Keeping(database, settings.model_copy(update={"secret_keys": SecretStr(f"{second},{first}")})).round()

    sealed = (await one(database, "SELECT secret FROM webhook")).secret
    assert SecretBox(SecretStr(second)).open(sealed) == made["secret"]


async def test_secret_that_no_key_opens_is_said_so_and_rotating_it_heals_at_once(database, api, hook, far):
    made = await hook()
    await run(database, "UPDATE webhook SET secret = :other", other=SecretBox(SecretStr(Fernet.generate_key().decode())).seal("whsec_x"))

    unreadable = await api.post(f"/webhooks/{made['id']}/test")
    changed = (await api.post(f"/webhooks/{made['id']}/rotate-secret", json={})).json()
    await api.post(f"/webhooks/{made['id']}/test")

    assert (unreadable.status_code, unreadable.json()["code"]) == (409, "secret_unreadable")
    assert changed["old_secret_until"] is None
    assert far.received[0].verified_by(changed["secret"])["type"] == PING


async def test_test_says_what_the_endpoint_said(api, hook, far):
    made = await hook()
    far.behaviours = [says(418, "чайник\x00".encode())]

    said = (await api.post(f"/webhooks/{made['id']}/test")).json()

    assert said.pop("milliseconds") >= 0
    assert said == {"delivered": False, "status": 418, "error": "status_418", "answer": "чайник"}
    assert (await api.post(f"/webhooks/{made['id']}/test")).json()["delivered"]
    assert (await api.get(f"/webhooks/{made['id']}")).json()["failures"] == 0


async def test_test_of_an_endpoint_that_nobody_serves(api, hook):
    made = await hook(url="http://127.0.0.1:1024/x")

    said = (await api.post(f"/webhooks/{made['id']}/test")).json()

    assert (said["delivered"], said["status"], said["error"], said["answer"]) == (False, None, "not_connected", None)


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "/url", "missing"),
        ({"url": "http://10.0.0.1/x"}, "/url", "address_refused"),
        ({"url": "https://a:b@billing.example/"}, "/url", "credentials_in_url"),
        ({"url": "https://billing.example:22/"}, "/url", "port_refused"),
        ({"url": "https://billing.example/" + "x" * 2000}, "/url", "string_too_long"),
        ({"url": "https://billing.example/", "types": []}, "/types", "too_short"),
        ({"url": "https://billing.example/", "types": ["message.queued"]}, "/types/0", "literal_error"),
        ({"url": "https://billing.example/", "secret": "mine"}, "/secret", "extra_forbidden"),
        ({"url": "https://billing.example/", "with_text": "yes"}, "/with_text", "bool_type"),
    ],
)
async def test_what_is_wrong_with_an_endpoint_is_said(api, body, pointer, code):
    assert (pointer, code) in (await problem(await api.post("/webhooks", json=body), 422))[1]


async def test_plain_http_is_for_local_runs_or_where_it_is_allowed(settings: Settings):
    from app.webhooks.attempt import rules_of

    assert rules_of(settings).plain_http
    assert not rules_of(settings.model_copy(update={"env": "production"})).plain_http
    assert rules_of(settings.model_copy(update={"env": "production", "webhook_allow_http": "on"})).plain_http


async def test_change_needs_the_version_that_was_read(api, hook, far):
    made = await hook()
    path = f"/webhooks/{made['id']}"

    assert (await problem(await api.patch(path, json={"title": "x"}), 428))[0] == "match_required"
    assert (await problem(await api.patch(path, json={"title": "x"}, headers={"If-Match": '"7"'}), 412))[0] == "stale_version"
    changed = await api.patch(path, json={"title": "x", "types": ["message.failed"], "url": far.url + "/new"}, headers={"If-Match": '"1"'})
    assert (changed.headers["etag"], changed.json()["types"], changed.json()["url"]) == ('"2"', ["message.failed"], far.url + "/new")
    same = await api.patch(path, json={"title": "x"}, headers={"If-Match": '"2"'})
    assert same.json()["revision"] == 2
    refused = await api.patch(path, json={"url": "http://192.168.0.1/"}, headers={"If-Match": '"2"'})
    assert (await problem(refused, 422))[1] == [("/url", "address_refused")]


async def test_same_url_twice_is_refused(api, hook, far):
    await hook()
    other = await hook(url=far.url + "/2")

    assert (await problem(await api.post("/webhooks", json={"url": far.url}), 409))[0] == "webhook_exists"
    assert (await problem(await api.patch(f"/webhooks/{other['id']}", json={"url": far.url}, headers={"If-Match": "*"}), 409))[0] == "webhook_exists"


async def test_disabled_endpoint_is_enabled_again(api, hook):
    made = await hook()
    path = f"/webhooks/{made['id']}"

    off = (await api.patch(path, json={"enabled": False}, headers={"If-Match": "*"})).json()
    assert (off["state"], off["disabled_because"]) == ("disabled", "operator")
    period = {"from": (now() - HOUR).isoformat(), "to": now().isoformat()}
    assert (await problem(await api.post(f"{path}/replay", json=period), 409))[0] == "webhook_disabled"
    on = (await api.post(f"{path}/enable")).json()
    assert (on["state"], on["disabled_because"], on["revision"]) == ("healthy", None, 3)
    assert (await api.post(f"{path}/enable")).json()["revision"] == 3


async def test_deleted_endpoint_is_gone(api, hook):
    made = await hook()

    assert (await api.delete(f"/webhooks/{made['id']}")).status_code == 204
    for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/deliveries"), ("POST", "/test"), ("POST", "/enable")):
        assert (await problem(await api.request(method, f"/webhooks/{made['id']}{rest}"), 404))[0] == "webhook_not_found"


@pytest.mark.parametrize("role", ["operator", "viewer", "billing"])
async def test_only_administrators_have_webhooks(as_role, role):
    client = await as_role(role)

    assert (await client.get("/webhooks")).status_code == 403
    assert (await client.post("/webhooks", json={"url": "https://billing.example/"})).status_code == 403


async def test_deliveries_are_listed_by_pages_and_filters(database, api, hook, far, station):
    made = await hook()
    far.behaviours = [says(500, b"secret words of theirs")]
    messages = [await a_message(database, ended="accepted") for _ in range(3)]
    for message in messages:
        await move(database, message, "delivered")
    await move(database, await a_message(database, ended="accepted"), "failed")
    await until(lambda: len(far.received) >= 4)
    await until(lambda: not_sending(database))

    path = f"/webhooks/{made['id']}/deliveries"
    found, cursor = [], None
    while True:
        page = (await api.get(path, params={"limit": 3} | ({"cursor": cursor} if cursor else {}))).json()
        found += page["items"]
        if (cursor := page["next_cursor"]) is None:
            break
    assert len(found) == len({item["webhook_id"] for item in found}) == 4
    assert [item["type"] for item in (await api.get(path, params={"type": "message.failed"})).json()["items"]] == ["message.failed"]
    assert len((await api.get(path, params={"state": "delivered"})).json()["items"]) == 3
    (refused,) = (await api.get(path, params={"state": "waiting"})).json()["items"]
    assert (refused["attempts"], refused["history"][0]["status"], refused["history"][0]["error"]) == (1, 500, "status_500")
    assert refused["next_attempt_at"]
    assert "secret words" not in str(await rows(database, "SELECT * FROM webhook_delivery"))
    assert (await problem(await api.get(path, params={"cursor": "bm9uc2Vuc2U"}), 422))[1] == [("/query/cursor", "bad_cursor")]
    assert len((await api.get(path, params={"subject_id": str(messages[0])})).json()["items"]) == 1
    assert (await api.get(path, params={"to": (now() - HOUR).isoformat()})).json()["items"] == []


async def not_sending(database):
    return not await rows(database, "SELECT type FROM webhook_delivery WHERE attempts = 0 OR state = 'sending'")


async def test_replay_tells_a_period_again_under_the_same_ids(database, api, hook, far, station):
    made = await hook()
    message = await a_message(database, ended="accepted")
    await move(database, message, "undelivered")
    await move(database, message, "delivered")
    await until(lambda: len(far.received) == 2)
    await until(lambda: not_sending(database))

    period = {"from": (now() - HOUR).isoformat(), "to": (now() + HOUR).isoformat()}
    begun = await api.post(f"/webhooks/{made['id']}/replay", json=period)
    assert begun.status_code == 202
    await until(lambda: len(far.received) == 4)

    first, again = far.received[:2], far.received[2:]
    assert {one.id for one in first} == {one.id for one in again}
    assert {one.json["replay"] for one in again} == {begun.json()["id"]}
    assert all(one.verified_by(made["secret"]) for one in again)
    await until(lambda: is_over(api, made, begun.json()))
    shown = (await api.get(f"/webhooks/{made['id']}/replays/{begun.json()['id']}")).json()
    assert (shown["queued"], shown["looked_at"]) == (2, 1)
    assert len(far.received) == 4


async def is_over(api, made, begun):
    return (await api.get(f"/webhooks/{made['id']}/replays/{begun['id']}")).json()["state"] == "done"


async def test_replay_finds_what_was_never_queued(database, api, hook, settings):
    before = [await a_message(database, ended="accepted") for _ in range(3)]
    await move(database, before[0], "delivered", HOUR / 2)
    await move(database, before[1], "failed", HOUR / 2)
    await move(database, before[2], "delivered", HOUR * 3)
    await come(database, an_sms("СТОП"))
    made = await hook(types=["message.delivered", "inbound.received"])

    period = {"from": (now() - HOUR).isoformat(), "to": (now() + HOUR).isoformat()}
    begun = (await api.post(f"/webhooks/{made['id']}/replay", json=period)).json()
    assert (await problem(await api.post(f"/webhooks/{made['id']}/replay", json=period), 409))[0] == "replay_running"
    await Keeping(database, settings).round()

    inbound = (await one(database, "SELECT id FROM inbound_message")).id
    found = {tuple(row) for row in await rows(database, "SELECT subject_id, type FROM webhook_delivery")}
    assert found == {(before[0], "message.delivered"), (inbound, "inbound.received")}
    assert await is_over(api, made, begun)
    assert (await problem(await api.get(f"/webhooks/{made['id']}/replays/{made['id']}"), 404))[0] == "replay_not_found"


async def test_replay_of_chosen_types_goes_batch_by_batch(database, api, hook, settings, monkeypatch):
    from app.webhooks import replays

    made = await hook()
    messages = sorted([await a_message(database, ended="accepted") for _ in range(7)])
    for message in messages:
        await move(database, message, "delivered")
    await run(database, "DELETE FROM webhook_delivery")
    monkeypatch.setattr(replays, "UPTO", {name: replays.last_of_batch(name, 2) for name in replays.UPTO})

    period = {"from": (now() - HOUR).isoformat(), "to": (now() + HOUR).isoformat(), "types": ["message.delivered"]}
    begun = (await api.post(f"/webhooks/{made['id']}/replay", json=period)).json()
    async with database.transaction() as session:
        assert await replays.go_on(session, now()) == 2
    assert not await is_over(api, made, begun)
    await Keeping(database, settings).round()

    assert sorted(row.subject_id for row in await rows(database, "SELECT subject_id FROM webhook_delivery")) == messages
    assert await is_over(api, made, begun)


@pytest.mark.parametrize(("start", "end"), [(0, 0), (0, -1), (-1, 9_000), (-90_000, 0)])
async def test_period_that_is_none_is_refused(api, hook, start, end):
    made = await hook()
    period = {"from": (now() + HOUR * start).isoformat(), "to": (now() + HOUR * end).isoformat()}

    await problem(await api.post(f"/webhooks/{made['id']}/replay", json=period if start or end else period | {"to": period["from"]}), 422)


def test_contract_has_every_webhook_with_the_body_that_is_sent(settings: Settings):
    told = json.loads(contract_text(settings))

    assert told["webhooks"].keys() == {*TYPES, PING}
    for name, item in told["webhooks"].items():
        headers = {parameter["name"] for parameter in item["post"]["parameters"]}
        assert headers == {"webhook-id", "webhook-timestamp", "webhook-signature"}, name
        assert {"2XX", "410"} <= item["post"]["responses"].keys()
        assert "422" not in item["post"]["responses"]


def test_what_is_sent_is_what_the_contract_says():
    from uuid import uuid4

    from app.webhooks.bodies import InboundTold, MessageTold

    gone = Claimed(uuid4(), "message.expired", None, now(), 0, now(), None, None)
    sms = Claimed(uuid4(), "inbound.received", "stop", now(), 0, now(), uuid4(), None)

    assert MessageTold.model_validate_json(body_of(gone)).data.message_id == gone.subject_id
    assert InboundTold.model_validate_json(body_of(sms)).replay == sms.replay_id
    assert "." not in webhook_id(gone)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_ends_of_time_are_no_fault_of_ours(api, hook, moment):
    made = await hook()

    assert (await api.get(f"/webhooks/{made['id']}/deliveries", params={"from": moment})).status_code in (200, 422)
    assert (await api.post(f"/webhooks/{made['id']}/replay", json={"from": moment, "to": moment})).status_code == 422
