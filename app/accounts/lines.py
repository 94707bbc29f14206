"""One line of an import. The shape that nearly all lines have is checked by hand here, four times as fast; anything else goes to `AccountLine`.

By hand a line is either taken exactly as the shape takes it, or not judged at all: what is wrong with a line, the shape alone says.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any, Final

import orjson
from pydantic import ValidationError

from app.accounts.contacts import AddressError, normalise
from app.accounts.preference_shapes import AccountLine, Said
from app.accounts.shapes import (
    FUTURE,
    MAX_ATTRIBUTES,
    MAX_CHARGES,
    MAX_CONTACTS,
    TOMBSTONE,
    is_known_currency,
    known_zones,
    tidy_locale,
)
from app.accounts.snapshots import Address, Charge, Snapshot, snapshot
from app.core.clock import now
from app.core.errors import Invalid
from app.core.http import has_nul
from app.core.money import is_money
from app.core.problems import invalid_from

LINE_OCTETS = 64 << 10
# Raise it when the same line comes to mean something else: then every line is read again.
MEANING = 1

# Offsets that there are on Earth, seconds always: whatever else may be an instant is for the shape to judge.
_instant = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?(?:Z|[+-](?:0\d|1[0-4]):[0-5]\d)", re.ASCII).fullmatch
_first_number = re.compile(rb'\{ ?"number": ?"([^"\\\x00-\x1f\x7f]{1,256})"').match
_day = re.compile(r"20\d\d-\d\d-\d\d", re.ASCII).fullmatch
_STATUSES = frozenset({"active", "suspended", "closed"})
_CONTACT = frozenset({"channel", "address", "label"})
_CHANNELS = frozenset({"sms", "email"})


class LineRejected(Exception):
    """Why one line cannot be taken."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


class _Unusual(Exception):
    """Nothing for the short way."""


class Reader:
    """Reads lines for an operator whose numbers without a country code are dialled in `region`."""

    def __init__(self, region: str) -> None:
        self._region = region
        # What a line means depends on the region: another one makes other digests.
        self._seed = blake2b(f"{MEANING}:{region}".encode(), digest_size=16).digest()

    def digest(self, said: bytes) -> int:
        """64 bits that stand for a line, or for a part of it."""
        return int.from_bytes(blake2b(said, digest_size=8, key=self._seed).digest(), "big", signed=True)

    def read(self, line: bytes, digest: int | None = None, lists: int | None = None) -> Snapshot:
        """One account, or LineRejected. It keeps the digest when the same line later would change nothing, unless something else does.

        Contacts and charges whose digest is `lists` are not looked at any further: `whole` of the snapshot reads them after all.
        """
        if len(line) > LINE_OCTETS:
            raise LineRejected("line_too_long", f"A line has at most {LINE_OCTETS} octets.")
        found = self._by_hand(line, digest, lists) or by_shape(line, self._region)
        if found.balance is None or found.balance_as_of is not None:  # otherwise it is of the moment at which it comes
            found.digest = digest
        return found

    def _by_hand(self, line: bytes, digest: int | None, lists: int | None) -> Snapshot | None:
        said = _object(line)
        if said is None:
            return None
        listed = {name: said[name] for name in ("contacts", "charges") if name in said}
        try:
            listed_digest = self.digest(orjson.dumps(listed)) if listed else None
            if listed_digest is None or listed_digest != lists:
                found = _plain(said, self._region)
            else:
                found = _plain({name: value for name, value in said.items() if name not in listed}, self._region)
                found.whole = partial(self.read, line, digest)
        except (_Unusual, AddressError, orjson.JSONEncodeError):  # the last: lists in lists in lists
            return None
        found.lists = listed_digest
        return found


def by_hand(line: bytes, region: str) -> Snapshot | None:
    """The account, if the line has the usual shape and nothing is wrong with it."""
    said = _object(line)
    try:
        return None if said is None else _plain(said, region)
    except (_Unusual, AddressError):
        return None


def _object(line: bytes) -> dict[str, Any] | None:
    """The JSON object, unless a NUL may be in it."""
    if b"\\u0000" in line:
        return None
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return said if type(said) is dict else None


def by_shape(line: bytes, region: str) -> Snapshot:
    """The account, or LineRejected."""
    try:
        given = AccountLine.model_validate_json(line)
        if b"\\u0000" in line and has_nul(given.model_dump()):
            raise LineRejected("nul_character", "A NUL character has no place in a text.")
        one = snapshot(given.number, given, region)
        if given.preferences is not None:
            one.preferences = Said.of(given.preferences)
        return one
    except ValidationError as error:
        found = invalid_from(error.errors(include_url=False, include_context=False, include_input=False))
    except Invalid as error:
        found = error
    code = found.errors[0].code
    if code == "json_invalid":
        raise LineRejected("malformed_json", found.errors[0].detail)
    raise LineRejected(code, found.detail)


