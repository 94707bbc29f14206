import json
import random
from copy import deepcopy
from datetime import timedelta
from decimal import Decimal

import orjson
import pytest

from app.accounts.lines import LineRejected, Reader, by_hand, by_shape
from app.core.clock import now
from tests.accounts.conftest import GIVEN

CHARGES = [
    {"id": "s1", "title": "Home 100", "amount": "600.00", "kind": "monthly", "day": 31, "posted_through": "2026-01-01"},
    {"id": "s2", "title": "ТВ", "amount": "0", "kind": "daily", "start_on": "2026-01-01", "end_on": "2026-02-01", "announce": False},
    {"id": "s3", "title": "Router", "amount": "99.9", "kind": "once", "on": "2026-12-01"},
    {"id": "s4", "title": "Magazine", "amount": "10.50", "kind": "weekly", "weekday": 7},
]
USUAL = {"number": "100500"} | GIVEN | {"charges": CHARGES, "attributes": {"segment": "home", "floor": 3, "fibre": True, "note": None}}

# What a billing may write in the place of anything, right and wrong.
WRITTEN = [
    "", " ", "x", "a" * 64, "a" * 65, "a" * 101, "a" * 300, "a" * 301, "a" * 1001, "a/b", "..", "erased:1", "a\tb", "a\u00a0b", "a\u2028b", "\x7f", "\x85", "a\\b", '"', "\U0001f600", "\ud83d",
    "0", "1.5", "-0", "-0.00", "-1.00", "1e3", "+1", "01", "1.", ".5", "1.005", "123456789012.99", "1234567890123", "٣",
    "active", "closed", "erased", "sms", "email", "RUB", "rub", "ZZQ", "RUBB", "ru", "ru_RU", "klingon", "Europe/Moscow", "europe/moscow", "localtime", "UTC",
    "2026-01-01", "2026-02-29", "2028-02-29", "1999-12-31", "2100-01-01", "2199-12-31", "2200-01-01", "2026-1-1", "20260101", "2026-01-01T00:00:00",
    "2026-01-01T00:00:00Z", "2026-01-01t00:00:00z", "2026-01-01 00:00:00+03:00", "2026-01-01T24:00:00Z", "2026-01-01T00:00:60Z", "2026-01-01T00:00Z", "2026-01-01T00:00:00.5Z",
    "2026-01-01T00:00:00.123456+14:00", "2026-01-01T00:00:00+15:00", "2026-01-01T00:00:00-00:00", "2026-01-01T00:00:00+03:99", "1999-12-31T23:59:59Z", "2000-01-01T00:00:00+14:00", "2099-01-01T00:00:00Z",
    "+79161234567", "8 (916) 123-45-67", "+7916123456", "+78001234567", "+1234", "a@b.ru", "a@b", "A@B.RU", "a@b.ru ", "я@почта.рф", "a..b@c.ru",
    0, 1, 7, 8, 12, 13, 28, 31, 32, -1, 1.0, 1.5, 2**63 - 1, 2**63, -(2**63), 1e300, True, False, None, [], {}, [1], {"a": 1}, ["x"], {"": "x"}, {"a": "x" * 1001}, {"a\nb": 1}, {"a": 2**63}, {"a": 1.5}, {"a": []},
    [{"channel": "sms", "address": "+79161234567"}] * 20, [{"channel": "sms", "address": "+79161234567"}] * 21, {f"k{n}": n for n in range(51)}, "once", "yearly", "weekly", "monthly", "daily",
]  # fmt: skip
NAMES = ["number", *GIVEN, "nmae"]
CONTACT_NAMES = ["channel", "address", "label", "origin"]
CHARGE_NAMES = ["id", "title", "amount", "kind", "on", "weekday", "month", "day", "start_on", "end_on", "posted_through", "announce", "slot"]


def disturbed(chance):
    """A usual line in which a few things are something else, missing or twice."""
    said = deepcopy(USUAL)
    for _ in range(chance.randint(1, 3)):
        places = [(said, NAMES)]
        places += [
            (contact, CONTACT_NAMES) for contact in (said.get("contacts") if isinstance(said.get("contacts"), list) else []) if isinstance(contact, dict)
        ]
        places += [(charge, CHARGE_NAMES) for charge in (said.get("charges") if isinstance(said.get("charges"), list) else []) if isinstance(charge, dict)] * 2
        place, names = chance.choice(places)
        name = chance.choice(names)
        if chance.random() < 0.25:
            place.pop(name, None)
        else:
            place[name] = deepcopy(chance.choice(WRITTEN))
    for name in ("contacts", "charges"):
        if isinstance(said.get(name), list) and said[name] and chance.random() < 0.1:
            said[name].append(deepcopy(chance.choice(said[name])))
    return said


