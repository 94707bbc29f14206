"""The page behind the link in a letter: looking at it changes nothing, its button and a mail program's one click refuse that type on that contact.

RFC 8058: a POST of `List-Unsubscribe=One-Click` has no cookies, no key and nobody who could confirm: the token alone is the right. Scanners of links
follow a GET, which is why a GET changes nothing.
"""

from dataclasses import dataclass
from html import escape
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs

import sqlalchemy as sa
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.preference_store import switch
from app.accounts.preferences import Preferences, read, refusal
from app.accounts.unsubscribe import OfMessage, Refusable, UnsubscribeLinks
from app.catalogue.registry import Catalogue, TypeRules
from app.core import audit
from app.core.clock import now
from app.core.config import Settings
from app.core.db import SessionDep
from app.core.limits import CLICKS
from app.core.masks import masked
from app.gateways.words import Locale
from app.notifications.links import can_be_refused
from app.notifications.replan import replan
from app.web.pages import page, said, tongue, wording

HTML: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "content": {"text/html": {"schema": {"type": "string"}}}}
    for status, description in ((200, "The page"), (400, "A page: the body says neither yes nor no"), (404, "A page: the link does not work"))
}
router = APIRouter(prefix="/unsubscribe", tags=["unsubscribe"], default_response_class=HTMLResponse)

OF_MESSAGE = sa.text("SELECT account_id, contact_id, type FROM message WHERE id = :id AND contact_id IS NOT NULL")
FOUND = sa.text("""
SELECT c.channel, c.address, a.locale, (SELECT CAST(p.document AS text) FROM account_preference p WHERE p.account_id = a.id) AS chosen
FROM account a JOIN contact c ON c.account_id = a.id WHERE a.id = :account AND c.id = :contact AND a.status <> 'erased'
""")
# What is on the wire is settled as it comes out; put back into the queue it must not go again: it has expired.
LAST_TRY = sa.text("""
UPDATE outbox o SET expires_at = LEAST(o.expires_at, :now) FROM message m
WHERE m.account_id = :account AND m.contact_id = :contact AND m.type = :type AND o.message_id = m.id AND o.state = 'sending'
""")

MOST_BODY = 16 * 1024
SUBSCRIBER = "subscriber"

Wish = Literal["off", "on"]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a link speaks of, as it is now."""

    of: Refusable
    rules: TypeRules
    channel: str
    address: str
    chosen: Preferences
    locale: Locale

    @property
    def is_refused(self) -> bool:
        """By the link's own switch."""
        contact = self.chosen.contacts.get(self.of.contact_id)
        return contact is not None and contact.types.get(self.of.type) is False


@router.get("/{token}", operation_id="show_unsubscribe", summary="The page of an unsubscribe link: it changes nothing", responses=HTML)
async def show_unsubscribe(token: str, request: Request, session: SessionDep, locale: Annotated[str, Query(max_length=35)] = "") -> HTMLResponse:
    subject = await look_up(session, request, token, locale)
    return shown(request, subject) if subject is not None else gone(request, locale)


@router.head("/{token}", include_in_schema=False)
async def look_at_unsubscribe(token: str, request: Request, session: SessionDep, locale: Annotated[str, Query(max_length=35)] = "") -> Response:
    """As GET, without the page: scanners of links ask so."""
    whole = await show_unsubscribe(token, request, session, locale)
    return Response(status_code=whole.status_code, headers=dict(whole.headers))


@router.post("/{token}", operation_id="unsubscribe", summary="Refuse the type on that contact, or allow it again", responses=HTML)
async def unsubscribe(token: str, request: Request, session: SessionDep, locale: Annotated[str, Query(max_length=35)] = "") -> HTMLResponse:
    """`List-Unsubscribe=One-Click` or `choice=off` refuses, `choice=on` allows again. The same again changes nothing; of mandatory types nothing changes."""
    subject = await look_up(session, request, token, locale)
    if subject is None:
        return gone(request, locale)
    wish = wish_in(request.headers.get("content-type", ""), await request.body())
    if wish is None:
        spoken: Locale = subject.locale
        return page(wording()["title"][spoken], f"<p>{said('unclear', spoken)}</p>", spoken, 400)
    if can_be_refused(subject.rules):
        await request.app.state.limits.admit([(CLICKS, str(subject.of.contact_id))])
        await switch_by_link(session, subject, wish, request.app.state.settings)
    after = await look_up(session, request, token, locale)
    return shown(request, after, answers=wish) if after is not None else gone(request, locale)


