"""A version proved before it is taken and before it is sent: parsed at creation, rendered with its type's samples at publication."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from jinja2 import nodes

from app.catalogue.types import EVENT_TYPES, sample_of
from app.catalogue.variables import variables_for
from app.core.errors import FieldError
from app.rendering.compose import Version, variables
from app.rendering.emptiness import may_be_empty
from app.rendering.engine import MOST_PROBLEMS, Kind, RenderFailed, compile_part, parse, places_of
from app.rendering.formats import style_of
from app.rendering.letters import DEFAULT, Layout, Undressed, built_in, dressed
from app.rendering.models import TemplateVersion
from app.rendering.problem_words import russian
from app.rendering.sms_words import sms_faults
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
AROUND = frozenset({"account", "contact", "event", "now", "links", "brand", "_zone"})
# Which part of an e-mail or an SMS stands in which field of a version.
PARTS: dict[str, dict[str, Kind]] = {"sms": {"text": "sms"}, "email": {"subject": "subject", "text": "text", "html": "html", "mjml": "html"}}


@dataclass(frozen=True, slots=True)
class PlacedError(FieldError):
    """A FieldError within a template: also where in the field, and in Russian."""

    line: int | None = None
    column: int | None = None

    @property
    def detail_ru(self) -> str:
        if self.line is None or not self.detail.startswith("line "):
            return russian(self.detail)
        place = f"строка {self.line}" + (f", столбец {self.column}" if self.column else "")
        return f"{place}: {russian(self.detail.partition(': ')[2])}"

    def as_json(self) -> dict[str, Any]:
        shared = {"pointer": self.pointer, "code": self.code, "detail": self.detail, "detail_ru": self.detail_ru}
        return shared | {"line": self.line, "column": self.column}


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found of a version: faults keep it from being published, warnings do not."""

    faults: list[FieldError]
    warnings: list[PlacedError]


def unparsable(channel: str, fields: dict[str, Any]) -> list[FieldError]:
    """Everything that keeps these sources from being a version."""
    found: list[FieldError] = []
    for name, kind in PARTS[channel].items():
        source = fields.get(name)
        tree = parse(source, kind) if source is not None else []
        if isinstance(tree, list):
            found += [placed(name, problem) for problem in tree]
    return found


def undressable(html: str | None, mjml: str | None, layout: str | None, layouts: Mapping[str, Layout]) -> list[FieldError]:
    """Everything that keeps the HTML of a letter from becoming one document with its layout."""
    if html is None and mjml is None:
        return []
    made = dressed(html, mjml, layouts.get(layout or DEFAULT) or layouts[DEFAULT])
    if not isinstance(made, Undressed):
        return []
    own = [placed("html" if mjml is None else "mjml", problem) for problem in made.problems]
    return [*own, *(PlacedError("/layout", problem.code, f"In the layout `{layout or DEFAULT}`: {problem.detail}") for problem in made.of_layout)]


def unpublishable(
    type_code: str, schema: dict[str, Any] | None, channel: str, locale: str, version: TemplateVersion, layouts: Mapping[str, Layout] | None = None
) -> list[FieldError]:
    """Everything that would keep this version from being rendered for an event of its type."""
    return proved(type_code, schema, channel, locale, version, layouts).faults


def as_rendered(version: TemplateVersion, channel: str, locale: str, properties: tuple[str, ...], layouts: Mapping[str, Layout] | None = None) -> Version:
    """The stored version as it is sent with. `layouts`: those that there are; none: the built-in one alone."""
    return Version(
        version.template_id,
        version.version,
        channel,
        locale,
        version.subject,
        version.text,
        version.html,
        properties,
        options=version.options or {},
        mjml=version.mjml,
        layout=version.layout,
        attachments=version.attachments or (),
        layouts=layouts or built_in(),
    )


