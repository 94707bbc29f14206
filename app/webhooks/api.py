"""Webhooks over the API: endpoints made, changed, and taken away; their secrets go out once."""

from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Path, Request, Response
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import audit
from app.core.auth import Admin
from app.core.clock import now
from app.core.config import Settings
from app.core.db import SessionDep
from app.core.errors import Conflict, NotFound, field_invalid
from app.core.http import Guarded
from app.core.ids import new_id
from app.core.outgoing import DestinationRefused, check_url
from app.core.page import Page, Paging, encode_cursor
from app.core.preconditions import IfMatch, etag, require_match
from app.core.wakeups import WEBHOOKS
from app.webhooks.attempt import rules_of
from app.webhooks.models import TYPES, Webhook
from app.webhooks.shapes import NewWebhookOut, SecretChangeIn, WebhookChangeIn, WebhookIn, WebhookOut
from app.webhooks.signing import new_secret

router = APIRouter(prefix="/webhooks", tags=["webhooks"], route_class=Guarded)

MOST = 50  # endpoints: each costs every settled batch a little
EndpointId = Annotated[UUID, Path(description="Of the endpoint")]


@router.get("", operation_id="list_webhooks", summary="Endpoints that are told what happens, the newest first")
async def list_webhooks(session: SessionDep, caller: Admin, page: Paging) -> Page[WebhookOut]:
    endpoint: sa.ColumnClause[UUID] = sa.column("id")
    query = sa.select(Webhook).order_by(endpoint.desc()).limit(page.limit + 1)
    if after := page.key(UUID):
        query = query.where(endpoint < after[0])
    found = (await session.scalars(query)).all()
    shown = found[: page.limit]
    return Page(items=[WebhookOut.of(row) for row in shown], next_cursor=encode_cursor(shown[-1].id) if len(found) > page.limit else None)


@router.post("", operation_id="create_webhook", summary="Tell this endpoint what happens", status_code=201)
async def create_webhook(body: WebhookIn, request: Request, response: Response, session: SessionDep, caller: Admin) -> NewWebhookOut:
    """From now on: what happened before is told by a replay. The answer shows the secret this once. A second endpoint with the same URL is refused (409)."""
    require_destination(body.url, request.app.state.settings)
    await session.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended('webhooks', 0))"))
    if ((await session.execute(sa.text("SELECT count(*) FROM webhook"))).scalar() or 0) >= MOST:
        raise Conflict(f"There are {MOST} endpoints already: delete one that nobody needs.", code="too_many_webhooks")
    secret, moment = new_secret(), now()
    row = Webhook(
        id=new_id(),
        url=body.url,
        title=body.title,
        types=ordered(body.types),
        with_text=body.with_text,
        with_tests=body.with_tests,
        secret=request.app.state.secrets.seal(secret),
        created_at=moment,
        updated_at=moment,
    )
    made: Any = (await session.execute(insert(Webhook).values(**row.model_dump()).on_conflict_do_nothing().returning(sa.column("id")))).first()
    if made is None:
        raise url_taken()
    shown = {"host": host_of(row.url), "types": row.types, "with_text": row.with_text, "with_tests": row.with_tests}
    await audit.record(session, caller, "webhook.create", f"webhook:{row.id}", shown)
    response.headers["ETag"] = etag(row.revision)
    return NewWebhookOut.with_secret(row, secret)


@router.get("/{webhook_id}", operation_id="read_webhook", summary="One endpoint, and how it does")
async def read_webhook(webhook_id: EndpointId, session: SessionDep, caller: Admin, response: Response) -> WebhookOut:
    row = await existing(session, webhook_id)
    response.headers["ETag"] = etag(row.revision)
    return WebhookOut.of(row)


