"""Who is told, when, and why not: decided on paper."""

from dataclasses import replace
from datetime import datetime, time, timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest

from app.accounts.window import Quiet
from app.catalogue.registry import TypeRules
from app.notifications.audience import ORDINARY, URGENT, Around, Reached, Skipped, Told, choose, is_barred

MOSCOW = ZoneInfo("Europe/Moscow")
NIGHT = (time(22), time(8))
NOON = datetime(2026, 11, 23, 12, tzinfo=MOSCOW)
LATE = datetime(2026, 11, 23, 23, 30, tzinfo=MOSCOW)
MORNING = datetime(2026, 11, 24, 8, tzinfo=MOSCOW)
DAY = timedelta(days=1)

RULES = TypeRules(
    code="service.connected",
    titles={},
    enabled=True,
    mandatory=False,
    urgent=False,
    passes_window=False,
    passes_quiet_hours=False,
    coalesce=timedelta(0),
    channels=("sms", "email"),
    ttl=DAY,
    settings={},
    data_schema=None,
    default_channels=frozenset({"sms", "email"}),
)
PHONE = Reached(uuid4(), "sms", "+79161234567", "", suppressed=False)
MAIL = Reached(uuid4(), "email", "a@example.org", "", suppressed=False)


def chosen(
    *contacts: Reached, rules: TypeRules | None = RULES, status: str = "active", age: timedelta = timedelta(0), now: datetime = NOON
) -> list[Told | Skipped]:
    return choose(rules, status, contacts, now - age, Around(now, MOSCOW, Quiet.alike(NIGHT)))


def reasons(*contacts: Reached, **more: object) -> list[str]:
    return [choice.reason for choice in chosen(*contacts, **more)]


def test_by_day_every_contact_of_the_types_channels_is_told_at_once():
    second = replace(PHONE, id=uuid4(), address="+79160000000")

    sms, other, mail = chosen(MAIL, PHONE, second)

    assert [choice.contact for choice in (sms, other, mail)] == [PHONE, second, MAIL]
    assert [choice.not_before for choice in (sms, other, mail)] == [NOON] * 3
    assert sms.send_until == datetime(2026, 11, 23, 22, tzinfo=MOSCOW)
    assert sms.expires_at == NOON + DAY


def test_at_night_sms_waits_for_the_morning_and_mail_does_not():
    sms, mail = chosen(PHONE, MAIL, now=LATE)

    assert (sms.not_before, sms.expires_at) == (MORNING, MORNING + DAY)
    assert sms.send_until == datetime(2026, 11, 24, 22, tzinfo=MOSCOW)
    assert (mail.not_before, mail.send_until) == (LATE, None)


def test_what_passes_quiet_hours_goes_at_night_without_an_end():
    (sms,) = chosen(PHONE, rules=replace(RULES, channels=("sms",), passes_quiet_hours=True), now=LATE)

    assert (sms.not_before, sms.send_until) == (LATE, None)


def test_urgency_is_priority_and_not_yet_a_pass():
    (urgent,) = chosen(PHONE, rules=replace(RULES, channels=("sms",), urgent=True), now=LATE)
    (ordinary,) = chosen(PHONE, rules=replace(RULES, channels=("sms",)), now=LATE)

    assert (urgent.priority, ordinary.priority) == (URGENT, ORDINARY)
    assert urgent.not_before == MORNING


def test_channel_without_a_contact_is_said_to_have_none():
    sms, mail = chosen(MAIL)

    assert sms == Skipped("sms", None, "no_contact")
    assert isinstance(mail, Told)


@pytest.mark.parametrize(("dead", "mandatory", "is_told"), [(False, True, True), (False, False, False), (True, True, False), (True, False, False)])
def test_mandatory_type_goes_against_a_wish_but_not_to_where_nobody_is(dead, mandatory, is_told):
    barred = replace(PHONE, suppressed=True, dead=dead)

    assert is_barred(replace(RULES, mandatory=mandatory), barred) is not is_told


def test_suppressed_contact_is_skipped_and_the_others_are_told():
    blocked = replace(PHONE, suppressed=True)

    sms, mail = chosen(blocked, MAIL)

    assert sms == Skipped("sms", blocked.id, "suppressed")
    assert isinstance(mail, Told)


def test_contact_of_a_channel_that_the_type_does_not_use_is_left_alone():
    (mail,) = chosen(PHONE, MAIL, rules=replace(RULES, channels=("email",)))

    assert mail.contact == MAIL


def test_event_of_no_type_tells_nobody():
    assert reasons(PHONE, rules=None) == ["tells_nobody"]


def test_disabled_type_tells_nobody():
    assert reasons(PHONE, rules=replace(RULES, enabled=False)) == ["type_disabled"]


def test_closed_account_is_told_only_what_is_mandatory():
    assert reasons(PHONE, status="closed") == ["account_closed"]
    assert isinstance(chosen(PHONE, status="closed", rules=replace(RULES, mandatory=True))[0], Told)
    assert isinstance(chosen(PHONE, status="suspended")[0], Told)


def test_event_as_old_as_its_time_to_live_is_too_late():
    assert reasons(PHONE, MAIL, age=DAY) == ["too_late"]
    assert isinstance(chosen(PHONE, age=DAY - timedelta(seconds=1))[0], Told)
