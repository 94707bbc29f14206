"""Endpoints as they are out there: slow, gone, hostile, away for a while. Each shows by its deliveries what became of what it was to be told."""

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa

from app.core import metrics
from app.core.clock import now
from app.core.secrets import SecretBox
from app.webhooks import attempt as attempting
from app.webhooks.keep import Keeping
from app.webhooks.lane import Lane
from app.webhooks.models import Webhook
from app.webhooks.pace import TRIPS_AT
from app.webhooks.station import WebhookStation
from tests.builders.far_endpoint import FarEndpoint, hangs, says, writes
from tests.builders.messages import a_message, one, rows, run
from tests.builders.stations import until


async def delivered(database, number=1):
    """So many messages that have just been delivered."""
    messages = [await a_message(database, ended="accepted") for _ in range(number)]
    await run(database, "UPDATE message SET state = 'delivered', updated_at = now() WHERE id = ANY(:ids)", ids=messages)
    return messages


async def states(database):
    return [row.state for row in await rows(database, "SELECT state FROM webhook_delivery ORDER BY subject_id")]


async def last_attempt(database):
    row = await one(database, "SELECT state, attempts, history, due_at FROM webhook_delivery WHERE history <> '[]' ORDER BY subject_id LIMIT 1")
    return row.state, row.history[-1]["status"], row.history[-1]["error"]


async def tried(database, number=1):
    """Until every delivery has met with an answer or silence so many times."""
    await until(lambda: is_tried(database, number))


async def is_tried(database, number):
    return not await rows(database, "SELECT type FROM webhook_delivery WHERE attempts < :n OR state = 'sending'", n=number)


async def make_due(database):
    await run(database, "UPDATE webhook SET rests_until = NULL")
    await run(database, "UPDATE webhook_delivery SET due_at = now() WHERE state = 'waiting'")


async def test_failure_is_tried_again_under_the_same_id_with_a_new_signature(database, hook, far, station):
    made = await hook()
    far.behaviours = [says(500)]
    await delivered(database)
    await tried(database)
    assert await last_attempt(database) == ("waiting", 500, "status_500")

    await make_due(database)
    await until(lambda: len(far.received) == 2)

    first, second = far.received
    assert first.id == second.id
    assert first.body == second.body
    assert second.verified_by(made["secret"])
    await until(lambda: is_tried(database, 2))
    assert await states(database) == ["delivered"]


async def test_pause_before_the_next_attempt_grows_and_keeps_to_retry_after(database, hook, far, station):
    await hook()
    far.behaviours = [says(503, retry_after="600")]

    began = now()
    await delivered(database)
    await tried(database)

    row = await one(database, "SELECT due_at, (SELECT rests_until FROM webhook) AS rests_until FROM webhook_delivery")
    assert row.due_at - began >= timedelta(seconds=600)
    assert row.rests_until - began >= timedelta(seconds=600)


async def test_endpoint_that_is_gone_is_disabled_at_once(database, api, hook, far, station):
    made = await hook()
    far.usual = says(410)

    await delivered(database)
    await tried(database)

    shown = (await api.get(f"/webhooks/{made['id']}")).json()
    assert (shown["state"], shown["enabled"], shown["disabled_because"]) == ("disabled", False, "gone")
    assert await states(database) == ["failed"]
    record = await one(database, "SELECT actor, object FROM audit_record WHERE action = 'webhook.disable'")
    assert (record.actor, record.object) == ("worker", f"webhook:{made['id']}")
    await delivered(database)
    assert await states(database) == ["failed"]


