"""Budgets: never more than a day's parts and money, whoever claims; what does not fit waits for midnight, or for a larger budget."""

import asyncio
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest

from app.core.clock import now
from app.notifications.hold import Holding
from app.sending.budget_watch import BudgetWatch
from app.sending.budgets import Budgets, Limit, midnight_after
from app.sending.outcome import Accepted, Deferred, Refused, Unknown
from tests.builders.accounts import an_account
from tests.builders.gateways import an_smpp_gateway
from tests.builders.messages import a_message, one, rows, run, state_of, write

MOSCOW = ZoneInfo("Europe/Moscow")
NOBODY = {}
ONE = Decimal("1.00")


def budgets(database, *, parts=None, cost=None, types=NOBODY, price=None, gateway="main"):
    limit = Limit(parts, cost) if parts is not None or cost is not None else None
    return Budgets(database, gateway, limit, price, lambda: types, MOSCOW)


async def claim(keeper, *, room=100, owner=None, at=None, in_hand=None):
    batch, _ = await keeper.claim(owner or uuid4(), room, at or now(), timedelta(minutes=1), in_hand)
    return batch


async def spent(database, scope="gateway", name="main"):
    row = await one(database, "SELECT parts, cost, alerted FROM usage WHERE scope = :scope AND name = :name", scope=scope, name=name)
    return row.parts, row.cost


async def held(database):
    return [row.message_id for row in await rows(database, "SELECT message_id FROM outbox WHERE state = 'held' AND reason = 'budget' ORDER BY message_id")]


def next_midnight():
    return midnight_after(now().astimezone(MOSCOW).date(), MOSCOW)


async def set_budget(database, **settings):
    for key, value in settings.items():
        await run(
            database,
            "UPDATE gateway SET settings = settings || jsonb_build_object(CAST(:key AS text), CAST(:value AS int)), revision = revision + 1",
            key=key,
            value=value,
        )


async def test_what_fits_goes_and_the_rest_is_held_until_midnight(database):
    messages = [await a_message(database) for _ in range(5)]

    batch = await claim(budgets(database, parts=3))

    assert [claimed.id for claimed in batch] == messages[:3]
    assert await held(database) == messages[3:]
    row = await one(database, "SELECT not_before, expires_at FROM outbox WHERE message_id = :id", id=messages[4])
    of_message = await one(database, "SELECT expires_at FROM message WHERE id = :id", id=messages[4])
    assert row.not_before == next_midnight()
    assert row.expires_at - row.not_before == pytest.approx(timedelta(hours=1), abs=timedelta(seconds=5))
    assert of_message.expires_at == row.expires_at
    assert await spent(database) == (3, 0)
    change = await one(database, "SELECT state, reason, detail FROM message_change WHERE message_id = :id", id=messages[4])
    assert change == ("held", "budget", "of the gateway main")


async def test_long_message_that_does_not_fit_waits_and_a_short_one_behind_it_goes(database):
    _, long, short = [await a_message(database, parts=parts) for parts in (2, 3, 1)]

    batch = await claim(budgets(database, parts=4))

    assert [claimed.parts for claimed in batch] == [2, 1]
    assert batch[1].id == short
    assert await held(database) == [long]


async def test_money_is_counted_by_the_price_of_the_route_or_else_of_the_gateway(database):
    await a_message(database, parts=2, price=Decimal("2.50"))
    await a_message(database)
    dear = await a_message(database, price=Decimal("4.01"))

    await claim(budgets(database, cost=Decimal("10.00"), price=ONE))

    assert await spent(database) == (3, Decimal("6.0000"))
    assert await held(database) == [dear]


async def test_budget_of_a_type_counts_over_all_gateways_and_leaves_other_types_alone(database):
    types = {"promo.offer": Limit(1, None)}
    first, second = await a_message(database, type="promo.offer"), await a_message(database, type="promo.offer", gateway="spare")
    other = await a_message(database)

    batch = await claim(budgets(database, types=types))
    assert await claim(budgets(database, types=types, gateway="spare")) == []

    assert [claimed.id for claimed in batch] == [first, other]
    assert await held(database) == [second]
    assert [tuple(row) for row in await rows(database, "SELECT scope, name, parts FROM usage")] == [("type", "promo.offer", 1)]


async def test_claim_within_a_budget_keeps_to_the_room_on_the_wire(database):
    for parts in (2, 2, 2):
        await a_message(database, parts=parts)
    keeper = budgets(database, parts=100)

    assert [len(await claim(keeper, room=5)) for _ in range(3)] == [2, 1, 0]
    assert await held(database) == []


