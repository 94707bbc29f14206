"""JSON Schemas of operators (Draft 2020-12): checked when they are stored, compiled once, bounded when they are applied.

A schema is a program from outside. It may not fetch (no remote $ref), not run away (no recursion, no tower of references) and not
backtrack for ever (the ways in which a pattern can match are counted before it is taken).
"""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry

from app.core.errors import FieldError, pointer

try:  # the parser of `re` moved in 3.11, and typeshed has neither name for it
    from re import _parser as sre  # type: ignore[attr-defined]
except ImportError:  # pragma: no cover
    import sre_parse as sre

LARGEST = 32 * 1024  # octets of a schema
LONGEST_PATTERN = 200
LONGEST_MATCHED = 256  # characters of a string that a pattern is tried on
MOST_WAYS = 20_000_000  # steps that a pattern may take at the worst: a fraction of a second
MOST_NODES = 10_000  # subschemas with every reference followed
DEEPEST, MOST_VALUES, LONGEST_VALUE = 8, 1000, 10_000  # of the data themselves

_COMPILED: dict[int, tuple[dict[str, Any], Any]] = {}


def check(schema: dict[str, Any], data: dict[str, Any]) -> list[FieldError]:
    """What is wrong with the data by this schema; pointers begin with `/data`."""
    if not _bounded(data):
        return [FieldError("/data", "too_large", "Send at most 1,000 values, at most 8 levels deep, of at most 10,000 characters.")]
    found: list[FieldError] = []
    for fault in _validator(schema).iter_errors(data):
        found.append(FieldError(pointer("data", *fault.absolute_path), str(fault.validator), _sentence(fault)))
        if len(found) == 50:
            break
    return found


