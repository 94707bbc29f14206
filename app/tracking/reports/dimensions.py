"""What a report is asked by: a period of local days, groups, filters."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from zoneinfo import ZoneInfo

from app.core.errors import field_invalid

# group -> columns of it
GROUPS: dict[str, tuple[str, ...]] = {
    "day": ("day",),
    "hour": ("hour",),
    "type": ("type",),
    "channel": ("channel",),
    "gateway": ("gateway",),
    "route": ("route",),
    "sender": ("sender",),
    "operator": ("operator",),
    "template": ("template_id", "template_version"),
    "state": ("state",),
    "reason": ("reason",),
}
TIMES = ("day", "hour")
FILTERS = ("type", "channel", "gateway", "route", "sender", "operator", "template_id", "template_version", "state", "reason")
BILLED = ("day", "gateway", "sender", "operator")  # what an SMSC's invoice may be split by

LONGEST = 92  # days that a request may ask for; an export may ask for more
LONGEST_EXPORT = 1100
MOST_HOURS = 31  # days by the hour


@dataclass(frozen=True, slots=True)
class Period:
    """Whole days on the clock of VESTNIK_TIMEZONE, the last one too."""

    first: dt.date
    last: dt.date
    zone: str

    @classmethod
    def checked(cls, first: dt.date, last: dt.date, zone: str, longest: int = LONGEST, where: tuple[str, str] = ("from", "to")) -> Self:
        """Or Invalid, with what to change."""
        if last < first:
            raise field_invalid(("query", where[1]), "period_reversed", f"`{where[1]}` is the last day of the period: it may not be before `{where[0]}`.")
        if not dt.date(2000, 1, 1) <= first <= last <= dt.date(2999, 12, 31):
            raise field_invalid(("query", where[0]), "period_out_of_range", "Ask for days between 2000 and 2999.")
        if (last - first).days >= longest:
            more = "" if longest == LONGEST_EXPORT else f" POST /reports/exports writes up to {LONGEST_EXPORT} days into a file."
            raise field_invalid(("query", where[1]), "period_too_long", f"Ask for at most {longest} days at once.{more}")
        return cls(first, last, zone)

    @property
    def begins(self) -> dt.datetime:
        return dt.datetime.combine(self.first, dt.time(), ZoneInfo(self.zone)).astimezone(dt.UTC)

    @property
    def ends(self) -> dt.datetime:
        """The first moment after it."""
        return dt.datetime.combine(self.last + dt.timedelta(days=1), dt.time(), ZoneInfo(self.zone)).astimezone(dt.UTC)

    def starts(self, grain: str) -> list[dt.datetime]:
        """When each day, or each hour, of it begins. A clock that is put forward or back makes a day of other than 24 hours, each of them an hour long."""
        if grain == "day":
            return [Period(day, day, self.zone).begins for day in (self.first + dt.timedelta(days=n) for n in range((self.last - self.first).days + 1))]
        hours = int((self.ends - self.begins) / dt.timedelta(hours=1) + 0.99)
        return [self.begins + dt.timedelta(hours=n) for n in range(hours)]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A report: the period, the groups in their order, and for each filter the values that are counted (an empty text stands for none)."""

    period: Period
    groups: tuple[str, ...] = ()
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        return [column for group in self.groups for column in GROUPS[group]]

    @property
    def grain(self) -> str | None:
        """`hour` or `day` where the report is by time."""
        return "hour" if "hour" in self.groups else "day" if "day" in self.groups else None


def groups_of(text: str, allowed: Sequence[str] = tuple(GROUPS)) -> tuple[str, ...]:
    """`day,type` as groups, each once; Invalid where one is unknown."""
    found = dict.fromkeys(word.strip() for word in text.split(",") if word.strip())
    for word in found:
        if word not in allowed:
            raise field_invalid(("query", "group_by"), "unknown_group", f"There is no group {word[:40]!r}: use {', '.join(allowed)}, with commas between them.")
    return tuple(found)


def conditions(filters: Mapping[str, Sequence[str]], table: str) -> tuple[str, dict[str, Any]]:
    """SQL that follows a WHERE clause, and its parameters."""
    texts = {name: f"CAST({table}.{name} AS text)" if name.startswith("template") else f"{table}.{name}" for name in filters}
    clauses = [f" AND coalesce({text}, '') = ANY(CAST(:only_{name} AS text[]))" for name, text in texts.items()]
    return "".join(clauses), {f"only_{name}": list(values) for name, values in filters.items()}
