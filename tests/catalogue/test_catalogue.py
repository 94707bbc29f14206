"""The catalogue in the database, in memory and over HTTP."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from app.catalogue.defaults import BUILTIN, seed
from app.catalogue.models import NotificationType
from app.catalogue.registry import Catalogue, rules_of
from app.core.models import AuditRecord

KEPT = ("titles", "enabled", "mandatory", "urgent", "channels", "ttl_seconds", "settings")
OFFER = {"titles": {"ru": "Акция", "en": "Offer"}, "channels": ["sms"], "ttl_seconds": 3600}


async def test_the_built_in_types_are_there_from_the_start(api):
    listed = (await api.get("/notification-types")).json()

    assert [item["code"] for item in listed["items"]] == sorted(kind["code"] for kind in BUILTIN)
    assert listed["next_cursor"] is None
    assert [item["code"] for item in listed["items"] if item["urgent"]] == ["contact.verification", "payment.received"]
    assert [item["code"] for item in listed["items"] if not item["enabled"]] == ["balance.restored"]


async def test_the_list_goes_on_by_its_cursor(api):
    first = (await api.get("/notification-types", params={"limit": 5})).json()
    rest = (await api.get("/notification-types", params={"limit": 5, "cursor": first["next_cursor"]})).json()

    assert [len(first["items"]), len(rest["items"]), rest["next_cursor"]] == [5, 4, None]


async def test_a_type_is_read_changed_and_put_back(api):
    read = await api.get("/notification-types/service.connected")
    wanted = {name: read.json()[name] for name in KEPT} | {"enabled": False, "channels": ["email"]}

    answer = await api.put("/notification-types/service.connected", json=wanted, headers={"If-Match": read.headers["ETag"]})

    assert answer.status_code == 200
    assert answer.json()["enabled"] is False
    assert answer.json()["revision"] == 2
    assert answer.headers["ETag"] == '"2"'
    assert (await api.get("/notification-types/service.connected")).json() == answer.json()


async def test_putting_what_stands_there_changes_nothing(api):
    read = await api.get("/notification-types/payment.received")

    answer = await api.put("/notification-types/payment.received", json={name: read.json()[name] for name in KEPT}, headers={"If-Match": read.headers["ETag"]})

    assert answer.json() == read.json()


async def test_an_update_names_the_version_that_was_read(api):
    wanted = {name: value for name, value in (await api.get("/notification-types/payment.received")).json().items() if name in KEPT}

    without = await api.put("/notification-types/payment.received", json=wanted)
    stale = await api.put("/notification-types/payment.received", json=wanted, headers={"If-Match": '"7"'})

    assert [without.status_code, stale.status_code] == [428, 412]


async def test_an_operator_adds_a_type_of_his_own(api, database):
    answer = await api.put("/notification-types/promo.offer", json=OFFER | {"data_schema": {"type": "object", "required": ["code"]}})

    assert answer.status_code == 201
    assert answer.json() | OFFER == answer.json()
    assert answer.json()["builtin"] is False
    async with database.transaction() as session:
        records = (await session.execute(sa.select(AuditRecord.action, AuditRecord.object))).all()
    assert ("notification_type.create", "notification_type:promo.offer") in records


async def test_nothing_can_match_what_is_not_there(api):
    answer = await api.put("/notification-types/promo.offer", json=OFFER, headers={"If-Match": "*"})

    assert answer.status_code == 412


REFUSED = [
    ("promo.offer", {"channels": []}, "/channels"),
    ("promo.offer", {"channels": ["sms", "sms"]}, "/channels"),
    ("promo.offer", {"channels": ["fax"]}, "/channels/0"),
    ("promo.offer", {"ttl_seconds": 59}, "/ttl_seconds"),
    ("promo.offer", {"ttl_seconds": 31_536_001}, "/ttl_seconds"),
    ("promo.offer", {"ttl_seconds": True}, "/ttl_seconds"),
    ("promo.offer", {"enabled": "yes"}, "/enabled"),
    ("promo.offer", {"titles": {}}, "/titles"),
    ("promo.offer", {"colour": "red"}, "/colour"),
    ("promo.offer", {"settings": {"x": "y" * 5000}}, "/settings"),
    ("promo.offer", {"data_schema": {"properties": {"a": {"type": "sting"}}}}, "/data_schema/properties/a/type"),
    ("promo.offer", {"data_schema": {"properties": {"a": {"pattern": "(a+)+"}}}}, "/data_schema/properties/a/pattern"),
    ("promo offer", {}, "/path/code"),
    ("balance.changed", {}, "/path/code"),
]


async def test_a_type_that_cannot_be_is_refused_at_its_place(api):
    answers = [await api.put(f"/notification-types/{code}", json=OFFER | change) for code, change, _ in REFUSED]

    assert [answer.status_code for answer in answers] == [422] * len(REFUSED)
    assert [answer.json()["errors"][0]["pointer"] for answer in answers] == [pointer for _, _, pointer in REFUSED]


SETTINGS = [
    ("balance.exhausting", {"days_before": [5, 2]}, 200),
    ("balance.exhausting", {"days_before": []}, 422),
    ("balance.exhausting", {"days_before": [3, 3]}, 422),
    ("balance.exhausting", {"days_before": 3}, 422),
    ("balance.exhausting", {}, 422),
    ("charges.upcoming", {"days_before": 1}, 200),
    ("charges.upcoming", {"days_before": 0}, 422),
    ("charges.upcoming", {"days_before": 3, "x": 1}, 422),
    ("payment.received", {"days_before": 3}, 422),
    ("balance.exhausting", {"days_before": [5, 2], "alarm_multiple": 2, "stale_after_days": None}, 200),
    ("balance.exhausting", {"days_before": [5, 2], "alarm_multiple": "2"}, 422),
    ("balance.threshold_reached", {"at_once_share": 1}, 200),
    ("balance.threshold_reached", {"at_once_share": "0.5"}, 422),
    ("balance.threshold_reached", {"at_once_share": True}, 422),
]


async def test_settings_are_those_of_the_type(api):
    def wanted(given: dict) -> dict:
        return {"titles": {"en": "x"}, "channels": ["sms"], "settings": given}

    answers = [await api.put(f"/notification-types/{code}", json=wanted(given), headers={"If-Match": "*"}) for code, given, _ in SETTINGS]

    assert [answer.status_code for answer in answers] == [status for _, _, status in SETTINGS]
    assert all(answer.json()["errors"][0]["pointer"].startswith("/settings") for answer in answers if answer.status_code == 422)


async def test_a_built_in_type_keeps_its_data(api):
    wanted = {"titles": {"en": "x"}, "channels": ["sms"], "data_schema": {"type": "object"}}

    answer = await api.put("/notification-types/payment.received", json=wanted, headers={"If-Match": "*"})

    assert answer.json()["errors"][0]["code"] == "builtin_type"


async def test_who_may_read_and_who_may_write(as_role):
    viewer, billing = await as_role("viewer"), await as_role("billing")

    assert (await viewer.get("/notification-types/payment.received")).status_code == 200
    assert (await viewer.put("/notification-types/promo.offer", json=OFFER)).status_code == 403
    assert (await billing.get("/notification-types")).status_code == 403


async def test_there_is_no_type_that_nobody_added(api):
    assert (await api.get("/notification-types/promo.offer")).status_code == 404


async def test_memory_follows_the_database(api, database):
    catalogue = Catalogue()
    async with database.transaction() as session:
        await catalogue.refresh(session)
    before = catalogue.types

    async with database.transaction() as session:
        await catalogue.refresh(session)
    assert catalogue.types is before, "nothing had changed"

    await api.put("/notification-types/promo.offer", json=OFFER)
    async with database.transaction() as session:
        await catalogue.refresh(session)
    assert catalogue.types["promo.offer"].ttl == timedelta(hours=1)
    assert "promo.offer" not in before


@pytest.mark.parametrize(
    ("urgent", "mandatory", "given", "window", "quiet"),
    [
        (False, False, None, False, False),
        (True, False, None, True, True),
        (False, True, None, True, False),
        (True, True, False, False, False),
        (False, False, True, True, True),
    ],
)
def test_what_is_urgent_or_mandatory_passes_unless_the_operator_says_otherwise(urgent, mandatory, given, window, quiet):
    row = NotificationType(code="x", titles={}, urgent=urgent, mandatory=mandatory, passes_window=given, passes_quiet_hours=given, channels=["sms"])

    rules = rules_of(row)

    assert (rules.passes_window, rules.passes_quiet_hours) == (window, quiet)


async def test_seeding_again_leaves_what_the_operator_has_changed(database):
    async with database.transaction() as session:
        await session.execute(sa.update(NotificationType).where(NotificationType.code == "payment.received").values(enabled=False))

    async with database.transaction() as session:
        await seed(session)

    async with database.transaction() as session:
        rows = {row.code: row for row in (await session.execute(sa.select(NotificationType))).scalars()}
    assert rows["payment.received"].enabled is False
    assert len(rows) == 9