def faults_of(schema: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Why this schema cannot be taken: (pointer into it, code, sentence). Empty: it can."""
    if len(orjson.dumps(schema)) > LARGEST:
        return [("", "too_large", "Keep the schema under 32 KiB.")]
    if schema.get("$schema", Draft202012Validator.META_SCHEMA["$id"]) != Draft202012Validator.META_SCHEMA["$id"]:
        return [("/$schema", "unknown_dialect", "Write the schema in Draft 2020-12: no other dialect is read here.")]
    faults = list(_refused(schema, ()))
    if faults:
        return faults
    try:
        Draft202012Validator.check_schema(schema)
        if _nodes(schema, schema, {}, ()) > MOST_NODES:
            return [("", "too_large", "The schema grows too large when its references are followed.")]
        check(schema, {})
    except SchemaError as error:
        return [(pointer(*error.absolute_path), "bad_schema", f"This is no JSON Schema: {error.message[:200]}.")]
    except (LookupError, TypeError, ValueError) as error:
        return [("", "bad_schema", str(error)[:200])]
    except Exception as error:  # referencing has exceptions of its own for what a $ref can miss
        return [("", "bad_schema", f"A reference leads nowhere ({type(error).__name__}).")]
    return []


def sample(schema: dict[str, Any], *, complete: bool = True) -> dict[str, Any]:
    """An object that fits the schema as far as examples, defaults and types can tell."""
    for given in (*schema.get("examples", ()), schema.get("default")):
        if isinstance(given, dict) and complete:
            return given
    made = _sample(schema, schema, complete=complete)
    return made if isinstance(made, dict) else {}


def _sample(schema: Any, root: dict[str, Any], *, complete: bool) -> Any:
    if not isinstance(schema, dict):
        return "text"
    if "$ref" in schema:
        return _sample(_target(root, schema["$ref"]), root, complete=complete)
    for source in (
        schema.get("examples"),
        [schema["const"]] if "const" in schema else None,
        schema.get("enum"),
        [schema["default"]] if "default" in schema else None,
    ):
        if source:
            return source[0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or (kind is None and ("properties" in schema or schema is root)):
        required = schema.get("required", ())
        return {name: _sample(inner, root, complete=complete) for name, inner in schema.get("properties", {}).items() if complete or name in required}
    if kind == "array":
        return [_sample(schema.get("items", {}), root, complete=complete)]
    return {"integer": 1, "number": 1, "boolean": True, "null": None}.get(str(kind), "2026-12-01" if schema.get("format") == "date" else "1")


def resolved(schema: Any, root: dict[str, Any]) -> dict[str, Any]:
    """A subschema with its own reference followed; an empty one where it is `true` or leads nowhere. References of a stored schema do not go in circles."""
    for _ in range(DEEPEST):
        if not (isinstance(schema, dict) and "$ref" in schema):
            break
        try:
            schema = _target(root, schema["$ref"])
        except LookupError:
            return {}
    return schema if isinstance(schema, dict) else {}


def _validator(schema: dict[str, Any]) -> Any:
    # By identity, holding the schema so that its id stays its own: hashing it each time would cost more than checking.
    known = _COMPILED.get(id(schema))
    if known is None or known[0] is not schema:
        if len(_COMPILED) >= 500:
            _COMPILED.clear()
        # A registry of our own, and empty: the default one would fetch what a $ref names.
        known = _COMPILED[id(schema)] = (schema, _Validator(schema, registry=Registry(), format_checker=_FORMATS))
    return known[1]


def _sentence(fault: ValidationError) -> str:
    # jsonschema's messages quote the data, which may be long and somebody's.
    wanted = orjson.dumps(fault.validator_value, default=str).decode()
    if fault.validator == "required":
        missing = [name for name in fault.validator_value if name not in fault.instance]  # type: ignore[union-attr, operator]
        return f"Add {', '.join(f'`{name}`' for name in missing)}: this type needs it."
    return f"The schema asks for {fault.validator} = {wanted[:200]}."


def _bounded(value: object) -> bool:
    left, level = MOST_VALUES, [value]
    for _ in range(DEEPEST):
        below: list[object] = []
        for item in level:
            if isinstance(item, str) and len(item) > LONGEST_VALUE:
                return False
            below += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        left -= len(below)
        if left < 0:
            return False
        level = below
    return not level


def _refused(schema: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str, str, str]]:
    if len(path) > 40:
        yield pointer(*path[:5]), "too_deep", "Nest the schema less deeply."
    elif isinstance(schema, list):
        for number, item in enumerate(schema):
            yield from _refused(item, (*path, number))
    elif isinstance(schema, dict):
        for key, value in schema.items():
            where = pointer(*path, key)
            if key in ("$id", "$dynamicRef", "$dynamicAnchor", "$anchor", "$vocabulary") and isinstance(value, str | dict):
                yield where, "not_taken", f"{key} is not taken here: refer to `#/$defs/...`."
            elif key == "$ref" and not (isinstance(value, str) and value.startswith("#/")):
                yield where, "remote_reference", "Only references within the schema are followed: `#/$defs/...`."
            elif key == "pattern" and isinstance(value, str):
                yield from _bad_pattern(value, where)
            elif key == "patternProperties" and isinstance(value, dict):
                for pattern in value:
                    yield from _bad_pattern(pattern, pointer(*path, key, pattern))
            yield from _refused(value, (*path, key))


def _bad_pattern(pattern: str, where: str) -> Iterator[tuple[str, str, str]]:
    if len(pattern) > LONGEST_PATTERN:
        yield where, "pattern_too_long", "Keep the pattern under 200 characters."
        return
    try:
        re.compile(pattern)
        tree = sre.parse(pattern)
    except (re.error, RecursionError, OverflowError):
        yield where, "bad_pattern", "This is no regular expression that Python knows."
        return
    # Unanchored, it is tried from every place in the string.
    starts = 1 if len(tree) and str(tree[0][1]) == "AT_BEGINNING" else LONGEST_MATCHED
    if starts * _ways(tree) > MOST_WAYS:
        yield where, "costly_pattern", "This pattern may match in too many ways: no repetition inside a repetition, few open ends, `^` in front."


def _ways(tree: Any) -> int:
    """An upper bound of the ways in which a pattern can be tried on LONGEST_MATCHED characters."""
    ways = 1
    for operation, argument in tree:
        name = str(operation)
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            least, most, body = argument
            most = min(int(most), LONGEST_MATCHED)
            inner = _ways(body)
            ways *= (inner ** min(most, 64)) * (most - min(int(least), most) + 1)
        elif name == "SUBPATTERN":
            ways *= _ways(argument[-1])
        elif name == "ATOMIC_GROUP":
            ways *= _ways(argument)
        elif name == "BRANCH":
            ways *= sum(_ways(branch) for branch in argument[1])
        elif name in ("ASSERT", "ASSERT_NOT", "GROUPREF", "GROUPREF_EXISTS"):
            ways *= MOST_WAYS + 1  # neither looking round nor back: their cost is anybody's guess
        ways = min(ways, MOST_WAYS + 1)
    return ways


def _nodes(schema: Any, root: dict[str, Any], known: dict[str, int], open_: tuple[str, ...]) -> int:
    """How many subschemas there are when every reference is followed. ValueError when one leads into itself."""
    if isinstance(schema, list):
        return sum(_nodes(item, root, known, open_) for item in schema)
    if not isinstance(schema, dict):
        return 0
    count = 1
    for key, value in schema.items():
        if key == "$defs":
            continue
        if key == "$ref" and isinstance(value, str):
            if value in open_:
                raise ValueError(f"The reference {value[:100]} leads into itself.")
            if value not in known:
                known[value] = _nodes(_target(root, value), root, known, (*open_, value))
            count += known[value]
        else:
            count += _nodes(value, root, known, open_)
    return count


def _target(root: dict[str, Any], reference: str) -> Any:
    target: Any = root
    for step in reference.removeprefix("#/").split("/"):
        step = step.replace("~1", "/").replace("~0", "~")  # noqa: PLW2901 - RFC 6901, 4
        if isinstance(target, list) and step.isdigit() and int(step) < len(target):
            target = target[int(step)]
        elif isinstance(target, dict) and step in target:
            target = target[step]
        else:
            raise LookupError(f"The reference {reference[:100]} leads nowhere.")
    return target


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and (len(instance) > LONGEST_MATCHED or not re.search(pattern, instance)):
        yield ValidationError("pattern")


def _pattern_properties(validator: Any, patterns: dict[str, Any], instance: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for pattern, inner in patterns.items():
            for key, value in instance.items():
                if len(key) <= LONGEST_MATCHED and re.search(pattern, key):
                    yield from validator.descend(value, inner, path=key, schema_path=pattern)


def _is_moment(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


# `regex` is left out on purpose: it compiles what came from outside.
_FORMATS = FormatChecker(("date", "uuid", "email", "ipv4", "ipv6"))
_FORMATS.checks("date-time", raises=ValueError)(_is_moment)
_Validator: Any = extend(Draft202012Validator, {"pattern": _pattern, "patternProperties": _pattern_properties})  # type: ignore[no-untyped-call]
