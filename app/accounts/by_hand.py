"""The shape that nearly all lines of an import have, checked by hand, twice as fast; anything else goes to `AccountLine`.

By hand a line is either taken exactly as the shape takes it, or not judged at all: what is wrong with a line, the shape alone says.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any, Final

from app.accounts.contacts import normalise
from app.accounts.shapes import FUTURE, MAX_ATTRIBUTES, MAX_CHARGES, MAX_CONTACTS, TOMBSTONE, is_known_currency, known_zones, tidy_locale
from app.accounts.snapshots import Address, Charge, Snapshot
from app.core.clock import now
from app.core.money import is_money

# Offsets that there are on Earth, seconds always: whatever else may be an instant is for the shape to judge.
_instant = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?(?:Z|[+-](?:0\d|1[0-4]):[0-5]\d)", re.ASCII).fullmatch
_day = re.compile(r"20\d\d-\d\d-\d\d", re.ASCII).fullmatch
_STATUSES = frozenset({"active", "suspended", "closed"})
_CONTACT = frozenset({"channel", "address", "label"})
_CHANNELS = frozenset({"sms", "email"})


class Unusual(Exception):
    """Nothing for the short way."""


def plain(said: dict[str, Any], region: str) -> Snapshot:
    """The account. Unusual or AddressError: nothing for the short way."""
    try:
        fields = {name: check(said[name]) for name, check in _FIELDS.items() if name in said}
    except TypeError:  # a list where a text belongs: nothing that has been remembered
        raise Unusual from None
    known, balance, balance_as_of, contacts, charges = len(fields) + 1, None, None, None, None
    if "balance" in said:
        known, balance = known + 1, _money(said["balance"])
        if "balance_as_of" in said:
            known, balance_as_of = known + 1, _instant_of(said["balance_as_of"])
            if balance_as_of is None or balance_as_of > now() + FUTURE:
                raise Unusual
    if "contacts" in said:
        known, contacts = known + 1, _contacts(said["contacts"], region)
    if "charges" in said:
        known, charges = known + 1, _charges(said["charges"])
    number = said.get("number")
    if known != len(said) or not _is_text(number, 64) or not number or "/" in number or number in {".", ".."} or number.startswith(TOMBSTONE):
        raise Unusual
    return Snapshot(number, fields, balance, balance_as_of, contacts, charges)


def _is_text(value: object, most: int) -> bool:
    # Printable is narrower than what is allowed: a no-break space goes the long way.
    return type(value) is str and len(value) <= most and value.isprintable()


def _line(value: Any) -> Any:
    if not _is_text(value, 300):
        raise Unusual
    return value


def _money(value: Any) -> Decimal:
    if type(value) is not str or not is_money(value):
        raise Unusual
    return Decimal(value)


def _non_negative(value: Any) -> Decimal:
    if type(value) is not str or not is_money(value) or value[0] == "-":
        raise Unusual
    return Decimal(value)


def _one(allowed: Callable[[str], Any]) -> Callable[[Any], Any]:
    @lru_cache(maxsize=1024)
    def check(value: Any) -> Any:
        if type(value) is not str or not allowed(value):
            raise Unusual
        return value

    return check


@lru_cache(maxsize=1024)
def _locale(value: Any) -> Any:
    tidy = tidy_locale(value) if type(value) is str and len(value) <= 16 else None
    if tidy is None:
        raise Unusual
    return tidy


def _attributes(value: Any) -> Any:
    if type(value) is not dict or len(value) > MAX_ATTRIBUTES:
        raise Unusual
    for name, content in value.items():
        kind = type(content)
        # Not a float: an integer beyond 64 bits has become one by now.
        fits = (kind is str and len(content) <= 1000) or kind is bool or content is None or (kind is int and -(2**63) <= content < 2**63)
        if not fits or not name or not _is_text(name, 64):
            raise Unusual
    return value


_FIELDS: Final[dict[str, Callable[[Any], Any]]] = {
    "name": _line,
    "status": _one(_STATUSES.__contains__),
    "credit_limit": _non_negative,
    "currency": _one(lambda code: len(code) == 3 and code.isascii() and code.isalpha() and code.isupper() and is_known_currency(code)),
    "locale": _locale,
    "timezone": _one(lambda zone: zone in known_zones()),
    "tariff": _line,
    "threshold": lambda value: None if value is None else _money(value),
    "attributes": _attributes,
}


@lru_cache(maxsize=4096)
def _parsed_instant(value: str) -> datetime | None:
    if not _instant(value):
        return None
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except ValueError:
        return None


def _instant_of(value: Any) -> datetime | None:
    return _parsed_instant(value) if type(value) is str else None


@lru_cache(maxsize=8192)
def _parsed_day(value: str) -> date | None:
    try:
        return date.fromisoformat(value) if _day(value) else None
    except ValueError:
        return None


def _day_of(value: Any) -> date:
    day = _parsed_day(value) if type(value) is str else None
    if day is None:
        raise Unusual
    return day


def _contacts(value: Any, region: str) -> list[Address]:
    if type(value) is not list or len(value) > MAX_CONTACTS:
        raise Unusual
    found: dict[tuple[str, str], Address] = {}
    for contact in value:
        if type(contact) is not dict or not contact.keys() <= _CONTACT:
            raise Unusual
        channel, address, label = contact.get("channel"), contact.get("address"), contact.get("label", "")
        if type(channel) is not str or channel not in _CHANNELS or type(address) is not str or not 0 < len(address) <= 320 or not _is_text(label, 100):
            raise Unusual
        address = normalise(channel, address, region)
        found.setdefault((channel, address), (channel, address, label))
    return list(found.values())


def _charges(value: Any) -> list[Charge]:
    if type(value) is not list or len(value) > MAX_CHARGES:
        raise Unusual
    found = [_charge(charge) for charge in value]
    if len({charge[0] for charge in found}) < len(found):
        raise Unusual
    return found


def _charge(said: Any) -> Charge:
    if type(said) is not dict:
        raise Unusual
    id_, title, kind, amount = said.get("id"), said.get("title"), said.get("kind"), said.get("amount")
    if type(id_) is not str or not 0 < len(id_) <= 100 or not id_.isprintable():
        raise Unusual
    if type(title) is not str or not 0 < len(title) <= 300 or not title.isprintable():
        raise Unusual
    if type(amount) is not str or not is_money(amount) or amount[0] == "-":
        raise Unusual
    slot, known, on, start_on, end_on, posted_through, announce = 0, 5, None, None, None, None, True
    if kind == "monthly":
        slot = _whole(said.get("day"), 31)
    elif kind == "once":
        on = _day_of(said.get("on"))
    elif kind == "weekly":
        slot = _whole(said.get("weekday"), 7)
    elif kind == "daily":
        known = 4
    else:  # those of once a year: few enough for the shape
        raise Unusual
    if len(said) > known:
        if "start_on" in said:
            known, start_on = known + 1, _day_of(said["start_on"])
        if "end_on" in said:
            known, end_on = known + 1, _day_of(said["end_on"])
            if start_on is not None and end_on < start_on:
                raise Unusual
        if "posted_through" in said:
            known, posted_through = known + 1, _day_of(said["posted_through"])
        if "announce" in said:
            known, announce = known + 1, said["announce"]
            if type(announce) is not bool:
                raise Unusual
        if len(said) > known:  # something that has no place here
            raise Unusual
    return _new_charge((id_, title, Decimal(amount), kind, slot, on, start_on, end_on, posted_through, announce))


# A third of the time of Charge(...), and there are three of them in a line.
_new_charge: Final[Callable[[tuple[Any, ...]], Charge]] = partial(tuple.__new__, Charge)


def _whole(value: Any, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise Unusual
    return value
