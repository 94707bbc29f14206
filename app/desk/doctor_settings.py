"""The doctor looks at the settings: what a start would not refuse, and is wrong all the same."""

import stat
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from app.core.config import LOCAL_JWT_SECRET, LOCAL_SECRET_KEY, Settings
from app.desk.findings import Finding

AREA = "settings"
LEAST_SECRET = 32  # octets: what HS256 asks for (RFC 7518, 3.2)
LEAST_DIFFERENT = 10  # characters: `aaaa...` and `12341234...` are no secrets


def look_at_settings(settings: Settings) -> list[Finding]:
    found = [*_secrets(settings), *_addresses(settings), *_days(settings)]
    found += [Finding(AREA, "file_is_open", {"file": path}) for path in (Path(".env"),) if _is_open(path)]
    if settings.env == "local":
        found.append(Finding(AREA, "env_local"))
    said = {"env": settings.env, "timezone": settings.timezone, "locale": settings.locale}
    return [Finding(AREA, "settings_ok", said), *found]


def _secrets(settings: Settings) -> list[Finding]:
    found, keys = [], settings.secret_keys.get_secret_value().split(",")
    if LOCAL_SECRET_KEY in (key.strip() for key in keys):
        found.append(Finding(AREA, "secret_keys_local"))
    if len(keys) > 2:
        found.append(Finding(AREA, "secret_keys_many", {"number": len(keys)}))
    secret = settings.jwt_hs256_secret.get_secret_value()
    if secret and (secret == LOCAL_JWT_SECRET or len(secret.encode()) < LEAST_SECRET or len(set(secret)) < LEAST_DIFFERENT):
        found.append(Finding(AREA, "jwt_secret_weak"))
    return found


def _addresses(settings: Settings) -> list[Finding]:
    found = []
    if not settings.public_url:
        found.append(Finding(AREA, "public_url_missing", {"url": settings.base_url}))
    elif urlsplit(settings.public_url).scheme != "https":
        found.append(Finding(AREA, "public_url_not_https", {"url": settings.public_url}))
    elif _is_inside(urlsplit(settings.public_url).hostname or ""):
        found.append(Finding(AREA, "public_url_inside", {"url": settings.public_url}))
    for origin in filter(None, (part.strip() for part in settings.cors_origins.split(","))):
        parts = urlsplit(origin)
        if origin == "*":
            found.append(Finding(AREA, "cors_everybody"))
        elif not parts.netloc or f"{parts.scheme}://{parts.netloc}" != origin:
            found.append(Finding(AREA, "cors_no_origin", {"origin": origin}))
    if any(ip_network(network).prefixlen == 0 for network in settings.metrics_networks):
        found.append(Finding(AREA, "metrics_open"))
    return found


def _days(settings: Settings) -> list[Finding]:
    days = {"content": settings.retention_days_content, "record": settings.retention_days_record}
    return [Finding(AREA, "retention_reversed", days)] if settings.retention_days_content > settings.retention_days_record else []


def _is_inside(host: str) -> bool:
    """Whether a subscriber cannot reach it: this machine, or a private network."""
    try:
        return not ip_address(host).is_global
    except ValueError:
        return host == "localhost" or "." not in host


def _is_open(path: Path) -> bool:
    """Whether others on this machine may read it."""
    try:
        return bool(path.stat().st_mode & (stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH))
    except OSError:
        return False
