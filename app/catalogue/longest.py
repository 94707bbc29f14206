"""The longest data that are still plausible: what a text is measured with, so that nobody is surprised by its price.

Read off the same definition that intake checks by: the shape of a built-in type (as JSON Schema), or the schema of an operator's.
"""

from functools import cache
from typing import Any

from app.catalogue import schemas
from app.catalogue.types import EVENT_TYPES
from app.core.money import PATTERN, is_money

SUM, DEBT = "999999999999.99", "-999999999999.99"
NUMBER = "12345678901234567890"  # of an account
# 60 characters each, in letters that names have here: what is Latin otherwise goes to UCS-2 with them.
NAME = "Рождественская-Преображенская Александрина Всеволодовна (ИП)"
TITLE = "Домашний интернет «Максимум плюс» 1000 Мбит/с и кинотеатр 4K"
WORD = "Subscription-2026-XL"  # of what is written without spaces: codes, methods, periods
DAY = "2026-09-30"  # a Wednesday in September: in most languages no day is longer
MOST_ITEMS = 10  # of a list: charges of one day
WHOLE = 9999

_SUMS = {PATTERN: DEBT, PATTERN.replace("-?", ""): SUM}
_MOMENTS = {"date": DAY, "date-time": DAY + "T23:59:59+03:00"}


def longest_of(code: str, schema: dict[str, Any] | None = None, *, complete: bool = True) -> dict[str, Any]:
    """Data as they would be stored, each value as long as it may plausibly be: with every key of the type, or with none that may be left out.

    Sums have 12 digits, names and titles 60 characters, words 20, lists 10 items. Empty for a type that nobody has described."""
    if code in EVENT_TYPES:
        schema = _shape(code)
    made = _longest(schema, schema, complete=complete) if schema is not None else {}
    return made if isinstance(made, dict) else {}


@cache
def _shape(code: str) -> dict[str, Any]:
    return EVENT_TYPES[code].model_json_schema()


def _longest(schema: Any, root: dict[str, Any], *, complete: bool) -> Any:
    schema = schemas.resolved(schema, root)
    for inner in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        chosen = schemas.resolved(inner, root)
        if chosen.get("type") != "null":
            return _longest({**chosen, "examples": schema.get("examples") or chosen.get("examples")}, root, complete=complete)
    if "const" in schema or schema.get("enum"):
        return max(schema.get("enum") or [schema["const"]], key=lambda value: len(str(value)))
    kind = schema.get("type")
    kind = next((one for one in kind if one != "null"), "null") if isinstance(kind, list) else kind
    if kind == "object" or (kind is None and ("properties" in schema or schema is root)):
        properties, required = schema.get("properties", {}), schema.get("required", ())
        return {name: _longest(inner, root, complete=complete) for name, inner in properties.items() if complete or name in required}
    if kind == "array":
        return [_longest(schema.get("items", {}), root, complete=complete)] * int(min(schema.get("maxItems", MOST_ITEMS), MOST_ITEMS))
    if kind in ("integer", "number"):
        return schema.get("maximum", max(WHOLE, schema.get("minimum", 0)))
    if kind in ("boolean", "null"):
        return True if kind == "boolean" else None
    return _text(schema) if kind == "string" or not schema.keys() & {"allOf", "pattern", "format"} else _sample(schema, root)


def _text(schema: dict[str, Any]) -> Any:
    if schema.get("format") in _MOMENTS:
        return _MOMENTS[schema["format"]]
    if schema.get("pattern") in _SUMS:
        return _SUMS[schema["pattern"]]
    examples = [example for example in (*(schema.get("examples") or ()), schema.get("default")) if isinstance(example, str)]
    if "pattern" in schema or "format" in schema:  # only an example is sure to fit
        return max(examples, key=len) if examples else _sample(schema, {})
    if examples and is_money(examples[0]) and "." in examples[0]:
        return SUM
    text = TITLE if not examples or any(" " in example for example in examples) else NUMBER if examples[0].isdigit() else WORD
    return text[: max(1, int(schema.get("maxLength", len(text))))]


def _sample(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    return schemas.sample({"type": "object", "properties": {"it": schema}, "$defs": root.get("$defs", {})})["it"]