def number_of(line: bytes) -> str | None:
    """The number that a line says it is of, if it can be told; of a line that is right it always can."""
    first = _first_number(line)
    # Said once, and by no key that is written with escapes: then no later one takes its place.
    if first is not None and b"\\u00" not in line and line.count(b'"number"') == 1:
        try:
            return first[1].decode()
        except UnicodeDecodeError:
            return None
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    number = said.get("number") if type(said) is dict else None
    return number if type(number) is str and "\0" not in number and "\n" not in number else None


def _plain(said: dict[str, Any], region: str) -> Snapshot:
    fields = {name: check(said[name]) for name, check in _FIELDS.items() if name in said}
    known, balance, balance_as_of, contacts, charges = len(fields) + 1, None, None, None, None
    if "balance" in said:
        known, balance = known + 1, _money(said["balance"])
        if "balance_as_of" in said:
            known, balance_as_of = known + 1, _instant_of(said["balance_as_of"])
            if balance_as_of is None or balance_as_of > now() + FUTURE:
                raise _Unusual
    if "contacts" in said:
        known, contacts = known + 1, _contacts(said["contacts"], region)
    if "charges" in said:
        known, charges = known + 1, _charges(said["charges"])
    number = said.get("number")
    if known != len(said) or not _is_text(number, 64) or not number or "/" in number or number in {".", ".."} or number.startswith(TOMBSTONE):
        raise _Unusual
    return Snapshot(number, fields, balance, balance_as_of, contacts, charges)


def _is_text(value: object, most: int) -> bool:
    # Printable is narrower than what is allowed: a no-break space goes the long way.
    return type(value) is str and len(value) <= most and value.isprintable()


def _line(value: Any) -> Any:
    if not _is_text(value, 300):
        raise _Unusual
    return value


def _money(value: Any) -> Decimal:
    if type(value) is not str or not is_money(value):
        raise _Unusual
    return Decimal(value)


def _non_negative(value: Any) -> Decimal:
    if type(value) is not str or not is_money(value) or value[0] == "-":
        raise _Unusual
    return Decimal(value)


def _one(allowed: Callable[[str], Any]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) is not str or not allowed(value):
            raise _Unusual
        return value

    return check


def _locale(value: Any) -> Any:
    tidy = tidy_locale(value) if type(value) is str and len(value) <= 16 else None
    if tidy is None:
        raise _Unusual
    return tidy


def _attributes(value: Any) -> Any:
    if type(value) is not dict or len(value) > MAX_ATTRIBUTES:
        raise _Unusual
    for name, content in value.items():
        kind = type(content)
        # Not a float: an integer beyond 64 bits has become one by now.
        fits = (kind is str and len(content) <= 1000) or kind is bool or content is None or (kind is int and -(2**63) <= content < 2**63)
        if not fits or not name or not _is_text(name, 64):
            raise _Unusual
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
        raise _Unusual
    return day


def _contacts(value: Any, region: str) -> list[Address]:
    if type(value) is not list or len(value) > MAX_CONTACTS:
        raise _Unusual
    found: dict[tuple[str, str], Address] = {}
    for contact in value:
        if type(contact) is not dict or not contact.keys() <= _CONTACT:
            raise _Unusual
        channel, address, label = contact.get("channel"), contact.get("address"), contact.get("label", "")
        if type(channel) is not str or channel not in _CHANNELS or type(address) is not str or not 0 < len(address) <= 320 or not _is_text(label, 100):
            raise _Unusual
        address = normalise(channel, address, region)
        found.setdefault((channel, address), (channel, address, label))
    return list(found.values())


def _charges(value: Any) -> list[Charge]:
    if type(value) is not list or len(value) > MAX_CHARGES:
        raise _Unusual
    found = [_charge(charge) for charge in value]
    if len({charge[0] for charge in found}) < len(found):
        raise _Unusual
    return found


def _charge(said: Any) -> Charge:
    if type(said) is not dict:
        raise _Unusual
    id_, title, kind, amount = said.get("id"), said.get("title"), said.get("kind"), said.get("amount")
    if type(id_) is not str or not 0 < len(id_) <= 100 or not id_.isprintable():
        raise _Unusual
    if type(title) is not str or not 0 < len(title) <= 300 or not title.isprintable():
        raise _Unusual
    if type(amount) is not str or not is_money(amount) or amount[0] == "-":
        raise _Unusual
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
        raise _Unusual
    if len(said) > known:
        if "start_on" in said:
            known, start_on = known + 1, _day_of(said["start_on"])
        if "end_on" in said:
            known, end_on = known + 1, _day_of(said["end_on"])
            if start_on is not None and end_on < start_on:
                raise _Unusual
        if "posted_through" in said:
            known, posted_through = known + 1, _day_of(said["posted_through"])
        if "announce" in said:
            known, announce = known + 1, said["announce"]
            if type(announce) is not bool:
                raise _Unusual
        if len(said) > known:  # something that has no place here
            raise _Unusual
    return _new_charge((id_, title, Decimal(amount), kind, slot, on, start_on, end_on, posted_through, announce))


# A third of the time of Charge(...), and there are three of them in a line.
_new_charge: Final[Callable[[tuple[Any, ...]], Charge]] = partial(tuple.__new__, Charge)


def _whole(value: Any, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise _Unusual
    return value
