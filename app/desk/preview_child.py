"""The process that renders drafts: a job as a line of JSON on its standard input, what came of it as a line on its standard output.

    {"channel", "type", "has_type", "schema", "locale", "version": {subject, text, html, ...}, "account", "contact", "at", "data", "links", ...}
    {"words": {subject, text, html, encoding, parts, ...} | null, "problems": [{pointer, code, detail, line, column}], "warnings": [the same]}

It has a second of the processor for each job and little more memory than it has when it begins; past either the kernel ends it, and `preview` begins another.
It opens no connection, and its environment has no secret. When nobody writes to it any more, it ends.
"""

import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO
from uuid import UUID

import orjson
from jinja2 import nodes

from app.core.errors import FieldError
from app.rendering.brands import BUILT_IN, BrandSettings, Chosen
from app.rendering.compose import Composed, Version, variables
from app.rendering.engine import RenderFailed, parse, places_of
from app.rendering.letters import Layout, built_in
from app.rendering.models import TemplateVersion
from app.rendering.proof import PARTS, PlacedError, placed, proved, unparsable
from app.rendering.sms_words import worst_case
from app.rendering.syntax import unknown_names
from app.rendering.version_shapes import shown_problem

SECONDS = 1.0  # of the processor, for a job
HARD_SECONDS = 2  # the kernel's own count, should the timer be late
MEMORY = 100 * 1024 * 1024  # bytes beyond what is there when the first job comes
LONGEST = 8 * 1024 * 1024  # bytes of an answer
MOST_PROBLEMS = 50
STATM = Path("/proc/self/statm")  # proc(5): the first number is the size of the address space in pages
INVENTED = "1"  # what a name stands for of which nobody knows anything
SPENT = b'{"spent": true}'


def main() -> None:
    """Until the end of the input."""
    told = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is no answer
    warm_up()
    bound_for_good()
    answer_to(told, b'{"ready": true}')
    for line in sys.stdin.buffer:
        bound_job()
        answer_to(told, answered(line))
        signal.setitimer(signal.ITIMER_PROF, 0)


def answer_to(told: BinaryIO, line: bytes) -> None:
    told.write(line + b"\n")
    told.flush()


def warm_up() -> None:
    """What is imported and compiled with the first job would count for it."""
    for channel in ("sms", "email"):
        if (said := answered(orjson.dumps(SAMPLE | {"channel": channel}))).startswith(b'{"failed"'):
            raise SystemExit(said.decode())


