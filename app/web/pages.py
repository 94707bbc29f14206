"""Pages for people without a key: one file of HTML, nothing fetched from anywhere, nothing that could run."""

import base64
import hashlib
import tomllib
from functools import cache
from html import escape
from pathlib import Path

from fastapi.responses import HTMLResponse

from app.gateways.words import Locale, preferred

HERE = Path(__file__).parent
NAMES: dict[Locale, str] = {"ru": "Русский", "en": "English"}


@cache
def wording() -> dict[str, dict[str, str]]:
    """Constant: the file is part of the product."""
    return tomllib.loads((HERE / "wording" / "unsubscribe.toml").read_text("utf-8"))


@cache
def _layout() -> tuple[str, str]:
    """The page with its style in it, and the header that lets nothing but this style in (CSP level 3)."""
    style = (HERE / "page.css").read_text("utf-8")
    known = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{known}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    return (HERE / "page.html").read_text("utf-8").replace("@STYLE@", style), policy


def page(title: str, body: str, locale: Locale, status: int = 200) -> HTMLResponse:
    """`title` is a text; `body` is HTML that is safe already."""
    layout, policy = _layout()
    other: Locale = "en" if locale == "ru" else "ru"
    # The body last: what it says is not looked through for places.
    for name, value in (("LOCALE", locale), ("TITLE", escape(title)), ("OTHER_NAME", NAMES[other]), ("OTHER", other), ("BODY", body)):
        layout = layout.replace(f"@{name}@", value)
    headers = {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",  # the address of the page is the right to change it
        "Cache-Control": "no-store",
        "X-Robots-Tag": "noindex",
        "Content-Language": locale,
    }
    return HTMLResponse(layout, status, headers)


def said(key: str, locale: Locale, **values: str) -> str:
    """A sentence as HTML: what stands in it is a text."""
    return escape(wording()[key][locale].format(**values))


def tongue(asked: str, accept_language: str, otherwise: str) -> Locale:
    """The language that the address asks for, else the browser's, else the account's."""
    if asked in ("ru", "en"):
        return "ru" if asked == "ru" else "en"
    return preferred(accept_language) or ("ru" if otherwise.lower().startswith("ru") else "en")