@pytest.mark.parametrize(
    ("behaviour", "status", "error"),
    [
        (says(302, location="http://127.0.0.1:1/elsewhere"), 302, "redirect"),
        (says(404, b"x" * 3000), 404, "status_404"),
        (hangs, None, "timeout"),
        (writes(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100, for_ever=True), None, "no_http"),
        (writes(b"HTTP/1.1 100 Continue\r\n\r\n" * 40, for_ever=True, pause=0.01), None, "timeout"),
        (writes(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), None, "no_http"),
        (writes(b"HTTP/1.1 200 OK\r\n", for_ever=True, pause=0.2), None, "timeout"),
        (writes(b"HTTP/1.1 999999 \xff\r\n\r\n"), None, "no_http"),
    ],
    ids=["redirect", "refusal", "silence", "endless headers", "endless 100", "no HTTP", "trickle", "garbage"],
)
async def test_hostile_answers_are_bounded_and_are_failures(database, hook, far, monkeypatch, settings, behaviour, status, error):
    monkeypatch.setattr(attempting, "TIMEOUT", 1.0)
    await hook()
    far.usual = behaviour
    await delivered(database)

    await one_look(database, settings)

    state, said, name = await last_attempt(database)
    assert (state, said) == ("waiting", status)
    assert name in (error, "timeout")
    assert len(far.received) == 1


async def one_look(database, settings):
    """What a station does in one look, to its end."""
    station = WebhookStation(database, settings, SecretBox(settings.secret_keys))
    await station.look()
    await asyncio.gather(*station._tasks.values())
    for lane in station._lanes.values():
        await lane.close()


