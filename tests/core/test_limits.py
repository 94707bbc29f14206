"""Token buckets: over Redis all processes count together, without it each for itself; and who is refused learns when to come again."""

import asyncio

import pytest
from fastapi import Request
from redis.asyncio import Redis

from app.core.errors import TooMany
from app.core.limits import CODES, WRITES, Limits, Rate, peer_of
from tests.builders.accounts import an_account

TWO = Rate("two", 2, 6)
QUICK = Rate("quick", 1, 60_000 / 50)  # one in 50 ms
NOWHERE = "unix:///nowhere/redis.sock"


@pytest.fixture
async def limits(settings):
    made = Limits(settings.redis_url, settings.database_url)
    yield made
    await made.close()


@pytest.fixture
async def alone(settings):
    """Limits of a process that has no Redis."""
    return Limits(NOWHERE, settings.database_url)


@pytest.fixture(params=["with Redis", "without"])
async def either(request, limits, alone):
    return limits if request.param == "with Redis" else alone


async def test_bucket_gives_what_it_has_and_says_when_it_has_more(either):
    given = [await either.spend([(TWO, "100500")]) for _ in range(2)]
    wait = await either.spend([(TWO, "100500")])

    assert given == [0, 0]
    assert 8 < wait <= 10  # six a minute
    assert await either.spend([(TWO, "100501")]) == 0


async def test_bucket_fills_again_with_time(either):
    assert await either.spend([(QUICK, "1")]) == 0
    wait = await either.spend([(QUICK, "1")])
    assert 0 < wait <= 0.05

    await asyncio.sleep(wait + 0.01)

    assert await either.spend([(QUICK, "1")]) == 0


async def test_whoever_is_refused_by_one_bucket_has_used_up_nothing_of_the_other(either):
    narrow, wide = Rate("narrow", 1, 1), Rate("wide", 3, 1)
    assert await either.spend([(narrow, "x"), (wide, "x")]) == 0

    refused = [await either.spend([(narrow, "x"), (wide, "x")]) for _ in range(5)]

    assert all(wait > 0 for wait in refused)
    assert [await either.spend([(wide, "x")]) == 0 for _ in range(3)] == [True, True, False]


async def test_two_processes_count_together(settings, limits):
    other = Limits(settings.redis_url, settings.database_url)

    answers = await asyncio.gather(*(one.spend([(Rate("shared", 10, 1), "100500")]) for one in (limits, other) for _ in range(10)))

    assert sum(answer == 0 for answer in answers) == 10
    await other.close()


async def test_two_installations_on_one_redis_do_not_count_together(settings, limits):
    other = Limits(settings.redis_url, "another database")

    await limits.spend([(Rate("one", 1, 1), "100500")])

    assert await other.spend([(Rate("one", 1, 1), "100500")]) == 0
    await other.close()


async def test_redis_keeps_no_number_and_nothing_for_ever(settings, limits):
    await limits.spend([(TWO, "+79161234567")])
    redis = Redis.from_url(settings.redis_url)

    keys = [key async for key in redis.scan_iter("vestnik:limit:*")]

    assert keys
    assert not any(b"9161234567" in key for key in keys)
    assert all([await redis.pttl(key) > 0 for key in keys])
    await redis.aclose()


async def test_redis_that_comes_back_is_asked_again(settings):
    limits = Limits(NOWHERE, settings.database_url)
    assert await limits.spend([(TWO, "1")]) == 0  # counted here

    limits._url, limits._silent_until = settings.redis_url, 0.0
    answers = [await limits.spend([(TWO, "1")]) for _ in range(3)]

    assert [answer == 0 for answer in answers] == [True, True, False]
    await limits.close()


async def test_buckets_of_one_process_are_bounded(alone, monkeypatch):
    monkeypatch.setattr("app.core.limits.REMEMBERED", 10)

    for n in range(50):
        await alone.spend([(TWO, str(n))])

    assert len(alone._own) == 10


async def test_refusal_says_when_to_come_again(alone):
    await alone.spend([(Rate("one", 1, 6), "x")])

    with pytest.raises(TooMany) as refused:
        await alone.admit([(Rate("one", 1, 6), "x")])

    assert refused.value.headers["Retry-After"] in {"9", "10"}


@pytest.mark.parametrize(
    ("client", "peer"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8::1", "2306139568115548160"),
        ("2001:db8::ffff:1", "2306139568115548160"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("testclient", "testclient"),
    ],
)
def test_of_ipv6_the_network_of_one_customer_counts(client, peer):
    assert peer_of(Request({"type": "http", "client": (client, 1), "headers": []})) == peer


async def test_subscriber_writes_so_often_and_another_one_is_not_kept_out_by_it(database, as_subscriber, monkeypatch):
    monkeypatch.setattr("app.core.limits.WRITES", Rate("writes", 3, 1))
    await an_account(database, "100500")
    await an_account(database, "100501")
    me, other = await as_subscriber("100500"), await as_subscriber("100501")

    answers = [await me.patch("/me", json={}) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    refused = answers[-1]
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "too_many_requests"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert (await me.get("/me")).status_code == 200  # reads are not counted
    assert (await other.patch("/me", json={})).status_code == 200


async def test_many_accounts_from_one_address_are_held_back_together(database, as_subscriber, monkeypatch):
    monkeypatch.setattr("app.core.limits.WRITES_FROM", Rate("writes-from", 2, 1))
    for n in range(3):
        await an_account(database, f"20{n}", phones=())

    answers = [await (await as_subscriber(f"20{n}")).patch("/me", json={}) for n in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]


async def test_operators_are_not_counted(api, database, monkeypatch):
    monkeypatch.setattr("app.core.limits.WRITES", Rate("writes", 1, 1))
    monkeypatch.setattr("app.core.limits.WRITES_FROM", Rate("writes-from", 1, 1))

    answers = [await api.put(f"/accounts/{n}", json={}) for n in range(3)]

    assert {answer.status_code for answer in answers} == {201}


async def test_guessing_codes_is_slower_than_other_writes(database, as_subscriber):
    await an_account(database, "100500")
    me = await as_subscriber("100500")

    answers = [await me.post("/me/contacts/00000000-0000-7000-8000-000000000000/verify", json={"code": "000000"}) for _ in range(CODES.burst + 1)]

    assert CODES.burst < WRITES.burst
    assert [answer.status_code for answer in answers] == [404] * CODES.burst + [429]


async def test_cabinet_goes_on_without_redis(settings, database):
    from httpx import ASGITransport, AsyncClient

    from app.core.auth import cabinet_token
    from app.main import create_app

    await an_account(database, "100500")
    app = create_app(settings.model_copy(update={"redis_url": NOWHERE}))
    headers = {"Authorization": f"Bearer {cabinet_token(settings, '100500')}"}
    async with app.router.lifespan_context(app), AsyncClient(transport=ASGITransport(app), base_url="http://vestnik/api/v1", headers=headers) as me:
        answer = await me.post("/me/contacts", json={"channel": "sms", "address": "+79260000001"})

    assert answer.status_code == 201