async def test_several_claimers_at_once_never_overrun(database):
    for number in range(200):
        await a_message(database, type="promo.offer" if number % 2 else "service.connected")
    types = {"promo.offer": Limit(30, None)}

    async def work():
        keeper, taken = budgets(database, parts=50, types=types), []
        for _ in range(30):
            taken += await claim(keeper, room=7)
        return taken

    taken = [claimed for mine in await asyncio.gather(*(work() for _ in range(4))) for claimed in mine]

    assert len(taken) == len({claimed.id for claimed in taken}) == 50
    assert sum(claimed.type == "promo.offer" for claimed in taken) <= 30
    assert len(await held(database)) == 150
    assert (await spent(database))[0] == 50


async def test_what_comes_back_unsent_is_given_back_once(database):
    await a_message(database, parts=2)
    keeper, owner = budgets(database, cost=Decimal(5), price=ONE), uuid4()
    (claimed,) = await claim(keeper, owner=owner)
    assert await spent(database) == (2, 2)

    for _ in range(2):  # the answer to the first commit was lost
        await write(database, owner, (claimed, Deferred("not_bound", timedelta(0), spends_attempt=False)))

    assert await spent(database) == (0, 0)
    assert len(await claim(keeper)) == 1


async def test_what_was_taken_stays_spent(database):
    await a_message(database)
    owner = uuid4()
    (claimed,) = await claim(budgets(database, parts=1), owner=owner)

    await write(database, owner, (claimed, Accepted(("1",))))

    assert await spent(database) == (1, 0)


@pytest.mark.parametrize(
    ("outcome", "left"), [(Refused("bad_text"), 0), (Refused("refused", "0x0000000B"), 1), (Refused("bad_text", ids=("17", "")), 1), (Unknown(), 1)]
)
async def test_what_we_ourselves_would_not_send_is_given_back_and_what_may_be_on_the_bill_is_not(database, outcome, left):
    owner = uuid4()
    await a_message(database)
    (claimed,) = await claim(budgets(database, parts=5), owner=owner)

    for _ in range(2):
        await write(database, owner, (claimed, outcome))

    assert await spent(database) == (left, 0)


async def test_claim_whose_answer_was_lost_is_given_back_with_its_share(database):
    message = await a_message(database)
    keeper, owner = budgets(database, parts=1), uuid4()
    await claim(keeper, owner=owner)  # its answer never came

    batch = await claim(keeper, owner=owner, in_hand=[])

    assert [claimed.id for claimed in batch] == [message]
    assert await spent(database) == (1, 0)


async def test_new_day_has_a_budget_of_its_own(database):
    keeper = budgets(database, parts=1)
    await a_message(database)
    noon = datetime(2026, 11, 23, 12, tzinfo=MOSCOW)
    await run(
        database,
        "UPDATE outbox SET not_before = CAST(:at AS timestamptz), expires_at = CAST(:at AS timestamptz) + interval '9 days'",
        at=noon - timedelta(days=1),
    )
    await claim(keeper, at=noon)
    await a_message(database, not_before=noon, expires_at=noon + timedelta(days=9))

    assert len(await claim(keeper, at=datetime(2026, 11, 24, 0, 1, tzinfo=MOSCOW))) == 1

    assert [str(row.day) for row in await rows(database, "SELECT day FROM usage ORDER BY day")] == ["2026-11-23", "2026-11-24"]


async def test_alert_comes_once_when_four_fifths_are_spent(database, monkeypatch):
    from app.sending import budgets as module

    told = []
    monkeypatch.setattr(module.log, "warning", lambda event, **said: told.append((event, said["scope"], said["name"], said["share"])))
    keeper = budgets(database, parts=5)
    for _ in range(5):
        await a_message(database)

    for _ in range(5):
        await claim(keeper, room=1)

    assert told == [("budget_nearly_spent", "gateway", "main", 0.8)]
    assert (await one(database, "SELECT alerted FROM usage")).alerted


async def test_many_that_do_not_fit_are_held_by_few_claims(database):
    for _ in range(30):
        await a_message(database)
    keeper = budgets(database, parts=0)

    await claim(keeper, room=2)
    await claim(keeper, room=2)

    assert len(await held(database)) == 30


async def test_claim_keeps_to_the_budget_of_this_very_moment_and_not_to_the_one_it_began_with(database):
    await an_smpp_gateway(database, daily_parts=1)
    keeper = budgets(database, parts=1)
    for _ in range(3):
        await a_message(database)

    await set_budget(database, daily_parts=2)

    assert len(await claim(keeper)) == 2
    assert len(await held(database)) == 1


