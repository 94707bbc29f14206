"""JSON Schemas of operators: they say what is wrong, and cannot fetch, recurse or backtrack."""

import pytest

from app.catalogue import schemas
from app.catalogue.types import Checked, check_data, sample_of

OFFER = {
    "type": "object",
    "properties": {
        "code": {"type": "string", "pattern": "^[A-Z]+-[0-9]+$"},
        "until": {"type": "string", "format": "date"},
        "gifts": {"type": "array", "items": {"$ref": "#/$defs/gift"}},
    },
    "required": ["code"],
    "additionalProperties": False,
    "$defs": {"gift": {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}},
}


def test_data_that_fit_are_taken():
    assert isinstance(check_data("promo.offer", {"code": "SALE-10", "until": "2026-12-01", "gifts": [{"title": "Кот"}]}, OFFER), Checked)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({}, ("/data", "required")),
        ({"code": "sale"}, ("/data/code", "pattern")),
        ({"code": "A-" + "1" * 300}, ("/data/code", "pattern")),
        ({"code": "A-1", "until": "tomorrow"}, ("/data/until", "format")),
        ({"code": "A-1", "gifts": [{}]}, ("/data/gifts/0", "required")),
        ({"code": "A-1", "more": 1}, ("/data", "additionalProperties")),
        ({"code": "A-1", "gifts": [[[[[[[[[[1]]]]]]]]]]}, ("/data", "too_large")),
        ({"code": "A-1", "gifts": list(range(1001))}, ("/data", "too_large")),
        ({"code": "x" * 10_001}, ("/data", "too_large")),
    ],
)
def test_data_that_do_not_fit_are_refused_at_their_place_without_quoting_them(data, fault):
    faults = check_data("promo.offer", data, OFFER)

    assert isinstance(faults, list)
    assert (faults[0].pointer, faults[0].code) == fault
    assert "x" * 50 not in faults[0].detail


def test_a_balance_is_money_whatever_the_schema_says():
    assert [fault.code for fault in check_data("promo.offer", {"balance": 5}, {"type": "object"})] == ["money"]


@pytest.mark.parametrize("complete", [True, False])
def test_the_sample_of_a_schema_has_its_keys(complete):
    made = sample_of("promo.offer", OFFER, complete=complete)

    assert set(made) == ({"code", "until", "gifts"} if complete else {"code"})


def tower(height: int) -> dict:
    return {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(height)} | {f"d{height}": {}}


def nested(depth: int) -> dict:
    return {"items": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        ({"type": "objekt"}, "bad_schema"),
        ({"properties": {"a": {"minLength": "1"}}}, "bad_schema"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "unknown_dialect"),
        ({"$ref": "http://169.254.169.254/latest"}, "remote_reference"),
        ({"$ref": "file:///etc/passwd"}, "remote_reference"),
        ({"$id": "http://example.org/", "type": "object"}, "not_taken"),
        ({"$ref": "#"}, "remote_reference"),
        ({"$ref": "#/$defs/nowhere"}, "bad_schema"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "bad_schema"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"b": {"$ref": "#/$defs/a"}}}}}, "bad_schema"),
        ({"$ref": "#/$defs/d0", "$defs": tower(40)}, "too_large"),
        ({"description": "x" * 40_000}, "too_large"),
        (nested(60), "too_deep"),
        ({"properties": {"a": {"pattern": "("}}}, "bad_pattern"),
        ({"properties": {"a": {"pattern": "a" * 201}}}, "pattern_too_long"),
        ({"properties": {"a": {"pattern": "(a+)+$"}}}, "costly_pattern"),
        ({"properties": {"a": {"pattern": "^(a|aa)*$"}}}, "costly_pattern"),
        ({"properties": {"a": {"pattern": "^(a{1,30}){1,30}$"}}}, "costly_pattern"),
        ({"properties": {"a": {"pattern": "a*a*a*a*b"}}}, "costly_pattern"),
        ({"properties": {"a": {"pattern": r"^(a*)\1$"}}}, "costly_pattern"),
        ({"properties": {"a": {"pattern": "^x|.*.*.*y"}}}, "costly_pattern"),
        ({"patternProperties": {"^(x+x+)+y$": {}}}, "costly_pattern"),
    ],
)
def test_a_schema_that_could_do_harm_or_means_nothing_is_refused(schema, code):
    assert [fault[1] for fault in schemas.faults_of(schema)][:1] == [code]


@pytest.mark.parametrize("pattern", ["^[A-Z]{2}-[0-9]+$", r"^\+7[0-9]{10}$", "[a-z]+", "^(sms|email)$", r"^[^@]+@[^@]+$", "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"])
def test_ordinary_patterns_are_taken(pattern):
    assert schemas.faults_of({"properties": {"a": {"pattern": pattern}}}) == []


def test_the_offer_of_these_tests_is_taken():
    assert schemas.faults_of(OFFER) == []