async def look_up(session: AsyncSession, request: Request, token: str, locale: str) -> Subject | None:
    """Nothing for a token that is not ours, and for one whose account, contact or type is gone: nobody learns which."""
    settings: Settings = request.app.state.settings
    named = UnsubscribeLinks(settings).read(token)
    if isinstance(named, OfMessage):
        row = (await session.execute(OF_MESSAGE, {"id": named.message_id})).first()
        named = Refusable(row.account_id, row.contact_id, row.type) if row is not None else None
    if named is None:
        return None
    found = (await session.execute(FOUND, {"account": named.account_id, "contact": named.contact_id})).first()
    catalogue: Catalogue = request.app.state.catalogue
    await catalogue.refresh(session)
    rules = catalogue.types.get(named.type)
    if found is None or rules is None:
        return None
    chosen = read(found.chosen)
    return Subject(named, rules, found.channel, found.address, chosen, tongue_of(request, locale, chosen.locale or found.locale))


async def switch_by_link(session: AsyncSession, subject: Subject, wish: Wish, settings: Settings) -> None:
    """The choice, its proof and what waits, in one transaction."""
    of, on = subject.of, wish == "on"
    place = ("contacts", str(of.contact_id), "types", of.type)
    if not await switch(session, of.account_id, place, on, by=SUBSCRIBER, via="link"):
        return
    await audit.record(session, SUBSCRIBER, "preferences.link", f"account:{of.account_id}", {".".join(place): [not on, on]})
    await replan(session, [of.account_id], settings)
    if not on:
        await session.execute(LAST_TRY, {"account": of.account_id, "contact": of.contact_id, "type": of.type, "now": now()})


def wish_in(content_type: str, body: bytes) -> Wish | None:
    """What a body says. RFC 8058, 3.2: a mail program may send it as multipart/form-data as well."""
    if len(body) > MOST_BODY:
        return None
    text = body.decode("utf-8", "replace")
    if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
        return "off" if 'name="list-unsubscribe"' in text.lower() and "one-click" in text.lower() else None
    try:
        fields = parse_qs(text, max_num_fields=20)
    except ValueError:
        return None
    if fields.get("List-Unsubscribe") == ["One-Click"]:
        return "off"
    match fields.get("choice"):
        case ["off"]:
            return "off"
        case ["on"]:
            return "on"
    return None


def shown(request: Request, subject: Subject, answers: Wish | None = None) -> HTMLResponse:
    """How it stands, and the button that changes it. `answers`: what the reader has just wished."""
    locale, rules = subject.locale, subject.rules
    names = {"type": rules.titles.get(locale) or rules.titles.get("ru") or rules.code, "address": masked(subject.address)}
    if not can_be_refused(rules):
        lines = [f"<p>{said('mandatory', locale, **names)}</p>"]
        if rules.options.ground:
            lines.append(f"<p>{said('ground', locale, ground=rules.options.ground)}</p>")
    elif subject.is_refused:
        lines = [f"<p>{said('off', locale, **names)}</p>", f'<p class="small">{said("waiting", locale)}</p>' if answers == "off" else "", button("on", locale)]
    elif refusal(rules, subject.channel, subject.of.contact_id, subject.chosen) is not None:
        lines = [f"<p>{said('still_off' if answers == 'on' else 'otherwise_off', locale, **names)}</p>"]
    else:
        lines = [f"<p>{said('on', locale, **names)}</p>", button("off", locale), f'<p class="small">{said("others", locale)}</p>']
    return page(wording()["title"][locale], "\n".join([*filter(None, lines), cabinet_link(request, locale)]), locale)


def button(wish: Wish, locale: Locale) -> str:
    # Without an address the form goes back to where it came from, token and all.
    return f'<form method="post" action="?locale={locale}"><p><button name="choice" value="{wish}">{said(f"turn_{wish}", locale)}</button></p></form>'


def cabinet_link(request: Request, locale: Locale) -> str:
    address: str = request.app.state.settings.cabinet_url
    return f'<p class="small"><a href="{escape(address)}" rel="noreferrer">{said("cabinet", locale)}</a></p>' if address else ""


def gone(request: Request, locale: str) -> HTMLResponse:
    spoken = tongue_of(request, locale, request.app.state.settings.locale)
    return page(wording()["gone_title"][spoken], f"<p>{said('gone', spoken)}</p>" + cabinet_link(request, spoken), spoken, 404)


def tongue_of(request: Request, asked: str, otherwise: str) -> Locale:
    return tongue(asked, request.headers.get("accept-language", ""), otherwise)
