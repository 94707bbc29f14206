"""The checker of the simulated month sees what it is there to see: a good month has no fault, and each spoiled one has its own."""

from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tests.simulation.checker import FAR, Account, Bar, Checker, Contact, Event, Kind, Message, Month

NOON = datetime(2027, 3, 9, 9, 0, tzinfo=UTC)  # in Moscow, a Tuesday
LONG_AGO, HOUR = NOON - timedelta(days=30), timedelta(hours=1)
ACCOUNT, PHONE, MAIL, EVENT, SMS, LETTER = (UUID(int=n) for n in range(1, 7))
NIGHT = ((1320, 480), (1320, 480))


def a_month(**kind):
    """One event, told by an SMS at noon, which was delivered; and by a letter where the type has such a channel."""
    rules = Kind(**({"channels": ("sms",), "ttl": timedelta(days=2), "cap": "reminder"} | kind))
    contacts = {PHONE: Contact(PHONE, "sms", "+79160000001", LONG_AGO), MAIL: Contact(MAIL, "email", "a@example.org", LONG_AGO)}
    month = Month(
        kinds={"news": rules},
        caps={"reminder": (1, 4, 16)},
        accounts={ACCOUNT: Account(ACCOUNT, "1", "Europe/Moscow", contacts)},
        bars={},
        quiet={"": [(LONG_AGO, NIGHT)]},
        sent_events={("/billing", "1"): ("1", "news")},
        kept_events={("/billing", "1"): EVENT},
        events={EVENT: Event(EVENT, ACCOUNT, "news", "/billing", NOON - HOUR)},
        decided={EVENT: (NOON, [a_decision("sms", PHONE, SMS)])},
        messages={SMS: Message(SMS, EVENT, ACCOUNT, "news", "sms", PHONE, "+79160000001", "delivered", None, NOON + timedelta(days=2), NOON)},
        claims=[(SMS, NOON, "accepted")],
    )
    month.news[SMS] = [(NOON, "accepted", None), (NOON + timedelta(minutes=1), "delivered", None)]
    return month


def a_decision(channel, contact, message, **more):
    given = {"type": "news", "channel": channel, "contact_id": str(contact), "outcome": "planned", "reason": None, "message_id": str(message)}
    return given | {"not_before": NOON.isoformat()} | more


def with_a_letter(month, *, let_go, state="accepted"):
    """A letter behind the SMS, in a chain."""
    month.decided[EVENT][1].append(a_decision("email", MAIL, LETTER, reason="fallback", not_before=let_go.isoformat()))
    month.messages[LETTER] = Message(LETTER, EVENT, ACCOUNT, "news", "email", MAIL, "a@example.org", state, None, FAR, let_go)
    month.claims.append((LETTER, let_go, "accepted"))
    month.news[LETTER] = [(NOON, "held", "fallback"), (let_go, "queued", "released"), (let_go, "accepted", None)]
    return month


def switched_back(month, *, minutes, service):
    """The event was of a service switched on; so many minutes from noon comes in that one was switched off."""
    kind = month.kinds.pop("news")
    month.kinds |= {"service.connected": kind, "service.disconnected": replace(kind, channels=("sms",), enabled=False)}
    month.sent_events[("/billing", "1")] = ("1", "service.connected")
    month.events[EVENT] = replace(month.events[EVENT], type="service.connected", service="tv")
    month.messages[SMS].type = "service.connected"
    month.decided[EVENT][1][0]["type"] = "service.connected"
    at = NOON + timedelta(minutes=minutes)
    other = UUID(int=int(at.timestamp() * 1000) << 80)
    month.events[other] = Event(other, ACCOUNT, "service.disconnected", "/billing", at, service)
    month.decided[other] = (
        at,
        [a_decision(None, PHONE, SMS) | {"type": "service.disconnected", "outcome": "skipped", "reason": "type_disabled", "channel": None, "contact_id": None}],
    )
    return month


def a_second_event(month, at=NOON):
    event_id, message_id = UUID(int=50), UUID(int=51)
    month.events[event_id] = replace(month.events[EVENT], id=event_id)
    month.decided[event_id] = (at, [a_decision("sms", PHONE, message_id, not_before=at.isoformat())])
    month.messages[message_id] = replace(month.messages[SMS], id=message_id, event_id=event_id)
    month.claims.append((message_id, at, "accepted"))


def faults_of(month):
    return [fault.partition(":")[0] for fault in Checker(month).check()]


def test_good_month_has_no_fault():
    assert faults_of(a_month()) == []


