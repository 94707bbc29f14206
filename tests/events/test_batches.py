"""Batches: each event stands for itself, and a repetition changes nothing."""

import asyncio

import orjson
import pytest

from tests.builders.accounts import an_account
from tests.builders.events import a_payment
from tests.builders.messages import one, rows

BATCH = {"content-type": "application/cloudevents-batch+json"}


@pytest.fixture
async def account(database):
    return await an_account(database)


async def post(api, events):
    return await api.post("/events", content=orjson.dumps(events), headers=BATCH)


async def count(database, table="event"):
    return (await one(database, f"SELECT count(*) AS number FROM {table}")).number


async def test_empty_batch_is_taken_with_zeros(api):
    answer = await post(api, [])

    assert (answer.status_code, answer.json()) == (202, {"accepted": 0, "duplicates": 0, "rejected": []})


async def test_ten_thousand_events_are_taken_and_one_more_is_too_large(api, database, account):
    events = [a_payment(id=f"e{number}") for number in range(10_000)]

    assert (await post(api, events)).json() == {"accepted": 10_000, "duplicates": 0, "rejected": []}

    refused = await post(api, [*events, a_payment()])
    assert (refused.status_code, refused.json()["code"]) == (413, "batch_too_large")
    assert await count(database) == await count(database, "event_waiting") == 10_000


async def test_faulty_events_are_rejected_by_index_and_the_others_are_taken(api, database, account):
    events = [a_payment(id="a"), a_payment(id="b", amount="-1"), 7, a_payment("404", id="d"), a_payment(id="e", time="noon", source=""), a_payment(id="f")]

    answer = (await post(api, events)).json()

    assert (answer["accepted"], answer["duplicates"]) == (2, 0)
    rejected = [(item["index"], item["id"], item["errors"][0]["pointer"]) for item in answer["rejected"]]
    assert rejected == [(1, "b", "/data/amount"), (2, None, ""), (3, "d", "/subject"), (4, "e", "/source")]
    assert [row.external_id for row in await rows(database, "SELECT external_id FROM event ORDER BY external_id")] == ["a", "f"]


async def test_batch_of_which_nothing_is_good_is_refused_with_pointers_into_it(api, account):
    answer = await post(api, [a_payment("404"), a_payment(id="")])

    assert (answer.status_code, answer.json()["code"]) == (422, "all_rejected")
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/0/subject", "/1/id"]


async def test_same_event_twice_in_a_batch_counts_once(api, database, account):
    answer = await post(api, [a_payment(id="x"), a_payment(id="y"), a_payment(id="x")])

    assert answer.json() == {"accepted": 2, "duplicates": 1, "rejected": []}
    assert await count(database) == 2


async def test_same_id_from_another_source_is_another_event(api, account):
    answer = await post(api, [a_payment(id="x", source="/a"), a_payment(id="x", source="/b")])

    assert answer.json()["accepted"] == 2


async def test_repeated_batch_is_all_duplicates_and_leaves_the_first_as_it_was(api, database, account):
    await post(api, [a_payment(id="x", amount="1.00")])

    answer = await post(api, [a_payment(id="x", amount="2.00")])

    assert (answer.status_code, answer.json()) == (202, {"accepted": 0, "duplicates": 1, "rejected": []})
    assert (await one(database, "SELECT data FROM event")).data == {"amount": "1.00"}


async def test_duplicate_answers_200_with_the_id_of_the_first(api, account):
    event = a_payment()

    first, second = [await api.post("/events", json=event) for _ in range(2)]

    assert (first.status_code, second.status_code) == (202, 200)
    assert second.json() == {"event_id": first.json()["event_id"], "duplicate": True}


async def test_forty_at_once_of_the_same_event_store_it_once(api, database, account):
    event = a_payment()

    answers = await asyncio.gather(*(api.post("/events", json=event) for _ in range(40)))

    assert sorted(answer.status_code for answer in answers) == [200] * 39 + [202]
    assert len({answer.json()["event_id"] for answer in answers}) == 1
    assert await count(database) == await count(database, "event_waiting") == 1


async def test_two_batches_at_once_with_the_same_events_in_opposite_orders_do_not_block_each_other(api, database):
    for number in range(20):
        await an_account(database, f"acc{number}", phones=())
    events = [a_payment(f"acc{number % 20}", id=f"e{number}", balance="1.00", time=f"2026-01-01T10:00:{number % 60:02}Z") for number in range(300)]

    answers = await asyncio.gather(*(post(api, events if turn % 2 else events[::-1]) for turn in range(6)))

    assert [answer.status_code for answer in answers] == [202] * 6
    assert sum(answer.json()["accepted"] for answer in answers) == 300
    assert await count(database) == 300


async def test_rejected_event_of_a_repeated_batch_may_be_mended(api, account):
    await post(api, [a_payment(id="good"), a_payment(id="bad", amount="x")])

    answer = await post(api, [a_payment(id="good"), a_payment(id="bad", amount="1.00")])

    assert answer.json() == {"accepted": 1, "duplicates": 1, "rejected": []}
