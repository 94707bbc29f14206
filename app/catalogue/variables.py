"""Every name that a template of a type may use: kind, example, whether it may be empty, and a sentence in Russian and English.

What comes from the event is read off the shape that intake checks it by (`types.EVENT_TYPES`), or off the JSON Schema of an operator's type; the sentences stand
in `wording/variables.toml`, under the variable's name, or under `type:name` where a type means something of its own by it.
"""

import tomllib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from app.catalogue import schemas
from app.catalogue.types import EVENT_TYPES, sample_of

Kind = Literal["money", "date", "text", "number", "list", "moment", "bool"]
Said = Mapping[str, str]

WORDING = Path(__file__).parent / "wording" / "variables.toml"
# The schema of an operator may nest further than anybody reads.
DEEPEST, MOST = 6, 500


@dataclass(frozen=True, slots=True)
class Variable:
    """`name` is what a template writes: `amount`, `service.name`; of an item of a list what stands behind the loop's own name, `""` for a plain item."""

    name: str
    kind: Kind
    example: Any
    may_be_empty: bool
    description: Said
    items: tuple["Variable", ...] = ()


# What a template is told whatever the type: (name, kind, example, may be empty).
COMMON: tuple[tuple[str, Kind, Any, bool], ...] = (
    ("account.number", "text", "100500", False),
    ("account.name", "text", "Subscriber", True),
    ("account.balance", "money", "612.30", False),
    ("account.credit_limit", "money", "0.00", False),
    ("account.available", "money", "612.30", False),
    ("account.currency", "text", "RUB", False),
    ("account.tariff", "text", "Home 100", True),
    ("account.threshold", "money", "50.00", True),
    ("account.status", "text", "active", False),
    ("account.attributes.*", "text", "home", True),
    ("contact.address", "text", "+79161234567", False),
    ("contact.label", "text", "work", True),
    ("event.type", "text", None, False),
    ("event.time", "moment", "2026-11-23T10:00:00+03:00", False),
    ("now", "moment", "2026-11-23T10:00:00+03:00", False),
    ("links.cabinet", "text", "https://example.org/cabinet", True),
    ("links.unsubscribe", "text", "https://example.org/unsubscribe/sample", True),
    ("brand.name", "text", "MyISP", True),
    ("brand.colours.primary", "text", "#1f5fd0", False),
    ("brand.colours.background", "text", "#eef1f5", False),
    ("brand.colours.text", "text", "#3a4653", False),
    ("brand.logo", "text", "cid:logo", True),
    ("brand.links.cabinet", "text", "https://example.org/cabinet", True),
    ("brand.links.site", "text", "https://example.org", True),
    ("brand.footer", "text", "MyISP, 1 Example Street", True),
    ("brand.reply_to", "text", "help@example.org", True),
)
# Names that data of an event cannot hide: `data.account` reaches a key of this name.
TAKEN = frozenset({name.partition(".")[0] for name, *_ in COMMON} | {"data"})


def variables_for(code: str, schema: dict[str, Any] | None = None) -> list[Variable]:
    """The variables of a type, those of every type first. An operator's type without a schema has these alone: its data are known to nobody."""
    common = [Variable(name, kind, code if name == "event.type" else example, empty, _said(code, name)) for name, kind, example, empty in COMMON]
    own = data_of(code, schema)
    names = {variable.name for variable in own}
    several = [
        Variable("count", "number", 1, False, _said(code, "count")),
        Variable("events", "list", [sample_of(code, schema)], False, _said(code, "events"), tuple(own)),
    ]
    return [*common, *(variable for variable in several if variable.name not in names), *own]


def data_of(code: str, schema: dict[str, Any] | None = None) -> list[Variable]:
    """What the events of a type bring."""
    shape = EVENT_TYPES.get(code)
    if shape is not None:
        return list(_of_shape(shape, code, ""))
    if schema is None:
        return []
    return list(_of_schema(schema, schemas.sample(schema)))


