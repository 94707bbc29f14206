"""The day for the subscriber's calendar, read back by a calendar's own parser."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from icalendar import Calendar

from app.attachments.calendar import Entry, as_ics, entry_of
from app.attachments.words import words_of
from tests.builders.statements import DAY, a_statement

MOMENT = datetime(2026, 1, 10, 9, 30, tzinfo=UTC)


def read(entry, statement, moment=MOMENT, locale="ru", whose="a"):
    calendar = Calendar.from_ical(as_ics(entry, statement, words_of(locale), moment, whose))
    (event,) = calendar.walk("VEVENT")
    return calendar, event


def test_the_end_of_the_money_is_a_whole_day_with_an_alarm_the_day_before():
    statement = a_statement([(2, "1200.00", "Интернет, «Дом»; 100")])
    entry = entry_of(statement, {"exhausts_on": "2026-01-12", "recommended_payment": "200.00"})

    calendar, event = read(entry, statement)

    assert (calendar["METHOD"], calendar["VERSION"]) == ("PUBLISH", "2.0")
    assert event["SUMMARY"] == "Закончатся деньги: лицевой счёт 100500"
    assert event["DESCRIPTION"].split("\n") == ["Пополните счёт на 200,00\u00a0₽.", "Будет списано:", "12.01.2026 Интернет, «Дом»; 100: 1\u00a0200,00\u00a0₽"]
    assert (event["DTSTART"].dt, event["DTEND"].dt, event["DTSTAMP"].dt) == (date(2026, 1, 12), date(2026, 1, 13), MOMENT)
    (alarm,) = event.walk("VALARM")
    assert (alarm["ACTION"], alarm["TRIGGER"].dt) == ("DISPLAY", timedelta(hours=-14))


def test_a_due_day_has_the_sum_of_its_charges():
    statement = a_statement([(2, "100.00", "TV"), (2, "50.00", "Net"), (3, "7.00", "Later")])

    _, event = read(entry_of(statement, {"due_on": "2026-01-12", "total": "150.00"}), statement, locale="en")

    assert event["SUMMARY"] == "Charge of 150.00\u00a0RUB: account 100500"
    assert event["DESCRIPTION"].split("\n") == ["To be charged:", "12 Jan 2026 TV: 100.00\u00a0RUB", "12 Jan 2026 Net: 50.00\u00a0RUB"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            {"exhausts_on": date(2026, 1, 20), "recommended_payment": Decimal("0.00"), "shortfall": Decimal("5.00")},
            Entry("exhausts", date(2026, 1, 20), Decimal("5.00")),
        ),
        ({"due_on": date(2026, 1, 11)}, Entry("due", date(2026, 1, 11), Decimal("30.00"))),
        ({"exhausts_on": "2026-01-09", "due_on": "2026-01-11"}, Entry("due", date(2026, 1, 11), Decimal("30.00"))),
        ({"exhausts_on": "tomorrow", "due_on": 5, "total": []}, Entry("due", date(2026, 1, 11), Decimal("30.00"))),
        ({}, Entry("due", date(2026, 1, 11), Decimal("30.00"))),
    ],
)
def test_the_event_says_the_day_and_else_the_account_does(data, expected):
    assert entry_of(a_statement([(1, "30.00", "TV")]), data) == expected


def test_where_the_money_ends_by_itself_that_is_told_before_any_charge():
    statement = a_statement([(1, "900.00", "TV"), (4, "900.00", "Net")])

    assert entry_of(statement, {}) == Entry("exhausts", DAY + timedelta(days=4), Decimal("800.00"))


def test_where_nothing_is_ahead_there_is_no_entry():
    assert entry_of(a_statement(), {"amount": "5.00"}) is None


def test_a_later_letter_moves_the_end_of_the_money_and_leaves_due_days_alone():
    statement = a_statement([(5, "1200.00", "TV")])

    def sent(what: str, day: int, *, minutes: int = 0, whose: str = "a") -> tuple[str, int]:
        _, event = read(Entry(what, date(2026, 1, day), Decimal("1.00")), statement, MOMENT + timedelta(minutes=minutes), whose=whose)
        return event["UID"], event["SEQUENCE"]

    assert sent("exhausts", 15) == sent("exhausts", 15)
    assert sent("exhausts", 15)[0] == sent("exhausts", 18, minutes=5)[0]
    assert sent("exhausts", 18, minutes=5)[1] == sent("exhausts", 15)[1] + 5
    assert sent("due", 15)[0] != sent("due", 18)[0]
    assert sent("exhausts", 15)[0] != sent("exhausts", 15, whose="b")[0]
    assert 0 < sent("due", 15)[1] < 2**31


def test_a_hostile_name_adds_no_line_to_the_calendar():
    statement = a_statement([(1, "5.00", "TV\r\nEND:VEVENT\r\nATTENDEE:mailto:x@example.org")], number="1\r\nURL:http://x.example")

    calendar, event = read(entry_of(statement, {}), statement)

    assert len(calendar.walk()) == 3
    assert {"ATTENDEE", "URL"}.isdisjoint(event)
    assert "TV END:VEVENT ATTENDEE:mailto:x@example.org" in event["DESCRIPTION"]


def test_a_hundred_charges_are_listed_in_part():
    statement = a_statement([(1, "5.00", f"TV {n}") for n in range(100)])

    _, event = read(entry_of(statement, {}), statement)

    assert event["DESCRIPTION"].count("TV") == 20
    assert event["DESCRIPTION"].endswith("…")