async def test_raised_budget_lets_go_what_it_held_and_no_more_than_fits(database, settings):
    await an_smpp_gateway(database, daily_parts=2)
    messages = [await a_message(database) for _ in range(6)]
    expires = {row.message_id: row.expires_at for row in await rows(database, "SELECT message_id, expires_at FROM outbox")}
    await claim(budgets(database, parts=2))
    watch = BudgetWatch(database, MOSCOW)
    assert await watch.follow() == 0

    await set_budget(database, daily_parts=4)

    assert await BudgetWatch(database, MOSCOW).follow() == 2
    due = await rows(database, "SELECT message_id, expires_at FROM outbox WHERE state = 'held' AND not_before <= now() ORDER BY message_id")
    assert [row.message_id for row in due] == messages[2:4]
    assert all(timedelta(0) <= row.expires_at - expires[row.message_id] < timedelta(minutes=1) for row in due)


async def test_removed_budget_lets_go_everything_and_not_what_another_budget_holds(database):
    await an_smpp_gateway(database, daily_parts=0)
    free, held_by_type = await a_message(database), await a_message(database, type="tariff.changed")
    limits = {"tariff.changed": Limit(0, None)}
    await run(database, "UPDATE notification_type SET settings = '{\"daily_parts\": 0}', revision = revision + 1 WHERE code = 'tariff.changed'")
    await claim(budgets(database, parts=0, types=limits))

    await set_budget(database, daily_parts=None)

    assert await BudgetWatch(database, MOSCOW).follow() == 1
    row = await one(database, "SELECT message_id FROM outbox WHERE not_before <= now()")
    assert (row.message_id, await held(database)) == (free, [free, held_by_type])


async def test_what_midnight_lets_go_is_released_as_anything_held(database, settings, wakeups):
    await an_smpp_gateway(database, daily_parts=0)
    account = await an_account(database)
    contact = await one(database, "SELECT id FROM contact")
    message = await a_message(database, account, contact_id=contact.id)
    await claim(budgets(database, parts=0))
    await run(database, "UPDATE outbox SET not_before = now() - interval '1 second'")

    await Holding(database, settings, wakeups).release()

    assert await state_of(database, message) == ("queued", None)


async def test_budgets_are_shown_with_what_is_spent_and_held(database, api):
    await an_smpp_gateway(database, daily_parts=4, daily_cost="10.00", price_per_part="2.00")
    await run(database, "UPDATE notification_type SET settings = '{\"daily_cost\": \"0.00\"}', revision = revision + 1 WHERE code = 'tariff.changed'")
    for kind in ("service.connected", "tariff.changed"):
        await a_message(database, type=kind)
    types = {"tariff.changed": Limit(None, Decimal(0))}
    await claim(budgets(database, parts=4, cost=Decimal(10), price=Decimal(2), types=types))

    answer = await api.get("/budgets")

    today = now().astimezone(MOSCOW).date().isoformat()
    assert answer.json()["items"] == [
        {
            "scope": "gateway",
            "name": "main",
            "day": today,
            "parts": 1,
            "parts_limit": 4,
            "cost": "2.00",
            "cost_limit": "10.00",
            "share": 0.25,
            "held": 1,
        },
        {
            "scope": "type",
            "name": "tariff.changed",
            "day": today,
            "parts": 0,
            "parts_limit": None,
            "cost": "0.00",
            "cost_limit": "0.00",
            "share": 1.0,
            "held": 1,
        },
    ]
    assert (await api.get("/budgets", params={"limit": 1})).json()["next_cursor"]


@pytest.mark.parametrize(
    ("said", "pointer"),
    [
        ({"daily_parts": -1}, "/settings/daily_parts"),
        ({"daily_cost": 12.5}, "/settings/daily_cost"),
        ({"flash": "yes"}, "/settings/flash"),
        ({"on_response_timeout": "resend"}, "/settings/on_response_timeout"),
    ],
)
@pytest.mark.parametrize("code", ["service.connected", "promo.offer"])
async def test_options_of_sending_are_checked_where_types_are_saved(api, said, pointer, code):
    kept = await api.get(f"/notification-types/{code}")
    headers = {"If-Match": kept.headers["ETag"]} if kept.status_code == 200 else {}
    body = {"titles": {"en": "An offer"}, "channels": ["sms"]}

    refused = await api.put(f"/notification-types/{code}", json=body | {"settings": said}, headers=headers)
    taken = await api.put(
        f"/notification-types/{code}",
        json=body | {"settings": {"daily_parts": 5, "daily_cost": "12.00", "flash": True, "on_response_timeout": "resend_once"}},
        headers=headers,
    )

    assert (refused.status_code, [error["pointer"] for error in refused.json()["errors"]]) == (422, [pointer])
    assert taken.status_code in {200, 201}, taken.text


@pytest.fixture
def wakeups(settings):
    from app.core.wakeups import Wakeups

    return Wakeups(settings.redis_url, direct=lambda queue: True)