async def test_endless_body_is_not_read_and_success_counts(database, hook, far, station):
    await hook()
    far.usual = writes(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n" + b"x" * 10_000, for_ever=True)

    await delivered(database)
    await tried(database)

    assert await last_attempt(database) == ("delivered", 200, None)


async def test_dead_endpoint_does_not_slow_another_one(database, hook, far, station):
    dead = await FarEndpoint().start()
    dead.usual = hangs
    await hook(url=dead.url)
    await hook()

    await delivered(database, 60)
    await until(lambda: len(far.received) == 60)

    assert len(dead.received) <= attempting.CONNECTIONS
    assert {
        row.state for row in await rows(database, "SELECT state FROM webhook_delivery d JOIN webhook w ON w.id = endpoint_id WHERE url = :u", u=dead.url)
    } <= {
        "waiting",
        "sending",
    }
    await dead.stop()


async def test_failing_endpoint_rests_then_is_asked_once_and_comes_back(database, api, hook, far, station):
    made = await hook()
    far.usual = says(500)
    await delivered(database, TRIPS_AT + 20)
    await until(lambda: is_failing(api, made))
    heard = len(far.received)

    assert heard <= attempting.CONNECTIONS
    shown = (await api.get(f"/webhooks/{made['id']}")).json()
    assert shown["failures"] >= TRIPS_AT
    assert shown["rests_until"]
    assert shown["last_error"] == "status_500"

    far.usual = says(204)
    assert (await api.post(f"/webhooks/{made['id']}/enable")).json()["state"] == "healthy"
    await make_due(database)
    station.poke()
    await until(lambda: is_done(database))
    assert (await api.get(f"/webhooks/{made['id']}")).json()["state"] == "healthy"


async def is_failing(api, made):
    return (await api.get(f"/webhooks/{made['id']}")).json()["state"] == "failing"


async def is_done(database):
    return set(await states(database)) == {"delivered"}


async def test_endpoint_that_rests_is_sent_nothing_and_then_one(database, hook, far, settings):
    await hook()
    far.usual = says(500)
    await delivered(database, 30)
    await run(database, "UPDATE webhook SET failures = 7, failing_since = now(), rests_until = now() + interval '1 minute'")

    await one_look(database, settings)
    assert far.received == []

    await run(database, "UPDATE webhook SET rests_until = now()")
    await one_look(database, settings)
    assert len(far.received) == 1


async def test_after_five_days_of_failures_it_is_disabled(database, api, hook, far, settings):
    made = await hook()
    far.usual = says(500)
    await delivered(database)
    await run(database, "UPDATE webhook SET failures = 90, failing_since = now() - interval '6 days', rests_until = now()")

    await one_look(database, settings)

    shown = (await api.get(f"/webhooks/{made['id']}")).json()
    assert (shown["state"], shown["disabled_because"]) == ("disabled", "failing")
    assert await one(database, "SELECT object FROM audit_record WHERE action = 'webhook.disable'")


async def test_after_two_days_it_is_given_up(database, hook, far, settings):
    await hook()
    await delivered(database, 2)
    await run(database, "UPDATE webhook_delivery SET queued_at = now() - interval '49 hours'")
    await one_look(database, settings)
    assert (await states(database), far.received) == (["failed", "failed"], [])

    await run(database, "UPDATE webhook_delivery SET queued_at = now() - interval '47 hours', state = 'waiting', due_at = now(), attempts = 12")
    far.usual = says(500)
    await run(database, "DELETE FROM webhook_delivery WHERE subject_id = (SELECT max(CAST(subject_id AS text))::uuid FROM webhook_delivery)")
    await one_look(database, settings)
    assert (await states(database), len(far.received)) == (["failed"], 1)


async def test_worker_that_dies_with_it_in_hand_leaves_it_to_the_next_one(database, hook, far, settings):
    await hook()
    await delivered(database)
    webhook = await stored(database)
    dying = Lane(database, settings, SecretBox(settings.secret_keys), webhook.id, webhook)
    await dying._start(5)
    await until(lambda: far.received)
    for task in dying._at_work:
        task.cancel()
    await dying.close()
    await one_look(database, settings)
    assert len(far.received) == 1
    found = metrics.SWEEPER_FOUND.labels("webhooks")._value.get()

    await run(database, "UPDATE webhook_delivery SET due_at = now() - interval '1 second'")
    assert await Keeping(database, settings).round()
    assert metrics.SWEEPER_FOUND.labels("webhooks")._value.get() == found + 1
    await one_look(database, settings)

    assert [received.id for received in far.received] == [far.received[0].id] * 2
    assert await states(database) == ["delivered"]


async def test_two_stations_send_each_once(database, hook, far, settings, station):
    await hook()
    second = WebhookStation(database, settings, SecretBox(settings.secret_keys))
    task = asyncio.create_task(second.run())

    await delivered(database, 200)
    await until(lambda: is_done(database))

    assert len(far.received) == len({received.id for received in far.received}) == 200
    second.stop()
    await task


async def test_secret_that_no_key_opens_keeps_nobody_else_back(database, hook, far, station):
    await hook(url=far.url + "/broken")
    await run(database, "UPDATE webhook SET secret = 'nonsense'")
    await hook()

    await delivered(database)
    await until(lambda: far.received)

    assert [received.path for received in far.received] == ["/hooks"]


async def test_housekeeping_forgets_what_is_over_and_what_belongs_to_nobody(database, api, hook, far, settings):
    made = await hook()
    kept = await hook(url=far.url + "/kept")
    await delivered(database, 2)
    await api.delete(f"/webhooks/{made['id']}")
    await run(database, "UPDATE webhook_delivery SET state = 'delivered', due_at = now() + interval '1 day'")
    await run(database, "UPDATE webhook_delivery SET due_at = now() - interval '1 day' WHERE subject_id = (SELECT subject_id FROM webhook_delivery LIMIT 1)")

    await Keeping(database, settings).round()

    left = await rows(database, "SELECT endpoint_id FROM webhook_delivery")
    assert [str(row.endpoint_id) for row in left] == [kept["id"]]


async def test_what_waits_behind_a_disabled_endpoint_is_given_up(database, api, hook, settings):
    made = await hook()
    await delivered(database)
    await api.patch(f"/webhooks/{made['id']}", json={"enabled": False}, headers={"If-Match": "*"})
    await run(database, "UPDATE webhook_delivery SET due_at = now() - interval '49 hours'")

    await Keeping(database, settings).round()

    assert await states(database) == ["failed"]


async def stored(database) -> Webhook:
    async with database.transaction() as session:
        return (await session.scalars(sa.select(Webhook))).one()