@pytest.mark.parametrize("seed", range(10))
def test_by_hand_a_line_is_taken_exactly_as_its_shape_takes_it_or_not_at_all(seed):
    chance, taken, refused = random.Random(seed), 0, 0
    for _ in range(2000):
        line = json.dumps(disturbed(chance), ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
        found = by_hand(line, "RU")
        try:
            expected = by_shape(line, "RU")
        except LineRejected:
            expected = None
            refused += 1
        if found is not None:
            taken += 1
            assert found == expected, line
            assert kinds(found) == kinds(expected), line
    assert taken > 100
    assert refused > 100


def kinds(found):
    charges = [(type(charge.amount), type(charge.slot), charge.amount.as_tuple(), charge.announce) for charge in found.charges or []]
    attributes = [(name, type(value)) for name, value in found.fields.get("attributes", {}).items()]
    return charges, attributes, list(found.fields.values()) and sorted((name, str(value)) for name, value in found.fields.items())


@pytest.mark.parametrize(
    "other",
    [{}, {"threshold": None}, {"charges": []}, {"contacts": [{"channel": "sms", "address": "8 916 123-45-67"}]}, {"name": "ООО «Ромашка»"}, {"attributes": {}}],
)
def test_usual_lines_need_no_shape(other):
    line = orjson.dumps(USUAL | other)

    assert by_hand(line, "RU") == by_shape(line, "RU")


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"null", b'"x"', b"{", b'{"number": "1"} x', b'{"number": "1", "name": "\\u0000"}', b'{"number": "1", "name": "\xff"}', b'{"number": "1", "attributes": {"a": NaN}}',
     b'{"number": "1", "attributes": {"a": 18446744073709551616}}', b'{"number": "1", "attributes": {"a": 1e999}}', b'{"name": "x"}', b'{"number": 1}'],
)  # fmt: skip
def test_nothing_wrong_is_taken_by_hand(line):
    assert by_hand(line, "RU") is None
    with pytest.raises(LineRejected):
        by_shape(line, "RU")


def test_balance_of_tomorrow_is_no_balance_by_hand_either():
    tomorrow = (now() + timedelta(days=1)).isoformat(timespec="seconds")

    assert by_hand(orjson.dumps(USUAL | {"balance_as_of": tomorrow}), "RU") is None


def test_line_keeps_its_digest_only_if_it_says_the_same_whenever_it_comes():
    reader = Reader("RU")

    assert reader.read(orjson.dumps({"number": "1", "balance": "1.00", "balance_as_of": "2026-01-01T00:00:00Z"}), 5).digest == 5
    assert reader.read(orjson.dumps({"number": "1", "name": "x"}), 5).digest == 5
    assert reader.read(orjson.dumps({"number": "1", "balance": "1.00"}), 5).digest is None
    assert reader.read(orjson.dumps({"number": "1", "balance": "1.00"}), 5).balance == Decimal("1.00")


def test_digest_depends_on_every_octet_and_on_the_region():
    line = orjson.dumps(USUAL)

    assert Reader("RU").digest(line) == Reader("RU").digest(line)
    assert Reader("RU").digest(line) != Reader("KZ").digest(line)
    assert Reader("RU").digest(line) != Reader("RU").digest(line + b" ")
    assert -(2**63) <= Reader("RU").digest(line) < 2**63


@pytest.mark.parametrize("change", [{"balance": "1.00"}, {"name": "x"}, {"contacts": []}, {"charges": CHARGES[1:]}, {"attributes": {}}])
def test_lists_are_passed_over_where_they_say_what_was_said_before(change):
    reader = Reader("RU")
    before = reader.read(orjson.dumps(USUAL), 1)
    line = orjson.dumps(USUAL | change)

    found = reader.read(line, 2, before.lists)

    same = not {"contacts", "charges"} & change.keys()
    assert (found.lists == before.lists, found.whole is not None) == (same, same)
    assert (found.contacts is None and found.charges is None) == same
    whole = found.whole() if found.whole else found
    assert whole == by_shape(line, "RU")
    assert (whole.digest, whole.lists) == (2, found.lists)


def test_lists_that_were_not_said_or_cannot_be_read_by_hand_have_no_digest():
    reader = Reader("RU")

    assert reader.read(orjson.dumps({"number": "1", "name": "x"})).lists is None
    assert reader.read(orjson.dumps(USUAL | {"name": "no-break\u00a0space"})).lists is None
    assert reader.read(orjson.dumps(USUAL)).lists != Reader("KZ").read(orjson.dumps(USUAL)).lists


def test_abyss_of_brackets_in_the_lists_is_a_rejected_line():
    line = b'{"number": "1", "contacts": ' + b"[" * 500 + b"]" * 500 + b"}"

    with pytest.raises(LineRejected):
        Reader("RU").read(line, 1)
