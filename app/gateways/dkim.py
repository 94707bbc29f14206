"""How the letters of a gateway are signed: domain, selector and key (RFC 6376, RFC 8463), checked. Pure; app/sending/smtp/dkim.py signs."""

import base64
import re
from binascii import Error as BadBase64
from typing import Annotated

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

SigningKey = RSAPrivateKey | Ed25519PrivateKey

# RFC 8301, 3.2: what is shorter, nobody trusts; what is longer, nobody has to understand.
LEAST_BITS, MOST_BITS = 1024, 4096
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
DOMAIN = re.compile(rf"{LABEL}(?:\.{LABEL})+")
SELECTOR = re.compile(rf"{LABEL}(?:\.{LABEL})*")
FIELD = re.compile(r"[a-z0-9-]{1,76}")

# RFC 6376, 5.4.1; RFC 8058, 4, for the two of the one-click link. What no letter of ours has is listed all the same: then nobody can add it.
SIGNED = (
    *("from", "to", "subject", "date", "reply-to", "message-id", "mime-version", "content-type", "content-transfer-encoding", "auto-submitted"),
    *("list-unsubscribe", "list-unsubscribe-post", "feedback-id"),
)
# RFC 6376, 5.4.2 and 3.6.1: relays write these, or the signature is one of them.
UNSIGNABLE = frozenset({"return-path", "received", "dkim-signature", "arc-seal", "arc-message-signature", "arc-authentication-results", "bcc"})


def signing_key(written: str) -> SigningKey:
    """The key of a PEM text, or of the 32 octets in base64 that an Ed25519 key is. ValueError with a sentence that says what to change."""
    text = written.strip()
    if not text.startswith("-----BEGIN "):
        return _bare_ed25519(text)
    try:
        key = load_pem_private_key((text + "\n").encode(), password=None)
    except TypeError:
        raise ValueError("the key is locked with a password: write it without one, as `openssl pkey -in key.pem` does") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("this is no private key in PEM: copy it whole, from -----BEGIN to -----END") from None
    if isinstance(key, Ed25519PrivateKey):
        return key
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("DKIM signs with RSA or Ed25519: make a key with `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048`")  # noqa: TRY004 - pydantic tells ValueErrors to the caller
    if not LEAST_BITS <= key.key_size <= MOST_BITS:
        raise ValueError(f"the RSA key has {key.key_size} bits: take one of {LEAST_BITS} to {MOST_BITS}, 2048 is usual (RFC 8301, 3.2)")
    return key


def _bare_ed25519(text: str) -> Ed25519PrivateKey:
    try:
        octets = base64.b64decode(text, validate=True)
    except (BadBase64, ValueError):
        octets = b""
    if len(octets) != 32:
        raise ValueError("write the private key in PEM, or the 32 octets of an Ed25519 key in base64")
    return Ed25519PrivateKey.from_private_bytes(octets)


def _domain(value: str) -> str:
    if len(value) > 253 or not DOMAIN.fullmatch(value):
        raise ValueError("a domain name in ASCII, as isp.example")
    return value.lower()


def _selector(value: str) -> str:
    if not SELECTOR.fullmatch(value):
        raise ValueError("the name before ._domainkey in DNS, as s2026: letters, digits, hyphens and dots")
    return value


def _key(value: SecretStr) -> SecretStr:
    if value.get_secret_value():
        signing_key(value.get_secret_value())
    return value


def _fields(value: list[str]) -> list[str]:
    names = [name.lower() for name in value]
    if "from" not in names:
        raise ValueError("from has to be among them (RFC 6376, 5.4)")
    if len(set(names)) < len(names):
        raise ValueError("one of them stands here twice")
    for name in names:
        if name in UNSIGNABLE or not FIELD.fullmatch(name):
            raise ValueError(f"{name[:80]!r} is no header that can be signed")
    return names


class Dkim(BaseModel):
    """The signature of every letter. The public half of the key stands in DNS at `selector._domainkey.domain`."""

    model_config = ConfigDict(extra="forbid")

    domain: Annotated[str, AfterValidator(_domain)] = Field(
        max_length=253, description="who answers for the letters; the sender's domain or one above it, or DMARC does not count the signature"
    )
    selector: Annotated[str, AfterValidator(_selector)] = Field(max_length=63, description="the name of the key in DNS: `selector._domainkey.domain`")
    private_key: Annotated[SecretStr, BeforeValidator(lambda value: "" if value is None else value), AfterValidator(_key)] = Field(
        SecretStr(""), max_length=10_000, description="RSA or Ed25519 in PEM, or 32 octets of Ed25519 in base64; write-only, and left out it stays"
    )
    headers: Annotated[list[str], AfterValidator(_fields)] = Field(
        default_factory=lambda: list(SIGNED), min_length=1, max_length=50, description="the headers that are signed; nobody can add another one of them"
    )
