"""Envelope senders that say which letter they are of: what comes back to one names the message without a look into the database.

    bounces@mail.isp.example  ->  bounces+<message id>.<mac>@mail.isp.example

Id and HMAC (RFC 2104) are in base32, because relays may change the case of a local part. The key is derived from the newest of VESTNIK_SECRET_KEYS;
addresses that older ones made are read as long as those are listed. Nobody else can make one.
"""

import hashlib
import hmac
import re
from base64 import b32decode, b32encode
from binascii import Error as BadBase32
from uuid import UUID

from app.core.config import Settings

MAC_OCTETS = 10  # 80 bits: the least of RFC 2104, 5, for one has 64 octets for everything before the @ (RFC 5321, 4.5.3.1.1)
ID, MAC = 26, 16  # characters
SHAPE = re.compile(rf"<?[^@+<>\s]{{1,64}}\+([a-z2-7]{{{ID}}})\.([a-z2-7]{{{MAC}}})@[^@<>\s]{{1,255}}>?", re.IGNORECASE | re.ASCII)


class Verp:
    """Makes the addresses and reads them back."""

    def __init__(self, settings: Settings) -> None:
        self._keys = [hashlib.sha256(b"verp:" + key.strip().encode()).digest() for key in settings.secret_keys.get_secret_value().split(",")]

    def sender(self, return_path: str, message_id: UUID) -> str:
        """The envelope sender of this letter. `return_path` has been checked: at most 20 characters before its @."""
        local, _, domain = return_path.rpartition("@")
        return f"{local}+{_written(message_id.bytes)}.{_written(_mac(self._keys[0], message_id.bytes))}@{domain}"

    def read(self, address: str) -> UUID | None:
        """The message of an address that we have made; nothing for any other."""
        found = SHAPE.fullmatch(address.strip())
        if found is None:
            return None
        try:
            who, mac = _read(found[1]), _read(found[2])
        except BadBase32:
            return None
        if not any([hmac.compare_digest(mac, _mac(key, who)) for key in self._keys]):  # noqa: C419 - all of them: the time tells nobody which one
            return None
        return UUID(bytes=who)

    def is_forged(self, address: str) -> bool:
        """Whether it looks like one of ours and is none."""
        return SHAPE.fullmatch(address.strip()) is not None and self.read(address) is None


def _mac(key: bytes, who: bytes) -> bytes:
    return hmac.digest(key, who, "sha256")[:MAC_OCTETS]


def _written(octets: bytes) -> str:
    return b32encode(octets).decode().rstrip("=").lower()


def _read(text: str) -> bytes:
    return b32decode(text.upper() + "=" * (-len(text) % 8))
