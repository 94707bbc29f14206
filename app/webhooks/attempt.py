"""One attempt: signed, sent to where it may go, and what came of it."""

import asyncio
import ssl
import time
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from importlib.metadata import version

import httpx

from app.core.clock import now
from app.core.config import Settings
from app.core.outgoing import Answer, DestinationRefused, Outgoing, Rules
from app.core.secrets import SecretBox
from app.webhooks.models import Webhook
from app.webhooks.pace import Tried, Verdict, retry_after
from app.webhooks.signing import signed_headers

TIMEOUT = 15.0  # seconds from the look at the DNS to the last octet that we read
MOST_READ = 4096
CONNECTIONS = 20  # to one endpoint, of one process
FAULTS = (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError, ValueError)


@cache
def user_agent() -> str:
    return f"Vestnik/{version('vestnik')}"


def rules_of(settings: Settings) -> Rules:
    return Rules(settings.webhook_private_networks, plain_http=settings.env == "local" or settings.webhook_allow_http == "on")


def secrets_of(webhook: Webhook, box: SecretBox, moment: datetime) -> list[str]:
    """What to sign with: the secret, and the one before while it is still good and can be read. ConfigurationError when no key opens the first."""
    old = webhook.old_secret if webhook.old_secret_until is not None and moment < webhook.old_secret_until else None
    return [box.open(webhook.secret), *([box.open(old)] if old is not None and box.opens(old) else [])]


def client_of(webhook: Webhook, settings: Settings, tls: ssl.SSLContext | None = None) -> Outgoing:
    return Outgoing(webhook.url, rules_of(settings), TIMEOUT, CONNECTIONS, tls)


async def attempt(client: Outgoing, webhook_id: str, body: bytes, secrets_now: Sequence[str]) -> tuple[Tried, bytes]:
    """Never fails: what came of it, and the beginning of the answer's body."""
    moment, began = now(), time.monotonic()
    headers = {"content-type": "application/json", "user-agent": user_agent()}
    headers |= signed_headers(webhook_id, int(moment.timestamp()), body, secrets_now)
    answer: Answer | None = None
    verdict: Verdict = "failed"
    try:
        answer = await client.send("POST", headers, body, most=MOST_READ)
        verdict = verdict_of(answer.status)
        error = None if verdict == "delivered" else said_of(answer.status)
    except DestinationRefused as refused:
        verdict, error = "refused", refused.code
    except FAULTS as fault:
        error = name_of(fault)
    wait = retry_after(answer.retry_after, now()) if answer is not None and answer.status in (429, 503) else None
    tried = Tried(verdict, now(), int((time.monotonic() - began) * 1000), answer.status if answer is not None else None, error, wait)
    return tried, answer.body if answer is not None else b""


def verdict_of(status: int) -> Verdict:
    return "delivered" if 200 <= status < 300 else "gone" if status == 410 else "failed"


def said_of(status: int) -> str:
    return "redirect" if 300 <= status < 400 else f"status_{status}"


def name_of(fault: BaseException) -> str:
    """A fault by one of few words, and nothing of what the far side wrote."""
    tls = next((cause for cause in chain_of(fault) if isinstance(cause, ssl.SSLError)), None)
    if tls is not None:
        return "certificate" if isinstance(tls, ssl.SSLCertVerificationError) else "tls"
    if isinstance(fault, TimeoutError | asyncio.TimeoutError | httpx.TimeoutException):
        return "timeout"
    if isinstance(fault, httpx.RemoteProtocolError | httpx.DecodingError):
        return "no_http"
    if isinstance(fault, httpx.ConnectError):
        return "not_connected"
    if isinstance(fault, httpx.TransportError):
        return "connection_lost"
    return "name_not_found" if isinstance(fault, OSError) else "not_sent"


def chain_of(fault: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while fault is not None and fault not in found:
        found.append(fault)
        fault = fault.__cause__ or fault.__context__
    return found
