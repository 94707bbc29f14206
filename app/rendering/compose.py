"""From an event to the words: the published template of its type, channel and language, filled with what is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalogue.types import EVENT_TYPES, variables_of
from app.rendering.engine import Kind, Part, RenderFailed, compile_part
from app.rendering.formats import style_of
from app.sms.segment import segment

__all__ = ["Composed", "NoTemplate", "RenderFailed", "Templates", "Version", "variables"]

# Every change of a template or a type raises its revision, and none is deleted: count and sum change with every change.
STAMP = sa.text("""
SELECT count(*), coalesce(sum(revision), 0) + (SELECT coalesce(sum(revision), 0) FROM notification_type) FROM template
""")
PUBLISHED = sa.text("""
SELECT t.type, t.channel, t.locale, t.id, v.version, v.subject, v.text, v.html, coalesce(k.data_schema -> 'properties', '{}') AS properties
FROM template t
JOIN template_version v ON v.template_id = t.id AND v.version = t.published_version
JOIN notification_type k ON k.code = t.type
""").columns(properties=JSONB)
UNSUBSCRIBE = "unsubscribe"  # `links.unsubscribe`, however a template spells it
OF_SEVERAL = ("events", "count")  # what a template is told of several events; an operator's data of these names hide them
MOST_REMEMBERED = 10_000  # (type, channel, locale): locales come from accounts


class NoTemplate(Exception):
    """Nothing is published for this type and channel, in no language."""


@dataclass(frozen=True, slots=True)
class Composed:
    """The words of one message. `encoding` and `parts` are those of an SMS; an e-mail is one part."""

    template_id: UUID
    version: int
    locale: str
    subject: str | None
    text: str
    html: str | None
    encoding: str | None
    parts: int


@dataclass(slots=True)
class Version:
    """A version of a template, compiled when it is first used. `compose` fills it."""

    template_id: UUID
    number: int
    channel: str
    locale: str
    subject: str | None
    text: str | None
    html: str | None
    # What the schema of an operator's type names: absent in an event, it is None as with the built-in types.
    properties: tuple[str, ...] = ()
    _parts: dict[Kind, Part] = field(default_factory=dict)

    @property
    def offers_refusal(self) -> bool:
        return any(UNSUBSCRIBE in (source or "") for source in (self.subject, self.text, self.html))

    def compose(self, values: dict[str, Any]) -> Composed:
        if self.properties:
            values = self._with_absent(values)
        if self.channel == "sms":
            text = self._written("sms", self.text or "", values)
            segments = segment(text)
            return Composed(self.template_id, self.number, self.locale, None, text, None, segments.encoding, segments.count)
        subject = self._written("subject", self.subject or "", values)
        text = self._written("text", self.text or "", values)
        html = self._written("html", self.html, values) if self.html is not None else None
        return Composed(self.template_id, self.number, self.locale, subject, text, html, None, 1)

    def _with_absent(self, values: dict[str, Any]) -> dict[str, Any]:
        absent = dict.fromkeys(self.properties)
        data = {**absent, **values["data"]}
        own = {name: data[name] for name in OF_SEVERAL if name in data}
        events = {} if "events" in own else {"events": [{**absent, **one} for one in values["events"]]}
        return {**absent, **values, **events, **own, "data": data}

    def _written(self, kind: Kind, source: str, values: dict[str, Any]) -> str:
        part = self._parts.get(kind)
        if part is None:
            compiled = compile_part(source, kind)
            if isinstance(compiled, list):
                raise RenderFailed(compiled[0].detail, compiled[0].line)
            part = self._parts[kind] = compiled
        written = part.render(values, style_of(self.locale, sms=kind == "sms"))
        if not written:
            raise RenderFailed(f"The {'text' if kind == 'sms' else kind} came out empty.")
        return written


class Templates:
    """The published templates, in memory. Empty until the first `refresh`."""

    def __init__(self, default_locale: str = "ru") -> None:
        self._default = default_locale
        self._stamp: tuple[int, int] | None = None
        self._published: dict[tuple[str, str], dict[str, Version]] = {}
        self._offering: frozenset[tuple[str, str]] = frozenset()
        self._found: dict[tuple[str, str, str], Version] = {}

    async def refresh(self, session: AsyncSession, stamp: tuple[int, int] | None = None) -> None:
        """Up to date with this session. One small query when nothing has changed, none when the caller has asked for the STAMP himself.

        What stayed the same stays compiled."""
        if stamp is None:
            count, revisions = (await session.execute(STAMP)).one()
            stamp = count, int(revisions)
        if stamp == self._stamp:
            return
        compiled = {(version.template_id, version.number, version.properties): version for locales in self._published.values() for version in locales.values()}
        published: dict[tuple[str, str], dict[str, Version]] = {}
        for code, channel, locale, template_id, number, subject, text, html, schema in (await session.execute(PUBLISHED)).all():
            properties = tuple(sorted(schema))
            version = compiled.get((template_id, number, properties)) or Version(template_id, number, channel, locale, subject, text, html, properties)
            published.setdefault((code, channel), {})[locale] = version
        self._published, self._found, self._stamp = published, {}, stamp
        self._offering = frozenset(key for key, locales in published.items() if any(version.offers_refusal for version in locales.values()))

    def offers_refusal(self, type_code: str, channel: str) -> bool:
        """Whether a template of these, in any language, writes the link that refuses the type."""
        return (type_code, channel) in self._offering

    def compose(self, type_code: str, channel: str, locale: str, values: dict[str, Any]) -> Composed:
        """The message in this language, or the nearest that there is. NoTemplate, or RenderFailed with the line.

        ru-RU, then ru, then the operator's default, then any (the first by name)."""
        key = (type_code, channel, locale)
        version = self._found.get(key)
        if version is None:
            version = self._nearest(key)
            if len(self._found) >= MOST_REMEMBERED:
                self._found.clear()
            self._found[key] = version
        return version.compose(values)

    def _nearest(self, key: tuple[str, str, str]) -> Version:
        code, channel, locale = key
        locales = self._published.get((code, channel))
        if not locales:
            raise NoTemplate(f"nothing is published for {code} by {channel}")
        for wanted in (*_widening(locale), *_widening(self._default)):
            if wanted in locales:
                return locales[wanted]
        return locales[min(locales)]


