"""The API process: `create_app(settings)` is the same in production and in tests."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts import api as accounts
from app.accounts import cabinet, consents_api, preference_bulk_api, quiet_api
from app.attachments import api as attachments
from app.catalogue import api as catalogue
from app.catalogue.registry import Catalogue
from app.core import health, http, metrics, openapi, problems
from app.core.auth import Gatekeeper
from app.core.config import Settings
from app.core.db import Database
from app.core.door import Service
from app.core.key_limits import KeyLimits
from app.core.limits import Limits
from app.core.migrate import head, known_revisions
from app.core.pulse import Pulse, see_workers
from app.core.secrets import SecretBox
from app.core.wakeups import Wakeups
from app.desk import audience_count, audit_api, contacts, erasure, event_view, explain, keys, preferences, preview_api, suppressions, test_send
from app.desk.preview import Previews
from app.events import api as events
from app.events.intake import Intake
from app.forecasts import api as forecasts
from app.forecasts import cabinet as own_forecast
from app.gateways import api as gateways
from app.gateways import ranges_api, routes_api
from app.notifications import api as messages
from app.notifications import bulk_api as message_bulks
from app.notifications import cabinet as own_messages
from app.notifications import caps_api
from app.notifications import stops_api as stops
from app.notifications.verification import Verification
from app.rendering import api as templates
from app.rendering import brands_api, layouts_api, lives_api, versions_api
from app.sending import api as sending
from app.sending import budgets_api as budgets
from app.sending.smtp.verp import Verp
from app.tracking import api as receipts
from app.tracking import bounces_api, inbound_api
from app.tracking.reports import api as reports
from app.tracking.reports import exports_api as report_exports
from app.web import unsubscribe
from app.webhooks import api as webhooks
from app.webhooks import contract, told_api

ROUTERS: tuple[APIRouter, ...] = (
    # First those that whole households wait for: they are looked through in this order.
    cabinet.router,
    preferences.own_router,
    own_forecast.router,
    own_messages.router,
    contacts.own,
    events.router,
    event_view.router,
    explain.router,
    catalogue.router,
    accounts.router,
    contacts.router,
    quiet_api.router,
    consents_api.router,
    erasure.router,
    forecasts.router,
    templates.router,
    attachments.router,
    versions_api.router,
    lives_api.router,
    layouts_api.router,
    brands_api.router,
    preview_api.router,
    test_send.router,
    audience_count.router,
    gateways.router,
    routes_api.router,
    ranges_api.router,
    sending.router,
    message_bulks.router,  # before the messages: their ids would take its name
    messages.router,
    receipts.router,
    inbound_api.router,
    bounces_api.router,
    report_exports.router,
    reports.router,
    suppressions.router,
    stops.router,
    caps_api.router,
    budgets.router,
    keys.router,
    webhooks.router,
    told_api.router,
    audit_api.router,
    preference_bulk_api.router,
    preferences.router,
)
PUBLISHED: list[bytes] = []  # the contract, made once in a process: it takes half a second, and settings change nothing of it


def create_app(settings: Settings) -> FastAPI:
    """The application. What it needs is built once, here, and found at `app.state`."""
    database = Database.of(settings, name="vestnik-serve", pool_size=10)
    wakeups = Wakeups(settings.redis_url)
    catalogue_now = Catalogue()
    intake = Intake(database, catalogue_now, wakeups)
    limits = Limits(settings.redis_url, settings.database_url)
    key_limits = KeyLimits(database, limits, settings.timezone)
    previews = Previews()
    pulse = Pulse(database, settings.redis_url, see_workers, partial(see_types, Catalogue()), queues=True)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        intake.start()
        pulse.start()
        yield
        await pulse.stop()
        await intake.stop()
        await previews.close()
        await wakeups.close()
        await key_limits.close()
        await limits.close()
        await database.close()

    app = Service(
        title="Vestnik",
        version=version("vestnik"),
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        webhooks=contract.router,
    )
    app.state.settings = settings
    app.state.cors = cors_of(settings)
    app.state.express = {("POST", f"{http.API}/events"): (events.WRITES_EVENTS, partial(events.take, intake, key_limits))}
    app.state.database = database
    app.state.gatekeeper = Gatekeeper(settings, database)
    app.state.wakeups = wakeups
    app.state.limits = limits
    app.state.key_limits = key_limits
    app.state.previews = previews
    app.state.verification = Verification(settings)
    app.state.catalogue = catalogue_now
    app.state.intake = intake
    app.state.verp = Verp(settings)
    app.state.secrets = SecretBox(settings.secret_keys)
    app.state.schema_head, app.state.schema_known = head(), known_revisions()
    metrics.BUILD.info({"version": version("vestnik")})

    app.state.routers = [*((http.API, router) for router in ROUTERS), ("", health.router), ("", unsubscribe.router)]
    for prefix, router in app.state.routers:
        app.include_router(router, prefix=prefix)
    problems.install(app)
    if settings.docs == "on":
        publish_contract(app)
    return app


async def see_types(catalogue: Catalogue, session: AsyncSession) -> None:
    """What is counted of every type begins at zero, also of one that was made just now."""
    await catalogue.refresh(session)
    metrics.start_intake(catalogue.types)


def cors_of(settings: Settings) -> dict[str, Any] | None:
    """What pages of other origins may do; nothing when none is configured."""
    if not settings.cors_origins:
        return None
    return {
        "allow_origins": [origin.strip() for origin in settings.cors_origins.split(",")],
        "allow_methods": ["*"],
        "allow_headers": ["Authorization", "Content-Type", "If-Match"],
        "expose_headers": ["ETag", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After", "X-Request-Id"],
    }


def publish_contract(app: FastAPI) -> None:
    """The contract at /api/v1/openapi.json, and a page to read it with."""
    if not PUBLISHED:
        PUBLISHED.append(orjson.dumps(openapi.document(app)))
    (contract,) = PUBLISHED

    async def served(_: Any) -> Response:
        return Response(contract, media_type="application/json")

    app.router.add_route(http.CONTRACT, served, include_in_schema=False)
    app.include_router(openapi.docs_router)


def contract_text(settings: Settings) -> str:
    """The contract as `openapi/vestnik.json` has it."""
    return json.dumps(openapi.document(create_app(settings)), ensure_ascii=False, indent=2, sort_keys=True) + "\n"
