"""A version proved before it is taken and before it is sent: parsed at creation, rendered with its type's samples at publication."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from jinja2 import nodes

from app.catalogue.types import EVENT_TYPES, sample_of
from app.core.errors import FieldError
from app.rendering.compose import Version, variables
from app.rendering.engine import Kind, RenderFailed, parse
from app.rendering.models import TemplateVersion
from app.rendering.syntax import TemplateProblem, unknown_names

_NOBODY = UUID(int=0)
_ACCOUNT = {
    "number": "100500",
    "name": "Subscriber",
    "balance": Decimal("612.30"),
    "credit_limit": Decimal("0.00"),
    "currency": "RUB",
    "tariff": "Home 100",
    "threshold": Decimal("50.00"),
    "status": "active",
    "timezone": "Europe/Moscow",
    "attributes": {},
}
_TIME = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)
_LINKS = {"cabinet": "https://example.org/cabinet", "unsubscribe": "https://example.org/unsubscribe/sample"}
# Which part of an e-mail or an SMS stands in which field of a version.
PARTS: dict[str, dict[str, Kind]] = {"sms": {"text": "sms"}, "email": {"subject": "subject", "text": "text", "html": "html"}}


@dataclass(frozen=True, slots=True)
class PlacedError(FieldError):
    """A FieldError within a template: also where in the field."""

    line: int | None = None
    column: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {"pointer": self.pointer, "code": self.code, "detail": self.detail, "line": self.line, "column": self.column}


def unparsable(channel: str, fields: dict[str, str | None]) -> list[FieldError]:
    """Everything that keeps these sources from being a version."""
    found: list[FieldError] = []
    for name, kind in PARTS[channel].items():
        source = fields.get(name)
        tree = parse(source, kind) if source is not None else []
        if isinstance(tree, list):
            found += [placed(name, problem) for problem in tree]
    return found


def unpublishable(type_code: str, schema: dict[str, Any] | None, channel: str, locale: str, version: TemplateVersion) -> list[FieldError]:
    """Everything that would keep this version from being rendered for an event of its type.

    The complete sample shows names that are nowhere; the least one shows what relies on data that may be absent; three of them, what counts on one."""
    sample, needed = (sample_of(type_code, schema, complete=complete) for complete in (True, False))
    full, least, several = _values(type_code, sample), _values(type_code, needed), _values(type_code, sample, earlier=(needed, sample))
    properties = tuple((schema or {}).get("properties", ()))
    absent = dict.fromkeys(properties)
    full = {**absent, **full, "data": {**absent, **full["data"]}}
    found: list[FieldError] = []
    for name, kind in PARTS[channel].items():
        source = getattr(version, name)
        tree = parse(source, kind) if source is not None else []
        if isinstance(tree, list):
            found += [placed(name, problem) for problem in tree]
            continue
        if schema is None and type_code not in EVENT_TYPES:  # nobody has said which data there are
            full = least = several = dict.fromkeys(_free_names(tree, full), "1") | full
        found += [placed(name, problem) for problem in unknown_names(tree, source, full)]
    if found:
        return found
    for values, when in (
        (full, ""),
        (least, " when the data have only what this type requires"),
        (several, " when one message tells several events (`count`)"),
    ):
        try:
            Version(version.template_id, version.version, channel, locale, version.subject, version.text, version.html, properties).compose(values)
        except RenderFailed as error:
            return [PlacedError("", "render_failed", f"{error.detail}{when}", error.line)]
    return []


def placed(name: str, problem: TemplateProblem) -> PlacedError:
    where = f"line {problem.line}" + (f", column {problem.column}" if problem.column else "")
    return PlacedError(f"/{name}", problem.code, f"{where}: {problem.detail}", problem.line, problem.column)


def _values(type_code: str, data: dict[str, Any], earlier: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    contact = SimpleNamespace(address="+79161234567", label="")
    return variables(SimpleNamespace(**_ACCOUNT), contact, type_code, _TIME, data, _TIME, _LINKS, earlier=earlier)


def _free_names(tree: nodes.Template, known: dict[str, Any]) -> Iterator[str]:
    for node in tree.find_all(nodes.Name):
        if node.name not in known and node.name != "range":
            yield node.name
