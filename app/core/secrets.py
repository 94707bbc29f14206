"""Secrets at rest: Fernet with rotation. The newest key encrypts, every key decrypts."""

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from app.core.errors import ConfigurationError


class SecretBox:
    """Encrypts what the database keeps but may not know (a gateway's password)."""

    def __init__(self, keys: SecretStr) -> None:
        fernets = [Fernet(key.strip()) for key in keys.get_secret_value().split(",")]
        self._newest, self._fernet = fernets[0], MultiFernet(fernets)

    def seal(self, text: str) -> bytes:
        return self._fernet.encrypt(text.encode())

    def open(self, sealed: bytes) -> str:
        """The text; ConfigurationError when none of VESTNIK_SECRET_KEYS made it."""
        try:
            return self._fernet.decrypt(bytes(sealed)).decode()
        except InvalidToken:
            raise ConfigurationError("a stored secret was made with a key that VESTNIK_SECRET_KEYS no longer lists") from None

    def opens(self, sealed: bytes) -> bool:
        try:
            self.open(sealed)
        except ConfigurationError:
            return False
        return True

    def renewed(self, sealed: bytes) -> bytes | None:
        """The same, made with the newest key; nothing where it was made with that already, or where no key opens it."""
        try:
            self._newest.decrypt(bytes(sealed))
        except InvalidToken:
            return self.seal(self.open(sealed)) if self.opens(sealed) else None
        return None