def forget_the_message(month):
    del month.messages[SMS]
    month.claims.clear()


def skip(reason, **more):
    def spoil(month):
        forget_the_message(month)
        month.decided[EVENT][1][0] |= {"outcome": "skipped", "reason": reason, **more}

    return spoil


def cancel(month):
    month.claims.clear()
    month.messages[SMS].state, month.messages[SMS].reason = "cancelled", "type_off"


def choose(**document):
    return lambda month: month.accounts[ACCOUNT].documents.append((LONG_AGO, document))


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda month: month.kept_events.clear(), "event was not kept"),
        (lambda month: month.decided.clear(), "event was not decided"),
        (forget_the_message, "planned message is not there"),
        (lambda month: setattr(month, "outbox", 1), "messages are left in the outbox"),
        (lambda month: month.claims.append((SMS, NOON, "accepted")), "went twice"),
        (lambda month: month.messages.update({LETTER: replace(month.messages[SMS], id=LETTER)}), "told twice"),
        (lambda month: month.claims.__setitem__(0, (SMS, NOON + 11 * HOUR, "accepted")), "outside its hours"),
        (choose(hours=[{"from": "14:00", "to": "02:00"}]), "outside its hours"),
        (choose(contacts={str(PHONE): {"hours": [{"weekdays": [1], "from": "00:00", "to": "00:00"}]}}), "outside its hours"),
        (choose(types={"news": {"enabled": False}}), "should not have gone"),
        (choose(types={"news": {"channels": {"sms": False}}}), "should not have gone"),
        (choose(contacts={str(PHONE): {"types": {"news": False}}}), "should not have gone"),
        (lambda month: month.bars.update({("sms", "+79160000001"): [Bar(LONG_AGO, FAR, dead=False)]}), "should not have gone"),
        (lambda month: setattr(month.accounts[ACCOUNT].contacts[PHONE], "proved", FAR), "should not have gone"),
        (lambda month: setattr(month.accounts[ACCOUNT].contacts[PHONE], "removed", NOON), "contact was removed"),
        (lambda month: setattr(month.messages[SMS], "expires_at", NOON), "went after its time"),
        (lambda month: month.decided[EVENT][1][0].update(not_before=(NOON + HOUR).isoformat()), "another hour"),
        (a_second_event, "too many in a day"),
        (skip("type_off"), "decided otherwise"),
        (skip("capped", detail="day"), "was not too much"),
        (skip("resolved", channel=None), "no such reason"),
        (cancel, "cancelled for no reason"),
        (lambda month: setattr(month.messages[SMS], "state", "queued"), "has not ended"),
    ],
)
def test_spoiled_month_has_its_fault(spoil, fault):
    month = deepcopy(a_month())
    spoil(month)

    assert fault in faults_of(month)


@pytest.mark.parametrize(
    ("came", "service", "state", "fault"),
    [
        (-30, "tv", "cancelled", []),
        (-30, "radio", "cancelled", ["cancelled for no reason"]),
        (30, "tv", "cancelled", ["cancelled for no reason"]),
        (-30, "tv", "delivered", ["told what was undone"]),
        (30, "tv", "delivered", []),
    ],
)
def test_what_was_undone_before_its_release_is_not_told_and_anything_else_is(came, service, state, fault):
    month = switched_back(a_month(), minutes=came, service=service)
    month.messages[SMS].state = state
    if state == "cancelled":
        month.messages[SMS].reason, month.claims, month.news = "resolved", [], {SMS: [(NOON, "cancelled", "resolved")]}
    else:
        month.news[SMS].insert(0, (NOON, "queued", "released"))

    assert faults_of(month) == fault


def test_message_that_did_not_wait_for_others_is_a_fault():
    assert "did not wait for others" in faults_of(a_month(coalesce=HOUR))


def test_two_of_a_type_too_close_to_each_other_are_a_fault():
    month = a_month(interval=HOUR, cap="operation")
    a_second_event(month, NOON + HOUR / 2)

    assert faults_of(month) == ["too soon after another"]


@pytest.mark.parametrize(
    ("let_go", "delivered", "fault"),
    [(31, False, []), (29, False, ["fallback too early"]), (31, True, ["was not needed"])],
)
def test_second_of_a_chain_has_to_wait_and_to_be_needed(let_go, delivered, fault):
    month = with_a_letter(a_month(channels=("sms", "email"), delivery="chain"), let_go=NOON + timedelta(minutes=let_go))
    if not delivered:
        month.news[SMS].pop()
        month.messages[SMS].state = "accepted"

    assert faults_of(month) == fault
