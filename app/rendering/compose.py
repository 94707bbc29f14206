"""From an event to the words: the published template of its type, channel and language, filled with what is known."""

from collections.abc import Collection, Mapping, Sequence
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
from app.rendering.brands import BUILT_IN, LOGO, Brands, Chosen
from app.rendering.enclosures import enclosed
from app.rendering.engine import LIMITS, Kind, Part, RenderFailed, compile_part
from app.rendering.filters import Free
from app.rendering.formats import style_of
from app.rendering.letters import Body, Layout, built_in
from app.rendering.looks import STAMP as LOOKS_STAMP
from app.rendering.looks import brands_of, layouts_of
from app.rendering.plain import text_of
from app.sms.options import applied
from app.sms.segment import segment

__all__ = ["Composed", "NoTemplate", "RenderFailed", "Templates", "Version", "variables"]

# Every change of a template or a type raises its revision: the sum changes with every change. Where a template is deleted and another one made, the microsecond
# of its making sees to that.
STAMP = sa.text(f"""
SELECT count(*), coalesce(sum(revision + CAST(extract(epoch FROM created_at) * 1000000 AS bigint)), 0) + (SELECT coalesce(sum(revision), 0) FROM notification_type)
       + {LOOKS_STAMP}
FROM template
""")
PUBLISHED = sa.text("""
SELECT t.type, coalesce(k.data_schema -> 'properties', '{}') AS properties, t.channel, t.locale, t.id, v.version, v.subject, v.text, v.html, v.options,
       v.mjml, v.layout, v.attachments
FROM template t
JOIN template_version v ON v.template_id = t.id AND v.version = t.published_version
JOIN notification_type k ON k.code = t.type
""").columns(options=JSONB, properties=JSONB, attachments=JSONB)
UNSUBSCRIBE = "unsubscribe"  # `links.unsubscribe`, however a template spells it
OF_SEVERAL = ("events", "count")  # what a template is told of several events; an operator's data of these names hide them
BUILT_IN_VALUES = BUILT_IN.values("")
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
    brand: str | None = None  # none: the built-in one
    attachments: Sequence[Mapping[str, Any]] | None = None  # what goes with a letter, made when it is sent


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
    options: Mapping[str, Any] = field(default_factory=dict)  # of an SMS: `SmsOptions` as they are stored
    mjml: str | None = None
    layout: str | None = None
    attachments: Sequence[Mapping[str, Any]] = ()
    layouts: Mapping[str, Layout] = field(default_factory=built_in)
    _parts: dict[Kind, Part] = field(default_factory=dict)
    _body: Body | None = None

    @property
    def has_html(self) -> bool:
        return self.html is not None or self.mjml is not None

    @property
    def offers_refusal(self) -> bool:
        around = [layout.source for layout in self.layouts.values()] if self.has_html else []
        return any(UNSUBSCRIBE in (source or "") for source in (self.subject, self.text, self.html, self.mjml, *around))

    def compose(self, values: dict[str, Any], brand: Chosen = BUILT_IN) -> Composed:
        """The words of a message by this brand. RenderFailed with the line."""
        if brand is not BUILT_IN:
            values = values | {"brand": brand.values(self.locale), "links": {**values["links"], **brand.links}}
        if self.properties:
            values = self.with_absent(values)
        if self.channel == "sms":
            text = self._written("sms", self.text or "", values)
            if self.options:
                text = self._as_wanted(text)
            segments = segment(text)
            return Composed(self.template_id, self.number, self.locale, None, text, None, segments.encoding, segments.count, brand.name)
        return self._letter(values, brand)

    def _letter(self, values: dict[str, Any], brand: Chosen) -> Composed:
        subject, html, logo = self._written("subject", self.subject or "", values), None, None
        if self.has_html:
            body = self._body = self._body or Body(self.html, self.mjml, self.layout, self.layouts)
            around = values | {"layout_subject": subject, "layout_locale": self.locale}
            html = body.render(around, style_of(self.locale, sms=False), brand.settings.layout)
            logo = brand.logo() if f"cid:{LOGO}" in html else None
        # Somebody may read no HTML, and a letter without text looks like junk to many filters.
        text = self._written("text", self.text, values) if self.text is not None or html is None else text_of(html) or subject
        attachments = enclosed(self.attachments, logo, values["_data"]) if self.attachments or logo is not None else None
        return Composed(self.template_id, self.number, self.locale, subject, text, html, None, 1, brand.name, attachments)

    def with_absent(self, values: dict[str, Any]) -> dict[str, Any]:
        absent = dict.fromkeys(self.properties)
        data = {**absent, **values["data"]}
        own = {name: data[name] for name in OF_SEVERAL if name in data}
        events = {} if "events" in own else {"events": [{**absent, **one} for one in values["events"]]}
        return {**absent, **values, **events, **own, "data": data}

    def _as_wanted(self, text: str) -> str:
        """As the options have it written: that may leave nothing of a text, or make it four times longer."""
        text = applied(text, self.options).strip()
        if not text:
            raise RenderFailed("The text came out empty.")
        if len(text) > (most := LIMITS["sms"][2]):
            raise RenderFailed(f"The text would have more than {most:,} characters.")
        return text

    def _written(self, kind: Kind, source: str | None, values: dict[str, Any]) -> str:
        part = self._parts.get(kind)
        if part is None:
            compiled = compile_part(source or "", kind)
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
        self._layouts: Mapping[str, Layout] = built_in()
        self._brands = Brands()

    async def refresh(self, session: AsyncSession, stamp: tuple[int, int] | None = None) -> None:
        """Up to date with this session. One small query when nothing has changed, none when the caller has asked for the STAMP himself.

        What stayed the same stays compiled."""
        if stamp is None:
            count, revisions = (await session.execute(STAMP)).one()
            stamp = count, int(revisions)
        if stamp == self._stamp:
            return
        layouts = await layouts_of(session)
        same = layouts == self._layouts
        known = (version for locales in self._published.values() for version in locales.values() if same or not version.has_html)
        compiled = {(version.template_id, version.number, version.properties): version for version in known}
        self._layouts, self._brands = layouts, await brands_of(session)
        published: dict[tuple[str, str], dict[str, Version]] = {}
        for code, schema, *fields in (await session.execute(PUBLISHED)).all():
            properties = tuple(sorted(schema))
            channel, locale, template_id, number, subject, text, html, options, mjml, layout, attachments = fields
            version = compiled.get((template_id, number, properties)) or Version(
                template_id, number, channel, locale, subject, text, html, properties, options, mjml, layout, attachments, layouts
            )
            published.setdefault((code, channel), {})[locale] = version
        self._published, self._found, self._stamp = published, {}, stamp
        self._offering = frozenset(key for key, locales in published.items() if any(version.offers_refusal for version in locales.values()))

    def offers_refusal(self, type_code: str, channel: str) -> bool:
        """Whether a template of these, in any language, writes the link that refuses the type."""
        return (type_code, channel) in self._offering

    def compose(self, type_code: str, channel: str, locale: str, values: dict[str, Any], *, attributes: Mapping[str, Any] | None = None) -> Composed:
        """The message in this language, or the nearest that there is. NoTemplate, or RenderFailed with the line.

        ru-RU, then ru, then the operator's default, then any (the first by name). The brand is that of the account: by the attributes that the values show,
        or by these."""
        key = (type_code, channel, locale)
        version = self._found.get(key)
        if version is None:
            version = self._nearest(key)
            if len(self._found) >= MOST_REMEMBERED:
                self._found.clear()
            self._found[key] = version
        if not self._brands:
            return version.compose(values)
        return version.compose(values, self._brands.of(values["account"]["attributes"] if attributes is None else attributes))

    def _nearest(self, key: tuple[str, str, str]) -> Version:
        code, channel, locale = key
        locales = self._published.get((code, channel))
        if not locales:
            raise NoTemplate(f"nothing is published for {code} by {channel}")
        return locales[nearest_locale(locale, self._default, locales)]


def nearest_locale(locale: str, default: str, known: Collection[str]) -> str:
    """In which of these languages somebody is written to: ru-RU, then ru, then the operator's default, then any (the first by name)."""
    return next((wanted for wanted in (*_widening(locale), *_widening(default)) if wanted in known), min(known))


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
            "attributes": Free(account.attributes if unread is None else orjson.loads(unread) if unread != "{}" else ()),
        },
        "contact": {"address": contact.address, "label": contact.label},
        "event": {"type": event_type, "time": event_time.astimezone(zone)},
        "data": values,
        "now": now.astimezone(zone),
        "links": {"cabinet": "", "unsubscribe": "", **links},
        "brand": BUILT_IN_VALUES,
        "_zone": zone,
        "_data": data,
    }


@lru_cache(maxsize=1000)
def zone_of(name: str) -> tzinfo:
    """The zone of this name; UTC where this machine's zone data does not know it."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return UTC
