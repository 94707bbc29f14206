"""Trying a gateway out: what the far end says to a bind, or to EHLO. Nothing is sent, and nothing stays open."""

import asyncio
import time
from datetime import datetime

from pydantic import BaseModel, ValidationError

from app.core.secrets import SecretBox
from app.gateways.hosts import Endpoint, shown
from app.gateways.models import Gateway
from app.gateways.settings import smpp_settings, smtp_settings
from app.gateways.smpp import SmppSettings
from app.sending.smpp import pdu
from app.sending.smpp.opening import FarEnd, Mode, NotOpenedError, Opened, is_success, open_session
from app.sending.smtp.check import check as check_smtp

SECONDS_A_HOST = 15.0
SECONDS_IN_ALL = 60.0
_GOODBYE = 2.0

SIDES: dict[str, tuple[Mode, ...]] = {"trx": ("trx",), "tx_rx": ("tx", "rx"), "tx": ("tx",), "rx": ("rx",)}
NAMES: dict[Mode, str] = {"trx": "transceiver", "tx": "transmitter", "rx": "receiver"}


class FarEndOut(BaseModel):
    """What one host said, as far as the talk got. `seconds` is how long that took."""

    ok: bool
    bind: str
    host: str
    address: str
    tls_version: str
    tls_cipher: str
    certificate_subject: str
    certificate_until: datetime | None
    command_status: str
    status_name: str
    system_id: str
    interface_version: str
    error: str
    seconds: float


class CheckOut(BaseModel):
    """`live`: a bind that is up was asked, no other one was opened. `hosts`: what each host of an SMSC said, for each bind of a pair."""

    ok: bool
    live: bool
    detail: str
    hosts: list[FarEndOut] = []


async def try_out(gateway: Gateway, secrets: SecretBox) -> CheckOut:
    """Open a session with every host, see how far each gets, close it. It is well when each bind of the gateway can be made at some host."""
    if gateway.kind == "smtp":
        report = await check_smtp(smtp_settings(gateway, secrets))
        return CheckOut(ok=bool(report["ok"]), live=False, detail=str(report["detail"]))
    try:
        settings = smpp_settings(gateway, secrets)
    except ValidationError as error:
        return CheckOut(ok=False, live=False, detail=f"this version cannot read the settings, send them again by PUT: {error.errors()[0]['msg']}")
    sides = SIDES[settings.profile.bind_mode]
    hosts: list[FarEndOut] = []
    until = time.monotonic() + SECONDS_IN_ALL
    # One after another: an account that is allowed one bind would refuse the second for its number alone.
    for mode in sides:
        endpoints = settings.rx_endpoints if mode == "rx" and len(sides) > 1 else settings.endpoints
        hosts += [await _try_host(settings, mode, endpoint, min(SECONDS_A_HOST, until - time.monotonic())) for endpoint in endpoints]
    modes = {host.bind for host in hosts}
    well = {host.bind for host in hosts if host.ok}
    return CheckOut(ok=well == modes, live=False, detail="; ".join(map(sentence, hosts)), hosts=hosts)


async def _try_host(settings: SmppSettings, mode: Mode, endpoint: Endpoint, seconds: float) -> FarEndOut:
    far_end = FarEnd(mode, shown(endpoint))
    well = False
    if seconds < 1:
        far_end.error = f"not tried: the other hosts took {SECONDS_IN_ALL:.0f} s"
        return seen(far_end, ok=False)
    try:
        async with asyncio.timeout(seconds):
            opened = await open_session(endpoint, settings, far_end, sequence=1)
        well = is_success(opened.status, settings.profile)
        await _part(opened, unbind=well)
    except TimeoutError:
        far_end.error = far_end.error or f"no answer within {seconds:.0f} s"
    except NotOpenedError:
        pass  # `error` says why
    return seen(far_end, ok=well)


async def _part(opened: Opened, *, unbind: bool) -> None:
    """Say goodbye, so that the SMSC forgets the session at once and the worker's bind is not refused for it."""
    try:
        async with asyncio.timeout(_GOODBYE):
            if unbind:
                opened.writer.write(pdu.frame(pdu.UNBIND, 2))
                while chunk := await opened.reader.read(65_536):
                    if pdu.frame(pdu.UNBIND_RESP, 2)[4:] in chunk:
                        break
    except (TimeoutError, OSError):
        pass  # it was told; whether it agrees changes nothing
    finally:
        opened.writer.transport.abort()


def seen(far_end: FarEnd, *, ok: bool) -> FarEndOut:
    version = "" if far_end.interface_version is None else f"0x{far_end.interface_version:02X}"
    return FarEndOut(
        ok=ok,
        bind=NAMES[far_end.mode],
        host=far_end.host,
        address=far_end.address,
        tls_version=far_end.tls_version,
        tls_cipher=far_end.tls_cipher,
        certificate_subject=far_end.certificate_subject,
        certificate_until=far_end.certificate_until,
        command_status=far_end.command_status,
        status_name=far_end.status_name,
        system_id=far_end.system_id,
        interface_version=version,
        error=far_end.error,
        seconds=far_end.seconds,
    )


def sentence(host: FarEndOut) -> str:
    """One line for a person: `transceiver at smsc.example:2775: bound to SMSC1 (0x34) over TLSv1.3 in 0.08 s`."""
    over = f" over {host.tls_version}" if host.tls_version else ""
    took = f"in {host.seconds:g} s"
    place = f"{host.bind} at {host.host}"
    if host.ok:
        version = f" (interface_version {host.interface_version})" if host.interface_version else ""
        return f"{place}: bound to {host.system_id or 'an SMSC without a name'}{version}{over} {took}"
    if host.command_status:
        return f"{place}: the bind was refused with {host.command_status} {host.status_name}{over} {took}"
    return f"{place}: {host.error or 'no connection'} {took}"
