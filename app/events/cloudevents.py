"""CloudEvents 1.0 over HTTP: structured, batched and binary mode, read into one plain shape.

Sources: CloudEvents 1.0.2 (context attributes, size limits), its HTTP binding (content modes, percent-encoding of `ce-` headers) and JSON format.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from app.core.errors import BadRequest, FieldError, Invalid, TooLarge, WrongMediaType
from app.core.http import parse_json

STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
PLAIN = "application/json"
MAX_BATCH = 10_000

RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
# Printable: an identifier with a control character in it is somebody's mistake or somebody's trick.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")
ATTRIBUTE = re.compile(r"[a-z0-9]{1,20}", re.ASCII)
KNOWN = frozenset({"specversion", "id", "source", "type", "subject", "time", "data", "datacontenttype", "dataschema"})
LONGEST = {"id": 300, "source": 300, "type": 100, "subject": 64}
OLDEST = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class EventIn:
    """An event as it came, its envelope checked and its data not yet."""

    source: str
    id: str
    type: str
    account: str
    time: datetime | None
    data: Any


def read_request(content_type: str, headers: Mapping[str, str], body: bytes) -> tuple[list[Any], bool]:
    """The raw events of a request, and whether it was a batch. BadRequest, TooLarge or WrongMediaType when it cannot be one."""
    kind = content_type.partition(";")[0].strip().lower()
    # HTTP binding, 3: the content type decides first; 3.2.2: a structured event may repeat its attributes in `ce-` headers.
    if kind not in {STRUCTURED, BATCHED} and ("ce-specversion" in headers or "ce-id" in headers):
        if kind not in {PLAIN, ""}:
            raise WrongMediaType("In binary mode the data is JSON: send Content-Type: application/json.")
        return [read_binary(headers, body)], False
    if kind not in {STRUCTURED, BATCHED, PLAIN}:
        raise WrongMediaType(f"Send {STRUCTURED}, {BATCHED} or {PLAIN}.")
    value = parse_json(body)
    if isinstance(value, list) and kind != STRUCTURED:
        if len(value) > MAX_BATCH:
            raise TooLarge(f"A batch has at most {MAX_BATCH} events; this one has {len(value)}.", code="batch_too_large")
        return value, True
    if kind == BATCHED:
        raise BadRequest("A batch is a JSON array of events.", code="not_a_batch")
    if not isinstance(value, dict):
        raise Invalid("An event is a JSON object.", code="not_an_event")
    return [value], False


def read_binary(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Binary mode: attributes in `ce-` headers, percent-encoded (HTTP binding, 3.1.3.2); the body is the data."""
    raw: dict[str, Any] = {}
    for name, value in headers.items():
        if name.startswith("ce-"):
            try:
                raw[name[3:]] = unquote(value, errors="strict")
            except UnicodeDecodeError:
                raise BadRequest(f"The header {name} is not percent-encoded UTF-8.", code="malformed_header") from None
    if body:
        raw["data"] = parse_json(body)
    return raw


def read_event(raw: Any, ahead: datetime) -> EventIn | list[FieldError]:
    """The event, or everything that is wrong with its envelope. `ahead` is the latest time that an event may claim."""
    if not isinstance(raw, dict):
        return [FieldError("", "not_an_event", "An event is a JSON object.")]
    wrong: list[FieldError] = []
    if raw.get("specversion") != "1.0":
        wrong.append(FieldError("/specversion", "specversion", 'specversion must be "1.0".'))
    for name, longest in LONGEST.items():
        value = raw.get(name)
        if value.__class__ is not str or not value:
            wrong.append(FieldError(f"/{name}", "required", f"{name} must be a non-empty string."))
        elif len(value) > longest:
            wrong.append(FieldError(f"/{name}", "too_long", f"{name} has at most {longest} characters."))
        elif UNPRINTABLE.search(value):
            wrong.append(FieldError(f"/{name}", "unprintable", f"{name} has a control character in it."))
    time = raw.get("time")
    moment: datetime | None = None
    if time is not None:
        found = read_time(time, ahead)
        if isinstance(found, FieldError):
            wrong.append(found)
        else:
            moment = found
    if not raw.keys() <= KNOWN:
        wrong += [fault for name in sorted(raw.keys() - KNOWN) if (fault := _extension(name, raw[name]))]
    if raw.get("datacontenttype") not in {None, PLAIN}:
        wrong.append(FieldError("/datacontenttype", "datacontenttype", "The data is JSON: datacontenttype is application/json or absent."))
    if wrong:
        return wrong
    return EventIn(raw["source"], raw["id"], raw["type"], raw["subject"], moment, raw.get("data"))


def _extension(name: str, value: Any) -> FieldError | None:
    """CloudEvents 1.0, Extension Context Attributes: lower-case letters and digits, a simple value. We take and ignore them."""
    if name == "data_base64":
        return FieldError("/data_base64", "data_base64", "Binary data is not taken: send `data` as a JSON object.")
    if not ATTRIBUTE.fullmatch(name) or isinstance(value, dict | list):
        return FieldError(
            f"/{name[:40]}", "unknown_field", "No attribute of CloudEvents 1.0, nor a valid extension (lower-case letters and digits, a simple value)."
        )
    return None


def read_time(text: Any, ahead: datetime) -> datetime | FieldError:
    """RFC 3339 with an offset, from 2000 on, not in the future."""
    if text.__class__ is not str or not RFC3339.fullmatch(text):
        return FieldError("/time", "time", "time is RFC 3339 with an offset, e.g. 2026-11-23T10:00:00+03:00.")
    try:
        moment = datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return FieldError("/time", "time", "There is no such moment.")
    if moment < OLDEST:
        return FieldError("/time", "time_too_old", "time is before 2000.")
    if moment > ahead:
        return FieldError("/time", "time_in_future", "time is more than 10 minutes ahead of our clock.")
    return moment
