"""From where a key may ask, and how much: by the second and by the day."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from app.core import metrics
from app.core.auth import Allowance, anybody_names_a_peer
from app.core.errors import TooMany
from app.core.key_limits import KeyLimits, OldUsage
from app.core.limits import Limits
from tests.builders.accounts import an_account
from tests.builders.events import a_payment
from tests.builders.messages import one, rows, run

NOWHERE = "unix:///nowhere/redis.sock"
NOON = datetime(2026, 6, 10, 9, 0, tzinfo=UTC)


@pytest.fixture
def from_address(api, as_role):
    """`await from_address("10.1.2.3", key)`: a client there."""

    async def made(peer, key):
        transport = httpx.ASGITransport(app=api.app, client=(peer, 4000), raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://vestnik/api/v1", headers={"Authorization": f"Bearer {key}"})

    return made


async def a_key(api, **limits):
    made = await api.post("/keys", json={"name": "n", "role": "billing"} | limits)
    assert made.status_code == 201, made.text
    return made.json()


@pytest.mark.parametrize(
    ("networks", "peer", "status"),
    [
        (["10.1.0.0/16"], "10.1.255.255", 200),
        (["10.1.0.0/16"], "10.2.0.0", 403),
        (["10.1.0.0/16"], "::ffff:10.1.0.7", 200),
        (["192.0.2.7"], "192.0.2.7", 200),
        (["192.0.2.7"], "192.0.2.8", 403),
        (["10.0.0.0/8", "2001:db8::/32"], "2001:db8:ffff::1", 200),
        (["2001:db8::/32"], "2001:db9::1", 403),
        (["fe80::/10"], "fe80::1%eth0", 200),
        (["10.1.0.0/16"], "no address", 403),
        ([], "203.0.113.9", 200),
    ],
)
async def test_key_is_taken_from_its_networks_alone(api, from_address, networks, peer, status):
    key = await a_key(api, allowed_networks=networks)

    answer = await (await from_address(peer, key["key"])).get("/accounts")

    assert (answer.status_code, answer.json().get("code")) == (status, None if status == 200 else "network_not_allowed")


async def test_key_with_networks_is_refused_where_anybody_may_name_his_own_address(api, from_address, monkeypatch):
    key = await a_key(api, allowed_networks=["10.1.0.0/16"])
    open_key = await a_key(api)
    monkeypatch.setattr(api.app.state.gatekeeper, "peers_are_sure", False)

    answer = await (await from_address("10.1.0.7", key["key"])).get("/accounts")

    assert (answer.status_code, answer.json()["code"]) == (403, "client_address_unsure")
    assert (await (await from_address("10.1.0.7", open_key["key"])).get("/accounts")).status_code == 200


def test_proxies_are_trusted_by_name_or_there_is_no_knowing():
    assert not anybody_names_a_peer("")
    assert not anybody_names_a_peer("127.0.0.1, 10.0.0.0/8")
    for everybody in ("*", "0.0.0.0/0", "::/0"):
        assert anybody_names_a_peer(f"127.0.0.1, {everybody}")


async def test_forwarded_header_that_nobody_vouches_for_opens_nothing(api, from_address):
    """The application itself never reads it: uvicorn does, from those whom FORWARDED_ALLOW_IPS names."""
    key = await a_key(api, allowed_networks=["10.1.0.0/16"])

    answer = await (await from_address("203.0.113.9", key["key"])).get("/accounts", headers={"X-Forwarded-For": "10.1.0.7", "Forwarded": "for=10.1.0.7"})

    assert answer.status_code == 403


@pytest.mark.parametrize(
    "wrong",
    [
        {"allowed_networks": ["10.1.0.1/16"]},
        {"allowed_networks": ["10.1"]},
        {"allowed_networks": [""]},
        {"allowed_networks": ["10.0.0.0/8"] * 51},
        {"rate_per_second": 0},
        {"rate_per_second": 1e9},
        {"burst": 5},
        {"rate_per_second": 5, "burst": 0},
        {"daily_quota": 0},
        {"daily_quota": "many"},
        {"daily_quota": True},
        {"test": "yes"},
        {"role": "admin", "test": True},
    ],
)
async def test_limits_that_make_no_sense_are_refused(api, wrong):
    answer = await api.post("/keys", json={"name": "n", "role": "billing"} | wrong)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


async def test_rate_lets_a_burst_through_and_then_says_when(api, as_role):
    key = await a_key(api, rate_per_second=0.1, burst=3)
    client = await as_role(None, token=key["key"])

    answers = [await client.get("/accounts") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert {answer.headers["ratelimit-limit"] for answer in answers} == {"3"}
    assert answers[3].json()["code"] == "rate_exceeded"
    assert 0 < int(answers[3].headers["retry-after"]) <= 10
    assert (await api.get("/accounts")).status_code == 200
    assert "ratelimit-limit" not in (await api.get("/accounts")).headers


async def test_rate_holds_in_each_process_while_redis_is_away(database, settings):
    limits = KeyLimits(database, Limits(NOWHERE, settings.database_url), settings.timezone)
    allowance = Allowance("k", 0.1, 2, None)

    await limits.admit(allowance, {})
    await limits.admit(allowance, {})

    with pytest.raises(TooMany):
        await limits.admit(allowance, {})


async def test_quota_counts_events_and_other_requests_one_by_one(api, as_role, database):
    key = await a_key(api, daily_quota=5)
    client = await as_role(None, token=key["key"])
    await an_account(database)

    answers = [
        await client.get("/accounts"),
        await client.post("/events", json=[a_payment() for _ in range(3)]),
        await client.post("/events", json=a_payment()),
        await client.post("/events", json=a_payment()),
    ]

    assert [answer.status_code for answer in answers] == [200, 202, 202, 429]
    assert answers[3].json()["code"] == "quota_exceeded"
    assert 0 < int(answers[3].headers["retry-after"]) <= 86_400
    assert (answers[3].headers["ratelimit-limit"], answers[3].headers["ratelimit-remaining"]) == ("5", "0")
    assert (await one(database, "SELECT count(*) AS n FROM event")).n == 4


async def test_batch_that_is_too_large_for_the_day_is_refused_whole(api, as_role, database):
    key = await a_key(api, daily_quota=5)
    client = await as_role(None, token=key["key"])
    await an_account(database)

    refused = await client.post("/events", json=[a_payment() for _ in range(6)])
    taken = await client.post("/events", json=[a_payment() for _ in range(4)])

    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert taken.status_code == 202
    assert (await one(database, "SELECT count(*) AS n FROM event")).n == 4


async def admitted(limits, allowance, number):
    done = await asyncio.gather(*(limits.admit(allowance, {}) for _ in range(number)), return_exceptions=True)
    assert {type(one) for one in done} <= {type(None), TooMany}
    return sum(one is None for one in done)


@pytest.mark.parametrize("quota", [1, 7, 900, 2_500])
async def test_processes_together_never_let_more_through_than_the_quota_and_hardly_less(database, settings, quota):
    limits = [KeyLimits(database, Limits(NOWHERE, "x"), settings.timezone, lambda: NOON) for _ in range(3)]
    allowance = Allowance("k", None, None, quota)

    through = sum(await asyncio.gather(*(admitted(one, allowance, quota) for one in limits)))

    assert quota - 3 * (quota // 1000) <= through <= quota
    assert (await one(database, "SELECT used FROM key_usage")).used <= quota


async def test_process_that_ends_gives_back_what_it_had_set_aside(database, settings):
    allowance = Allowance("k", None, None, 100_000)
    first = KeyLimits(database, Limits(NOWHERE, "x"), settings.timezone, lambda: NOON)
    await first.admit(allowance, {})
    assert (await one(database, "SELECT used FROM key_usage")).used == 100

    await first.close()

    assert (await one(database, "SELECT used FROM key_usage")).used == 1


async def test_next_day_begins_at_midnight_of_the_operator(database, settings):
    moment = datetime(2026, 6, 10, 20, 59, 30, tzinfo=UTC)  # 23:59:30 in Moscow
    limits = KeyLimits(database, Limits(NOWHERE, "x"), "Europe/Moscow", lambda: moment)
    allowance = Allowance("k", None, None, 1)
    await limits.admit(allowance, {})
    with pytest.raises(TooMany) as refused:
        await limits.admit(allowance, {})
    assert refused.value.headers == {"Retry-After": "30"}

    moment += timedelta(seconds=30)

    await limits.admit(allowance, {})


async def test_changed_limits_hold_at_once(api, as_role):
    key = await a_key(api, daily_quota=1)
    client = await as_role(None, token=key["key"])
    assert [(await client.get("/accounts")).status_code for _ in range(2)] == [200, 429]

    changed = await api.put(f"/keys/{key['id']}/limits", json={})

    assert (changed.status_code, changed.json()["daily_quota"]) == (200, None)
    assert (await client.get("/accounts")).status_code == 200
    assert (await api.put("/keys/nobody00/limits", json={})).status_code == 404
    (record,) = (await api.get("/audit", params={"action": "key.limits"})).json()["items"]
    assert record["changes"] == {"daily_quota": [1, None]}


async def test_requests_that_a_key_may_not_ask_are_counted_for_its_rate_and_for_its_day(database, settings):
    limits = KeyLimits(database, Limits(NOWHERE, "x"), settings.timezone, lambda: NOON)
    before = metrics.KEY_QUOTA_REFUSED._value.get()

    assert await admitted(limits, Allowance("r", 0.1, 2, None), 5) == 2
    assert metrics.KEY_QUOTA_REFUSED._value.get() == before + 3

    assert await admitted(limits, Allowance("q", None, None, 4), 5) == 4
    assert metrics.KEY_QUOTA_REFUSED._value.get() == before + 4


async def test_days_that_are_over_are_forgotten_and_the_last_ones_kept(database, settings):
    day = datetime.now(UTC).date()
    for ago in (0, 1, 6, 8, 400):
        await run(database, "INSERT INTO key_usage (key_id, day, used) VALUES ('k', :day, 5)", day=day - timedelta(days=ago))
    usage = OldUsage(database)

    await usage.forget()

    assert [(day - row.day).days for row in await rows(database, "SELECT day FROM key_usage ORDER BY day DESC")] == [0, 1, 6]
