"""Gateways, and binds that say of themselves that they are up."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

from app.core.clock import now
from app.core.db import Database
from app.gateways.models import BindSlot, Gateway
from app.gateways.settings import stored
from app.gateways.smpp import SmppSettings
from app.gateways.smtp import SmtpSettings

# Short, so that a scenario takes tenths of a second.
QUICK = {"reconnect_min": 0.05, "reconnect_max": 1, "response_timeout": 5, "retry_backoff_min": 0.2, "retry_backoff_max": 1}


async def an_smpp_gateway(database: Database, name: str = "main", *, port: int = 2775, bound: bool = False, paused: bool = False, **settings: Any) -> Gateway:
    """`bound`: some worker elsewhere says that slot 0 is up."""
    given = {"host": "127.0.0.1", "port": port, "system_id": "isp", "sender": "MyISP", "profile": QUICK}
    shape = SmppSettings.model_validate(given | settings)
    gateway = Gateway(name=name, kind="smpp", settings=stored(shape), enabled=shape.enabled, paused=paused)
    async with database.transaction() as session:
        session.add(gateway)
        if bound:
            session.add(BindSlot(gateway=name, slot=0, owner="elsewhere", fence=uuid4(), until=now() + timedelta(minutes=5), status={"state": "bound"}))
    return gateway


async def an_smtp_gateway(database: Database, name: str = "post", *, port: int = 2525, paused: bool = False, **settings: Any) -> Gateway:
    given = {"kind": "smtp", "host": "127.0.0.1", "port": port, "tls": "none", "from": "MyISP <noreply@isp.example>", "profile": {"reconnect_min": 0.05}}
    shape = SmtpSettings.model_validate(given | settings)
    gateway = Gateway(name=name, kind="smtp", settings=stored(shape), enabled=shape.enabled, paused=paused)
    async with database.transaction() as session:
        session.add(gateway)
    return gateway
