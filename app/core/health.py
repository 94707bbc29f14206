"""At the root, without a key: is it alive, is it ready, what does it measure."""

import socket
from ipaddress import ip_address

import sqlalchemy as sa
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from app.core.db import SessionDep
from app.core.errors import Forbidden, Unavailable
from app.core.migrate import is_migrated
from app.core.models import WorkerProcess

router = APIRouter(tags=["health"])

ALIVE_SECONDS = 60


class Health(BaseModel):
    status: str


class Targets(BaseModel):
    """One group of Prometheus' http_sd format."""

    targets: list[str]
    labels: dict[str, str]


@router.get("/health/live", operation_id="health_live", summary="The process answers")
async def live() -> Health:
    return Health(status="ok")


@router.get("/health/ready", operation_id="health_ready", summary="The database is reachable and migrated")
async def ready(request: Request) -> Health:
    try:
        migrated = await is_migrated(request.app.state.database, request.app.state.schema_head, request.app.state.schema_known)
    except Exception as error:
        raise Unavailable("The database is not reachable.", code="database_unreachable") from error
    if not migrated:
        raise Unavailable("The schema is not that of this version: run `vestnik migrate`.", code="not_migrated")
    return Health(status="ready")


def allow_metrics(request: Request) -> None:
    """Forbidden outside VESTNIK_METRICS_ALLOW."""
    peer = request.client.host if request.client else ""
    try:
        address = ip_address(peer)
    except ValueError:
        raise Forbidden("Metrics are for the monitoring's network.", code="metrics_not_allowed") from None
    address = getattr(address, "ipv4_mapped", None) or address  # how an IPv4 peer looks to a server that listens on ::
    if not any(address in network for network in request.app.state.settings.metrics_networks):
        raise Forbidden("Metrics are for the monitoring's network.", code="metrics_not_allowed")


@router.get("/metrics", operation_id="read_metrics", summary="This process for Prometheus", response_class=Response)
async def read_metrics(request: Request) -> Response:
    allow_metrics(request)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@router.get("/metrics/targets", operation_id="list_metrics_targets", summary="The workers' metrics ports, in Prometheus' http_sd format")
async def targets(request: Request, session: SessionDep) -> list[Targets]:
    allow_metrics(request)
    alive = sa.select(WorkerProcess).where(sa.text("seen_at > now() - make_interval(secs => :s) AND metrics_port IS NOT NULL").bindparams(s=ALIVE_SECONDS))
    rows = (await session.execute(alive.order_by(sa.column("queues")))).scalars()
    settings = request.app.state.settings
    host = socket.gethostname() if settings.http_host in {"0.0.0.0", "::"} else settings.http_host  # noqa: S104 - compared, not bound
    own = Targets(targets=[f"{host}:{settings.http_port}"], labels={"process": "serve"})
    return [own, *(Targets(targets=[f"{row.host}:{row.metrics_port}"], labels={"process": row.queues}) for row in rows)]
