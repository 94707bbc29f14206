"""The longest plausible data: still data of their type."""

import pytest

from app.catalogue.longest import MOST_ITEMS, NAME, NUMBER, SUM, TITLE, WORD, longest_of
from app.catalogue.schemas import check
from app.catalogue.types import EVENT_TYPES, check_data, sample_of

SCHEMA = {
    "type": "object",
    "required": ["sum", "lines"],
    "properties": {
        "sum": {"type": "string", "examples": ["5.00"]},
        "who": {"type": ["null", "string"], "maxLength": 30.0},
        "code": {"type": "string", "examples": ["AB-1"]},
        "part": {"type": "string", "pattern": "^[A-Z][0-9]$", "examples": ["A1"]},
        "mail": {"type": "string", "format": "email", "examples": ["a@b.example"]},
        "when": {"anyOf": [{"type": "null"}, {"type": "string", "format": "date-time"}]},
        "kind": {"enum": ["a", "longest", "b"]},
        "number": {"type": "integer", "maximum": 5},
        "yes": {"type": "boolean"},
        "lines": {"type": "array", "maxItems": 3, "items": {"$ref": "#/$defs/line"}},
    },
    "$defs": {"line": {"type": "object", "properties": {"title": {"type": "string"}}}},
}


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("code", EVENT_TYPES)
def test_intake_would_take_them(code, complete):
    made = longest_of(code, complete=complete)

    assert made.keys() == sample_of(code, complete=complete).keys()
    assert not isinstance(check_data(code, made), list)


def test_they_are_as_long_as_said():
    charge = longest_of("charges.upcoming")["charges"]

    assert (len(NAME), len(TITLE), len(NUMBER), len(WORD)) == (60, 60, 20, 20)
    assert len(charge) == MOST_ITEMS
    assert charge[0] == {"id": WORD, "title": TITLE, "amount": SUM}
    assert longest_of("contact.verification")["code"] == NUMBER


def test_operators_schema_is_kept_to():
    made = longest_of("promo.offer", SCHEMA)

    assert check(SCHEMA, made) == []
    assert made["sum"] == SUM
    assert len(made["who"]) == 30
    assert (made["code"], made["kind"], made["number"], len(made["lines"])) == (WORD, "longest", 5, 3)
    assert longest_of("promo.offer", SCHEMA, complete=False).keys() == {"sum", "lines"}


def test_schema_that_asks_for_a_billion_items_gets_ten():
    schema = {"type": "object", "properties": {"many": {"type": "array", "minItems": 10**9, "items": {"type": "string"}}}}

    assert longest_of("promo.offer", schema) == {"many": [TITLE] * MOST_ITEMS}


def test_type_that_nobody_has_described_has_none():
    assert longest_of("promo.offer") == {}
