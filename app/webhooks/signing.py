"""Signatures by Standard Webhooks (standardwebhooks.com, version 1): HMAC-SHA256 over `id.timestamp.body`."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

PREFIX = "whsec_"
OCTETS = 32  # the specification asks for 24 to 64


def new_secret() -> str:
    """A secret as the receiver is to keep it: `whsec_` and 32 random octets in base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(OCTETS)).decode()


def signed_headers(webhook_id: str, timestamp: int, body: bytes, secrets_now: Sequence[str]) -> dict[str, str]:
    """The three headers. While a secret is being changed there are two, and a signature by each: the receiver needs to know one of them.

    `timestamp`: seconds since 1970 of this very attempt, so that a receiver can refuse what is old."""
    content = b".".join((webhook_id.encode(), str(timestamp).encode(), body))
    signatures = (base64.b64encode(hmac.new(key_of(secret), content, hashlib.sha256).digest()).decode() for secret in secrets_now)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def key_of(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(PREFIX))