def proved(
    type_code: str,
    schema: dict[str, Any] | None,
    channel: str,
    locale: str,
    version: TemplateVersion,
    layouts: Mapping[str, Layout] | None = None,
    of_brands: Iterable[str] = (),
) -> Proof:
    """The version rendered with samples of its type. `layouts` as in `as_rendered`; `of_brands`: those of them that a brand may set its words into.

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
        found += [placed(name, problem) for problem in islice(unknown_names(tree, places_of(source), full), MOST_PROBLEMS)]
    around = [version.layout, *(of_brands if version.layout in (None, DEFAULT) else ())]
    for layout in around:
        if found := found or undressable(version.html, version.mjml, layout, layouts or built_in()):
            return Proof(found, [])
    whole = as_rendered(version, channel, locale, properties, layouts)
    warnings = emptiness(type_code, schema, channel, version)
    samples = (
        (full, ""),
        (least, " when the data have only what this type requires"),
        (several, " when one message tells several events (`count`)"),
    )
    for values, when in samples:
        if faults := [PlacedError(pointer, "render_failed", f"{detail}{when}", line) for pointer, detail, line in _unwritable(whole, version, values)]:
            return Proof([*faults], warnings)
    if channel != "sms":
        return Proof([], warnings)
    wrong, doubtful = sms_faults(whole, type_code, schema, samples, invented=full.keys() - _values(type_code, sample).keys())
    return Proof([*map(stated, wrong)], [*warnings, *map(stated, doubtful)])


def _unwritable(whole: Version, version: TemplateVersion, values: dict[str, Any]) -> Iterator[tuple[str, str, int | None]]:
    """(field, sentence, line) of each part that fails by itself; of all together, when none does: there the lines are not the author's any more."""
    told = whole.with_absent(values) if whole.properties else values
    channel, locale = whole.channel, whole.locale
    alone = False
    for name, kind in PARTS[channel].items():
        source = getattr(version, name)
        part = compile_part(source, kind) if source is not None else None
        if part is None or isinstance(part, list):
            continue
        try:
            part.render(told, style_of(locale, sms=kind == "sms"))
        except RenderFailed as error:
            alone = True
            yield f"/{name}", error.detail, error.line
    if not alone:
        try:
            whole.compose(values)
        except RenderFailed as error:
            yield "", error.detail, None


def emptiness(type_code: str, schema: dict[str, Any] | None, channel: str, fields: object) -> list[PlacedError]:
    """A warning for each place where a value is written that may be absent. `fields` has the sources as attributes; one that does not parse has none."""
    found: list[PlacedError] = []
    variables_known = variables_for(type_code, schema)
    for name, kind in PARTS[channel].items():
        source = getattr(fields, name)
        tree = parse(source, kind) if source is not None else []
        if not isinstance(tree, list):
            found += [placed(name, problem) for problem in islice(may_be_empty(tree, places_of(source), variables_known), MOST_PROBLEMS)]
    return found


def stated(fault: FieldError) -> PlacedError:
    return PlacedError(fault.pointer, fault.code, fault.detail)


def placed(name: str, problem: TemplateProblem) -> PlacedError:
    where = f"line {problem.line}" + (f", column {problem.column}" if problem.column else "")
    return PlacedError(f"/{name}", problem.code, f"{where}: {problem.detail}", problem.line, problem.column)


def _values(type_code: str, data: dict[str, Any], earlier: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    contact = SimpleNamespace(address="+79161234567", label="")
    return variables(SimpleNamespace(**_ACCOUNT), contact, type_code, _TIME, data, _TIME, _LINKS, earlier=earlier)


def sample_around() -> dict[str, Any]:
    """What a layout may name whatever the letter tells."""
    return {name: value for name, value in _values("payment.received", {}).items() if name in AROUND}


def _free_names(tree: nodes.Template, known: dict[str, Any]) -> Iterator[str]:
    for node in tree.find_all(nodes.Name):
        if node.name not in known and node.name != "range":
            yield node.name