def _of_shape(shape: type[BaseModel], code: str, front: str, *, optional: bool = False) -> Iterator[Variable]:
    """`front` is what stands before the names of this shape: `service.`, `charges[].`."""
    for name, field in shape.model_fields.items():
        inner = _bare(field.annotation)
        empty = optional or not field.is_required()
        path = front + name
        shown = path.rpartition("[].")[2]
        if get_origin(inner) is list:
            item = _bare(get_args(inner)[0])
            items = tuple(_of_shape(item, code, f"{path}[]."))
            yield Variable(shown, "list", [{one.name: one.example for one in items}], empty, _said(code, path), items)
        elif isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _of_shape(inner, code, f"{path}.", optional=empty)
        else:
            yield Variable(shown, _kind(inner), _example(field), empty, _said(code, path))


def _bare(annotation: Any) -> Any:
    """The type beneath Annotated and `| None`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _bare(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return next(_bare(member) for member in get_args(annotation) if member is not type(None))
    return annotation


def _kind(annotation: Any) -> Kind:
    known: dict[Any, Kind] = {Decimal: "money", date: "date", int: "number", float: "number", bool: "bool"}
    return known.get(annotation, "text")


def _example(field: FieldInfo) -> Any:
    return field.examples[0] if field.examples else None


def _of_schema(
    schema: dict[str, Any], sample: Any, front: str = "", *, optional: bool = False, depth: int = 0, root: dict[str, Any] | None = None
) -> Iterator[Variable]:
    root = schema if root is None else root
    required = schema.get("required", ())
    for name, inner in list(schema.get("properties", {}).items())[:MOST]:
        made = schemas.resolved(inner, root)
        said = str(made.get("description") or made.get("title") or "")[:500]
        example = sample.get(name) if isinstance(sample, dict) else None
        kinds = made.get("type", "object" if "properties" in made else "string")
        kinds = kinds if isinstance(kinds, list) else [kinds]
        empty = optional or name not in required or "null" in kinds
        path = f"data.{name}" if not front and name in TAKEN else front + name
        description = {"ru": said, "en": said}
        if "object" in kinds and made.get("properties") and depth < DEEPEST:
            yield from _of_schema(made, example, f"{path}.", optional=empty, depth=depth + 1, root=root)
        elif "array" in kinds:
            item = schemas.resolved(made.get("items", {}), root)
            first = example[0] if isinstance(example, list) and example else None
            items: tuple[Variable, ...] = ()
            if depth < DEEPEST:
                items = tuple(_of_schema(item, first, depth=depth + 1, root=root)) if "properties" in item else (_plain_item(item, first),)
            yield Variable(path, "list", example, empty, description, items)
        else:
            yield Variable(path, _kind_of_schema(made, kinds), example, empty, description)


def _plain_item(schema: dict[str, Any], example: Any) -> Variable:
    kinds = schema.get("type", "string")
    said = str(schema.get("description") or schema.get("title") or "")[:500]
    return Variable("", _kind_of_schema(schema, kinds if isinstance(kinds, list) else [kinds]), example, "null" in kinds, {"ru": said, "en": said})


def _kind_of_schema(schema: dict[str, Any], kinds: list[Any]) -> Kind:
    by_format: dict[Any, Kind] = {"date": "date", "date-time": "moment"}
    by_type: dict[Any, Kind] = {"integer": "number", "number": "number", "boolean": "bool", "array": "list"}
    if "string" in kinds and schema.get("format") in by_format:
        return by_format[schema["format"]]
    return next((by_type[kind] for kind in kinds if kind in by_type), "text")


def _said(code: str, name: str) -> Said:
    words = wording()
    return words.get(f"{code}:{name}") or words[name]


@cache
def wording() -> Mapping[str, Said]:
    """`{"amount": {"ru": ..., "en": ...}, "balance.restored:amount": ...}`."""
    return tomllib.loads(WORDING.read_text("utf-8"))