def _widening(locale: str) -> list[str]:
    """`zh-Hans-CN`, `zh-Hans`, `zh`."""
    tags = locale.replace("_", "-").split("-")
    return ["-".join(tags[:length]) for length in range(len(tags), 0, -1)]


def variables(
    account: Any,
    contact: Any,
    event_type: str,
    event_time: datetime,
    data: dict[str, Any],
    now: datetime,
    links: Mapping[str, str],
    *,
    earlier: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """What a template may name. Times are on the account's clock; a data key never hides `account` and the like, `data.` always reaches it.

    Where one message tells several events, `data` is the newest one's, and `earlier` are the others', oldest first. Templates find all of them as `events`,
    and `count`; keys of these names in the data of an operator's type hide them, for there are types that had such keys before. Built-in types have none: what
    somebody sends beside their own keys must not change what our words say of how many there were.

    `account` and `contact` are anything with the fields of the tables; attributes may come unread, as `attributes_json`."""
    zone = zone_of(account.timezone)
    values = variables_of(event_type, data)
    unread = getattr(account, "attributes_json", None)
    several = {"events": [*(variables_of(event_type, one) for one in earlier), values] if earlier else [values], "count": len(earlier) + 1}
    return {
        **(values | several if event_type in EVENT_TYPES else several | values),
        "account": {
            "number": account.number,
            "name": account.name,
            "balance": account.balance,
            "credit_limit": account.credit_limit,
            "available": account.balance + account.credit_limit,
            "currency": account.currency,
            "tariff": account.tariff,
            "threshold": account.threshold,
            "status": account.status,
            "attributes": account.attributes if unread is None else orjson.loads(unread) if unread != "{}" else {},
        },
        "contact": {"address": contact.address, "label": contact.label},
        "event": {"type": event_type, "time": event_time.astimezone(zone)},
        "data": values,
        "now": now.astimezone(zone),
        "links": {"cabinet": "", "unsubscribe": "", **links},
        "_zone": zone,
    }


@lru_cache(maxsize=1000)
def zone_of(name: str) -> tzinfo:
    """The zone of this name; UTC where this machine's zone data does not know it."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return UTC
