"""Signatures of letters: DKIM (RFC 6376) with RSA-SHA256 or Ed25519-SHA256 (RFC 8463), headers relaxed, body simple.

dkimpy gives the canonical forms, and tests verify with it; its own signing is pure Python and holds the event loop up for 6.8 ms a letter. OpenSSL
takes 0.25-0.6 ms with RSA of 2048 bits, and 0.02 ms with Ed25519. `relaxed` for the body would cost another 0.25 ms for every 9 KB, and nothing of
ours has white space that a relay would touch.
"""

import asyncio
import hashlib
import re
import time
from base64 import b64encode

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from dkim.canonicalization import Relaxed, Simple

from app.gateways.dkim import Dkim, signing_key
from app.sending.smtp.mime import Message

# Beyond these it takes longer than a millisecond, and is done in a thread.
QUICK_OCTETS, QUICK_BITS = 256 * 1024, 2048
LINE = 76
NEXT_FIELD = re.compile(rb"\r\n(?![ \t])")


class Signer:
    """Signs with one key. The same letter signed in another second has another signature: `t` says when."""

    def __init__(self, dkim: Dkim) -> None:
        """ValueError when there is no key."""
        self._key = signing_key(dkim.private_key.get_secret_value())
        self._algorithm = "ed25519-sha256" if isinstance(self._key, Ed25519PrivateKey) else "rsa-sha256"
        self._is_slow = not isinstance(self._key, Ed25519PrivateKey) and self._key.key_size > QUICK_BITS
        self._domain, self._selector = dkim.domain, dkim.selector
        self._names = [name.encode() for name in dkim.headers]

    async def sign(self, message: Message) -> Message:
        """The letter with its DKIM-Signature as the first header. A large one does not hold the event loop up."""
        if self._is_slow or len(message.data) > QUICK_OCTETS:
            signature = await asyncio.to_thread(self.signature, message.data)
        else:
            signature = self.signature(message.data)
        return message._replace(data=signature + message.data)

    def signature(self, data: bytes) -> bytes:
        """The DKIM-Signature header of a letter (header, empty line, body; lines end in CRLF), with its line end."""
        head, _, body = data.partition(b"\r\n\r\n")
        given: list[tuple[bytes, bytes]] = Relaxed.canonicalize_headers([_split(line) for line in NEXT_FIELD.split(head)])
        names, signed = self._chosen(given)
        header = self._header(names, b64encode(hashlib.sha256(Simple.canonicalize_body(body)).digest()).decode())
        (own,) = Relaxed.canonicalize_headers([(b"DKIM-Signature", header)])
        # RFC 6376, 3.7: the signature's own header comes last, with nothing after b=, and without a line end.
        told = b"".join(name + b":" + value for name, value in [*signed, (own[0], own[1].rstrip())])
        return b"DKIM-Signature:" + header + _folded(b64encode(self._made(told))) + b"\r\n"

    def _made(self, told: bytes) -> bytes:
        if isinstance(self._key, Ed25519PrivateKey):
            return self._key.sign(hashlib.sha256(told).digest())  # RFC 8463, 3: of the hash
        return self._key.sign(told, PKCS1v15(), SHA256())

    def _chosen(self, given: list[tuple[bytes, bytes]]) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
        """What goes into h=, and the fields that it stands for, the last of a name first (RFC 6376, 5.4.2).

        Every name once more than it is there: a second From that somebody adds breaks the signature (RFC 6376, 8.15)."""
        names, signed = [], []
        for name in self._names:
            found = [field for field in reversed(given) if field[0] == name]
            signed += found
            names += [name] * (len(found) + 1)
        return names, signed

    def _header(self, names: list[bytes], body_hash: str) -> bytes:
        """The value of the header up to and with `b=`."""
        tags = f" v=1; a={self._algorithm}; c=relaxed/simple; d={self._domain};\r\n s={self._selector}; t={int(time.time())};\r\n".encode()
        lines, current = [], b" h="
        for number, name in enumerate(names):
            piece = name + (b":" if number < len(names) - 1 else b";")
            if len(current) + len(piece) > LINE:
                lines.append(current)
                current = b"  "
            current += piece
        return tags + b"\r\n".join([*lines, current]) + f"\r\n bh={body_hash};\r\n b=".encode()


def _split(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name, value


def _folded(octets: bytes) -> bytes:
    return b"\r\n  ".join(octets[at : at + 70] for at in range(0, len(octets), 70))
