"""The doctor looks at the roads and the words: gateways that can be reached and are bound, routes that lead somewhere, a template for everything that is told."""

import asyncio
import contextlib
from collections import defaultdict
from typing import Any

import orjson
import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import Settings
from app.core.errors import ConfigurationError
from app.core.secrets import SecretBox
from app.desk.findings import Finding
from app.gateways.health import UP
from app.gateways.hosts import Endpoint, shown
from app.gateways.models import Gateway
from app.gateways.settings import kept_settings, smpp_settings, smtp_settings
from app.gateways.smpp import SmppSettings
from app.gateways.smtp import SmtpSettings
from app.rendering.compose import nearest_locale

ANSWERS_WITHIN = 3.0  # seconds for a TCP connection
AT_ONCE = 16
KINDS = {"sms": "smpp", "email": "smtp"}

SLOTS = sa.text("SELECT gateway, slot, until > now() AS is_held, CAST(status AS text) AS status FROM bind_slot")
TYPES = sa.text("SELECT code, channels FROM notification_type WHERE enabled ORDER BY code")
ROUTES = sa.text("SELECT CAST(routes AS text) FROM routing")
KNOWN_TYPES = sa.text("SELECT code FROM notification_type")
PUBLISHED = sa.text("SELECT type, channel, locale FROM template WHERE published_version IS NOT NULL")
LOCALES = sa.text("SELECT locale, count(*) AS accounts FROM account GROUP BY locale")


async def look_at_gateways(session: AsyncSession, settings: Settings) -> list[Finding]:
    """Without a gateway a channel tells nobody; with one, each enabled gateway's secret, settings, hosts and binds."""
    gateways = list((await session.execute(sa.select(Gateway).order_by(Gateway.name))).scalars())
    slots: Any = {(row.gateway, row.slot): row for row in (await session.execute(SLOTS)).all()}
    told = {channel for row in (await session.execute(TYPES)).all() for channel in row.channels}
    found, secrets, hosts = list[Finding](), SecretBox(settings.secret_keys), dict[str, tuple[Endpoint, ...]]()
    for gateway in gateways:
        fault = _fault(gateway, secrets)
        if fault is not None:
            found.append(fault)
        elif gateway.enabled:
            given = kept_settings(gateway)
            hosts[gateway.name] = _endpoints(given) if given is not None else ()
            found += _standing(gateway, slots)
    for channel in sorted(told):
        if not any(gateway.enabled and gateway.kind == KINDS.get(channel) for gateway in gateways):
            found.append(Finding("gateways", "channel_without_gateway", {"channel": channel}))
    found += await _reached(hosts)
    return [Finding("gateways", "gateways_ok", {"number": len(gateways), "enabled": sum(gateway.enabled for gateway in gateways)}), *found]


def _fault(gateway: Gateway, secrets: SecretBox) -> Finding | None:
    """What keeps it from being opened at all."""
    try:
        smpp_settings(gateway, secrets) if gateway.kind == "smpp" else smtp_settings(gateway, secrets)
    except ConfigurationError:
        return Finding("gateways", "gateway_secret_unreadable", {"gateway": gateway.name})
    except ValidationError as error:
        keys = ", ".join(sorted({".".join(map(str, fault["loc"])) or "?" for fault in error.errors()}))
        return Finding("gateways", "gateway_settings_invalid", {"gateway": gateway.name, "keys": keys})
    return None


def _standing(gateway: Gateway, slots: dict[tuple[str, int], Any]) -> list[Finding]:
    """What its binds say of themselves. A pool of mail connections says nothing: it connects when there is a letter."""
    found = [Finding("gateways", "gateway_paused", {"gateway": gateway.name})] if gateway.paused else []
    for number in range(int(gateway.settings.get("binds") or 1) if gateway.kind == "smpp" else 0):
        row, values = slots.get((gateway.name, number)), {"gateway": gateway.name, "slot": number}
        if row is None or not row.is_held:
            found.append(Finding("gateways", "bind_without_owner", values))
            continue
        status = orjson.loads(row.status)
        if status.get("state") not in UP:
            error = status.get("last_error") or {}
            said = " ".join(str(error[key]) for key in ("where", "name", "command_status") if error.get(key)) or "-"
            found.append(Finding("gateways", "bind_down", {**values, "state": status.get("state", "?"), "error": said}))
    return found


