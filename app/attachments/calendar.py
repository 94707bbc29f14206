"""The day that a letter speaks of, for the subscriber's calendar (RFC 5545; METHOD:PUBLISH of RFC 5546, 3.2.1: to know, not to answer)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid5

from icalendar import Alarm, Calendar, Event

from app.attachments.event_data import day_in, sum_in
from app.attachments.statement import Statement
from app.attachments.words import Words

# Ten in the morning of the day before: an entry of a whole day begins at midnight.
BEFORE = timedelta(hours=-14)
LISTED = 20
NAMESPACE = UUID("0b5d5a4e-5f0d-4d53-9a53-7d5b0d0f6c1e")
_ERA = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Entry:
    """What happens on a day: `due` (a charge of this sum) or `exhausts` (this sum tops the account up, where it is known)."""

    what: str
    on: date
    amount: Decimal | None


def entry_of(statement: Statement, data: Mapping[str, Any]) -> Entry | None:
    """What the event speaks of; else what the account has ahead; nothing when there is nothing, or it is past."""
    ahead = statement.ahead
    first = min((line.on for line in statement.lines), default=None)
    asked = [
        (exhausts := day_in(data, "exhausts_on")) and Entry("exhausts", exhausts, sum_in(data, "recommended_payment", "shortfall")),
        (due := day_in(data, "due_on")) and Entry("due", due, sum_in(data, "total")),
        ahead.exhausts_on and Entry("exhausts", ahead.exhausts_on, ahead.recommended_payment),
        first and Entry("due", first, None),
    ]
    entry = next((entry for entry in asked if entry and entry.on >= statement.as_of), None)
    if entry is None or entry.what == "exhausts" or entry.amount is not None:
        return entry
    total = sum((line.amount for line in statement.lines if line.on == entry.on), Decimal("0.00"))
    return Entry("due", entry.on, total)


def as_ics(entry: Entry, statement: Statement, words: Words, moment: datetime, whose: str) -> bytes:
    """A calendar with one entry of a whole day, and an alarm on the day before.

    A later letter about the same thing moves the entry that is there: one end of the money is kept for an account, and one charge for each of its due days.
    """
    summary = words("exhausts", number=statement.number) if entry.what == "exhausts" else _due(entry, statement, words)
    event = Event()
    event.add("uid", str(uuid5(NAMESPACE, f"{whose}:{entry.what}" + (f":{entry.on.isoformat()}" if entry.what == "due" else ""))))
    event.add("dtstamp", moment.astimezone(UTC))
    event.add("sequence", max(0, int((moment - _ERA).total_seconds()) // 60))
    event.add("dtstart", entry.on)
    event.add("dtend", entry.on + timedelta(days=1))
    event.add("summary", summary)
    event.add("description", _described(entry, statement, words))
    event.add("transp", "TRANSPARENT")
    event.add("class", "PRIVATE")
    alarm = Alarm()
    alarm.add("action", "DISPLAY")
    alarm.add("description", summary)
    alarm.add("trigger", BEFORE)
    event.add_component(alarm)
    calendar = Calendar()
    calendar.add("prodid", "-//Vestnik//Reminders//EN")
    calendar.add("version", "2.0")
    calendar.add("method", "PUBLISH")
    calendar.add_component(event)
    written: bytes = calendar.to_ical()
    return written


def _due(entry: Entry, statement: Statement, words: Words) -> str:
    return words("due", sum=words.money(entry.amount or Decimal("0.00"), statement.currency), number=statement.number)


def _described(entry: Entry, statement: Statement, words: Words) -> str:
    said = [words("pay", sum=words.money(entry.amount, statement.currency))] if entry.what == "exhausts" and entry.amount else []
    lines = [line for line in statement.lines if (line.on == entry.on if entry.what == "due" else line.on <= entry.on)]
    if lines:
        said.append(words("charges"))
    said += [f"{words.day(line.on)} {line.title}: {words.money(line.amount, statement.currency)}" for line in lines[:LISTED]]
    return "\n".join([*said, "…"] if len(lines) > LISTED else said)
