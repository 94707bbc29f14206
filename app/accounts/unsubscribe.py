"""Links by which whoever got a message refuses its type on that contact, without signing in: whoever has the letter has the right.

A token says whom it is for and carries an HMAC (RFC 2104) of that: nobody can make one, and none has to be stored. The key is derived from the newest of
VESTNIK_SECRET_KEYS; tokens of the older ones are good as long as those are listed.

    who + mac     who: account, contact, type (what templates write), or a message (what a letter's header has: a wire knows nothing more)
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from dataclasses import dataclass
from uuid import UUID

from app.core.config import Settings

MAC_OCTETS = 16  # 128 bits (RFC 2104, 5: not less than half of the hash's, and not less than 80)
PATH = "/unsubscribe/"
LONGEST = 300  # characters of a token: two ids and the longest type


@dataclass(frozen=True, slots=True)
class Refusable:
    """What a link refuses: one type on one contact."""

    account_id: UUID
    contact_id: UUID
    type: str


@dataclass(frozen=True, slots=True)
class OfMessage:
    """The same, of a message that says which."""

    message_id: UUID


class UnsubscribeLinks:
    """Makes the links and reads their tokens back."""

    def __init__(self, settings: Settings) -> None:
        self._base = settings.base_url + PATH
        self._keys = [hashlib.sha256(b"unsubscribe:" + key.strip().encode()).digest() for key in settings.secret_keys.get_secret_value().split(",")]

    def link(self, account_id: UUID, contact_id: UUID, code: str) -> str:
        return self._base + self._token(account_id.bytes + contact_id.bytes + code.encode())

    def link_of_message(self, message_id: UUID) -> str:
        return self._base + self._token(message_id.bytes)

    def read(self, token: str) -> Refusable | OfMessage | None:
        """Nothing for a token that we have not made."""
        if len(token) > LONGEST or not token.isascii():
            return None
        try:
            said = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (BadBase64, ValueError):
            return None
        who, mac = said[:-MAC_OCTETS], said[-MAC_OCTETS:]
        if not any([hmac.compare_digest(mac, _mac(key, who)) for key in self._keys]):  # noqa: C419 - all of them: the time tells nobody which one
            return None
        if len(who) == 16:
            return OfMessage(UUID(bytes=who))
        return Refusable(UUID(bytes=who[:16]), UUID(bytes=who[16:32]), who[32:].decode())

    def _token(self, who: bytes) -> str:
        return urlsafe_b64encode(who + _mac(self._keys[0], who)).decode().rstrip("=")


def _mac(key: bytes, who: bytes) -> bytes:
    return hmac.digest(key, who, "sha256")[:MAC_OCTETS]