def _endpoints(settings: SmppSettings | SmtpSettings) -> tuple[Endpoint, ...]:
    return settings.endpoints if isinstance(settings, SmppSettings) else ((settings.host, settings.port),)


async def _reached(hosts: dict[str, tuple[Endpoint, ...]]) -> list[Finding]:
    """Each host by name, and a TCP connection that is closed at once: no bind is spent on it."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(gateway: str, endpoint: Endpoint) -> list[Finding]:
        values: dict[str, object] = {"gateway": gateway, "host": shown(endpoint)}
        async with turns:
            try:
                async with asyncio.timeout(ANSWERS_WITHIN):
                    await asyncio.get_running_loop().getaddrinfo(*endpoint)
            except (OSError, UnicodeError):  # a time-out is an OSError as well
                return [Finding("gateways", "host_unknown", values)]
            try:
                async with asyncio.timeout(ANSWERS_WITHIN):
                    _, writer = await asyncio.open_connection(*endpoint)
            except OSError as error:
                return [Finding("gateways", "host_refuses", values | {"error": type(error).__name__})]
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return []

    looked = await asyncio.gather(*(one(name, endpoint) for name, endpoints in hosts.items() for endpoint in endpoints))
    return [finding for findings in looked for finding in findings]


async def look_at_routes(session: AsyncSession, settings: Settings) -> list[Finding]:
    """Routes none of whose gateways can take anything, and those that name what is not there any more."""
    usable = {row.name for row in (await session.execute(sa.select(Gateway))).scalars() if row.enabled}
    codes = set((await session.execute(KNOWN_TYPES)).scalars())
    found = []
    for place, route in enumerate(orjson.loads(await session.scalar(ROUTES) or "[]"), start=1):
        named = [gateway["name"] if isinstance(gateway, dict) else str(gateway) for gateway in route.get("gateways", [])]
        values = {"route": route.get("name") or f"#{place}", "gateways": ", ".join(sorted(set(named) - usable))}
        if not usable & set(named):
            found.append(Finding("gateways", "route_to_nowhere", values))
        elif values["gateways"]:
            found.append(Finding("gateways", "route_in_part", values))
        if unknown := sorted(set(route.get("type", [])) - codes):
            found.append(Finding("gateways", "route_type_unknown", {"route": values["route"], "types": ", ".join(unknown)}))
    return found


async def look_at_words(session: AsyncSession, settings: Settings) -> list[Finding]:
    """Every enabled type has a channel, every channel of it published words, and every language that accounts speak words of its own."""
    published: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in (await session.execute(PUBLISHED)).all():
        published[row.type, row.channel].add(row.locale)
    spoken = {row.locale: row.accounts for row in (await session.execute(LOCALES)).all()} or {settings.locale: 0}
    found, lacking = list[Finding](), dict[str, list[str]]()
    types = (await session.execute(TYPES)).all()
    for kind in types:
        if not kind.channels:
            found.append(Finding("words", "type_without_channels", {"type": kind.code}))
        for channel in kind.channels:
            known = published.get((kind.code, channel))
            if not known:
                found.append(Finding("words", "template_missing", {"type": kind.code, "channel": channel}))
                continue
            for locale in spoken:
                if _language(nearest_locale(locale, settings.locale, known)) != _language(locale):
                    lacking.setdefault(locale, []).append(f"{kind.code} ({channel})")
    found += [Finding("words", "language_missing", {"locale": key, "accounts": spoken[key], "types": ", ".join(of)}) for key, of in sorted(lacking.items())]
    return [Finding("words", "words_ok", {"types": len(types)}), *found]


def _language(locale: str) -> str:
    return locale.replace("_", "-").partition("-")[0].lower()
