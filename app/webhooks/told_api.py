"""What an endpoint was told, over the API: deliveries with their attempts, a test, and a period again."""

from typing import Annotated, Any, Literal
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Path, Query, Request
from pydantic import AwareDatetime

from app.core import audit
from app.core.auth import Admin
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import Conflict, NotFound, field_invalid
from app.core.http import Guarded
from app.core.ids import new_id
from app.core.page import Page, Paging, bad_cursor, encode_cursor
from app.core.wakeups import WEBHOOKS
from app.webhooks.api import EndpointId, existing
from app.webhooks.attempt import attempt, client_of, secrets_of
from app.webhooks.bodies import ping_of
from app.webhooks.models import TYPES, WebhookReplay
from app.webhooks.replays import a_replay, wanted
from app.webhooks.shapes import ReplayIn, Type, WebhookDeliveryOut, WebhookReplayOut, WebhookTestOut

router = APIRouter(prefix="/webhooks", tags=["webhooks"], route_class=Guarded)

MOST_SHOWN = 500  # characters of the answer to a test
LISTED = "SELECT subject_id, type, reason, at, state, attempts, queued_at, due_at, replay_id, history FROM webhook_delivery"
RUNNING = sa.text("SELECT EXISTS (SELECT FROM webhook_replay WHERE endpoint_id = :id AND state = 'running')")


@router.get("/{webhook_id}/deliveries", operation_id="list_webhook_deliveries", summary="What an endpoint was told, or is to be told")
async def list_deliveries(
    *,
    webhook_id: EndpointId,
    session: SessionDep,
    caller: Admin,
    page: Paging,
    state: Annotated[Literal["waiting", "sending", "delivered", "failed"] | None, Query()] = None,
    type_: Annotated[Type | None, Query(alias="type")] = None,
    subject_id: Annotated[UUID | None, Query(description="A message, or an inbound message")] = None,
    from_: Annotated[AwareDatetime | None, Query(alias="from", description="It happened then or later")] = None,
    to: Annotated[AwareDatetime | None, Query(description="It happened before")] = None,
) -> Page[WebhookDeliveryOut]:
    """By the time at which their messages were made, the newest first. They are kept for VESTNIK_WEBHOOK_DAYS."""
    await existing(session, webhook_id)
    wanted_rows: list[tuple[str, dict[str, Any]]] = [("endpoint_id = :endpoint", {"endpoint": webhook_id})]
    given = ("state", "=", state), ("type", "=", type_), ("subject_id", "=", subject_id), ("at", ">=", from_), ("at", "<", to)
    for number, (column, relation, value) in enumerate(given):
        if value is not None:
            wanted_rows.append((f"{column} {relation} :v{number}", {f"v{number}": value}))
    if after := page.key(UUID, str):
        if after[1] not in TYPES:
            raise bad_cursor()
        wanted_rows.append(("(subject_id, type) < (:after_id, CAST(:after_type AS text))", {"after_id": after[0], "after_type": after[1]}))
    values: dict[str, Any] = {"limit": page.limit + 1}
    for _, more in wanted_rows:
        values |= more
    where = " AND ".join(condition for condition, _ in wanted_rows)
    found = (await session.execute(sa.text(f"{LISTED} WHERE {where} ORDER BY subject_id DESC, type DESC LIMIT :limit"), values)).all()
    shown = found[: page.limit]
    more_cursor = encode_cursor(shown[-1].subject_id, shown[-1].type) if len(found) > page.limit else None
    return Page(items=[WebhookDeliveryOut.of(row) for row in shown], next_cursor=more_cursor)


@router.post("/{webhook_id}/test", operation_id="test_webhook", summary="Send a webhook.ping now, and hear what the endpoint says")
async def test_webhook(webhook_id: EndpointId, request: Request, caller: Admin) -> WebhookTestOut:
    """It takes fifteen seconds at the most. Also for a disabled endpoint; whatever it answers changes nothing."""
    app = request.app
    async with app.state.database.transaction() as session:
        row = await existing(session, webhook_id)
        await audit.record(session, caller, "webhook.test", f"webhook:{webhook_id}")
    if not app.state.secrets.opens(row.secret):
        raise Conflict("No key of VESTNIK_SECRET_KEYS opens the secret of this endpoint: rotate it.", code="secret_unreadable")
    client = client_of(row, app.state.settings)
    try:
        tried, answer = await attempt(client, f"msg_{new_id().hex}_ping", ping_of(webhook_id), secrets_of(row, app.state.secrets, now()))
    finally:
        await client.close()
    said = "".join(letter for letter in answer.decode("utf-8", "replace") if letter.isprintable() or letter in "\n\t")[:MOST_SHOWN] or None
    return WebhookTestOut(delivered=tried.verdict == "delivered", status=tried.status, milliseconds=tried.milliseconds, error=tried.error, answer=said)


@router.post("/{webhook_id}/replay", operation_id="replay_webhook", summary="Tell a period again", status_code=202)
async def replay_webhook(webhook_id: EndpointId, body: ReplayIn, request: Request, session: SessionDep, caller: Admin) -> WebhookReplayOut:
    """Under the same `webhook-id` as the first time, and with `replay` in the body. What was never queued is found as well, by the present states of messages
    that were made in the seven days before the period at the earliest."""
    row = await existing(session, webhook_id, lock=True)
    if body.from_at >= body.to_at:
        raise field_invalid(("to",), "bad_period", "`to` comes after `from`.")
    if not row.enabled:
        raise Conflict("The endpoint is disabled: POST .../enable first.", code="webhook_disabled")
    if (await session.execute(RUNNING, {"id": webhook_id})).scalar():
        raise Conflict("A replay of this endpoint is running: wait until it is done.", code="replay_running")
    types = wanted(list(body.types) if body.types is not None else None, row.types)
    made = a_replay(webhook_id, body.from_at, body.to_at, types, caller.name, now())
    session.add(made)
    changes = {"from": body.from_at.isoformat(), "to": body.to_at.isoformat(), "types": types}
    await audit.record(session, caller, "webhook.replay", f"webhook:{webhook_id}", changes)
    request.state.after_commit = [WEBHOOKS]
    return WebhookReplayOut.of(made)


@router.get("/{webhook_id}/replays/{replay_id}", operation_id="read_webhook_replay", summary="How far a replay has come")
async def read_replay(webhook_id: EndpointId, replay_id: Annotated[UUID, Path()], session: SessionDep, caller: Admin) -> WebhookReplayOut:
    row = await session.get(WebhookReplay, replay_id)
    if row is None or row.endpoint_id != webhook_id:
        raise NotFound("This endpoint has no replay of this id.", code="replay_not_found")
    return WebhookReplayOut.of(row)