def bound_for_good() -> None:
    if STATM.exists():  # Linux; elsewhere the kernel does not say, and is not asked to bound it
        there = int(STATM.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (there + MEMORY, there + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # pipes are no files


def bound_job() -> None:
    """Both signals end the process whatever it is just doing: nothing catches them."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + HARD_SECONDS, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)


def answered(line: bytes) -> bytes:
    try:
        said = orjson.dumps(render(orjson.loads(line)))
    except MemoryError:
        return SPENT
    except Exception as error:
        return orjson.dumps({"failed": f"{type(error).__name__} {_where(error)}"})  # no more: the message of an error may repeat what it was given
    return said if len(said) <= LONGEST else SPENT


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace is not None else ""


def render(job: Mapping[str, Any]) -> dict[str, Any]:
    """The words of a job, everything that would keep them from being published, and what may go wrong with them. Raises MemoryError."""
    channel, code = job["channel"], job["type"]
    sources = TemplateVersion(template_id=UUID(job["template_id"]), version=job["number"], created_by="", **job["version"])
    if faults := unparsable(channel, job["version"]):
        return _said(None, faults, [])
    version, brand = version_of(job, sources), brand_of(job)
    if "cases" in job:
        return {"texts": [_text_of(version, brand, values_of(job | case)) for case in job["cases"]]}
    values = values_of(job)
    if job["invents"]:
        values = _invented(channel, sources, values)
    if job["has_type"]:
        proof = proved(code, job["schema"], channel, job["locale"], sources, version.layouts, job["of_brands"])
        faults, warnings = [*proof.faults], [*proof.warnings]
    else:
        faults, warnings = unknown(channel, sources, values), []
    try:
        said = _said(version.compose(values, brand), faults, warnings)
    except RenderFailed as error:
        if not any(fault.code in ("undefined", "render_failed") for fault in faults):  # said already, and where
            faults.append(PlacedError("", "render_failed", error.detail, error.line))
        return _said(None, faults, warnings)
    return said | {"worst": _worst(version, job, values)}


def version_of(job: Mapping[str, Any], sources: TemplateVersion) -> Version:
    """With the layouts that it may be set into."""
    layouts = {**built_in(), **{name: Layout(name, one["html"], one["mjml"]) for name, one in job["layouts"].items()}}
    return Version(
        sources.template_id,
        sources.version,
        job["channel"],
        job["locale"],
        sources.subject,
        sources.text,
        sources.html,
        properties=tuple(job["properties"]),
        options=sources.options,
        mjml=sources.mjml,
        layout=sources.layout,
        attachments=sources.attachments,
        layouts=layouts,
    )


def brand_of(job: Mapping[str, Any]) -> Chosen:
    given = job["brand"]
    return BUILT_IN if given is None else Chosen(given["name"], BrandSettings.model_validate(given["settings"]))


def _worst(version: Version, job: Mapping[str, Any], values: Mapping[str, Any]) -> str | None:
    """The words of an SMS with the longest values; nothing where nobody knows which values there are."""
    if job["channel"] != "sms" or not job["has_type"]:
        return None
    invented = [name for name, value in values.items() if value == INVENTED] if job["invents"] else []
    try:
        return worst_case(version, job["type"], job["schema"], invented=invented).text
    except RenderFailed:
        return None


def _text_of(version: Version, brand: Chosen, values: dict[str, Any]) -> str | None:
    try:
        return version.compose(values, brand).text
    except RenderFailed:
        return None


def _said(words: Composed | None, faults: Sequence[FieldError], warnings: Sequence[FieldError]) -> dict[str, Any]:
    return {
        "words": None if words is None else asdict(words),
        "problems": [shown_problem(fault).model_dump() for fault in faults[:MOST_PROBLEMS]],
        "warnings": [shown_problem(warning).model_dump() for warning in warnings[:MOST_PROBLEMS]],
    }


def values_of(job: Mapping[str, Any]) -> dict[str, Any]:
    """What the templates may name, as a message of this account would have it."""
    given, at = job["account"], datetime.fromisoformat(job["at"])
    sums = {name: None if given[name] is None else Decimal(given[name]) for name in ("balance", "credit_limit", "threshold")}
    values = variables(SimpleNamespace(**(given | sums)), SimpleNamespace(**job["contact"]), job["type"], at, job["data"], at, job["links"])
    absent = dict.fromkeys(job["properties"])
    return {**absent, **values, "data": {**absent, **values["data"]}}


def _invented(channel: str, version: TemplateVersion, values: dict[str, Any]) -> dict[str, Any]:
    """Of a type whose data nobody has described: each name that the words use stands for something."""
    named: set[str] = set()
    for name, kind in PARTS[channel].items():
        tree = parse(getattr(version, name) or "", kind)
        if not isinstance(tree, list):
            named |= {node.name for node in tree.find_all(nodes.Name) if node.name != "range"}
    return dict.fromkeys(sorted(named - values.keys()), INVENTED) | values


def unknown(channel: str, version: TemplateVersion, values: dict[str, Any]) -> list[FieldError]:
    """Names that are nowhere, also in branches that are not taken with these values."""
    found: list[FieldError] = []
    for name, kind in PARTS[channel].items():
        source = getattr(version, name) or ""
        tree = parse(source, kind)
        if not isinstance(tree, list):
            found += [placed(name, problem) for problem in unknown_names(tree, places_of(source), values)]
    return found


# Warms up what every preview needs; what it says is never shown.
SAMPLE: dict[str, Any] = {
    "channel": "sms",
    "type": "payment.received",
    "locale": "ru",
    "properties": [],
    "invents": False,
    "has_type": True,
    "schema": None,
    "brand": None,
    "layouts": {},
    "of_brands": [],
    "template_id": str(UUID(int=0)),
    "number": 1,
    "version": {
        "subject": "{{ amount|money }}",
        "text": "{{ amount|money }} {{ now|date }} {{ 2|plural('a', 'b', 'c') }}",
        "html": "<p>{{ amount|money }}</p>",
    },
    "account": {
        "number": "100500",
        "name": "",
        "balance": "0.00",
        "credit_limit": "0.00",
        "currency": "RUB",
        "tariff": "",
        "threshold": None,
        "status": "active",
        "timezone": "Europe/Moscow",
        "attributes": {},
    },
    "contact": {"address": "+79161234567", "label": ""},
    "at": "2026-11-23T10:00:00+03:00",
    "data": {"amount": "500.00"},
    "links": {},
}

if __name__ == "__main__":
    main()