@router.patch("/{webhook_id}", operation_id="change_webhook", summary="Change an endpoint")
async def change_webhook(
    webhook_id: EndpointId, body: WebhookChangeIn, request: Request, session: SessionDep, caller: Admin, response: Response, if_match: IfMatch = None
) -> WebhookOut:
    """What waits goes to the new URL. With `enabled: false` nothing more is queued; what waits goes on after POST .../enable, if that is within its two days."""
    row = await existing(session, webhook_id, lock=True)
    require_match(if_match, row.revision)
    given = {name: value for name, value in body.model_dump(exclude_unset=True).items() if value is not None}
    if "types" in given:
        given["types"] = ordered(given["types"])
    changes = {name: [getattr(row, name), value] for name, value in given.items() if getattr(row, name) != value}
    if "url" in changes:
        require_destination(given["url"], request.app.state.settings)
        taken = sa.text("SELECT EXISTS (SELECT FROM webhook WHERE url = :url AND id <> :id)")
        await session.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended('webhooks', 0))"))
        if (await session.execute(taken, {"url": given["url"], "id": row.id})).scalar():
            raise url_taken()
    if changes:
        for name in changes:
            setattr(row, name, given[name])
        if "url" in changes:  # another one: how the last one did says nothing of it
            changes["host"] = [host_of(url) for url in changes.pop("url")]
            row.failures, row.failing_since, row.rests_until, row.last_error = 0, None, None, None
        if "enabled" in changes:
            row.disabled_because = "operator"
        row.revision, row.updated_at = row.revision + 1, now()
        await audit.record(session, caller, "webhook.update", f"webhook:{row.id}", changes)
        await session.flush()
    response.headers["ETag"] = etag(row.revision)
    return WebhookOut.of(row)


@router.delete("/{webhook_id}", operation_id="delete_webhook", summary="Tell this endpoint nothing more", status_code=204)
async def delete_webhook(webhook_id: EndpointId, session: SessionDep, caller: Admin) -> None:
    """What waits for it is dropped; an attempt that is out may still arrive."""
    row = await existing(session, webhook_id, lock=True)
    await session.delete(row)
    await audit.record(session, caller, "webhook.delete", f"webhook:{webhook_id}", {"host": host_of(row.url)})


@router.post("/{webhook_id}/enable", operation_id="enable_webhook", summary="Tell it again what happens, and try at once")
async def enable_webhook(webhook_id: EndpointId, request: Request, session: SessionDep, caller: Admin, response: Response) -> WebhookOut:
    """Also for one that rests after failures. What happened while it was disabled was not queued: replay it."""
    row = await existing(session, webhook_id, lock=True)
    if not row.enabled or row.failures or row.rests_until is not None:
        changes: dict[str, Any] = {"enabled": [row.enabled, True], "because": row.disabled_because} if not row.enabled else {"failures": [row.failures, 0]}
        row.enabled, row.disabled_because = True, None
        row.failures, row.failing_since, row.rests_until, row.last_error = 0, None, None, None
        row.revision, row.updated_at = row.revision + 1, now()
        await audit.record(session, caller, "webhook.enable", f"webhook:{row.id}", changes)
        await session.flush()
        request.state.after_commit = [WEBHOOKS]
    response.headers["ETag"] = etag(row.revision)
    return WebhookOut.of(row)


@router.post("/{webhook_id}/rotate-secret", operation_id="rotate_webhook_secret", summary="A new secret beside the old one")
async def rotate_secret(
    webhook_id: EndpointId, body: SecretChangeIn, request: Request, session: SessionDep, caller: Admin, response: Response
) -> NewWebhookOut:
    """For `hours` each webhook has two signatures; with 0 the old secret ends at once. The one before the old one ends in any case."""
    row = await existing(session, webhook_id, lock=True)
    secret, moment = new_secret(), now()
    box = request.app.state.secrets
    has_old = body.hours > 0 and box.opens(row.secret)  # one that nobody can read signs nothing
    row.old_secret = row.secret if has_old else None
    row.old_secret_until = moment + timedelta(hours=body.hours) if has_old else None
    row.secret = box.seal(secret)
    row.revision, row.updated_at = row.revision + 1, moment
    await audit.record(session, caller, "webhook.rotate", f"webhook:{row.id}", {"hours": body.hours})
    await session.flush()
    response.headers["ETag"] = etag(row.revision)
    return NewWebhookOut.with_secret(row, secret)


def require_destination(url: str, settings: Settings) -> None:
    try:
        check_url(url, rules_of(settings))
    except DestinationRefused as refused:
        raise field_invalid(("url",), refused.code, refused.detail) from None


def url_taken() -> Conflict:
    return Conflict("There is an endpoint with this URL: everything would be told twice.", code="webhook_exists")


def ordered(types: list[Any]) -> list[str]:
    return [name for name in TYPES if name in types]


def host_of(url: str) -> str:
    """What the audit may have of a URL: its path is often a secret."""
    return url.partition("://")[2].partition("/")[0].partition("?")[0]


async def existing(session: AsyncSession, webhook_id: UUID, *, lock: bool = False) -> Webhook:
    row = await session.get(Webhook, webhook_id, with_for_update=lock)
    if row is None:
        raise NotFound("There is no endpoint of this id.", code="webhook_not_found")
    return row
