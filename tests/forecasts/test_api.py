"""Forecasts over HTTP: one account's days to come, scans by hand, and why somebody was reminded."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import orjson
import pytest

from app.core.wakeups import Wakeups
from app.forecasts.schedule import today_in
from app.notifications.plan import Planner
from tests.builders.accounts import an_account
from tests.builders.charges import a_charge
from tests.forecasts.test_scan import a_scanner, sql

MOSCOW = "Europe/Moscow"


NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
TODAY = date(2026, 11, 22)


@pytest.fixture(autouse=True)
def _it_is_noon(monkeypatch):
    monkeypatch.setattr("app.forecasts.api.now", lambda: NOON)


def caller_of(client) -> str:
    return f"key:{client.headers['Authorization'].split('_')[1]}"


@pytest.fixture
async def anna(database):
    """50.00, a credit of 30.00, and two charges on the last day of November 2026: 60.00 and 25.00."""
    account = await an_account(database, balance=Decimal("50.00"), credit_limit=Decimal("30.00"), threshold=Decimal("20.00"))
    await a_charge(database, account, "60.00", name="home", kind="monthly", slot=31)
    await a_charge(database, account, "25.00", name="tv", title="TV", on_date=date(2026, 11, 30))
    return account


async def work(database):
    scanner = a_scanner(database)
    while await scanner.step():
        pass


async def scanned(api, database, **asked):
    """A scan that was asked for and has run to its end."""
    answer = await api.post("/forecasts/scans", json=asked)
    assert answer.status_code == 202, answer.text
    await work(database)
    return (await api.get(f"/forecasts/scans/{answer.json()['id']}")).json()


async def test_forecast_has_the_shape_of_the_contract(api, anna):
    answer = await api.get("/accounts/100500/forecast", params={"days": 10, "as_of": "2026-11-22"})

    assert answer.status_code == 200
    assert answer.json() == {
        "as_of": "2026-11-22",
        "balance": "50.00",
        "credit_limit": "30.00",
        "available": "80.00",
        "exhausts_on": "2026-11-30",
        "days_left": 8,
        "shortfall": "5.00",
        "recommended_payment": "5.00",
        "timeline": [
            {
                "date": "2026-11-30",
                "charges": [{"id": "home", "title": "Home 100", "amount": "60.00"}, {"id": "tv", "title": "TV", "amount": "25.00"}],
                "total": "85.00",
                "balance_after": "-35.00",
            }
        ],
        "notices": [
            {"date": "2026-11-23", "type": "balance.exhausting", "mark": "7"},
            {"date": "2026-11-27", "type": "balance.exhausting", "mark": "3"},
            {"date": "2026-11-27", "type": "charges.upcoming", "mark": "2026-11-30"},
            {"date": "2026-11-29", "type": "balance.exhausting", "mark": "1"},
            {"date": "2026-11-30", "type": "balance.threshold_reached", "mark": "low"},
        ],
    }


async def test_forecast_is_null_where_the_money_lasts(api, anna, database):
    await sql(database, "UPDATE account SET balance = 500 WHERE id = :id", id=anna.id)

    found = (await api.get("/accounts/100500/forecast", params={"as_of": "2026-11-22"})).json()

    assert (found["exhausts_on"], found["days_left"], found["shortfall"], found["recommended_payment"]) == (None, None, None, None)
    assert [day["date"] for day in found["timeline"]] == ["2026-11-30"]


async def test_a_notice_may_speak_of_a_day_behind_the_last_one_that_is_shown(api, anna):
    found = (await api.get("/accounts/100500/forecast", params={"days": 1, "as_of": "2026-11-22"})).json()

    assert (found["exhausts_on"], found["timeline"]) == (None, [])
    assert found["notices"] == [{"date": "2026-11-23", "type": "balance.exhausting", "mark": "7"}]


async def test_what_was_told_already_is_no_notice_any_more(api, anna, database):
    await scanned(api, database, kind="exhaustion", as_of="2026-11-23", dry_run=False)
    await scanned(api, database, kind="upcoming", as_of="2026-11-27")

    found = (await api.get("/accounts/100500/forecast", params={"as_of": "2026-11-23", "days": 7})).json()

    assert [(notice["type"], notice["mark"]) for notice in found["notices"]] == [
        ("balance.exhausting", "3"),
        ("balance.exhausting", "1"),
        ("balance.threshold_reached", "low"),
    ]


async def test_a_suspended_account_has_a_forecast_and_no_notices(api, anna, database):
    await sql(database, "UPDATE account SET status = 'suspended' WHERE id = :id", id=anna.id)

    found = (await api.get("/accounts/100500/forecast", params={"as_of": "2026-11-22"})).json()

    assert found["exhausts_on"] == "2026-11-30"
    assert found["notices"] == []


@pytest.mark.parametrize("as_of", ["2000-01-01", "2024-02-29", "2199-12-31"])
async def test_forecast_of_any_day_past_or_to_come(api, anna, as_of):
    answer = await api.get("/accounts/100500/forecast", params={"as_of": as_of, "days": 366})

    assert answer.status_code == 200
    assert len(answer.json()["timeline"]) >= 12


async def test_without_as_of_it_is_today_in_the_accounts_own_zone(api, database):
    for number, zone in (("east", "Pacific/Kiritimati"), ("west", "Pacific/Niue")):
        await an_account(database, number, phones=(), timezone=zone)

    days = [(await api.get(f"/accounts/{number}/forecast")).json()["as_of"] for number in ("east", "west")]

    assert date.fromisoformat(days[0]) - date.fromisoformat(days[1]) >= timedelta(days=1)


@pytest.mark.parametrize("query", ["days=0", "days=367", "days=x", "as_of=2026-02-30", "as_of=9999-12-31", "as_of=0001-01-01", "as_of=yesterday"])
async def test_days_and_as_of_that_make_no_sense_are_named(api, anna, query):
    answer = await api.get(f"/accounts/100500/forecast?{query}")

    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.text


async def test_forecast_of_an_unknown_account_is_not_found(api):
    for path in ("/accounts/nobody/forecast", "/accounts/nobody/forecast/hits"):
        answer = await api.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "account_not_found")


async def test_a_subscriber_sees_his_own_forecast_and_no_other(as_subscriber, anna, database):
    await an_account(database, "100501", phones=(), balance=Decimal("7.00"))
    cabinet = await as_subscriber("100501")

    own, foreign = await cabinet.get("/me/forecast"), await cabinet.get("/accounts/100500/forecast")

    assert (own.status_code, own.json()["balance"]) == (200, "7.00")
    assert foreign.status_code == 403
    assert (await (await as_subscriber("100500")).get("/me/forecast", params={"days": 3})).json()["balance"] == "50.00"


async def test_scopes_of_forecasts_are_read_and_run(as_role, anna):
    viewer, billing, operator, nobody = [await as_role(role) for role in ("viewer", "billing", "operator", None)]

    assert [(await who.get("/accounts/100500/forecast")).status_code for who in (viewer, operator, billing, nobody)] == [200, 200, 403, 401]
    asked = {"kind": "threshold"}
    assert [(await who.post("/forecasts/scans", json=asked)).status_code for who in (viewer, billing, nobody, operator)] == [403, 403, 401, 202]
    assert (await viewer.get("/forecasts/scans")).status_code == 200
    assert (await viewer.post(f"/forecasts/scans/{uuid4()}/confirm")).status_code == 403


async def test_scan_is_taken_in_and_followed_at_its_location(api, anna, database):
    answer = await api.post("/forecasts/scans", json={"kind": "exhaustion", "as_of": "2026-11-29"})
    run = answer.json()

    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/api/v1/forecasts/scans/{run['id']}"
    assert (run["state"], run["phase"], run["done_share"], run["origin"], run["skipped_zones"]) == ("queued", "count", 0, "hand", [])

    await work(database)

    ended = (await api.get(answer.headers["Location"].removeprefix("/api/v1"))).json()
    assert (ended["state"], ended["phase"], ended["done_share"]) == ("done", "tell", 1)
    assert (ended["found"]["accounts"], ended["found"]["told"]) == (1, 1)
    assert ended["requested_by"].startswith("key:")
    assert (await sql(database, "SELECT action FROM audit_record WHERE object = :object", object=f"scan:{run['id']}"))[0].action == "scan.start"


async def test_scans_are_listed_newest_first(api, anna):
    asked = [(await api.post("/forecasts/scans", json={"kind": kind})).json()["id"] for kind in ("threshold", "exhaustion", "upcoming")]

    first = (await api.get("/forecasts/scans", params={"limit": 2})).json()
    second = (await api.get("/forecasts/scans", params={"limit": 2, "cursor": first["next_cursor"]})).json()

    assert [run["id"] for run in first["items"] + second["items"]] == asked[::-1]
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    "asked", [{}, {"kind": "all"}, {"kind": "threshold", "as_of": "9999-12-31"}, {"kind": "threshold", "dry_run": 1}, {"kind": "threshold", "zone": "x"}]
)
async def test_scan_that_makes_no_sense_is_refused(api, asked):
    assert (await api.post("/forecasts/scans", json=asked)).status_code == 422


async def test_a_day_to_come_is_for_dry_runs_and_local_installations(api, anna, settings):
    tomorrow = (TODAY + timedelta(days=1)).isoformat()
    assert (await api.post("/forecasts/scans", json={"kind": "threshold", "as_of": tomorrow})).status_code == 202
    api.app.state.settings = settings.model_copy(update={"env": "production"})

    refused = await api.post("/forecasts/scans", json={"kind": "threshold", "as_of": tomorrow})
    dry = await api.post("/forecasts/scans", json={"kind": "threshold", "as_of": tomorrow, "dry_run": True})

    assert (refused.status_code, refused.json()["errors"][0]["code"], refused.json()["errors"][0]["pointer"]) == (422, "as_of_in_future", "/as_of")
    assert dry.status_code == 202


async def test_a_day_that_all_zones_are_past_is_refused_but_for_a_dry_run(api, anna, database):
    yesterday = (TODAY - timedelta(days=1)).isoformat()

    refused = await api.post("/forecasts/scans", json={"kind": "exhaustion", "as_of": yesterday})
    dry = await scanned(api, database, kind="exhaustion", as_of=yesterday, dry_run=True)

    assert (refused.status_code, refused.json()["code"]) == (409, "as_of_past")
    assert (dry["state"], dry["found"]["accounts"], dry["skipped_zones"]) == ("done", 1, [])
    assert await sql(database, "SELECT 1 FROM forecast_hit") == []


async def test_zones_that_are_past_the_day_are_skipped_and_counted(api, database):
    for number, zone in (("east", "Pacific/Kiritimati"), ("west", "Pacific/Niue")):
        await an_account(database, number, phones=(), timezone=zone, balance=Decimal(-1))
    day = today_in("Pacific/Niue", MOSCOW, NOON).date()

    run = await scanned(api, database, kind="exhaustion", as_of=day.isoformat())

    assert (run["skipped_zones"], run["found"]["accounts"], run["found"]["told"]) == (["Pacific/Kiritimati"], 1, 1)


async def test_a_dry_run_stores_nothing_but_itself(api, anna, database):
    run = await scanned(api, database, kind="exhaustion", as_of="2026-11-29", dry_run=True)

    assert (run["state"], run["dry_run"], run["found"]["told"]) == ("done", True, 1)
    assert await sql(database, "SELECT 1 FROM forecast_hit UNION ALL SELECT 1 FROM event UNION ALL SELECT 1 FROM forecast_episode") == []


async def test_an_alarming_scan_is_told_when_somebody_confirms_it(as_role, api, database):
    operator = await as_role("operator")
    run_id = await an_alarming_run(api, database)
    assert await sql(database, "SELECT 1 FROM event") == []

    confirmed = await operator.post(f"/forecasts/scans/{run_id}/confirm")
    await work(database)

    assert (confirmed.status_code, confirmed.json()["state"], confirmed.json()["confirmed_by"]) == (200, "running", caller_of(operator))
    assert (await api.get(f"/forecasts/scans/{run_id}")).json()["state"] == "done"
    assert len(await sql(database, "SELECT 1 FROM event")) == 101
    for what in ("confirm", "refuse"):
        again = await operator.post(f"/forecasts/scans/{run_id}/{what}")
        assert (again.status_code, again.json()["code"]) == (409, "not_waiting")


async def test_an_alarming_scan_that_is_refused_tells_nobody(api, database):
    run_id = await an_alarming_run(api, database)

    refused = await api.post(f"/forecasts/scans/{run_id}/refuse")
    await work(database)

    assert (refused.json()["state"], refused.json()["error"]) == ("failed", f"refused by {caller_of(api)}")
    assert await sql(database, "SELECT 1 FROM event") == []
    assert (await api.post(f"/forecasts/scans/{run_id}/confirm")).json()["code"] == "not_waiting"


async def an_alarming_run(api, database) -> str:
    """The fourth scan finds 101 where three have found nobody."""
    for _ in range(3):
        assert (await scanned(api, database, kind="exhaustion"))["state"] == "done"
    await sql(
        database,
        """INSERT INTO account (id, number, name, status, balance, credit_limit, currency, locale, timezone, tariff, attributes, created_at, updated_at)
        SELECT gen_random_uuid(), 'n' || n, '', 'active', -1, 0, 'RUB', 'ru', 'Europe/Moscow', '', '{}', now(), now() FROM generate_series(1, 101) n""",
    )
    run = await scanned(api, database, kind="exhaustion")
    assert (run["state"], run["usual"], run["found"]["told"]) == ("needs_confirmation", 0, 101)
    return run["id"]


async def test_unknown_scans_are_not_found(api):
    for method, path in (("GET", ""), ("POST", "/confirm"), ("POST", "/refuse")):
        answer = await api.request(method, f"/forecasts/scans/{uuid4()}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "scan_not_found")


async def test_hits_tell_newest_first_why_an_account_was_reminded(api, anna, database):
    await sql(database, "UPDATE account SET balance = 10 WHERE id = :id", id=anna.id)
    for kind in ("exhaustion", "threshold"):
        await scanned(api, database, kind=kind, as_of="2026-11-29")
    await scanned(api, database, kind="upcoming", as_of="2026-11-27")

    first = (await api.get("/accounts/100500/forecast/hits", params={"limit": 2})).json()
    second = (await api.get("/accounts/100500/forecast/hits", params={"cursor": first["next_cursor"]})).json()

    hits = first["items"] + second["items"]
    assert [(hit["kind"], hit["episode"], hit["mark"], hit["as_of"], hit["outcome"]) for hit in hits] == [
        ("upcoming", 0, "2026-11-30", "2026-11-27", "told"),
        ("threshold", 1, "low", "2026-11-29", "covered"),
        ("exhaustion", 1, "1", "2026-11-29", "told"),
    ]
    assert hits[1]["event_id"] is None
    assert hits[2]["inputs"] == {
        "balance": "10.00",
        "balance_as_of": None,
        "credit_limit": "30.00",
        "as_of": "2026-11-29",
        "rules": 1,
        "charges": 2,
        "covers_until": "2026-12-28",
    }
    event = (await api.get(f"/events/{hits[2]['event_id']}")).json()
    assert (event["type"], event["source"]) == ("balance.exhausting", "/vestnik/forecasts")
    assert event["forecast"] == hits[2]["inputs"]


async def test_an_event_from_outside_has_no_forecast_behind_it(api, anna):
    event = {"specversion": "1.0", "id": "1", "source": "/billing", "type": "payment.received", "subject": "100500", "data": {"amount": "1.00"}}
    taken = (await api.post("/events", json=event)).json()

    assert (await api.get(f"/events/{taken['event_id']}")).json()["forecast"] is None


async def test_an_erased_account_leaves_no_figures_behind(api, anna, database):
    await scanned(api, database, kind="exhaustion", as_of="2026-11-29")
    await sql(database, """UPDATE scan_run SET sample = '[{"account": "100500", "text": "Anna"}]'""")

    assert (await api.delete("/accounts/100500")).status_code == 204

    assert [row.inputs for row in await sql(database, "SELECT inputs FROM forecast_hit")] == [{}]
    assert [row.sample for row in await sql(database, "SELECT sample FROM scan_run")] == [[]]
    assert await sql(database, "SELECT 1 FROM forecast_episode") == []


async def test_an_erasure_finds_what_a_dry_run_at_work_has_sampled(api, anna, database):
    await scanned(api, database, kind="exhaustion", as_of="2026-11-29", dry_run=True)
    await sql(database, "UPDATE scan_run SET state = 'running', sample = '[]'")
    await sql(database, """UPDATE scan_slice SET found = found || '{"sample": [{"account": "100500", "text": "Anna"}]}'""")

    assert (await api.delete("/accounts/100500")).status_code == 204

    assert [row.found.get("sample") for row in await sql(database, "SELECT found FROM scan_slice")] == [None]


async def test_a_scan_that_commits_after_an_erasure_leaves_no_figures_when_it_is_planned(api, anna, database, settings):
    await scanned(api, database, kind="exhaustion", as_of="2026-11-29")
    inputs = (await sql(database, "SELECT inputs FROM forecast_hit"))[0].inputs
    (event_id,) = (await sql(database, "SELECT event_id FROM forecast_hit"))[0]
    assert (await api.delete("/accounts/100500")).status_code == 204
    await sql(database, "UPDATE forecast_hit SET inputs = CAST(:inputs AS jsonb)", inputs=orjson.dumps(inputs).decode())  # as if it had been found just now
    await sql(database, "INSERT INTO forecast_episode SELECT account_id, kind, episode, true, 1, at FROM forecast_hit")
    await sql(database, "INSERT INTO event_waiting SELECT id, account_id FROM event WHERE id = :id", id=event_id)

    await Planner(database, settings, Wakeups(settings.redis_url, direct=lambda _queue: True)).plan()

    assert [row.inputs for row in await sql(database, "SELECT inputs FROM forecast_hit")] == [{}]
    assert await sql(database, "SELECT 1 FROM forecast_episode") == []
